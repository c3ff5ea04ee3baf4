//! From the text of a recipe.toml to a `Recipe`, or to all of its faults.

use super::read::{Section, Source};
use super::*;
use crate::model::config_edit;
use toml::de::DeTable;

/// Nothing in a recipe may take longer than a day.
const TIME_MAX_S: i64 = 86_400;
const NAME_MAX_CHARS: usize = 60;
/// Discord's limit of a form's texts is not far above it.
const HELP_MAX_CHARS: usize = 300;
/// A regular expression is other people's, and may not fill the memory.
const PATTERN_MAX_BYTES: usize = 1 << 20;

/// What the environment of `start` holds besides the variables and the ports.
const GIVEN: [&str; 7] = ["GAME_DIR", "WORLD_DIR", "HOME", "LANG", "SERVER_NAME", "PUBLIC_ADDRESS", "CONSOLE_PASSWORD"];
/// Names with which a setting could make a script run something else.
const DANGEROUS: [&str; 6] = ["PATH", "BASH_ENV", "ENV", "IFS", "SHELLOPTS", "BASHOPTS"];
const DANGEROUS_BEGINNINGS: [&str; 2] = ["LD_", "BASH_FUNC_"];

/// Bytes of a line that a recipe may say its game reads at once.
const CONSOLE_LINE_MAX_BYTES: i64 = 65_536;
/// What to do about a console that friends can reach.
const OPEN_CONSOLE: &str = "Use protocol = \"stdin\" where the engine reads commands on its input, or say \
    on_game_port = true where it has no other console";

const PORT_PROTOCOLS: [(&str, PortProtocol); 3] =
    [("tcp", PortProtocol::Tcp), ("udp", PortProtocol::Udp), ("both", PortProtocol::Both)];
const VARIABLE_KINDS: [(&str, VariableKind); 4] = [
    ("string", VariableKind::String),
    ("integer", VariableKind::Integer),
    ("boolean", VariableKind::Boolean),
    ("choice", VariableKind::Choice),
];
const CONSOLE_PROTOCOLS: [(&str, ConsoleProtocol); 5] = [
    ("source_rcon", ConsoleProtocol::SourceRcon),
    ("minecraft_rcon", ConsoleProtocol::MinecraftRcon),
    ("quake3_rcon", ConsoleProtocol::Quake3Rcon),
    ("openttd_admin", ConsoleProtocol::OpenttdAdmin),
    ("stdin", ConsoleProtocol::Stdin),
];
const QUERY_PROTOCOLS: [(&str, QueryProtocol); 5] = [
    ("a2s", QueryProtocol::A2s),
    ("minecraft", QueryProtocol::Minecraft),
    ("quake3", QueryProtocol::Quake3),
    ("openttd", QueryProtocol::Openttd),
    ("gamedig", QueryProtocol::Gamedig),
];
const CONFIG_FORMATS: [(&str, ConfigFormat); 5] = [
    ("properties", ConfigFormat::Properties),
    ("ini", ConfigFormat::Ini),
    ("json", ConfigFormat::Json),
    ("toml", ConfigFormat::Toml),
    ("lines", ConfigFormat::Lines),
];

pub fn parse(text: &str, place: &str) -> Result<Recipe, Vec<String>> {
    let source = Source::new(place, text);
    let document = match DeTable::parse(text) {
        Ok(document) => document,
        Err(error) => {
            let at = error.span().map_or(0, |span| span.start);
            source.fault(at, format!("this is no TOML: {}", error.message().replace('\n', " ")));
            return Err(source.faults());
        }
    };
    let top = Section::new(&source, String::new(), 0, document.get_ref());
    let recipe = recipe(&top);
    top.finish();
    let faults = source.faults();
    if faults.is_empty() { Ok(recipe) } else { Err(faults) }
}

/// Whatever is wrong has been told; a wrong part is filled with something harmless, which nobody sees.
fn recipe(top: &Section) -> Recipe {
    top.needs("format");
    top.whole("format", i64::from(FORMAT)..=i64::from(FORMAT), "");
    let game = top.needed_text("game", NAME_MAX_CHARS);
    if !game.is_empty() && crate::model::server::ServerName::parse(&game).is_err() {
        top.fault("game", "is made of lower case letters, digits and single dashes");
    }
    let name = top.needed_text("name", NAME_MAX_CHARS);
    let description = top.needed_text("description", HELP_MAX_CHARS);
    let homepage = top.text("homepage");
    let ports = ports(top);
    let variables = variables(top);
    let resources = resources(top);
    let container = container(top);
    let world = world(top);
    let ready = ready(top, &ports);
    let stop = stop(top);
    let query = query(top, &ports);
    let players = players::players(top);
    let console = console(top, &ports, query.as_ref());
    let config = config(top, &ports, &variables);
    let patterns = patterns(top);
    let quiesce = quiesce(top, console.is_some());
    let timeouts = timeouts(top);
    Recipe {
        format: FORMAT,
        game,
        name,
        description,
        homepage,
        ports,
        variables,
        resources,
        container,
        world,
        ready,
        stop,
        console,
        query,
        players,
        config,
        patterns,
        quiesce,
        timeouts,
    }
}

