//! The cloud backend: a server runs on a host that exists only while people play. The host is rented from a provider
//! for the evening, or it is a machine of your own on which only a game's folder comes and goes.
//!
//! `rent` makes a host, `arrive` waits for it, `give_back` sees it go, `gone` knows whether it is, `patience` is how a
//! provider is asked again; `choose` decides which size, `quote` says what it costs, `boot` is what a new host is told,
//! `keys` are what it is known by, `setup` prepares it, `worlds` moves worlds by rsync, `saved` remembers where nothing
//! new is, `played` guesses where something may be, `names` lets a name in DNS follow, `game` starts and stops, `talk`
//! speaks to the game, `sweep` finds what was forgotten.
//! On the host itself works keeper.sh (docs/cloud-host.md): everything about a game's processes is its business, reached
//! over SSH.
//!
//! What exists outside is found by its labels, never by memory. The host goes last: until a verified backup is kept it
//! holds the only copy of the world.

mod arrive;
mod boot;
mod choose;
mod game;
mod give_back;
mod gone;
mod keys;
mod names;
mod patience;
mod played;
mod quote;
mod rent;
mod saved;
mod setup;
mod sweep;
mod talk;
mod worlds;

pub use choose::Needs;
pub use setup::{Found, examine};

use super::backups::Backups;
use crate::clients::cloud::{CloudApi, CloudError};
use crate::clients::dns::Dns;
use crate::clients::ssh::{KeyPair, Pin, Ssh, SshError, Target, Trust};
use crate::drivers::talk::{Typist, quiesce, quiesce_limit_s, resume_saves, say, undo_quiesce, warn_players};
use crate::engine::{ConsoleFault, Driver, StepCx, StepError};
use crate::model::cost::{Cheapest, Instead, Quote, Rental};
use crate::model::drive::Snapshot;
use crate::model::host::{HostImage, HostRef, OWN_MACHINE};
use crate::model::job::{Gain, Step};
use crate::model::recipe::Recipe;
use crate::model::server::{Seen, Server};
use crate::model::sweep::{Orphan, Sweep};
use crate::model::{Ms, ServerId};
use crate::recipes::Recipes;
use crate::vault::{Policy, Vault};
use async_trait::async_trait;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Where SSH listens on a rented host.
const SSH_PORT: u16 = 22;
/// Time limits of steps whose length no recipe decides, in seconds.
const SHORT_STEP_S: u64 = 120;
/// A provider may take a while to boot a host, and its system to finish its first boot.
const HOST_STEP_S: u64 = 900;
const TRANSFER_STEP_S: u64 = 4 * 3600;
/// The last look for hosts that were made by mistake, when people can play already.
const LATE_TWINS_S: u64 = 45;
/// Past the recipe's own limit for stopping: the kill that follows, and the way there and back.
const STOP_SLACK_S: u64 = 120;

/// A provider that the operator has set up.
pub struct Provider {
    pub api: Arc<dyn CloudApi>,
    pub region: Option<String>,
    /// The size that is rented unless a server has its own.
    pub plan: Option<String>,
}

/// A machine of your own, from `[hosts.<name>]`.
#[derive(Clone)]
pub struct Machine {
    pub address: String,
    pub port: u16,
    pub user: String,
    pub key: Arc<KeyPair>,
    /// What the configuration says that its key is; without, it is the one that somebody has [`trusted`].
    pub host_key: Option<Pin>,
}

/// The machines of your own that somebody has said are the right ones.
pub fn trusted(data_dir: &Path) -> Trust {
    Trust::at(data_dir.join("ssh/trusted.json"))
}

/// What the operator chose, and what this process is.
pub struct Settings {
    /// Tells our hosts from those of another Spawnpoint on the same account.
    pub instance: String,
    pub data_dir: PathBuf,
    pub retention: Policy,
    /// The provider for servers that name none.
    pub default_provider: Option<String>,
    /// A host that hears nothing from us for so long stops its game.
    pub deadman_s: u64,
    /// Machines of your own take ports from this range when a recipe's number is taken.
    pub ports: (u16, u16),
    /// The program that rsync is to run as its remote shell: this one.
    pub program: PathBuf,
}

pub struct CloudDriver {
    providers: BTreeMap<String, Provider>,
    machines: BTreeMap<String, Machine>,
    backups: Backups,
    recipes: Arc<Recipes>,
    settings: Settings,
    /// Our own key, made at the first run.
    key: Arc<KeyPair>,
    /// One connection for each server, kept while its host exists.
    links: Mutex<HashMap<ServerId, Ssh>>,
    /// What each provider offers.
    lists: BTreeMap<String, Arc<quote::Lists>>,
    /// Where servers get their names, if anywhere.
    names: Option<Dns>,
}

