//! Talking to a game: its console, what it tells its players, who is on. Which protocol it speaks is the recipe's word.
//! A console's port is not published beyond this machine, unless a recipe says that it is the port that friends join.

use super::DockerDriver;
use crate::clients::console::{Console, ConsoleError, Reply};
use crate::clients::docker::DockerError;
use crate::drivers::talk::{
    COUNT_WITHIN_LINES, QUERY_LIMIT, Typist, ask, console_at, count_in_log, fits, listen, type_at,
};
use crate::engine::{ConsoleFault, StepError};
use crate::model::recipe::{ConsoleProtocol, PlayersInLog, Recipe};
use crate::model::server::{Players, Server};
use async_trait::async_trait;
use futures::StreamExt;
use secrecy::SecretString;
use std::net::SocketAddr;
use std::time::Duration;

/// After so long without another line an answer is over.
const QUIET: Duration = Duration::from_millis(600);

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
}

#[async_trait]
impl Typist for DockerDriver {
    async fn type_within(
        &self,
        server: &Server,
        line: &str,
        patience: Option<Duration>,
    ) -> Result<Reply, ConsoleFault> {
        let recipe = self.recipes.get(&server.game).ok_or(ConsoleFault::None)?;
        fits(recipe, line)?;
        let running = self.is_running(server).await.map_err(|error| ConsoleFault::Silent(sentence(&error)))?;
        if !running {
            return Err(ConsoleFault::NotRunning);
        }
        type_at(line, patience, async { Ok((self.console_of(server, recipe).await?, ())) }).await
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
        let lines = docker.logs(&self.container, since, true).skip(usize::from(since.is_some()));
        listen(QUIET, lines.map(|line| line.map(|line| line.text).map_err(unreachable))).await
    }
}

fn sentence(error: &StepError) -> String {
    match error {
        StepError::Retry(error) | StepError::Fatal(error) => format!("{error:#}"),
    }
}
