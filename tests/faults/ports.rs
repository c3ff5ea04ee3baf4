//! Ports: somebody else's, each other's, and those that nobody but this machine may reach.

use super::relay::Relay;
use super::*;
use spawnpoint::config::{Config, PortRange};
use std::net::UdpSocket;

/// The request with which the daemon is told to start `world`.
const STARTS: [&str; 3] = ["POST ", "-world-", "/start"];

async fn on_a_relay(recipes: &str, game: &str, relay: &Relay) -> Stage {
    let tweak = |config: &mut Config| {
        config.docker.endpoint = Some(relay.endpoint());
        // Beside a test that publishes on all addresses.
        config.docker.ports = PortRange { first: 29000, last: 29099 };
    };
    let stage = Stage::open(recipes, tweak).await;
    stage.create("world", game, &[]).await;
    stage
}

/// The port that the one container of a game would listen on, which is where its friends are told to join.
fn port_of_the_container(stage: &Stage) -> u16 {
    let containers = containers_of(stage, "game");
    let [container] = &containers[..] else { panic!("one container: {containers:?}") };
    let format = "{{range $port, $all := .HostConfig.PortBindings}}{{range $all}}{{.HostPort}}\n{{end}}{{end}}";
    docker(&["inspect", "--format", format, container]).trim().parse().expect("the toy has one port")
}

fn hold(stage: &Stage, port: u16) -> UdpSocket {
    let address = stage.config.docker.publish_address;
    UdpSocket::bind((address, port)).unwrap_or_else(|error| panic!("{address}:{port}: {error}"))
}

#[tokio::test]
async fn a_port_that_is_taken_at_the_last_moment_is_left_to_its_holder_and_the_start_goes_on() {
    if !ready().await {
        return;
    }
    let relay = Relay::open().await;
    let stage = on_a_relay("tests/recipes", "toy", &relay).await;
    relay.hold_at(&STARTS);
    let job = stage.program.app.start(&stage.caller, "world", None).await.unwrap();
    relay.caught().await;
    let _holder = hold(&stage, 27100);
    // The daemon starts the next one, and nobody hears of it.
    relay.fall_at(&STARTS);
    relay.release();
    relay.caught().await;
    relay.rise();
    stage.succeeds(job).await;
    let moved = port_of_the_container(&stage);
    assert_ne!(moved, 27100);
    let address = stage.program.app.status(&stage.caller, "world").await.unwrap().address.unwrap();
    assert!(address.ends_with(&format!(":{moved}")), "{address} is not at {moved}");
    // Friends saved the address: it stays.
    stage.stop_server("world").await;
    assert_eq!(stage.start("world").await.address, Some(address));
    stage.close().await;
}

/// The other container is made anew when its making was cut off: its files would still name the port that was taken.
#[tokio::test]
async fn a_container_on_another_port_that_was_only_half_made_is_made_again() {
    if !ready().await {
        return;
    }
    let variables = "[variables.BEHAVIOUR]";
    let config =
        "[[config]]\nfile = \"port.cfg\"\nformat = \"lines\"\n[config.set]\n\"port=\" = \"port={PORT_GAME}\"\n";
    let changed = format!("{config}\n{variables}");
    let variants = Variants::new().with("configured", &[("recipe.toml", variables, &changed)]);
    for cut_off_at in [["POST ", "/containers/create", "-world-"], ["PUT ", "/archive", "/containers/"]] {
        let relay = Relay::open().await;
        let stage = on_a_relay(variants.path(), "configured", &relay).await;
        relay.hold_at(&STARTS);
        let job = stage.program.app.start(&stage.caller, "world", None).await.unwrap();
        relay.caught().await;
        let _holder = hold(&stage, 27100);
        relay.fall_at(&cut_off_at);
        relay.release();
        relay.caught().await;
        relay.rise();
        stage.succeeds(job).await;
        let containers = containers_of(&stage, "game");
        let told = docker(&["exec", &containers[0], "cat", "/srv/game/port.cfg"]);
        assert_eq!(told.trim(), format!("port={}", port_of_the_container(&stage)), "{cut_off_at:?}");
        close(stage, &variants).await;
    }
}

#[tokio::test]
async fn one_port_after_the_other_that_is_taken_at_the_last_moment_fails_with_a_sentence() {
    if !ready().await {
        return;
    }
    let relay = Relay::open().await;
    let stage = on_a_relay("tests/recipes", "toy", &relay).await;
    relay.hold_at(&STARTS);
    let job = stage.program.app.start(&stage.caller, "world", None).await.unwrap();
    let mut holders = vec![];
    for attempt in 1..=4 {
        relay.caught().await;
        holders.push(hold(&stage, port_of_the_container(&stage)));
        if attempt < 4 {
            relay.hold_at(&STARTS);
        }
        relay.release();
    }
    let said = sentence(&stage, job, Outcome::Failed).await;
    let last = holders.last().unwrap().local_addr().unwrap().port().to_string();
    assert!(said.contains("Another program on this machine listens on a port") && said.contains(&last), "{said}");
    assert!(containers_of(&stage, "game").is_empty());
    let address = stage.start("world").await.address.unwrap();
    for holder in holders {
        assert!(!address.ends_with(&format!(":{}", holder.local_addr().unwrap().port())), "{address}");
    }
    stage.close().await;
}

#[tokio::test]
async fn servers_that_start_at_once_share_no_port_and_a_console_is_for_this_machine_alone() {
    if !ready().await {
        return;
    }
    let console = "[variables.BEHAVIOUR]";
    let both = format!("[ports.rcon]\nnumber = 28600\nprotocol = \"tcp\"\nprivate = true\n\n{console}");
    let variants = Variants::new()
        .with("open", &[("recipe.toml", console, &both), ("recipe.toml", "number = 27100", "number = 28500")]);
    // Every interface, as most people publish; nothing is sent to any of them.
    let stage = Stage::open(variants.path(), |config| config.docker.publish_address = [0, 0, 0, 0].into()).await;
    let app = &stage.program.app;
    stage.succeeds(app.snapshot_build(&stage.caller, "open", None).await.unwrap()).await;
    let mut jobs = vec![];
    for name in ["one", "two", "three"] {
        stage.create(name, "open", &[]).await;
        jobs.push(app.start(&stage.caller, name, None).await.unwrap());
    }
    for job in jobs {
        stage.succeeds(job).await;
    }
    let mut seen = std::collections::BTreeSet::new();
    for container in containers_of(&stage, "game") {
        let format = "{{range $port, $all := .HostConfig.PortBindings}}{{range $all}}{{$port}} {{.HostIp}} {{.HostPort}}\n{{end}}{{end}}";
        for line in docker(&["inspect", "--format", format, &container]).lines() {
            let words: Vec<_> = line.split(' ').collect();
            let address = if words[0].ends_with("/tcp") { "127.0.0.1" } else { "0.0.0.0" };
            assert_eq!(words[1], address, "{line}");
            assert!(seen.insert((words[0].to_owned(), words[2].to_owned())), "twice: {line}");
        }
    }
    assert_eq!(seen.len(), 6, "{seen:?}");
    close(stage, &variants).await;
}