impl CloudDriver {
    /// # Errors
    /// When our own SSH key can neither be read nor made.
    pub fn new(
        providers: BTreeMap<String, Provider>,
        machines: BTreeMap<String, Machine>,
        vault: Vault,
        recipes: Arc<Recipes>,
        names: Option<Dns>,
        settings: Settings,
    ) -> anyhow::Result<CloudDriver> {
        let key = Arc::new(KeyPair::load_or_make(&settings.data_dir.join("ssh/id_ed25519"))?);
        let lists = providers.keys().map(|name| (name.clone(), Arc::default())).collect();
        let backups = Backups { vault, recipes: recipes.clone(), retention: settings.retention };
        Ok(CloudDriver { providers, machines, backups, recipes, settings, key, links: Mutex::default(), names, lists })
    }

    fn recipe(&self, game: &str) -> Result<&Recipe, StepError> {
        self.recipes.get(game).ok_or_else(|| {
            StepError::fatal(format!(
                "There is no recipe called `{game}` any more. It belongs into game-scripts/{game}/."
            ))
        })
    }

    fn provider(&self, name: &str) -> Result<&Provider, StepError> {
        self.providers.get(name).ok_or_else(|| {
            StepError::fatal(format!(
                "The provider `{name}` is not set up here. Its token belongs into the configuration under [cloud.{name}]."
            ))
        })
    }

    fn machine(&self, name: &str) -> Result<&Machine, StepError> {
        self.machines.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.machines.keys().map(String::as_str).collect();
            let known =
                if known.is_empty() { "none is set up".to_owned() } else { format!("there are: {}", known.join(", ")) };
            StepError::fatal(format!(
                "No machine of yours is called `{name}` under [hosts] in the configuration; {known}."
            ))
        })
    }

    /// The host on record, or a sentence for a step that cannot do without.
    fn host_of<'a>(&self, server: &'a Server) -> Result<&'a HostRef, StepError> {
        server.owned.host.as_ref().ok_or_else(|| StepError::fatal("This server has no host."))
    }

    /// The connection to a server's host: made when it is first needed, and anew when the host is another one.
    async fn link(&self, server: &Server) -> Result<Ssh, StepError> {
        let host = self.host_of(server)?;
        let target = self.target(host).await?;
        let mut links = self.links.lock().expect("no holder of this lock can panic");
        if let Some(ssh) = links.get(&server.id)
            && ssh.target().address == target.address
            && format!("{:?}", ssh.target().host_key) == format!("{:?}", target.host_key)
        {
            return Ok(ssh.clone());
        }
        let ssh = Ssh::new(target);
        links.insert(server.id.clone(), ssh.clone());
        Ok(ssh)
    }

    fn forget_link(&self, server: &ServerId) {
        self.links.lock().expect("no holder of this lock can panic").remove(server);
    }

    /// The key that this machine has to show. Read anew each time, so that trusting it takes no restart.
    fn pin_of(&self, name: &str, machine: &Machine) -> Result<Option<Pin>, StepError> {
        match &machine.host_key {
            Some(key) => Ok(Some(key.clone())),
            None => trusted(&self.settings.data_dir)
                .pin(name)
                .map_err(|error| StepError::fatal(format!("Which machines are trusted cannot be read: {error}."))),
        }
    }

    async fn target(&self, host: &HostRef) -> Result<Target, StepError> {
        let pin = |text: &str| {
            Pin::parse(text)
                .map_err(|error| StepError::fatal(format!("the host's key on record cannot be read: {error}")))
        };
        if host.provider == OWN_MACHINE {
            let machine = self.machine(&host.id)?;
            let host_key = match self.pin_of(&host.id, machine)? {
                Some(key) => key,
                None => return Err(self.untrusted(&host.id, machine).await),
            };
            return Ok(Target {
                address: address_of(machine).await?,
                user: machine.user.clone(),
                key: machine.key.clone(),
                host_key,
            });
        }
        let address = host.address.ok_or_else(|| StepError::retry("The host has no address yet."))?;
        Ok(Target {
            address: SocketAddr::new(address, SSH_PORT),
            user: "root".to_owned(),
            key: self.key.clone(),
            host_key: pin(&host.host_key)?,
        })
    }
}

/// Looks a machine's name up. A home connection's address changes, so it is never remembered.
async fn address_of(machine: &Machine) -> Result<SocketAddr, StepError> {
    let name = (machine.address.as_str(), machine.port);
    let mut found = tokio::net::lookup_host(name).await.map_err(|error| {
        StepError::retry(format!("The machine's name `{}` cannot be looked up: {error}", machine.address))
    })?;
    found.next().ok_or_else(|| StepError::retry(format!("The machine's name `{}` leads nowhere.", machine.address)))
}

