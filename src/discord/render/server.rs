//! A server in words: its panel, its line in a list, and the notices about it.

use super::text::{
    MESSAGE_MAX, NAME_SHOWN, REMARK_SHOWN, bytes, clip, code, counted, length, moment, plain, relative, took,
};
use super::{Look, Said, orphans, schedules};
use crate::discord::ids::Press;
use crate::model::bill::{Billing, BudgetOf, Standing};
use crate::model::cost::spoken;
use crate::model::host::Place;
use crate::model::server::{Players, State};
use crate::model::view::{BackupView, Notice, ServerView};
use crate::model::world::BackupId;
use crate::model::{Ms, ServerId};

/// Player names in a panel; the rest are counted.
const NAMES_SHOWN: usize = 20;

/// The panel of a server: everything at a glance, and the buttons that fit.
pub fn panel(view: &ServerView, now: Ms) -> Said {
    let id = ServerId(view.id.clone());
    let mut lines = vec![format!("**{}** · {} · {}", code(&view.name), plain(&view.title, NAME_SHOWN), state(view))];
    lines.extend(view.why.as_deref().map(|why| format!("Why: {}", plain(why, REMARK_SHOWN))));
    lines.extend(view.address.as_deref().filter(|_| up(view)).map(|address| format!("Join at {}", code(address))));
    lines.extend(view.players.as_ref().map(players));
    lines.extend(
        view.lease_until
            .filter(|_| up(view))
            .map(|until| format!("Runs until {} ({})", moment(until), relative(until))),
    );
    // Somebody may have joined since the watcher last counted.
    let somebody = view.players.as_ref().is_some_and(|players| players.online.is_some_and(|online| online > 0));
    let idle = view.idle_stop_at.filter(|_| !somebody);
    lines.extend(idle.map(|at| format!("Nobody is on: it stops {} unless somebody joins", relative(at))));
    lines.extend(view.billing.as_ref().map(billing));
    lines.extend(view.place.as_ref().and_then(place));
    lines.extend(view.start.as_ref().and_then(super::cost::start_cost));
    lines.extend(view.scheduled.as_ref().map(schedules::next));
    lines.extend(snapshot(view));
    lines.extend(view.last_backup.as_ref().map(last_backup));
    lines.push(format!("-# Looked at {}", relative(now)));
    let busy = view.job.is_some();
    // A host that exists bills, so it can be stopped whether a game runs on it or not.
    let bills = view.billing.as_ref().is_some_and(|billing| billing.on);
    let running = matches!(view.state, State::Running | State::Unknown | State::Failed);
    let can_start = !busy && matches!(view.state, State::Offline | State::Failed | State::Unknown);
    Said::new(lines.join("\n"))
        .button_if(can_start, Press::Start(id.clone()), "Start", Look::Main)
        .button_if(!busy && (running || bills), Press::Stop(id.clone()), "Stop", Look::Danger)
        .button_if(!busy && running, Press::Restart(id.clone()), "Restart", Look::Plain)
        .button_if(up(view) && view.lease_until.is_some(), Press::Extend(id.clone()), "Extend", Look::Plain)
        .button_if(view.state == State::Running, Press::Console(id), "Console", Look::Plain)
}

/// What is left of a panel whose server is deleted.
pub fn deleted() -> Said {
    Said::new("The server of this panel is deleted. Its backups stay with whoever runs this bot.")
}

/// What decides whether a panel must be edited although its time of looking alone would not.
pub fn panel_without_time(said: &Said) -> String {
    let text = said.text.rsplit_once("\n-# ").map_or(said.text.as_str(), |(text, _)| text);
    Said { text: text.to_owned(), ..said.clone() }.fingerprint()
}

fn up(view: &ServerView) -> bool {
    match view.state {
        State::Starting | State::Running | State::Stopping => true,
        State::Offline | State::Failed | State::Unknown => false,
    }
}

/// The state in words, with what is under way.
fn state(view: &ServerView) -> String {
    match &view.job {
        None => view.state_said().to_owned(),
        Some(job) => {
            let asked = format!("{} (job {})", job.action.word(), job.id);
            match view.state {
                State::Failed => format!("failed: the {asked} waits for a person"),
                State::Starting | State::Stopping => format!("{}, job {}", view.state.word(), job.id),
                State::Offline | State::Running | State::Unknown => format!("{}, {asked} under way", view.state.word()),
            }
        }
    }
}

