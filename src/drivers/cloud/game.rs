//! The game on its host: started and stopped by the keeper, and watched through it. It outlives our connection and our
//! process, and stops by itself when nobody has watched it for too long.

use super::arrive::{private_ports, written};
use super::saved::Mark;
use super::setup::{CALL_LIMIT, as_root, exited_error, game_dir, home, keeper, read_game, write, write_game};
use super::{CloudDriver, ssh_error};
use crate::clients::cloud::{Host, HostState};
use crate::clients::ssh::{Ended, Ssh};
use crate::engine::{StepCx, StepError, too_slow};
use crate::model::config_edit;
use crate::model::host::{HostRef, OWN_MACHINE};
use crate::model::job::{Gain, Step};
use crate::model::recipe::{ConsoleProtocol, PIDS_USUAL, ReadyWhen, Recipe};
use crate::model::server::{Owned, Players, Seen, Server};
use futures::StreamExt;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// Servers that are looked at side by side.
const LOOKS_AT_ONCE: usize = 32;
/// One look at a host, connecting included. A host that takes longer is unknown until the next look.
const LOOK_LIMIT: Duration = Duration::from_secs(15);
/// A host is not asked whether it is gone with less time than this, nor up to the very end of its round.
const ANSWER_SLACK: Duration = Duration::from_secs(1);
/// All looks of one round, with what providers are asked about hosts that did not answer. Who asked waits little longer,
/// and would know nothing of any server then.
const ROUND_LIMIT: Duration = Duration::from_secs(25);
/// How often a query, a port, a health check or the game's life is tried while it starts.
const TRY_EVERY: Duration = Duration::from_secs(1);
/// Lines of a dying game's output that its failure quotes.
const LAST_LINES: usize = 3;
/// The keeper's own waiting and killing comes on top of the recipe's grace.
const STOP_SLACK: Duration = Duration::from_secs(90);
/// Said in the game when the host has heard nothing from us for too long.
const DEADMAN_SAYS: &str = "Spawnpoint cannot be reached any more. This server saves the world and stops now.";

impl CloudDriver {
    pub(super) async fn start_game(&self, cx: &StepCx<'_>) -> Result<Gain, StepError> {
        let server = cx.server()?;
        let recipe = self.recipe(&server.game)?;
        let ssh = self.link(server).await?;
        let env = self.write_environment(cx, &ssh, server, recipe).await?;
        // What was written as root goes to the game's user, who edits its own files.
        self.call(cx, &ssh, "setup", &server.id, &[], CALL_LIMIT).await?;
        self.edit_config_files(cx, &ssh, server, recipe, &env).await?;
        write(&ssh, &format!("{}/settings", home(&server.id)), self.keeper_settings(server, recipe), "600").await?;
        self.write_warning(&ssh, server, recipe, &env).await?;
        self.call(cx, &ssh, "beat", &server.id, &[], CALL_LIMIT).await?;
        if let Some(host) = &server.owned.host {
            let again = cx.job.record(Step::StartGame).is_some_and(|record| record.attempts > 1);
            match again && self.run_before_was_more(server, recipe).await? {
                true => self.set_mark(&server.id, host, Mark::Played).await?,
                false => self.forget_mark(&server.id, &host.provider, &host.id).await?,
            }
        }
        let said = self.call(cx, &ssh, "start", &server.id, &[], CALL_LIMIT * 2).await?;
        // From here on the host may hold a world that is newer than any backup.
        let played = server.owned.host.clone().map(|host| HostRef { played: true, ..host });
        let gain = Gain::owned(Owned { host: played, ..server.owned.clone() });
        let gain = Gain { ran_already: said.iter().any(|line| line == "already"), ..gain };
        let says = |word: &str| said.iter().any(|line| line == word);
        let mut notes: Vec<String> = vec![];
        if says("already") {
            notes.push("it runs already".into());
        }
        if says("no-nft") {
            let open = written(&private_ports(recipe, &server.owned.ports)).join(", ");
            notes
                .push(format!("this machine has no nftables, so its network reaches the game's private ports: {open}"));
        }
        Ok(if notes.is_empty() { gain } else { gain.with_note(notes.join("; ")) })
    }

