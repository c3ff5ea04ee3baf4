//! `spawnpoint doctor`: says what is missing on this machine or in the Discord guild, and how to mend it. Changes
//! nothing that it does not put back, but for the tables of an older Spawnpoint, which it brings up to date as a start
//! would.

mod cloud;

use crate::clients::docker::{About, ContainerSpec, Docker, DockerError, Mount, OverlayVolume};
use crate::config::Config;
use crate::discord;
use crate::drivers::docker::{Daemon, DriveKind};
use crate::program::{database_url, drives_wished, endpoint, ids, make_private, names as names_in_dns};
use crate::recipes::{self, Recipes};
use crate::store::Store;
use anyhow::Context;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

/// Less free space than this and a game may not fit.
const DISK_LOW_BYTES: u64 = 5_000_000_000;

/// Who keeps a zone and has not answered by then does not answer.
const ZONE_LIMIT: Duration = Duration::from_secs(20);

/// A name that is looked for and never made.
const UNUSED_LABEL: &str = "spawnpoint-doctor";

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    Fine(String),
    /// It works, but not as well as it could.
    Note(String),
    /// It does not work; the text says how to mend it.
    Wrong(String),
}

/// Prints every finding; true when nothing is wrong.
pub async fn doctor(config: &Config) -> anyhow::Result<bool> {
    let mut findings = vec![];
    findings.extend(folders(config));
    findings.push(database(config).await);
    findings.extend(games(config));
    if config.docker.enabled {
        findings.extend(docker(config).await);
    } else {
        findings.push(Finding::Note("The docker backend is switched off (`enabled` under [docker]).".into()));
    }
    findings.extend(cloud::cloud(config).await);
    findings.extend(names(config).await);
    findings.extend(discord_guilds(config).await);
    for finding in &findings {
        println!("{}", line(finding));
    }
    let wrong = findings.iter().filter(|finding| matches!(finding, Finding::Wrong(_))).count();
    println!();
    match wrong {
        0 => println!("Nothing is missing."),
        1 => println!("1 thing is to be mended."),
        many => println!("{many} things are to be mended."),
    }
    Ok(wrong == 0)
}

/// Whether who keeps the zone answers, and knows the key. Nothing is written.
async fn names(config: &Config) -> Option<Finding> {
    let looked = match names_in_dns(config, "doctor") {
        Ok(None) => return None,
        Ok(Some(dns)) => match tokio::time::timeout(ZONE_LIMIT, dns.look(UNUSED_LABEL)).await {
            Ok(looked) => looked.map_err(anyhow::Error::from),
            Err(_) => Err(anyhow::anyhow!("nobody answered within {} s", ZONE_LIMIT.as_secs())),
        },
        Err(error) => Err(error),
    };
    let zone = config.dns.zone.as_deref().unwrap_or_default();
    Some(match looked {
        Ok(_) => Finding::Fine(format!("Who keeps the DNS zone {zone} answers and accepts the key or token.")),
        Err(error) => Finding::Wrong(format!("Names in DNS: {error:#}")),
    })
}

fn line(finding: &Finding) -> String {
    match finding {
        Finding::Fine(text) => format!("fine   {text}"),
        Finding::Note(text) => format!("note   {text}"),
        Finding::Wrong(text) => format!("MEND   {text}"),
    }
}

fn folders(config: &Config) -> Vec<Finding> {
    let dir = &config.data_dir;
    let probe = || -> std::io::Result<()> {
        make_private(dir)?;
        let file = dir.join(".doctor");
        std::fs::write(&file, b"")?;
        std::fs::remove_file(&file)
    };
    let mut findings = vec![match probe() {
        Ok(()) => Finding::Fine(format!("The data folder {} can be written.", dir.display())),
        Err(error) => Finding::Wrong(format!(
            "The data folder {} cannot be written ({error}). Give it to the user Spawnpoint runs as, or name another `data_dir`.",
            dir.display()
        )),
    }];
    if std::fs::metadata(dir).is_ok_and(|found| found.permissions().mode() & 0o077 != 0) {
        findings.push(Finding::Note(format!(
            "Other users of this machine can look into the data folder, where games keep their passwords. `chmod 700 {}` closes it.",
            dir.display()
        )));
    }
    if let Ok(free) = rustix::fs::statvfs(dir) {
        let bytes = free.f_bavail * free.f_frsize;
        let text = format!("{} free where the data folder is.", crate::model::view::spoken_bytes(bytes));
        findings.push(if bytes < DISK_LOW_BYTES {
            Finding::Note(format!("{text} Many games need more."))
        } else {
            Finding::Fine(text)
        });
    }
    // Overlay options are split at these, so no path may hold them.
    if dir.to_string_lossy().contains([',', ':', '\\', '"', '\n']) {
        findings.push(Finding::Wrong(format!("The data folder {} has a comma, colon, quote or backslash in its name, which Docker's overlays cannot take. Name another `data_dir`.", dir.display())));
    }
    findings
}

