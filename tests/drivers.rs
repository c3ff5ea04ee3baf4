//! One suite for every backend: each claim is tried with containers on this machine, on a host rented from a stand-in
//! provider, and on a machine of one's own. The game is a toy that misbehaves on demand; all else is real.
//!
//! The fake is held to the same claims, as a backend with containers and as one with hosts: what the tests of the engine
//! and of the conversations prove over it, they prove over something that behaves like these. What a claim cannot show
//! of it: it has no process, so "by force" and "exit code" are what it says of itself, and a game that thinks between
//! its lines answers at once; it has no files but those in the vault, so secrets can only leak through what it says.

mod common {
    pub mod beds;
    pub mod cloud;
    pub mod stage;
}

use common::beds::Bed;
use common::stage::Stage;
use spawnpoint::app::{Choice, Refusal, UpdateWhen};
use spawnpoint::model::JobId;
use spawnpoint::model::job::{Outcome, Step, StepState};
use spawnpoint::model::server::{Backend, State};
use std::collections::BTreeMap;

macro_rules! on_every_backend {
    ($($claim:ident),* $(,)?) => {
        on_every_backend!(@ docker: $($claim)*);
        on_every_backend!(@ cloud: $($claim)*);
        on_every_backend!(@ own_machine: $($claim)*);
        on_every_backend!(@ fake_container: $($claim)*);
        on_every_backend!(@ fake_host: $($claim)*);
    };
    (@ $bed:ident: $($claim:ident)*) => {
        mod $bed {
            use super::*;
            $(#[tokio::test]
            async fn $claim() {
                let Some(mut bed) = Bed::$bed().await else { return };
                let stage = super::$claim(bed.stage.take().expect("it has just been made")).await;
                bed.close(stage).await;
            })*
        }
    };
}

on_every_backend!(
    a_stop_keeps_the_world_and_the_next_start_brings_it,
    what_is_started_or_stopped_twice_is_so_once,
    a_backup_of_a_live_world_is_restored_with_the_present_state_kept_first,
    an_update_installs_what_is_newest_and_brings_the_world_along,
    a_game_that_dies_at_once_is_quoted_and_leaves_nothing_behind,
    a_start_can_be_called_off_and_the_server_is_free_again,
    a_game_that_does_not_stop_is_ended_by_force_and_its_world_is_still_kept,
    a_crash_is_started_again_and_a_killed_game_is_not,
    settings_reach_the_game_and_secrets_reach_nobody_else,
    a_warning_is_shown_by_the_game,
    a_restarted_program_finds_its_servers_and_goes_on_with_its_jobs,
    a_chatty_game_and_a_long_answer_stay_within_bounds,
    what_the_game_prints_is_in_the_output_of_its_start,
);

async fn a_stop_keeps_the_world_and_the_next_start_brings_it(stage: Stage) -> Stage {
    let app = &stage.program.app;
    stage.create("world", "toy", &[]).await;
    for evening in 0..3 {
        stage.starts_with("world", evening * 2).await;
        assert_eq!(app.status(&stage.caller, "world").await.unwrap().state, State::Running);
        stage.turns("world", 2).await;
        stage.stop_server("world").await;
        assert_eq!(app.status(&stage.caller, "world").await.unwrap().state, State::Offline);
        let backups = app.backups(&stage.caller, "world").await.unwrap();
        assert_eq!(backups.len(), evening + 1, "{backups:?}");
        assert!(backups[0].present && backups.iter().all(|one| one.doubt.is_none()), "{backups:?}");
    }
    stage
}

async fn what_is_started_or_stopped_twice_is_so_once(stage: Stage) -> Stage {
    let app = &stage.program.app;
    stage.create("world", "toy", &[]).await;
    stage.start("world").await;
    let again = app.start(&stage.caller, "world", None).await.unwrap_err();
    assert!(matches!(again, Refusal::Invalid(_) | Refusal::Busy(_)), "{again}");
    stage.stop_server("world").await;
    let again = app.stop(&stage.caller, "world", None).await.unwrap_err();
    assert!(matches!(again, Refusal::Invalid(_) | Refusal::Busy(_)), "{again}");
    stage
}

