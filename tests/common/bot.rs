//! The whole bot in this process: its front, the app, the engine and SQLite, with a scripted backend in place of real
//! containers. It connects to a stand-in Discord, and can be ended and started again over the same home.
#![allow(dead_code, reason = "each test binary uses its own part")]

use super::discord::Discord;
use jiff::tz::TimeZone;
use secrecy::SecretString;
use spawnpoint::app::{App, Choices, Parts};
use spawnpoint::bus::Bus;
use spawnpoint::config;
use spawnpoint::drivers::fake::{Fake, Outside};
use spawnpoint::engine::{Clock, Defaults, Driver, Engine, Journal};
use spawnpoint::model::bill::Spending;
use spawnpoint::model::lease::Rules;
use spawnpoint::model::server::Backend;
use spawnpoint::model::{MINUTE_MS, Ms, ServerId};
use spawnpoint::recipes::Recipes;
use spawnpoint::scheduler;
use spawnpoint::store::Store;
use spawnpoint::vault::{Meta, OwnerId, Reason, Selection, Shift, Vault};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The bot ends within this time, whatever it does.
const END_WITHIN: Duration = Duration::from_secs(20);

/// Leftovers are looked for so often.
const SWEEP_EVERY: Duration = Duration::from_millis(500);

/// What outlives the bot: its data, its recipes, and the world outside.
pub struct Home {
    folder: tempfile::TempDir,
    pub outside: Outside,
    /// What the operator decided about money.
    pub spending: Spending,
    /// How long a start lasts.
    pub lease_ms: Ms,
    /// As in the configuration: empty means all.
    pub guilds: Vec<String>,
    /// A connection to Discord's gateway that is not whole by then is made anew.
    pub whole_within: Duration,
}

impl Home {
    pub fn new() -> Home {
        let folder = tempfile::tempdir().expect("a folder");
        recipe(folder.path(), "toy", "Toy", "");
        let needy = "[variables.WORLD_NAME]\ntype = \"string\"\nrequired = true\nhelp = \"What the world is called.\"\n\n\
                     [variables.PASSWORD]\ntype = \"string\"\nsecret = true\ndefault = \"hush\"\nhelp = \"What friends type.\"\n\n\
                     [variables.SIZE]\ntype = \"choice\"\nallowed = [\"small\", \"large\"]\ndefault = \"small\"\nhelp = \"How large.\"\n\n";
        recipe(folder.path(), "needy", "Needy Game", needy);
        Home {
            folder,
            outside: Outside::default(),
            spending: Spending::default(),
            lease_ms: 120 * MINUTE_MS,
            guilds: vec![],
            whole_within: spawnpoint::discord::WHOLE_WITHIN,
        }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A kept backup of this server, whose name is `world`, as a stop of the real backend would have left it.
    pub fn keep_backup(&self, server: &ServerId) -> String {
        let owner = OwnerId::parse(&server.0).unwrap();
        let mut staging = Vault::open(&self.path().join("vault")).unwrap().stage(&owner, None).unwrap();
        let empty = [0u8; 1024];
        staging.unpack(&empty[..], &Selection::everything(), &Shift::none()).unwrap();
        staging.compare(&empty[..], &Selection::everything(), &Shift::none()).unwrap();
        let meta = Meta {
            server: "world".into(),
            game: "toy".into(),
            recipe_version: None,
            reason: Reason::Stop,
            taken_at_ms: 1_795_000_000_000,
            live: false,
            by: "bob".into(),
            note: None,
        };
        staging.keep(meta).unwrap().id.as_str().to_owned()
    }
}

fn recipe(home: &Path, game: &str, title: &str, variables: &str) {
    let folder = home.join("game-scripts").join(game);
    std::fs::create_dir_all(&folder).expect("a folder");
    let text = format!(
        "format = 1\ngame = \"{game}\"\nname = \"{title}\"\ndescription = \"For tests.\"\n\n\
         [ports.game]\nnumber = 27100\nprotocol = \"udp\"\njoin = true\n\n{variables}\
         [resources]\nmemory_mb = 64\n\n[stop]\ngrace_s = 8\n\n[container]\nbase = \"spawnpoint-test/busybox:1\"\n\n\
         [world]\npaths = [\"world\"]\n\n[ready]\nlog = [\"ready\"]\ntimeout_s = 20\n\n\
         [console]\nprotocol = \"stdin\"\ncommands = [\"players\", \"save\", \"seed\"]\n"
    );
    std::fs::write(folder.join("recipe.toml"), text).expect("writing a recipe");
    for script in ["bootstrap", "install", "start", "stop"] {
        let path = folder.join(script);
        std::fs::write(&path, "#!/bin/sh\nexit 0\n").expect("writing a script");
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("making it run");
    }
}

pub struct Bot {
    pub app: App,
    pub store: Store,
    pub bus: Bus,
    stop: CancellationToken,
    front: JoinHandle<Result<(), spawnpoint::discord::Exit>>,
    work: JoinHandle<()>,
}

impl Bot {
    pub async fn start(discord: &Discord, home: &Home) -> Bot {
        Bot::start_with(discord, home, discord.token()).await
    }

