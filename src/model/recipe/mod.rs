//! A recipe: how to run a game, as `game-scripts/<game>/recipe.toml` says it. Parsed and checked here, as pure text;
//! `crate::recipes` reads the files. docs/recipes.md explains every key.

mod parse;
mod players;
mod read;
mod system;

pub use players::PlayersInLog;
use regex::Regex;
use std::collections::{BTreeMap, HashMap};

/// The format this release reads.
pub const FORMAT: u32 = 1;
/// Characters of one setting's value.
pub const VALUE_MAX_CHARS: usize = 4000;

#[derive(Clone, Debug)]
pub struct Recipe {
    pub format: u32,
    /// The folder's name, which is what people type.
    pub game: String,
    /// The title, for people.
    pub name: String,
    pub description: String,
    pub homepage: Option<String>,
    pub ports: BTreeMap<String, Port>,
    pub variables: BTreeMap<String, Variable>,
    pub resources: Resources,
    pub container: Container,
    pub world: World,
    pub ready: Ready,
    pub stop: Stop,
    pub console: Option<Console>,
    pub query: Option<Query>,
    pub players: Option<PlayersInLog>,
    pub config: Vec<ConfigEdit>,
    pub patterns: Patterns,
    pub quiesce: Option<Quiesce>,
    pub timeouts: Timeouts,
}

#[derive(Clone, Debug)]
pub struct Port {
    pub number: u16,
    pub protocol: PortProtocol,
    /// For this machine only: never published beyond loopback.
    pub private: bool,
    /// The one that friends join; the first that is not private where none says so.
    pub join: bool,
    /// Another port's name, for games that take a second port by counting on from the first: whatever number that
    /// one gets, this one stays as far from it as the recipe's numbers are.
    pub offset_from: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortProtocol {
    Tcp,
    Udp,
    Both,
}

impl PortProtocol {
    pub fn word(self) -> &'static str {
        match self {
            PortProtocol::Tcp => "tcp",
            PortProtocol::Udp => "udp",
            PortProtocol::Both => "tcp+udp",
        }
    }
}

/// Something people may set. Its key is the environment variable that the scripts see.
#[derive(Clone, Debug)]
pub struct Variable {
    pub kind: VariableKind,
    pub help: String,
    pub label: Option<String>,
    pub default: Option<String>,
    pub required: bool,
    /// Kept apart, never shown, masked in all output.
    pub secret: bool,
    /// Of an integer.
    pub min: Option<i64>,
    pub max: Option<i64>,
    /// Of a string: a regular expression for the whole value.
    pub pattern: Option<String>,
    pub max_length: Option<usize>,
    /// Of a choice.
    pub allowed: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VariableKind {
    String,
    Integer,
    Boolean,
    Choice,
}

/// Processes and threads that a game may have at once, where nobody says how many.
pub const PIDS_USUAL: u32 = 2048;

#[derive(Clone, Debug)]
pub struct Resources {
    pub memory_mb: u32,
    pub cpus: f64,
    /// [`PIDS_USUAL`] where there is none.
    pub pids: Option<u32>,
    /// What an install takes, for choosing a host and for a warning.
    pub disk_mb: Option<u32>,
}

#[derive(Clone, Debug)]
pub struct Container {
    /// The image that bootstrap runs on.
    pub base: String,
}

/// What must never be lost, relative to `GAME_DIR`.
#[derive(Clone, Debug, Default)]
pub struct World {
    pub paths: Vec<String>,
    pub exclude: Vec<String>,
}

/// How it shows that people can join: one of the four.
#[derive(Clone, Debug)]
pub struct Ready {
    /// Regular expressions; a line that matches any of them says so.
    pub log: Vec<String>,
    pub query: bool,
    pub port: Option<String>,
    pub healthcheck: bool,
    pub timeout_s: u64,
    compiled: Vec<Regex>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadyWhen<'a> {
    Log,
    Query,
    Port(&'a str),
    Healthcheck,
}

#[derive(Clone, Debug)]
pub struct Stop {
    /// Seconds until a game that does not end is ended by force.
    pub grace_s: u64,
}

#[derive(Clone, Debug)]
pub struct Console {
    pub protocol: ConsoleProtocol,
    /// The port's name; not for stdin.
    pub port: Option<String>,
    /// The port is one that friends reach, and the recipe says that it knows.
    pub on_game_port: bool,
    /// Bytes of a line that the game reads as one; the rest would be another command to it.
    pub max_line_bytes: Option<usize>,
    /// The command that tells the players something: `say {message}`.
    pub say: Option<String>,
    /// Commands worth suggesting, the most harmless first.
    pub commands: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsoleProtocol {
    SourceRcon,
    MinecraftRcon,
    Quake3Rcon,
    OpenttdAdmin,
    Stdin,
}

impl ConsoleProtocol {
    pub fn word(self) -> &'static str {
        match self {
            ConsoleProtocol::SourceRcon => "Source RCON",
            ConsoleProtocol::MinecraftRcon => "Minecraft RCON",
            ConsoleProtocol::Quake3Rcon => "Quake 3 RCON",
            ConsoleProtocol::OpenttdAdmin => "OpenTTD admin port",
            ConsoleProtocol::Stdin => "standard input",
        }
    }
}

#[derive(Clone, Debug)]
pub struct Query {
    pub protocol: QueryProtocol,
    /// The port's name.
    pub port: String,
    /// For `gamedig`: its name of the game.
    pub id: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryProtocol {
    A2s,
    Minecraft,
    Quake3,
    Openttd,
    Gamedig,
}

/// Keys to set in one of the game's own configuration files, before every start.
#[derive(Clone, Debug)]
pub struct ConfigEdit {
    /// Relative to `GAME_DIR`.
    pub file: String,
    pub format: ConfigFormat,
    /// Key to value; `{VARIABLE}` in a value is the environment's.
    pub set: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigFormat {
    /// `key=value` lines.
    Properties,
    /// `[section]` and `key = value`; the key is `section.key`.
    Ini,
    /// The key is a path with dots.
    Json,
    Toml,
    /// Every line that begins with the key becomes the value.
    Lines,
}

/// Regular expressions over the game's log, with named groups `player` and `message`.
#[derive(Clone, Debug, Default)]
pub struct Patterns {
    pub join: Option<String>,
    pub leave: Option<String>,
    pub chat: Option<String>,
}

/// Console commands around a backup of a running world.
#[derive(Clone, Debug)]
pub struct Quiesce {
    pub before: Vec<String>,
    pub after: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct Timeouts {
    pub bootstrap_s: u64,
    pub install_s: u64,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts { bootstrap_s: 1800, install_s: 7200 }
    }
}

/// What a script finds around it.
pub struct Surroundings<'a> {
    pub game_dir: &'a str,
    pub server_name: &'a str,
    pub public_address: &'a str,
    pub ports: &'a BTreeMap<String, u16>,
    /// What people set, secrets and the console's password among them.
    pub settings: &'a HashMap<String, String>,
}

impl Recipe {
    /// Reads a recipe. `place` is the file's name for the errors.
    ///
    /// # Errors
    /// Every fault, each with file, line and what is allowed.
    pub fn parse(text: &str, place: &str) -> Result<Recipe, Vec<String>> {
        parse::parse(text, place)
    }