async fn a_backup_of_a_live_world_is_restored_with_the_present_state_kept_first(stage: Stage) -> Stage {
    let app = &stage.program.app;
    stage.create("world", "toy", &[]).await;
    stage.start("world").await;
    stage.turns("world", 2).await;
    stage.succeeds(app.backup(&stage.caller, "world", None).await.unwrap()).await;
    let live = app.backups(&stage.caller, "world").await.unwrap()[0].clone();
    stage.turns("world", 5).await;
    // While it runs: it is stopped, saved, put back and started.
    stage.succeeds(app.restore(&stage.caller, "world", &live.id, None).await.unwrap()).await;
    let log = app.logs(&stage.caller, "world", 50).await.unwrap();
    assert!(log.contains("with 2 turns"), "{log}");
    let backups = app.backups(&stage.caller, "world").await.unwrap();
    assert_eq!(backups.iter().filter(|one| one.reason == "before a restore").count(), 1, "{backups:?}");
    // And back again, while it is off.
    let before = backups.iter().find(|one| one.reason == "before a restore").unwrap().id.clone();
    stage.stop_server("world").await;
    stage.succeeds(app.restore(&stage.caller, "world", &before, None).await.unwrap()).await;
    stage.start("world").await;
    let log = app.logs(&stage.caller, "world", 50).await.unwrap();
    assert!(log.contains("with 7 turns"), "{log}");
    stage
}

async fn an_update_installs_what_is_newest_and_brings_the_world_along(stage: Stage) -> Stage {
    let (app, caller) = (&stage.program.app, &stage.caller);
    stage.create("world", "toy", &[]).await;
    let refused = app.update(caller, "world", UpdateWhen::Now, None).await.unwrap_err();
    assert!(matches!(refused, Refusal::Invalid(_)), "there is nothing to update yet: {refused}");
    stage.start("world").await;
    stage.turns("world", 3).await;
    let installs = match app.status(caller, "world").await.unwrap().backend {
        Backend::Docker => {
            stage.succeeds(app.snapshot_build(caller, "toy", None).await.unwrap()).await;
            Step::ReplaceDrive
        }
        Backend::Cloud => {
            let refused = app.update(caller, "world", UpdateWhen::NextStart, None).await.unwrap_err();
            assert!(refused.to_string().contains("Every start of `world` installs what is newest"), "{refused}");
            Step::Install
        }
    };
    let job = app.update(caller, "world", UpdateWhen::Now, None).await.unwrap().expect("it begins at once");
    let end = stage.succeeds(job).await;
    let installed = end.steps.iter().find(|step| step.step == installs).unwrap_or_else(|| panic!("{end:#?}"));
    assert_ne!(installed.note.as_deref(), Some("already installed"), "{end:#?}");
    let log = app.logs(caller, "world", 50).await.unwrap();
    assert!(log.contains("with 3 turns"), "{log}");
    let backups = app.backups(caller, "world").await.unwrap();
    assert_eq!(backups.iter().map(|one| one.reason.as_str()).collect::<Vec<_>>(), ["before an update"]);
    stage
}

async fn a_game_that_dies_at_once_is_quoted_and_leaves_nothing_behind(stage: Stage) -> Stage {
    let app = &stage.program.app;
    stage.create("world", "toy", &[("BEHAVIOUR", "dies")]).await;
    let end = stage.end_of(app.start(&stage.caller, "world", None).await.unwrap()).await;
    assert_eq!(end.outcome, Some(Outcome::Failed), "{end:#?}");
    let error = end.steps.iter().find_map(|step| step.error.clone()).unwrap();
    assert!(error.contains("exit code 3") && error.contains("cannot find the map"), "{error}");
    let view = app.status(&stage.caller, "world").await.unwrap();
    assert_eq!(view.state, State::Offline);
    // Mended, it starts.
    app.settings_apply(&stage.caller, "world", BTreeMap::from([("BEHAVIOUR".into(), "good".into())])).await.unwrap();
    stage.start("world").await;
    stage
}

async fn a_start_can_be_called_off_and_the_server_is_free_again(stage: Stage) -> Stage {
    let app = &stage.program.app;
    stage.create("world", "toy", &[("BEHAVIOUR", "never-ready")]).await;
    let job = app.start(&stage.caller, "world", None).await.unwrap();
    stage
        .until("the wait for readiness", async || {
            let view = app.job_view(job).await.unwrap();
            view.steps
                .iter()
                .any(|step| step.label == Step::AwaitReady.label() && step.state == StepState::Running)
                .then_some(())
        })
        .await;
    let busy = app.stop(&stage.caller, "world", None).await.unwrap_err();
    assert!(matches!(&busy, Refusal::Busy(text) if text.contains("the operator asked for “start”")), "{busy}");
    app.choose(&stage.caller, "world", Choice::Cancel).await.unwrap();
    assert_eq!(stage.end_of(job).await.outcome, Some(Outcome::Cancelled));
    assert_eq!(app.status(&stage.caller, "world").await.unwrap().state, State::Offline);
    stage
}