fn ports(top: &Section) -> BTreeMap<String, Port> {
    let mut ports: BTreeMap<String, Port> = BTreeMap::new();
    let Some(table) = top.section("ports") else { return ports };
    for name in table.keys() {
        let Some(section) = table.section(name) else { continue };
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') {
            section.fault_here("is named with lower case letters, digits and underscores");
        }
        section.needs("number");
        section.needs("protocol");
        let port = Port {
            // What lies below is the system's.
            number: section.whole("number", 1024..=65_535, "").and_then(|n| u16::try_from(n).ok()).unwrap_or(1024),
            protocol: section.word("protocol", &PORT_PROTOCOLS).unwrap_or(PortProtocol::Both),
            private: section.switch("private"),
            join: section.switch("join"),
            offset_from: section.text("offset_from"),
        };
        if port.private && port.join {
            section.fault("join", "is for a port that friends can reach, and this one is private");
        }
        if port.join && ports.values().any(|other| other.join) {
            section.fault("join", "is said by another port already, and friends join one");
        }
        section.finish();
        ports.insert(name.to_owned(), port);
    }
    for (name, port) in &ports {
        let (Some(from), Some(section)) = (&port.offset_from, table.section(name)) else { continue };
        match ports.get(from) {
            Some(other) if other.offset_from.is_some() || from == name => {
                section.fault("offset_from", "must name a port that has no offset_from itself");
            }
            Some(other) if other.number == port.number => {
                section.fault("number", format!("must differ from that of [ports.{from}]"));
            }
            Some(_) => {}
            None => section.fault("offset_from", no_such_port(&ports, from)),
        }
    }
    ports
}

fn no_such_port(ports: &BTreeMap<String, Port>, name: &str) -> String {
    let names: Vec<&str> = ports.keys().map(String::as_str).collect();
    let names = if names.is_empty() { "there are none".to_owned() } else { names.join(", ") };
    format!("must be the name of a port ({names}), not {name:?}")
}

fn variables(top: &Section) -> BTreeMap<String, Variable> {
    let Some(table) = top.section("variables") else { return BTreeMap::new() };
    let mut variables = BTreeMap::new();
    for name in table.keys() {
        let Some(section) = table.section(name) else { continue };
        let legal = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        if name.is_empty() || !name.chars().all(legal) || name.starts_with(|c: char| c.is_ascii_digit()) {
            section.fault_here("is named with capital letters, digits and underscores");
        }
        if GIVEN.contains(&name)
            || DANGEROUS.contains(&name)
            || name.starts_with("PORT_")
            || DANGEROUS_BEGINNINGS.iter().any(|beginning| name.starts_with(beginning))
        {
            section.fault_here("has a name that Spawnpoint or the system gives");
        }
        variables.insert(name.to_owned(), variable(name, section));
    }
    variables
}

