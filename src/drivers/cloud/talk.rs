//! Talking to a game on its host. What friends reach is asked where they reach it; what is not for them, the console
//! above all, is reached through the SSH connection, never through an open port.

use super::CloudDriver;
use super::game::plain;
use super::setup::keeper;
use crate::clients::console::{Console, ConsoleError, Reply, openttd, quake3, source};
use crate::clients::ssh::{LocalTcp, LocalUdp, Ssh, SshError};
use crate::drivers::talk::{
    COMMAND_LIMIT, COUNT_WITHIN_LINES, QUERY_LIMIT, Typist, ask, console_at, count_in_log, fits, listen, type_at,
};
use crate::engine::{ConsoleFault, StepError};
use crate::model::ServerId;
use crate::model::recipe::{ConsoleProtocol, Recipe};
use crate::model::server::{Players, Server};
use async_trait::async_trait;
use futures::{StreamExt, stream};
use secrecy::SecretString;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::sync::mpsc;

/// After so long without another line an answer is over. What a game writes comes through a file on the host and the
/// connection, in pieces.
const QUIET: Duration = Duration::from_secs(1);

/// A port of the host, as it can be reached from here for as long as this is held.
struct Way {
    address: SocketAddr,
    _tcp: Option<LocalTcp>,
    _udp: Option<LocalUdp>,
}

impl CloudDriver {
    pub(super) async fn ask_players(&self, server: &Server, recipe: &Recipe) -> Option<Players> {
        if let Some(players) = &recipe.players {
            let lines = self.log_lines(server, COUNT_WITHIN_LINES).await.ok()?;
            return Some(count_in_log(players, &lines));
        }
        let query = recipe.query.as_ref()?;
        let number = *server.owned.ports.get(&query.port)?;
        let private = recipe.ports.get(&query.port)?.private;
        let public = server.owned.host.as_ref()?.address.filter(|_| !private);
        let asking = async {
            match public {
                Some(address) => ask(query, SocketAddr::new(address, number)).await,
                None => {
                    let way = self.way(server, recipe, &query.port).await.ok()?;
                    ask(query, way.address).await
                }
            }
        };
        tokio::time::timeout(QUERY_LIMIT, asking).await.ok().flatten()
    }

    async fn way(&self, server: &Server, recipe: &Recipe, port: &str) -> Result<Way, ConsoleFault> {
        let number = *server.owned.ports.get(port).ok_or(ConsoleFault::NotRunning)?;
        let ssh = self.link(server).await.map_err(silent)?;
        let udp =
            recipe.console.as_ref().is_some_and(|console| {
                console.port.as_deref() == Some(port) && console.protocol == ConsoleProtocol::Quake3Rcon
            }) || recipe.ports.get(port).is_some_and(|port| port.protocol == crate::model::recipe::PortProtocol::Udp);
        if udp {
            let relay = ssh.local_udp(number).await.map_err(unreachable)?;
            return Ok(Way { address: relay.address, _tcp: None, _udp: Some(relay) });
        }
        let forward = ssh.local_tcp(number).await.map_err(unreachable)?;
        Ok(Way { address: forward.address, _tcp: Some(forward), _udp: None })
    }

    async fn console_of(
        &self,
        server: &Server,
        recipe: &Recipe,
    ) -> Result<(Box<dyn Console>, Option<Way>), ConsoleFault> {
        let console = recipe.console.as_ref().ok_or(ConsoleFault::None)?;
        if console.protocol == ConsoleProtocol::Stdin {
            let ssh = self.link(server).await.map_err(silent)?;
            return Ok((Box::new(Stdin { ssh, server: server.id.clone() }), None));
        }
        let way = self.way(server, recipe, console.port.as_deref().unwrap_or_default()).await?;
        let password = self.console_password(server).await?;
        Ok((console_at(console.protocol, way.address, &password).await?, Some(way)))
    }

