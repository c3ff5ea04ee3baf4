//! Waiting for a host: until it runs, lets us in, and has ports and a name that friends can use.

use super::patience::{ASK_EVERY, patiently};
use super::saved::Mark;
use super::setup::home;
use super::{CloudDriver, spoken, ssh_error};
use crate::clients::cloud::{Host, HostState};
use crate::clients::ssh::{Exec, Exited, Ssh, SshError};
use crate::engine::{StepCx, StepError};
use crate::model::host::{HostRef, OWN_MACHINE};
use crate::model::job::Gain;
use crate::model::recipe::{PortProtocol, Recipe};
use crate::model::server::{Owned, Server};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// A host whose system has just come up may show a key that is not ours yet, or not know ours yet, for so long.
const FIRST_BOOT_LIMIT: Duration = Duration::from_secs(180);
/// A command that does nothing takes no longer.
const HELLO_LIMIT: Duration = Duration::from_secs(20);
/// The system's own first boot may take so long.
const CLOUD_INIT_LIMIT: Duration = Duration::from_secs(600);

impl CloudDriver {
    /// Waits until the host runs, has an address, and lets us in with the key that it was given.
    pub(super) async fn await_host(&self, cx: &StepCx<'_>) -> Result<Gain, StepError> {
        let server = cx.server()?;
        let mut host = self.host_of(server)?.clone();
        if host.provider != OWN_MACHINE {
            host.address = Some(self.await_running(cx, &host).await?);
        }
        let mut server = server.clone();
        server.owned.host = Some(host.clone());
        self.await_ssh(cx, &server).await?;
        self.destroy_twins(cx, &host).await?;
        if !host.played {
            // A host of an earlier time that is back on record: where a game has run, its world may be newer than any
            // backup, and nothing may be put over it.
            host.played = self.holds_unsaved(&server, &host).await?;
            self.settle_left(&server, &host).await?;
            server.owned.host = Some(host.clone());
        }
        let recipe = self.recipe(&server.game)?;
        let ports = self.choose_ports(cx, &server, recipe).await?;
        let join = recipe.join_port().and_then(|name| ports.get(name));
        let (mut address, mut note) = (None, String::new());
        if let (Some(ip), Some(port)) = (host.address, join) {
            note = spoken(ip, *port);
            address = Some(note.clone());
            if let Some((label, name)) = self.point_name(cx, &server, ip).await? {
                address = Some(format!("{name}:{port}"));
                note = format!("{name}:{port} leads to {note}");
                host.label = Some(label);
            }
        }
        let owned = Owned { host: Some(host), address, ports, ..server.owned.clone() };
        Ok(Gain::owned(owned).with_note(note))
    }

    /// A folder that was left with what was never saved is gone on with where no newer world was kept elsewhere since.
    async fn settle_left(&self, server: &Server, host: &HostRef) -> Result<(), StepError> {
        let Some(Mark::Left { newest }) = self.mark_of(&server.id, &host.provider, &host.id).await? else {
            return Ok(());
        };
        if host.played && newest != server.owned.world {
            return Err(StepError::fatal(format!(
                "Your machine `{}` still has this server's folder, left behind with what was played on it and never saved, \
                 and the server was played elsewhere since. Where what is there is needed, copy {}/game away; then an admin \
                 deletes the folder with `/admin orphans`, and a start puts the newest world there.",
                host.id,
                home(&server.id)
            )));
        }
        self.forget_mark(&server.id, &host.provider, &host.id).await
    }

