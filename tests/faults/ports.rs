//! Ports: somebody else's, each other's, and those that nobody but this machine may reach.

use super::relay::Relay;
use super::*;
use std::net::UdpSocket;

#[tokio::test]
async fn a_port_that_is_taken_at_the_last_moment_fails_with_a_sentence_and_the_next_start_takes_another() {
    if !ready().await {
        return;
    }
    let relay = Relay::open().await;
    let stage = Stage::open("tests/recipes", |config| config.docker.endpoint = Some(relay.endpoint())).await;
    stage.create("world", "toy", &[]).await;
    relay.hold_at(&["POST ", "-world-", "/start"]);
    let job = stage.program.app.start(&stage.caller, "world", None).await.unwrap();
    relay.caught().await;
    let holder = UdpSocket::bind((stage.config.docker.publish_address, 27100)).unwrap();
    relay.release();
    let said = sentence(&stage, job, Outcome::Failed).await;
    assert!(said.contains("Another program on this machine listens on a port") && said.contains("27100"), "{said}");
    assert!(containers_of(&stage, "game").is_empty());
    let address = stage.start("world").await.address.unwrap();
    assert!(!address.ends_with(":27100"), "{address}");
    drop(holder);
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
