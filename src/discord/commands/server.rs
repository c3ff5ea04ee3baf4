//! `/server …`.

use super::forms;
use super::{Context, Done, asked, complete};
use crate::app::{Answer, Choice, Refusal, UpdateWhen};
use crate::discord::asked::Asked;
use crate::discord::ids::Sure;
use crate::discord::render::{self, Said, answers, lists, server as words, text};
use crate::model::ServerId;
use crate::model::access::Caller;
use crate::model::host::Place;
use crate::model::job::Action;
use crate::model::world::BackupId;
use std::collections::BTreeMap;

/// Lines of the log when nobody says how many.
const LOG_LINES: u32 = 40;

/// Servers that people play on
#[poise::command(
    slash_command,
    guild_only,
    subcommands(
        "create", "start", "stop", "restart", "status", "list", "logs", "settings", "extend", "update", "move_to",
        "cancel", "retry", "kill", "delete"
    )
)]
pub async fn server(_ctx: Context<'_>) -> Done {
    Ok(())
}

/// Make a new server
#[allow(clippy::too_many_arguments, reason = "each is an option that people fill in")]
#[poise::command(slash_command)]
async fn create(
    ctx: Context<'_>,
    #[description = "Its name: lower case letters, digits and dashes"]
    #[max_length = 100]
    name: String,
    #[description = "What is played"]
    #[autocomplete = "complete::game"]
    game: String,
    #[description = "Where it runs: docker or cloud; without it, where it can"]
    #[autocomplete = "complete::backend"]
    backend: Option<String>,
    #[description = "Who its host is rented from, on the cloud; without it, as configured or the cheapest"]
    #[autocomplete = "complete::provider"]
    #[max_length = 100]
    provider: Option<String>,
    #[description = "Where its host is rented, in the provider's words"]
    #[autocomplete = "complete::region"]
    #[max_length = 100]
    region: Option<String>,
    #[description = "What is rented, in the provider's words; without it, what the game needs"]
    #[autocomplete = "complete::size"]
    #[max_length = 100]
    size: Option<String>,
    #[description = "The system of its host, Debian or Ubuntu; without it, what the game needs"]
    #[autocomplete = "complete::image"]
    #[max_length = 100]
    image: Option<String>,
    #[description = "Settings: key=value, other=value"]
    #[max_length = 2000]
    settings: Option<String>,
) -> Done {
    let asked = asked(&ctx);
    let place = Place { provider, region, size, image, ..Place::default() };
    let wish = forms::Wish { name, game, backend, place, settings };
    forms::create(&asked, &ctx.framework.user_data.panels, wish).await;
    Ok(())
}

/// Start a server
#[poise::command(slash_command)]
async fn start(
    ctx: Context<'_>,
    #[description = "Which server"]
    #[autocomplete = "complete::server"]
    server: String,
) -> Done {
    let asked = asked(&ctx);
    let work = async {
        let caller = asked.caller().await?;
        asked.may_tell_here()?;
        start_job(&asked, &caller, &server).await
    };
    asked.answer(work).await;
    Ok(())
}

/// Stop a server and keep its world
#[poise::command(slash_command)]
async fn stop(
    ctx: Context<'_>,
    #[description = "Which server"]
    #[autocomplete = "complete::server"]
    server: String,
) -> Done {
    let asked = asked(&ctx);
    let work = async {
        let caller = asked.caller().await?;
        asked.may_tell_here()?;
        let job = asked.app.stop(&caller, &server, asked.channel_id()).await?;
        Ok(answers::opened(&Action::Stop, &server, job, asked.channel.get()))
    };
    asked.answer(work).await;
    Ok(())
}

/// Stop a server and start it again
#[poise::command(slash_command)]
async fn restart(
    ctx: Context<'_>,
    #[description = "Which server"]
    #[autocomplete = "complete::server"]
    server: String,
) -> Done {
    let asked = asked(&ctx);
    let work = async {
        let caller = asked.caller().await?;
        asked.may_tell_here()?;
        let job = asked.app.restart(&caller, &server, asked.channel_id()).await?;
        Ok(answers::opened(&Action::Restart, &server, job, asked.channel.get()))
    };
    asked.answer(work).await;
    Ok(())
}

/// Show how a server is, who is on, and where to join
#[poise::command(slash_command)]
async fn status(
    ctx: Context<'_>,
    #[description = "Which server"]
    #[autocomplete = "complete::server"]
    server: String,
) -> Done {
    let asked = asked(&ctx);
    let panels = &ctx.framework.user_data.panels;
    let work = async {
        let view = asked.app.status(&asked.caller().await?, &server).await?;
        if asked.may_tell_here().is_ok() {
            panels.wanted(ServerId(view.id.clone()), asked.channel.to_string());
        }
        Ok(render::panel(&view, asked.now()))
    };
    asked.answer(work).await;
    Ok(())
}

