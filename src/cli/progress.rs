//! A job in the terminal. The same view that Discord draws: in a terminal in place, with the step that runs and the last
//! line of its output; in a file or a pipe as lines that follow each other.

use crate::app::App;
use crate::model::JobId;
use crate::model::job::{Outcome, StepState};
use crate::model::lease::spoken;
use crate::model::view::{JobView, StepView};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::HashMap;
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// How often the job is looked at when nobody nudges.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Where nothing can be shown in place, output is printed so often and so many lines of it: an installer must not scroll
/// everything away.
const OUTPUT_EVERY: Duration = Duration::from_secs(2);
const OUTPUT_SHOWN: usize = 2;
const OUTPUT_MAX_CHARS: usize = 100;
/// How often the time of the step that runs is drawn anew.
const REDRAW_EVERY: Duration = Duration::from_millis(250);

/// A line for who watches. A terminal that was closed or a pipe that has ended takes none, and what goes on must not end
/// with it.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Follows a job to its end, or until it waits for a person, showing what happens.
pub async fn follow(app: &App, id: JobId) -> anyhow::Result<JobView> {
    let mut nudges = app.listen();
    let mut printed: HashMap<usize, StepState> = HashMap::new();
    let mut screen = Screen::new()?;
    loop {
        let view = app.job_view(id).await?;
        for (at, step) in view.steps.iter().enumerate() {
            for step in unsaid(printed.get(&at).copied(), step) {
                screen.step(&step);
                printed.insert(at, step.state);
            }
        }
        screen.output(&view.output);
        if view.outcome.is_some() {
            screen.end(&ending(&view));
            return Ok(view);
        }
        // A missed nudge costs half a second and nothing else.
        let _ = tokio::time::timeout(LOOK_EVERY, nudges.next()).await;
    }
}

/// What is to be said of a step whose state was last said to be this one. A failure that is being undone by the time
/// that somebody looks is said first: it is why.
fn unsaid(before: Option<StepState>, step: &StepView) -> Vec<StepView> {
    use StepState::{Failed, Pending, UndoFailed, Undoing, Undone};
    if before == Some(step.state) || step.state == Pending {
        return vec![];
    }
    let missed = step.error.is_some()
        && matches!(step.state, Undoing | Undone)
        && !matches!(before, Some(Failed | Undoing | Undone | UndoFailed));
    let failure = missed.then(|| StepView { state: Failed, ..step.clone() });
    failure.into_iter().chain([step.clone()]).collect()
}

enum Screen {
    /// Lines above stay; the last two are what runs and the last it said.
    Terminal(ProgressBar),
    Lines {
        last_output: Vec<String>,
        printed_at: Option<Instant>,
    },
}

impl Screen {
    fn new() -> anyhow::Result<Screen> {
        if !std::io::stdout().is_terminal() {
            return Ok(Screen::Lines { last_output: vec![], printed_at: None });
        }
        Screen::drawn_on(ProgressDrawTarget::stdout())
    }

    fn drawn_on(target: ProgressDrawTarget) -> anyhow::Result<Screen> {
        let bar = ProgressBar::with_draw_target(None, target);
        bar.set_style(ProgressStyle::with_template("  {prefix} [{elapsed}]\n             | {wide_msg}")?);
        Ok(Screen::Terminal(bar))
    }

    fn step(&self, step: &StepView) {
        match (self, step.state) {
            (Screen::Terminal(bar), StepState::Running | StepState::Undoing) => {
                bar.set_prefix(line(step));
                bar.set_message("");
                bar.reset_elapsed();
                bar.enable_steady_tick(REDRAW_EVERY);
            }
            (Screen::Terminal(bar), _) => bar.println(format!("  {}", line(step))),
            (Screen::Lines { .. }, _) => say(&format!("  {}", line(step))),
        }
    }

    fn output(&mut self, output: &[String]) {
        match self {
            Screen::Terminal(bar) => bar.set_message(output.last().cloned().unwrap_or_default()),
            Screen::Lines { last_output, printed_at } => {
                if output == last_output || printed_at.is_some_and(|at| at.elapsed() < OUTPUT_EVERY) {
                    return;
                }
                let fresh: Vec<_> = output.iter().filter(|line| !last_output.contains(line)).collect();
                for line in &fresh[fresh.len().saturating_sub(OUTPUT_SHOWN)..] {
                    say(&format!("             | {}", line.chars().take(OUTPUT_MAX_CHARS).collect::<String>()));
                }
                *last_output = output.to_vec();
                *printed_at = Some(Instant::now());
            }
        }
    }

