//! Worlds between a host and the vault, by rsync over the host's own SSH connection. A pull moves what has changed into
//! a new backup beside the old ones; then both sides are hashed and compared, and only after that may the host die.

use super::saved::Mark;
use super::setup::{CALL_LIMIT, as_root, game_dir};
use super::{CloudDriver, ssh_error};
use crate::clients::rsync::{self, RsyncError, Transfer};
use crate::drivers::backups::{Backups, NOTHING_KEPT, note_of, vault_error};
use crate::drivers::{blocking, blocking_while_wanted};
use crate::engine::{StepCx, StepError};
use crate::model::host::{HostRef, OWN_MACHINE};
use crate::model::job::{Gain, Step, StepState};
use crate::model::recipe::Recipe;
use crate::model::server::{Owned, Server};
use crate::model::view::{spoken_bytes, spoken_files};
use crate::model::world::BackupId;
use crate::vault::Staging;
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::Instant;

/// A live world that changes under our hands is read again so often before it is kept as it is.
const LIVE_TRIES: usize = 3;
/// And one that no game writes to: a second copy is not damaged on the way like the first one.
const QUIET_TRIES: usize = 2;
/// A pull that linked to rotten files of older backups is done once more without links.
const PULL_TRIES: usize = 2;
/// Progress is written into the job this often.
const PROGRESS_EVERY: Duration = Duration::from_secs(2);
/// rsync itself may take so long; the step's own limit is a little longer.
const TRANSFER_LIMIT: Duration = Duration::from_secs(4 * 3600 - 60);

/// How a world comes into the vault.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// What is as large and as old as a file that is here already is taken for that file.
    First,
    /// The copy turned out to be another than the original, so that nothing but content counts.
    Again,
}

/// What there is to save.
enum Holding {
    /// The host may hold a world newer than the vault's.
    World,
    /// Nothing, and why: for people.
    Nothing(String),
    /// There was a world newer than the vault's, and it is gone with its host. A sentence for people.
    Lost(String),
}

impl CloudDriver {
    async fn holding(&self, cx: &StepCx<'_>) -> Result<Holding, StepError> {
        let server = cx.server()?;
        if self.backups.worldless(&server.game) {
            return Ok(Holding::Nothing("there is no world to save".into()));
        }
        let Some(host) = &server.owned.host else {
            return Ok(Holding::Nothing("there is no host; the newest world is in the vault".into()));
        };
        if !host.played {
            return Ok(Holding::Nothing("nothing was played since the last backup".into()));
        }
        if self.is_host_gone(server).await? {
            let left = match &server.owned.world {
                Some(world) => format!("The newest world is the backup `{world}`."),
                None => "There is no backup of this server.".to_owned(),
            };
            return Ok(Holding::Lost(format!(
                "The provider says that the host is gone. What was played since the last backup is lost. {left}"
            )));
        }
        Ok(Holding::World)
    }

    pub(super) async fn pull_world(&self, cx: &StepCx<'_>) -> Result<Gain, StepError> {
        match self.holding(cx).await? {
            Holding::World => {}
            Holding::Nothing(why) => return Ok(Gain::note(why)),
            Holding::Lost(why) => {
                return Ok(match self.backups.kept(cx).await? {
                    Some(_) => Gain::note("already in the vault"),
                    None => Gain { world_lost: true, ..Gain::note(why) },
                });
            }
        }
        if self.backups.kept(cx).await?.is_some() {
            return Ok(Gain::note("already in the vault"));
        }
        let staging = self.read_world(cx, Reading::First).await?;
        let size = staging.size();
        Ok(Gain::note(format!("{}, {}", spoken_files(size.files), spoken_bytes(size.bytes))))
    }

