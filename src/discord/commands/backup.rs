//! `/backup …`.

use super::{Context, Done, asked, complete, presses};
use crate::discord::ids::Sure;
use crate::discord::render::{answers, lists, text};
use crate::model::ServerId;
use crate::model::job::Action;
use crate::model::world::BackupId;

/// Backups of worlds
#[poise::command(slash_command, guild_only, subcommands("create", "list", "restore", "accept"))]
pub async fn backup(_ctx: Context<'_>) -> Done {
    Ok(())
}

/// Back up a server's world now, also while it runs
#[poise::command(slash_command)]
async fn create(
    ctx: Context<'_>,
    #[description = "Which server"]
    #[autocomplete = "complete::server"]
    server: String,
) -> Done {
    let asked = asked(&ctx);
    let work = async {
        let caller = asked.caller().await?;
        asked.may_tell_here()?;
        let job = asked.app.backup(&caller, &server, asked.channel_id()).await?;
        Ok(answers::opened(&Action::Backup, &server, job, asked.channel.get()))
    };
    asked.answer(work).await;
    Ok(())
}

/// Show a server's backups
#[poise::command(slash_command)]
async fn list(
    ctx: Context<'_>,
    #[description = "Which server"]
    #[autocomplete = "complete::server"]
    server: String,
) -> Done {
    let asked = asked(&ctx);
    let work = async { Ok(lists::backups(&server, &asked.app.backups(&asked.caller().await?, &server).await?)) };
    asked.answer(work).await;
    Ok(())
}

/// Go back to a backup; the world as it is now is backed up before
#[poise::command(slash_command)]
async fn restore(
    ctx: Context<'_>,
    #[description = "Which server"]
    #[autocomplete = "complete::server"]
    server: String,
    #[description = "Which backup"]
    #[autocomplete = "complete::backup"]
    backup: String,
) -> Done {
    let asked = asked(&ctx);
    let work = async {
        let caller = asked.caller().await?;
        asked.may_tell_here()?;
        let view = asked.app.status(&caller, &server).await?;
        let question = format!(
            "Put {} back to the backup {}? Its world as it is now is backed up first; if it runs, it is stopped and started again.",
            text::code(&view.name),
            text::code(&backup)
        );
        let sure = Sure::Restore(ServerId(view.id), BackupId(text::clip(backup.trim(), 40)));
        Ok(lists::question(&question, "Restore it", sure, asked.asker()))
    };
    asked.answer(work).await;
    Ok(())
}

/// Say that a much smaller world is right, after a warning about it
#[poise::command(slash_command)]
async fn accept(
    ctx: Context<'_>,
    #[description = "Which server"]
    #[autocomplete = "complete::server"]
    server: String,
    #[description = "Which backup"]
    #[autocomplete = "complete::doubted"]
    backup: String,
) -> Done {
    let asked = asked(&ctx);
    let work = async {
        let view = asked.app.status(&asked.caller().await?, &server).await?;
        presses::ask_to_accept(&asked, &ServerId(view.id), &BackupId(backup)).await
    };
    asked.answer(work).await;
    Ok(())
}
