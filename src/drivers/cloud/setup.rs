//! Preparing a host: the keeper, the recipe's scripts, bootstrap and install. All of it may be done twice; what was
//! done already is known by a mark on the host itself, so that a game that fell is back within seconds.

use super::arrive::{public_ports, written};
use super::{CloudDriver, ssh_error};
use crate::clients::ssh::{Ended, Exec, Exited, Ssh, SshError};
use crate::engine::{StepCx, StepError};
use crate::model::ServerId;
use crate::model::host::OWN_MACHINE;
use crate::model::job::{Action, Gain};
use crate::model::recipe::{Recipe, Surroundings};
use crate::model::server::Server;
use bytes::Bytes;
use std::collections::HashMap;
use std::time::Duration;

/// The host's side of this backend; its head says what it does.
const KEEPER: &str = include_str!("keeper.sh");
pub(super) const KEEPER_PATH: &str = "/opt/spawnpoint/keeper";
/// Calls that only look, or write a small file.
pub(super) const CALL_LIMIT: Duration = Duration::from_secs(60);
/// For each question of a look at a machine, which a person waits for.
const EXAMINE_LIMIT: Duration = Duration::from_secs(10);
/// A file that is read has to fit into memory.
const FILE_MAX_BYTES: usize = 4 << 20;
/// So much of a server's id is in the name of its user on a host.
const USER_ID_CHARS: usize = 8;
/// Debian and its like; the recipes need them.
const CHECK_SYSTEM: &str = "command -v apt-get >/dev/null && command -v bash >/dev/null";
/// For bringing nftables to a rented host that came without it.
const NFT_LIMIT: Duration = Duration::from_secs(90);
/// The image's own updates may be at work, so it waits a little for them; its limits end it before ours does.
const BRING_NFT: &str = "export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    export DEBIAN_FRONTEND=noninteractive
    if command -v nft >/dev/null; then exit; fi
    echo 'This host has no nftables, which its firewall needs; installing it.'
    timeout 30 apt-get -qq update
    timeout 55 apt-get -qq -o DPkg::Lock::Timeout=20 install -y --no-install-recommends nftables 2>&1";
/// Of a rented host on which that was in vain.
const NO_FIREWALL: &str = "the host has no firewall of its own, as nftables is missing there or does not work; only the \
                           provider's closes its ports";
/// Writes standard input to a file at once or not at all, with these permissions.
const WRITE: &str =
    r#"umask 077; mkdir -p "$(dirname "$1")" && cat >"$1.part" && chmod "$2" "$1.part" && mv -fT "$1.part" "$1""#;

pub(super) fn home(id: &ServerId) -> String {
    format!("/srv/spawnpoint/{id}")
}

pub(super) fn game_dir(id: &ServerId) -> String {
    format!("{}/game", home(id))
}

/// A command as root: as it is, or through sudo where the machine's owner gave us another user. What is not there yet is
/// code 127 from `env`, as from a shell; sudo itself would say 1, which says nothing.
pub(super) fn as_root(ssh: &Ssh, argv: &[&str], limit: Duration) -> Exec {
    let sudo: &[&str] = if ssh.target().user == "root" { &[] } else { &["sudo", "-n", "env"] };
    Exec::new(sudo.iter().chain(argv).copied(), limit)
}

/// A command as the user of a game, for files that are this user's own: where root looks, a link that a game has laid
/// would lead to anything on the machine.
pub(super) fn as_game(ssh: &Ssh, id: &ServerId, argv: &[&str], limit: Duration) -> Exec {
    let user = user_of(id);
    let become_user = ["setpriv", "--reuid", &user, "--regid", &user, "--init-groups", "--no-new-privs", "--"];
    as_root(ssh, &[&become_user[..], argv].concat(), limit)
}

/// As the keeper names it.
fn user_of(id: &ServerId) -> String {
    format!("sp-{}", id.0.chars().take(USER_ID_CHARS).collect::<String>())
}

/// A call of the keeper about one server.
pub(super) fn keeper(ssh: &Ssh, verb: &str, id: &ServerId, more: &[&str], limit: Duration) -> Exec {
    as_root(ssh, &[&[KEEPER_PATH, verb, id.0.as_str()], more].concat(), limit)
}

pub(super) async fn write(ssh: &Ssh, path: &str, content: impl Into<Bytes>, mode: &str) -> Result<(), StepError> {
    write_by(as_root(ssh, &write_command(path, mode), CALL_LIMIT), ssh, path, content).await
}

