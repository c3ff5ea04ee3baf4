//! `/snapshot …`. Discord hides it from those who do not manage the guild; `app` decides.

use super::{Context, Done, asked, complete};
use crate::discord::ids::Sure;
use crate::discord::render::{answers, lists, text};
use crate::model::job::Action;

/// Golden snapshots: the installs that servers' drives are cloned from
#[poise::command(
    slash_command,
    guild_only,
    default_member_permissions = "MANAGE_GUILD",
    subcommands("list", "build", "delete")
)]
pub async fn snapshot(_ctx: Context<'_>) -> Done {
    Ok(())
}

/// Show all snapshots, their sizes, and which servers stand on them
#[poise::command(slash_command)]
async fn list(ctx: Context<'_>) -> Done {
    let asked = asked(&ctx);
    asked.answer(async { Ok(lists::snapshots(&asked.app.snapshots(&asked.caller().await?).await?)) }).await;
    Ok(())
}

/// Install a game anew onto a snapshot; running servers stay on theirs
#[poise::command(slash_command)]
async fn build(
    ctx: Context<'_>,
    #[description = "Which game"]
    #[autocomplete = "complete::game"]
    game: String,
) -> Done {
    let asked = asked(&ctx);
    let work = async {
        let caller = asked.caller().await?;
        asked.may_tell_here()?;
        let job = asked.app.snapshot_build(&caller, &game, asked.channel_id()).await?;
        Ok(answers::opened(&Action::BuildSnapshot, &game, job, asked.channel.get()))
    };
    asked.answer(work).await;
    Ok(())
}

/// Delete a snapshot that no server stands on
#[poise::command(slash_command)]
async fn delete(
    ctx: Context<'_>,
    #[description = "Which snapshot"]
    #[autocomplete = "complete::snapshot"]
    snapshot: String,
) -> Done {
    let asked = asked(&ctx);
    let work = async {
        asked.caller().await?;
        let question = format!(
            "Delete the snapshot {}? The next start of its game may have to install again.",
            text::code(&snapshot)
        );
        let sure = Sure::DeleteSnapshot(text::clip(snapshot.trim(), 50));
        Ok(lists::question(&question, "Delete it", sure, asked.asker()))
    };
    asked.answer(work).await;
    Ok(())
}
