//! What keeping a backup means, whatever backend the world came from: its name, its stage in the vault, what people
//! are told of it, which old ones may go, and how one that is called off is taken back.

use super::{blocking, blocking_while_wanted};
use crate::engine::{StepCx, StepError};
use crate::model::Ms;
use crate::model::access::Actor;
use crate::model::job::{Action, Cause, Gain, Job, Step, StepState};
use crate::model::server::{Owned, Server};
use crate::model::view::{Notice, spoken_bytes, spoken_files};
use crate::model::world::BackupId;
use crate::recipes::Recipes;
use crate::vault::{self, Backup, Meta, OwnerId, Policy, Reason, Report, Selection, Staging, Vault};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Where a backup is damaged, another that is whole is looked for no longer than this.
const OTHER_LIMIT: Duration = Duration::from_secs(120);

/// The vault as the steps of a job use it. Cheap to clone.
#[derive(Clone)]
pub struct Backups {
    pub vault: Vault,
    pub recipes: Arc<Recipes>,
    pub retention: Policy,
}

impl Backups {
    pub fn owner(server: &Server) -> Result<OwnerId, StepError> {
        OwnerId::parse(&server.id.0).map_err(vault_error("naming the backup's owner"))
    }

    /// The backup that a job makes: the same name at every try.
    pub fn id_of(cx: &StepCx<'_>) -> Result<vault::BackupId, StepError> {
        let time = jiff::Timestamp::from_millisecond(cx.job.created_at)
            .map_err(|error| StepError::fatal(format!("the job's time is no time: {error}")))?;
        vault::BackupId::parse(&format!("{}-j{}", time.strftime("%Y%m%dT%H%M%SZ"), cx.job.id))
            .map_err(vault_error("naming the backup"))
    }

    /// A server has one open job, so what another job of it left half done is nobody's: that job was abandoned.
    pub async fn stage(&self, cx: &StepCx<'_>) -> Result<Staging, StepError> {
        let (vault, owner, id) = (self.vault.clone(), Self::owner(cx.server()?)?, Self::id_of(cx)?);
        let open = move || {
            let staging = vault.stage(&owner, Some(id))?;
            staging.drop_others().map(|()| staging)
        };
        blocking(open).await?.map_err(vault_error("opening the vault"))
    }

    /// Whether this job's backup is in the vault already, as after a crash between keeping it and saying so.
    pub async fn kept(&self, cx: &StepCx<'_>) -> Result<Option<Backup>, StepError> {
        let (vault, owner, id) = (self.vault.clone(), Self::owner(cx.server()?)?, Self::id_of(cx)?);
        blocking(move || vault.list(&owner))
            .await?
            .map(|all| all.into_iter().filter(|one| *one.id() == id).find_map(|one| one.kept()))
            .map_err(vault_error("reading the vault"))
    }

    pub fn selection(&self, game: &str) -> Result<Selection, StepError> {
        match self.recipes.get(game) {
            Some(recipe) => Selection::new(&recipe.world.paths, &recipe.world.exclude)
                .map_err(vault_error("reading the recipe's world")),
            None => Err(StepError::fatal(format!("There is no recipe called `{game}` any more."))),
        }
    }

    /// A recipe that names no world has nothing to save.
    pub fn worldless(&self, game: &str) -> bool {
        self.recipes.get(game).is_some_and(|recipe| recipe.world.paths.is_empty())
    }

    /// A start that nobody asked for begins with no world that is in doubt: there is nobody to ask.
    ///
    /// # Errors
    /// One that names the newest good backup.
    pub async fn must_begin_well(&self, cx: &StepCx<'_>, present: &BackupId) -> Result<(), StepError> {
        if cx.job.cause == Cause::Asked {
            return Ok(());
        }
        let (vault, owner) = (self.vault.clone(), Self::owner(cx.server()?)?);
        let id = vault::BackupId::parse(&present.0).map_err(vault_error("naming the backup"))?;
        let kept = blocking(move || vault.list(&owner)).await?.map_err(vault_error("reading the vault"))?;
        let kept: Vec<Backup> = kept.into_iter().filter_map(|one| one.kept()).collect();
        match vault::rather(&id, &kept) {
            None => Ok(()),
            Some(good) => Err(StepError::fatal(format!(
                "The world is in doubt: it is the backup `{present}`, and the newest good one is `{}`. `/server start` asks \
                 which one it shall be.",
                good.id.as_str()
            ))),
        }
    }

