//! Servers: made, listed, looked at, talked to, and set.

use super::{Answer, App, Did, Refusal, not_set_up, places};
use crate::bus::Nudge;
use crate::engine::{ConsoleFault, Driver};
use crate::model::access::{Caller, Permission};
use crate::model::cost::{Cheapest, Quote};
use crate::model::host::Place;
use crate::model::recipe::{PIDS_USUAL, Recipe, Variable, VariableKind, without_ansi};
use crate::model::server::{Backend, Limits, Owned, Server, ServerName, Wanted};
use crate::model::view::ServerView;
use crate::model::{GuildId, ServerId};
use crate::store::servers::{Change, CreateError};
use anyhow::Context;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Servers that one guild may have: a slip with a script must not fill the disk.
const SERVERS_MAX: usize = 100;
/// A console line may be so long; no game takes more.
const LINE_MAX_CHARS: usize = 1000;
/// Lines of the log that one answer holds.
const LOG_LINES_MAX: usize = 2000;
/// Names of the settings that every server has, whatever its game.
const MEMORY: &str = "memory_mb";
const CPUS: &str = "cpus";
const PIDS: &str = "pids";
const IDLE: &str = "idle_minutes";
const LEASE: &str = "lease_minutes";
const BUDGET: &str = "budget";
const AT_UNIT: &str = "stop_at_billing_unit";
const COMMON: [&str; 7] = [MEMORY, CPUS, PIDS, IDLE, LEASE, BUDGET, AT_UNIT];
/// As in recipes.
const PIDS_MIN: u32 = 8;
const PIDS_MAX: u32 = 100_000;
const CPUS_MIN: f64 = 0.05;
const CPUS_MAX: f64 = 256.0;
/// With less no game starts.
const MEMORY_MIN_MB: u32 = 16;
/// The watcher reads these anew each time; all others count from the next start on.
const AT_ONCE: [&str; 3] = [IDLE, BUDGET, AT_UNIT];

/// What a new server is made from.
#[derive(Clone, Debug, Default)]
pub struct NewServer {
    pub name: String,
    pub game: String,
    pub backend: Option<String>,
    pub settings: BTreeMap<String, String>,
    /// Where its host is rented, on the cloud backend.
    pub place: Place,
    pub channel: Option<String>,
}

/// The settings of a server, ready to be shown as a form.
#[derive(Clone, Debug)]
pub struct Form {
    pub server: String,
    pub game: String,
    pub fields: Vec<Field>,
}

#[derive(Clone, Debug)]
pub struct Field {
    pub key: String,
    pub label: String,
    pub help: String,
    pub kind: FieldKind,
    /// `None` where it follows the default, and always for a secret.
    pub value: Option<String>,
    pub default: Option<String>,
    pub required: bool,
    pub secret: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum FieldKind {
    Text,
    Number {
        min: Option<i64>,
        max: Option<i64>,
    },
    /// Not a whole one.
    Decimal {
        min: f64,
        max: f64,
    },
    Choice(Vec<String>),
    YesNo,
}

/// A server that was made.
#[derive(Clone, Debug)]
pub struct Created {
    pub view: ServerView,
    /// Where its provider was chosen by the price.
    pub cheapest: Option<Cheapest>,
}

/// What a change of settings did.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    pub changed: Vec<String>,
    /// Where its provider was chosen by the price.
    pub cheapest: Option<Cheapest>,
    /// What a start rents from now on, where that was named anew.
    pub quote: Option<Quote>,
    /// It runs now, so the change waits for the next start.
    pub at_next_start: bool,
}

impl App {
    pub async fn create(&self, caller: &Caller, new: NewServer) -> Answer<Created> {
        let (name, game) = (new.name.clone(), new.game.clone());
        let work = Box::pin(self.create_unaudited(caller, new));
        let name: String = name.chars().take(40).collect();
        self.audited(caller, Did::new("create", &name).with(game.chars().take(40).collect::<String>()), work).await
    }

