//! `/admin …`. Discord hides it from those who do not manage the guild; `app` decides.

use super::{Context, Done, asked, complete};
use crate::app::{Answer, Refusal};
use crate::discord::render::{self, Said, lists};
use crate::model::access::{Grantee, Permission};
use poise::serenity_prelude as serenity;

/// Lines of the audit log that are shown when nobody says how many.
const AUDIT_LINES: usize = 15;

/// Who may do what, and who did what
#[poise::command(
    slash_command,
    guild_only,
    default_member_permissions = "MANAGE_GUILD",
    subcommands("grant", "revoke", "audit", "orphans")
)]
pub async fn admin(_ctx: Context<'_>) -> Done {
    Ok(())
}

/// Let somebody, or everybody with a role, do more
#[poise::command(slash_command)]
async fn grant(
    ctx: Context<'_>,
    #[description = "What they may do: view, play, operate or admin; each includes those before it"]
    #[autocomplete = "complete::permission"]
    permission: String,
    #[description = "Somebody"] user: Option<serenity::User>,
    #[description = "Everybody with this role"] role: Option<serenity::Role>,
    #[description = "On this server alone; without it, on all of them"]
    #[autocomplete = "complete::server"]
    server: Option<String>,
) -> Done {
    let asked = asked(&ctx);
    let work = async {
        let caller = asked.caller().await?;
        let grantee = one_of(user, role)?;
        let Some(permission) = Permission::parse(permission.trim()) else {
            let words: Vec<&str> = Permission::ALL.into_iter().map(Permission::word).collect();
            return Err(Refusal::Invalid(format!("A permission is one of: {}.", words.join(", "))));
        };
        Ok(Said::new(asked.app.grant(&caller, grantee, permission, server.as_deref()).await?))
    };
    asked.answer(work).await;
    Ok(())
}

/// Take back what was granted
#[poise::command(slash_command)]
async fn revoke(
    ctx: Context<'_>,
    #[description = "Somebody"] user: Option<serenity::User>,
    #[description = "Everybody with this role"] role: Option<serenity::Role>,
    #[description = "What was granted on this server alone"]
    #[autocomplete = "complete::server"]
    server: Option<String>,
) -> Done {
    let asked = asked(&ctx);
    let work = async {
        let caller = asked.caller().await?;
        Ok(Said::new(asked.app.revoke(&caller, one_of(user, role)?, server.as_deref()).await?))
    };
    asked.answer(work).await;
    Ok(())
}

/// Show who may do what, and who did what
#[poise::command(slash_command)]
async fn audit(
    ctx: Context<'_>,
    #[description = "Of this server alone"]
    #[autocomplete = "complete::server"]
    server: Option<String>,
) -> Done {
    let asked = asked(&ctx);
    let work = async {
        let caller = asked.caller().await?;
        let entries = asked.app.audit(&caller, server.as_deref(), AUDIT_LINES).await?;
        Ok(lists::audit_with_grants(&entries, &asked.app.grants(&caller).await?))
    };
    asked.answer(work).await;
    Ok(())
}

/// Show what has Spawnpoint's label at a provider or on this machine and belongs to no server
#[poise::command(slash_command)]
async fn orphans(ctx: Context<'_>) -> Done {
    let asked = asked(&ctx);
    let work = async {
        let all = asked.app.orphans(&asked.caller().await?).await?;
        Ok(render::orphans::orphans(&all, asked.now()))
    };
    asked.answer(work).await;
    Ok(())
}

fn one_of(user: Option<serenity::User>, role: Option<serenity::Role>) -> Answer<Grantee> {
    match (user, role) {
        (Some(user), None) => Ok(Grantee::User(user.id.to_string())),
        (None, Some(role)) => Ok(Grantee::Role(role.id.to_string())),
        (Some(_), Some(_)) | (None, None) => Err(Refusal::Invalid("Name either a `user` or a `role`.".to_owned())),
    }
}