/// The database, where there is one: who looks makes none, as somebody else perhaps than whom Spawnpoint runs as.
async fn store(config: &Config) -> anyhow::Result<Option<Store>> {
    let url = database_url(config);
    if let Some(path) = url.strip_prefix("sqlite:").and_then(|rest| rest.split('?').next())
        && !Path::new(path.trim_start_matches("//")).try_exists()?
        && !path.contains(":memory:")
    {
        return Ok(None);
    }
    Store::connect(&url).await.map(Some)
}

async fn database(config: &Config) -> Finding {
    match store(config).await {
        Ok(None) => Finding::Fine("There is no database yet; the first start makes it.".into()),
        Ok(Some(_)) => Finding::Fine("The database opens and its tables are up to date.".into()),
        Err(error) => Finding::Wrong(format!("The database does not open: {error:#}")),
    }
}

fn games(config: &Config) -> Vec<Finding> {
    let problems = recipes::problems(&config.game_scripts);
    if !problems.is_empty() {
        return problems.into_iter().map(Finding::Wrong).collect();
    }
    match Recipes::load(&config.game_scripts) {
        Ok(recipes) => {
            vec![Finding::Fine(format!("{} recipes in {}.", recipes.list().len(), config.game_scripts.display()))]
        }
        Err(error) => vec![Finding::Wrong(format!("{error:#}"))],
    }
}

async fn docker(config: &Config) -> Vec<Finding> {
    let about = match Docker::connect(endpoint(config).as_deref()) {
        Ok(docker) => match docker.about().await {
            Ok(about) => Ok((docker, about)),
            Err(error) => Err(error),
        },
        Err(error) => Err(error),
    };
    let (docker, about) = match about {
        Ok(found) => found,
        Err(error) => return vec![Finding::Wrong(no_daemon(endpoint(config).as_deref(), &error))],
    };
    let mut findings = vec![Finding::Fine(format!(
        "Docker {} answers ({}, {} CPUs, {}).",
        about.version,
        about.operating_system,
        about.cpus,
        crate::model::view::spoken_bytes(about.memory_bytes)
    ))];
    let limits =
        [("memory", about.can_limit_memory), ("processes", about.can_limit_pids), ("CPUs", about.can_limit_cpus)];
    let missing: Vec<&str> = limits.iter().filter(|(_, can)| !can).map(|(what, _)| *what).collect();
    if !missing.is_empty() {
        let mend = match about.rootless {
            true => {
                "Let systemd hand the cgroups cpu, memory and pids to users (`Delegate=` of user@.service; Docker's page on rootless mode says how)."
            }
            false => "Turn these cgroups of the kernel on.",
        };
        findings.push(Finding::Note(format!(
            "This daemon cannot limit {}, so one game can slow all others down. {mend}",
            missing.join(", ")
        )));
    }
    let judged = ids(config).and_then(|ids| {
        let daemon = Daemon::new(&about, drives_wished(config), ids).map_err(anyhow::Error::msg)?;
        Ok((ids, daemon))
    });
    let (ids, daemon) = match judged {
        Ok(judged) => judged,
        Err(error) => {
            findings.push(Finding::Wrong(format!("{error:#}")));
            return findings;
        }
    };
    let inside = if daemon.inside == ids.game {
        ""
    } else {
        " In their containers that is root, because this daemon is rootless: root of nothing else."
    };
    findings.push(Finding::Fine(format!("Games run as user {}:{}.{inside}", ids.game.0, ids.game.1)));
    findings.push(match daemon.drives {
        DriveKind::Copy => Finding::Note(why_copies(&about)),
        DriveKind::Overlay => match try_overlay(&docker, config).await {
            Ok(Some(())) => Finding::Fine("The daemon mounts overlays: a drive is a few kilobytes.".into()),
            Ok(None) => Finding::Note("Whether the daemon mounts overlays shows with the first snapshot: it has no image to try it with yet.".into()),
            Err(error) => Finding::Wrong(format!("The daemon does not mount an overlay ({error:#}). Set `drives = \"copy\"` under [docker]: drives are whole copies then, and everything works.")),
        },
    });
    findings
}

