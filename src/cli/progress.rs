//! A job in the terminal: a line when a step begins, its output below it, a line when it ends. The same view that
//! Discord draws.

use crate::app::App;
use crate::model::JobId;
use crate::model::job::{Outcome, StepState};
use crate::model::lease::spoken;
use crate::model::view::{JobView, StepView};
use std::collections::HashMap;
use std::time::Duration;

/// How often the job is looked at when nobody nudges.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Output lines that one look prints at most: an installer must not scroll everything away.
const OUTPUT_SHOWN: usize = 3;

/// Follows a job to its end, or until it waits for a person, printing what happens.
pub async fn follow(app: &App, id: JobId) -> anyhow::Result<JobView> {
    let mut nudges = app.listen();
    let mut printed: HashMap<usize, StepState> = HashMap::new();
    let mut last_output: Vec<String> = vec![];
    loop {
        let view = app.job_view(id).await?;
        for (at, step) in view.steps.iter().enumerate() {
            if printed.get(&at) != Some(&step.state) && step.state != StepState::Pending {
                println!("  {}", line(step));
                printed.insert(at, step.state);
            }
        }
        if view.output != last_output {
            let fresh = view.output.iter().filter(|line| !last_output.contains(line)).collect::<Vec<_>>();
            for line in fresh.iter().rev().take(OUTPUT_SHOWN).rev() {
                println!("             | {}", line.chars().take(100).collect::<String>());
            }
            last_output = view.output.clone();
        }
        if view.outcome.is_some() {
            println!("  {}", ending(&view));
            return Ok(view);
        }
        // A missed nudge costs half a second and nothing else.
        let _ = tokio::time::timeout(LOOK_EVERY, nudges.next()).await;
    }
}

/// One step's line: a word for its state, so that nothing hangs on a colour or a sign.
pub fn line(step: &StepView) -> String {
    let word = match step.state {
        StepState::Pending => "waits",
        StepState::Running => "runs",
        StepState::Done => "done",
        StepState::Forced => "left out",
        StepState::Failed => "failed",
        StepState::Undoing => "undoing",
        StepState::Undone => "undone",
        StepState::UndoFailed => "not undone",
    };
    let mut line = format!("{word:10} {}", step.label);
    if let (Some(from), Some(to), StepState::Done) = (step.started_at, step.ended_at, step.state) {
        line += &format!(" ({:.1} s)", (to - from) as f64 / 1000.0);
    }
    if let (StepState::Done, Some(note)) = (step.state, step.note.as_ref().filter(|note| !note.is_empty())) {
        line += &format!(": {note}");
    }
    if let (StepState::Failed | StepState::UndoFailed, Some(error)) = (step.state, &step.error) {
        line += &format!(": {error}");
    }
    if let (StepState::Running, Some(forecast @ 1000..)) = (step.state, step.forecast_ms) {
        line += &format!(" (about {})", spoken(forecast));
    }
    line
}

fn ending(view: &JobView) -> String {
    let what = format!("{} of {}", view.action.word(), view.subject);
    let took =
        view.ended_at.map_or(String::new(), |end| format!(" after {:.1} s", (end - view.created_at) as f64 / 1000.0));
    match view.outcome {
        Some(Outcome::Succeeded) => format!("The {what} is done{took}."),
        Some(Outcome::Failed) => format!("The {what} failed{took}; what it had made was undone."),
        Some(Outcome::Cancelled) => format!("The {what} was called off{took}."),
        Some(Outcome::Held) => format!("The {what} waits for a person."),
        Some(Outcome::Abandoned) => format!("The {what} was closed as it was."),
        None => format!("The {what} is under way."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::job::Step;

    #[test]
    fn every_state_has_its_own_word() {
        use StepState::*;
        let step = |state| StepView {
            step: Step::CloneDrive,
            label: "Cloning the drive".into(),
            state,
            started_at: Some(1000),
            ended_at: Some(1250),
            forecast_ms: Some(2000),
            attempts: 1,
            note: Some("openttd-1".into()),
            error: Some("The disk is full.".into()),
        };
        let lines: Vec<_> = [Pending, Running, Done, Forced, Failed, Undoing, Undone, UndoFailed]
            .map(|state| line(&step(state)))
            .into();
        insta::assert_snapshot!(lines.join("\n"), @r"
        waits      Cloning the drive
        runs       Cloning the drive (about 2 s)
        done       Cloning the drive (0.2 s): openttd-1
        left out   Cloning the drive
        failed     Cloning the drive: The disk is full.
        undoing    Cloning the drive
        undone     Cloning the drive
        not undone Cloning the drive: The disk is full.
        ");
    }
}
