//! The catalogue of recipes: reads `game-scripts/<game>/` from the disk. What a recipe means is `model::recipe`'s.

use crate::model::recipe::Recipe;
use anyhow::{Context, ensure};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The scripts in the order in which they are run. Only these are taken from a recipe's folder.
pub const SCRIPTS: [&str; 5] = ["bootstrap", "install", "start", "stop", "healthcheck"];
/// Those that every recipe has.
const NEEDED: [&str; 4] = ["bootstrap", "install", "start", "stop"];
/// A script is text that people wrote.
const SCRIPT_MAX_BYTES: u64 = 1 << 20;

/// All recipes of one folder, read once when the program starts.
#[derive(Debug)]
pub struct Recipes {
    all: BTreeMap<String, Read>,
}

#[derive(Debug)]
struct Read {
    recipe: Recipe,
    scripts: BTreeMap<String, Vec<u8>>,
}

impl Recipes {
    /// Reads every recipe.
    ///
    /// # Errors
    /// All problems at once, as [`problems`] says them: a recipe that is half right is not run.
    pub fn load(folder: &Path) -> anyhow::Result<Recipes> {
        let (all, problems) = read_all(folder);
        ensure!(problems.is_empty(), "{}", problems.join("\n"));
        Ok(Recipes { all })
    }

    pub fn get(&self, game: &str) -> Option<&Recipe> {
        Some(&self.all.get(game)?.recipe)
    }

    /// By title, as people look for them.
    pub fn list(&self) -> Vec<&Recipe> {
        let mut all: Vec<&Recipe> = self.all.values().map(|read| &read.recipe).collect();
        all.sort_by_key(|recipe| recipe.name.to_lowercase());
        all
    }

    /// The scripts of a recipe with their content, in the order of [`SCRIPTS`].
    pub fn scripts(&self, game: &str) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
        let read = self.all.get(game).with_context(|| format!("there is no recipe called {game}"))?;
        let found = SCRIPTS.iter().filter_map(|name| Some(((*name).to_owned(), read.scripts.get(*name)?.clone())));
        Ok(found.collect())
    }

    pub fn has_script(&self, game: &str, script: &str) -> bool {
        self.all.get(game).is_some_and(|read| read.scripts.contains_key(script))
    }

    /// What a container image is made of: the base and every script. Another key is another image.
    pub fn image_key(&self, game: &str) -> Option<String> {
        self.key(game, &SCRIPTS)
    }

    /// What a snapshot's files are made of. Another key means that the recipe has moved on.
    pub fn install_key(&self, game: &str) -> Option<String> {
        self.key(game, &["bootstrap", "install"])
    }

    fn key(&self, game: &str, scripts: &[&str]) -> Option<String> {
        let read = self.all.get(game)?;
        let mut hash = blake3::Hasher::new();
        // Lengths keep two neighbours from running into one another.
        let mut add = |bytes: &[u8]| {
            hash.update(&(bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        add(read.recipe.container.base.as_bytes());
        for (name, value) in read.recipe.install_environment("") {
            add(name.as_bytes());
            add(value.as_bytes());
        }
        for name in scripts {
            add(name.as_bytes());
            add(read.scripts.get(*name).map_or(&[], Vec::as_slice));
        }
        Some(hash.finalize().to_hex().to_string())
    }
}

/// Everything that is wrong with the recipes of a folder, a sentence each.
pub fn problems(folder: &Path) -> Vec<String> {
    read_all(folder).1
}

fn read_all(folder: &Path) -> (BTreeMap<String, Read>, Vec<String>) {
    let mut all = BTreeMap::new();
    let mut problems = vec![];
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => {
            return (
                all,
                vec![format!(
                    "The folder of recipes, {}, cannot be read: {error}. `game_scripts` names it.",
                    folder.display()
                )],
            );
        }
    };
    let mut folders: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    folders.sort();
    for path in folders {
        let game = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // A hidden folder is an editor's or git's.
        if game.starts_with('.') {
            continue;
        }
        match read_one(&path, &game) {
            Ok(read) => {
                all.insert(game, read);
            }
            Err(found) => problems.extend(found),
        }
    }
    if all.is_empty() && problems.is_empty() {
        problems.push(format!("There is no recipe in {}.", folder.display()));
    }
    (all, problems)
}

fn read_one(path: &Path, game: &str) -> Result<Read, Vec<String>> {
    let file = path.join("recipe.toml");
    // People know the folder as they wrote it.
    let shown = |name: &str| {
        format!("{}/{game}/{name}", path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy())
    };
    let text = std::fs::read_to_string(&file).map_err(|error| vec![format!("{}: {error}", shown("recipe.toml"))])?;
    let mut problems = vec![];
    let recipe = match Recipe::parse(&text, &shown("recipe.toml")) {
        Ok(recipe) => Some(recipe),
        Err(faults) => {
            problems.extend(faults);
            None
        }
    };
    if recipe.as_ref().is_some_and(|recipe| recipe.game != game) {
        problems.push(format!("{}:1: game is the folder's name, `{game}`", shown("recipe.toml")));
    }
    let mut scripts = BTreeMap::new();
    for name in SCRIPTS {
        match read_script(&path.join(name)) {
            Ok(Some(content)) => {
                scripts.insert(name.to_owned(), content);
            }
            Ok(None) if NEEDED.contains(&name) => problems.push(format!("{}: this script is missing", shown(name))),
            Ok(None) => {}
            Err(why) => problems.push(format!("{}: {why}", shown(name))),
        }
    }
    if recipe.as_ref().is_some_and(|recipe| recipe.ready.healthcheck) && !scripts.contains_key("healthcheck") {
        problems.push(format!("{}: [ready] healthcheck = true needs this script", shown("healthcheck")));
    }
    match recipe {
        Some(recipe) if problems.is_empty() => Ok(Read { recipe, scripts }),
        Some(_) | None => Err(problems),
    }
}

fn read_script(path: &Path) -> Result<Option<Vec<u8>>, String> {
    let found = match std::fs::metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    if !found.is_file() || found.len() > SCRIPT_MAX_BYTES {
        return Err(format!("a script is a file of at most {SCRIPT_MAX_BYTES} bytes"));
    }
    if found.permissions().mode() & 0o111 == 0 {
        return Err(format!("it cannot be executed: chmod +x {}", path.display()));
    }
    let content = std::fs::read(path).map_err(|error| error.to_string())?;
    if !content.starts_with(b"#!") {
        return Err("its first line names its interpreter, for instance #!/usr/bin/env bash".to_owned());
    }
    Ok(Some(content))
}
