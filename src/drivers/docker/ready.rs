//! Waiting until people can join: the recipe says how that shows, and a game that dies meanwhile is not waited for.

use super::{DockerDriver, GAME_DIR, SCRIPTS_DIR, docker_error};
use crate::clients::docker::{ExecSpec, Line};
use crate::engine::{StepCx, StepError};
use crate::model::job::Gain;
use crate::model::recipe::{ReadyWhen, Recipe};
use crate::model::server::Server;
use futures::StreamExt;
use std::collections::VecDeque;
use std::time::Duration;

/// How often a query, a port or a health check is tried.
const TRY_EVERY: Duration = Duration::from_secs(1);
/// One health check may take so long.
const HEALTHCHECK_LIMIT: Duration = Duration::from_secs(20);
/// Lines of a dying game's output that its failure quotes.
const LAST_LINES: usize = 3;

impl DockerDriver {
    pub(super) async fn await_ready(&self, cx: &StepCx<'_>) -> Result<Gain, StepError> {
        let server = cx.server()?;
        let recipe = self.recipe(&server.game)?;
        let name = self.container_name(server);
        let mut lines = self.docker.logs(&name, None, true);
        let mut last: VecDeque<String> = VecDeque::new();
        let probe = self.probe(server, recipe);
        tokio::pin!(probe);
        let needs_log = recipe.ready.when() == ReadyWhen::Log;
        loop {
            tokio::select! {
                line = lines.next() => match line {
                    Some(Ok(Line { text, .. })) => {
                        cx.out.line(&text);
                        if recipe.ready.log_matches(&text) {
                            return Ok(Gain::default());
                        }
                        if last.len() == LAST_LINES {
                            last.pop_front();
                        }
                        last.push_back(cx.out.mask(&text));
                    }
                    Some(Err(error)) => return Err(docker_error("following the game's log")(error)),
                    // The log ends when the container does.
                    None => return Err(self.died(&name, last.into()).await),
                },
                () = &mut probe, if !needs_log => return Ok(Gain::default()),
            }
        }
    }

    /// Returns when people can join, by whatever the recipe asks other than the log.
    async fn probe(&self, server: &Server, recipe: &Recipe) {
        loop {
            let ready = match recipe.ready.when() {
                // The log's lines decide; nothing to try.
                ReadyWhen::Log => std::future::pending().await,
                ReadyWhen::Query => self.players(server).await.answers,
                ReadyWhen::Port(port) => self.port_answers(server, recipe, port).await,
                ReadyWhen::Healthcheck => self.healthy(server).await,
            };
            if ready {
                return;
            }
            tokio::time::sleep(TRY_EVERY).await;
        }
    }

    async fn port_answers(&self, server: &Server, recipe: &Recipe, port: &str) -> bool {
        let (Some(number), Some(of_recipe)) = (server.owned.ports.get(port), recipe.ports.get(port)) else {
            return false;
        };
        // The daemon's proxy accepts before the game does; only a connection that stays open counts.
        let address = self.reach(of_recipe.private, *number);
        let Ok(Ok(stream)) = tokio::time::timeout(TRY_EVERY, tokio::net::TcpStream::connect(address)).await else {
            return false;
        };
        let mut byte = [0];
        let closed = tokio::time::timeout(TRY_EVERY / 4, stream.peek(&mut byte)).await;
        !matches!(closed, Ok(Ok(0) | Err(_)))
    }

    async fn healthy(&self, server: &Server) -> bool {
        let spec = ExecSpec {
            cmd: vec![format!("{SCRIPTS_DIR}/healthcheck")],
            workdir: Some(GAME_DIR.to_owned()),
            ..ExecSpec::default()
        };
        let code = self.docker.exec(&self.container_name(server), &spec, HEALTHCHECK_LIMIT, &mut |_, _| {}).await;
        matches!(code, Ok(0))
    }

    async fn died(&self, name: &str, last: Vec<String>) -> StepError {
        let state = match self.docker.inspect(name).await {
            Ok(state) => state,
            Err(error) => return docker_error("looking why the game ended")(error),
        };
        let said = if last.is_empty() {
            "It said nothing.".to_owned()
        } else {
            format!("Its last words: {}", last.join(" / "))
        };
        match state {
            None => StepError::fatal("The container was removed by somebody while the game was starting."),
            Some(state) if state.running => StepError::retry("The game's log ended although the game runs."),
            Some(state) if state.oom_killed => StepError::fatal(format!(
                "The game ran out of memory while starting. Give it more with `/server settings`. {said}"
            )),
            Some(state) => StepError::fatal(format!(
                "The game ended while starting, with exit code {}. {said}",
                state.exit_code.map_or("unknown".to_owned(), |code| code.to_string())
            )),
        }
    }
}