/// Show all servers
#[poise::command(slash_command)]
async fn list(ctx: Context<'_>) -> Done {
    let asked = asked(&ctx);
    asked.answer(async { Ok(words::list(&asked.app.servers(&asked.caller().await?).await?)) }).await;
    Ok(())
}

/// Show what the game wrote last
#[poise::command(slash_command)]
async fn logs(
    ctx: Context<'_>,
    #[description = "Which server"]
    #[autocomplete = "complete::server"]
    server: String,
    #[description = "How many lines"]
    #[min = 1]
    #[max = 2000]
    lines: Option<u32>,
) -> Done {
    let asked = asked(&ctx);
    let work = async {
        let lines = usize::try_from(lines.unwrap_or(LOG_LINES)).expect("a 32-bit number fits");
        let log = asked.app.logs(&asked.caller().await?, &server, lines).await?;
        if log.trim().is_empty() {
            return Ok(Said::new(format!("{} has written nothing yet.", text::code(&server))));
        }
        Ok(render::output(&format!("What {} wrote last:", text::code(&server)), &log, &format!("{server}.log.txt")))
    };
    asked.answer(work).await;
    Ok(())
}

/// Show or change a server's settings
#[poise::command(slash_command)]
async fn settings(
    ctx: Context<'_>,
    #[description = "Which server"]
    #[autocomplete = "complete::server"]
    server: String,
    #[description = "Which setting; without it, all are shown"]
    #[autocomplete = "complete::variable"]
    variable: Option<String>,
    #[description = "Its new value; only you see it"]
    #[autocomplete = "complete::value"]
    #[max_length = 1000]
    value: Option<String>,
    #[description = "True brings it back to its default"] reset: Option<bool>,
) -> Done {
    let asked = asked(&ctx);
    let work = async {
        let caller = asked.caller().await?;
        let value = match (value, reset.unwrap_or_default()) {
            (None, true) => Some(String::new()),
            (Some(_), true) => {
                return Err(Refusal::Invalid("Give either a `value` or `reset:True`, not both.".to_owned()));
            }
            (value, false) => value,
        };
        match (variable, value) {
            (Some(variable), Some(value)) => {
                let applied = asked.app.settings_apply(&caller, &server, BTreeMap::from([(variable, value)])).await?;
                Ok(answers::applied(&server, &applied))
            }
            (None, Some(_)) => Err(Refusal::Invalid("Name the `variable` that is to be changed.".to_owned())),
            (Some(variable), None) => {
                let form = asked.app.settings_form(&caller, &server).await?;
                match form.fields.iter().find(|field| field.key == variable) {
                    Some(field) => Ok(answers::setting(&form.server, field)),
                    None => Err(Refusal::NotFound(format!(
                        "There is no setting {}. `/server settings` without `variable` shows all.",
                        text::code(&variable)
                    ))),
                }
            }
            (None, None) => {
                let form = asked.app.settings_form(&caller, &server).await?;
                let id = server_id(&asked, &server).await?;
                Ok(answers::settings(&form, &id))
            }
        }
    };
    asked.answer(work).await;
    Ok(())
}

/// Let a server run longer
#[poise::command(slash_command)]
async fn extend(
    ctx: Context<'_>,
    #[description = "Which server"]
    #[autocomplete = "complete::server"]
    server: String,
    #[description = "By how much, for instance 30m, 2h or 1h30m"]
    #[autocomplete = "complete::duration"]
    duration: Option<String>,
) -> Done {
    let asked = asked(&ctx);
    let work = async {
        let extended = asked.app.extend(&asked.caller().await?, &server, duration.as_deref()).await?;
        Ok(answers::extended(&server, &extended))
    };
    asked.answer(work).await;
    Ok(())
}

/// Bring a server to the newest install of its game; its world comes along
#[poise::command(slash_command)]
async fn update(
    ctx: Context<'_>,
    #[description = "Which server"]
    #[autocomplete = "complete::server"]
    server: String,
    #[description = "When: now or next-start; without it, at its next start"]
    #[autocomplete = "complete::when"]
    when: Option<String>,
) -> Done {
    let asked = asked(&ctx);
    let work = async {
        let caller = asked.caller().await?;
        let when = match when.as_deref().map(str::trim) {
            Some("now") => UpdateWhen::Now,
            Some("next-start") | None => UpdateWhen::NextStart,
            Some(_) => return Err(Refusal::Invalid("`when` is `now` or `next-start`.".to_owned())),
        };
        asked.may_tell_here()?;
        let job = asked.app.update(&caller, &server, when, asked.channel_id()).await?;
        Ok(answers::updated(&server, when, job, asked.channel.get()))
    };
    asked.answer(work).await;
    Ok(())
}

