//! `spawnpoint trust`: a person says that a machine of their own is the right one, by the key that it shows.

use crate::clients::ssh::{Pin, ScannedKey, scan};
use crate::config::{Config, OwnHost};
use crate::program::trusted;
use anyhow::{Context, bail};
use std::io::Write;
use std::time::Duration;

/// A name server that does not answer holds nobody up for longer.
const NAME_LIMIT: Duration = Duration::from_secs(10);

/// What somebody typed.
pub struct Wish {
    pub host: String,
    /// What the machine itself says of its key; anything else is refused.
    pub fingerprint: Option<String>,
    /// Nobody is asked. Only with a fingerprint: somebody must have compared.
    pub yes: bool,
}

/// True when the machine is trusted in the end.
pub async fn trust(config: &Config, wish: &Wish) -> anyhow::Result<bool> {
    let name = wish.host.as_str();
    let Some(host) = config.hosts.get(name) else {
        let known: Vec<&str> = config.hosts.keys().map(String::as_str).collect();
        let known =
            if known.is_empty() { "there is none".to_owned() } else { format!("there are: {}", known.join(", ")) };
        bail!("No machine of yours is called `{name}` under [hosts] in the configuration; {known}.");
    };
    let wanted = wish.fingerprint.as_deref().map(Pin::parse).transpose().context("reading --fingerprint")?;
    let shown = shown_by(host).await?;
    println!("The machine `{name}` at {}:{} shows the key {}.", host.address, host.port, shown.fingerprint);
    if let Some(text) = &host.host_key {
        let pinned = Pin::parse(text).with_context(|| format!("`host_key` under [hosts.{name}]"))?.fingerprint();
        if pinned == shown.fingerprint {
            println!("That is its `host_key` in the configuration, so it is trusted already.");
            return Ok(true);
        }
        println!("Its `host_key` in the configuration is another, {pinned}, and the configuration always counts.");
        println!("If you know why the key changed, change or remove that line. Nothing was trusted.");
        return Ok(false);
    }
    let trusted = trusted(config);
    if let Some(known) = trusted.pin(name).context("reading which machines are trusted")? {
        if known.fingerprint() == shown.fingerprint {
            println!("It is trusted already.");
            return Ok(true);
        }
        println!("It was trusted with another key, {}.", known.fingerprint());
        println!("That is as it should be if you installed it anew. If you did not, somebody may stand in between.");
    }
    match &wanted {
        Some(wanted) if wanted.fingerprint() != shown.fingerprint => {
            println!("That is not {}. Nothing was trusted.", wanted.fingerprint());
            return Ok(false);
        }
        Some(_) if wish.yes => {}
        Some(_) | None => {
            println!("On the machine itself, this must say the same: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub");
            if !asked("Trust it? [y/N] ")? {
                println!("Nothing was trusted.");
                return Ok(false);
            }
        }
    }
    trusted.set(name, &shown).context("writing down that the machine is trusted")?;
    println!("`{name}` is trusted with this key from now on; a Spawnpoint that runs knows it too.");
    Ok(true)
}

async fn shown_by(host: &OwnHost) -> anyhow::Result<ScannedKey> {
    let place = (host.address.as_str(), host.port);
    let found = tokio::time::timeout(NAME_LIMIT, tokio::net::lookup_host(place)).await;
    let mut found = found
        .with_context(|| format!("the name `{}` was not found within {} s", host.address, NAME_LIMIT.as_secs()))?
        .with_context(|| format!("looking the name `{}` up", host.address))?;
    let address = found.next().with_context(|| format!("the name `{}` leads nowhere", host.address))?;
    Ok(scan(address).await?)
}

/// Only a clear yes is one.
fn asked(question: &str) -> anyhow::Result<bool> {
    print!("{question}");
    std::io::stdout().flush().context("asking")?;
    let mut answer = String::new();
    if std::io::stdin().read_line(&mut answer).context("reading the answer")? == 0 {
        println!();
    }
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}
