//! The front that people meet in Discord. The only place that knows serenity and poise.
//!
//! `render` writes every text, as pure functions from views; `ids` names buttons so that they outlive a restart.
//! `commands` take what people type, click and fill in, and hand it to `app`. `progress`, `panel` and `notices` keep
//! messages in channels equal to what is; `members` asks what somebody holds now; `connect` keeps the gateway's
//! connection, and `gate` keeps it from being made too often. Nothing is decided in here, and nothing is remembered in
//! here that must survive.

mod asked;
mod commands;
mod compose;
mod connect;
mod examine;
mod gate;
pub mod ids;
mod members;
mod notices;
mod pace;
mod pairs;
mod panel;
mod posts;
mod progress;
mod register;
pub mod render;
mod trouble;

pub use connect::{Exit, WHOLE_WITHIN};
pub use examine::{Health, examine};
pub use members::members;

use crate::app::App;
use crate::config;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Serves Discord until `stop`. A connection that is not whole within `whole_within` is made anew: [`WHOLE_WITHIN`] for
/// people.
///
/// # Errors
/// What a person has to mend first: no token, a wrong one, intents that Discord does not allow. Everything else is
/// waited for.
pub async fn run(
    app: App,
    config: &config::Discord,
    whole_within: Duration,
    stop: CancellationToken,
) -> Result<(), Exit> {
    let http = Arc::new(connect::http(config)?);
    let (panels, wishes) = panel::Panels::new();
    let front = commands::Front {
        app: app.clone(),
        panels,
        guilds: config.guilds.clone(),
        commands: Arc::new(register::registered(&commands::all())),
        no_commands: Arc::new(register::registered(&[])),
    };
    // These speak to the REST API alone, so they go on while the gateway is away. They end with this front.
    let tellers = stop.child_token();
    let ends = tellers.clone().drop_guard();
    let telling = async {
        tokio::join!(
            progress::run(app.clone(), http.clone(), tellers.clone()),
            panel::run(app.clone(), http.clone(), wishes, tellers.clone()),
            notices::run(app.clone(), http.clone(), tellers.clone()),
        )
    };
    let staying = async {
        let result = connect::stay(Arc::new(front), config, whole_within, &stop).await;
        drop(ends);
        result
    };
    let (result, _) = tokio::join!(staying, telling);
    result
}