async fn a_game_that_does_not_stop_is_ended_by_force_and_its_world_is_still_kept(stage: Stage) -> Stage {
    let app = &stage.program.app;
    for behaviour in ["stop-hangs", "stop-fails"] {
        stage.create(behaviour, "toy", &[("BEHAVIOUR", behaviour)]).await;
        stage.start(behaviour).await;
        stage.turns(behaviour, 2).await;
        let end = stage.stop_server(behaviour).await;
        let note = end.steps.iter().find(|step| step.label == Step::StopGame.label()).unwrap().note.clone();
        // Where the script is broken, a signal may still end the game in peace.
        let forced = note.as_deref().is_some_and(|note| note.starts_with("ended by force"));
        assert!(forced || behaviour == "stop-fails", "{note:?}");
        let backups = app.backups(&stage.caller, behaviour).await.unwrap();
        assert!(backups.len() == 1 && backups[0].files == 1, "{backups:?}");
    }
    stage
}

async fn a_crash_is_started_again_and_a_killed_game_is_not(stage: Stage) -> Stage {
    let app = &stage.program.app;
    stage.create("world", "toy", &[]).await;
    stage.start("world").await;
    stage.turns("world", 3).await;
    let before = app.server_names(&stage.caller.guild).await;
    assert_eq!(before, ["world"]);
    // The console goes silent because the game dies under it.
    let _ = app.console(&stage.caller, "world", "crash").await;
    stage
        .until("the start after the crash", async || {
            let log = app.logs(&stage.caller, "world", 50).await.ok()?;
            let view = app.status(&stage.caller, "world").await.unwrap();
            (log.contains("with 3 turns") && view.state == State::Running && view.job.is_none()).then_some(())
        })
        .await;
    app.kill(&stage.caller, "world").await.unwrap();
    stage
        .until("the end of the killed game", async || {
            (app.status(&stage.caller, "world").await.unwrap().state == State::Offline).then_some(())
        })
        .await;
    stage
}

async fn settings_reach_the_game_and_secrets_reach_nobody_else(stage: Stage) -> Stage {
    let app = &stage.program.app;
    let odd = "it's \"quoted\" $(id) `id` ; \\ end";
    stage.create("world", "toy", &[("MOTTO", odd), ("TOY_SECRET", "correct-horse")]).await;
    let start = stage.start("world").await;
    let log = app.logs(&stage.caller, "world", 50).await.unwrap();
    assert!(log.contains(odd), "{log}");
    assert!(log.contains("my secret is ••••"), "{log}");
    let shown = format!("{start:?} {log} {:?}", app.settings_form(&stage.caller, "world").await.unwrap());
    assert!(!shown.contains("correct-horse"));
    let answer = app.console(&stage.caller, "world", "tell me correct-horse").await.unwrap();
    assert!(answer.contains("you said: tell me ••••"), "{answer}");
    assert_eq!(app.console(&stage.caller, "world", "colours").await.unwrap().trim(), "red alert");
    a_changed_secret_stays_hidden_for_as_long_as_the_game_has_it(&stage).await;
    stage
}

async fn a_changed_secret_stays_hidden_for_as_long_as_the_game_has_it(stage: &Stage) {
    let app = &stage.program.app;
    let asks = "tell me correct-horse, battery-staple";
    let changed = BTreeMap::from([("TOY_SECRET".to_owned(), "battery-staple".to_owned())]);
    app.settings_apply(&stage.caller, "world", changed).await.unwrap();
    let answer = app.console(&stage.caller, "world", asks).await.unwrap();
    assert!(answer.contains("you said: tell me ••••, ••••"), "{answer}");
    let log = app.logs(&stage.caller, "world", 50).await.unwrap();
    assert!(log.contains("my secret is ••••"), "{log}");
    let stop = stage.stop_server("world").await;
    let audit = app.audit(&stage.caller, None, 50).await.unwrap();
    let shown = format!("{log} {stop:?} {audit:?}");
    assert!(!shown.contains("correct-horse") && !shown.contains("battery-staple"), "{shown}");
    // From now on the game knows the new one alone, and the old one is a word like any other.
    stage.start("world").await;
    let log = app.logs(&stage.caller, "world", 50).await.unwrap();
    assert!(log.contains("my secret is ••••"), "{log}");
    let answer = app.console(&stage.caller, "world", asks).await.unwrap();
    assert!(answer.contains("you said: tell me correct-horse, ••••"), "{answer}");
}

