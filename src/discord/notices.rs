//! Tells notices in their server's channel: a lease that ends, a stop because nobody is on, a world that shrank.
//! They wait in the database, so none is lost over a restart, an outage, or while a channel is closed to the bot.

use super::pace::Pace;
use super::progress::NEWS_MS;
use super::trouble::Trouble;
use super::{posts, render};
use crate::app::{App, WaitingNotice};
use crate::bus::Nudge;
use crate::model::access::Caller;
use crate::model::view::Notice;
use crate::model::{GuildId, ServerId};
use futures::future::join_all;
use poise::serenity_prelude as serenity;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Waiting notices are looked for so often, in case a nudge was missed.
const LOOK: Duration = Duration::from_secs(20);

pub async fn run(app: App, http: Arc<serenity::Http>, stop: CancellationToken) {
    let mut listener = app.listen();
    let mut look = tokio::time::interval(LOOK);
    // Each channel waits for itself after it did not take a notice, and longer each time.
    let mut pace: Pace<String> = Pace::new(Duration::ZERO);
    let mut again = None;
    loop {
        let due = again.unwrap_or_else(|| Instant::now() + LOOK);
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep_until(due) => {}
            nudge = listener.next() => match nudge {
                Ok(Some(Nudge::Notice) | None) => {}
                Ok(Some(Nudge::Job(_) | Nudge::Server(_))) => continue,
                Err(_) => break,
            },
            _ = look.tick() => {}
        }
        again = match tell_all(&app, &http, &mut pace).await {
            Ok(()) => pace.next(),
            Err(error) => {
                tracing::warn!("Notices could not be told; trying again: {error:#}");
                None
            }
        };
    }
}

async fn tell_all(app: &App, http: &serenity::Http, pace: &mut Pace<String>) -> anyhow::Result<()> {
    let telling = app.telling();
    let mut waiting: BTreeMap<String, Vec<WaitingNotice>> = BTreeMap::new();
    for notice in telling.notices_waiting().await? {
        match notice.channel.clone() {
            Some(channel) => waiting.entry(channel).or_default().push(notice),
            None => telling.notice_told(notice.id).await?,
        }
    }
    pace.keys().iter().filter(|channel| !waiting.contains_key(*channel)).for_each(|channel| pace.dropped(channel));
    waiting.keys().for_each(|channel| pace.news(channel.clone(), Instant::now()));
    loop {
        let due = pace.take(Instant::now());
        if due.is_empty() {
            return Ok(());
        }
        let told = join_all(due.into_iter().map(async |channel| {
            let notices = waiting.get(&channel).map(Vec::as_slice).unwrap_or_default();
            let told = tell_in(app, http, &channel, notices).await;
            (channel, told.unwrap_or_else(|error| Err(Trouble::Later(format!("{error:#}")))))
        }));
        for (channel, told) in told.await {
            match told {
                Ok(()) => pace.dropped(&channel),
                Err(trouble) => {
                    if pace.failed(&channel, Instant::now()) {
                        tracing::warn!(channel, "Notices could not be told in a channel; trying again: {trouble}");
                    }
                }
            }
        }
    }
}

/// Tells what waits in one channel, in its order, until it cannot be told now.
async fn tell_in(
    app: &App,
    http: &serenity::Http,
    channel: &str,
    notices: &[WaitingNotice],
) -> anyhow::Result<Result<(), Trouble>> {
    let telling = app.telling();
    for (at, WaitingNotice { id, guild, notice, since, .. }) in notices.iter().enumerate() {
        let server = behind(app, guild, notice).await;
        let said = render::notice(notice, server.as_ref(), app.now()).due(*since, app.now());
        match posts::post(http, channel, &said, &format!("notice-{id}")).await {
            Ok(_) => telling.notice_told(*id).await?,
            Err(trouble @ (Trouble::ChannelGone | Trouble::Refused(_) | Trouble::MessageGone)) => {
                tracing::warn!(channel, "A notice could not be told in its channel, and is let go: {trouble}");
                telling.notice_told(*id).await?;
            }
            Err(trouble @ Trouble::ChannelClosed(_)) => {
                for old in notices.iter().skip(at).filter(|notice| app.now() - notice.since >= NEWS_MS) {
                    tracing::warn!(channel, "A notice waited long for its channel, and is let go: {trouble}");
                    telling.notice_told(old.id).await?;
                }
                return Ok(Err(trouble));
            }
            Err(trouble @ (Trouble::Later(_) | Trouble::TokenGone | Trouble::Unauthorized)) => {
                return Ok(Err(trouble));
            }
        }
    }
    Ok(Ok(()))
}

/// The id behind the server's name, for the button.
async fn behind(app: &App, guild: &GuildId, notice: &Notice) -> Option<ServerId> {
    let name = match notice {
        Notice::LeaseEnds { server, .. } | Notice::IdleStop { server, .. } | Notice::Shrunk { server, .. } => server,
        Notice::BudgetNear { server, .. } | Notice::BudgetStuck { server, .. } => server,
        Notice::Orphan { .. } | Notice::HostLost { .. } | Notice::Skipped { .. } => return None,
        Notice::HostSilent { .. } | Notice::HostBack { .. } | Notice::StillBills { .. } => return None,
    };
    let servers = app.servers(&Caller::operator(guild.clone())).await.ok()?;
    servers.into_iter().find(|server| server.name == *name).map(|server| ServerId(server.id))
}