fn variable(name: &str, section: Section) -> Variable {
    section.needs("type");
    let any = i64::MIN..=i64::MAX;
    let kind = section.word("type", &VARIABLE_KINDS);
    let default = section.scalar("default");
    let variable = Variable {
        kind: kind.unwrap_or(VariableKind::String),
        help: section.needed_text("help", HELP_MAX_CHARS),
        label: section.text("label"),
        // A wrong one is one all the same, so that nothing else is said of it.
        default: default.clone().or_else(|| section.has("default").then(String::new)),
        required: section.switch("required"),
        secret: section.switch("secret"),
        min: section.whole("min", any.clone(), ""),
        max: section.whole("max", any, ""),
        pattern: section.text("pattern"),
        max_length: section
            .whole("max_length", 1..=VALUE_MAX_CHARS as i64, "characters")
            .and_then(|length| usize::try_from(length).ok()),
        allowed: section.texts("allowed").into_iter().map(|(_, text)| text).collect(),
    };
    let of_kind = [
        ("min", VariableKind::Integer, "integer"),
        ("max", VariableKind::Integer, "integer"),
        ("pattern", VariableKind::String, "string"),
        ("max_length", VariableKind::String, "string"),
        ("allowed", VariableKind::Choice, "choice"),
    ];
    for (key, fits, word) in of_kind {
        if section.has(key) && kind.is_some_and(|kind| kind != fits) {
            section.fault(key, format!("is for type = \"{word}\" only"));
        }
    }
    if variable.kind == VariableKind::Choice && variable.allowed.is_empty() {
        section.fault("allowed", "must list at least one value, because type is \"choice\"");
    }
    let crossed = variable.min.zip(variable.max).filter(|(min, max)| min > max);
    if let Some((min, max)) = crossed {
        section.fault("min", format!("is {min}, which is more than max, {max}"));
    }
    let whole_pattern =
        variable.pattern.as_ref().is_none_or(|text| compiled(&section, "pattern", None, text).is_some());
    // A default that breaks its own rules could not be typed by anybody. It may be a secret and is not repeated.
    if kind.is_some()
        && crossed.is_none()
        && whole_pattern
        && let Some(fault) = default.as_ref().and_then(|default| variable.fault_of(name, default))
    {
        section.fault("default", format!("does not keep its own rules: {fault}"));
    }
    section.finish();
    variable
}

fn resources(top: &Section) -> Resources {
    let mut resources = Resources { memory_mb: 0, cpus: 1.0, pids: None, disk_mb: None };
    let Some(section) = top.needed_section("resources") else { return resources };
    let small = |number: i64| u32::try_from(number).ok();
    section.needs("memory_mb");
    resources.memory_mb = section.whole("memory_mb", 16..=1 << 20, "megabytes").and_then(small).unwrap_or(16);
    resources.cpus = section.number("cpus", 0.05..=256.0).unwrap_or(1.0);
    resources.pids = section.whole("pids", 8..=100_000, "processes").and_then(small);
    resources.disk_mb = section.whole("disk_mb", 1..=10_000_000, "megabytes").and_then(small);
    section.finish();
    resources
}

fn container(top: &Section) -> Container {
    let mut container = Container { base: String::new() };
    let Some(section) = top.needed_section("container") else { return container };
    section.needs("base");
    container.base = section.text("base").unwrap_or_default();
    // It stands in the first line of a build file, where a space or a line break would begin something else.
    let legal = |c: char| c.is_ascii_alphanumeric() || "./:@_-".contains(c);
    if section.has("base") && (container.base.is_empty() || !container.base.chars().all(legal)) {
        section.fault("base", "must be the name of an image, for instance debian:bookworm-slim");
    }
    section.finish();
    container
}

fn world(top: &Section) -> World {
    let mut world = World::default();
    let Some(section) = top.section("world") else { return world };
    for (at, path) in section.texts("paths") {
        if !is_inside(&path) {
            section.fault_at(at, "paths", outside(&path));
        }
        world.paths.push(path);
    }
    for (at, pattern) in section.texts("exclude") {
        if pattern.trim_matches('/').is_empty() {
            section.fault_at(at, "exclude", "must hold patterns that are not empty");
        }
        world.exclude.push(pattern);
    }
    section.finish();
    world
}

/// A relative path that stays where it is, and that Docker's overlays and archives can take.
fn is_inside(path: &str) -> bool {
    !path.is_empty()
        && !path.starts_with('/')
        && !path.contains([':', '\\'])
        && !path.contains(char::is_control)
        && path.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
}

fn outside(path: &str) -> String {
    format!("must be a path inside of GAME_DIR, without a leading slash, `..`, colon or backslash, not {path:?}")
}

fn ready(top: &Section, ports: &BTreeMap<String, Port>) -> Ready {
    let mut ready = Ready { log: vec![], query: false, port: None, healthcheck: false, timeout_s: 1, compiled: vec![] };
    let Some(section) = top.needed_section("ready") else { return ready };
    for (at, text) in section.texts("log") {
        ready.compiled.extend(compiled(&section, "log", Some(at), &text));
        ready.log.push(text);
    }
    ready.query = section.switch("query");
    ready.port = section.text("port");
    ready.healthcheck = section.switch("healthcheck");
    section.needs("timeout_s");
    ready.timeout_s = seconds(&section, "timeout_s").unwrap_or(1);
    let ways = ["log", "query", "port", "healthcheck"];
    if ways.into_iter().filter(|way| section.has(way)).count() != 1
        || (section.has("query") && !ready.query)
        || (section.has("healthcheck") && !ready.healthcheck)
        || (section.has("log") && ready.log.is_empty())
    {
        section.fault_here("must have exactly one of log = [\"…\"], query = true, port = \"…\" and healthcheck = true");
    }
    if ready.query && !top.has("query") {
        section.fault("query", "needs a [query]");
    }
    match ready.port.as_ref().map(|name| (name, ports.get(name))) {
        Some((_, Some(port))) if port.protocol == PortProtocol::Udp => {
            section.fault("port", "must be a port with tcp: nobody can see from outside whether udp listens");
        }
        Some((name, None)) => section.fault("port", no_such_port(ports, name)),
        Some((_, Some(_))) | None => {}
    }
    section.finish();
    ready
}

