//! What the binary says where something is missing.

use super::*;
use spawnpoint::model::server::State;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

pub fn binary(home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spawnpoint"));
    command
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("SPAWNPOINT_DATA_DIR", home.join("data"))
        .env("SPAWNPOINT_GAME_SCRIPTS", Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recipes"))
        .env("SPAWNPOINT_DOCKER__ENDPOINT", home.join("missing.sock"))
        .current_dir(home)
        .stdin(Stdio::null());
    command
}

/// Exit code, standard output, standard error.
pub fn ran(mut command: Command) -> (i32, String, String) {
    let done = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (done.status.code().unwrap(), text(done.stdout), text(done.stderr))
}

#[test]
fn doctor_names_the_socket_that_nobody_listens_on_and_says_how_to_mend_it() {
    let home = tempfile::tempdir().unwrap();
    let socket = home.path().join("missing.sock");
    let (code, said, _) = ran(binary(home.path(), &["doctor"]));
    assert_eq!(code, 1, "{said}");
    let line = said.lines().find(|line| line.starts_with("MEND") && line.contains("Docker")).expect(&said);
    assert!(line.contains(socket.to_str().unwrap()) && line.contains("`endpoint` under [docker]"), "{line}");
}

#[test]
fn run_lives_without_a_daemon_and_ends_when_told() {
    let home = tempfile::tempdir().unwrap();
    let mut child = binary(home.path(), &["run", "--without-discord"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut log = vec![];
    // The pipe ends when the process does, so this ends as well.
    let runs = lines.by_ref().map_while(Result::ok).any(|line| {
        log.push(line);
        log.last().unwrap().contains(" runs.")
    });
    assert!(runs, "{log:#?}");
    assert!(log.iter().any(|line| line.contains("No Docker daemon answers yet")), "{log:#?}");
    assert!(child.try_wait().unwrap().is_none());
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
}

#[tokio::test]
async fn without_a_daemon_a_server_is_unknown_and_a_start_fails_with_a_sentence() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let missing = tempfile::tempdir().unwrap().path().join("missing.sock");
    let endpoint = missing.to_str().unwrap().to_owned();
    let mut stage = Stage::open("tests/recipes", |config| config.docker.endpoint = Some(endpoint.clone())).await;
    let app = &stage.program.app;
    stage.create("world", "toy", &[]).await;
    let view = app.status(&stage.caller, "world").await.unwrap();
    assert_eq!(view.state, State::Unknown);
    assert!(view.why.as_deref().is_some_and(|why| why.contains(&endpoint)), "{view:#?}");
    let job = app.start(&stage.caller, "world", None).await.unwrap();
    let said = sentence(&stage, job, Outcome::Failed).await;
    assert!(said.contains("the Docker daemon does not answer") && said.contains(&endpoint), "{said}");
    assert_eq!(app.status(&stage.caller, "world").await.unwrap().state, State::Unknown);
    assert!(drive_folders(&stage).is_empty());
    // There is nothing on a daemon to look for.
    stage.instance.clear();
}

#[test]
fn check_says_all_that_is_wrong_with_all_recipes() {
    let home = tempfile::tempdir().unwrap();
    let variants =
        Variants::new().with("fine", &[]).with("typo", &[("recipe.toml", "[resources]", "[resurces]")]).with(
            "twice",
            &[
                ("recipe.toml", "protocol = \"udp\"", "protocol = \"smoke\""),
                ("recipe.toml", "cpus = 1.0", "cpus = \"many\""),
            ],
        );
    std::fs::remove_file(Path::new(variants.path()).join("typo/stop")).unwrap();
    let mut command = binary(home.path(), &["check"]);
    command.env("SPAWNPOINT_GAME_SCRIPTS", variants.path());
    let (code, said, _) = ran(command);
    assert_eq!(code, 1, "{said}");
    let line_of = |game: &str, text: &str| {
        let path = Path::new(variants.path()).join(game).join("recipe.toml");
        let number = 1 + std::fs::read_to_string(&path).unwrap().lines().position(|line| line.contains(text)).unwrap();
        format!("{game}/recipe.toml:{number}")
    };
    for wanted in [line_of("typo", "[resurces]"), line_of("twice", "smoke"), line_of("twice", "\"many\"")] {
        assert!(said.contains(&wanted), "no {wanted} in\n{said}");
    }
    assert!(said.contains("typo") && said.contains("stop") && !said.contains("/fine/"), "{said}");
    assert!(said.contains("5 problems to mend in"), "{said}");
}

#[test]
fn a_wrong_configuration_ends_with_78_and_names_what_is_wrong() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("config.toml"), "data_dri = \"here\"\n").unwrap();
    for arguments in [&["run", "--without-discord"][..], &["check"], &["doctor"]] {
        let (code, _, said) = ran(binary(home.path(), arguments));
        assert_eq!(code, 78, "{arguments:?}: {said}");
        assert!(said.contains("data_dri") && said.contains("config.toml"), "{arguments:?}: {said}");
    }
}