/// The meter: that it runs, and how far it has come.
pub fn billing(billing: &Billing) -> String {
    if !billing.on {
        return format!("billing: off · {} this month", billing.month.spoken());
    }
    let Some((price, so_far)) = billing.price.as_ref().zip(billing.so_far) else {
        return "billing: ON, and the provider did not say how much".to_owned();
    };
    let (so_far, hourly) = (spoken(so_far, &price.currency), spoken(price.hourly, &price.currency));
    let waits = billing.stop_waits_until.map(|at| format!(" · stops {}: until then it is paid for", relative(at)));
    format!(
        "billing: ON, {so_far} so far ({hourly} an hour) · {} this month{}",
        billing.month.spoken(),
        waits.unwrap_or_default()
    )
}

fn players(players: &Players) -> String {
    let mut parts = vec![match (players.online, players.max) {
        (None, _) => "Who is on is unknown".to_owned(),
        (Some(0), None) => "Nobody is on".to_owned(),
        (Some(0), Some(max)) => format!("Nobody is on (room for {max})"),
        (Some(online), None) => format!("{} on", counted(online.into(), "player", "players")),
        (Some(online), Some(max)) => format!("{online} of {max} players on"),
    }];
    if !players.names.is_empty() {
        let mut names: Vec<String> =
            players.names.iter().take(NAMES_SHOWN).map(|name| plain(name, NAME_SHOWN / 2)).collect();
        if players.names.len() > NAMES_SHOWN {
            names.push(format!("{} more", players.names.len() - NAMES_SHOWN));
        }
        parts[0] += &format!(": {}", names.join(", "));
    }
    parts.extend(players.bots.filter(|bots| *bots > 0).map(|bots| counted(bots.into(), "bot", "bots")));
    parts.extend(
        players.map.as_deref().filter(|map| !map.is_empty()).map(|map| format!("map {}", plain(map, NAME_SHOWN))),
    );
    let version = players.version.as_deref().filter(|version| !version.is_empty());
    parts.extend(version.map(|version| format!("version {}", plain(version, NAME_SHOWN))));
    parts.extend(players.latency_ms.map(|latency| format!("answers in {latency} ms")));
    parts.join(" · ")
}

/// What people chose of where it is rented; what they left open follows the configuration and is not named.
fn place(place: &Place) -> Option<String> {
    let words = [("at", &place.provider), ("in", &place.region), ("as", &place.size), ("with", &place.image)];
    let chosen: Vec<String> =
        words.into_iter().filter_map(|(before, word)| Some(format!("{before} {}", code(word.as_deref()?)))).collect();
    (!chosen.is_empty()).then(|| format!("Rented {}", chosen.join(" ")))
}

fn snapshot(view: &ServerView) -> Option<String> {
    let own = view.snapshot.as_deref()?;
    Some(match (&view.newer_snapshot, view.update_at_start) {
        (Some(newer), true) => format!("Stands on {}; its next start moves it to {}", code(own), code(newer)),
        (Some(newer), false) => format!("Stands on {}; {} is newer, `/server update` moves it", code(own), code(newer)),
        (None, _) => format!("Stands on {}", code(own)),
    })
}

fn last_backup(backup: &BackupView) -> String {
    let doubt = backup.doubt.as_deref().map(|doubt| format!("; {}", plain(doubt, REMARK_SHOWN))).unwrap_or_default();
    if backup.files == 0 && backup.taken_at == 0 {
        return format!("Last backup: damaged{doubt}");
    }
    let files = counted(backup.files, "file", "files");
    format!("Last backup {}: {files}, {}{doubt}", relative(backup.taken_at), bytes(backup.bytes))
}

/// All servers of a guild, one line each.
pub fn list(servers: &[ServerView]) -> Said {
    if servers.is_empty() {
        return Said::new("There is no server here yet. Make one with `/server create`.");
    }
    let line = |view: &ServerView| {
        let mut line = format!("{} · {} · {}", code(&view.name), plain(&view.title, NAME_SHOWN), state(view));
        if let Some(online) = view.players.as_ref().and_then(|players| players.online) {
            line += &format!(" · {} on", counted(online.into(), "player", "players"));
        }
        if let Some(address) = view.address.as_deref().filter(|_| view.state == State::Running) {
            line += &format!(" · {}", code(address));
        }
        if let Some(on) = view.billing.as_ref().filter(|billing| billing.on) {
            line += &format!(" · {}", billing(on));
        }
        line
    };
    Said::new(lines_that_fit("**Servers**", servers.iter().map(line)))
}