/// Move a server between this machine and rented hosts; its world comes along
#[poise::command(slash_command, rename = "move")]
async fn move_to(
    ctx: Context<'_>,
    #[description = "Which server"]
    #[autocomplete = "complete::server"]
    server: String,
    #[description = "Where to: docker or cloud"]
    #[autocomplete = "complete::backend"]
    backend: String,
) -> Done {
    let asked = asked(&ctx);
    let work = async {
        asked.may_tell_here()?;
        let moving = asked.app.moving(&asked.caller().await?, &server, &backend).await?;
        let sure = Sure::Move(moving.server.clone(), moving.to);
        Ok(lists::question(&answers::moving(&moving), "Move it", sure, asked.asker()))
    };
    asked.answer(work).await;
    Ok(())
}

/// Call off what is under way, or close what waits for a person
#[poise::command(slash_command)]
async fn cancel(
    ctx: Context<'_>,
    #[description = "Which server"]
    #[autocomplete = "complete::server"]
    server: String,
) -> Done {
    let asked = asked(&ctx);
    let work = async { Ok(Said::new(asked.app.choose(&asked.caller().await?, &server, Choice::Cancel).await?)) };
    asked.answer(work).await;
    Ok(())
}

/// Try the step again at which a stop or a backup waits for a person
#[poise::command(slash_command)]
async fn retry(
    ctx: Context<'_>,
    #[description = "Which server"]
    #[autocomplete = "complete::server"]
    server: String,
) -> Done {
    let asked = asked(&ctx);
    let work = async { Ok(Said::new(asked.app.choose(&asked.caller().await?, &server, Choice::Retry).await?)) };
    asked.answer(work).await;
    Ok(())
}

/// End the game's process at once, whatever is under way
#[poise::command(slash_command)]
async fn kill(
    ctx: Context<'_>,
    #[description = "Which server"]
    #[autocomplete = "complete::server"]
    server: String,
) -> Done {
    let asked = asked(&ctx);
    let work = async {
        let id = server_id(&asked, &server).await?;
        let question = format!(
            "End the game of {} at once? What it has not saved is lost; players are thrown out. `/server stop` is the gentle way.",
            text::code(&server)
        );
        Ok(lists::question(&question, "Kill it", Sure::Kill(id), asked.asker()))
    };
    asked.answer(work).await;
    Ok(())
}

/// Delete a server; its backups stay with whoever runs this bot
#[poise::command(slash_command)]
async fn delete(
    ctx: Context<'_>,
    #[description = "Which server"]
    #[autocomplete = "complete::server"]
    server: String,
) -> Done {
    let asked = asked(&ctx);
    let work = async {
        let id = server_id(&asked, &server).await?;
        asked.may_tell_here()?;
        let question = format!(
            "Delete {}? If it runs, it is stopped; a last backup of its world is made, then the rest of it is deleted. Its backups stay with whoever runs this bot, and no command reaches them any more.",
            text::code(&server)
        );
        Ok(lists::question(&question, "Delete it", Sure::Delete(id), asked.asker()))
    };
    asked.answer(work).await;
    Ok(())
}

/// Starts it, and says what that costs; or asks, where it would cost more than people know, or cannot be had.
pub async fn start_job(asked: &Asked<'_>, caller: &Caller, server: &str) -> Answer<Said> {
    // Who may not see it is refused by the start.
    if let Ok(Some(dearer)) = asked.app.dearer_start(caller, server).await {
        let id = server_id(asked, server).await?;
        return Ok(lists::which_host(&id, &dearer, asked.asker()));
    }
    start_agreed(asked, caller, server).await
}

/// The same once the host is settled; asks which world it begins with, where that is in doubt.
pub async fn start_agreed(asked: &Asked<'_>, caller: &Caller, server: &str) -> Answer<Said> {
    if let Ok(Some(doubted)) = asked.app.doubted_start(caller, server).await {
        let id = server_id(asked, server).await?;
        return Ok(lists::whether_to_begin(&id, &doubted, asked.asker()));
    }
    start_with(asked, caller, server, None).await
}

/// A price that cannot be had keeps nobody from playing.
pub async fn start_with(asked: &Asked<'_>, caller: &Caller, server: &str, backup: Option<&BackupId>) -> Answer<Said> {
    let price = asked.app.start_price(caller, server).await;
    let job = match backup {
        Some(backup) => asked.app.start_with(caller, server, backup, asked.channel_id()).await?,
        None => asked.app.start(caller, server, asked.channel_id()).await?,
    };
    let price = price.unwrap_or_else(|refusal| {
        match refusal {
            Refusal::Ours(error) => tracing::warn!(server, "A start is begun whose price is not known: {error:#}"),
            refusal => tracing::info!(server, "A start is begun whose price is not known: {refusal}"),
        }
        None
    });
    Ok(answers::started(server, job, asked.channel.get(), price.as_ref()))
}

/// The id behind a name that the asker may see.
async fn server_id(asked: &Asked<'_>, name: &str) -> Answer<ServerId> {
    let servers = asked.app.servers(&asked.caller().await?).await?;
    match servers.into_iter().find(|server| server.name == name.trim()) {
        Some(server) => Ok(ServerId(server.id)),
        None => {
            Err(Refusal::NotFound(format!("There is no server called {}. `/server list` shows all.", text::code(name))))
        }
    }
}
