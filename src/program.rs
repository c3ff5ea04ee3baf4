//! Puts the parts together: configuration in, a running program out. The only place, with `main`, that knows every
//! type; nothing else makes a client from the configuration but `doctor`, which tries each by itself.

use crate::app::{App, Choices, Member, Members, Parts};
use crate::bus::Bus;
use crate::clients::cloud;
use crate::clients::dns::{self, Dns};
use crate::clients::docker::Docker;
use crate::clients::ssh::{KeyPair, Pin, Trust};
use crate::config::{Config, DnsAlgorithm, DnsProvider, DriveKind as Wished, OwnHost};
use crate::discord;
use crate::drivers::backups::Backups;
use crate::drivers::cloud as cloud_driver;
use crate::drivers::cloud::{CloudDriver, Machine, Provider};
use crate::drivers::docker::{DockerDriver, DriveKind, Ids, Leftovers, OnRecord, Settings};
use crate::engine::{Clock, Defaults, Driver, Engine, Journal};
use crate::model::bill::Spending;
use crate::model::host::OWN_MACHINE;
use crate::model::job::Step;
use crate::model::lease::Rules;
use crate::model::server::Backend;
use crate::model::{GuildId, MINUTE_MS, Ms};
use crate::recipes::Recipes;
use crate::scheduler;
use crate::store::Store;
use crate::vault::{BackupId, OwnerId, Policy, Vault};
use anyhow::{Context, ensure};
use async_trait::async_trait;
use secrecy::ExposeSecret;
use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The ids that games run as where Spawnpoint itself runs as root: nobody's, and the same on every machine.
const GAME_IDS_FOR_ROOT: (u32, u32) = (4242, 4242);

/// What can be rented is asked for as often as this, though nobody wants to know: half of how old a list may be.
const OFFERS_EVERY: Duration = Duration::from_secs(3 * 3600);

/// Everything, put together and not yet running.
pub struct Program {
    pub app: App,
    pub engine: Engine,
    pub store: Store,
    pub bus: Bus,
    vault: Vault,
    data_dir: PathBuf,
    sweep_every: Option<Duration>,
    members: Arc<dyn Members>,
}

impl Program {
    pub async fn build(config: &Config) -> anyhow::Result<Program> {
        let base = Base::open(config).await?;
        let drivers = drivers(config, &base).await?;
        Program::put_together(config, base, drivers)
    }

    /// The same on other backends than the configuration's.
    pub async fn build_on(config: &Config, drivers: impl FnOnce(&Base) -> Drivers) -> anyhow::Result<Program> {
        let base = Base::open(config).await?;
        let drivers = drivers(&base);
        Program::put_together(config, base, drivers)
    }

    fn put_together(config: &Config, base: Base, drivers: Drivers) -> anyhow::Result<Program> {
        let Base { store, backups: Backups { vault, recipes, .. }, .. } = base;
        let bus = Bus::default();
        let minutes = |minutes: u32| Ms::from(minutes) * MINUTE_MS;
        let defaults = Defaults {
            rules: Rules {
                idle_ms: minutes(config.idle.stop_after_minutes),
                never_joined_ms: minutes(config.idle.never_joined_minutes),
                lease_ms: minutes(config.lease.minutes),
            },
            watch_every: Duration::from_secs(config.watch.every_seconds.max(1)),
        };
        let journal: Arc<dyn Journal> = Arc::new(store.clone());
        let engine =
            Engine::new(journal, drivers, bus.clone(), Clock::System, defaults).with_spending(spending(config)?);
        let choices = Choices {
            players_role: config.discord.players_role.clone(),
            extend_ms: minutes(config.lease.extend_minutes),
            zone: config.schedule.time_zone.clone(),
        };
        let app = App::new(Parts {
            store: store.clone(),
            engine: engine.clone(),
            vault: vault.clone(),
            recipes,
            bus: bus.clone(),
            choices,
        });
        let sweep_every = match config.cloud.sweep_minutes {
            0 => None,
            minutes => Some(Duration::from_secs(60 * u64::from(minutes))),
        };
        let (data_dir, members) = (config.data_dir.clone(), members(config));
        Ok(Program { app, engine, store, bus, vault, data_dir, sweep_every, members })
    }

