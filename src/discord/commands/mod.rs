//! The slash commands: options in, one call to `app`, its answer out. Nothing is decided here. `complete` fills the
//! options while people type, `presses` are the buttons, `forms` what people fill in.

mod admin;
mod backup;
pub mod complete;
mod console;
mod cost;
pub mod forms;
mod game;
pub mod presses;
mod schedule;
mod server;
mod snapshot;

use super::asked::Asked;
use super::panel::Panels;
use super::register::Registered;
use crate::app::App;
use poise::serenity_prelude as serenity;
use std::sync::Arc;

/// What every command can reach.
pub struct Front {
    pub app: App,
    pub panels: Panels,
    /// Guilds that are served; empty means all.
    pub guilds: Vec<String>,
    pub commands: Arc<Registered>,
    /// What the other guilds get: whatever was registered there before must go.
    pub no_commands: Arc<Registered>,
}

impl Front {
    pub fn serves(&self, guild: serenity::GuildId) -> bool {
        self.guilds.is_empty() || self.guilds.contains(&guild.to_string())
    }
}

pub type Context<'a> = poise::ApplicationContext<'a, Arc<Front>, serenity::Error>;
/// Commands answer by themselves, whatever happens; nothing is left for the framework to tell.
pub type Done = Result<(), serenity::Error>;

pub fn all() -> Vec<poise::Command<Arc<Front>, serenity::Error>> {
    let mut commands = vec![
        server::server(),
        console::console(),
        backup::backup(),
        snapshot::snapshot(),
        schedule::schedule(),
        game::game(),
        cost::cost(),
        admin::admin(),
    ];
    poise::framework::set_qualified_names(&mut commands);
    commands
}

fn asked<'a>(ctx: &Context<'a>) -> Asked<'a> {
    Asked::command(ctx.framework.serenity_context, ctx.framework.user_data, ctx.interaction)
}