/// The same for a file within a game's own folder.
pub(super) async fn write_game(
    ssh: &Ssh,
    id: &ServerId,
    path: &str,
    content: impl Into<Bytes>,
) -> Result<(), StepError> {
    write_by(as_game(ssh, id, &write_command(path, "644"), CALL_LIMIT), ssh, path, content).await
}

fn write_command<'a>(path: &'a str, mode: &'a str) -> [&'a str; 6] {
    ["sh", "-c", WRITE, "sh", path, mode]
}

async fn write_by(mut exec: Exec, ssh: &Ssh, path: &str, content: impl Into<Bytes>) -> Result<(), StepError> {
    exec.stdin = Some(content.into());
    let exited = ssh.run_quietly(exec).await.map_err(ssh_error("writing to the host"))?;
    exited.ok().map(drop).map_err(ssh_error(&format!("writing {path} on the host")))
}

/// The text of a small file, `None` where there is none. To look into and not to write back: what is no UTF-8 in it is
/// replaced.
pub(super) async fn read(ssh: &Ssh, path: &str) -> Result<Option<String>, StepError> {
    let content = read_by(as_root(ssh, &read_command(path), CALL_LIMIT), ssh, path).await?;
    Ok(content.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

/// The very bytes of a file within a game's own folder: it may be written back.
pub(super) async fn read_game(ssh: &Ssh, id: &ServerId, path: &str) -> Result<Option<Vec<u8>>, StepError> {
    read_by(as_game(ssh, id, &read_command(path), CALL_LIMIT), ssh, path).await
}

fn read_command(path: &str) -> [&str; 5] {
    ["sh", "-c", "[ -e \"$1\" ] || exit 44; exec cat \"$1\"", "sh", path]
}

async fn read_by(exec: Exec, ssh: &Ssh, path: &str) -> Result<Option<Vec<u8>>, StepError> {
    let what = format!("reading {path} on the host");
    let (exited, content) = ssh.stdout(exec, FILE_MAX_BYTES).await.map_err(ssh_error(&what))?;
    match exited.ended {
        Ended::Code(0) => Ok(Some(content)),
        Ended::Code(44) => Ok(None),
        Ended::Code(_) | Ended::Signal(_) => Err(exited_error(&what, exited)),
    }
}

/// What a machine of your own is like, without changing it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Our user is root there, or becomes it without a password.
    pub root: bool,
    /// The recipes can prepare it.
    pub fits: bool,
    pub rsync: bool,
}

/// # Errors
/// When it cannot be reached, does not show its pinned key, or does not let us in.
pub async fn examine(ssh: &Ssh) -> Result<Found, SshError> {
    let yes = async |exec: Exec| Ok::<bool, SshError>(ssh.run_quietly(exec).await?.success());
    let sh = |script: &str| Exec::new(["sh", "-c", script], EXAMINE_LIMIT);
    Ok(Found {
        root: yes(as_root(ssh, &["true"], EXAMINE_LIMIT)).await?,
        fits: yes(sh(CHECK_SYSTEM)).await?,
        rsync: yes(sh("command -v rsync >/dev/null")).await?,
    })
}

pub(super) fn exited_error(what: &str, exited: Exited) -> StepError {
    match exited.ok() {
        Ok(_) => StepError::fatal(what.to_owned()),
        Err(error) => ssh_error(what)(error),
    }
}

/// A host without it is one to play on all the same: whatever goes wrong here ends no start.
async fn bring_nft(cx: &StepCx<'_>, ssh: &Ssh) {
    let exec = as_root(ssh, &["sh", "-c", BRING_NFT], NFT_LIMIT);
    if let Err(error) = ssh.run(exec, &mut |line| cx.out.line(line)).await.and_then(Exited::ok) {
        cx.out.line(format!("Installing nftables: {error}"));
    }
}

/// Closes all ports of a rented host but those that people need. `false` where its system cannot.
async fn set_firewall(cx: &StepCx<'_>, ssh: &Ssh, server: &Server, recipe: &Recipe) -> Result<bool, StepError> {
    let mut rules: Vec<String> = vec!["tcp:22".to_owned()];
    rules.extend(written(&public_ports(recipe, &server.owned.ports)));
    let argv: Vec<&str> = [KEEPER_PATH, "firewall"].into_iter().chain(rules.iter().map(String::as_str)).collect();
    let mut closed = true;
    let mut told = |line: &str| match line {
        "set" => {}
        "no-nft" => closed = false,
        other => cx.out.line(other),
    };
    let exited = ssh.run(as_root(ssh, &argv, CALL_LIMIT), &mut told).await;
    exited.and_then(Exited::ok).map_err(ssh_error("closing the host's firewall"))?;
    Ok(closed)
}

impl CloudDriver {
    pub(super) async fn bootstrap(&self, cx: &StepCx<'_>) -> Result<Gain, StepError> {
        let server = cx.server()?;
        let recipe = self.recipe(&server.game)?;
        let ssh = self.link(server).await?;
        let checked = ssh.run_quietly(as_root(&ssh, &["sh", "-c", CHECK_SYSTEM], CALL_LIMIT)).await;
        if !checked.map_err(ssh_error("looking at the host's system"))?.success() {
            return Err(StepError::fatal(
                "The host runs no Debian or Ubuntu, or its user may not use sudo without a password. Recipes need both.",
            ));
        }
        write(&ssh, KEEPER_PATH, KEEPER, "755").await?;
        self.call(cx, &ssh, "setup", &server.id, &[], CALL_LIMIT).await?;
        let home = home(&server.id);
        self.write_scripts(cx, &ssh, server, recipe).await?;
        // Whose start made this folder: undoing that start may take it away, undoing another may not.
        let mark = format!("{home}/state/made-by-job");
        if read(&ssh, &mark).await?.is_none() {
            write(&ssh, &mark, cx.job.id.to_string(), "600").await?;
        }
        if self.host_of(server)?.provider == OWN_MACHINE {
            // A machine of yours may serve several Spawnpoints: a sweep knows its own folders by this.
            write(&ssh, &format!("{home}/state/instance"), self.settings.instance.clone(), "600").await?;
        }
        let done = format!("{home}/state/bootstrapped");
        let key = self.recipes.image_key(&server.game).unwrap_or_default();
        let prepared = read(&ssh, &done).await?.is_some_and(|known| known == key);
        let closed = self.host_of(server)?.provider == OWN_MACHINE || {
            if !prepared {
                bring_nft(cx, &ssh).await;
            }
            set_firewall(cx, &ssh, server, recipe).await?
        };
        let warning = (!closed).then_some(NO_FIREWALL);
        if prepared {
            let notes: Vec<&str> = ["already prepared"].into_iter().chain(warning).collect();
            return Ok(Gain::note(notes.join("; ")));
        }
        let limit = Duration::from_secs(recipe.timeouts.bootstrap_s);
        self.run_script(cx, &ssh, recipe, "bootstrap", &["as-root"], limit).await?;
        let rsync = ssh.run_quietly(as_root(&ssh, &["sh", "-c", "command -v rsync"], CALL_LIMIT)).await;
        if !rsync.map_err(ssh_error("looking for rsync"))?.success() {
            return Err(StepError::fatal(
                "The bootstrap script of this recipe did not install rsync, and worlds travel with it.",
            ));
        }
        write(&ssh, &done, key, "600").await?;
        Ok(warning.map_or_else(Gain::default, Gain::note))
    }

    pub(super) async fn install(&self, cx: &StepCx<'_>) -> Result<Gain, StepError> {
        let server = cx.server()?;
        let recipe = self.recipe(&server.game)?;
        let ssh = self.link(server).await?;
        let done = format!("{}/state/installed", home(&server.id));
        let key = self.recipes.install_key(&server.game).unwrap_or_default();
        let update = match cx.job.action {
            Action::Update => true,
            Action::Start | Action::Stop | Action::Restart | Action::Backup => false,
            Action::Restore { .. } | Action::Delete | Action::Move { .. } | Action::BuildSnapshot => false,
        };
        if !update && read(&ssh, &done).await?.is_some_and(|known| known == key) {
            return Ok(Gain::note("already installed"));
        }
        // From here on it is neither the old install nor the new one.
        write(&ssh, &done, "", "600").await?;
        // The recipe may be another than when the host was made.
        self.write_scripts(cx, &ssh, server, recipe).await?;
        if self.recipes.has_script(&server.game, "install") {
            let limit = Duration::from_secs(recipe.timeouts.install_s);
            self.run_script(cx, &ssh, recipe, "install", &[], limit).await?;
        }
        write(&ssh, &done, key, "600").await?;
        Ok(Gain::default())
    }

    async fn write_scripts(
        &self,
        cx: &StepCx<'_>,
        ssh: &Ssh,
        server: &Server,
        recipe: &Recipe,
    ) -> Result<(), StepError> {
        let home = home(&server.id);
        for (name, content) in self.recipes.scripts(&server.game).map_err(StepError::Fatal)? {
            write(ssh, &format!("{home}/scripts/{name}"), content, "755").await?;
        }
        self.write_environment(cx, ssh, server, recipe).await.map(drop)
    }

    async fn run_script(
        &self,
        cx: &StepCx<'_>,
        ssh: &Ssh,
        recipe: &Recipe,
        script: &str,
        more: &[&str],
        limit: Duration,
    ) -> Result<(), StepError> {
        let exec = keeper(ssh, "run-script", &cx.server()?.id, &[&[script], more].concat(), limit);
        let exited = ssh
            .run(exec, &mut |line| cx.out.line(line))
            .await
            .map_err(ssh_error(&format!("running the {script} script")))?;
        if exited.success() {
            return Ok(());
        }
        let last: Vec<String> = exited
            .last
            .iter()
            .rev()
            .filter(|line| !line.trim().is_empty())
            .take(1)
            .map(|line| cx.out.mask(line))
            .collect();
        let last = last.first().map_or("(it said nothing)", String::as_str);
        let mut error = format!("The {script} script {}. Its last line: {last}", exited.ended);
        // Packages and their names differ from release to release. Where nobody can look, the script's own words are all.
        let system = read(ssh, "/etc/os-release").await.ok().flatten();
        if let Some(another) = system.and_then(|system| recipe.container.made_for_another(&system)) {
            error = format!("{}. {another}", error.trim_end_matches('.'));
        }
        Err(StepError::fatal(error))
    }

    /// One call of the keeper whose output people may see; it must go well.
    pub(super) async fn call(
        &self,
        cx: &StepCx<'_>,
        ssh: &Ssh,
        verb: &str,
        id: &ServerId,
        more: &[&str],
        limit: Duration,
    ) -> Result<Vec<String>, StepError> {
        let mut lines = vec![];
        let exited = ssh
            .run(keeper(ssh, verb, id, more, limit), &mut |line| {
                lines.push(line.to_owned());
            })
            .await
            .map_err(ssh_error(&format!("the host's `{verb}`")))?;
        match exited.success() {
            true => Ok(lines),
            false => {
                lines.iter().for_each(|line| cx.out.line(line));
                Err(exited_error(&format!("the host's `{verb}`"), exited))
            }
        }
    }

    /// The environment of all scripts, in a file that only root reads: nothing secret is on a command line.
    pub(super) async fn write_environment(
        &self,
        cx: &StepCx<'_>,
        ssh: &Ssh,
        server: &Server,
        recipe: &Recipe,
    ) -> Result<Vec<(String, String)>, StepError> {
        let secrets = cx.journal.secrets(&server.id).await.map_err(StepError::Retry)?;
        let settings: HashMap<String, String> = server.settings.clone().into_iter().chain(secrets).collect();
        let dir = game_dir(&server.id);
        let address = self.host_of(server)?.address.map(|address| address.to_string()).unwrap_or_default();
        let env = recipe.environment(&Surroundings {
            game_dir: &dir,
            server_name: server.name.as_str(),
            public_address: &address,
            ports: &server.owned.ports,
            settings: &settings,
        });
        let mut text = String::new();
        for (name, value) in &env {
            text += &format!("export {name}='{}'\n", value.replace('\'', r"'\''"));
        }
        write(ssh, &format!("{}/env", home(&server.id)), text, "600").await?;
        Ok(env)
    }

    /// Whether the game's folder on a machine of yours was made by this job.
    pub(super) async fn folder_is_of_job(&self, server: &Server, job: &str) -> Result<bool, StepError> {
        let ssh = self.link(server).await?;
        let home = home(&server.id);
        let there = ssh.run_quietly(as_root(&ssh, &["test", "-d", &home], CALL_LIMIT)).await;
        if !there.map_err(ssh_error("looking for the game's folder"))?.success() {
            return Ok(true);
        }
        Ok(read(&ssh, &format!("{home}/state/made-by-job")).await?.is_none_or(|made_by| made_by == job))
    }

    pub(super) async fn remove_folder(&self, server: &Server) -> Result<(), StepError> {
        let ssh = self.link(server).await?;
        let there = ssh.run_quietly(as_root(&ssh, &["test", "-x", KEEPER_PATH], CALL_LIMIT)).await;
        if !there.map_err(ssh_error("looking for the keeper"))?.success() {
            return Ok(());
        }
        let exited = ssh.run_quietly(keeper(&ssh, "remove", &server.id, &[], CALL_LIMIT)).await;
        let exited = exited.map_err(ssh_error("removing the game's folder"))?;
        match exited.ended {
            // There is no such server on the machine.
            Ended::Code(0 | 66) => match &server.owned.host {
                Some(host) => self.forget_mark(&server.id, &host.provider, &host.id).await,
                None => Ok(()),
            },
            Ended::Code(_) | Ended::Signal(_) => Err(exited_error("removing the game's folder", exited)),
        }
    }
}