/// What may pass is tried again; a wrong key or a refused one is for a person.
fn ssh_error(what: &str) -> impl FnOnce(SshError) -> StepError + '_ {
    move |error| {
        let passing = error.may_pass();
        let error = anyhow::Error::msg(format!("{what}: {error}"));
        if passing { StepError::Retry(error) } else { StepError::Fatal(error) }
    }
}

fn cloud_error(what: &str) -> impl FnOnce(CloudError) -> StepError + '_ {
    move |error| match error {
        CloudError::Busy { .. } => StepError::Retry(anyhow::Error::msg(format!("{what}: {error}"))),
        CloudError::NoCapacity(_)
        | CloudError::Quota(_)
        | CloudError::Denied(_)
        | CloudError::Refused(_)
        | CloudError::Strange(_) => StepError::Fatal(anyhow::Error::msg(format!("{what}: {error}"))),
    }
}

/// The moment of the record, for what the provider does not say.
fn now_ms() -> Ms {
    jiff::Timestamp::now().as_millisecond()
}

#[async_trait]
impl Driver for CloudDriver {
    async fn run(&self, step: Step, cx: &StepCx<'_>) -> Result<Gain, StepError> {
        match step {
            Step::CreateHost => {
                let server = cx.server()?;
                let before = server.owned.host.as_ref().filter(|_| !self.backups.worldless(&server.game));
                Ok(gone::with_loss(before, self.create_host(cx).await?))
            }
            Step::AwaitHost => self.await_host(cx).await,
            Step::Bootstrap => self.bootstrap(cx).await,
            Step::Install => self.install(cx).await,
            Step::PushWorld => self.push_world(cx).await,
            Step::StartGame => self.start_game(cx).await,
            Step::AwaitReady => {
                let gain = self.await_ready(cx).await?;
                self.destroy_late_twins(cx).await;
                Ok(gain)
            }
            Step::QuiesceGame => quiesce(self, self.recipe(&cx.server()?.game)?, cx).await,
            Step::PullWorld => self.pull_world(cx).await,
            Step::VerifyWorld => self.verify_world(cx).await,
            Step::ResumeSaves => resume_saves(self, self.recipe(&cx.server()?.game)?, cx).await,
            Step::KeepBackup => self.keep_backup(cx).await,
            Step::WarnPlayers => warn_players(self, self.recipes.get(cx.game()), cx).await,
            Step::StopGame => self.stop_game(cx).await,
            Step::DestroyHost => self.destroy_host(cx).await,
            Step::ConfirmGone => self.confirm_gone(cx).await,
            Step::BuildImage | Step::CreateSnapshot | Step::RunInstaller | Step::SealSnapshot => Err(not_ours(step)),
            Step::EnsureSnapshot | Step::CloneDrive | Step::CreateContainer => Err(not_ours(step)),
            Step::RemoveContainer | Step::ReplaceDrive | Step::DeleteDrive => Err(not_ours(step)),
        }
    }

    async fn undo(&self, step: Step, cx: &StepCx<'_>) -> Result<Gain, StepError> {
        match step {
            Step::CreateHost => self.undo_create_host(cx).await,
            // All of these happened on a host; it goes, or it stays as it is for the next try.
            Step::AwaitHost | Step::Bootstrap | Step::Install | Step::PushWorld => Ok(Gain::default()),
            Step::StartGame => self.undo_start_game(cx).await,
            Step::AwaitReady => Ok(Gain::default()),
            Step::QuiesceGame | Step::ResumeSaves => undo_quiesce(self, self.recipe(&cx.server()?.game)?, cx).await,
            Step::PullWorld => self.undo_pull_world(cx).await,
            Step::VerifyWorld | Step::KeepBackup => Ok(Gain::default()),
            Step::WarnPlayers | Step::StopGame | Step::DestroyHost | Step::ConfirmGone => {
                Err(StepError::fatal("saving and destroying are never undone"))
            }
            Step::BuildImage | Step::CreateSnapshot | Step::RunInstaller | Step::SealSnapshot => Err(not_ours(step)),
            Step::EnsureSnapshot | Step::CloneDrive | Step::CreateContainer => Err(not_ours(step)),
            Step::RemoveContainer | Step::ReplaceDrive | Step::DeleteDrive => Err(not_ours(step)),
        }
    }