    /// A game that was played leaves a world behind. Where no file of one is found, the recipe may look in the wrong
    /// place, and what people built goes with what this job destroys. A world that was empty before `since`, when it came
    /// to where it was played, may be so.
    ///
    /// # Errors
    /// One that holds the job until somebody has looked.
    pub async fn must_not_be_elsewhere(&self, cx: &StepCx<'_>, files: u64, since: Ms) -> Result<(), StepError> {
        let taking = [Step::DestroyHost, Step::DeleteDrive, Step::ReplaceDrive];
        let goes = taking.into_iter().any(|step| cx.job.record(step).is_some());
        let meant = matches!(cx.job.action, Action::Delete | Action::Restore { .. });
        if files > 0 || !goes || meant {
            return Ok(());
        }
        let server = cx.server()?;
        let (vault, owner) = (self.vault.clone(), Self::owner(server)?);
        let known = blocking(move || vault.list(&owner)).await?.map_err(vault_error("reading the vault"))?;
        let before = known.into_iter().filter_map(|one| one.kept()).find(|one| one.meta.taken_at_ms < since);
        if before.is_some_and(|backup| backup.files == 0) {
            return Ok(());
        }
        let paths = self.recipes.get(&server.game).map(|recipe| recipe.world.paths.clone()).unwrap_or_default();
        let bills = if server.owned.rented().is_some() { " The host bills meanwhile." } else { "" };
        Err(StepError::fatal(format!(
            "The game has left no file of a world where its recipe says that it lies: {}. If people played, it lies \
             elsewhere, so everything stays as it is.{bills} Put that right and try again; or go on without this step, if \
             there is nothing to keep.",
            paths.iter().map(|path| format!("`{path}`")).collect::<Vec<_>>().join(", ")
        )))
    }

    /// Makes the stage of this job a backup, unless it is one already, and tells people when it is far smaller than
    /// the one before. `None` where an admin went on without a copy: then there is none, and half of one is never kept.
    pub async fn keep(&self, cx: &StepCx<'_>, live: bool) -> Result<Option<Backup>, StepError> {
        let server = cx.server()?;
        let backup = match self.kept(cx).await? {
            Some(backup) => backup,
            None => {
                let staging = self.stage(cx).await?;
                let copied = cx.job.record(Step::PullWorld).is_none_or(|record| record.state != StepState::Forced);
                if !copied && !staging.is_filled() {
                    blocking(move || staging.discard()).await?.map_err(vault_error("dropping the half backup"))?;
                    return Ok(None);
                }
                let meta = Meta {
                    server: server.name.to_string(),
                    game: server.game.clone(),
                    recipe_version: self.recipes.install_key(&server.game),
                    reason: reason(cx.job),
                    taken_at_ms: cx.job.created_at,
                    live,
                    by: cx.job.actor.name().to_owned(),
                    note: None,
                };
                blocking(move || staging.keep(meta)).await?.map_err(vault_error("keeping the backup"))?
            }
        };
        if let Some(shrunk) = &backup.shrunk {
            let notice = Notice::Shrunk {
                server: server.name.to_string(),
                backup: backup.id.as_str().to_owned(),
                was_bytes: shrunk.was.bytes,
                now_bytes: shrunk.now.bytes,
            };
            cx.journal.notice(server, &notice, cx.now).await.map_err(StepError::Retry)?;
        }
        self.retire(server, cx, backup.id.as_str()).await?;
        Ok(Some(backup))
    }

    /// Lets old backups go, never the last good one and never one that this job or its server goes by.
    async fn retire(&self, server: &Server, cx: &StepCx<'_>, just_kept: &str) -> Result<(), StepError> {
        let (vault, owner, policy, now) = (self.vault.clone(), Self::owner(server)?, self.retention, cx.now);
        let needed = needed(server.owned.world.as_ref(), &cx.job.action, just_kept);
        let gone = blocking(move || -> vault::Result<Vec<String>> {
            let kept: Vec<_> = vault.list(&owner)?.into_iter().filter_map(|one| one.kept()).collect();
            let mut gone = vec![];
            for id in vault::retire(now, &kept, &policy) {
                if !needed.contains(id.as_str()) {
                    vault.delete(&owner, &id)?;
                    gone.push(id.as_str().to_owned());
                }
            }
            Ok(gone)
        })
        .await?;
        match gone {
            Ok(gone) => gone.iter().for_each(|id| cx.out.line(format!("Let the old backup {id} go."))),
            // The new backup is kept; an old one that will not go is no reason to fail.
            Err(error) => tracing::warn!(server = %server.name, "Old backups could not be let go: {error}"),
        }
        Ok(())
    }

    pub async fn discard(&self, cx: &StepCx<'_>) -> Result<Gain, StepError> {
        let (vault, owner, id) = (self.vault.clone(), Self::owner(cx.server()?)?, Self::id_of(cx)?);
        let dropped = blocking(move || match vault.stage(&owner, Some(id)) {
            Ok(staging) => staging.discard(),
            // It was being kept when it was called off. What is whole stays.
            Err(vault::Error::AlreadyKept { .. }) => Ok(()),
            Err(error) => Err(error),
        });
        dropped.await?.map_err(vault_error("dropping the half backup"))?;
        Ok(Gain::default())
    }

    /// Reads a backup whole before it is pushed. What is damaged is never pushed: the game would save over it as if
    /// it were whole.
    pub async fn sound(&self, server: &Server, wanted: &BackupId) -> Result<(vault::BackupId, Report), StepError> {
        let owner = Self::owner(server)?;
        let id = vault::BackupId::parse(&wanted.0).map_err(vault_error("naming the backup"))?;
        let (vault, which) = (self.vault.clone(), id.clone());
        let report =
            blocking(move || vault.verify(&owner, &which)).await?.map_err(vault_error("checking the backup"))?;
        if !report.is_whole() {
            let other = tokio::time::timeout(OTHER_LIMIT, self.another_whole(server, &id)).await;
            return Err(StepError::fatal(damaged(wanted, &report, other.ok().flatten().as_ref())));
        }
        Ok((id, report))
    }