    /// Carries out jobs, watches servers and looks for what was forgotten, until `stop`.
    pub fn work(&self, stop: &CancellationToken) -> tokio::task::JoinHandle<()> {
        let (engine, app, stop) = (self.engine.clone(), self.app.clone(), stop.clone());
        let (store, vault, sweep_every) = (self.store.clone(), self.vault.clone(), self.sweep_every);
        let (data_dir, members) = (self.data_dir.clone(), self.members.clone());
        tokio::spawn(async move {
            // What a crash left is no reason not to work.
            if let Err(error) = look_around(&store, vault, data_dir).await {
                tracing::warn!("Leftovers of earlier runs could not be looked for: {error:#}");
            }
            tokio::join!(
                engine.run(stop.clone()),
                engine.watch(stop.clone()),
                engine.sweeps(sweep_every, stop.clone()),
                scheduler::run(&app, members.as_ref(), stop.clone()),
                keep_offers_at_hand(&app, stop),
            );
        })
    }
}

/// Who can say what the makers of schedules hold: Discord, or nobody.
fn members(config: &Config) -> Arc<dyn Members> {
    // Whoever starts the front hears what is wrong with its configuration.
    discord::members(&config.discord).unwrap_or_else(|_| Arc::new(Nobody))
}

/// Without Discord nobody knows what people hold there.
struct Nobody;

#[async_trait]
impl Members for Nobody {
    async fn member(&self, _guild: &GuildId, _user: &str) -> anyhow::Result<Member> {
        anyhow::bail!("Discord is not set up here")
    }
}

/// What every backend stands on.
pub struct Base {
    pub store: Store,
    pub backups: Backups,
    instance: String,
}

pub type Drivers = HashMap<Backend, Arc<dyn Driver>>;

impl Base {
    async fn open(config: &Config) -> anyhow::Result<Base> {
        make_data_dir(&config.data_dir)?;
        let recipes = Arc::new(Recipes::load(&config.game_scripts)?);
        let store = Store::connect(&database_url(config)).await.context("opening the database")?;
        let instance = store.instance().await.context("reading the database")?;
        let vault = Vault::open(&config.data_dir.join("vault")).context("opening the vault")?;
        let retention = Policy {
            keep_last: config.backups.keep_last,
            keep_daily: config.backups.keep_daily,
            keep_weekly: config.backups.keep_weekly,
            max_age_days: None,
        };
        Ok(Base { store, backups: Backups { vault, recipes, retention }, instance })
    }
}

/// The backends that the configuration sets up.
async fn drivers(config: &Config, base: &Base) -> anyhow::Result<Drivers> {
    let Base { backups: Backups { vault, recipes, retention }, instance, .. } = base;
    let retention = *retention;
    let mut drivers = Drivers::new();
    if config.docker.enabled {
        let docker = Docker::connect(endpoint(config).as_deref())?;
        // It may come later; servers are unknown until then.
        if let Err(error) = docker.ping().await {
            tracing::warn!("No Docker daemon answers yet: {error}");
        }
        let settings = Settings {
            instance: instance.clone(),
            data_dir: config.data_dir.clone(),
            publish_address: config.docker.publish_address,
            public_address: config.docker.public_address.clone(),
            ports: (config.docker.ports.first, config.docker.ports.last),
            ids: ids(config)?,
            build_host_network: config.docker.build_host_network,
            drives: drives_wished(config),
            retention,
        };
        drivers.insert(Backend::Docker, Arc::new(DockerDriver::new(docker, vault.clone(), recipes.clone(), settings)));
    }
    if let Some(cloud) = cloud_driver(config, instance.clone(), vault, recipes, retention)? {
        drivers.insert(Backend::Cloud, Arc::new(cloud));
    }
    Ok(drivers)
}

/// The cloud backend, where a provider or a machine is set up.
fn cloud_driver(
    config: &Config,
    instance: String,
    vault: &Vault,
    recipes: &Arc<Recipes>,
    retention: Policy,
) -> anyhow::Result<Option<CloudDriver>> {
    let providers = providers(config)?;
    let mut machines = BTreeMap::new();
    for (name, host) in &config.hosts {
        let (key, host_key) = (machine_key(config, name, host)?, host_key(name, host)?);
        let (address, user) = (host.address.clone(), host.user.clone());
        machines.insert(name.clone(), Machine { address, port: host.port, user, key, host_key });
    }
    if providers.is_empty() && machines.is_empty() {
        return Ok(None);
    }
    let names = names(config, &instance)?;
    let settings = cloud_driver::Settings {
        instance,
        data_dir: config.data_dir.clone(),
        retention,
        default_provider: config.cloud.provider.clone(),
        deadman_s: config.cloud.deadman_hours * 3600,
        ports: (config.docker.ports.first, config.docker.ports.last),
        program: match &config.program {
            Some(program) => program.clone(),
            None => std::env::current_exe().context("finding this program for rsync")?,
        },
    };
    Ok(Some(CloudDriver::new(providers, machines, vault.clone(), recipes.clone(), names, settings)?))
}

