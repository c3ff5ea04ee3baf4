//! A job's message: what it is, its steps, what runs now with its last output, how long it takes, what people can
//! do about it. Each line says its state in words; the signs before it are only for the eye.

use super::text::{MESSAGE_MAX, NAME_SHOWN, REMARK_SHOWN, clip, code, counted, fence, length, plain, relative, took};
use super::{Look, Said};
use crate::discord::ids::Press;
use crate::model::Ms;
use crate::model::job::{Action, Outcome, Step, StepState};
use crate::model::server::Backend;
use crate::model::view::{JobView, Saved, StepView};

/// Lines of output in a message; all of them are in the record.
const OUTPUT_LINES: usize = 6;

/// Said where a step found that the world was gone with what held it.
const LOST: &str = "What was played since its last backup is lost.";

pub fn job(view: &JobView, now: Ms) -> Said {
    let text = fitted(view, now);
    let said = Said::new(text);
    match view.outcome {
        Some(Outcome::Held) => said
            .button(Press::Retry(view.id), "Try again", Look::Main)
            .button(Press::Force(view.id), "Go on without it", Look::Danger)
            .button(Press::Abandon(view.id), "Leave it", Look::Plain),
        None if view.can_cancel && !view.cancel_requested && !undoing(view) => {
            said.button(Press::Cancel(view.id), "Cancel", Look::Plain)
        }
        Some(Outcome::Succeeded) => match (&view.action, &view.server) {
            (Action::Move { .. }, Some(server)) => said.button(Press::Start(server.clone()), "Start it", Look::Main),
            (
                Action::Start
                | Action::Stop
                | Action::Restart
                | Action::Backup
                | Action::Restore { .. }
                | Action::Update
                | Action::Delete
                | Action::Move { .. }
                | Action::BuildSnapshot,
                _,
            ) => said,
        },
        None | Some(Outcome::Failed | Outcome::Cancelled | Outcome::Abandoned) => said,
    }
}

/// What leaves room first when there is too much to say: the output, then the steps that are done.
fn fitted(view: &JobView, now: Ms) -> String {
    let mut output = OUTPUT_LINES;
    loop {
        let text = assembled(view, now, output, false);
        if length(&text) <= MESSAGE_MAX {
            return text;
        }
        match output {
            0 => return clip(&assembled(view, now, 0, true), MESSAGE_MAX),
            _ => output -= 1,
        }
    }
}

fn assembled(view: &JobView, now: Ms, output_lines: usize, shorten_steps: bool) -> String {
    let mut text = headline(view, now);
    text += &format!("\n{}", subline(view, now));
    if shorten_steps {
        let done = view.steps.iter().filter(|step| step.state == StepState::Done).count();
        if done > 0 {
            text += &format!("\n✓ {} done", counted(done as u64, "step", "steps"));
        }
    }
    for step in &view.steps {
        if !(shorten_steps && step.state == StepState::Done) {
            text += &format!("\n{}", step_line(view, step, now));
        }
    }
    let from = view.output.len().saturating_sub(output_lines);
    if shows_output(view) && from < view.output.len() {
        text += &format!("\n{}", fence(view.output[from..].iter().map(String::as_str)));
    }
    if let Some(last) = what_now(view) {
        text += &format!("\n{last}");
    }
    text
}

fn headline(view: &JobView, now: Ms) -> String {
    let what = format!("{} {}", doing(&view.action), code(&view.subject));
    let began = view.steps.iter().any(|step| step.state != StepState::Pending);
    match view.outcome {
        None if undoing(view) && !view.cancel_requested => format!("**{what} failed; what was made is being undone**"),
        None if view.cancel_requested => format!("**{what} is being called off**"),
        None if !began && now - view.created_at > 2000 => format!("**{what}** waits for its turn"),
        None => format!("**{what}**"),
        Some(Outcome::Succeeded) => succeeded(view),
        Some(Outcome::Failed) => format!("**{what} failed**"),
        Some(Outcome::Cancelled) => format!("**{what} was called off**"),
        Some(Outcome::Held) => match view.tries_again_at {
            Some(_) => format!("**{what} waits, and is tried again by itself**"),
            None => format!("**{what} waits for a person**"),
        },
        Some(Outcome::Abandoned) => format!("**{what} was closed as it is**"),
    }
}