    fn end(&self, ending: &str) {
        if let Screen::Terminal(bar) = self {
            bar.finish_and_clear();
        }
        say(&format!("  {ending}"));
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
    if let (StepState::Done | StepState::Undone, Some(note)) =
        (step.state, step.note.as_ref().filter(|note| !note.is_empty()))
    {
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
        Some(Outcome::Failed) if view.steps.iter().any(|step| step.host_stays) => {
            format!("The {what} failed{took}; what it had made was undone, but for its host.")
        }
        Some(Outcome::Failed) if !view.not_undone.is_empty() => {
            format!("The {what} failed{took}; what it had made was undone, but for what is said above.")
        }
        Some(Outcome::Failed) => format!("The {what} failed{took}; what it had made was undone."),
        Some(Outcome::Cancelled) => format!("The {what} was called off{took}."),
        Some(Outcome::Held) if view.tries_again_at.is_some() => {
            format!("The {what} waits, and is tried again by itself.")
        }
        Some(Outcome::Held) => format!("The {what} waits for a person."),
        Some(Outcome::Abandoned) => format!("The {what} was closed as it was."),
        None => format!("The {what} is under way."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::job::Step;
    use indicatif::InMemoryTerm;

    fn step(state: StepState) -> StepView {
        StepView {
            step: Step::CloneDrive,
            label: "Cloning the drive".into(),
            state,
            started_at: Some(1000),
            ended_at: Some(1250),
            forecast_ms: Some(2000),
            attempts: 1,
            note: Some("openttd-1".into()),
            error: Some("The disk is full.".into()),
            host_stays: false,
        }
    }

    #[test]
    fn a_failure_is_said_even_when_it_is_being_undone_by_then() {
        use StepState::{Done, Failed, Running, UndoFailed, Undoing, Undone};
        let whole = |state| StepView { error: None, ..step(state) };
        let said = |before, step: StepView| unsaid(before, &step).iter().map(|step| step.state).collect::<Vec<_>>();
        assert_eq!(said(Some(Running), step(Failed)), [Failed]);
        assert_eq!(said(Some(Running), step(Undoing)), [Failed, Undoing]);
        assert_eq!(said(Some(Running), step(Undone)), [Failed, Undone]);
        assert_eq!(said(Some(Failed), step(Undoing)), [Undoing]);
        assert_eq!(said(Some(Undoing), step(Undone)), [Undone]);
        assert_eq!(said(Some(UndoFailed), step(Undoing)), [Undoing]);
        assert_eq!(said(Some(Done), whole(Undoing)), [Undoing], "it did not fail, another did");
        assert_eq!(said(Some(Failed), step(Failed)), []);
        assert_eq!(said(None, step(StepState::Pending)), []);
    }

    #[test]
    fn a_terminal_shows_the_last_line_of_what_runs_below_what_is_done() {
        let term = InMemoryTerm::new(10, 56);
        let mut screen = Screen::drawn_on(ProgressDrawTarget::term_like(Box::new(term.clone()))).unwrap();
        screen.step(&step(StepState::Done));
        screen.step(&step(StepState::Running));
        screen.output(&["first".to_owned(), "a line that is longer than the terminal is wide".to_owned()]);
        let (above, elapsed) = term.contents().rsplit_once('[').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        assert_eq!(
            above,
            "  done       Cloning the drive (0.2 s): openttd-1\n  runs       Cloning the drive (about 2 s) "
        );
        let last = elapsed.split_once('\n').unwrap().1;
        assert_eq!(last, "             | a line that is longer than the terminal i");
        screen.step(&step(StepState::Failed));
        screen.end("The start of world failed.");
        assert_eq!(
            term.contents(),
            "  done       Cloning the drive (0.2 s): openttd-1\n  failed     Cloning the drive: The disk is full."
        );
    }

    #[test]
    fn every_state_has_its_own_word() {
        use StepState::*;
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
        undone     Cloning the drive: openttd-1
        not undone Cloning the drive: The disk is full.
        ");
    }
}
