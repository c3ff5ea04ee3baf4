//! Whether hosts can be rented, and machines of one's own be reached: each provider and machine is asked, all at once,
//! and none for long. Nothing is rented, and nothing on a machine changes.

use super::Finding;
use crate::clients::cloud;
use crate::clients::ssh::{Ssh, SshError, Target, scan};
use crate::config::{Config, OwnHost, Provider};
use crate::drivers::cloud::{Found, examine};
use crate::program::{machine_key, trusted};
use anyhow::Context;
use futures::future::join_all;
use secrecy::ExposeSecret;
use std::net::SocketAddr;
use std::time::Duration;

/// Who has not answered by then does not answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
/// For one connection to a machine.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// An instance that nobody is: what carries its label is nothing, and listing it takes the same rights.
const NOBODY: &str = "doctor";

pub(super) async fn cloud(config: &Config) -> Vec<Finding> {
    let accounts = config.cloud.providers().into_iter().filter(|(_, account)| has_token(account));
    let providers = join_all(accounts.map(|(name, account)| provider(name, account)));
    let machines = join_all(config.hosts.iter().map(|(name, host)| machine(config, name, host)));
    let (providers, machines) = tokio::join!(providers, machines);
    let mut findings = providers;
    findings.extend(machines);
    if !findings.is_empty() {
        findings.push(rsync());
    }
    findings
}

fn has_token(account: &Provider) -> bool {
    account.token.as_ref().is_some_and(|token| !token.expose_secret().trim().is_empty())
}

/// Whether the token is accepted, and may list what a start makes. That it may make these as well cannot be seen
/// without making one.
async fn provider(name: &str, account: &Provider) -> Finding {
    let token = account.token.clone().expect("only accounts with a token are looked at");
    let api = match cloud::open(name, token, account.api_url.as_deref()) {
        Ok(api) => api,
        Err(error) => return Finding::Wrong(format!("Under [cloud.{name}]: {error}")),
    };
    let asked = async {
        api.hosts(NOBODY).await?;
        api.extras(NOBODY).await
    };
    match tokio::time::timeout(ANSWER_LIMIT, asked).await {
        Ok(Ok(_)) => Finding::Fine(format!(
            "{name} accepts the token: hosts, firewalls and volumes can be listed. Whether it may make them too shows with the first start."
        )),
        Ok(Err(error)) => Finding::Wrong(format!("Hosts of {name}: {error}")),
        Err(_) => Finding::Wrong(format!(
            "Hosts of {name}: nobody answered within {} s. Look whether this machine reaches the Internet; if it does, try again later.",
            ANSWER_LIMIT.as_secs()
        )),
    }
}

async fn machine(config: &Config, name: &str, host: &OwnHost) -> Finding {
    match tokio::time::timeout(ANSWER_LIMIT * 2, examined(config, name, host)).await {
        Ok(Ok(finding)) => finding,
        Ok(Err(error)) => Finding::Wrong(format!("The machine `{name}`: {error:#}.")),
        Err(_) => {
            Finding::Wrong(format!("The machine `{name}` did not answer within {} s.", (ANSWER_LIMIT * 2).as_secs()))
        }
    }
}

async fn examined(config: &Config, name: &str, host: &OwnHost) -> anyhow::Result<Finding> {
    let key = machine_key(config, name, host)?;
    let mut found = tokio::net::lookup_host((host.address.as_str(), host.port))
        .await
        .with_context(|| format!("its name `{}` cannot be looked up", host.address))?;
    let address = found.next().with_context(|| format!("its name `{}` leads nowhere", host.address))?;
    let pinned = host.host_key.as_deref().map(crate::clients::ssh::Pin::parse).transpose();
    let pinned = match pinned.with_context(|| format!("`host_key` under [hosts.{name}]"))? {
        Some(pin) => Some(pin),
        None => trusted(config).pin(name)?,
    };
    let Some(host_key) = pinned else { return Ok(Finding::Wrong(untrusted(name, address).await)) };
    let public_line = key.public_line();
    let target = Target { address, user: host.user.clone(), key, host_key };
    let Found { root, fits, rsync } = match examine(&Ssh::with_connect_limit(target, CONNECT_LIMIT)).await {
        Ok(found) => found,
        Err(error @ SshError::Denied { .. }) => {
            return Ok(Finding::Wrong(format!("The machine `{name}`: {error}. The line is: {public_line}")));
        }
        Err(error) => return Ok(Finding::Wrong(format!("The machine `{name}`: {error}."))),
    };
    let user = &host.user;
    if !fits {
        return Ok(Finding::Wrong(format!("The machine `{name}` runs no Debian or Ubuntu, which the recipes need.")));
    }
    if !root {
        return Ok(Finding::Wrong(format!(
            "The machine `{name}` lets {user} in, who may not use sudo there without a password. On it, as root: echo '{user} ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/spawnpoint"
        )));
    }
    let by = if user == "root" { "" } else { ", who may use sudo" };
    Ok(match rsync {
        true => {
            Finding::Fine(format!("The machine `{name}` shows its pinned key and lets {user} in{by}; rsync is there."))
        }
        false => Finding::Note(format!(
            "The machine `{name}` shows its pinned key and lets {user} in{by}. It has no rsync yet; the first start installs it."
        )),
    })
}

async fn untrusted(name: &str, address: SocketAddr) -> String {
    match scan(address).await {
        Ok(key) => format!(
            "Nobody has said yet that the machine `{name}` is the right one. It shows the key {}. `spawnpoint trust {name}` compares and remembers it.",
            key.fingerprint
        ),
        Err(error) => format!("The machine `{name}`: {error}."),
    }
}

/// Worlds travel with it.
fn rsync() -> Finding {
    let path = std::env::var_os("PATH").unwrap_or_default();
    match std::env::split_paths(&path).any(|folder| folder.join("rsync").is_file()) {
        true => Finding::Fine("rsync is here: worlds travel with it.".into()),
        false => Finding::Wrong(
            "There is no rsync on this machine, and worlds travel with it: sudo apt-get install rsync".into(),
        ),
    }
}