/// The accounts that hosts are rented from. Asks nobody yet.
fn providers(config: &Config) -> anyhow::Result<BTreeMap<String, Provider>> {
    let mut providers = BTreeMap::new();
    for (name, account) in config.cloud.providers() {
        let Some(token) = account.token.clone().filter(|token| !token.expose_secret().trim().is_empty()) else {
            continue;
        };
        let api = cloud::open(name, token, account.api_url.as_deref())
            .map_err(|error| anyhow::anyhow!("under [cloud.{name}]: {error}"))?;
        providers.insert(name.to_owned(), Provider { api, region: account.region.clone(), plan: account.plan.clone() });
    }
    if let Some(name) = &config.cloud.provider {
        if name == OWN_MACHINE {
            ensure!(
                !config.hosts.is_empty(),
                "`provider` under [cloud] is `{name}`, and there is no machine under [hosts]"
            );
        } else {
            let known = providers.contains_key(name);
            ensure!(known, "`provider` under [cloud] is `{name}`, which has no token under [cloud.{name}]");
        }
    }
    Ok(providers)
}

fn host_key(name: &str, host: &OwnHost) -> anyhow::Result<Option<Pin>> {
    let pin = host.host_key.as_deref().map(Pin::parse).transpose();
    pin.with_context(|| format!("`host_key` under [hosts.{name}]"))
}

/// Looks for what no second start would mend: a person has to change the configuration first. Makes nothing, asks nobody,
/// and leaves the recipes to their own check.
///
/// # Errors
/// The first mistake, as a sentence.
pub fn check(config: &Config) -> anyhow::Result<()> {
    // The instance is in the database, which nobody needs for this; any will do.
    names(config, "check")?;
    spending(config)?;
    providers(config)?;
    for (name, host) in &config.hosts {
        host_key(name, host)?;
        if let Some(path) = &host.key_file {
            key_in(name, path)?;
        }
    }
    if config.docker.enabled {
        ids(config)?;
        Docker::connect(endpoint(config).as_deref()).context("`endpoint` under [docker], or DOCKER_HOST")?;
    }
    Ok(())
}