fn undoing(view: &JobView) -> bool {
    view.steps.iter().any(|step| match step.state {
        StepState::Undoing | StepState::Undone => true,
        StepState::Pending | StepState::Running | StepState::Done => false,
        StepState::Forced | StepState::Failed | StepState::UndoFailed => false,
    })
}

/// "Starting", "Backing up".
pub fn doing(action: &Action) -> &'static str {
    match action {
        Action::Start => "Starting",
        Action::Stop => "Stopping",
        Action::Restart => "Restarting",
        Action::Backup => "Backing up",
        Action::Restore { .. } => "Restoring",
        Action::Update => "Updating",
        Action::Delete => "Deleting",
        Action::Move { .. } => "Moving",
        Action::BuildSnapshot => "Building a snapshot of",
    }
}

fn succeeded(view: &JobView) -> String {
    let subject = code(&view.subject);
    match &view.action {
        Action::Start | Action::Restart => match &view.address {
            Some(address) => format!("**{subject} is up.** Join at {}", code(address)),
            None => format!("**{subject} is up.**"),
        },
        Action::Stop if view.host_may_be_left() => format!(
            "{} Nobody saw its host go, so it may still bill: `/server stop` tries again, and the provider's console \
             shows it.",
            with_its_world(view, &format!("The game of {subject} has ended"))
        ),
        Action::Stop => with_its_world(view, &format!("{subject} is stopped")),
        Action::Backup => match view.saved() {
            Saved::Kept | Saved::Uncompared => format!("**{subject} is backed up.**"),
            Saved::Not => format!("**There is no new backup of {subject}.**"),
            Saved::Lost => format!("**There is no new backup of {subject}.** {LOST}"),
        },
        Action::Restore { backup } => format!("**{subject} has its world of {} again.**", code(&backup.0)),
        // A host has no snapshots. It goes on with the world that is on it, whether or not that was saved before.
        Action::Update if view.steps.iter().any(|step| step.step == Step::Install) => match view.saved() {
            Saved::Kept | Saved::Uncompared | Saved::Not => format!("**{subject} is installed anew**, with its world."),
            Saved::Lost => format!("**{subject} is installed anew.** {LOST}"),
        },
        Action::Update => format!("**{subject} stands on the newest snapshot.**"),
        Action::Delete if view.host_may_be_left() => format!(
            "**{subject} is deleted.** Its backups stay with whoever runs this bot. Nobody saw its host go, so it may \
             still bill: the provider's console shows it."
        ),
        Action::Delete => format!("**{subject} is deleted.** Its backups stay with whoever runs this bot."),
        Action::Move { to } => format!("**{subject} runs {} from now on.**", where_to(*to)),
        Action::BuildSnapshot => format!("**The snapshot of {subject} is ready.**"),
    }
}

/// What a stop ended, and what became of the world.
fn with_its_world(view: &JobView, ended: &str) -> String {
    match view.saved() {
        Saved::Kept => format!("**{ended}**, its world is kept."),
        Saved::Uncompared => format!("**{ended}**, its world is kept. Nobody compared the copy with the original."),
        Saved::Not => format!("**{ended}.** Its world was not saved by this stop."),
        Saved::Lost => format!("**{ended}.** {LOST}"),
    }
}

/// "in the cloud", as it stands in a sentence about where a server runs.
pub fn where_to(backend: Backend) -> &'static str {
    match backend {
        Backend::Cloud => "on a rented host",
        Backend::Docker => "in a container on this machine",
    }
}

/// The small line under the headline: number, game, who, how long.
fn subline(view: &JobView, now: Ms) -> String {
    let mut parts = vec![format!("Job {}", view.id)];
    if !view.game.is_empty() && view.game != view.subject {
        parts.push(plain(&view.game, NAME_SHOWN));
    }
    parts.push(because(view));
    parts.push(match (view.outcome, view.ended_at, view.forecast_ms) {
        (Some(Outcome::Held), _, _) => format!("since {}", relative(view.created_at)),
        (Some(_), Some(ended), _) => format!("took {}", took(ended - view.created_at)),
        (_, _, Some(forecast)) => {
            format!("{} so far, usually {}", took(now - view.created_at), took(forecast))
        }
        (_, _, None) => format!("{} so far", took(now - view.created_at)),
    });
    format!("-# {}", parts.join(" · "))
}