    async fn create_unaudited(&self, caller: &Caller, new: NewServer) -> Answer<Created> {
        self.require(caller, None, Permission::Operate).await?;
        let name = ServerName::parse(new.name.trim()).map_err(Refusal::Invalid)?;
        let recipe = self.recipe(&new.game)?;
        let backend = match new.backend.as_deref().map(str::trim) {
            // Who says where to rent wants it rented.
            None | Some("") if new.place != Place::default() => Backend::Cloud,
            None | Some("") => self.default_backend()?,
            Some(word) => {
                Backend::parse(word).ok_or_else(|| Refusal::Invalid("A backend is `docker` or `cloud`.".to_owned()))?
            }
        };
        if self.engine().driver(backend).is_none() {
            return Err(not_set_up(backend));
        }
        if self.store().servers_of(&caller.guild).await?.len() >= SERVERS_MAX {
            return Err(Refusal::Invalid(format!("There are {SERVERS_MAX} servers here already; delete one first.")));
        }
        let typed: BTreeMap<String, Option<String>> =
            new.settings.into_iter().map(|(key, value)| (key, Some(value))).collect();
        let changes = sorted_out(recipe, &typed)?;
        let mut secrets: HashMap<String, String> =
            changes.secrets.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
        secrets.insert("CONSOLE_PASSWORD".to_owned(), random_password());
        let settings: BTreeMap<String, String> =
            changes.settings.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
        let all = settings.iter().chain(&secrets).map(|(key, value)| (key.clone(), value.clone())).collect();
        recipe.check_settings(&all).map_err(|problems| Refusal::Invalid(problems.join("\n")))?;
        let mut limits = Limits::default();
        set_limits(&mut limits, &changes.limits)?;
        if backend == Backend::Docker && new.place != Place::default() {
            return Err(Refusal::Invalid(places::nothing_rented(name.as_str())));
        }
        let words = [
            (places::PROVIDER, new.place.provider),
            (places::REGION, new.place.region),
            (places::SIZE, new.place.size),
            (places::IMAGE, new.place.image),
        ];
        let words: BTreeMap<String, Option<String>> = words
            .into_iter()
            .filter_map(|(key, word)| {
                Some((key.to_owned(), Some(word?.trim().to_owned()).filter(|word| !word.is_empty())))
            })
            .collect();
        let place = if words.is_empty() { Place::default() } else { self.place_of(&Place::default(), &words).await? };
        let mut server = Server {
            id: ServerId(random_id()),
            guild: caller.guild.clone(),
            name,
            game: new.game,
            backend,
            settings,
            limits,
            place,
            wanted: Wanted::Off,
            owned: Owned::default(),
            lease_until: None,
            update_at_start: false,
            channel: new.channel,
            created_at: self.now(),
            deleted_at: None,
        };
        let cheapest = self.choose_provider(&mut server).await?;
        self.tell_price(&mut server).await?;
        match self.store().create_server(&server, &secrets, &caller.actor).await {
            Ok(()) => {}
            Err(CreateError::NameTaken) => {
                return Err(Refusal::Invalid(format!("There is already a server called `{}` here.", server.name)));
            }
            Err(CreateError::Other(error)) => return Err(Refusal::Ours(error)),
        }
        self.engine().look(&server).await;
        Ok(Created { view: self.view_of(&server).await?, cheapest })
    }

    pub async fn logs(&self, caller: &Caller, name: &str, lines: usize) -> Answer<String> {
        let server = self.server(caller, name, Permission::Operate).await?;
        let driver = self.driver(&server)?;
        match driver.logs(&server, lines.clamp(1, LOG_LINES_MAX)).await {
            Ok(lines) => {
                let secrets = self.store().never_shown(&server.id).await?;
                Ok(crate::engine::mask(&without_ansi(&lines.join("\n")), &secrets))
            }
            Err(error) => {
                tracing::info!(server = %server.name, "No log could be read: {error:#}");
                let why = match &server.owned.host {
                    Some(_) if server.owned.rented().is_some() => {
                        "its host does not answer just now. Its game may run, and the host bills."
                    }
                    Some(_) => "its machine does not answer just now. Its game may run.",
                    None => "it is not running.",
                };
                Err(Refusal::Invalid(format!("`{}` has no log to show: {why}", server.name)))
            }
        }
    }