async fn a_warning_is_shown_by_the_game(stage: Stage) -> Stage {
    stage.create("world", "toy", &[]).await;
    stage.start("world").await;
    let server = stage.program.store.server_by_name(&stage.caller.guild, "world").await.unwrap().unwrap();
    let driver = stage.program.engine.driver(server.backend).unwrap();
    driver.tell(&server, "The time is over in 5 minutes. `/server extend` adds some.").await.unwrap();
    let shown = "[all] The time is over in 5 minutes. `/server extend` adds some.";
    let log = async || driver.logs(&server, 50).await.unwrap().iter().any(|line| line.contains(shown)).then_some(());
    stage.until("the warning in the game's log", log).await;
    stage.stop_server("world").await;
    stage
}

async fn a_restarted_program_finds_its_servers_and_goes_on_with_its_jobs(stage: Stage) -> Stage {
    stage.create("world", "toy", &[]).await;
    stage.start("world").await;
    stage.turns("world", 2).await;
    let stage = stage.restart().await;
    let app = &stage.program.app;
    assert_eq!(app.status(&stage.caller, "world").await.unwrap().state, State::Running);
    let job = app.stop(&stage.caller, "world", None).await.unwrap();
    let stage = stage.restart().await;
    stage.succeeds(job).await;
    assert_eq!(stage.program.app.backups(&stage.caller, "world").await.unwrap().len(), 1);
    stage
}

async fn a_chatty_game_and_a_long_answer_stay_within_bounds(stage: Stage) -> Stage {
    let app = &stage.program.app;
    stage.create("world", "toy", &[("BEHAVIOUR", "chatty")]).await;
    let start = stage.start("world").await;
    assert!(start.output.len() <= 12, "{}", start.output.len());
    let answer = app.console(&stage.caller, "world", "much").await.unwrap();
    assert!(answer.contains("answer line 2999"), "{} characters", answer.len());
    // A game that thinks between its lines.
    let answer = app.console(&stage.caller, "world", "slowly").await.unwrap();
    assert!(answer.contains("thought 7"), "{answer}");
    stage
}

async fn what_the_game_prints_is_in_the_output_of_its_start(stage: Stage) -> Stage {
    stage.create("world", "toy", &[("MOTTO", "good morning")]).await;
    let start = stage.start("world").await;
    is_in_the_output(&stage, start.id, Step::AwaitReady, "good morning: ready to join").await;
    stage
}

async fn is_in_the_output(stage: &Stage, job: JobId, step: Step, line: &str) {
    let output = stage.program.store.job_output(job, Some(step), 400).await.unwrap();
    assert!(output.iter().any(|one| one.contains(line)), "{line} is not in the output of {step:?}: {output:#?}");
}

/// The fake runs no scripts; in containers the snapshot's job runs them.
async fn what_scripts_print_is_in_the_output_of_their_steps(bed: Option<Bed>) {
    let Some(mut bed) = bed else { return };
    let stage = bed.stage.take().expect("it has just been made");
    stage.create("world", "toy", &[]).await;
    let start = stage.start("world").await;
    is_in_the_output(&stage, start.id, Step::Bootstrap, "getting rsync").await;
    is_in_the_output(&stage, start.id, Step::Install, "installed 202 files").await;
    bed.close(stage).await;
}

#[tokio::test]
async fn what_scripts_print_on_a_rented_host_is_in_the_output_of_their_steps() {
    what_scripts_print_is_in_the_output_of_their_steps(Bed::cloud().await).await;
}

#[tokio::test]
async fn what_scripts_print_on_a_machine_of_ones_own_is_in_the_output_of_their_steps() {
    what_scripts_print_is_in_the_output_of_their_steps(Bed::own_machine().await).await;
}
