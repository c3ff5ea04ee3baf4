//! Talking to a game on its host. What friends reach is asked where they reach it; what is not for them, the console
//! above all, is reached through the SSH connection, never through an open port.

use super::CloudDriver;
use super::game::plain;
use super::setup::keeper;
use crate::clients::console::{Console, ConsoleError, Reply, openttd, quake3, source};
use crate::clients::ssh::{LocalTcp, LocalUdp, Ssh, SshError};
use crate::drivers::talk::{
    ANSWER_MAX_BYTES, COMMAND_LIMIT, COUNT_WITHIN_LINES, GOODBYE, QUERY_LIMIT, STDIN_FIRST, ask, console_at,
    count_in_log, fault, text_of,
};
use crate::engine::{ConsoleFault, StepCx, StepError};
use crate::model::ServerId;
use crate::model::job::Gain;
use crate::model::recipe::{ConsoleProtocol, Recipe};
use crate::model::server::{Players, Seen, Server};
use async_trait::async_trait;
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

    pub(super) async fn type_line(&self, server: &Server, line: &str) -> Result<String, ConsoleFault> {
        let recipe = self.recipes.get(&server.game).ok_or(ConsoleFault::None)?;
        let console = recipe.console.as_ref().ok_or(ConsoleFault::None)?;
        if server.owned.host.is_none() {
            return Err(ConsoleFault::NotRunning);
        }
        let status = self.status(server, true).await.map_err(silent)?;
        if status.get("state").is_none_or(|state| state != "running") {
            return Err(ConsoleFault::NotRunning);
        }
        let reply = tokio::time::timeout(COMMAND_LIMIT, async {
            if console.protocol == ConsoleProtocol::Stdin {
                let ssh = self.link(server).await.map_err(silent)?;
                return Stdin { ssh, server: server.id.clone() }.command(line).await.map_err(fault);
            }
            let way = self.way(server, recipe, console.port.as_deref().unwrap_or_default()).await?;
            let password = self.console_password(server).await?;
            console_at(console.protocol, way.address, &password).await?.command(line).await.map_err(fault)
        })
        .await
        .map_err(|_| ConsoleFault::Silent(format!("no answer within {} s", COMMAND_LIMIT.as_secs())))??;
        Ok(text_of(reply))
    }

    /// The password that this game was started with, as its host knows it: it cannot differ from the game's.
    async fn console_password(&self, server: &Server) -> Result<SecretString, ConsoleFault> {
        let ssh = self.link(server).await.map_err(silent)?;
        let path = format!("{}/env", super::setup::home(&server.id));
        let text = super::setup::read(&ssh, &path).await.map_err(silent)?.unwrap_or_default();
        let quoted = text.lines().find_map(|line| line.strip_prefix("export CONSOLE_PASSWORD='")?.strip_suffix('\''));
        Ok(SecretString::from(quoted.unwrap_or_default().replace(r"'\''", "'")))
    }

    pub(super) async fn say(&self, server: &Server, message: &str) -> anyhow::Result<()> {
        let line = self.recipes.get(&server.game).and_then(|recipe| recipe.say(message));
        if let Some(line) = line {
            self.type_line(server, &line).await?;
        }
        Ok(())
    }

    /// Told only when somebody may be listening. A game that cannot be told is stopped all the same.
    pub(super) async fn warn_players(&self, cx: &StepCx<'_>) -> Result<Gain, StepError> {
        let server = cx.server()?;
        let Some(Seen::Running { players }) = self.look_at(std::slice::from_ref(server)).await.into_iter().next()
        else {
            return Ok(Gain::note("it is not running"));
        };
        if players.online == Some(0) {
            return Ok(Gain::note("nobody is on"));
        }
        let what = match cx.job.action.word() {
            "restart" => "restarts",
            _ => "stops",
        };
        if let Err(error) = self.say(server, &format!("This server {what} in {} seconds.", GOODBYE.as_secs())).await {
            cx.out.line(format!("The players could not be told: {error:#}"));
            return Ok(Gain::note("they could not be told"));
        }
        tokio::time::sleep(GOODBYE).await;
        Ok(Gain::default())
    }

    pub(super) async fn quiesce(&self, cx: &StepCx<'_>) -> Result<Gain, StepError> {
        let server = cx.server()?;
        let recipe = self.recipe(&server.game)?;
        let Some(quiesce) = &recipe.quiesce else {
            return Ok(Gain::note("this game has no way to hold still"));
        };
        self.type_all(cx, server, &quiesce.before).await
    }

    pub(super) async fn resume_saves(&self, cx: &StepCx<'_>) -> Result<Gain, StepError> {
        let server = cx.server()?;
        let recipe = self.recipe(&server.game)?;
        let Some(quiesce) = &recipe.quiesce else { return Ok(Gain::default()) };
        self.type_all(cx, server, &quiesce.after).await
    }

    async fn type_all(&self, cx: &StepCx<'_>, server: &Server, lines: &[String]) -> Result<Gain, StepError> {
        if !self.is_running(server).await? {
            return Ok(Gain::note("it is not running"));
        }
        for line in lines {
            let answer =
                self.type_line(server, line).await.map_err(|fault| StepError::retry(format!("`{line}`: {fault}")))?;
            answer.lines().for_each(|line| cx.out.line(line));
        }
        Ok(Gain::default())
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
            let exited = self.ssh.run(exec, &mut keep).await.and_then(|exited| exited.ok());
            exited.map(drop).map_err(|error| ConsoleError::Unreachable(error.to_string()))
        };
        let listening = async {
            let mut reply = Reply { text: String::new(), answered: false, truncated: false };
            loop {
                let wait = if reply.answered { QUIET } else { STDIN_FIRST };
                match tokio::time::timeout(wait, lines.recv()).await {
                    Ok(Some(line)) if reply.text.len() + line.len() < ANSWER_MAX_BYTES => {
                        reply.answered = true;
                        reply.text += &line;
                        reply.text.push('\n');
                    }
                    Ok(Some(_)) => {
                        reply.truncated = true;
                        return reply;
                    }
                    Ok(None) | Err(_) => return reply,
                }
            }
        };
        tokio::pin!(asking, listening);
        tokio::select! {
            reply = &mut listening => Ok(reply),
            // The line could not be typed, or the connection is gone; what was heard is heard.
            result = &mut asking => {
                result?;
                Ok(listening.await)
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