fn because(view: &JobView) -> String {
    view.cause.spoken().unwrap_or_else(|| format!("asked by {}", plain(view.actor.name(), NAME_SHOWN)))
}

fn step_line(view: &JobView, step: &StepView, now: Ms) -> String {
    let label = step.label.as_str();
    let error = || step.error.as_deref().map(|error| format!(": {}", plain(error, REMARK_SHOWN))).unwrap_or_default();
    let note = step.note.as_deref().map(|note| format!(", {}", plain(note, REMARK_SHOWN))).unwrap_or_default();
    match step.state {
        StepState::Pending => format!("◦ {label}"),
        StepState::Running => {
            let mut about = match step.started_at {
                Some(started) => format!("now, {}", took(now - started)),
                None => "now".to_owned(),
            };
            if let Some(forecast) = step.forecast_ms {
                about += &format!(", usually {}", took(forecast));
            }
            match step.attempts {
                0 | 1 if step.error.is_some() => format!("▸ **{label}** ({about}; will be tried again{})", error()),
                0 | 1 => format!("▸ **{label}** ({about})"),
                attempts => format!("▸ **{label}** ({about}; try {attempts}, the one before failed{})", error()),
            }
        }
        StepState::Done => {
            let time = match (step.started_at, step.ended_at) {
                (Some(started), Some(ended)) => format!(" in {}", took(ended - started)),
                (Some(_) | None, Some(_) | None) => String::new(),
            };
            format!("✓ {label} (done{time}{note})")
        }
        StepState::Forced => format!("» {label} (left out by an admin)"),
        StepState::Failed => match step.attempts {
            0 | 1 => format!("✗ **{label}** (failed){}", error()),
            attempts => format!("✗ **{label}** (failed after {attempts} tries){}", error()),
        },
        StepState::Undoing => format!("↩ **{label}** (being undone){}", error()),
        StepState::Undone if view.not_undone.contains(&step.step) => {
            format!("» {label} (not undone; left out by an admin){}", error())
        }
        StepState::Undone => format!("↩ {label} (undone{note}){}", error()),
        StepState::UndoFailed => format!("✗ **{label}** (could not be undone){}", error()),
    }
}

/// Output helps while something runs and when something went wrong.
fn shows_output(view: &JobView) -> bool {
    match view.outcome {
        None | Some(Outcome::Failed | Outcome::Held) => true,
        Some(Outcome::Succeeded | Outcome::Cancelled | Outcome::Abandoned) => false,
    }
}

/// The last line: what it means and what to do next.
fn what_now(view: &JobView) -> Option<String> {
    let starts = matches!(view.action, Action::Start | Action::Restart);
    match view.outcome {
        None => None,
        Some(Outcome::Succeeded) if matches!(view.action, Action::Move { .. }) => {
            let lost = match view.saved() {
                Saved::Kept | Saved::Uncompared => {
                    return Some(
                        "It is not started by itself: the next start brings its newest world there.".to_owned(),
                    );
                }
                Saved::Not => "Its world was not saved by this move.",
                Saved::Lost => "What was played since is lost.",
            };
            Some(format!(
                "It is not started by itself: the next start begins with its last backup, if it has one. {lost}"
            ))
        }
        Some(Outcome::Succeeded) => {
            let until = view.lease_until.filter(|_| starts)?;
            Some(format!("It runs until {}; `/server extend` lengthens that.", super::text::moment(until)))
        }
        Some(Outcome::Failed | Outcome::Cancelled) if view.not_undone.contains(&Step::CreateHost) => Some(
            "Its host could not be put away, so it may still be there, and a rented one bills: `/server stop` tries \
             again, and `/admin orphans` shows it if no server has it."
                .to_owned(),
        ),
        Some(Outcome::Failed | Outcome::Cancelled)
            if !view.not_undone.is_empty() || view.steps.iter().any(|step| step.host_stays) =>
        {
            Some("What else was made was undone. What stays is said above.".to_owned())
        }
        Some(Outcome::Failed) => Some(match view.action {
            Action::Backup => "There is no new backup; the older ones are untouched.".to_owned(),
            Action::Start | Action::Restart => match view.saved() {
                Saved::Kept => "What was made was undone; its world is safe.".to_owned(),
                Saved::Uncompared => {
                    "What was made was undone. Nobody compared the copy of its world with the original.".to_owned()
                }
                Saved::Not => "What was made was undone. Its world was not saved before that.".to_owned(),
                Saved::Lost => format!("What was made was undone. {LOST}"),
            },
            Action::Stop | Action::Restore { .. } | Action::Update | Action::Delete | Action::Move { .. } => {
                "What was made was undone.".to_owned()
            }
            Action::BuildSnapshot => "What was made was undone.".to_owned(),
        }),
        Some(Outcome::Cancelled) => Some("What was made was undone.".to_owned()),
        Some(Outcome::Held) => {
            let choices = "go on without that step (admins; it is asked first what is lost), or leave everything as it \
                           is.";
            let left = left_as_it_is(view);
            Some(match view.tries_again_at {
                Some(at) => format!("{left} The next try is {}. Or try now, {choices}", relative(at)),
                None => format!("{left} Try again, {choices}"),
            })
        }
        Some(Outcome::Abandoned) => Some(left_as_it_is(view).to_owned()),
    }
}

