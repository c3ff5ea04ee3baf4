//! `/schedule …`.

use super::{Context, Done, asked, complete};
use crate::app::Rule;
use crate::discord::render::schedules as words;

/// Timed rules: start, stop, restart or back up a server, or type into its console
#[poise::command(slash_command, guild_only, subcommands("add", "list", "remove"))]
pub async fn schedule(_ctx: Context<'_>) -> Done {
    Ok(())
}

/// Do something at certain times, with your rights as they are then
#[poise::command(slash_command)]
async fn add(
    ctx: Context<'_>,
    #[description = "Which server"]
    #[autocomplete = "complete::server"]
    server: String,
    #[description = "What is done: start, stop, restart, backup or command"]
    #[autocomplete = "complete::does"]
    action: String,
    #[description = "When: daily 20:00, fri,sat 19:30, weekdays 18:00, every 6h, once 2026-11-24 20:00, or cron"]
    #[autocomplete = "complete::rule"]
    #[max_length = 100]
    when: String,
    #[description = "With the action command: what is typed, as the game understands it"]
    #[autocomplete = "complete::command"]
    #[max_length = 1000]
    command: Option<String>,
    #[description = "The time zone of these times; without it, as configured"]
    #[autocomplete = "complete::timezone"]
    #[max_length = 100]
    timezone: Option<String>,
) -> Done {
    let asked = asked(&ctx);
    let work = async {
        let caller = asked.caller().await?;
        asked.may_tell_here()?;
        let rule = Rule { server, action, when, command, timezone };
        Ok(words::added(&asked.app.schedule_add(&caller, rule, asked.channel_id()).await?))
    };
    asked.answer(work).await;
    Ok(())
}

/// Show what is scheduled, when it comes next, and what became of it last
#[poise::command(slash_command)]
async fn list(
    ctx: Context<'_>,
    #[description = "Of this server alone"]
    #[autocomplete = "complete::server"]
    server: Option<String>,
) -> Done {
    let asked = asked(&ctx);
    let work = async {
        let schedules = asked.app.schedules(&asked.caller().await?, server.as_deref()).await?;
        Ok(words::list(&schedules, server.as_deref()))
    };
    asked.answer(work).await;
    Ok(())
}

/// Remove a schedule
#[poise::command(slash_command)]
async fn remove(
    ctx: Context<'_>,
    #[description = "Which one, by its number"]
    #[autocomplete = "complete::schedule"]
    schedule: String,
) -> Done {
    let asked = asked(&ctx);
    let work = async { Ok(words::removed(&asked.app.schedule_remove(&asked.caller().await?, &schedule).await?)) };
    asked.answer(work).await;
    Ok(())
}