fn no_daemon(endpoint: Option<&str>, error: &DockerError) -> String {
    let named = endpoint.unwrap_or(crate::clients::docker::DEFAULT_SOCKET);
    let path = named.strip_prefix("unix://").unwrap_or(named);
    if !path.starts_with('/') {
        return format!(
            "The Docker daemon at {named} does not answer ({error}). Start it, or name another `endpoint` under [docker]."
        );
    }
    let socket = Path::new(path);
    let forbidden = std::os::unix::net::UnixStream::connect(socket)
        .is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied);
    if forbidden {
        return "This user may not use Docker. Run `sudo usermod -aG docker $USER` and log in again.".to_owned();
    }
    match (socket.exists(), endpoint) {
        (false, None) => format!(
            "There is no Docker daemon here ({error}). On Debian: `sudo apt-get install docker.io`. Elsewhere, name its socket as `endpoint` under [docker]."
        ),
        (false, Some(_)) => format!(
            "No Docker daemon listens at {path}, which `endpoint` under [docker] or DOCKER_HOST names. Leave it out for the usual socket, {}, or start the daemon there.",
            crate::clients::docker::DEFAULT_SOCKET
        ),
        (true, _) => format!(
            "The Docker daemon does not answer ({error}). `sudo systemctl start docker` starts it on most machines."
        ),
    }
}

fn why_copies(about: &About) -> String {
    let why = match about {
        About { rootless: true, .. } => "This daemon is rootless",
        About { desktop: true, .. } => "This is Docker Desktop",
        About { .. } => "The configuration says `drives = \"copy\"`",
    };
    format!("{why}, so a drive is a whole copy of its snapshot. It works, and takes more room.")
}

/// Mounts a tiny overlay as a drive would be, with whatever image the daemon has.
async fn try_overlay(docker: &Docker, config: &Config) -> anyhow::Result<Option<()>> {
    let Some(image) = docker.any_image().await? else { return Ok(None) };
    let home =
        tempfile::Builder::new().prefix("doctor-").tempdir_in(&config.data_dir).context("making a folder to try in")?;
    let path = |name: &str| -> anyhow::Result<String> {
        let path = home.path().join(name);
        std::fs::create_dir(&path)?;
        Ok(path.to_string_lossy().into_owned())
    };
    let (lower, upper, work) = (path("lower")?, path("upper")?, path("work")?);
    std::fs::write(home.path().join("lower/probe"), b"seen")?;
    let name = format!("spawnpoint-doctor-{}", uuid::Uuid::new_v4());
    let volume = OverlayVolume { name: name.clone(), lower, upper, work, labels: vec![] };
    docker.create_overlay_volume(&volume).await?;
    let seen = async {
        let mounts = vec![Mount::Volume { name: name.clone(), target: "/probe".to_owned() }];
        // Made and never started: reading through it mounts the volume.
        docker
            .create(&ContainerSpec {
                name: name.clone(),
                image,
                cmd: vec!["true".to_owned()],
                mounts,
                ..ContainerSpec::default()
            })
            .await?;
        docker.stat_path(&name, "/probe/probe").await
    }
    .await;
    docker.remove(&name, true).await?;
    docker.remove_volume(&name).await?;
    // The kernel's own folder in it: see folders::clear.
    let inner = home.path().join("work/work");
    if std::fs::metadata(&inner).is_ok_and(|found| found.uid() == 0) {
        std::fs::remove_dir(&inner)?;
    }
    anyhow::ensure!(seen?.is_some(), "a file of the lower layer was not seen");
    Ok(Some(()))
}

async fn discord_guilds(config: &Config) -> Vec<Finding> {
    // A database that does not open is told of already.
    let posted_in = match store(config).await {
        Ok(Some(store)) => store.channels_posted_in().await.unwrap_or_default(),
        Ok(None) | Err(_) => vec![],
    };
    let finding = |(health, text)| match health {
        discord::Health::Fine => Finding::Fine(text),
        discord::Health::Note => Finding::Note(text),
        discord::Health::Wrong => Finding::Wrong(text),
    };
    discord::examine(&config.discord, &posted_in).await.into_iter().map(finding).collect()
}