/// What became of everything that the job did not come to.
fn left_as_it_is(view: &JobView) -> &'static str {
    match view.has_removed() {
        true => "What is left was neither undone nor destroyed.",
        false => "Nothing was undone and nothing destroyed.",
    }
}

#[cfg(test)]
mod tests {
    use super::super::shown;
    use super::*;
    use crate::model::JobId;
    use crate::model::access::Actor;
    use crate::model::bill::BudgetOf;
    use crate::model::job::Cause;

    const T0: Ms = 1_795_000_000_000;

    fn step(label: &str, state: StepState) -> StepView {
        let begun = state != StepState::Pending;
        StepView {
            step: Step::CloneDrive,
            label: label.into(),
            state,
            started_at: begun.then_some(T0 + 1000),
            ended_at: (state == StepState::Done).then_some(T0 + 3000),
            forecast_ms: None,
            attempts: u32::from(begun),
            note: None,
            error: None,
            host_stays: false,
        }
    }

    fn start(states: [StepState; 4]) -> JobView {
        let labels =
            ["Cloning the drive", "Putting the world in place", "Starting the game", "Waiting until people can join"];
        JobView {
            id: JobId(42),
            action: Action::Start,
            cause: Cause::Asked,
            actor: Actor::Discord { id: "7".into(), name: "alice".into() },
            subject: "world".into(),
            server: Some(crate::model::ServerId("k3j9x0a1b2".into())),
            channel: Some("1".into()),
            game: "openttd".into(),
            steps: labels.into_iter().zip(states).map(|(label, state)| step(label, state)).collect(),
            outcome: None,
            tries_again_at: None,
            cancel_requested: false,
            can_cancel: true,
            created_at: T0,
            ended_at: None,
            forecast_ms: None,
            output: vec![],
            address: None,
            lease_until: None,
            world_lost: false,
            not_undone: vec![],
        }
    }

    fn ended(view: JobView, outcome: Outcome) -> JobView {
        JobView { outcome: Some(outcome), ended_at: Some(T0 + 75_000), can_cancel: false, ..view }
    }

    fn drawn(view: &JobView) -> String {
        shown(&job(view, T0 + 20_000))
    }

    use StepState::*;