fn seconds(section: &Section, key: &str) -> Option<u64> {
    section.whole(key, 1..=TIME_MAX_S, "seconds").and_then(|seconds| u64::try_from(seconds).ok())
}

fn stop(top: &Section) -> Stop {
    let mut stop = Stop { grace_s: 1 };
    let Some(section) = top.needed_section("stop") else { return stop };
    section.needs("grace_s");
    stop.grace_s = seconds(&section, "grace_s").unwrap_or(1);
    section.finish();
    stop
}

fn query(top: &Section, ports: &BTreeMap<String, Port>) -> Option<Query> {
    let section = top.section("query")?;
    section.needs("protocol");
    section.needs("port");
    let query = Query {
        protocol: section.word("protocol", &QUERY_PROTOCOLS).unwrap_or(QueryProtocol::Gamedig),
        port: section.text("port").unwrap_or_default(),
        id: section.text("id"),
    };
    if section.has("port") && !ports.contains_key(&query.port) {
        section.fault("port", no_such_port(ports, &query.port));
    }
    if section.has("protocol") && (query.protocol == QueryProtocol::Gamedig) != query.id.is_some() {
        section.fault("id", "is the game's name in gamedig: needed for protocol = \"gamedig\", and only there");
    }
    section.finish();
    Some(query)
}

fn console(top: &Section, ports: &BTreeMap<String, Port>, query: Option<&Query>) -> Option<Console> {
    let section = top.section("console")?;
    section.needs("protocol");
    let protocol = section.word("protocol", &CONSOLE_PROTOCOLS);
    let console = Console {
        protocol: protocol.unwrap_or(ConsoleProtocol::Stdin),
        port: section.text("port"),
        on_game_port: section.switch("on_game_port"),
        max_line_bytes: section
            .whole("max_line_bytes", 1..=CONSOLE_LINE_MAX_BYTES, "bytes")
            .and_then(|bytes| usize::try_from(bytes).ok()),
        say: section.text("say"),
        commands: section.texts("commands").into_iter().map(|(_, command)| command).collect(),
    };
    if protocol.is_some() && (console.protocol == ConsoleProtocol::Stdin) != console.port.is_none() {
        section.fault("port", "says where the console listens; only protocol = \"stdin\" has none");
    }
    if let Some(name) = &console.port {
        match ports.get(name) {
            None => section.fault("port", no_such_port(ports, name)),
            Some(port) => {
                let games_own = port.join || query.is_some_and(|query| query.port == *name);
                let wrong = protocol.and_then(|protocol| console_port_fault(protocol, port, games_own));
                match (wrong, console.on_game_port, port.private) {
                    (Some(wrong), ..) => section.fault("port", format!("names [ports.{name}], which must say {wrong}")),
                    (None, true, true) => {
                        section.fault("on_game_port", format!("is for a port that friends reach; [ports.{name}] is private"));
                    }
                    (None, false, false) => section.fault(
                        "port",
                        format!("names [ports.{name}], where everybody who reaches the game can try passwords. {OPEN_CONSOLE}"),
                    ),
                    (None, true, false) | (None, false, true) => {}
                }
            }
        }
    }
    if console.port.is_none() && console.on_game_port {
        section.fault("on_game_port", "is for a console that listens on a port");
    }
    if console.say.as_ref().is_some_and(|say| !say.contains("{message}")) {
        section.fault("say", "must have {message} in it");
    }
    section.finish();
    Some(console)
}