    fn keeper_settings(&self, server: &Server, recipe: &Recipe) -> String {
        let memory_mb = server.limits.memory_mb.unwrap_or(recipe.resources.memory_mb);
        let cpus = server.limits.cpus.unwrap_or(recipe.resources.cpus);
        let stdin = recipe.console.as_ref().is_some_and(|console| console.protocol == ConsoleProtocol::Stdin);
        let mut text = format!(
            "grace_s={}\nsignal=TERM\nstop_script={}\ndeadman_s={}\nconsole={}\n",
            recipe.stop.grace_s,
            u8::from(self.recipes.has_script(&server.game, "stop")),
            self.settings.deadman_s,
            if stdin { "stdin" } else { "none" },
        );
        // A rented host is the game's alone; on a machine of yours it keeps to its share.
        if server.owned.host.as_ref().is_some_and(|host| host.provider == OWN_MACHINE) {
            text += &format!("memory_mb={memory_mb}\ncpus={cpus}\n");
            let pids = server.limits.pids.or(recipe.resources.pids).unwrap_or(PIDS_USUAL);
            text += &format!("pids={pids}\n");
            // A rented host has a firewall of ours; here, others may be in the network.
            text += &format!("private_ports={}\n", written(&private_ports(recipe, &server.owned.ports)).join(" "));
        }
        text
    }

    async fn edit_config_files(
        &self,
        cx: &StepCx<'_>,
        ssh: &Ssh,
        server: &Server,
        recipe: &Recipe,
        env: &[(String, String)],
    ) -> Result<(), StepError> {
        for edit in &recipe.config {
            let path = format!("{}/{}", game_dir(&server.id), edit.file);
            let before = config_text(&edit.file, read_game(ssh, &server.id, &path).await?.unwrap_or_default())?;
            let after = config_edit::apply(edit, &before, env)
                .map_err(|why| StepError::fatal(format!("Editing {} as the recipe says: {why}", edit.file)))?;
            // A file that differs in nothing but how its lines end is left alone.
            if after.trim_end().lines().ne(before.trim_end().lines()) {
                write_game(ssh, &server.id, &path, after).await?;
                cx.out.line(format!("Wrote {}", edit.file));
            }
        }
        Ok(())
    }

    /// What the host says to its players when it has to stop without us: the very bytes, made here.
    async fn write_warning(
        &self,
        ssh: &Ssh,
        server: &Server,
        recipe: &Recipe,
        env: &[(String, String)],
    ) -> Result<(), StepError> {
        let (Some(console), Some(line)) = (&recipe.console, recipe.say(DEADMAN_SAYS)) else { return Ok(()) };
        let password = env.iter().find(|(name, _)| name == "CONSOLE_PASSWORD").map_or("", |(_, value)| value);
        let port = console.port.as_ref().and_then(|name| server.owned.ports.get(name)).copied().unwrap_or_default();
        let (target, sends) = super::talk::warning(console.protocol, port, password, &line);
        let folder = format!("{}/warn", home(&server.id));
        for (number, bytes) in sends.into_iter().enumerate() {
            write(ssh, &format!("{folder}/{number:02}.send"), bytes, "600").await?;
        }
        write(ssh, &format!("{folder}/target"), target, "600").await
    }

    pub(super) async fn undo_start_game(&self, cx: &StepCx<'_>) -> Result<Gain, StepError> {
        self.note_players(cx.server()?).await?;
        self.stop_game(cx).await
    }

    pub(super) async fn stop_game(&self, cx: &StepCx<'_>) -> Result<Gain, StepError> {
        let server = cx.server()?;
        if server.owned.host.is_none() {
            return Ok(Gain::note("there is no host"));
        }
        if self.is_host_gone(server).await? {
            return Ok(Gain::note("the host is gone, and the game with it"));
        }
        let recipe = self.recipe(&server.game)?;
        let ssh = self.link(server).await?;
        let limit = Duration::from_secs(recipe.stop.grace_s) + STOP_SLACK;
        let mut how = String::new();
        let exited = ssh
            .run(keeper(&ssh, "stop", &server.id, &[], limit), &mut |line| {
                // Not the last line, which may be one of stderr.
                if matches!(line, "stopped" | "forced" | "was-off") {
                    how = line.to_owned();
                }
                cx.out.line(line);
            })
            .await;
        let exited = match exited {
            Ok(exited) => exited,
            Err(error) => return Err(self.off_or(server, ssh_error("stopping the game")(error)).await),
        };
        match (&exited.ended, how.as_str()) {
            (Ended::Code(0), "forced") => {
                Ok(Gain::note(format!("ended by force: it did not end within {} s", recipe.stop.grace_s)))
            }
            (Ended::Code(0), "was-off") => Ok(Gain::note("it was not running")),
            (Ended::Code(0), _) => Ok(Gain::default()),
            // The keeper, or the server's folder, was never put there.
            (Ended::Code(66 | 127), _) => Ok(Gain::note("it was never started on this host")),
            (Ended::Code(_) | Ended::Signal(_), _) => Err(exited_error("stopping the game", exited)),
        }
    }