    /// Types one line into the game's console. The answer has the server's secrets masked.
    pub async fn console(&self, caller: &Caller, name: &str, line: &str) -> Answer<String> {
        let name = name.trim();
        let work = Box::pin(self.console_unaudited(caller, name, line));
        // What was typed is on record, with secrets masked; a password that somebody sets is theirs.
        let typed: String = line.chars().filter(|c| !c.is_control()).collect();
        let typed = match self.store().server_by_name(&caller.guild, name).await? {
            Some(server) => crate::engine::mask(&typed, &self.store().never_shown(&server.id).await?),
            None => typed,
        };
        // Masked before it is cut: half a secret is no secret that could be found.
        let typed: String = typed.chars().take(200).collect();
        self.audited(caller, Did::new("console", name).with(typed), work).await
    }

    pub(super) async fn console_unaudited(&self, caller: &Caller, name: &str, line: &str) -> Answer<String> {
        let server = self.server(caller, name, Permission::Operate).await?;
        let line = console_line(line)?;
        let driver = self.driver(&server)?;
        let answer = driver.console(&server, line).await.map_err(|fault| match fault {
            ConsoleFault::None | ConsoleFault::Refused(_) => Refusal::Invalid(fault.to_string()),
            ConsoleFault::NotRunning => Refusal::Invalid(format!("`{}` is not running.", server.name)),
            ConsoleFault::Silent(_) => Refusal::Busy(fault.to_string()),
        })?;
        let secrets = self.store().never_shown(&server.id).await?;
        // Apart from the conversation: a console may answer with megabytes.
        let masked = move || crate::engine::mask(&without_ansi(&answer), &secrets);
        Ok(tokio::task::spawn_blocking(masked).await.context("masking a console's answer")?)
    }

    /// Commands of this game's console that begin with what was typed.
    pub async fn console_suggestions(&self, guild: &GuildId, name: &str, typed: &str) -> Vec<String> {
        let server = self.store().server_by_name(guild, name).await.ok().flatten();
        let recipe = server.and_then(|server| self.inner.recipes.get(&server.game));
        let commands = recipe.map(|recipe| recipe.console_commands()).unwrap_or_default();
        commands.into_iter().filter(|command| command.starts_with(typed.trim_start())).collect()
    }

    pub async fn settings_form(&self, caller: &Caller, name: &str) -> Answer<Form> {
        let server = self.server(caller, name, Permission::Operate).await?;
        let recipe = self.recipe_of(&server)?;
        let mut fields: Vec<Field> =
            recipe.variables.iter().map(|(key, variable)| field(key, variable, &server)).collect();
        fields.extend(common_fields(&server, recipe));
        fields.extend(places::fields(&server));
        fields.push(pids_field(&server, recipe));
        Ok(Form { server: server.name.to_string(), game: recipe.name.clone(), fields })
    }

    /// Changes settings: an empty value goes back to the default. Nothing is changed unless everything can be.
    pub async fn settings_apply(
        &self,
        caller: &Caller,
        name: &str,
        values: BTreeMap<String, String>,
    ) -> Answer<Applied> {
        let detail = values.keys().cloned().collect::<Vec<_>>().join(", ");
        let work = Box::pin(self.settings_unaudited(caller, name, values));
        self.audited(caller, Did::new("settings", name).with(detail), work).await
    }