/// Who types an option is answered from the lists at hand, so these are asked for before anybody types.
async fn keep_offers_at_hand(app: &App, stop: CancellationToken) {
    loop {
        // Each asks in the background for what it does not have.
        let _ = tokio::join!(app.offers(), app.images());
        tokio::select! {
            () = tokio::time::sleep(OFFERS_EVERY) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// The key that this machine lets in.
pub fn machine_key(config: &Config, name: &str, host: &OwnHost) -> anyhow::Result<Arc<KeyPair>> {
    let key = match &host.key_file {
        Some(path) => key_in(name, path)?,
        None => {
            KeyPair::load_or_make(&config.data_dir.join("ssh/id_ed25519")).context("making Spawnpoint's own SSH key")?
        }
    };
    Ok(Arc::new(key))
}

fn key_in(name: &str, path: &Path) -> anyhow::Result<KeyPair> {
    KeyPair::load(path).with_context(|| format!("`key_file` under [hosts.{name}]"))
}

/// The machines that somebody has trusted by `spawnpoint trust`.
pub fn trusted(config: &Config) -> Trust {
    cloud_driver::trusted(&config.data_dir)
}

/// Once, before work begins: half backups that no open job goes on with are cleared away, half deletions, and snapshots
/// that are on nobody's record.
async fn look_around(store: &Store, vault: Vault, data_dir: PathBuf) -> anyhow::Result<()> {
    let leftovers = tokio::task::spawn_blocking(move || Leftovers::find(&data_dir)).await?;
    let leftovers = leftovers.context("looking at drives and snapshots")?;
    let jobs = store.open_jobs_all().await?;
    let open: Vec<String> = jobs.iter().map(|job| format!("-j{}", job.id)).collect();
    let wanted = move |_: &OwnerId, id: &BackupId| open.iter().any(|job| id.as_str().ends_with(job));
    for path in tokio::task::spawn_blocking(move || vault.sweep(wanted)).await?? {
        tracing::info!("Cleared a half backup away: {}", path.display());
    }
    let drives = store.servers_everywhere().await?.into_iter().filter_map(|server| Some(server.owned.drive?.id));
    let record = OnRecord {
        drives: drives.collect(),
        snapshots: store.snapshots_all().await?.into_iter().map(|snapshot| snapshot.id.0).collect(),
        building: jobs.iter().any(|job| job.record(Step::CreateSnapshot).is_some()),
    };
    let cleared = tokio::task::spawn_blocking(move || leftovers.clear(&record)).await?;
    for path in cleared.context("clearing drives and snapshots away")? {
        tracing::info!("Cleared away what nobody wants: {}", path.display());
    }
    Ok(())
}

/// The names in DNS that follow servers, where the configuration names a zone. Asks nobody yet.
///
/// # Errors
/// What in `[dns]` cannot be right, as a sentence.
pub fn names(config: &Config, instance: &str) -> anyhow::Result<Option<Dns>> {
    let given = &config.dns;
    given.check()?;
    let (Some(zone), Some(provider)) = (&given.zone, given.provider) else { return Ok(None) };
    let provider = match provider {
        DnsProvider::Rfc2136 => {
            let key = &given.rfc2136;
            dns::Provider::Rfc2136(dns::rfc2136::Settings {
                server: key.server.clone(),
                key_name: key.key_name.clone().unwrap_or_default(),
                key_secret: key.key_secret.clone().unwrap_or_default(),
                algorithm: match key.algorithm {
                    DnsAlgorithm::HmacSha256 => dns::Algorithm::HmacSha256,
                    DnsAlgorithm::HmacSha512 => dns::Algorithm::HmacSha512,
                },
            })
        }
        DnsProvider::Cloudflare => dns::Provider::Cloudflare(dns::cloudflare::Settings {
            token: given.cloudflare.token.clone().unwrap_or_default(),
            zone_id: given.cloudflare.zone_id.clone(),
            api_url: given.cloudflare.api_url.clone(),
        }),
    };
    let settings =
        dns::Settings { zone: zone.clone(), ttl_seconds: given.ttl_seconds, instance: instance.to_owned(), provider };
    Ok(Some(Dns::from_config(settings).context("under [dns] in the configuration")?))
}

/// What the operator decided about money.
pub fn spending(config: &Config) -> anyhow::Result<Spending> {
    let rules = &config.budget;
    ensure!(
        (1..=100).contains(&rules.warn_percent),
        "`warn_percent` under [budget] is a number from 1 to 100, not {}",
        rules.warn_percent
    );
    let mut spending = Spending {
        zone: rules.time_zone.clone(),
        warn_percent: rules.warn_percent,
        stop_at_unit: config.cloud.stop_at_billing_unit,
        ..Spending::default()
    };
    for text in &rules.guild_monthly {
        let added = spending.add_guild_budget(text);
        added.map_err(anyhow::Error::msg).context("reading `guild_monthly` under [budget]")?;
    }
    Ok(spending)
}

/// Where the daemon is: the configuration, or what Docker's own tools use.
pub fn endpoint(config: &Config) -> Option<String> {
    config.docker.endpoint.clone().filter(|text| !text.is_empty()).or_else(|| std::env::var("DOCKER_HOST").ok())
}

pub fn database_url(config: &Config) -> String {
    match &config.database.url {
        Some(url) => url.expose_secret().to_owned(),
        None => format!("sqlite:{}?mode=rwc", config.data_dir.join("spawnpoint.db").display()),
    }
}

/// How the operator wants drives to be made; `None` where that is left to what the daemon can do.
pub fn drives_wished(config: &Config) -> Option<DriveKind> {
    match config.docker.drives {
        Wished::Auto => None,
        Wished::Overlay => Some(DriveKind::Overlay),
        Wished::Copy => Some(DriveKind::Copy),
    }
}

/// Who we are, and who games run as. An ordinary user can only be itself: what its games write must stay its own.
pub fn ids(config: &Config) -> anyhow::Result<Ids> {
    let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let game = match &config.docker.user {
        None if own.0 == 0 => GAME_IDS_FOR_ROOT,
        None => own,
        Some(text) => {
            let parsed = text.split_once(':').and_then(|(uid, gid)| Some((uid.parse().ok()?, gid.parse().ok()?)));
            let ids: (u32, u32) = parsed.with_context(|| {
                format!("`user` under [docker] is written uid:gid, for instance 1000:1000, not `{text}`")
            })?;
            ensure!(ids.0 != 0, "games never run as root: give `user` under [docker] another uid than 0");
            ensure!(
                own.0 == 0 || own.0 == ids.0,
                "only root can run games as another user; leave `user` under [docker] out"
            );
            ids
        }
    };
    Ok(Ids { own_uid: own.0, game })
}

/// A folder for nobody else's eyes, where there is none: what games keep below holds passwords.
pub fn make_private(path: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn make_data_dir(path: &Path) -> anyhow::Result<()> {
    let make = || -> std::io::Result<()> {
        make_private(path)?;
        let probe: PathBuf = path.join(".writable");
        std::fs::write(&probe, b"")?;
        std::fs::remove_file(&probe)
    };
    make().with_context(|| format!("the data_dir {} cannot be written", path.display()))
}
