//! Tells notices in their server's channel: a lease that ends, a stop because nobody is on, a world that shrank.
//! They wait in the database, so none is lost over a restart or an outage.

use super::trouble::Trouble;
use super::{posts, render};
use crate::app::App;
use crate::bus::Nudge;
use crate::model::access::Caller;
use crate::model::view::Notice;
use crate::model::{GuildId, ServerId};
use poise::serenity_prelude as serenity;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Waiting notices are looked for so often, in case a nudge was missed or Discord did not answer.
const LOOK: Duration = Duration::from_secs(20);

pub async fn run(app: App, http: Arc<serenity::Http>, stop: CancellationToken) {
    let mut listener = app.listen();
    let mut look = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            nudge = listener.next() => match nudge {
                Ok(Some(Nudge::Notice) | None) => {}
                Ok(Some(Nudge::Job(_) | Nudge::Server(_))) => continue,
                Err(_) => break,
            },
            _ = look.tick() => {}
        }
        if let Err(error) = tell_all(&app, &http).await {
            tracing::warn!("Notices could not be told; trying again: {error:#}");
        }
    }
}

async fn tell_all(app: &App, http: &serenity::Http) -> anyhow::Result<()> {
    let telling = app.telling();
    for (id, guild, channel, notice) in telling.notices_waiting().await? {
        let Some(channel) = channel else {
            telling.notice_told(id).await?;
            continue;
        };
        let server = behind(app, &guild, &notice).await;
        let said = render::notice(&notice, server.as_ref(), app.now());
        match posts::post(http, &channel, &said, &format!("notice-{id}")).await {
            Ok(_) => telling.notice_told(id).await?,
            Err(
                trouble @ (Trouble::ChannelGone
                | Trouble::ChannelClosed(_)
                | Trouble::Refused(_)
                | Trouble::MessageGone),
            ) => {
                tracing::warn!("A notice could not be told in its channel, and is let go: {trouble}");
                telling.notice_told(id).await?;
            }
            Err(trouble @ (Trouble::Later(_) | Trouble::TokenGone | Trouble::Unauthorized)) => {
                anyhow::bail!("{trouble}");
            }
        }
    }
    Ok(())
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
