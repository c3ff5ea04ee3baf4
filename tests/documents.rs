//! The documents are held to the code: docs/recipes.md names every key of a recipe and no other, its example is a
//! recipe, links lead somewhere, and the invite link asks for the permissions that the README explains.

use spawnpoint::model::recipe::{FORMAT, Recipe};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The parser's own answer to something that it does not know: the list of what it does.
fn expected(text: &str, before: &str, after: &str) -> Option<BTreeSet<String>> {
    let faults = Recipe::parse(text, "recipe.toml").err()?;
    let list = faults.iter().find_map(|fault| fault.split_once(before)?.1.strip_suffix(after))?;
    Some(list.rsplit("allowed are ").next()?.split(", ").map(str::to_owned).collect())
}

fn keys_of(header: &str) -> Option<BTreeSet<String>> {
    expected(&format!("{header}\nno_such_key = 1\n"), "`no_such_key` is no key of ", "")
}

/// Every section by its heading in the page, with its keys.
fn known() -> BTreeMap<String, BTreeSet<String>> {
    let top = keys_of("").expect("the parser says which keys it knows");
    let mut known = BTreeMap::new();
    for section in &top {
        for (header, heading) in [
            (format!("[{section}]"), format!("`[{section}]`")),
            (format!("[{section}.x]"), format!("`[{section}.NAME]`")),
            (format!("[[{section}]]"), format!("`[[{section}]]`")),
        ] {
            if let Some(keys) = keys_of(&header) {
                known.insert(heading, keys);
                break;
            }
        }
    }
    known.insert("The top".to_owned(), top);
    known
}

/// Headings of the page with the keys in the first column of their tables.
fn told() -> BTreeMap<String, BTreeSet<String>> {
    let page = read("docs/recipes.md");
    let (_, part) = page.split_once("\n## recipe.toml\n").expect("the page has that part");
    let part = part.split("\n## ").next().expect("there is always a first piece");
    let mut told: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for section in part.split("\n### ").skip(1) {
        let heading = section.lines().next().expect("there is always a first line").to_owned();
        let keys = section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next().map(str::to_owned));
        told.insert(heading, keys.collect());
    }
    told
}

#[test]
fn every_key_of_a_recipe_is_explained_and_no_other() {
    let known = known();
    assert!(known.len() >= 14 && known["`[stop]`"].contains("grace_s"), "the list was not read: {known:#?}");
    assert_eq!(told(), known);
}

#[test]
fn every_value_of_a_choice_is_named() {
    let page = read("docs/recipes.md");
    for text in [
        "[ports.x]\nprotocol = \"zz\"\n",
        "[variables.X]\ntype = \"zz\"\n",
        "[console]\nprotocol = \"zz\"\n",
        "[query]\nprotocol = \"zz\"\n",
        "[[config]]\nformat = \"zz\"\n",
    ] {
        let values = expected(text, " must be one of ", ", not \"zz\"");
        let values = values.unwrap_or_else(|| panic!("{text} should be refused with a list"));
        for value in values {
            assert!(page.contains(&format!("`{value}`")), "docs/recipes.md does not name `{value}`, of {text}");
        }
    }
}

#[test]
fn the_example_of_a_recipe_is_one() {
    let page = read("docs/recipes.md");
    let example =
        page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("there is an example");
    let recipe = Recipe::parse(example, "docs/recipes.md").unwrap_or_else(|faults| panic!("{faults:#?}"));
    assert_eq!((recipe.format, recipe.game.as_str()), (FORMAT, "pond"));
}