    /// The port that friends join: the one that says so, or else the first that is public.
    pub fn join_port(&self) -> Option<&str> {
        let says = self.ports.iter().find(|(_, port)| port.join);
        says.or_else(|| self.ports.iter().find(|(_, port)| !port.private)).map(|(name, _)| name.as_str())
    }

    /// Every fault of what people set, as sentences; unknown names are for the caller, who knows where they came from.
    pub fn check_settings(&self, settings: &BTreeMap<String, String>) -> Result<(), Vec<String>> {
        let mut faults = vec![];
        for (name, variable) in &self.variables {
            match settings.get(name) {
                Some(value) => faults.extend(variable.fault_of(name, value)),
                None if variable.required && variable.default.is_none() => {
                    faults.push(format!("`{name}` has to be set: {}", variable.help));
                }
                None => {}
            }
        }
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }

    /// The environment of the game's scripts.
    pub fn environment(&self, around: &Surroundings<'_>) -> Vec<(String, String)> {
        let mut env = self.install_environment(around.game_dir);
        env.push(("SERVER_NAME".into(), around.server_name.to_owned()));
        env.push(("PUBLIC_ADDRESS".into(), around.public_address.to_owned()));
        for (name, number) in around.ports {
            env.push((port_variable(name), number.to_string()));
        }
        if let Some(password) = around.settings.get("CONSOLE_PASSWORD") {
            env.push(("CONSOLE_PASSWORD".into(), password.clone()));
        }
        for (name, variable) in &self.variables {
            let value = around.settings.get(name).or(variable.default.as_ref());
            if let Some(value) = value {
                match env.iter_mut().find(|(known, _)| known == name) {
                    Some((_, known)) => *known = value.clone(),
                    None => env.push((name.clone(), value.clone())),
                }
            }
        }
        env
    }

    /// The environment of the install script: no server exists yet, so variables have their defaults.
    pub fn install_environment(&self, game_dir: &str) -> Vec<(String, String)> {
        let fixed = [("GAME_DIR", game_dir), ("WORLD_DIR", game_dir), ("HOME", game_dir), ("LANG", "C.UTF-8")];
        let mut env: Vec<(String, String)> = fixed.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let defaults =
            self.variables.iter().filter_map(|(name, variable)| Some((name.clone(), variable.default.clone()?)));
        env.extend(defaults);
        env
    }

