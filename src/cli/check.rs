//! `spawnpoint check`: the configuration was read already; here come the recipes, all of their faults at once.

use crate::config::Config;
use crate::{program, recipes};

/// Prints what is wrong; true when nothing is.
pub fn check(config: &Config) -> anyhow::Result<bool> {
    program::check(config)?;
    println!("The configuration is fine.");
    let problems = recipes::problems(&config.game_scripts);
    for problem in &problems {
        println!("{problem}");
    }
    if !problems.is_empty() {
        println!("{} to mend in {}.", counted(problems.len()), config.game_scripts.display());
        return Ok(false);
    }
    let games = recipes::Recipes::load(&config.game_scripts)?;
    let names: Vec<&str> = games.list().into_iter().map(|recipe| recipe.game.as_str()).collect();
    println!("{} recipes are fine: {}.", names.len(), names.join(", "));
    Ok(true)
}

fn counted(problems: usize) -> String {
    match problems {
        1 => "1 problem".to_owned(),
        many => format!("{many} problems"),
    }
}