#[test]
fn links_between_documents_lead_somewhere() {
    let pages = [
        "README.md",
        "CHANGELOG.md",
        "docs/architecture.md",
        "docs/cloud-host.md",
        "docs/faults.md",
        "docs/providers.md",
        "docs/recipes.md",
    ]
    .map(str::to_owned);
    let decisions = std::fs::read_dir(root().join("docs/decisions")).expect("there are decisions");
    let decisions = decisions.map(|entry| format!("docs/decisions/{}", entry.unwrap().file_name().to_string_lossy()));
    let mut broken = vec![];
    for page in pages.into_iter().chain(decisions) {
        let text = read(&page);
        let home = root().join(Path::new(&page).parent().expect("a page is in a folder"));
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            // The picture of the channel is made from the running thing, not written.
            let outside = target.contains("://") || target.ends_with(".png");
            let path = target.split('#').next().unwrap_or_default();
            if !outside && !home.join(path).exists() {
                broken.push(format!("{page}: {target}"));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn the_invite_link_asks_for_what_the_readme_explains() {
    let readme = read("README.md");
    let (_, rest) = readme.split_once("&permissions=").expect("there is an invite link");
    let asked: u64 = rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap();
    let (_, table) = readme.split_once("| permission | bit | why |\n|---|---|---|\n").expect("there is a table");
    let rows = table.lines().take_while(|line| line.starts_with('|'));
    let bits: Vec<u32> = rows.map(|row| row.split('|').nth(2).unwrap().trim().parse().unwrap()).collect();
    assert!(bits.len() >= 3, "{bits:?}");
    assert_eq!(asked, bits.iter().map(|bit| 1_u64 << bit).sum::<u64>());
}

#[test]
fn every_script_that_the_readme_names_can_be_run() {
    use std::os::unix::fs::PermissionsExt;
    let readme = read("README.md");
    let name = |rest: &str| rest.chars().take_while(|c| c.is_ascii_alphanumeric() || "/-".contains(*c)).collect();
    // `game-scripts/` ends in the same word.
    let named: BTreeSet<String> = (readme.match_indices("scripts/"))
        .filter(|(at, _)| !readme[..*at].ends_with('-'))
        .map(|(at, _)| name(&readme[at..]))
        .collect();
    assert!(named.contains("scripts/demo") && named.contains("scripts/test"), "{named:?}");
    for script in named {
        let found = std::fs::metadata(root().join(&script)).unwrap_or_else(|error| panic!("{script}: {error}"));
        assert!(found.is_file() && found.permissions().mode() & 0o111 != 0, "{script} cannot be run");
    }
}

#[test]
fn the_readme_says_how_the_service_is_kept_from_signing_in_too_often() {
    let readme = read("README.md");
    let pause: u32 = readme.lines().find_map(|line| line.strip_prefix("RestartSec=")).unwrap().parse().unwrap();
    assert!(24 * 3600 / pause < 1000, "Discord resets a token after 1,000 sign-ins a day");
    assert!(readme.contains("\nRestartPreventExitStatus=78\n"));
}

/// Every slash command as people type it, read from the front's own source.
fn commands() -> BTreeSet<String> {
    let folder = root().join("src/discord/commands");
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(folder).expect("the front has commands") {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let text = text.split("#[cfg(test)]").next().expect("there is always a first piece");
        // Some names are no names for a function; those say beside it what people type.
        let typed = |function: &str| {
            let (attributes, _) = text.split_once(&format!("fn {function}("))?;
            attributes.rsplit("#[poise::command(").next()?.split_once("rename = \"")?.1.split('"').next()
        };
        for piece in text.split("#[poise::command(").skip(1) {
            // Only what Discord itself is told about has a group; the subcommands are named in it.
            let (attributes, rest) = piece.split_once("fn ").expect("a function follows");
            let top = rest.split('(').next().expect("there is always a first piece");
            if !attributes.contains("pub async") {
                continue;
            }
            match attributes.split_once("subcommands(").and_then(|(_, list)| list.split(')').next()) {
                Some(list) => {
                    found.extend(
                        list.split('"').skip(1).step_by(2).map(|sub| format!("/{top} {}", typed(sub).unwrap_or(sub))),
                    );
                }
                None => {
                    found.insert(format!("/{top}"));
                }
            }
        }
    }
    found
}

#[test]
fn every_slash_command_in_the_documents_is_one() {
    let known = commands();
    assert!(known.contains("/server start") && known.contains("/console"), "the list was not read: {known:?}");
    let groups: BTreeSet<&str> = known.iter().filter_map(|command| command.split(' ').next()).collect();
    let readme = read("README.md");
    // What is not there yet is named as such.
    let (before, after) = readme.split_once("## What is not there yet").expect("the README says what is missing");
    let after = after.split_once("\n## ").expect("something comes after it").1;
    let pages =
        [before, after, &read("docs/architecture.md"), &read("docs/recipes.md"), &read("CHANGELOG.md")].join("\n");
    let mut wrong = vec![];
    for (at, _) in pages.match_indices('/') {
        // A command begins a piece of code or a line of it; everything else is a path.
        if !pages[..at].ends_with(['`', '\n']) {
            continue;
        }
        let words: Vec<&str> = pages[at..].split(['`', '\n']).next().unwrap().split(' ').collect();
        let is_name = |word: &str| word.chars().all(|c| c.is_ascii_lowercase() || c == '-');
        if !is_name(&words[0][1..]) {
            continue;
        }
        let command = match known.contains(words[0]) {
            true => words[0].to_owned(),
            false => words.iter().take(2).copied().collect::<Vec<_>>().join(" "),
        };
        if !known.contains(&command) {
            wrong.push(format!("{command} (there are the groups {groups:?})"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Every test that is said to keep a fault away is there, under that very name.
#[test]
fn the_tests_that_the_page_of_faults_names_are_there() {
    let mut sources = String::new();
    for folder in ["src", "tests"] {
        for entry in walkdir::WalkDir::new(root().join(folder)) {
            let entry = entry.unwrap();
            if entry.path().extension().is_some_and(|extension| extension == "rs") {
                sources += &std::fs::read_to_string(entry.path()).unwrap();
            }
        }
    }
    let page = read("docs/faults.md");
    let is_test = |word: &&str| word.contains('_') && word.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    let named: Vec<&str> = page.split('`').skip(1).step_by(2).filter(is_test).collect();
    assert!(named.len() > 30, "the page was not read: {named:?}");
    let missing: Vec<&&str> = named.iter().filter(|name| !sources.contains(&format!("fn {name}("))).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