    fn time_limit(&self, step: Step, cx: &StepCx<'_>) -> Duration {
        let recipe = self.recipes.get(cx.game());
        let of_recipe = |seconds: fn(&Recipe) -> u64, or: u64| recipe.map_or(or, seconds);
        Duration::from_secs(match step {
            Step::CreateHost | Step::AwaitHost | Step::DestroyHost | Step::ConfirmGone => HOST_STEP_S,
            Step::Bootstrap => of_recipe(|recipe| recipe.timeouts.bootstrap_s, TRANSFER_STEP_S) + SHORT_STEP_S,
            Step::Install => of_recipe(|recipe| recipe.timeouts.install_s, TRANSFER_STEP_S) + SHORT_STEP_S,
            Step::AwaitReady => of_recipe(|recipe| recipe.ready.timeout_s, SHORT_STEP_S) + LATE_TWINS_S,
            Step::StopGame => of_recipe(|recipe| recipe.stop.grace_s, SHORT_STEP_S) + STOP_SLACK_S,
            Step::PushWorld | Step::PullWorld | Step::VerifyWorld | Step::KeepBackup => TRANSFER_STEP_S,
            // Undoing it stops the game.
            Step::StartGame => of_recipe(|recipe| recipe.stop.grace_s, SHORT_STEP_S) + STOP_SLACK_S,
            Step::QuiesceGame | Step::ResumeSaves => of_recipe(quiesce_limit_s, SHORT_STEP_S),
            Step::WarnPlayers => SHORT_STEP_S,
            Step::BuildImage | Step::CreateSnapshot | Step::RunInstaller | Step::SealSnapshot => SHORT_STEP_S,
            Step::EnsureSnapshot | Step::CloneDrive | Step::CreateContainer => SHORT_STEP_S,
            Step::RemoveContainer | Step::ReplaceDrive | Step::DeleteDrive => SHORT_STEP_S,
        })
    }

    async fn look(&self, servers: &[Server]) -> Vec<Seen> {
        self.look_at(servers).await
    }

    async fn kill(&self, server: &Server) -> anyhow::Result<()> {
        self.kill_game(server).await
    }

    async fn console(&self, server: &Server, line: &str) -> Result<String, ConsoleFault> {
        self.type_line(server, line).await
    }

    async fn tell(&self, server: &Server, message: &str) -> anyhow::Result<()> {
        say(self, self.recipes.get(&server.game), server, message).await
    }

    async fn logs(&self, server: &Server, lines: usize) -> anyhow::Result<Vec<String>> {
        self.log_lines(server, lines).await
    }

    async fn sweep(&self, servers: &[Server]) -> anyhow::Result<Sweep> {
        Ok(self.sweep_all(servers).await)
    }

    async fn left_names(&self, servers: &[Server], deleted: &[Server]) -> Sweep {
        self.names_left(servers, deleted).await
    }

    async fn delete_orphan(&self, orphan: &Orphan) -> anyhow::Result<()> {
        self.remove_orphan(orphan).await
    }

    async fn adopt(&self, orphan: &Orphan, server: &Server) -> anyhow::Result<HostRef> {
        self.adopt_host(orphan, server).await
    }

    /// Nothing of a rented server lies on this machine but its backups.
    async fn own_bytes(&self, _server: &Server) -> anyhow::Result<Option<u64>> {
        Ok(None)
    }

    async fn delete_snapshot(&self, _snapshot: &Snapshot) -> anyhow::Result<()> {
        anyhow::bail!("snapshots belong to the docker backend")
    }

    async fn quote(&self, server: &Server) -> Result<Option<Quote>, StepError> {
        self.quote_of(server).await.map(Some)
    }

    async fn cheapest(&self, server: &Server) -> Result<Option<Cheapest>, StepError> {
        self.cheapest_of(server).await
    }

    async fn instead(&self, server: &Server, last: Option<&Rental>) -> Result<Option<Instead>, StepError> {
        self.instead_of(server, last).await
    }

    async fn offers(&self) -> anyhow::Result<Vec<Quote>> {
        Ok(self.offers_at_hand())
    }

    fn providers(&self) -> Vec<String> {
        let own = Some(OWN_MACHINE.to_owned()).filter(|_| !self.machines.is_empty());
        self.providers.keys().cloned().chain(own).collect()
    }

    async fn is_gone(&self, provider: &str, host: &str) -> anyhow::Result<bool> {
        self.is_gone_from(provider, host).await
    }

    async fn images(&self) -> anyhow::Result<Vec<HostImage>> {
        Ok(self.images_at_hand())
    }
}

fn not_ours(step: Step) -> StepError {
    StepError::fatal(format!("{step:?} is no step of the cloud backend"))
}

/// An address as people paste it: IPv6 in brackets.
fn spoken(address: IpAddr, port: u16) -> String {
    SocketAddr::new(address, port).to_string()
}
