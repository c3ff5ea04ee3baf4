//! config.example.toml is what people start from: it loads, it names every option that there is and no other, and
//! what it calls a default is one.

use spawnpoint::config::Config;
use std::collections::BTreeSet;
use std::path::Path;

/// What stands before an option that has no default.
const NO_DEFAULT: &str = "No default";

fn example() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config.example.toml")).unwrap()
}

fn parse(text: &str) -> anyhow::Result<Config> {
    Config::parse(text, std::iter::empty())
}

/// `# key = value`, and no sentence that happens to hold an `=`.
fn option(line: &str) -> Option<(&str, &str)> {
    let bare = line.strip_prefix("# ")?;
    let (key, _) = bare.split_once(" = ")?;
    key.chars().all(|c| c.is_ascii_lowercase() || c == '_').then_some((key, bare))
}

fn header(line: &str) -> Option<&str> {
    line.strip_prefix('[')?.strip_suffix(']')
}

/// `# [hosts.attic]`: a section of which people may have none or several, under names of their own.
fn own_section(line: &str) -> Option<&str> {
    header(line.strip_prefix("# ")?)
}

/// Every option in the example by its path, with whether it has no default: the text above says so, or its whole
/// section is people's own.
fn options() -> Vec<(String, bool)> {
    let (mut section, mut above, mut found, mut own) = (String::new(), String::new(), vec![], false);
    // One explanation may be for several options, one below the other.
    let mut explained = false;
    for line in example().lines() {
        if let Some(name) = header(line).or(own_section(line)) {
            section = format!("{name}.");
            own = own_section(line).is_some();
        }
        match option(line) {
            Some((key, _)) => {
                found.push((format!("{section}{key}"), own || above.contains(NO_DEFAULT)));
                explained = true;
            }
            None => {
                if explained {
                    above.clear();
                }
                explained = false;
                above += line;
            }
        }
    }
    found
}

/// What the parser knows, asked with a key that it does not: its error lists those that it does.
fn known_keys(section: &str) -> Option<BTreeSet<String>> {
    let header = if section.is_empty() { String::new() } else { format!("[{section}]\n") };
    let error = format!("{:#}", parse(&format!("{header}no_such_key = 1\n")).err()?);
    let (_, expected) = error.split_once("unknown field `no_such_key`, expected ")?;
    Some(expected.split('`').skip(1).step_by(2).map(str::to_owned).collect())
}

#[test]
fn the_example_loads_and_changes_nothing() {
    let loaded = parse(&example()).unwrap();
    assert_eq!(format!("{loaded:?}"), format!("{:?}", parse("").unwrap()));
}

#[test]
fn every_option_is_explained_and_no_other() {
    // Section by section, and the sections within them.
    let own: Vec<String> = example().lines().filter_map(own_section).map(str::to_owned).collect();
    let (mut known, mut open) = (BTreeSet::new(), vec![String::new()]);
    while let Some(section) = open.pop() {
        for key in known_keys(&section).expect("the parser says which keys it knows") {
            let path = if section.is_empty() { key } else { format!("{section}.{key}") };
            let inner = own.iter().find(|name| name.starts_with(&format!("{path}.")));
            match (known_keys(&path), inner) {
                (Some(_), _) => open.push(path),
                (None, Some(name)) => open.push(name.clone()),
                (None, None) => {
                    known.insert(path);
                }
            }
        }
    }
    assert!(known.contains("data_dir") && known.contains("watch.every_seconds"), "the list was not read: {known:?}");
    let told: BTreeSet<String> = options().into_iter().map(|(path, _)| path).collect();
    assert_eq!(told, known);
}

#[test]
fn what_the_example_shows_as_default_is_the_default() {
    let (mut defaults, mut everything) = (String::new(), String::new());
    let mut without = options().into_iter().map(|(_, without)| without);
    for line in example().lines() {
        match option(line) {
            Some((_, bare)) => {
                everything += &format!("{bare}\n");
                let none = without.next().expect("the same lines, in the same order");
                defaults += &if none { "\n".to_owned() } else { format!("{bare}\n") };
            }
            None => {
                defaults += &format!("{line}\n");
                everything += &format!("{}\n", own_section(line).map_or(line, |_| &line[2..]));
            }
        }
    }
    assert_eq!(format!("{:?}", parse(&defaults).unwrap()), format!("{:?}", parse("").unwrap()));
    let all = parse(&everything).unwrap();
    let shown = (
        all.database.url.is_some(),
        all.discord.token.is_some(),
        all.discord.guilds.len(),
        all.docker.endpoint.as_deref(),
        all.docker.public_address.as_deref(),
        all.docker.user.as_deref(),
        all.budget.guild_monthly.len(),
        all.hosts["attic"].host_key.is_some(),
        all.cloud.providers().iter().all(|(_, account)| account.token.is_some() && account.api_url.is_some()),
    );
    let socket = Some("unix:///var/run/docker.sock");
    let expected = (true, true, 1, socket, Some("play.example.org"), Some("1000:1000"), 3, true, true);
    assert_eq!(shown, expected, "the examples of options that have no default");
}

#[test]
fn every_option_can_be_given_by_the_environment() {
    let example = example();
    for ((path, _), (_, bare)) in options().into_iter().zip(example.lines().filter_map(option)) {
        let value = bare.split_once(" = ").unwrap().1.trim_matches(|c| matches!(c, '"' | '[' | ']')).to_owned();
        let name = format!("SPAWNPOINT_{}", path.replace('.', "__").to_uppercase());
        // A machine of one's own is nothing without its address.
        let address =
            path.starts_with("hosts.").then(|| ("SPAWNPOINT_HOSTS__ATTIC__ADDRESS".into(), "10.0.0.1".into()));
        Config::parse("", address.into_iter().chain([(name.clone(), value.clone())]))
            .unwrap_or_else(|error| panic!("{name}={value}: {error:#}"));
    }
}