/// A headline and as many lines as fit, with the rest counted.
pub fn lines_that_fit(head: &str, lines: impl ExactSizeIterator<Item = String>) -> String {
    const ROOM_FOR_REST: usize = 40;
    let total = lines.len();
    let mut text = head.to_owned();
    for (at, line) in lines.enumerate() {
        let line = clip(&line, MESSAGE_MAX / 4);
        if length(&text) + 1 + length(&line) > MESSAGE_MAX - ROOM_FOR_REST {
            text += &format!("\n… and {} more", total - at);
            break;
        }
        text += &format!("\n{line}");
    }
    text
}

/// Something that people should hear, with a button where it helps. `server` is the id behind the name, if known.
pub fn notice(notice: &Notice, server: Option<&ServerId>, now: Ms) -> Said {
    let extend = |said: Said| match server {
        Some(id) => said.button(Press::Extend(id.clone()), "Extend", Look::Main),
        None => said,
    };
    match notice {
        Notice::LeaseEnds { server, in_ms } => extend(Said::new(format!(
            "The time of {} is over in {}. Then it stops, with its world kept. `/server extend` lengthens it.",
            code(server),
            took(*in_ms)
        ))),
        Notice::IdleStop { server, in_ms } => Said::new(format!(
            "Nobody is on {}. It stops in {}, with its world kept, unless somebody joins.",
            code(server),
            took(*in_ms)
        )),
        Notice::BudgetNear { server, standing } => {
            let whose = whose_budget(server, standing);
            let (month, amounts) = (standing.month.spoken(), standing.spoken());
            let who = match standing.whose {
                BudgetOf::Guild => "every server that rents a host stops".to_owned(),
                BudgetOf::Server => format!("{} stops", code(server)),
            };
            Said::new(match standing.percent() {
                100.. => format!(
                    "{whose} for {month} is spent: {amounts}. When the time ends that is paid for already, {who}, with \
                     worlds kept. `/cost` shows where it went."
                ),
                percent => format!(
                    "{whose} for {month} is {percent} % spent: {amounts}. When it is all spent, {who}, with worlds \
                     kept. `/cost` shows where it went."
                ),
            })
        }
        Notice::BudgetStuck { server, standing } => Said::new(format!(
            "{} for {} is spent ({}), and {} goes on billing: nobody can reach its host now, so its world cannot be \
             saved. It is stopped as soon as it answers. To end it now, look at the provider's console.",
            whose_budget(server, standing),
            standing.month.spoken(),
            standing.spoken(),
            code(server)
        )),
        Notice::Shrunk { server: name, backup, was_bytes, now_bytes } => {
            let said = Said::new(format!(
                "Look at the world of {}: its newest backup {} is much smaller than the one before, {} instead of {}. \
                 Both are kept until somebody decides. Something was lost? `/backup restore` goes back. It is meant \
                 to be like that? Then accept it.",
                code(name),
                code(backup),
                bytes(*now_bytes),
                bytes(*was_bytes)
            ));
            match server {
                Some(id) => said.button(Press::Accept(id.clone(), BackupId(backup.clone())), "Accept it", Look::Plain),
                None => said,
            }
        }
        Notice::Orphan { orphan } => orphans::found(orphan, now),
        Notice::HostLost { server, provider, host, lost_since, backup } => {
            Said::new(orphans::lost(server, provider, host, *lost_since, backup.as_deref()))
        }
        Notice::HostSilent { server, provider, host, since, on } => {
            Said::new(orphans::silent(server, provider, host, *since, *on))
        }
        Notice::StillBills { server, provider, host, cost, standing, held } => {
            let still = orphans::still_bills(server, provider, host, cost.as_deref(), *held);
            let spent = standing.as_ref().map(|standing| {
                let (month, amounts) = (standing.month.spoken(), standing.spoken());
                format!(" {} for {month} is spent ({amounts}).", whose_budget(server, standing))
            });
            Said::new(format!("{still}{}", spent.unwrap_or_default()))
        }
        Notice::Skipped { .. } => schedules::skipped(notice).unwrap_or_default(),
        Notice::HostBack { server, provider, host } => Said::new(orphans::back(server, provider, host)),
    }
}