    async fn settings_unaudited(
        &self,
        caller: &Caller,
        name: &str,
        values: BTreeMap<String, String>,
    ) -> Answer<Applied> {
        let server = self.server(caller, name, Permission::Operate).await?;
        let recipe = self.recipe_of(&server)?;
        let typed = values.into_iter().map(|(key, value)| {
            let value = value.trim().to_owned();
            (key, (!value.is_empty()).then_some(value))
        });
        let changes = sorted_out(recipe, &typed.collect())?;
        let mut settings = server.settings.clone();
        let mut changed = vec![];
        for (key, value) in &changes.settings {
            let before = settings.get(key).cloned();
            match value {
                Some(value) => settings.insert(key.clone(), value.clone()),
                None => settings.remove(key),
            };
            if before != *value {
                changed.push(key.clone());
            }
        }
        changed.extend(changes.secrets.keys().cloned());
        let secrets = self.store().secrets_of(&server.id).await?;
        let mut all: BTreeMap<String, String> = settings.clone();
        all.extend(secrets);
        for (key, value) in &changes.secrets {
            match value {
                Some(value) => all.insert(key.clone(), value.clone()),
                None => all.remove(key),
            };
        }
        recipe.check_settings(&all).map_err(|problems| Refusal::Invalid(problems.join("\n")))?;
        let mut limits = server.limits.clone();
        for (key, value) in &changes.limits {
            let before = limits.clone();
            set_limits(&mut limits, &BTreeMap::from([(key.clone(), value.clone())]))?;
            if limits != before {
                changed.push(key.clone());
            }
        }
        // Who may raise a budget has none. A form that is sent as it was opened changes nothing.
        if limits.budget != server.limits.budget {
            self.server(caller, name, Permission::Admin).await?;
        }
        let mut there = Server { limits: limits.clone(), ..server.clone() };
        let mut cheapest = None;
        if !changes.place.is_empty() {
            self.place_is_free(&server).await?;
            there.place = self.place_of(&server.place, &changes.place).await?;
            cheapest = self.choose_provider(&mut there).await?;
            changed.extend(places::changed(&server.place, &there.place));
        }
        let needs = |limits: &Limits| (limits.memory_mb, limits.cpus);
        let free = server.backend == Backend::Cloud && self.place_is_free(&server).await.is_ok();
        let tells = free && (there.place != server.place || needs(&limits) != needs(&server.limits));
        let told = if tells { self.tell_price(&mut there).await? } else { None };
        let change = Change {
            place: (there.place != server.place).then(|| (server.place.clone(), there.place)),
            limits: (limits != server.limits).then_some(limits),
            settings: Some(settings),
            secrets: changes.secrets,
            at: self.now(),
        };
        let set = self.store().change(&server.id, change.clone()).await?;
        if !set && !changes.place.is_empty() {
            return Err(Refusal::Busy(format!("`{}` was changed or started just now. Try again.", server.name)));
        }
        if !set {
            // It was only a price that could have been named.
            self.store().change(&server.id, Change { place: None, ..change }).await?;
        }
        let quote = told.filter(|_| set && cheapest.is_none());
        self.changed(&server);
        let waits = changed.iter().any(|key| !AT_ONCE.contains(&key.as_str()));
        Ok(Applied { changed, cheapest, quote, at_next_start: server.wanted == Wanted::On && waits })
    }

    pub async fn server_names(&self, guild: &GuildId) -> Vec<String> {
        let servers = self.store().servers_of(guild).await.unwrap_or_default();
        servers.into_iter().map(|server| server.name.to_string()).collect()
    }

    pub(super) fn recipe(&self, game: &str) -> Answer<&Recipe> {
        self.inner.recipes.get(game.trim()).ok_or_else(|| {
            let games: Vec<String> = self.inner.recipes.list().into_iter().map(|recipe| recipe.game.clone()).collect();
            Refusal::NotFound(format!("There is no recipe for that game. There are: {}.", super::listed(&games)))
        })
    }

    pub(super) fn recipe_of(&self, server: &Server) -> Answer<&Recipe> {
        self.inner.recipes.get(&server.game).ok_or_else(|| {
            Refusal::Invalid(format!(
                "The recipe of `{}`, `{}`, is gone from game-scripts. Its world and backups are untouched.",
                server.name, server.game
            ))
        })
    }

    pub(super) fn driver(&self, server: &Server) -> Answer<Arc<dyn Driver>> {
        self.engine().driver(server.backend).ok_or_else(|| not_set_up(server.backend))
    }

    fn default_backend(&self) -> Answer<Backend> {
        let here =
            [Backend::Docker, Backend::Cloud].into_iter().find(|backend| self.engine().driver(*backend).is_some());
        here.ok_or_else(|| {
            Refusal::Invalid("No backend is set up here. `spawnpoint doctor` says what is missing.".to_owned())
        })
    }

    pub(super) fn changed(&self, server: &Server) {
        self.inner.bus.nudge(Nudge::Server(server.id.clone()));
    }
}