    /// rsync goes on where a broken connection left off; what is whole already is not sent again.
    async fn read_world(&self, cx: &StepCx<'_>, reading: Reading) -> Result<Staging, StepError> {
        let server = cx.server()?;
        let recipe = self.recipe(&server.game)?;
        let mut link = reading == Reading::First;
        for _ in 0..PULL_TRIES {
            let mut staging = self.backups.stage(cx).await?;
            staging = blocking(move || staging.reopen().map(|()| staging))
                .await?
                .map_err(vault_error("beginning the backup"))?;
            let transfer = Transfer {
                link_dest: staging.previous_tree().filter(|_| link),
                by_content: reading == Reading::Again,
                ..self.transfer(server, recipe, staging.tree()).await?
            };
            match transfer.pull(&mut teller(cx)).await {
                Ok(()) => {}
                Err(RsyncError::Full(_)) => {
                    // Half a copy is worth nothing, and on a full disk not even its failure could be written down.
                    staging = blocking(move || staging.clear().map(|()| staging))
                        .await?
                        .map_err(vault_error("making room"))?;
                    return Err(full_here(&transfer, &staging).await);
                }
                Err(error) => return Err(rsync_error(error)),
            }
            let adopting = blocking_while_wanted(move |unwanted| {
                staging.adopt_tree(|| !unwanted.is_cancelled()).map(|adopted| (staging, adopted))
            });
            let (staging_back, adopted) = adopting.await?.map_err(vault_error("taking the copy in"))?;
            if adopted.rotten.is_empty() {
                return Ok(staging_back);
            }
            cx.out.line(format!(
                "{} of older backups have rotted on this disk; fetching them anew.",
                spoken_files(adopted.rotten.len() as u64)
            ));
            link = false;
        }
        Err(StepError::fatal("The copy of the world keeps coming out damaged; this machine's disk may be failing."))
    }

    async fn transfer(&self, server: &Server, recipe: &Recipe, local: PathBuf) -> Result<Transfer, StepError> {
        let ssh = self.link(server).await?;
        Ok(Transfer {
            sudo: ssh.target().user != "root",
            rules: rules(recipe),
            write_protected: true,
            program: Some(self.settings.program.clone()),
            ..Transfer::new(ssh, local, game_dir(&server.id), TRANSFER_LIMIT)
        })
    }

    pub(super) async fn verify_world(&self, cx: &StepCx<'_>) -> Result<Gain, StepError> {
        let server = cx.server()?;
        match self.holding(cx).await? {
            Holding::World => {}
            Holding::Nothing(_) => return Ok(Gain::default()),
            Holding::Lost(_) => {
                return Ok(Gain { world_lost: self.backups.kept(cx).await?.is_none(), ..Gain::default() });
            }
        }
        if self.backups.kept(cx).await?.is_some() {
            return Ok(Gain::default());
        }
        let live = self.is_running(server).await?;
        let was_stopped = cx.job.record(Step::StopGame).is_some_and(|record| record.state == StepState::Done);
        if live && was_stopped && cx.job.record(Step::DestroyHost).is_some() {
            return Err(StepError::fatal(
                "The game runs again on its host, so no copy of its world is the last one. End it with `/server kill`, then \
                 try again.",
            ));
        }
        let tries = if live { LIVE_TRIES } else { QUIET_TRIES };
        let mut difference = String::new();
        for attempt in 1..=tries {
            if attempt > 1 {
                let what = if live { "The game wrote while it was read" } else { "The copy is another" };
                cx.out.line(format!("{what} ({difference}); reading it again."));
                drop(self.read_world(cx, Reading::Again).await?);
            }
            let mut staging = self.backups.stage(cx).await?;
            if !staging.is_filled() {
                // An admin goes on without it.
                if cx.job.record(Step::PullWorld).is_some_and(|record| record.state == StepState::Forced) {
                    return Err(StepError::fatal("There is no copy of the world to compare."));
                }
                // Reading it again broke off, or somebody cleared it away.
                staging = self.read_world(cx, Reading::First).await?;
            }
            let transfer = self.transfer(server, self.recipe(&server.game)?, staging.tree()).await?;
            let found = transfer.compare().await.map_err(rsync_error)?;
            if found.is_empty() {
                let files = staging.size().files;
                let since = self.host_of(server)?.created_at;
                self.backups.must_not_be_elsewhere(cx, files, since).await?;
                blocking(move || staging.mark_compared())
                    .await?
                    .map_err(vault_error("noting that the copy was compared"))?;
                return Ok(Gain::note(format!("{}, the same on both sides", spoken_files(files))));
            }
            difference = match found.len() {
                1 => found[0].clone(),
                more => format!("{} (and {} more)", found[0], more - 1),
            };
        }
        match live {
            // Bytes are better kept than dropped: the backup says of itself that it was not verified.
            true => Ok(Gain::note(format!("the game kept writing, so this copy may be torn: {difference}"))),
            false => Err(StepError::retry(format!("The copy of the world differs from the original: {difference}"))),
        }
    }