/// What the table of a console's port must say instead. Only the console of a Quake III engine has no port of its own:
/// it answers on the game's, and nothing but UDP.
fn console_port_fault(protocol: ConsoleProtocol, port: &Port, games_own: bool) -> Option<&'static str> {
    match protocol {
        ConsoleProtocol::SourceRcon | ConsoleProtocol::MinecraftRcon | ConsoleProtocol::OpenttdAdmin => (!port.private)
            .then_some("private = true; only with protocol = \"quake3_rcon\" may it be the port that friends join"),
        ConsoleProtocol::Quake3Rcon if !port.private && !games_own => {
            Some("private = true, unless friends join there or [query] asks there")
        }
        ConsoleProtocol::Quake3Rcon => {
            (port.protocol != PortProtocol::Udp).then_some("protocol = \"udp\", as quake3_rcon speaks nothing else")
        }
        ConsoleProtocol::Stdin => None,
    }
}

fn config(top: &Section, ports: &BTreeMap<String, Port>, variables: &BTreeMap<String, Variable>) -> Vec<ConfigEdit> {
    let mut edits = vec![];
    for section in top.sections("config") {
        for key in ["file", "format", "set"] {
            section.needs(key);
        }
        let file = section.text("file").unwrap_or_default();
        if section.has("file") && !is_inside(&file) {
            section.fault("file", outside(&file));
        }
        let format = section.word("format", &CONFIG_FORMATS).unwrap_or(ConfigFormat::Lines);
        let mut set = BTreeMap::new();
        if let Some(values) = section.section("set") {
            for key in values.keys() {
                let Some(value) = values.scalar(key) else { continue };
                for name in config_edit::names(&value) {
                    if let Some(why) = why_unknown(name, ports, variables) {
                        values.fault(key, format!("names {{{name}}}, {why}"));
                    }
                }
                set.insert(key.to_owned(), value);
            }
        }
        section.finish();
        edits.push(ConfigEdit { file, format, set });
    }
    edits
}

/// Why a `{NAME}` would have no value when a server is started, if so.
fn why_unknown(
    name: &str,
    ports: &BTreeMap<String, Port>,
    variables: &BTreeMap<String, Variable>,
) -> Option<&'static str> {
    let is_port = |port: &String| name.strip_prefix("PORT_") == Some(port.to_ascii_uppercase().as_str());
    match variables.get(name) {
        Some(variable) if variable.default.is_none() && !variable.required => {
            Some("which need not be set and has no default")
        }
        Some(_) => None,
        None if GIVEN.contains(&name) || ports.keys().any(is_port) => None,
        None => Some("which is not in the environment of this recipe"),
    }
}

fn patterns(top: &Section) -> Patterns {
    let Some(section) = top.section("patterns") else { return Patterns::default() };
    let read = |key: &str, groups: &[&str]| {
        let text = section.text(key)?;
        let pattern = compiled(&section, key, None, &text)?;
        for group in groups {
            if !pattern.capture_names().flatten().any(|name| name == *group) {
                section.fault(key, format!("must have a group (?<{group}>…)"));
            }
        }
        Some(text)
    };
    let patterns = Patterns {
        join: read("join", &["player"]),
        leave: read("leave", &["player"]),
        chat: read("chat", &["player", "message"]),
    };
    section.finish();
    patterns
}

fn quiesce(top: &Section, has_console: bool) -> Option<Quiesce> {
    let section = top.section("quiesce")?;
    section.needs("before");
    let commands = |key: &str| section.texts(key).into_iter().map(|(_, command)| command).collect();
    let quiesce = Quiesce { before: commands("before"), after: commands("after") };
    if !has_console {
        section.fault_here("types into a console, so a [console] is needed");
    }
    section.finish();
    Some(quiesce)
}

fn timeouts(top: &Section) -> Timeouts {
    let mut timeouts = Timeouts::default();
    let Some(section) = top.section("timeouts") else { return timeouts };
    timeouts.bootstrap_s = seconds(&section, "bootstrap_s").unwrap_or(timeouts.bootstrap_s);
    timeouts.install_s = seconds(&section, "install_s").unwrap_or(timeouts.install_s);
    section.finish();
    timeouts
}

pub(super) fn compiled(section: &Section, key: &str, at: Option<usize>, text: &str) -> Option<Regex> {
    let fault = |what: String| match at {
        Some(at) => section.fault_at(at, key, what),
        None => section.fault(key, what),
    };
    if text.is_empty() {
        fault("must not be empty: that matches everything".to_owned());
        return None;
    }
    let built = regex::RegexBuilder::new(text).size_limit(PATTERN_MAX_BYTES).build();
    built
        .map_err(|error| {
            let why = error.to_string().lines().last().unwrap_or_default().trim().to_owned();
            fault(format!("must be a regular expression, which {text:?} is not: {why}"));
        })
        .ok()
}