    /// The newest other backup of which every byte is right, a good one rather than one in doubt.
    async fn another_whole(&self, server: &Server, than: &vault::BackupId) -> Option<vault::BackupId> {
        let (vault, owner, than) = (self.vault.clone(), Self::owner(server).ok()?, than.clone());
        let look = blocking_while_wanted(move |unwanted| {
            let mut others: Vec<Backup> = vault.list(&owner).ok()?.into_iter().filter_map(|one| one.kept()).collect();
            others.retain(|one| one.id != than);
            others.sort_by_key(|one| !one.good());
            let whole = |one: &Backup| vault.verify(&owner, &one.id).is_ok_and(|report| report.is_whole());
            others.into_iter().take_while(|_| !unwanted.is_cancelled()).find(whole).map(|one| one.id)
        });
        look.await.ok()?
    }

    /// Where nothing exists for a world to be put on, choosing one is naming it: the next start pushes it.
    ///
    /// # Errors
    /// As [`Backups::sound`].
    pub async fn name_world(&self, server: &Server, backup: &BackupId) -> Result<Gain, StepError> {
        let (_, report) = self.sound(server, backup).await?;
        let note = format!("{backup}, {}, at the next start", spoken_files(report.files));
        Ok(Gain::owned(Owned { world: Some(backup.clone()), ..server.owned.clone() }).with_note(note))
    }
}

/// Backups that stay whatever retention says: the present world, the one that a restore is about to put in its place,
/// and the one that was just kept, which looks old where the clock was set back.
fn needed(present: Option<&BackupId>, action: &Action, just_kept: &str) -> BTreeSet<String> {
    let on_record = present.into_iter().chain(action.chosen_backup()).map(|backup| backup.0.clone());
    on_record.chain([just_kept.to_owned()]).collect()
}

fn damaged(backup: &BackupId, found: &Report, other: Option<&vault::BackupId>) -> String {
    let (missing, changed, added) = (found.missing.len(), found.corrupt.len(), found.extra.len());
    let instead = match other {
        Some(other) => format!("`{}` is whole: `/backup restore` goes back to it.", other.as_str()),
        None => "`/backup list` shows others.".to_owned(),
    };
    format!(
        "The backup `{backup}` is damaged: {missing} files are missing, {changed} have changed and {added} were added. {instead}"
    )
}

/// What people read where an admin went on without a copy of the world.
pub const NOTHING_KEPT: &str = "nothing was copied whole, so nothing is kept; the last backup stays the newest";

/// What people read of a backup that was kept.
pub fn note_of(backup: &Backup) -> String {
    format!("{}, {} ({} new)", backup.id.as_str(), spoken_bytes(backup.bytes), spoken_bytes(backup.new_bytes))
}

fn reason(job: &Job) -> Reason {
    match &job.action {
        Action::Stop | Action::Restart => Reason::Stop,
        Action::Backup => match job.actor {
            Actor::Schedule { .. } => Reason::Schedule,
            Actor::Discord { .. } | Actor::Token { .. } | Actor::Watcher | Actor::Operator => Reason::Manual,
        },
        Action::Restore { .. } => Reason::BeforeRestore,
        Action::Update | Action::Start => Reason::BeforeUpdate,
        Action::Delete => Reason::BeforeDelete,
        Action::Move { .. } => Reason::BeforeMove,
        Action::BuildSnapshot => Reason::Manual,
    }
}

/// A full disk is fatal and says so; so is everything else the vault refuses. What is at work there ends soon, and a world
/// whose stream broke off can be read again.
pub fn vault_error(what: &str) -> impl FnOnce(vault::Error) -> StepError + '_ {
    use vault::Error::*;
    move |error| {
        let text = format!("{what}: {error}");
        match error {
            Busy { .. } | Stream(_) | CutShort => StepError::retry(text),
            NoSpace { .. } | AlreadyKept { .. } | NoSuchBackup { .. } | Broken { .. } => StepError::fatal(text),
            BadName { .. } | BadPattern { .. } | Refused { .. } => StepError::fatal(text),
            Unfinished | NotEmpty(_) | Sink(_) | Io { .. } => StepError::fatal(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_job_goes_by_is_never_let_go() {
        let id = |text: &str| BackupId(text.to_owned());
        let of = |present: Option<&BackupId>, action| needed(present, action, "kept").into_iter().collect::<Vec<_>>();
        assert_eq!(of(None, &Action::Stop), ["kept"]);
        assert_eq!(of(Some(&id("present")), &Action::Stop), ["kept", "present"]);
        let restore = Action::Restore { backup: id("chosen") };
        assert_eq!(of(Some(&id("present")), &restore), ["chosen", "kept", "present"]);
    }
}
