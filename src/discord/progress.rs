//! Keeps one message per job equal to the job's view. It looks at what is (a nudge only says when), so it goes on
//! after a restart, a lost nudge or an outage, and the last text always arrives.

use super::pace::Pace;
use super::trouble::{Trouble, unharmed};
use super::{posts, render};
use crate::app::{App, JobMessage};
use crate::bus::Nudge;
use crate::model::job::Outcome;
use crate::model::{HOUR_MS, JobId, Ms};
use poise::serenity_prelude as serenity;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The least time between two edits of one message; Discord allows about five in five seconds for a whole channel.
const EDIT_GAP: Duration = Duration::from_secs(2);
/// An open job is looked at so often without news, for its time and its output.
const REFRESH: Duration = Duration::from_secs(5);
/// Everything is looked through so often, in case a nudge was missed.
const SWEEP: Duration = Duration::from_secs(30);
/// Jobs whose end was told are remembered, so that a late nudge does not tell it again.
const TOLD_KEPT: usize = 1000;

/// A channel that is closed to the bot may be opened again; the end of a job, or a notice, is tried to be told there for
/// so long.
pub const NEWS_MS: Ms = 6 * HOUR_MS;

/// What came of one look.
enum Told {
    /// The message is as it should be; the job goes on.
    Open,
    /// The last text stands.
    Over,
    /// The job has no channel.
    Nowhere,
    Trouble(Trouble),
}

pub async fn run(app: App, http: Arc<serenity::Http>, stop: CancellationToken) {
    let mut listener = app.listen();
    let mut pace: Pace<JobId> = Pace::new(EDIT_GAP);
    let mut work: JoinSet<(JobId, Told)> = JoinSet::new();
    let mut over: BTreeSet<JobId> = BTreeSet::new();
    // How often a job's message was posted anew after somebody had deleted it.
    let mut anew: HashMap<JobId, u32> = HashMap::new();
    let mut sweep = tokio::time::interval(SWEEP);
    loop {
        for id in pace.take(Instant::now()) {
            let (app, http, tries) = (app.clone(), http.clone(), anew.get(&id).copied().unwrap_or_default());
            work.spawn(async move { (id, unharmed(told(&app, &http, id, tries)).await.unwrap_or_else(Told::Trouble)) });
        }
        let due = pace.next().unwrap_or_else(|| Instant::now() + SWEEP);
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep_until(due) => {}
            nudge = listener.next() => match nudge {
                Ok(Some(Nudge::Job(id))) if !over.contains(&id) => pace.news(id, Instant::now()),
                Ok(Some(Nudge::Job(_) | Nudge::Server(_) | Nudge::Notice)) => {}
                Ok(None) => sweep.reset_immediately(),
                Err(_) => break,
            },
            _ = sweep.tick() => match app.telling().jobs_to_tell().await {
                Ok(jobs) => {
                    jobs.into_iter().filter(|id| !over.contains(id)).for_each(|id| pace.news(id, Instant::now()));
                }
                Err(error) => tracing::warn!("The jobs to tell of could not be read: {error:#}"),
            },
            Some(done) = work.join_next() => {
                let Ok((id, told)) = done else { continue };
                let now = Instant::now();
                match told {
                    Told::Open => pace.done(&id, now, REFRESH),
                    Told::Nowhere => pace.dropped(&id),
                    Told::Trouble(Trouble::MessageGone) if !anew.contains_key(&id) => {
                        anew.insert(id, 1);
                        pace.done(&id, now, EDIT_GAP);
                    }
                    Told::Trouble(trouble) if trouble.may_pass() => {
                        if pace.failed(&id, now) {
                            tracing::warn!(job = %id, "A job's message could not be brought up to date; trying again: {trouble}");
                        }
                    }
                    Told::Over | Told::Trouble(_) => {
                        if let Told::Trouble(trouble) = told {
                            tracing::warn!(job = %id, "A job is not told of any more in its channel: {trouble}");
                            quietly(app.telling().forget_job_message(id).await);
                        }
                        pace.dropped(&id);
                        anew.remove(&id);
                        over.insert(id);
                        if over.len() > TOLD_KEPT {
                            over.pop_first();
                        }
                    }
                }
            }
        }
    }
}

async fn told(app: &App, http: &serenity::Http, id: JobId, anew: u32) -> Told {
    let told = async {
        let told = tell(app, http, id, anew).await?;
        if matches!(told, Told::Over) {
            app.telling().forget_job_message(id).await?;
        }
        anyhow::Ok(told)
    };
    told.await.unwrap_or_else(|error| Told::Trouble(Trouble::Later(format!("{error:#}"))))
}

async fn tell(app: &App, http: &serenity::Http, id: JobId, anew: u32) -> anyhow::Result<Told> {
    let telling = app.telling();
    let view = app.job_view(id).await?;
    let Some(channel) = view.channel.clone() else { return Ok(Told::Nowhere) };
    let over = match view.outcome {
        None | Some(Outcome::Held) => false,
        Some(Outcome::Succeeded | Outcome::Failed | Outcome::Cancelled | Outcome::Abandoned) => true,
    };
    let said = render::job(&view, app.now());
    let no_news = over && view.ended_at.is_some_and(|ended| app.now() - ended >= NEWS_MS);
    let hash = said.fingerprint();
    let stored = telling.job_message(id).await?.filter(|stored| !stored.message.is_empty());
    let message = match stored {
        Some(stored) if stored.hash == hash => stored.message,
        Some(stored) => match posts::edit(http, &stored.channel, &stored.message, &said).await {
            Ok(()) => stored.message,
            Err(Trouble::ChannelClosed(_)) if no_news => return Ok(Told::Over),
            Err(trouble) => {
                if trouble == Trouble::MessageGone {
                    let nothing = JobMessage { channel, message: String::new(), hash: String::new() };
                    telling.set_job_message(id, &nothing).await?;
                }
                return Ok(Told::Trouble(trouble));
            }
        },
        // Nobody waits any more for the end of a job that had no message.
        None if no_news => return Ok(Told::Over),
        None => {
            // Intent first: from here on the job is one to tell of, also for the bot's next life.
            let intent = JobMessage { channel: channel.clone(), message: String::new(), hash: String::new() };
            telling.set_job_message(id, &intent).await?;
            match posts::post(http, &channel, &said, &format!("job-{id}-{anew}")).await {
                Ok(posted) if posted.as_said => posted.id,
                Ok(posted) => {
                    // An edit at the next look puts it right.
                    let older = JobMessage { channel, message: posted.id, hash: String::new() };
                    telling.set_job_message(id, &older).await?;
                    return Ok(Told::Open);
                }
                Err(trouble) => return Ok(Told::Trouble(trouble)),
            }
        }
    };
    telling.set_job_message(id, &JobMessage { channel, message, hash }).await?;
    Ok(if over { Told::Over } else { Told::Open })
}

fn quietly(result: anyhow::Result<()>) {
    if let Err(error) = result {
        tracing::warn!("Something about a job's message could not be kept: {error:#}");
    }
}
