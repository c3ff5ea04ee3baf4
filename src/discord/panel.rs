//! Keeps one panel per server up to date. It is posted when a server is made or when somebody asks for its status
//! and there is none; a panel that was deleted is posted anew once, and let go the second time.

use super::pace::Pace;
use super::render::server::{deleted, panel_without_time};
use super::trouble::{Trouble, unharmed};
use super::{posts, render};
use crate::app::{App, Panel};
use crate::bus::Nudge;
use crate::model::server::State;
use crate::model::{JobId, Ms, ServerId};
use poise::serenity_prelude as serenity;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The least time between two edits of one panel.
const EDIT_GAP: Duration = Duration::from_secs(4);
/// A panel is looked at so often without news.
const REFRESH: Duration = Duration::from_secs(60);
/// Nudges about jobs are gathered for so long before their servers are looked up.
const GATHER: Duration = Duration::from_secs(1);
/// Wishes for panels that may wait.
const WISHES: usize = 256;

/// Where commands say that a server's panel should stand in a channel.
#[derive(Clone)]
pub struct Panels {
    wishes: mpsc::Sender<(ServerId, String)>,
}

impl Panels {
    pub fn new() -> (Panels, mpsc::Receiver<(ServerId, String)>) {
        let (wishes, receiver) = mpsc::channel(WISHES);
        (Panels { wishes }, receiver)
    }

    /// Posts a panel there, unless the server has one.
    pub fn wanted(&self, server: ServerId, channel: String) {
        // A full queue means a storm of requests; `/server status` asks again.
        if self.wishes.try_send((server, channel)).is_err() {
            tracing::warn!("Too many panels are wanted at once; one was not posted.");
        }
    }
}

/// What is remembered about one panel between two looks.
#[derive(Clone, Default)]
struct Memory {
    /// Where to post it while there is none, and what makes a second try find the first one.
    wish: Option<(String, String)>,
    /// What it showed last, without the time of looking.
    shown: Option<String>,
    posted_anew: bool,
}

enum Shown {
    Stands(Memory),
    /// It is not yet as it should be: another look, soon.
    Again(Memory),
    /// The server is deleted, or there is no panel and nobody wants one.
    None,
    Trouble(Trouble),
}

pub async fn run(
    app: App,
    http: Arc<serenity::Http>,
    mut wishes: mpsc::Receiver<(ServerId, String)>,
    stop: CancellationToken,
) {
    let mut listener = app.listen();
    let mut pace: Pace<ServerId> = Pace::new(EDIT_GAP);
    let mut memories: HashMap<ServerId, Memory> = HashMap::new();
    let mut work: JoinSet<(ServerId, Shown)> = JoinSet::new();
    let mut jobs: HashSet<JobId> = HashSet::new();
    let mut gather = tokio::time::interval(GATHER);
    let mut look_through = tokio::time::interval(REFRESH);
    loop {
        for id in pace.take(Instant::now()) {
            let (app, http, memory) = (app.clone(), http.clone(), memories.get(&id).cloned().unwrap_or_default());
            work.spawn(async move {
                let shown = async {
                    let shown = show(&app, &http, &id, memory).await;
                    shown.unwrap_or_else(|error| Shown::Trouble(Trouble::Later(format!("{error:#}"))))
                };
                let shown = unharmed(shown).await.unwrap_or_else(Shown::Trouble);
                (id, shown)
            });
        }
        let due = pace.next().unwrap_or_else(|| Instant::now() + REFRESH);
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep_until(due) => {}
            nudge = listener.next() => match nudge {
                Ok(Some(Nudge::Server(id))) => {
                    if memories.contains_key(&id) {
                        pace.news(id, Instant::now());
                    }
                }
                Ok(Some(Nudge::Job(id))) => {
                    jobs.insert(id);
                }
                Ok(Some(Nudge::Notice)) => {}
                Ok(None) => pace.keys().into_iter().for_each(|id| pace.news(id, Instant::now())),
                Err(_) => break,
            },
            Some((server, channel)) = wishes.recv() => {
                memories.entry(server.clone()).or_default().wish = Some((channel, once(&server, app.now())));
                pace.news(server, Instant::now());
            }
            _ = gather.tick(), if !jobs.is_empty() => {
                for id in jobs.drain() {
                    if let Ok(view) = app.job_view(id).await
                        && let Some(server) = view.server
                        && memories.contains_key(&server)
                    {
                        pace.news(server, Instant::now());
                    }
                }
            }
            _ = look_through.tick() => match app.telling().panels().await {
                Ok(panels) => for server in panels {
                    memories.entry(server.clone()).or_default();
                    pace.news(server, Instant::now());
                },
                Err(error) => tracing::warn!("The panels could not be read: {error:#}"),
            },
            Some(done) = work.join_next() => {
                let Ok((id, shown)) = done else { continue };
                let now = Instant::now();
                match shown {
                    Shown::Stands(memory) => {
                        // A wish that came meanwhile is met by the panel that stands.
                        memories.insert(id.clone(), memory);
                        pace.done(&id, now, REFRESH);
                    }
                    Shown::Again(memory) => {
                        memories.insert(id.clone(), memory);
                        pace.done(&id, now, EDIT_GAP);
                    }
                    Shown::None => {
                        memories.remove(&id);
                        pace.dropped(&id);
                    }
                    Shown::Trouble(trouble) if trouble.may_pass() => {
                        if pace.failed(&id, now) {
                            tracing::warn!(server = %id, "A panel could not be brought up to date; trying again: {trouble}");
                        }
                    }
                    Shown::Trouble(trouble) => {
                        tracing::warn!(server = %id, "A panel is let go; `/server status` posts a new one: {trouble}");
                        memories.remove(&id);
                        pace.dropped(&id);
                        if let Err(error) = app.telling().forget_panel(&id).await {
                            tracing::warn!(server = %id, "A panel could not be forgotten: {error:#}");
                        }
                    }
                }
            }
        }
    }
}

