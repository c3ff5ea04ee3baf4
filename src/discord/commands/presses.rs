//! Buttons. Who clicks is who asks: the message they stand on gives nobody a right.

use super::forms::{self, named};
use crate::app::{Answer, Choice, Refusal, force_loses};
use crate::discord::asked::Asked;
use crate::discord::ids::{Press, Sure};
use crate::discord::render::{Said, answers, lists, orphans};
use crate::model::job::{Action, Step};
use crate::model::world::BackupId;
use crate::model::{JobId, ServerId};

pub fn outdated() -> Refusal {
    Refusal::Invalid(
        "That is from another version of Spawnpoint. Use the command instead, or `/server status`.".to_owned(),
    )
}

pub async fn pressed(asked: &Asked<'_>, id: &str) {
    let Some(press) = Press::parse(id) else {
        return asked.answer(async { Err(outdated()) }).await;
    };
    match press {
        Press::Start(server) => asked.answer(job(asked, &server, &Action::Start)).await,
        Press::Stop(server) => asked.answer(job(asked, &server, &Action::Stop)).await,
        Press::Restart(server) => asked.answer(job(asked, &server, &Action::Restart)).await,
        Press::Extend(server) => {
            let work = async {
                let view = named(asked.app, &server).await?;
                let extended = asked.app.extend(&asked.caller().await?, &view.name, None).await?;
                Ok(answers::extended(&view.name, &extended))
            };
            asked.answer(work).await;
        }
        Press::Console(server) => forms::console(asked, &server).await,
        Press::Settings(server, page) => forms::settings(asked, &server, page).await,
        Press::Cancel(id) => asked.answer(choose(asked, id, Choice::Cancel, None)).await,
        Press::Retry(id) => asked.answer(choose(asked, id, Choice::Retry, None)).await,
        Press::Abandon(id) => asked.answer(choose(asked, id, Choice::Abandon, None)).await,
        Press::Force(id) => {
            let work = async {
                let view = asked.app.job_view(id).await?;
                let Some(step) = view.held_at() else {
                    return Err(Refusal::Invalid(format!("Job {id} does not wait for anybody any more.")));
                };
                let question = format!("Go on without “{}” (job {id})? {}", step.label, force_loses(&view));
                Ok(lists::question(&question, "Go on without it", Sure::Force(id, step.step), asked.asker()))
            };
            asked.answer(work).await;
        }
        Press::Accept(server, backup) => asked.answer(ask_to_accept(asked, &server, &backup)).await,
        Press::DeleteOrphan(tag) => {
            let work = async {
                let view = asked.app.orphan(&asked.caller().await?, &tag).await?;
                let question = orphans::whether_to_delete(&view, asked.now());
                Ok(lists::question(&question, "Delete it", Sure::DeleteOrphan(tag), asked.asker()))
            };
            asked.answer(work).await;
        }
        Press::AdoptOrphan(tag) => {
            let work = async {
                let caller = asked.caller().await?;
                // Who may not is refused below, on record.
                if let Ok(view) = asked.app.orphan(&caller, &tag).await
                    && let Some(question) = orphans::whether_to_give_back(&view)
                {
                    return Ok(lists::question(&question, "Give it back", Sure::AdoptOrphan(tag), asked.asker()));
                }
                Ok(Said::new(asked.app.orphan_adopt(&caller, &tag).await?))
            };
            asked.answer(work).await;
        }
        Press::Sure(_, asker) if asker.user != asked.user.id.get() => {
            let who = "Only who was asked can answer that.".to_owned();
            asked.answer(async { Err(Refusal::NotAllowed(who)) }).await;
        }
        Press::Sure(_, asker) if asker.until < asked.now() => {
            asked.replace(async { Ok(Said::new("That question is too old. Nothing was done; ask again.")) }).await;
        }
        Press::Sure(sure, _) => asked.replace(Box::pin(confirmed(asked, sure))).await,
        Press::Never => asked.replace(async { Ok(Said::new("Nothing was done.")) }).await,
    }
}

