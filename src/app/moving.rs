//! Taking a server from one backend to another: asked about first, with what it means there, then a job.

use super::{Answer, App, Did, Refusal, not_set_up};
use crate::engine::StepError;
use crate::model::access::{Caller, Permission};
use crate::model::cost::Quote;
use crate::model::job::Action;
use crate::model::schedule::Does;
use crate::model::server::{Backend, Server, Wanted};
use crate::model::{JobId, ServerId};
use std::time::Duration;

/// The question is not kept waiting longer for a price.
const QUOTE_WITHIN: Duration = Duration::from_secs(3);

/// What a move would do, for the question before it.
#[derive(Clone, Debug)]
pub struct Moving {
    pub server: ServerId,
    pub name: String,
    pub to: Backend,
    /// It is stopped first.
    pub running: bool,
    /// What a start there rents; `None` where nothing is, or where nobody could say.
    pub quote: Option<Quote>,
    /// Schedules that start it by themselves.
    pub starts: usize,
}

impl App {
    /// What a move to this backend means, or why there is none.
    pub async fn moving(&self, caller: &Caller, name: &str, backend: &str) -> Answer<Moving> {
        let to = Backend::parse(backend.trim())
            .ok_or_else(|| Refusal::Invalid("A backend is `docker` or `cloud`.".to_owned()))?;
        let server = self.movable(caller, name, to).await?;
        if let Some(job) = self.open_job(&server).await? {
            return Err(self.busy(&job, server.name.as_str()).await);
        }
        let running = server.wanted == Wanted::On || server.owned.host.is_some();
        let there = Server { backend: to, ..server };
        let driver = self.driver(&there)?;
        let quote = match tokio::time::timeout(QUOTE_WITHIN, driver.quote(&there)).await {
            Ok(Ok(quote)) => quote,
            Ok(Err(StepError::Retry(error) | StepError::Fatal(error))) => {
                tracing::info!(server = %there.name, "What a start would cost could not be asked: {error:#}");
                None
            }
            Err(_) => None,
        };
        let rules = self.store().schedules_of(&there.guild).await?;
        let starts = rules.iter().filter(|rule| rule.server == there.id && rule.does == Does::Start).count();
        Ok(Moving { server: there.id, name: there.name.to_string(), to, running, quote, starts })
    }

    /// Moves it: stopped with a backup, put away here, and at home there when the job ends. With what a start rents there.
    pub async fn move_to(
        &self,
        caller: &Caller,
        name: &str,
        to: Backend,
        channel: Option<String>,
    ) -> Answer<(JobId, Option<Quote>)> {
        let work = Box::pin(async {
            let server = self.movable(caller, name, to).await?;
            let mut there = Server { backend: to, ..server.clone() };
            let mut told = None;
            if to == Backend::Cloud && self.open_job(&server).await?.is_none() {
                let quote = self.tell_price(&mut there).await?;
                let set = self.store().set_place(&server.id, &server.place, &there.place).await?;
                told = quote.filter(|_| set);
            }
            Ok((self.enqueue(caller, &server, Action::Move { to }, channel).await?, told))
        });
        self.audited(caller, Did::new("move", name).with(format!("to {}", to.word())), work).await
    }

    async fn movable(&self, caller: &Caller, name: &str, to: Backend) -> Answer<Server> {
        let server = self.server(caller, name, Permission::Operate).await?;
        self.recipe_of(&server)?;
        if server.backend == to {
            return Err(Refusal::Invalid(format!("`{}` is on the {} backend already.", server.name, to.word())));
        }
        if self.engine().driver(to).is_none() {
            return Err(not_set_up(to));
        }
        Ok(server)
    }
}