fn whose_budget(server: &str, standing: &Standing) -> String {
    match standing.whose {
        BudgetOf::Guild => "This guild's budget".to_owned(),
        BudgetOf::Server => format!("The budget of {}", code(server)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::shown;
    use super::*;
    use crate::model::HOUR_MS;
    use crate::model::cost::{Money, Month, Price};
    use crate::model::server::Backend;
    use crate::model::sweep::{Orphan, OrphanKind};

    const T0: Ms = 1_795_000_000_000;

    pub fn server(state: State) -> ServerView {
        ServerView {
            id: "k3j9x0a1b2".into(),
            name: "world".into(),
            game: "openttd".into(),
            title: "OpenTTD".into(),
            backend: Backend::Docker,
            place: None,
            state,
            why: None,
            players: None,
            address: None,
            lease_until: None,
            idle_stop_at: None,
            job: None,
            snapshot: None,
            newer_snapshot: None,
            update_at_start: false,
            scheduled: None,
            last_backup: None,
            billing: None,
            start: None,
        }
    }

    fn backup() -> BackupView {
        BackupView {
            id: "20261121T075309Z-4f1c".into(),
            server: "world".into(),
            taken_at: T0 - 86_400_000,
            files: 412,
            bytes: 18_400_000,
            own_bytes: Some(1_200_000),
            reason: "at a stop".into(),
            by: Some("alice".into()),
            doubt: None,
            acceptable: false,
            present: true,
        }
    }

    fn full() -> ServerView {
        ServerView {
            players: Some(Players {
                online: Some(3),
                max: Some(16),
                bots: Some(1),
                names: vec!["bob".into(), "@everyone".into(), "**carol**".into()],
                map: Some("Europe_1950".into()),
                version: Some("13.4".into()),
                latency_ms: Some(12),
                answers: true,
            }),
            address: Some("play.example.org:27015".into()),
            lease_until: Some(T0 + 3_600_000),
            snapshot: Some("openttd-3".into()),
            newer_snapshot: Some("openttd-4".into()),
            last_backup: Some(backup()),
            ..server(State::Running)
        }
    }

    #[test]
    fn a_running_server() {
        insta::assert_snapshot!(shown(&panel(&full(), T0)), @r"
        **`world`** · OpenTTD · running
        Join at `play.example.org:27015`
        3 of 16 players on: bob, @␣everyone, \*\*carol\*\* · 1 bot · map Europe\_1950 · version 13.4 · answers in 12 ms
        Runs until <t:1795003600:f> (<t:1795003600:R>)
        Stands on `openttd-3`; `openttd-4` is newer, `/server update` moves it
        Last backup <t:1794913600:R>: 412 files, 18 MB
        -# Looked at <t:1795000000:R>
        [Start (off)] [Stop] [Restart] [Extend] [Console]
        ");
    }

    #[test]
    fn every_state_has_its_buttons() {
        let mut all = String::new();
        for state in [State::Offline, State::Starting, State::Running, State::Stopping, State::Failed, State::Unknown] {
            all += &format!("{}\n\n", shown(&panel(&server(state), T0)));
        }
        insta::assert_snapshot!(all, @r"
        **`world`** · OpenTTD · offline
        -# Looked at <t:1795000000:R>
        [Start] [Stop (off)] [Restart (off)] [Extend (off)] [Console (off)]

        **`world`** · OpenTTD · starting
        -# Looked at <t:1795000000:R>
        [Start (off)] [Stop (off)] [Restart (off)] [Extend (off)] [Console (off)]

        **`world`** · OpenTTD · running
        -# Looked at <t:1795000000:R>
        [Start (off)] [Stop] [Restart] [Extend (off)] [Console]

        **`world`** · OpenTTD · stopping
        -# Looked at <t:1795000000:R>
        [Start (off)] [Stop (off)] [Restart (off)] [Extend (off)] [Console (off)]

        **`world`** · OpenTTD · failed
        -# Looked at <t:1795000000:R>
        [Start] [Stop] [Restart] [Extend (off)] [Console (off)]

        **`world`** · OpenTTD · unknown
        -# Looked at <t:1795000000:R>
        [Start] [Stop] [Restart] [Extend (off)] [Console (off)]
        ");
    }

    #[test]
    fn who_has_just_joined_reads_nothing_of_nobody() {
        let joined = ServerView {
            players: Some(Players { online: Some(1), max: Some(16), ..Players::default() }),
            idle_stop_at: Some(T0 + 600_000),
            ..full()
        };
        let text = shown(&panel(&joined, T0));
        assert!(text.contains("1 of 16 players on") && !text.contains("Nobody"), "{text}");
    }

    #[test]
    fn players_are_unknown_rather_than_none() {
        let idle = ServerView {
            players: Some(Players { online: Some(0), max: Some(16), ..Players::default() }),
            idle_stop_at: Some(T0 + 600_000),
            update_at_start: true,
            ..full()
        };
        insta::assert_snapshot!(shown(&panel(&idle, T0)), @r"
        **`world`** · OpenTTD · running
        Join at `play.example.org:27015`
        Nobody is on (room for 16)
        Runs until <t:1795003600:f> (<t:1795003600:R>)
        Nobody is on: it stops <t:1795000600:R> unless somebody joins
        Stands on `openttd-3`; its next start moves it to `openttd-4`
        Last backup <t:1794913600:R>: 412 files, 18 MB
        -# Looked at <t:1795000000:R>
        [Start (off)] [Stop] [Restart] [Extend] [Console]
        ");
        let unknown = ServerView { players: Some(Players::default()), ..server(State::Running) };
        assert!(panel(&unknown, T0).text.contains("Who is on is unknown"));
        let failed =
            ServerView { why: Some("the game ended by itself with exit code 1".into()), ..server(State::Failed) };
        insta::assert_snapshot!(shown(&panel(&failed, T0)), @r"
        **`world`** · OpenTTD · failed
        Why: the game ended by itself with exit code 1
        -# Looked at <t:1795000000:R>
        [Start] [Stop] [Restart] [Extend (off)] [Console (off)]
        ");
    }

    #[test]
    fn a_full_house_and_a_full_guild_stay_within_the_limit() {
        let mut view = full();
        view.players.as_mut().unwrap().names =
            (0..10_000).map(|n| format!("player *{n}* {}", "🎮".repeat(99))).collect();
        view.why = Some("x".repeat(1_000_000));
        shown(&panel(&view, T0));
        let text = shown(&list(&vec![view; 100]));
        assert!(text.contains("… and "), "{text}");
    }

    #[test]
    fn lists_of_servers() {
        let servers = [full(), ServerView { name: "old".into(), ..server(State::Offline) }];
        insta::assert_snapshot!(shown(&list(&servers)), @r"
        **Servers**
        `world` · OpenTTD · running · 3 players on · `play.example.org:27015`
        `old` · OpenTTD · offline
        ");
        insta::assert_snapshot!(shown(&list(&[])), @"There is no server here yet. Make one with `/server create`.");
    }

    #[test]
    fn only_news_makes_a_panel_change() {
        let (early, late) = (panel(&full(), T0), panel(&full(), T0 + 60_000));
        assert_ne!(early.fingerprint(), late.fingerprint());
        assert_eq!(panel_without_time(&early), panel_without_time(&late));
        assert_ne!(panel_without_time(&early), panel_without_time(&panel(&server(State::Running), T0)));
    }

    fn standing(whose: BudgetOf) -> Standing {
        Standing {
            whose,
            budget: "10 USD".parse().unwrap(),
            month: Month::parse("2026-11").unwrap(),
            spent: 8_100_000,
            ahead: 0,
            own_ahead: 0,
        }
    }

    #[test]
    fn the_meter_runs_in_every_state_and_a_host_that_bills_is_never_offline() {
        let price = Price { hourly: 20_000, monthly: None, currency: "USD".into(), unit_ms: 3_600_000 };
        let mut month = Money::default();
        month.add("USD", 1_300_000);
        let on = Billing {
            on: true,
            since: Some(T0),
            price: Some(price),
            so_far: Some(240_000),
            month,
            stop_waits_until: None,
        };
        let waits = Billing { stop_waits_until: Some(T0 + 600_000), ..on.clone() };
        let unknown = Billing { price: None, so_far: None, ..on.clone() };
        let off = Billing { on: false, since: None, price: None, so_far: None, ..on.clone() };
        let mut all = String::new();
        for (state, billing) in [
            (State::Running, on.clone()),
            (State::Offline, on.clone()),
            (State::Failed, on.clone()),
            (State::Unknown, on),
            (State::Running, waits),
            (State::Running, unknown),
            (State::Offline, off),
        ] {
            let view = ServerView { billing: Some(billing), ..server(state) };
            all += &format!("{}\n\n", shown(&panel(&view, T0)));
            let line = list(std::slice::from_ref(&view)).text;
            let bills = view.billing.is_some_and(|billing| billing.on);
            assert!(!(bills && (line.contains("offline") || line.contains("stopped"))), "{line}");
        }
        insta::assert_snapshot!(all, @r"
        **`world`** · OpenTTD · running
        billing: ON, 0.24 $ so far (0.02 $ an hour) · 1.30 $ this month
        -# Looked at <t:1795000000:R>
        [Start (off)] [Stop] [Restart] [Extend (off)] [Console]

        **`world`** · OpenTTD · not running, but its host still bills
        billing: ON, 0.24 $ so far (0.02 $ an hour) · 1.30 $ this month
        -# Looked at <t:1795000000:R>
        [Start] [Stop] [Restart (off)] [Extend (off)] [Console (off)]

        **`world`** · OpenTTD · failed, and its host still bills
        billing: ON, 0.24 $ so far (0.02 $ an hour) · 1.30 $ this month
        -# Looked at <t:1795000000:R>
        [Start] [Stop] [Restart] [Extend (off)] [Console (off)]

        **`world`** · OpenTTD · unknown
        billing: ON, 0.24 $ so far (0.02 $ an hour) · 1.30 $ this month
        -# Looked at <t:1795000000:R>
        [Start] [Stop] [Restart] [Extend (off)] [Console (off)]

        **`world`** · OpenTTD · running
        billing: ON, 0.24 $ so far (0.02 $ an hour) · 1.30 $ this month · stops <t:1795000600:R>: until then it is paid for
        -# Looked at <t:1795000000:R>
        [Start (off)] [Stop] [Restart] [Extend (off)] [Console]

        **`world`** · OpenTTD · running
        billing: ON, and the provider did not say how much
        -# Looked at <t:1795000000:R>
        [Start (off)] [Stop] [Restart] [Extend (off)] [Console]

        **`world`** · OpenTTD · offline
        billing: off · 1.30 $ this month
        -# Looked at <t:1795000000:R>
        [Start] [Stop (off)] [Restart (off)] [Extend (off)] [Console (off)]
        ");
    }

    #[test]
    fn notices() {
        let id = ServerId("k3j9x0a1b2".into());
        let orphan = Orphan {
            backend: Backend::Cloud,
            provider: "hetzner".into(),
            kind: OrphanKind::Host,
            id: "4711".into(),
            name: "spawnpoint-`x`@everyone".into(),
            since: Some(T0 - 26 * HOUR_MS),
            price: Some(Price { hourly: 10_000, monthly: None, currency: "EUR".into(), unit_ms: HOUR_MS }),
            server: None,
            adoptable: true,
        };
        let firewall =
            Orphan { kind: OrphanKind::Firewall, since: None, price: None, adoptable: false, ..orphan.clone() };
        let still_bills = |held, standing| Notice::StillBills {
            server: "world".into(),
            provider: "hetzner".into(),
            host: "4711".into(),
            cost: Some("0.24 €".into()),
            standing,
            held,
        };
        let lost = |lost_since: Option<Ms>, backup: Option<&str>| Notice::HostLost {
            server: "world".into(),
            provider: "hetzner".into(),
            host: "4711".into(),
            lost_since,
            backup: backup.map(str::to_owned),
        };
        let backup = Some("20261121T075309Z-4f1c");
        let all = [
            Notice::LeaseEnds { server: "world".into(), in_ms: 600_000 },
            Notice::IdleStop { server: "world".into(), in_ms: 120_000 },
            Notice::Shrunk {
                server: "world".into(),
                backup: "20261121T075309Z-4f1c".into(),
                was_bytes: 18_400_000,
                now_bytes: 900,
            },
            Notice::Orphan { orphan: Box::new(orphan) },
            Notice::Orphan { orphan: Box::new(firewall) },
            lost(Some(T0), backup),
            lost(Some(T0), None),
            lost(None, backup),
            Notice::HostBack { server: "world".into(), provider: "hetzner".into(), host: "4711".into() },
            Notice::HostSilent {
                server: "world".into(),
                provider: "hetzner".into(),
                host: "4711".into(),
                since: T0,
                on: false,
            },
            Notice::HostSilent {
                server: "world".into(),
                provider: "hetzner".into(),
                host: "4711".into(),
                since: T0,
                on: true,
            },
            still_bills(true, None),
            still_bills(false, Some(standing(BudgetOf::Server))),
            Notice::BudgetNear { server: "world".into(), standing: standing(BudgetOf::Guild) },
            Notice::BudgetNear { server: "world".into(), standing: standing(BudgetOf::Server) },
            Notice::BudgetNear {
                server: "world".into(),
                standing: Standing { spent: 10_000_000, ..standing(BudgetOf::Server) },
            },
            Notice::BudgetStuck { server: "world".into(), standing: standing(BudgetOf::Server) },
        ];
        let text: Vec<String> = all.iter().map(|one| shown(&notice(one, Some(&id), T0))).collect();
        insta::assert_snapshot!(text.join("\n\n"), @r"
        The time of `world` is over in 10 min. Then it stops, with its world kept. `/server extend` lengthens it.
        [Extend]

        Nobody is on `world`. It stops in 2 min, with its world kept, unless somebody joins.

        Look at the world of `world`: its newest backup `20261121T075309Z-4f1c` is much smaller than the one before, 900 bytes instead of 18 MB. Both are kept until somebody decides. Something was lost? `/backup restore` goes back. It is meant to be like that? Then accept it.
        [Accept it]

        Found something with Spawnpoint's label that belongs to no server: host `spawnpoint-ˋxˋ@everyone` (id `4711`) at hetzner, 1 d 2 h old, 0.01 € an hour. It bills until somebody deletes it. It was left alone; an admin can decide. `/admin orphans` lists all.
        [Give it back] [Delete it]

        Found something with Spawnpoint's label that belongs to no server: firewall `spawnpoint-ˋxˋ@everyone` (id `4711`) at hetzner. It was left alone; an admin can decide. `/admin orphans` lists all.
        [Delete it]

        The host of `world` is gone: hetzner says that there is no host `4711`, and Spawnpoint did not destroy it. What was played since <t:1795000000:f> is lost; the newest backup is `20261121T075309Z-4f1c`. The next start rents another one and begins with that backup.

        The host of `world` is gone: hetzner says that there is no host `4711`, and Spawnpoint did not destroy it. What was played since <t:1795000000:f> is lost, and there is no backup. The next start rents another one.

        The host of `world` is gone: hetzner says that there is no host `4711`, and Spawnpoint did not destroy it. Nothing that was played is lost. The next start rents another one and begins with that backup.

        The host of `world` is there after all: `4711` at hetzner was taken for gone. It has billed all the time, and it bills on until it is stopped.

        `world` should be off, and its host `4711` at hetzner has not answered since <t:1795000000:f>. It bills until it is stopped, and it is stopped as soon as it answers. Look at hetzner's page, or try `/server stop`.

        `world` should be running, and its host `4711` at hetzner has not answered since <t:1795000000:f>. It bills until it is stopped, whatever its game does. Look at hetzner's page, or try `/server stop`.

        The host of `world` still bills: `4711` at hetzner, 0.24 € so far. A job of it waits: `/server retry` tries it again now, and its message has the other choices.

        The host of `world` still bills: `4711` at hetzner, 0.24 € so far. `/server stop` saves its world and ends the host. The budget of `world` for November 2026 is spent (8.10 $ of 10.00 $).

        This guild's budget for November 2026 is 81 % spent: 8.10 $ of 10.00 $. When it is all spent, every server that rents a host stops, with worlds kept. `/cost` shows where it went.

        The budget of `world` for November 2026 is 81 % spent: 8.10 $ of 10.00 $. When it is all spent, `world` stops, with worlds kept. `/cost` shows where it went.

        The budget of `world` for November 2026 is spent: 10.00 $ of 10.00 $. When the time ends that is paid for already, `world` stops, with worlds kept. `/cost` shows where it went.

        The budget of `world` for November 2026 is spent (8.10 $ of 10.00 $), and `world` goes on billing: nobody can reach its host now, so its world cannot be saved. It is stopped as soon as it answers. To end it now, look at the provider's console.
        ");
    }
}