    pub fn console_commands(&self) -> Vec<String> {
        self.console.as_ref().map(|console| console.commands.clone()).unwrap_or_default()
    }

    /// Whether the game has a way to tell its players something.
    pub fn can_say(&self) -> bool {
        self.console.as_ref().is_some_and(|console| console.say.is_some())
    }

    /// The numbers of the ports in an environment that [`Recipe::environment`] made.
    pub fn ports_in(&self, env: &[(String, String)]) -> BTreeMap<String, u16> {
        let number = |name: &String| env.iter().find(|(key, _)| *key == port_variable(name))?.1.parse().ok();
        self.ports.keys().filter_map(|name| Some((name.clone(), number(name)?))).collect()
    }

    /// The console command that tells the players something. A line is all a console takes.
    pub fn say(&self, message: &str) -> Option<String> {
        let say = self.console.as_ref()?.say.as_ref()?;
        let line: String = message.chars().map(|c| if c.is_control() || c == '"' { ' ' } else { c }).collect();
        Some(say.replace("{message}", &line))
    }
}

fn port_variable(port: &str) -> String {
    format!("PORT_{}", port.to_ascii_uppercase())
}

impl Ready {
    pub fn when(&self) -> ReadyWhen<'_> {
        match &self.port {
            Some(port) => ReadyWhen::Port(port),
            None if self.query => ReadyWhen::Query,
            None if self.healthcheck => ReadyWhen::Healthcheck,
            None => ReadyWhen::Log,
        }
    }

    pub fn log_matches(&self, line: &str) -> bool {
        let plain = without_ansi(line);
        self.compiled.iter().any(|pattern| pattern.is_match(&plain))
    }
}

/// Takes colours and cursor movements (ECMA-48 CSI sequences) out of a log line.
pub fn without_ansi(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c != '\u{1b}' {
            plain.push(c);
            continue;
        }
        if chars.next() == Some('[') {
            // A sequence ends with its first character from @ to ~.
            for c in chars.by_ref() {
                if ('@'..='~').contains(&c) {
                    break;
                }
            }
        }
    }
    plain
}

/// Shorter secrets are neither masked nor taken: hiding every `1` would hide the output.
pub const SECRET_MIN_CHARS: usize = 4;

impl Variable {
    /// Why a value cannot be taken, if it cannot. The value itself is not repeated: it may be a secret.
    pub fn fault_of(&self, name: &str, value: &str) -> Option<String> {
        if value.contains(['\n', '\r', '\0']) {
            return Some(format!("`{name}` is one line of text"));
        }
        let fits = match self.kind {
            VariableKind::Integer => value.parse::<i64>().is_ok_and(|number| {
                self.min.is_none_or(|min| number >= min) && self.max.is_none_or(|max| number <= max)
            }),
            VariableKind::Boolean => value == "true" || value == "false",
            VariableKind::Choice => self.allowed.iter().any(|allowed| allowed == value),
            VariableKind::String => {
                let short = value.chars().count() <= self.max_length.unwrap_or(VALUE_MAX_CHARS);
                let whole = |pattern: &String| {
                    Regex::new(&format!("^(?:{pattern})$")).is_ok_and(|pattern| pattern.is_match(value))
                };
                short && self.pattern.as_ref().is_none_or(whole)
            }
        };
        if !fits {
            return Some(format!("`{name}` is {}", self.allowed_text()));
        }
        let readable = self.secret && (1..SECRET_MIN_CHARS).contains(&value.chars().count());
        readable.then(|| {
            format!("`{name}` is secret and too short to be hidden in what the game prints: choose one of {SECRET_MIN_CHARS} characters or more")
        })
    }

    /// What is allowed, for people.
    pub fn allowed_text(&self) -> String {
        match (self.kind, self.min, self.max) {
            (VariableKind::Integer, Some(min), Some(max)) => format!("a whole number from {min} to {max}"),
            (VariableKind::Integer, Some(min), None) => format!("a whole number, {min} or more"),
            (VariableKind::Integer, None, Some(max)) => format!("a whole number, {max} or less"),
            (VariableKind::Integer, None, None) => "a whole number".to_owned(),
            (VariableKind::Boolean, _, _) => "true or false".to_owned(),
            (VariableKind::Choice, _, _) => format!("one of {}", list(self.allowed.iter())),
            (VariableKind::String, _, _) => {
                let form = self.pattern.as_ref().map_or(String::new(), |pattern| format!(" of the form `{pattern}`"));
                format!("a text of at most {} characters{form}", self.max_length.unwrap_or(VALUE_MAX_CHARS))
            }
        }
    }
}

fn list<'a>(items: impl Iterator<Item = &'a String>) -> String {
    let items: Vec<_> = items.map(|item| format!("`{item}`")).collect();
    if items.is_empty() { "none".to_owned() } else { items.join(", ") }
}