    /// The password that this game was started with, as its host knows it: it cannot differ from the game's.
    async fn console_password(&self, server: &Server) -> Result<SecretString, ConsoleFault> {
        let ssh = self.link(server).await.map_err(silent)?;
        let path = format!("{}/env", super::setup::home(&server.id));
        let text = super::setup::read(&ssh, &path).await.map_err(silent)?.unwrap_or_default();
        let quoted = text.lines().find_map(|line| line.strip_prefix("export CONSOLE_PASSWORD='")?.strip_suffix('\''));
        Ok(SecretString::from(quoted.unwrap_or_default().replace(r"'\''", "'")))
    }
}

#[async_trait]
impl Typist for CloudDriver {
    async fn type_within(
        &self,
        server: &Server,
        line: &str,
        patience: Option<Duration>,
    ) -> Result<Reply, ConsoleFault> {
        let recipe = self.recipes.get(&server.game).filter(|recipe| recipe.console.is_some());
        let recipe = recipe.ok_or(ConsoleFault::None)?;
        fits(recipe, line)?;
        if server.owned.host.is_none() {
            return Err(ConsoleFault::NotRunning);
        }
        let status = self.status(server, true).await.map_err(silent)?;
        if status.get("state").is_none_or(|state| state != "running") {
            return Err(ConsoleFault::NotRunning);
        }
        type_at(line, patience, self.console_of(server, recipe)).await
    }
}

/// The bytes that warn a game's players, and where the keeper sends them, without any of our programs on the host.
pub(super) fn warning(protocol: ConsoleProtocol, port: u16, password: &str, line: &str) -> (String, Vec<Vec<u8>>) {
    let password = SecretString::from(password);
    match protocol {
        ConsoleProtocol::SourceRcon | ConsoleProtocol::MinecraftRcon => {
            (format!("tcp {port}\n"), source::unanswered(&password, line))
        }
        ConsoleProtocol::Quake3Rcon => (format!("udp {port}\n"), quake3::unanswered(&password, line)),
        ConsoleProtocol::OpenttdAdmin => (format!("tcp {port}\n"), openttd::unanswered(&password, line)),
        ConsoleProtocol::Stdin => ("stdin\n".to_owned(), vec![format!("{line}\n").into_bytes()]),
    }
}

/// A game that reads commands from its input and answers on its output.
struct Stdin {
    ssh: Ssh,
    server: ServerId,
}

#[async_trait]
impl Console for Stdin {
    async fn command(&mut self, line: &str) -> Result<Reply, ConsoleError> {
        if line.contains(['\n', '\r', '\0']) {
            return Err(ConsoleError::LineRefused("it holds a line break or a NUL"));
        }
        let (said, mut lines) = mpsc::unbounded_channel();
        let mut keep = |text: &str| {
            let _ = said.send(text.to_owned());
        };
        let mut exec = keeper(&self.ssh, "ask", &self.server, &[], COMMAND_LIMIT);
        exec.stdin = Some(format!("{line}\n").into());
        // It types the line and goes on telling what the log says from that moment on, until it is dropped.
        let asking = async {
            let exited = self.ssh.stdout_lines(exec, &mut keep).await.and_then(|exited| exited.ok());
            exited.map(drop).map_err(|error| ConsoleError::Unreachable(error.to_string()))
        };
        let listening = listen(QUIET, stream::poll_fn(|cx| lines.poll_recv(cx)).map(Ok));
        tokio::pin!(asking, listening);
        tokio::select! {
            reply = &mut listening => reply,
            // The line could not be typed, or the connection is gone; what was heard is heard.
            result = &mut asking => {
                result?;
                listening.await
            }
        }
    }
}

fn silent(error: StepError) -> ConsoleFault {
    ConsoleFault::Silent(format!("{:#}", plain(error)))
}

fn unreachable(error: SshError) -> ConsoleFault {
    ConsoleFault::Silent(error.to_string())
}
