//! Timed rules in words: what was added, the list, and what people hear when one did not do what it says.

use super::Said;
use super::server::lines_that_fit;
use super::text::{NAME_SHOWN, REMARK_SHOWN, code, day_and_time, plain, relative};
use crate::app::Added;
use crate::model::Ms;
use crate::model::bill::StartCost;
use crate::model::lease::Rules;
use crate::model::schedule::{Came, Last, Skipped};
use crate::model::view::{Notice, ScheduleView};

pub fn added(added: &Added) -> Said {
    let view = &added.view;
    let head = format!(
        "Schedule {} of {}: {}. It comes next {} ({}). It acts with your rights as they are then.",
        view.number,
        code(&view.server),
        rule(view),
        day_and_time(view.next_at),
        relative(view.next_at)
    );
    let cost = added.start.as_ref().map(|start| format!("\n{}", each_start(start, &added.ends)));
    Said::new(head + &cost.unwrap_or_default())
}

fn each_start(start: &StartCost, ends: &Rules) -> String {
    let price = super::cost::start_cost(start).unwrap_or_else(|| "A start rents a host.".to_owned());
    let end = match (ends.lease_ms > 0, ends.idle_ms > 0) {
        (true, true) => "Its time limit ends it, or a while with nobody on.",
        (true, false) => "Its time limit ends it.",
        (false, true) => "It ends after a while with nobody on; it has no time limit.",
        (false, false) => "Nothing ends it but a stop: schedule one too.",
    };
    format!("{price} {end}")
}

/// `start, fri 20:00 (Europe/Berlin)`.
fn rule(view: &ScheduleView) -> String {
    let line = view.line.as_deref().map(|line| format!(" {}", code(line))).unwrap_or_default();
    format!("{}{line}, {} ({})", view.does, plain(&view.when, NAME_SHOWN), plain(&view.zone, NAME_SHOWN))
}

pub fn list(schedules: &[ScheduleView], server: Option<&str>) -> Said {
    if schedules.is_empty() {
        let whose = server.map(|server| format!(" for {}", code(server))).unwrap_or_default();
        return Said::new(format!("Nothing is scheduled{whose}. `/schedule add` makes a schedule."));
    }
    Said::new(lines_that_fit("**Schedules**", schedules.iter().map(line)))
}

fn line(view: &ScheduleView) -> String {
    let last = view.last.as_ref().map(|last| format!(" · last {}: {}", relative(last.due_at), came(last)));
    format!(
        "**{}** · {} · {} · next {} ({}) · by {}{}",
        view.number,
        code(&view.server),
        rule(view),
        day_and_time(view.next_at),
        relative(view.next_at),
        plain(&view.made_by, NAME_SHOWN),
        last.unwrap_or_default()
    )
}

fn came(last: &Last) -> String {
    match &last.came {
        Came::Job { job } => format!("job {job}"),
        Came::Typed => "typed".to_owned(),
        Came::Begun => "being typed".to_owned(),
        Came::Needless { why } => format!("nothing to do, {}", plain(why, NAME_SHOWN)),
        Came::Skipped { why } => match why {
            Skipped::Missed => "skipped, it could not be done in time".to_owned(),
            Skipped::Busy { .. } => "skipped, something else was under way".to_owned(),
            Skipped::NotAllowed { .. } => "skipped, its maker may not do that any more".to_owned(),
            Skipped::Refused { why } => format!("skipped: {}", plain(why, NAME_SHOWN)),
            Skipped::Unsure => "not sure, Spawnpoint ended meanwhile".to_owned(),
        },
    }
}

/// On the panel of its server.
pub fn next(view: &ScheduleView) -> String {
    format!(
        "Scheduled: {} {} (schedule {}, {})",
        plain(&view.does, NAME_SHOWN),
        relative(view.next_at),
        view.number,
        plain(&view.when, NAME_SHOWN)
    )
}

pub fn removed(view: &ScheduleView) -> Said {
    Said::new(format!("Schedule {} of {} is removed: {}.", view.number, code(&view.server), rule(view)))
}

/// What a rule did not do, and why.
pub fn skipped(notice: &Notice) -> Option<Said> {
    let Notice::Skipped { server, schedule, does, when, made_by, due_at, next, why } = notice else { return None };
    let head = format!(
        "Schedule {schedule} of {} ({}, {}) was due {}",
        code(server),
        plain(does, NAME_SHOWN),
        plain(when, NAME_SHOWN),
        day_and_time(*due_at)
    );
    let what = match why {
        Skipped::Missed => " and was skipped: Spawnpoint could not do it in time.".to_owned(),
        Skipped::Busy { why } => format!(" and could not be done in time. {}", plain(why, REMARK_SHOWN)),
        Skipped::NotAllowed { why } => format!(
            " and did nothing: {}, who made it, may not do that any more. {}",
            plain(made_by, NAME_SHOWN),
            plain(why, REMARK_SHOWN)
        ),
        Skipped::Refused { why } => format!(" and could not be done. {}", plain(why, REMARK_SHOWN)),
        Skipped::Unsure => {
            ", and Spawnpoint ended while the command was being typed. Whether the game has it is not known; it is not \
             typed again."
                .to_owned()
        }
    };
    Some(Said::new(format!("{head}{what}{}", then(*next))))
}