/// What can be typed into a console.
pub(super) fn console_line(line: &str) -> Answer<&str> {
    let line = line.trim();
    if line.is_empty() {
        return Err(Refusal::Invalid("Type a command for the game, for instance `help`.".to_owned()));
    }
    if line.chars().any(char::is_control) || line.chars().count() > LINE_MAX_CHARS {
        return Err(Refusal::Invalid(format!("A console command is one line of at most {LINE_MAX_CHARS} characters.")));
    }
    Ok(line)
}

/// What was typed, sorted by where it is kept.
struct Changes {
    settings: BTreeMap<String, Option<String>>,
    secrets: HashMap<String, Option<String>>,
    limits: BTreeMap<String, Option<String>>,
    place: BTreeMap<String, Option<String>>,
}

fn sorted_out(recipe: &Recipe, typed: &BTreeMap<String, Option<String>>) -> Answer<Changes> {
    let mut changes =
        Changes { settings: BTreeMap::new(), secrets: HashMap::new(), limits: BTreeMap::new(), place: BTreeMap::new() };
    for (key, value) in typed {
        if places::KEYS.contains(&key.as_str()) {
            changes.place.insert(key.clone(), value.clone());
            continue;
        }
        if COMMON.contains(&key.as_str()) {
            changes.limits.insert(key.clone(), value.clone());
            continue;
        }
        match recipe.variables.get(key) {
            Some(variable) if variable.secret => {
                changes.secrets.insert(key.clone(), value.clone());
            }
            Some(_) => {
                changes.settings.insert(key.clone(), value.clone());
            }
            None => {
                let common = COMMON.into_iter().chain(places::KEYS).map(str::to_owned);
                let known: Vec<String> = recipe.variables.keys().cloned().chain(common).collect();
                let shown: String = key.chars().filter(|c| !c.is_control() && *c != '`').take(40).collect();
                return Err(Refusal::Invalid(format!(
                    "{} has no setting called `{shown}`. It has {}.",
                    recipe.name,
                    super::listed(&known)
                )));
            }
        }
    }
    Ok(changes)
}