    pub(super) async fn keep_backup(&self, cx: &StepCx<'_>) -> Result<Gain, StepError> {
        let server = cx.server()?;
        match self.holding(cx).await? {
            Holding::World => {}
            Holding::Nothing(_) if self.backups.kept(cx).await?.is_none() => return Ok(Gain::default()),
            Holding::Lost(_) if self.backups.kept(cx).await?.is_none() => {
                return Ok(Gain { world_lost: true, ..Gain::default() });
            }
            // It was kept, and the host went after that.
            Holding::Nothing(_) | Holding::Lost(_) => {}
        }
        let live = self.is_running(server).await?;
        let Some(backup) = self.backups.keep(cx, live).await? else { return Ok(Gain::note(NOTHING_KEPT)) };
        let mut owned = server.owned.clone();
        owned.world = Some(BackupId(backup.id.as_str().to_owned()));
        // A live world has moved on since; and where this very job starts the game again, it soon will have.
        let played = live || !cx.job.keeps_the_last_word();
        if let Some(host) = owned.host.as_ref().filter(|_| !played) {
            self.set_mark(&server.id, host, Mark::Saved).await?;
        }
        owned.host = owned.host.map(|host| HostRef { played, ..host });
        Ok(Gain::owned(owned).with_note(note_of(&backup)))
    }

    pub(super) async fn undo_pull_world(&self, cx: &StepCx<'_>) -> Result<Gain, StepError> {
        self.backups.discard(cx).await
    }

    pub(super) async fn push_world(&self, cx: &StepCx<'_>) -> Result<Gain, StepError> {
        let server = cx.server()?;
        let chosen = cx.job.action.chosen_backup().cloned();
        let Some(host) = &server.owned.host else {
            let Some(backup) = chosen else { return Ok(Gain::note("there is no host yet")) };
            return self.backups.name_world(server, &backup).await;
        };
        // There is nothing to put it on, and the next start rents another.
        if let Some(backup) = &chosen
            && self.is_host_gone(server).await?
        {
            return self.backups.name_world(server, backup).await;
        }
        // Once a game has been started on this host since its world was put there, what it holds is the newest. Where the
        // host says that none ever was, its folder is not the one that was played in.
        let fresh = self.status(server, false).await?.get("state").is_none_or(|state| state == "none");
        if chosen.is_none() && host.played && !fresh {
            return Ok(Gain::note("the host holds the newest world"));
        }
        let lost = chosen.is_none() && host.played && self.folder_is_of_job(server, &cx.job.id.to_string()).await?;
        if lost {
            cx.out.line("The folder of this game was gone from its host, with what was played there and not saved.");
        }
        let played = HostRef { played: true, ..host.clone() };
        let wanted = chosen.or_else(|| server.owned.world.clone());
        let Some(wanted) = wanted else {
            let owned = Owned { host: Some(played), ..server.owned.clone() };
            let note = match lost {
                true => "the game's folder was gone from its host, and there is no backup; the game makes a new world",
                false => "there is no world yet; the game makes one",
            };
            return Ok(Gain { world_lost: lost, ..Gain::owned(owned).with_note(note) });
        };
        if self.is_running(server).await? {
            return Err(StepError::fatal("The game runs, so no world is put under it. Stop it first."));
        }
        if cx.job.action.chosen_backup().is_none() {
            self.backups.must_begin_well(cx, &wanted).await?;
        }
        let (id, report) = self.backups.sound(server, &wanted).await?;
        let files = self.backups.vault.home(&Backups::owner(server)?, &id).join("files");
        let transfer = self.transfer(server, self.recipe(&server.game)?, files).await?;
        match transfer.push(&mut teller(cx)).await {
            Ok(()) => {}
            Err(RsyncError::Full(_)) => return Err(full_there(&transfer, host).await),
            Err(error) => return Err(rsync_error(error)),
        }
        let found = transfer.compare().await.map_err(rsync_error)?;
        if let Some(first) = found.first() {
            return Err(StepError::retry(format!("The world did not arrive whole on the host: {first}")));
        }
        let ssh = self.link(server).await?;
        self.call(cx, &ssh, "setup", &server.id, &[], CALL_LIMIT).await?;
        let mut note = format!("{wanted}, {}, {}", spoken_files(report.files), spoken_bytes(report.bytes));
        if lost {
            note += "; the game's folder was gone from its host, and what was played since that backup is lost";
        }
        // From here on the game may write to it.
        let owned = Owned { host: Some(played), world: Some(wanted), ..server.owned.clone() };
        Ok(Gain { world_lost: lost, ..Gain::owned(owned).with_note(note) })
    }
}