fn then(next: Option<Ms>) -> String {
    match next {
        Some(next) => format!(" It comes next {}.", relative(next)),
        None => " It was for that time alone, so it is gone.".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{notice, shown};
    use super::*;
    use crate::model::bill::StartPrice;
    use crate::model::cost::{Price, Quote};
    use crate::model::{HOUR_MS, JobId};

    const T0: Ms = 1_795_201_200_000;

    fn view(number: i64, does: &str) -> ScheduleView {
        ScheduleView {
            number,
            server: "world".into(),
            does: does.into(),
            line: None,
            when: "fri 20:00".into(),
            zone: "Europe/Berlin".into(),
            made_by: "@everyone *alice*".into(),
            next_at: T0,
            last: None,
        }
    }

    #[test]
    fn what_is_scheduled_in_words() {
        let price = Price { hourly: 20_000, monthly: None, currency: "USD".into(), unit_ms: HOUR_MS };
        let quote = Quote {
            provider: "linode".into(),
            region: "eu-central".into(),
            size: "g6-nanode-1".into(),
            price: Some(price),
            cpus: None,
            memory_mb: None,
        };
        let price = StartPrice { quote, lease_ms: Some(12 * HOUR_MS), at_most: Some(240_000) };
        let rents = || Some(StartCost::Rents(price.clone()));
        let ends = |lease_ms, idle_ms| Rules { lease_ms, idle_ms, never_joined_ms: idle_ms };
        let made = |start, ends| added(&Added { view: view(3, "start"), start, ends });
        let last = |came| Some(Last { due_at: T0 - 24 * HOUR_MS, came });
        let skipped = |why| last(Came::Skipped { why });
        let why = || "`world` is *busy*.".to_owned();
        let listed = [
            view(1, "start"),
            ScheduleView { line: Some("say `hi` @everyone".into()), last: last(Came::Typed), ..view(2, "command") },
            ScheduleView { last: last(Came::Job { job: JobId(7) }), ..view(3, "stop") },
            ScheduleView { last: last(Came::Needless { why: "it was off".into() }), ..view(4, "stop") },
            ScheduleView { last: skipped(Skipped::Missed), ..view(5, "backup") },
            ScheduleView { last: skipped(Skipped::Busy { why: why() }), ..view(6, "backup") },
            ScheduleView { last: skipped(Skipped::NotAllowed { why: why() }), ..view(7, "backup") },
            ScheduleView { last: skipped(Skipped::Refused { why: why() }), ..view(8, "start") },
            ScheduleView { last: skipped(Skipped::Unsure), ..view(9, "command") },
            ScheduleView { last: last(Came::Begun), ..view(10, "command") },
        ];
        let all = [
            made(None, ends(0, 0)),
            made(rents(), ends(1, 1)),
            made(rents(), ends(0, 1)),
            made(rents(), ends(1, 0)),
            made(Some(StartCost::NotNow { why: "No size here has 64000 MB of memory.".into() }), ends(0, 0)),
            list(&[], None),
            list(&[], Some("world")),
            list(&listed[..5], None),
            list(&listed[5..], None),
            removed(&view(3, "start")),
            Said::new(next(&view(3, "start"))),
        ];
        let text: Vec<String> = all.iter().map(shown).collect();
        insta::assert_snapshot!(text.join("\n\n"), @r"
        Schedule 3 of `world`: start, fri 20:00 (Europe/Berlin). It comes next <t:1795201200:F> (<t:1795201200:R>). It acts with your rights as they are then.

        Schedule 3 of `world`: start, fri 20:00 (Europe/Berlin). It comes next <t:1795201200:F> (<t:1795201200:R>). It acts with your rights as they are then.
        A start rents a host (linode g6-nanode-1 in eu-central): about 0.02 $ an hour, at most 0.24 $ for 12 h. Its time limit ends it, or a while with nobody on.

        Schedule 3 of `world`: start, fri 20:00 (Europe/Berlin). It comes next <t:1795201200:F> (<t:1795201200:R>). It acts with your rights as they are then.
        A start rents a host (linode g6-nanode-1 in eu-central): about 0.02 $ an hour, at most 0.24 $ for 12 h. It ends after a while with nobody on; it has no time limit.

        Schedule 3 of `world`: start, fri 20:00 (Europe/Berlin). It comes next <t:1795201200:F> (<t:1795201200:R>). It acts with your rights as they are then.
        A start rents a host (linode g6-nanode-1 in eu-central): about 0.02 $ an hour, at most 0.24 $ for 12 h. Its time limit ends it.

        Schedule 3 of `world`: start, fri 20:00 (Europe/Berlin). It comes next <t:1795201200:F> (<t:1795201200:R>). It acts with your rights as they are then.
        The price of a start is not known: No size here has 64000 MB of memory. Nothing ends it but a stop: schedule one too.

        Nothing is scheduled. `/schedule add` makes a schedule.

        Nothing is scheduled for `world`. `/schedule add` makes a schedule.

        **Schedules**
        **1** · `world` · start, fri 20:00 (Europe/Berlin) · next <t:1795201200:F> (<t:1795201200:R>) · by @␣everyone \*alice\*
        **2** · `world` · command `say ˋhiˋ @everyone`, fri 20:00 (Europe/Berlin) · next <t:1795201200:F> (<t:1795201200:R>) · by @␣everyone \*alice\* · last <t:1795114800:R>: typed
        **3** · `world` · stop, fri 20:00 (Europe/Berlin) · next <t:1795201200:F> (<t:1795201200:R>) · by @␣everyone \*alice\* · last <t:1795114800:R>: job 7
        **4** · `world` · stop, fri 20:00 (Europe/Berlin) · next <t:1795201200:F> (<t:1795201200:R>) · by @␣everyone \*alice\* · last <t:1795114800:R>: nothing to do, it was off
        **5** · `world` · backup, fri 20:00 (Europe/Berlin) · next <t:1795201200:F> (<t:1795201200:R>) · by @␣everyone \*alice\* · last <t:1795114800:R>: skipped, it could not be done in time

        **Schedules**
        **6** · `world` · backup, fri 20:00 (Europe/Berlin) · next <t:1795201200:F> (<t:1795201200:R>) · by @␣everyone \*alice\* · last <t:1795114800:R>: skipped, something else was under way
        **7** · `world` · backup, fri 20:00 (Europe/Berlin) · next <t:1795201200:F> (<t:1795201200:R>) · by @␣everyone \*alice\* · last <t:1795114800:R>: skipped, its maker may not do that any more
        **8** · `world` · start, fri 20:00 (Europe/Berlin) · next <t:1795201200:F> (<t:1795201200:R>) · by @␣everyone \*alice\* · last <t:1795114800:R>: skipped: \`world\` is \*busy\*.
        **9** · `world` · command, fri 20:00 (Europe/Berlin) · next <t:1795201200:F> (<t:1795201200:R>) · by @␣everyone \*alice\* · last <t:1795114800:R>: not sure, Spawnpoint ended meanwhile
        **10** · `world` · command, fri 20:00 (Europe/Berlin) · next <t:1795201200:F> (<t:1795201200:R>) · by @␣everyone \*alice\* · last <t:1795114800:R>: being typed

        Schedule 3 of `world` is removed: start, fri 20:00 (Europe/Berlin).

        Scheduled: start <t:1795201200:R> (schedule 3, fri 20:00)
        ");
    }

    #[test]
    fn what_was_not_done_in_words() {
        let told = |why, next| {
            let (server, does, when) = ("world".to_owned(), "start".to_owned(), "fri 20:00 Europe/Berlin".to_owned());
            let (made_by, due_at) = ("@everyone *alice*".to_owned(), T0);
            shown(&notice(&Notice::Skipped { server, schedule: 3, does, when, made_by, due_at, next, why }, None, T0))
        };
        let why = || "`world` is busy: bob asked for “backup” 16 min ago (job 7).".to_owned();
        let all = [
            told(Skipped::Missed, Some(T0 + 168 * HOUR_MS)),
            told(Skipped::Missed, None),
            told(Skipped::Busy { why: why() }, Some(T0)),
            told(Skipped::NotAllowed { why: "That needs the permission “play”.".into() }, Some(T0)),
            told(Skipped::Refused { why: why() }, Some(T0)),
            told(Skipped::Unsure, Some(T0)),
        ];
        insta::assert_snapshot!(all.join("\n\n"), @r"
        Schedule 3 of `world` (start, fri 20:00 Europe/Berlin) was due <t:1795201200:F> and was skipped: Spawnpoint could not do it in time. It comes next <t:1795806000:R>.

        Schedule 3 of `world` (start, fri 20:00 Europe/Berlin) was due <t:1795201200:F> and was skipped: Spawnpoint could not do it in time. It was for that time alone, so it is gone.

        Schedule 3 of `world` (start, fri 20:00 Europe/Berlin) was due <t:1795201200:F> and could not be done in time. \`world\` is busy: bob asked for “backup” 16 min ago \(job 7\). It comes next <t:1795201200:R>.

        Schedule 3 of `world` (start, fri 20:00 Europe/Berlin) was due <t:1795201200:F> and did nothing: @␣everyone \*alice\*, who made it, may not do that any more. That needs the permission “play”. It comes next <t:1795201200:R>.

        Schedule 3 of `world` (start, fri 20:00 Europe/Berlin) was due <t:1795201200:F> and could not be done. \`world\` is busy: bob asked for “backup” 16 min ago \(job 7\). It comes next <t:1795201200:R>.

        Schedule 3 of `world` (start, fri 20:00 Europe/Berlin) was due <t:1795201200:F>, and Spawnpoint ended while the command was being typed. Whether the game has it is not known; it is not typed again. It comes next <t:1795201200:R>.
        ");
    }
}