    pub async fn start_with(discord: &Discord, home: &Home, token: &str) -> Bot {
        // Another test of this process may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let url = format!("sqlite:{}?mode=rwc", home.folder.path().join("test.db").display());
        let store = Store::connect(&url).await.expect("a database");
        let recipes = Recipes::load(&home.folder.path().join("game-scripts")).expect("good recipes");
        let bus = Bus::default();
        let mut drivers: HashMap<Backend, Arc<dyn Driver>> = HashMap::new();
        let fake: Arc<dyn Driver> = Arc::new(Fake::new(home.outside.clone()));
        drivers.extend(Backend::ALL.map(|backend| (backend, fake.clone())));
        let defaults = Defaults {
            rules: Rules { idle_ms: 0, never_joined_ms: 0, lease_ms: home.lease_ms },
            watch_every: Duration::from_millis(200),
        };
        let journal: Arc<dyn Journal> = Arc::new(store.clone());
        let engine =
            Engine::new(journal, drivers, bus.clone(), Clock::System, defaults).with_spending(home.spending.clone());
        let app = App::new(Parts {
            store: store.clone(),
            engine: engine.clone(),
            vault: Vault::open(&home.folder.path().join("vault")).expect("a vault"),
            recipes: Arc::new(recipes),
            bus: bus.clone(),
            choices: Choices { players_role: "players".into(), extend_ms: 60 * MINUTE_MS, zone: TimeZone::UTC },
        });
        let stop = CancellationToken::new();
        let config = config::Discord {
            token: Some(SecretString::from(token.to_owned())),
            api_url: discord.api_url().to_owned(),
            guilds: home.guilds.clone(),
            ..config::Discord::default()
        };
        let members = spawnpoint::discord::members(&config).expect("a token");
        let (front_app, front_stop, within) = (app.clone(), stop.clone(), home.whole_within);
        let front = tokio::spawn(async move { spawnpoint::discord::run(front_app, &config, within, front_stop).await });
        let (work_app, work_stop) = (app.clone(), stop.clone());
        let work = tokio::spawn(async move {
            tokio::join!(
                engine.run(work_stop.clone()),
                engine.watch(work_stop.clone()),
                engine.sweeps(Some(SWEEP_EVERY), work_stop.clone()),
                scheduler::run(&work_app, members.as_ref(), work_stop)
            );
        });
        Bot { app, store, bus, stop, front, work }
    }

    /// Ends it as SIGTERM does, and says how its front ended.
    pub async fn end(self) -> Result<(), spawnpoint::discord::Exit> {
        self.stop.cancel();
        let ended = tokio::time::timeout(END_WITHIN, async { (self.front.await, self.work.await) }).await;
        let (front, work) = ended.expect("the bot ends when it is told to");
        work.expect("the engine does not panic");
        front.expect("the front does not panic")
    }

    /// How the front ended by itself.
    pub async fn gave_up(self) -> Result<(), spawnpoint::discord::Exit> {
        let front = tokio::time::timeout(END_WITHIN, self.front).await.expect("the front ends by itself");
        self.stop.cancel();
        self.work.await.expect("the engine does not panic");
        front.expect("the front does not panic")
    }
}
