//! `/console`.

use super::{Context, Done, asked, complete};
use crate::discord::render::{self, text};

/// Type a line into the game's console
#[poise::command(slash_command, guild_only)]
pub async fn console(
    ctx: Context<'_>,
    #[description = "Which server"]
    #[autocomplete = "complete::server"]
    server: String,
    #[description = "What to type, as the game understands it"]
    #[autocomplete = "complete::command"]
    #[max_length = 1000]
    command: String,
) -> Done {
    let asked = asked(&ctx);
    let work = async {
        let answer = asked.app.console(&asked.caller().await?, &server, &command).await?;
        let before = format!("{} answered {}:", text::code(&server), text::code(&command));
        Ok(render::output_apart(before, answer, "console.txt").await?)
    };
    asked.answer(work).await;
    Ok(())
}