    #[test]
    fn a_start_that_waits_for_its_turn() {
        insta::assert_snapshot!(drawn(&start([Pending; 4])), @r"
        **Starting `world`** waits for its turn
        -# Job 42 · openttd · asked by alice · 20 s so far
        ◦ Cloning the drive
        ◦ Putting the world in place
        ◦ Starting the game
        ◦ Waiting until people can join
        [Cancel]
        ");
    }

    #[test]
    fn a_start_under_way_with_output_and_forecast() {
        let mut view = start([Done, Done, Done, Running]);
        view.forecast_ms = Some(55_000);
        view.steps[0].note = Some("4 files, 12 MB".into());
        view.steps[3].forecast_ms = Some(40_000);
        view.output = vec!["Loading world".into(), "\u{1b}[33m[warn]\u{1b}[0m ```@everyone```".into()];
        insta::assert_snapshot!(drawn(&view), @r"
        **Starting `world`**
        -# Job 42 · openttd · asked by alice · 20 s so far, usually 55 s
        ✓ Cloning the drive (done in 2 s, 4 files, 12 MB)
        ✓ Putting the world in place (done in 2 s)
        ✓ Starting the game (done in 2 s)
        ▸ **Waiting until people can join** (now, 19 s, usually 40 s)
        ```
        Loading world
        [warn] `␣`␣`@everyone`␣`␣`
        ```
        [Cancel]
        ");
    }

    #[test]
    fn a_step_that_is_tried_again() {
        let mut view = start([Done, Running, Pending, Pending]);
        view.steps[1].attempts = 3;
        view.steps[1].error = Some("the daemon does not answer".into());
        insta::assert_snapshot!(drawn(&view), @r"
        **Starting `world`**
        -# Job 42 · openttd · asked by alice · 20 s so far
        ✓ Cloning the drive (done in 2 s)
        ▸ **Putting the world in place** (now, 19 s; try 3, the one before failed: the daemon does not answer)
        ◦ Starting the game
        ◦ Waiting until people can join
        [Cancel]
        ");
    }

    #[test]
    fn a_start_that_went_well() {
        let mut view = ended(start([Done; 4]), Outcome::Succeeded);
        view.address = Some("play.example.org:27015".into());
        view.lease_until = Some(T0 + 3_600_000);
        view.output = vec!["not shown any more".into()];
        insta::assert_snapshot!(drawn(&view), @r"
        **`world` is up.** Join at `play.example.org:27015`
        -# Job 42 · openttd · asked by alice · took 1 min
        ✓ Cloning the drive (done in 2 s)
        ✓ Putting the world in place (done in 2 s)
        ✓ Starting the game (done in 2 s)
        ✓ Waiting until people can join (done in 2 s)
        It runs until <t:1795003600:f>; `/server extend` lengthens that.
        ");
    }

    #[test]
    fn a_start_that_fails_is_undone_before_eyes() {
        let mut view = start([Undone, Undoing, Failed, Pending]);
        view.steps[2].error = Some("the game ended with exit code 1".into());
        view.output = vec!["cannot bind port 3979".into()];
        insta::assert_snapshot!(drawn(&view), @r"
        **Starting `world` failed; what was made is being undone**
        -# Job 42 · openttd · asked by alice · 20 s so far
        ↩ Cloning the drive (undone)
        ↩ **Putting the world in place** (being undone)
        ✗ **Starting the game** (failed): the game ended with exit code 1
        ◦ Waiting until people can join
        ```
        cannot bind port 3979
        ```
        ");
        view.steps[1].state = Undone;
        view.steps[2].state = Undone;
        insta::assert_snapshot!(drawn(&ended(view, Outcome::Failed)), @r"
        **Starting `world` failed**
        -# Job 42 · openttd · asked by alice · took 1 min
        ↩ Cloning the drive (undone)
        ↩ Putting the world in place (undone)
        ↩ Starting the game (undone): the game ended with exit code 1
        ◦ Waiting until people can join
        ```
        cannot bind port 3979
        ```
        What was made was undone; its world is safe.
        ");
    }

    #[test]
    fn a_start_that_is_called_off() {
        let mut view = start([Done, Undoing, Pending, Pending]);
        view.cancel_requested = true;
        insta::assert_snapshot!(drawn(&view), @r"
        **Starting `world` is being called off**
        -# Job 42 · openttd · asked by alice · 20 s so far
        ✓ Cloning the drive (done in 2 s)
        ↩ **Putting the world in place** (being undone)
        ◦ Starting the game
        ◦ Waiting until people can join
        ");
        view.steps[0].state = Undone;
        view.steps[1].state = Undone;
        insta::assert_snapshot!(drawn(&ended(view, Outcome::Cancelled)), @r"
        **Starting `world` was called off**
        -# Job 42 · openttd · asked by alice · took 1 min
        ↩ Cloning the drive (undone)
        ↩ Putting the world in place (undone)
        ◦ Starting the game
        ◦ Waiting until people can join
        What was made was undone.
        ");
    }

    #[test]
    fn who_goes_on_without_seeing_a_host_go_is_not_told_that_it_is_gone() {
        for unseen in [Step::DestroyHost, Step::ConfirmGone] {
            for action in [Action::Stop, Action::Delete] {
                let mut view = JobView { action, ..start([Done; 4]) };
                view.steps[3] = StepView { step: unseen, ..step(unseen.label(), Forced) };
                let text = drawn(&ended(view, Outcome::Succeeded));
                assert!(text.contains("may still bill") && !text.contains("stopped"), "{text}");
            }
        }
    }

    /// What the job says of itself, without the lines of its steps.
    fn summary(view: JobView, outcome: Outcome) -> String {
        let text = job(&ended(view, outcome), T0).text;
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with(['-', '✓', '»'])).collect();
        lines.join(" / ")
    }

    #[test]
    fn a_stop_says_what_became_of_the_world() {
        use Step::{KeepBackup, PullWorld, VerifyWorld};
        let ends: [(&[Step], bool); 6] = [
            (&[], false),
            (&[PullWorld], false),
            (&[VerifyWorld], false),
            (&[PullWorld, VerifyWorld], false),
            (&[KeepBackup], false),
            (&[], true),
        ];
        let mut table = String::new();
        for (left_out, world_lost) in ends {
            let saving = [PullWorld, VerifyWorld, KeepBackup].map(|saves| {
                let state = if left_out.contains(&saves) { Forced } else { Done };
                StepView { step: saves, ..step(saves.label(), state) }
            });
            let view = JobView { action: Action::Stop, steps: saving.into(), world_lost, ..start([Done; 4]) };
            table += &format!("{left_out:?} {world_lost}: {}\n", summary(view, Outcome::Succeeded));
        }
        insta::assert_snapshot!(table, @r"
        [] false: **`world` is stopped**, its world is kept.
        [PullWorld] false: **`world` is stopped**, its world is kept.
        [VerifyWorld] false: **`world` is stopped**, its world is kept. Nobody compared the copy with the original.
        [PullWorld, VerifyWorld] false: **`world` is stopped.** Its world was not saved by this stop.
        [KeepBackup] false: **`world` is stopped.** Its world was not saved by this stop.
        [] true: **`world` is stopped.** What was played since its last backup is lost.
        ");
    }

    #[test]
    fn no_end_calls_a_world_safe_that_is_lost_or_was_left() {
        let ends = [
            (Action::Backup, Outcome::Succeeded),
            (Action::Update, Outcome::Succeeded),
            (Action::Move { to: Backend::Docker }, Outcome::Succeeded),
            (Action::Start, Outcome::Failed),
            (Action::Restart, Outcome::Failed),
        ];
        let mut table = String::new();
        for world_lost in [true, false] {
            for (action, outcome) in ends.clone() {
                let install = StepView { step: Step::Install, ..step("Installing the game", Done) };
                let keep = StepView { step: Step::KeepBackup, ..step("Keeping the backup", Forced) };
                let view = JobView { action, world_lost, steps: vec![install, keep], ..start([Done; 4]) };
                table += &format!("{}\n", summary(view, outcome));
            }
        }
        insta::assert_snapshot!(table, @r"
        **There is no new backup of `world`.** What was played since its last backup is lost.
        **`world` is installed anew.** What was played since its last backup is lost.
        **`world` runs in a container on this machine from now on.** / It is not started by itself: the next start begins with its last backup, if it has one. What was played since is lost.
        **Starting `world` failed** / What was made was undone. What was played since its last backup is lost.
        **Restarting `world` failed** / What was made was undone. What was played since its last backup is lost.
        **There is no new backup of `world`.**
        **`world` is installed anew**, with its world.
        **`world` runs in a container on this machine from now on.** / It is not started by itself: the next start begins with its last backup, if it has one. Its world was not saved by this move.
        **Starting `world` failed** / What was made was undone. Its world was not saved before that.
        **Restarting `world` failed** / What was made was undone. Its world was not saved before that.
        ");
    }

    #[test]
    fn what_an_admin_left_when_it_could_not_be_undone_is_not_called_undone() {
        let error = Some("the provider does not answer".to_owned());
        let mut view = start([Undone; 4]);
        view.steps = vec![
            StepView { step: Step::CreateHost, error, host_stays: true, ..step("Renting a host", Undone) },
            StepView { step: Step::Install, ..step("Installing the game", Undone) },
        ];
        view.not_undone = vec![Step::CreateHost];
        insta::assert_snapshot!(drawn(&ended(view.clone(), Outcome::Failed)), @r"
        **Starting `world` failed**
        -# Job 42 · openttd · asked by alice · took 1 min
        » Renting a host (not undone; left out by an admin): the provider does not answer
        ↩ Installing the game (undone)
        Its host could not be put away, so it may still be there, and a rented one bills: `/server stop` tries again, and `/admin orphans` shows it if no server has it.
        ");
        (view.steps[0].host_stays, view.not_undone) = (false, vec![Step::Install]);
        insta::assert_snapshot!(drawn(&ended(view, Outcome::Cancelled)), @r"
        **Starting `world` was called off**
        -# Job 42 · openttd · asked by alice · took 1 min
        ↩ Renting a host (undone): the provider does not answer
        » Installing the game (not undone; left out by an admin)
        What else was made was undone. What stays is said above.
        ");
    }

    #[test]
    fn a_stop_that_is_held_and_then_left() {
        let mut view = start([Done, Done, Failed, Pending]);
        view.action = Action::Stop;
        view.cause = Cause::Idle { minutes: 15 };
        view.steps[0] = step("Stopping the game", Done);
        view.steps[1] = StepView { attempts: 1, ..step("Copying the world", Forced) };
        view.steps[2] = StepView {
            attempts: 4,
            error: Some("no space left on device".into()),
            ..step("Keeping the backup", Failed)
        };
        view.steps[3] = step("Removing the container", Pending);
        view.output = vec!["write error".into()];
        view.outcome = Some(Outcome::Held);
        insta::assert_snapshot!(drawn(&view), @r"
        **Stopping `world` waits for a person**
        -# Job 42 · openttd · nobody was on for 15 min · since <t:1795000000:R>
        ✓ Stopping the game (done in 2 s)
        » Copying the world (left out by an admin)
        ✗ **Keeping the backup** (failed after 4 tries): no space left on device
        ◦ Removing the container
        ```
        write error
        ```
        Nothing was undone and nothing destroyed. Try again, go on without that step (admins; it is asked first what is lost), or leave everything as it is.
        [Try again] [Go on without it] [Leave it]
        ");
        let later = drawn(&JobView { tries_again_at: Some(T0 + 300_000), ..view.clone() });
        assert!(later.starts_with("**Stopping `world` waits, and is tried again by itself**"), "{later}");
        assert!(later.contains("The next try is <t:1795000300:R>. Or try now, go on without that step"), "{later}");
        insta::assert_snapshot!(drawn(&ended(view, Outcome::Abandoned)), @r"
        **Stopping `world` was closed as it is**
        -# Job 42 · openttd · nobody was on for 15 min · took 1 min
        ✓ Stopping the game (done in 2 s)
        » Copying the world (left out by an admin)
        ✗ **Keeping the backup** (failed after 4 tries): no space left on device
        ◦ Removing the container
        Nothing was undone and nothing destroyed.
        ");
    }

    #[test]
    fn every_action_has_its_words_at_the_end() {
        let backup = crate::model::world::BackupId("20261121T075309Z-4f1c".into());
        let actions = [
            Action::Start,
            Action::Stop,
            Action::Restart,
            Action::Backup,
            Action::Restore { backup },
            Action::Update,
            Action::Delete,
            Action::Move { to: Backend::Cloud },
            Action::Move { to: Backend::Docker },
            Action::BuildSnapshot,
        ];
        let mut table = String::new();
        for action in actions {
            for outcome in [Outcome::Succeeded, Outcome::Failed] {
                let view = ended(JobView { action: action.clone(), steps: vec![], ..start([Done; 4]) }, outcome);
                let text = job(&view, T0).text;
                let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("-#")).collect();
                table += &format!("{}\n", lines.join(" / "));
            }
        }
        insta::assert_snapshot!(table, @r"
        **`world` is up.**
        **Starting `world` failed** / What was made was undone; its world is safe.
        **`world` is stopped**, its world is kept.
        **Stopping `world` failed** / What was made was undone.
        **`world` is up.**
        **Restarting `world` failed** / What was made was undone; its world is safe.
        **`world` is backed up.**
        **Backing up `world` failed** / There is no new backup; the older ones are untouched.
        **`world` has its world of `20261121T075309Z-4f1c` again.**
        **Restoring `world` failed** / What was made was undone.
        **`world` stands on the newest snapshot.**
        **Updating `world` failed** / What was made was undone.
        **`world` is deleted.** Its backups stay with whoever runs this bot.
        **Deleting `world` failed** / What was made was undone.
        **`world` runs on a rented host from now on.** / It is not started by itself: the next start brings its newest world there.
        **Moving `world` failed** / What was made was undone.
        **`world` runs in a container on this machine from now on.** / It is not started by itself: the next start brings its newest world there.
        **Moving `world` failed** / What was made was undone.
        **The snapshot of `world` is ready.**
        **Building a snapshot of `world` failed** / What was made was undone.
        ");
    }

    #[test]
    fn every_cause_is_told() {
        let causes = [
            Cause::Asked,
            Cause::LeaseOver,
            Cause::Idle { minutes: 15 },
            Cause::NobodyJoined { minutes: 30 },
            Cause::Crashed { exit_code: Some(139), out_of_memory: false },
            Cause::Crashed { exit_code: None, out_of_memory: false },
            Cause::Crashed { exit_code: Some(137), out_of_memory: true },
            Cause::KeepsCrashing { times: 3 },
            Cause::ShouldBeOff,
            Cause::Unwatched,
            Cause::BudgetSpent { whose: BudgetOf::Guild },
            Cause::BudgetSpent { whose: BudgetOf::Server },
        ];
        let mut table = String::new();
        for cause in causes {
            table += &format!("{}\n", because(&JobView { cause, ..start([Pending; 4]) }));
        }
        insta::assert_snapshot!(table, @r"
        asked by alice
        its time is over
        nobody was on for 15 min
        nobody joined within 30 min
        the game ended by itself with exit code 139
        the game ended by itself
        the game ran out of memory
        the game ended by itself 3 times, so it is not started again
        it ran although it should be off
        its host heard nothing from Spawnpoint for long and has ended the game
        this guild's budget for the month is spent
        its budget for the month is spent
        ");
    }

    #[test]
    fn hostile_names_stay_text_and_too_much_stays_within_the_limit() {
        let mut view = start([Done, Done, Failed, Pending]);
        view.actor = Actor::Discord { id: "7".into(), name: "**@everyone**\n# `rm`".into() };
        view.steps[2].error = Some("error: <@123> ```\n[x](https://evil.example)".into());
        insta::assert_snapshot!(drawn(&ended(view.clone(), Outcome::Failed)), @r"
        **Starting `world` failed**
        -# Job 42 · openttd · asked by \*\*@␣everyone\*\* \# \`rm\` · took 1 min
        ✓ Cloning the drive (done in 2 s)
        ✓ Putting the world in place (done in 2 s)
        ✗ **Starting the game** (failed): error: \<@␣123\> \`\`\` \[x\]\(https:␣//evil.example\)
        ◦ Waiting until people can join
        What was made was undone; its world is safe.
        ");
        view.output = vec!["`".repeat(100_000), "🎮".repeat(100_000), "x\u{0}\n".repeat(1000)];
        view.steps[2].error = Some("🎮*".repeat(500_000));
        view.actor = Actor::Discord { id: "7".into(), name: "🎮".repeat(100_000) };
        for _ in 0..40 {
            view.steps.insert(0, StepView { note: Some("n".repeat(200)), ..step("Cloning the drive", Done) });
        }
        let text = shown(&job(&view, T0));
        assert!(text.contains("steps done") && text.contains("Starting the game"), "{text}");
    }
}