async fn show(app: &App, http: &serenity::Http, id: &ServerId, memory: Memory) -> anyhow::Result<Shown> {
    let telling = app.telling();
    let panel = telling.panel(id).await?;
    let Some(view) = app.server_picture(id).await? else {
        if let Some(panel) = panel {
            let edited = posts::edit(http, &panel.channel, &panel.message, &deleted()).await;
            if let Err(trouble @ Trouble::Later(_)) = edited {
                return Ok(Shown::Trouble(trouble));
            }
            telling.forget_panel(id).await?;
        }
        return Ok(Shown::None);
    };
    let said = render::panel(&view, app.now());
    let bare = panel_without_time(&said);
    let panel = match (panel, &memory.wish) {
        (Some(panel), _) => panel,
        (None, None) => return Ok(Shown::None),
        (None, Some((channel, once))) => {
            // Intent first: the bot's next life finds what this one may have posted.
            let wanted = Panel { channel: channel.clone(), message: String::new(), once: once.clone() };
            telling.set_panel(id, &wanted).await?;
            wanted
        }
    };
    if panel.message.is_empty() {
        return Ok(match posts::post(http, &panel.channel, &said, &panel.once).await {
            Ok(posted) => {
                telling.set_panel(id, &Panel { message: posted.id, ..panel }).await?;
                let memory = Memory { wish: None, shown: posted.as_said.then_some(bare), ..memory };
                if posted.as_said { Shown::Stands(memory) } else { Shown::Again(memory) }
            }
            Err(Trouble::ChannelClosed(_)) if wished_elsewhere(&memory, &panel) => {
                telling.forget_panel(id).await?;
                Shown::Again(memory)
            }
            Err(trouble) => Shown::Trouble(trouble),
        });
    }
    // Where nobody plays nothing changes, and "looked at an hour ago" would be the only news.
    let fresh = matches!(view.state, State::Running | State::Starting | State::Stopping);
    if !fresh && memory.shown.as_ref() == Some(&bare) {
        return Ok(Shown::Stands(memory));
    }
    Ok(match posts::edit(http, &panel.channel, &panel.message, &said).await {
        Ok(()) => Shown::Stands(Memory { wish: None, shown: Some(bare), ..memory }),
        Err(Trouble::MessageGone) if !memory.posted_anew => {
            // The next look posts it.
            let wanted = Panel { message: String::new(), once: once(id, app.now()), ..panel };
            telling.set_panel(id, &wanted).await?;
            Shown::Again(Memory { shown: None, posted_anew: true, ..memory })
        }
        // Somebody wants it elsewhere, and where it is nobody can bring it up to date.
        Err(Trouble::ChannelClosed(_)) if wished_elsewhere(&memory, &panel) => {
            telling.forget_panel(id).await?;
            Shown::Again(Memory { shown: None, ..memory })
        }
        Err(trouble) => Shown::Trouble(trouble),
    })
}

fn wished_elsewhere(memory: &Memory, panel: &Panel) -> bool {
    memory.wish.as_ref().is_some_and(|(channel, _)| *channel != panel.channel)
}

/// At most 25 characters, different for every time that a panel is wanted.
fn once(server: &ServerId, now: Ms) -> String {
    let id: Vec<char> = server.0.chars().rev().take(10).collect();
    format!("{}-{now}", id.into_iter().rev().collect::<String>())
}