async fn job(asked: &Asked<'_>, id: &ServerId, action: &Action) -> Answer<Said> {
    let (app, view) = (asked.app, named(asked.app, id).await?);
    let caller = asked.caller().await?;
    asked.may_tell_here()?;
    let channel = asked.channel_id();
    let job = match action {
        Action::Start => return super::server::start_job(asked, &caller, &view.name).await,
        Action::Stop => app.stop(&caller, &view.name, channel).await?,
        Action::Restart => app.restart(&caller, &view.name, channel).await?,
        Action::Backup => app.backup(&caller, &view.name, channel).await?,
        Action::Restore { backup } => app.restore(&caller, &view.name, &backup.0, channel).await?,
        Action::Delete => app.delete(&caller, &view.name, &view.name, channel).await?,
        Action::Move { to } => {
            let (job, told) = app.move_to(&caller, &view.name, *to, channel).await?;
            return Ok(answers::moved(action, &view.name, job, asked.channel.get(), told.as_ref()));
        }
        Action::Update | Action::BuildSnapshot => return Err(outdated()),
    };
    Ok(answers::opened(action, &view.name, job, asked.channel.get()))
}

async fn choose(asked: &Asked<'_>, id: JobId, choice: Choice, asked_about: Option<Step>) -> Answer<Said> {
    Ok(Said::new(asked.app.choose_job(&asked.caller().await?, id, choice, asked_about).await?))
}

/// The question before a doubted backup is accepted, by command and by button.
pub async fn ask_to_accept(asked: &Asked<'_>, id: &ServerId, backup: &BackupId) -> Answer<Said> {
    let view = named(asked.app, id).await?;
    let doubted = asked.app.doubted(&asked.caller().await?, &view.name, &backup.0).await?;
    let sure = Sure::Accept(id.clone(), BackupId(doubted.id.clone()));
    Ok(lists::question(&lists::whether_to_accept(&view.name, &doubted), "Accept it", sure, asked.asker()))
}

/// Starts it on the host that was chosen, or tries the usual one.
async fn start_on(asked: &Asked<'_>, id: &ServerId, tag: Option<&str>) -> Answer<Said> {
    let (view, caller) = (named(asked.app, id).await?, asked.caller().await?);
    asked.may_tell_here()?;
    asked.app.agree(&caller, &view.name, tag).await?;
    super::server::start_agreed(asked, &caller, &view.name).await
}

async fn confirmed(asked: &Asked<'_>, sure: Sure) -> Answer<Said> {
    match sure {
        Sure::Move(id, to) => job(asked, &id, &Action::Move { to }).await,
        Sure::Delete(id) => job(asked, &id, &Action::Delete).await,
        Sure::Restore(id, backup) => job(asked, &id, &Action::Restore { backup }).await,
        Sure::Accept(id, backup) => {
            let view = named(asked.app, &id).await?;
            Ok(Said::new(asked.app.accept(&asked.caller().await?, &view.name, &backup.0).await?))
        }
        Sure::StartWith(id, backup) => {
            let (view, caller) = (named(asked.app, &id).await?, asked.caller().await?);
            asked.may_tell_here()?;
            super::server::start_with(asked, &caller, &view.name, Some(&backup)).await
        }
        Sure::StartOn(id, tag) => start_on(asked, &id, Some(&tag)).await,
        Sure::StartAnyway(id) => start_on(asked, &id, None).await,
        Sure::Kill(id) => {
            let view = named(asked.app, &id).await?;
            Ok(Said::new(asked.app.kill(&asked.caller().await?, &view.name).await?))
        }
        Sure::DeleteSnapshot(id) => Ok(Said::new(asked.app.snapshot_delete(&asked.caller().await?, &id).await?)),
        Sure::DeleteOrphan(tag) => Ok(Said::new(asked.app.orphan_delete(&asked.caller().await?, &tag).await?)),
        Sure::AdoptOrphan(tag) => Ok(Said::new(asked.app.orphan_adopt(&asked.caller().await?, &tag).await?)),
        Sure::Force(id, step) => choose(asked, id, Choice::Force, Some(step)).await,
    }
}