/// Which disk is full here, and how much room is missing: nobody can mend it who does not know. What cannot be measured
/// is left out.
async fn full_here(transfer: &Transfer, staging: &Staging) -> StepError {
    let vault = transfer.local.clone();
    let free = blocking(move || rustix::fs::statvfs(&vault).ok().map(|disk| disk.f_bavail * disk.f_frsize)).await;
    let room = room(transfer.bytes_to_pull().await.ok(), free.ok().flatten());
    StepError::fatal(format!(
        "This machine's disk is full, the one with the vault on it ({}). {room}Nothing of the world is lost: it is on \
         the host, which stays. Make room here, then try again.",
        staging.vault_dir().display()
    ))
}

async fn full_there(transfer: &Transfer, host: &HostRef) -> StepError {
    let mut free = None;
    let look = as_root(&transfer.ssh, &["df", "--block-size=1", "--output=avail", &transfer.remote], CALL_LIMIT);
    let looked = transfer.ssh.run(look, &mut |line| free = line.trim().parse().ok().or(free)).await;
    let room = room(transfer.bytes_to_push().await.ok(), looked.ok().and(free));
    let mend = match host.provider == OWN_MACHINE {
        true => "Make room on that machine",
        false => "Choose a size with a larger disk with `/server settings`",
    };
    StepError::fatal(format!("The host's disk is full. {room}{mend}, then start again."))
}

fn room(needed: Option<u64>, free: Option<u64>) -> String {
    match (needed, free) {
        (Some(needed), Some(free)) => {
            format!(
                "{} more of the world have to go there, and {} are free. ",
                spoken_bytes(needed),
                spoken_bytes(free)
            )
        }
        (Some(needed), None) => format!("{} more of the world have to go there. ", spoken_bytes(needed)),
        (None, Some(free)) => format!("{} are free there. ", spoken_bytes(free)),
        (None, None) => String::new(),
    }
}

/// Writes how far a transfer is into the job, now and then.
fn teller(cx: &StepCx<'_>) -> impl FnMut(rsync::Progress) + Send {
    let (out, mut said) = (cx.out.clone(), Instant::now());
    move |progress| {
        if said.elapsed() >= PROGRESS_EVERY {
            said = Instant::now();
            out.line(progress.to_string());
        }
    }
}

/// The recipe's world as rsync's rules, seen from the game's folder: what is left out, then the world's paths with the
/// folders on the way, then nothing else. Paths are names, not patterns.
fn rules(recipe: &Recipe) -> Vec<String> {
    let mut rules: Vec<String> = recipe.world.exclude.iter().map(|pattern| format!("- {pattern}")).collect();
    for path in &recipe.world.paths {
        let mut way = String::new();
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        for (at, part) in parts.iter().enumerate() {
            way += &format!("/{}", literal(part));
            rules.push(if at + 1 == parts.len() { format!("+ {way}/***") } else { format!("+ {way}/") });
        }
        // It may be a file.
        rules.push(format!("+ {way}"));
    }
    rules.push("- *".to_owned());
    rules
}

fn literal(part: &str) -> String {
    let mut text = String::new();
    for c in part.chars() {
        if matches!(c, '*' | '?' | '[' | '\\') {
            text.push('\\');
        }
        text.push(c);
    }
    text
}

fn rsync_error(error: RsyncError) -> StepError {
    match error {
        RsyncError::Ssh(error) => ssh_error("moving the world")(error),
        error if error.may_pass() => StepError::Retry(anyhow::Error::msg(format!("moving the world: {error}"))),
        error => StepError::Fatal(anyhow::Error::msg(format!("moving the world: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_world_travels_and_what_is_left_out_stays() {
        let text = std::fs::read_to_string("tests/recipes/toy/recipe.toml").unwrap();
        let recipe = Recipe::parse(&text, "toy/recipe.toml").unwrap();
        insta::assert_snapshot!(rules(&recipe).join("\n"), @r"
        - *.tmp
        + /world/***
        + /world
        + /settings/
        + /settings/keep.txt/***
        + /settings/keep.txt
        - *
        ");
        assert_eq!(literal("a*b[c]"), r"a\*b\[c]");
    }
}
