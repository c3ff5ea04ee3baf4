//! Talking to a game: its console, what it tells its players, who is on. Which protocol it speaks is the recipe's word;
//! the console's port is never published beyond this machine.

use super::DockerDriver;
use crate::clients::console::{Console, ConsoleError, Reply};
use crate::clients::docker::DockerError;
use crate::drivers::talk::{
    ANSWER_MAX_BYTES, COMMAND_LIMIT, COUNT_WITHIN_LINES, GOODBYE, QUERY_LIMIT, STDIN_FIRST, STDIN_QUIET, ask,
    console_at, count_in_log, fault, text_of,
};
use crate::engine::{ConsoleFault, StepCx, StepError};
use crate::model::job::Gain;
use crate::model::recipe::{ConsoleProtocol, PlayersInLog, Recipe};
use crate::model::server::{Players, Seen, Server};
use async_trait::async_trait;
use futures::StreamExt;
use secrecy::SecretString;
use std::net::SocketAddr;

impl DockerDriver {
    pub(super) async fn players(&self, server: &Server) -> Players {
        let Some(recipe) = self.recipes.get(&server.game) else { return Players::default() };
        match tokio::time::timeout(QUERY_LIMIT, self.ask_players(server, recipe)).await {
            Ok(Some(players)) => players,
            // Silent, or without a query: unknown, which is not zero.
            Ok(None) | Err(_) => Players::default(),
        }
    }

    async fn ask_players(&self, server: &Server, recipe: &Recipe) -> Option<Players> {
        if let Some(players) = &recipe.players {
            return self.players_in_log(server, players).await;
        }
        let query = recipe.query.as_ref()?;
        let address = self.address_of(server, recipe, &query.port)?;
        ask(query, address).await
    }

    async fn players_in_log(&self, server: &Server, players: &PlayersInLog) -> Option<Players> {
        let lines = self.docker.recent_logs(&self.container_name(server), COUNT_WITHIN_LINES).await.ok()?;
        let lines: Vec<String> = lines.into_iter().map(|line| line.text).collect();
        Some(count_in_log(players, &lines))
    }

    fn address_of(&self, server: &Server, recipe: &Recipe, port: &str) -> Option<SocketAddr> {
        let number = server.owned.ports.get(port)?;
        Some(self.reach(recipe.ports.get(port)?.private, *number))
    }

    pub(super) async fn type_line(&self, server: &Server, line: &str) -> Result<String, ConsoleFault> {
        let recipe = self.recipes.get(&server.game).ok_or(ConsoleFault::None)?;
        let running = self.is_running(server).await.map_err(|error| ConsoleFault::Silent(sentence(&error)))?;
        if !running {
            return Err(ConsoleFault::NotRunning);
        }
        let reply = tokio::time::timeout(COMMAND_LIMIT, async {
            self.console_of(server, recipe).await?.command(line).await.map_err(fault)
        })
        .await
        .map_err(|_| ConsoleFault::Silent(format!("no answer within {} s", COMMAND_LIMIT.as_secs())))??;
        Ok(text_of(reply))
    }

    async fn console_of(&self, server: &Server, recipe: &Recipe) -> Result<Box<dyn Console + '_>, ConsoleFault> {
        let console = recipe.console.as_ref().ok_or(ConsoleFault::None)?;
        if console.protocol == ConsoleProtocol::Stdin {
            return Ok(Box::new(Stdin { driver: self, container: self.container_name(server) }));
        }
        let port = console.port.as_deref().unwrap_or_default();
        let address = self.address_of(server, recipe, port).ok_or(ConsoleFault::NotRunning)?;
        let password = self.console_password(server).await?;
        console_at(console.protocol, address, &password).await
    }

    /// The password that this container was made with, as the daemon knows it: it cannot differ from the game's.
    async fn console_password(&self, server: &Server) -> Result<SecretString, ConsoleFault> {
        let env = self
            .docker
            .environment(&self.container_name(server))
            .await
            .map_err(|error| ConsoleFault::Silent(error.to_string()))?;
        let password = env.into_iter().find(|(name, _)| name == "CONSOLE_PASSWORD").map(|(_, value)| value);
        Ok(SecretString::from(password.unwrap_or_default()))
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

    /// Has the game write its world and hold still, for a backup while it runs.
    pub(super) async fn quiesce(&self, cx: &StepCx<'_>) -> Result<Gain, StepError> {
        let server = cx.server()?;
        let recipe = self.recipe(&server.game)?;
        let Some(quiesce) = &recipe.quiesce else { return Ok(Gain::note("this game has no way to hold still")) };
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

/// A game that reads commands from its input and answers on its output.
struct Stdin<'a> {
    driver: &'a DockerDriver,
    container: String,
}

#[async_trait]
impl Console for Stdin<'_> {
    async fn command(&mut self, line: &str) -> Result<Reply, ConsoleError> {
        if line.contains(['\n', '\r', '\0']) {
            return Err(ConsoleError::LineRefused("it holds a line break or a NUL"));
        }
        let unreachable = |error: DockerError| ConsoleError::Unreachable(error.to_string());
        let docker = &self.driver.docker;
        // Followed from before the line is typed, so that no word of the answer is missed.
        let since = docker.recent_logs(&self.container, 1).await.map_err(unreachable)?.last().map(|line| line.at);
        docker.write_stdin(&self.container, format!("{line}\n").as_bytes()).await.map_err(unreachable)?;
        let mut lines = docker.logs(&self.container, since, true).skip(usize::from(since.is_some()));
        let mut reply = Reply { text: String::new(), answered: false, truncated: false };
        loop {
            let wait = if reply.answered { STDIN_QUIET } else { STDIN_FIRST };
            match tokio::time::timeout(wait, lines.next()).await {
                Ok(Some(Ok(line))) if reply.text.len() + line.text.len() < ANSWER_MAX_BYTES => {
                    reply.answered = true;
                    reply.text += &line.text;
                    reply.text.push('\n');
                }
                Ok(Some(Ok(_))) => {
                    reply.truncated = true;
                    return Ok(reply);
                }
                Ok(Some(Err(error))) => return Err(unreachable(error)),
                // Quiet, or the game ended.
                Ok(None) | Err(_) => return Ok(reply),
            }
        }
    }
}

fn sentence(error: &StepError) -> String {
    match error {
        StepError::Retry(error) | StepError::Fatal(error) => format!("{error:#}"),
    }
}
