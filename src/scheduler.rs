//! A front without people: looks which timed rules are due and hands them to `app`, which decides and does everything.
//! What is due stands in the database, so nothing is lost when this loop ends, and two of them do each rule once.

use crate::app::{App, Members};
use crate::bus::{Listener, Nudge};
use crate::model::schedule::Schedule;
use futures::StreamExt;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// New rules are noticed after this at the latest, should a nudge be missed.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// A provider that takes its time over one price must not make the others late.
const AT_ONCE: usize = 8;

/// Does what is due until `stop`.
pub async fn run(app: &App, members: &dyn Members, stop: CancellationToken) {
    let mut listener = app.listen();
    loop {
        let pause = round(app, members).await.unwrap_or_else(|error| {
            tracing::error!("The schedules could not be looked at: {error:#}");
            LOOK_EVERY
        });
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
            () = changed(&mut listener) => {}
        }
    }
}

/// Something about a server has changed, perhaps its rules.
async fn changed(listener: &mut Listener) {
    loop {
        match listener.next().await {
            Ok(Some(Nudge::Server(_)) | None) => return,
            Ok(Some(Nudge::Job(_) | Nudge::Notice)) => {}
            // The program ends, and this loop with it.
            Err(_) => std::future::pending().await,
        }
    }
}

/// One look; answers with how long nothing is due.
pub async fn round(app: &App, members: &dyn Members) -> anyhow::Result<Duration> {
    let due = app.due_schedules().await?;
    futures::stream::iter(&due).for_each_concurrent(AT_ONCE, |schedule| fire(app, members, schedule)).await;
    let left = app.next_schedule_at().await?.map(|next| next - app.now());
    // What could not be written now is not tried again at once.
    let least = if due.is_empty() { 0 } else { 1000 };
    let left = left.and_then(|left| u64::try_from(left.max(least)).ok()).map(Duration::from_millis);
    Ok(left.unwrap_or(LOOK_EVERY).min(LOOK_EVERY))
}

async fn fire(app: &App, members: &dyn Members, schedule: &Schedule) {
    if let Err(error) = app.fire(schedule, members).await {
        tracing::error!(schedule = schedule.number, "A schedule could not be dealt with: {error:#}");
        if let Err(error) = app.put_off(schedule).await {
            tracing::error!(schedule = schedule.number, "A schedule could not be put off: {error:#}");
        }
    }
}