    async fn await_running(&self, cx: &StepCx<'_>, host: &HostRef) -> Result<std::net::IpAddr, StepError> {
        let api = &self.provider(&host.provider)?.api;
        let mut said = None;
        loop {
            match patiently(cx, "waiting for the host", || api.host(&host.id)).await? {
                None => return Err(StepError::fatal("The provider says that the host is gone.")),
                Some(Host { state: HostState::Running, address: Some(address), .. }) => return Ok(address),
                Some(found) if said != Some(found.state) => {
                    cx.out.line(match found.state {
                        HostState::Starting => "The host is being made.",
                        HostState::Running => "The host runs and has no address yet.",
                        HostState::Off => "The host is powered off; somebody has to power it on at the provider.",
                        HostState::Leaving => {
                            return Err(StepError::fatal("The host is being destroyed by somebody."));
                        }
                    });
                    said = Some(found.state);
                }
                Some(_) => {}
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    async fn await_ssh(&self, cx: &StepCx<'_>, server: &Server) -> Result<(), StepError> {
        let mut ssh = self.link(server).await?;
        let (rented, came) = (self.host_of(server)?.provider != OWN_MACHINE, Instant::now());
        let mut said = String::new();
        loop {
            match lets_us_work(&ssh).await {
                Ok(()) => break,
                Err(error) => {
                    // What a host allows is decided at each login anew.
                    self.forget_link(&server.id);
                    ssh = self.link(server).await?;
                    let passing = match &error {
                        SshError::Unreachable { .. } | SshError::Timeout { .. } | SshError::Broken { .. } => true,
                        // Before the first boot has got so far, sshd may run with other keys than it will.
                        SshError::WrongHostKey { .. } | SshError::NoUsableHostKey { .. } | SshError::Denied { .. } => {
                            rented && came.elapsed() < FIRST_BOOT_LIMIT
                        }
                        // Or want a new password, which the very end of it puts right.
                        SshError::Exit { .. } => rented && came.elapsed() < CLOUD_INIT_LIMIT,
                        SshError::Refused(_) => false,
                    };
                    if !passing {
                        return Err(ssh_error("connecting to the host")(error));
                    }
                    let text = error.to_string();
                    if text != said {
                        cx.out.line(format!("Not yet: {text}"));
                        said = text;
                    }
                    tokio::time::sleep(ASK_EVERY).await;
                }
            }
        }
        // A machine of yours has long had its first boot, or never one by cloud-init, which would be waited for in vain.
        if !rented {
            return Ok(());
        }
        // The first boot goes on after SSH is up; what it installs would stand in the bootstrap script's way.
        let wait =
            "command -v cloud-init >/dev/null || exit 0; cloud-init status --wait >/dev/null; code=$?; [ $code -ne 1 ]";
        let exited = ssh.run(Exec::new(["sh", "-c", wait], CLOUD_INIT_LIMIT), &mut |line| cx.out.line(line)).await;
        exited.and_then(|exited| exited.ok()).map(drop).map_err(ssh_error("waiting for the host's first boot to end"))
    }

    /// A rented host has all numbers to itself; on a machine of yours others may be there first.
    async fn choose_ports(
        &self,
        cx: &StepCx<'_>,
        server: &Server,
        recipe: &Recipe,
    ) -> Result<BTreeMap<String, u16>, StepError> {
        let own: BTreeMap<String, u16> = recipe.ports.iter().map(|(name, port)| (name.clone(), port.number)).collect();
        let host = self.host_of(server)?;
        if host.provider != OWN_MACHINE {
            return Ok(own);
        }
        if recipe.ports.keys().all(|name| server.owned.ports.contains_key(name)) {
            return Ok(server.owned.ports.clone());
        }
        let everybody = cx.journal.servers().await.map_err(StepError::Retry)?;
        let mut taken: Vec<u16> = everybody
            .iter()
            .filter(|other| other.id != server.id)
            .filter(|other| {
                other.owned.host.as_ref().is_some_and(|one| one.provider == OWN_MACHINE && one.id == host.id)
            })
            .flat_map(|other| other.owned.ports.values().copied())
            .collect();
        taken.extend(self.listeners(server).await?);
        let distance = self.settings.ports.0..=self.settings.ports.1;
        let fits = |shift: i32| {
            let shifted: Option<BTreeMap<String, u16>> = own
                .iter()
                .map(|(name, number)| {
                    let number = u16::try_from(i32::from(*number) + shift).ok()?;
                    (!taken.contains(&number)).then(|| (name.clone(), number))
                })
                .collect();
            shifted
        };
        // All of a recipe's ports are moved together: some games count on from their first.
        let lowest = own.values().min().copied().unwrap_or(0);
        std::iter::once(0)
            .chain(distance.map(|first| i32::from(first) - i32::from(lowest)))
            .find_map(fits)
            .ok_or_else(|| StepError::fatal("No ports are free on this machine; other servers have them all."))
    }

    async fn listeners(&self, server: &Server) -> Result<Vec<u16>, StepError> {
        let ssh = self.link(server).await?;
        let mut ports = vec![];
        let exec = Exec::new(["ss", "-Hltun"], Duration::from_secs(20));
        let exited = ssh
            .run(exec, &mut |line| {
                let local = line.split_whitespace().nth(4).unwrap_or_default();
                ports.extend(local.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok()));
            })
            .await
            .map_err(ssh_error("looking which ports are taken"))?;
        exited.ok().map_err(ssh_error("looking which ports are taken"))?;
        Ok(ports)
    }
}

/// Being let in is not enough: where the password has to be changed first, nothing but that is allowed.
async fn lets_us_work(ssh: &Ssh) -> Result<(), SshError> {
    ssh.connect().await?;
    ssh.run_quietly(Exec::new(["true"], HELLO_LIMIT)).await.and_then(Exited::ok).map(drop)
}

/// The ports that friends reach, with what the recipe's own numbers became. The second word says that it is UDP.
pub(super) fn public_ports(recipe: &Recipe, chosen: &BTreeMap<String, u16>) -> Vec<(u16, bool)> {
    ports(recipe, chosen, false)
}

/// Those that nobody reaches but Spawnpoint, through the SSH connection.
pub(super) fn private_ports(recipe: &Recipe, chosen: &BTreeMap<String, u16>) -> Vec<(u16, bool)> {
    ports(recipe, chosen, true)
}

/// As the keeper writes them.
pub(super) fn written(ports: &[(u16, bool)]) -> Vec<String> {
    ports.iter().map(|(number, udp)| format!("{}:{number}", if *udp { "udp" } else { "tcp" })).collect()
}

fn ports(recipe: &Recipe, chosen: &BTreeMap<String, u16>, private: bool) -> Vec<(u16, bool)> {
    let mut found = vec![];
    for (name, port) in recipe.ports.iter().filter(|(_, port)| port.private == private) {
        let number = chosen.get(name).copied().unwrap_or(port.number);
        match port.protocol {
            PortProtocol::Tcp => found.push((number, false)),
            PortProtocol::Udp => found.push((number, true)),
            PortProtocol::Both => found.extend([(number, false), (number, true)]),
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}
