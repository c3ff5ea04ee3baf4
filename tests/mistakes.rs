//! Mistakes in the configuration: the program itself says which one it is, with the exit code at which systemd leaves it
//! alone, and `check` says the same beforehand.

use std::path::Path;
use std::process::{Command, Output};

fn says(home: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spawnpoint"));
    command.args(words).current_dir(home);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SPAWNPOINT_") || name == "DOCKER_HOST") {
        command.env_remove(name);
    }
    command.output().expect("it starts and ends")
}

fn text(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat()
}

#[test]
fn a_mistake_that_a_person_has_to_mend_ends_with_78_and_is_found_by_check_too() {
    for (mistake, said) in [
        ("no_such_key = 1", "no_such_key"),
        ("[cloud]\nprovider = \"hetzner\"", "`provider` under [cloud] is `hetzner`, which has no token"),
        ("[cloud]\nprovider = \"ssh\"", "there is no machine under [hosts]"),
        ("[docker]\nuser = \"0:0\"", "games never run as root"),
        ("[docker]\nuser = \"me\"", "`user` under [docker] is written uid:gid"),
        ("[docker]\nendpoint = \"somewhere\"", "`endpoint` under [docker]"),
        ("[hosts.attic]\naddress = \"192.0.2.1\"\nhost_key = \"mine\"", "`host_key` under [hosts.attic]"),
        ("[hosts.attic]\naddress = \"192.0.2.1\"\nkey_file = \"gone\"", "`key_file` under [hosts.attic]"),
        ("[budget]\nguild_monthly = [\"ten\"]", "`guild_monthly` under [budget]"),
        ("[budget]\nwarn_percent = 101", "`warn_percent` under [budget]"),
        ("game_scripts = \"recipes\"", "recipes/pond/recipe.toml"),
    ] {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(home.path().join("recipes/pond")).unwrap();
        std::fs::write(home.path().join("recipes/pond/recipe.toml"), "format = 1\n").unwrap();
        std::fs::create_dir(home.path().join("game-scripts")).unwrap();
        std::fs::write(home.path().join("config.toml"), mistake).unwrap();
        let ran = says(home.path(), &["run", "--without-discord"]);
        assert_eq!(ran.status.code(), Some(78), "{mistake}: {}", text(&ran));
        assert!(text(&ran).contains(said), "{mistake}: {}", text(&ran));
        let checked = says(home.path(), &["check"]);
        assert!(!checked.status.success() && text(&checked).contains(said), "{mistake}: {}", text(&checked));
        assert!(!home.path().join("data/spawnpoint.db").exists(), "{mistake}: nothing is made before it is mended");
    }
}
