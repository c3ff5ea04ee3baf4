//! `/game …`.

use super::{Context, Done, asked, complete};
use crate::discord::render::lists;

/// The games that can be played here
#[poise::command(slash_command, guild_only, subcommands("list", "show"))]
pub async fn game(_ctx: Context<'_>) -> Done {
    Ok(())
}

/// Show all games
#[poise::command(slash_command)]
async fn list(ctx: Context<'_>) -> Done {
    let asked = asked(&ctx);
    asked.answer(async { Ok(lists::games(&asked.app.game_list(&asked.caller().await?).await?)) }).await;
    Ok(())
}

/// Show one game: its ports, its needs and its settings
#[poise::command(slash_command)]
async fn show(
    ctx: Context<'_>,
    #[description = "Which game"]
    #[autocomplete = "complete::game"]
    game: String,
) -> Done {
    let asked = asked(&ctx);
    asked.answer(async { Ok(lists::game(&asked.app.game(&asked.caller().await?, &game).await?)) }).await;
    Ok(())
}