    /// What people can do about a host that does not answer because it is off.
    async fn off_or(&self, server: &Server, error: StepError) -> StepError {
        let (StepError::Retry(_), Some(host)) = (&error, server.owned.rented()) else { return error };
        let Ok(provider) = self.provider(&host.provider) else { return error };
        match provider.api.host(&host.id).await {
            Ok(Some(Host { state: HostState::Off, .. })) => StepError::retry(format!(
                "The host {} is powered off, and bills all the same. Its world is on it: power it on at {}.",
                host.id, host.provider
            )),
            Ok(Some(_) | None) | Err(_) => error,
        }
    }

    pub(super) async fn kill_game(&self, server: &Server) -> anyhow::Result<()> {
        if server.owned.host.is_none() {
            return Ok(());
        }
        let ssh = self.link(server).await.map_err(plain)?;
        let exited = ssh.run_quietly(keeper(&ssh, "kill", &server.id, &[], CALL_LIMIT * 2)).await?;
        match exited.ended {
            Ended::Code(0 | 66 | 127) => Ok(()),
            Ended::Code(_) | Ended::Signal(_) => exited.ok().map(drop).map_err(anyhow::Error::from),
        }
    }

    pub(super) async fn look_at(&self, servers: &[Server]) -> Vec<Seen> {
        let until = Instant::now() + ROUND_LIMIT;
        let look = async |(number, server)| (number, self.look_closer(server, until).await);
        let looks: Vec<_> = servers.iter().enumerate().map(look).collect();
        // In whichever order they end: one that is silent keeps nobody behind it waiting.
        let mut seen: Vec<_> = futures::stream::iter(looks).buffer_unordered(LOOKS_AT_ONCE).collect().await;
        seen.sort_unstable_by_key(|(number, _)| *number);
        seen.into_iter().map(|(_, seen)| seen).collect()
    }

    async fn look_closer(&self, server: &Server, until: Instant) -> Seen {
        let Some(host) = &server.owned.host else { return Seen::Gone };
        let limit = until.min(Instant::now() + LOOK_LIMIT);
        let (why, answered) = match tokio::time::timeout_at(limit, self.look_over_ssh(server)).await {
            Ok(Ok(seen)) => return seen,
            // Something did: the host, or another with its address.
            Ok(Err(StepError::Fatal(error))) => (format!("{error:#}"), true),
            Ok(Err(StepError::Retry(error))) => (format!("{error:#}"), false),
            Err(_) => (format!("the host did not answer within {} s", LOOK_LIMIT.as_secs()), false),
        };
        // Only the provider can say that it is gone; a host that cannot be reached may well run. Nor is one gone that was
        // only slow: it is asked once more, with what time is left.
        let gone = async {
            match answered {
                true => self.is_host_gone(server).await,
                false if !self.is_unknown(host).await? => Ok(false),
                false => {
                    let left = until.saturating_duration_since(Instant::now()).saturating_sub(ANSWER_SLACK);
                    Ok(left >= ANSWER_SLACK && !self.answers(host, left).await)
                }
            }
        };
        match tokio::time::timeout_at(until, gone).await {
            Ok(Ok(true)) => Seen::Gone,
            Ok(Ok(false) | Err(_)) | Err(_) => Seen::Unknown { why },
        }
    }

    /// Each look is a sign of life to the host as well.
    async fn look_over_ssh(&self, server: &Server) -> Result<Seen, StepError> {
        let status = self.status(server, true).await?;
        Ok(match status.get("state").map(String::as_str) {
            Some("running") => Seen::Running { players: self.players(server).await },
            Some("stopped") => Seen::Stopped {
                exit_code: status.get("exit_code").and_then(|code| code.parse().ok()),
                out_of_memory: status.get("oom").is_some_and(|oom| oom == "1"),
                unwatched: status.get("ended_by").is_some_and(|who| who == "deadman"),
            },
            // The host is there and the game was never started on it: as good as stopped, and it bills.
            Some(_) | None => Seen::Stopped { exit_code: None, out_of_memory: false, unwatched: false },
        })
    }