fn set_limits(limits: &mut Limits, typed: &BTreeMap<String, Option<String>>) -> Answer<()> {
    let number = |key: &str, value: &str, min: u32, max: u32| -> Answer<u32> {
        value
            .parse()
            .ok()
            .filter(|number| (min..=max).contains(number))
            .ok_or_else(|| Refusal::Invalid(format!("`{key}` is a whole number from {min} to {max}.")))
    };
    for (key, value) in typed {
        let value = value.as_deref();
        match key.as_str() {
            MEMORY => limits.memory_mb = value.map(|value| number(key, value, MEMORY_MIN_MB, 1 << 20)).transpose()?,
            PIDS => limits.pids = value.map(|value| number(key, value, PIDS_MIN, PIDS_MAX)).transpose()?,
            IDLE => limits.idle_min = value.map(|value| number(key, value, 0, 10_080)).transpose()?,
            LEASE => limits.lease_min = value.map(|value| number(key, value, 0, 10_080)).transpose()?,
            CPUS => {
                let cpus = |value: &str| {
                    value.parse().ok().filter(|cpus: &f64| (CPUS_MIN..=CPUS_MAX).contains(cpus)).ok_or_else(|| {
                        Refusal::Invalid(format!(
                            "`cpus` is a number from {CPUS_MIN} to {CPUS_MAX}, for instance `1.5`."
                        ))
                    })
                };
                limits.cpus = value.map(cpus).transpose()?;
            }
            BUDGET => {
                let budget = |value: &str| value.parse().map_err(|why| Refusal::Invalid(format!("`budget`: {why}.")));
                limits.budget = value.map(budget).transpose()?;
            }
            AT_UNIT => {
                let yes_no = |value: &str| {
                    let wrong = || Refusal::Invalid(format!("`{AT_UNIT}` is `true` or `false`."));
                    value.parse().map_err(|_| wrong())
                };
                limits.stop_at_billing_unit = value.map(yes_no).transpose()?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn field(key: &str, variable: &Variable, server: &Server) -> Field {
    let kind = match variable.kind {
        VariableKind::String => FieldKind::Text,
        VariableKind::Integer => FieldKind::Number { min: variable.min, max: variable.max },
        VariableKind::Choice => FieldKind::Choice(variable.allowed.clone()),
        VariableKind::Boolean => FieldKind::YesNo,
    };
    Field {
        key: key.to_owned(),
        label: variable.label.clone().unwrap_or_else(|| key.to_owned()),
        help: variable.help.clone(),
        kind,
        value: server.settings.get(key).cloned().filter(|_| !variable.secret),
        default: variable.default.clone().filter(|_| !variable.secret),
        required: variable.required,
        secret: variable.secret,
    }
}

/// Hardly anybody looks for it, so it comes last.
fn pids_field(server: &Server, recipe: &Recipe) -> Field {
    Field {
        key: PIDS.to_owned(),
        label: "Processes".to_owned(),
        help: "How many processes and threads the game may have at once; a rented host sets no limit.".to_owned(),
        kind: FieldKind::Number { min: Some(PIDS_MIN.into()), max: Some(PIDS_MAX.into()) },
        value: server.limits.pids.map(|pids| pids.to_string()),
        default: Some(recipe.resources.pids.unwrap_or(PIDS_USUAL).to_string()),
        required: false,
        secret: false,
    }
}

fn common_fields(server: &Server, recipe: &Recipe) -> Vec<Field> {
    let text = |value: Option<u32>| value.map(|value| value.to_string());
    let field =
        |key: &str, label: &str, help: &str, value: Option<String>, default: Option<String>, (min, max): (i64, i64)| {
            Field {
                key: key.to_owned(),
                label: label.to_owned(),
                help: help.to_owned(),
                kind: FieldKind::Number { min: Some(min), max: Some(max) },
                value,
                default,
                required: false,
                secret: false,
            }
        };
    let mut fields = vec![
        field(
            MEMORY,
            "Memory (MB)",
            "How much memory the game may use.",
            text(server.limits.memory_mb),
            Some(recipe.resources.memory_mb.to_string()),
            (MEMORY_MIN_MB.into(), 1 << 20),
        ),
        Field {
            kind: FieldKind::Decimal { min: CPUS_MIN, max: CPUS_MAX },
            ..field(
                CPUS,
                "Processors",
                "How many processors it may use, also a half.",
                server.limits.cpus.map(|cpus| cpus.to_string()),
                Some(recipe.resources.cpus.to_string()),
                (0, 0),
            )
        },
        field(
            IDLE,
            "Idle stop (minutes)",
            "Stops after so many minutes with nobody on; 0 never.",
            text(server.limits.idle_min),
            None,
            (0, 10_080),
        ),
        field(
            LEASE,
            "Time limit (minutes)",
            "A start ends by itself after this, unless extended; 0 never.",
            text(server.limits.lease_min),
            None,
            (0, 10_080),
        ),
    ];
    if server.backend == Backend::Cloud {
        fields.push(Field {
            kind: FieldKind::Text,
            ..field(
                BUDGET,
                "Budget for a month",
                "What its hosts may cost in a month, e.g. `10 USD`; then it stops. Admins only.",
                server.limits.budget.as_ref().map(ToString::to_string),
                None,
                (0, 0),
            )
        });
        fields.push(Field {
            kind: FieldKind::YesNo,
            ..field(
                AT_UNIT,
                "Use up what is paid for",
                "Idle stops wait for the end of the hour that is paid for anyway.",
                server.limits.stop_at_billing_unit.map(|yes| yes.to_string()),
                None,
                (0, 0),
            )
        });
    }
    fields
}

/// Ten letters and digits, for ids that go into names and labels.
fn random_id() -> String {
    random_text(10, b"abcdefghijklmnopqrstuvwxyz0123456789")
}

/// For a game's console. Letters and digits only: some games cut a password at a sign.
fn random_password() -> String {
    random_text(24, b"abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789")
}

fn random_text(length: usize, alphabet: &[u8]) -> String {
    (0..length).map(|_| char::from(alphabet[rand::random_range(0..alphabet.len())])).collect()
}
