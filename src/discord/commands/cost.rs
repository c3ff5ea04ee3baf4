//! `/cost`.

use super::{Context, Done, asked, complete};
use crate::app::CostFilter;
use crate::discord::render;
use poise::serenity_prelude as serenity;

/// Show what rented hosts cost, by server, person and month
#[poise::command(slash_command, guild_only)]
pub async fn cost(
    ctx: Context<'_>,
    #[description = "Of this server alone"]
    #[autocomplete = "complete::server"]
    server: Option<String>,
    #[description = "Which month, for instance 2026-11; without it, this one"]
    #[autocomplete = "complete::month"]
    month: Option<String>,
    #[description = "What this person started"] user: Option<serenity::User>,
) -> Done {
    let asked = asked(&ctx);
    let work = async {
        let filter = CostFilter { server, month, user: user.map(|user| user.id.to_string()) };
        Ok(render::cost::cost(&asked.app.cost(&asked.caller().await?, filter).await?))
    };
    asked.answer(work).await;
    Ok(())
}