    pub(super) async fn status(&self, server: &Server, beat: bool) -> Result<HashMap<String, String>, StepError> {
        let ssh = self.link(server).await?;
        if beat {
            let beaten = ssh.run_quietly(keeper(&ssh, "beat", &server.id, &[], LOOK_LIMIT)).await;
            let beaten = beaten.map_err(ssh_error("looking at the host"))?;
            if matches!(beaten.ended, Ended::Code(66 | 127)) {
                return Ok(HashMap::new());
            }
        }
        let mut facts = HashMap::new();
        let exited = ssh
            .stdout_lines(keeper(&ssh, "status", &server.id, &[], LOOK_LIMIT), &mut |line| {
                if let Some((key, value)) = line.split_once('=') {
                    facts.insert(key.to_owned(), value.to_owned());
                }
            })
            .await
            .map_err(ssh_error("looking at the host"))?;
        match exited.ended {
            Ended::Code(0) => Ok(facts),
            Ended::Code(66 | 127) => Ok(HashMap::new()),
            Ended::Code(_) | Ended::Signal(_) => Err(exited_error("looking at the host", exited)),
        }
    }

    pub(super) async fn is_running(&self, server: &Server) -> Result<bool, StepError> {
        if server.owned.host.is_none() {
            return Ok(false);
        }
        match self.status(server, false).await {
            Ok(status) => Ok(status.get("state").is_some_and(|state| state == "running")),
            Err(_) if self.is_host_gone(server).await? => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn log_lines(&self, server: &Server, lines: usize) -> anyhow::Result<Vec<String>> {
        if server.owned.host.is_none() {
            return Ok(vec![]);
        }
        let ssh = self.link(server).await.map_err(plain)?;
        let mut found = vec![];
        let exec = keeper(&ssh, "logs", &server.id, &[&lines.to_string()], CALL_LIMIT);
        let exited = ssh.stdout_lines(exec, &mut |line| found.push(line.to_owned())).await?;
        match exited.ended {
            Ended::Code(0) => Ok(found),
            Ended::Code(66 | 127) => Ok(vec![]),
            Ended::Code(_) | Ended::Signal(_) => exited.ok().map(|_| found).map_err(anyhow::Error::from),
        }
    }

    /// Within the recipe's own limit: the step has more time than that, for what follows.
    pub(super) async fn await_ready(&self, cx: &StepCx<'_>) -> Result<Gain, StepError> {
        let limit = Duration::from_secs(self.recipe(&cx.server()?.game)?.ready.timeout_s);
        tokio::time::timeout(limit, self.see_ready(cx, limit))
            .await
            .unwrap_or_else(|_| Err(StepError::fatal(too_slow(Step::AwaitReady.label(), limit))))
    }

    async fn see_ready(&self, cx: &StepCx<'_>, limit: Duration) -> Result<Gain, StepError> {
        let server = cx.server()?;
        let recipe = self.recipe(&server.game)?;
        let ssh = self.link(server).await?;
        let ready = AtomicBool::new(false);
        let mut see = |line: &str| {
            cx.out.line(line);
            if recipe.ready.when() == ReadyWhen::Log && recipe.ready.log_matches(line) {
                ready.store(true, Ordering::Relaxed);
            }
        };
        // From the first line of this run, so that none falls between; and again where the connection broke.
        let following = async {
            loop {
                let _ = ssh.run(keeper(&ssh, "follow", &server.id, &["all"], limit), &mut see).await;
                tokio::time::sleep(TRY_EVERY).await;
            }
        };
        let looking = async {
            loop {
                if ready.load(Ordering::Relaxed) || self.probe(server, recipe).await {
                    return Ok(Gain::default());
                }
                let status = self.status(server, true).await?;
                if status.get("state").is_none_or(|state| state != "running") {
                    // Its last words may not have come through yet.
                    let last = self.log_lines(server, LAST_LINES).await.map_err(StepError::Retry)?;
                    let words: Vec<String> = last.iter().map(|line| cx.out.mask(line)).collect();
                    return Err(died(&status, &words));
                }
                tokio::time::sleep(TRY_EVERY).await;
            }
        };
        tokio::select! {
            result = looking => result,
            () = following => unreachable!("it goes on until it is dropped"),
        }
    }

    /// Whether people can join, by whatever the recipe asks other than the log.
    async fn probe(&self, server: &Server, recipe: &Recipe) -> bool {
        match recipe.ready.when() {
            ReadyWhen::Log => false,
            ReadyWhen::Query => self.players(server).await.answers,
            ReadyWhen::Port(port) => self.port_answers(server, recipe, port).await,
            ReadyWhen::Healthcheck => self.healthy(server).await,
        }
    }

    async fn port_answers(&self, server: &Server, recipe: &Recipe, port: &str) -> bool {
        let Some(number) = server.owned.ports.get(port) else { return false };
        let private = recipe.ports.get(port).is_some_and(|port| port.private);
        let Ok(ssh) = self.link(server).await else { return false };
        let opened = match (private, server.owned.host.as_ref().and_then(|host| host.address)) {
            (false, Some(address)) => {
                tokio::time::timeout(TRY_EVERY, tokio::net::TcpStream::connect((address, *number)))
                    .await
                    .is_ok_and(|stream| stream.is_ok())
            }
            (true, _) | (_, None) => true,
        };
        // What stands before the host may accept for it; the host itself knows better.
        let listens = format!("ss -Hltn 'sport = :{number}' | grep -q .");
        let exited = ssh.run_quietly(as_root(&ssh, &["sh", "-c", &listens], CALL_LIMIT)).await;
        opened && exited.is_ok_and(|exited| exited.success())
    }

    async fn healthy(&self, server: &Server) -> bool {
        let Ok(ssh) = self.link(server).await else { return false };
        let exec = keeper(&ssh, "run-script", &server.id, &["healthcheck"], LOOK_LIMIT);
        ssh.run_quietly(exec).await.is_ok_and(|exited| exited.success())
    }
}

impl CloudDriver {
    /// Who is on. The game is asked where friends reach it, or through SSH where its port is not for them.
    pub(super) async fn players(&self, server: &Server) -> Players {
        let Some(recipe) = self.recipes.get(&server.game) else { return Players::default() };
        self.ask_players(server, recipe).await.unwrap_or_default()
    }
}

/// A file of settings as text. What is no UTF-8 is refused: nothing could be set in it without damage to the rest.
fn config_text(file: &str, content: Vec<u8>) -> Result<String, StepError> {
    String::from_utf8(content).map_err(|error| {
        let sound = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = sound.iter().filter(|byte| **byte == b'\n').count() + 1;
        StepError::fatal(format!(
            "{file} in the game's folder is no UTF-8 text (line {line}), so its settings cannot be set without damage to \
             the rest, and it is left as it is. Save it as UTF-8, or remove it so that the game makes a new one, then \
             start again."
        ))
    })
}

fn died(status: &HashMap<String, String>, words: &[String]) -> StepError {
    let said =
        if words.is_empty() { "It said nothing.".to_owned() } else { format!("Its last words: {}", words.join(" / ")) };
    if status.get("oom").is_some_and(|oom| oom == "1") {
        return StepError::fatal(format!(
            "The game ran out of memory while starting. Give it a larger host with `/server settings`. {said}"
        ));
    }
    let code = status.get("exit_code").filter(|code| !code.is_empty()).map_or("unknown", String::as_str);
    StepError::fatal(format!("The game ended while starting, with exit code {code}. {said}"))
}

pub(super) fn plain(error: StepError) -> anyhow::Error {
    match error {
        StepError::Retry(error) | StepError::Fatal(error) => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_file_is_taken_as_it_is_or_refused() {
        let text = format!("motto=grün\r\n\nlong={}", "x".repeat(5000));
        assert_eq!(config_text("a.conf", text.clone().into_bytes()).unwrap(), text);
        let error = plain(config_text("etc/a.conf", b"name=a\nmotto=gr\xfcn\n".to_vec()).unwrap_err()).to_string();
        assert!(error.starts_with("etc/a.conf in the game's folder is no UTF-8 text (line 2)"), "{error}");
        assert!(error.ends_with("then start again."), "{error}");
    }
}
