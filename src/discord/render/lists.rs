//! Lists and questions: backups, snapshots, games, grants, the audit log, settings; and what is asked before
//! something is destroyed.

use super::server::lines_that_fit;
use super::text::{MESSAGE_MAX, NAME_SHOWN, REMARK_SHOWN, bytes, clip, code, counted, plain, relative};
use super::{Look, Said};
use crate::app::{AuditEntry, Field, FieldKind, GameView, VariableView};
use crate::discord::ids::{Asker, Press, Sure};
use crate::model::ServerId;
use crate::model::access::{Grant, Grantee};
use crate::model::cost::{Quote, spoken};
use crate::model::view::{BackupView, DearerStart, DoubtedStart, OtherHost, SnapshotView};
use crate::model::world::BackupId;

pub fn backups(server: &str, backups: &[BackupView]) -> Said {
    if backups.is_empty() {
        return Said::new(format!(
            "{} has no backup yet. Every stop makes one; `/backup create` makes one now.",
            code(server)
        ));
    }
    let head = format!(
        "**{} of {}**, {} on disk that no other backup shares",
        counted(backups.len() as u64, "backup", "backups"),
        code(server),
        in_all(backups.iter().map(|backup| backup.own_bytes))
    );
    let doubted = backups.iter().any(|backup| backup.acceptable);
    let advice = doubted.then_some(
        "\nA world became much smaller. Until somebody decides, no backup that could undo it goes. Was it meant? \
         `/backup accept` says so. Was something lost? `/backup restore` goes back to one before it.",
    );
    let head = head + advice.unwrap_or_default();
    Said::new(lines_that_fit(&head, backups.iter().map(backup_line)))
}

/// What it means to accept a doubted backup.
pub fn whether_to_accept(server: &str, backup: &BackupView) -> String {
    let doubt = backup.doubt.as_deref().map(|doubt| format!(" It is {}.", plain(doubt, REMARK_SHOWN)));
    format!(
        "Accept the backup {} of {}?{} If you accept it, this smaller world counts as the right one, and the backups \
         of the larger one go when it is their time. If something was lost, leave it: `/backup restore` goes back.",
        code(&backup.id),
        code(server),
        doubt.unwrap_or_default()
    )
}

/// The question before a start that would begin with a doubted world.
pub fn whether_to_begin(server: &ServerId, start: &DoubtedStart, asker: Asker) -> Said {
    let DoubtedStart { server: name, backup, good } = start;
    let doubt = match &backup.doubt {
        Some(doubt) => plain(doubt, REMARK_SHOWN),
        None => "much smaller than the world was".to_owned(),
    };
    let named = |backup: &BackupView| {
        let size = format!("{}, {}", counted(backup.files, "file", "files"), bytes(backup.bytes));
        format!("{} ({}, {size})", code(&backup.id), relative(backup.taken_at))
    };
    let text = format!(
        "The world of {} is in doubt: it is the backup {}, and that is {doubt}. The newest good one is {}. Which one \
         shall it be? Neither is lost by that. Going back takes the permission “operate”, and leaves it off: start it \
         then. `/backup accept` says that a smaller world is right, and ends the question.",
        code(name),
        named(backup),
        named(good),
    );
    let sure = |make: fn(ServerId, BackupId) -> Sure, backup: &BackupView| {
        Press::Sure(make(server.clone(), BackupId(backup.id.clone())), asker)
    };
    Said::new(format!("{text}\n{}", ends(asker)))
        .button(sure(Sure::StartWith, backup), "Start with it", Look::Danger)
        .button(sure(Sure::Restore, good), "Go back to the good one", Look::Plain)
        .button(Press::Never, "Leave it", Look::Plain)
}

/// The question before a start on another host than the usual one.
pub fn which_host(server: &ServerId, start: &DearerStart, asker: Asker) -> Said {
    let asks = |quote: &Quote| {
        quote
            .price
            .as_ref()
            .map_or_else(String::new, |price| format!("{} an hour", spoken(price.hourly, &price.currency)))
    };
    let host = |OtherHost { quote, moves, .. }: &OtherHost| match moves {
        true => format!("{}: {} in {}", quote.provider, quote.size, quote.region),
        false => format!("{} in {}", quote.size, quote.region),
    };
    let line = |other: &OtherHost| {
        let but = match other {
            OtherHost { moves: true, .. } => {
                ", and from there from now on, in a place chosen anew; takes the permission “operate”"
            }
            OtherHost { named: true, .. } => {
                ", for this start; not what its settings name, so it takes the permission “operate”"
            }
            OtherHost { usual: true, .. } => ", the usual one, at this price from now on",
            _ => ", for this start",
        };
        let has = other.quote.equipment().map_or_else(String::new, |has| format!(", {has}"));
        format!("\n- {}{has}: about {}{but}", plain(&host(other), NAME_SHOWN), asks(&other.quote))
    };
    let lines: String = start.others.iter().map(line).collect();
    let again = if start.refused { " Its provider refused the usual one some minutes ago." } else { "" };
    let text = format!(
        "{} is not started yet. {}{again} There is:{lines}\nWhich one shall it be? `/server settings` changes it for good, also for schedules.",
        code(&start.server),
        plain(&start.why, REMARK_SHOWN),
    );
    let mut said = Said::new(format!("{text}\n{}", ends(asker)));
    for other in &start.others {
        let label = format!("{}, {}", host(other), asks(&other.quote));
        let sure = Sure::StartOn(server.clone(), other.tag.clone());
        said = said.button(Press::Sure(sure, asker), label, Look::Plain);
    }
    if start.refused {
        said =
            said.button(Press::Sure(Sure::StartAnyway(server.clone()), asker), "Try the usual one again", Look::Plain);
    }
    said.button(Press::Never, "Leave it", Look::Plain)
}

fn backup_line(backup: &BackupView) -> String {
    let doubt =
        backup.doubt.as_deref().map(|doubt| format!(" · careful: {}", plain(doubt, REMARK_SHOWN))).unwrap_or_default();
    if backup.taken_at == 0 {
        return format!("{} · {}{doubt}", code(&backup.id), plain(&backup.reason, NAME_SHOWN));
    }
    let by = backup.by.as_deref().map(|by| format!(" by {}", plain(by, NAME_SHOWN))).unwrap_or_default();
    let present = if backup.present { " · the present world" } else { "" };
    format!(
        "{} · {} · {}, {} · {}{by}{present}{doubt}",
        code(&backup.id),
        relative(backup.taken_at),
        counted(backup.files, "file", "files"),
        bytes(backup.bytes),
        plain(&backup.reason, NAME_SHOWN)
    )
}

pub fn snapshots(snapshots: &[SnapshotView]) -> Said {
    if snapshots.is_empty() {
        return Said::new("There is no snapshot yet. A game's first start makes one, or `/snapshot build`.");
    }
    let size = |bytes_measured: Option<i64>| {
        bytes_measured.and_then(|count| u64::try_from(count).ok()).map_or("size unknown".to_owned(), bytes)
    };
    let line = |snapshot: &SnapshotView| {
        let mut parts = vec![code(&snapshot.id)];
        parts.push(match (snapshot.sealed, snapshot.files) {
            (false, _) => "being built".to_owned(),
            (true, Some(files)) => {
                format!(
                    "{}, {}",
                    counted(u64::try_from(files).unwrap_or_default(), "file", "files"),
                    size(snapshot.bytes)
                )
            }
            (true, None) => size(snapshot.bytes),
        });
        parts.push(relative(snapshot.created_at));
        if snapshot.golden {
            parts.push("golden: new drives are cloned from it".to_owned());
        }
        if snapshot.outdated {
            parts.push("the recipe has changed since; `/snapshot build` makes a new one".to_owned());
        }
        let drives: Vec<String> = snapshot
            .drives
            .iter()
            .map(|(server, own)| match own {
                Some(own) if snapshot.copied => format!("{} ({})", plain(server, NAME_SHOWN), bytes(*own)),
                Some(own) => format!("{} ({} of its own)", plain(server, NAME_SHOWN), bytes(*own)),
                None => format!("{} (size unknown)", plain(server, NAME_SHOWN)),
            })
            .collect();
        parts.push(match drives.as_slice() {
            [] => "no drive stands on it".to_owned(),
            drives => format!("{}: {}", counted(drives.len() as u64, "drive", "drives"), drives.join(", ")),
        });
        parts.join(" · ")
    };
    Said::new(lines_that_fit(&on_disk(snapshots), snapshots.iter().map(line)))
}

/// What drives take, and what they need not take because they share it.
fn on_disk(snapshots: &[SnapshotView]) -> String {
    let stood_on = || snapshots.iter().filter(|one| one.sealed && !one.drives.is_empty());
    let own = in_all(stood_on().flat_map(|one| &one.drives).map(|(_, own)| *own));
    if stood_on().next().is_none() {
        return "**Snapshots**; no drive stands on one".to_owned();
    }
    if stood_on().all(|one| one.copied) {
        return format!("**Snapshots**; drives are whole copies here, and take {own}");
    }
    let shared = in_all(stood_on().map(|one| u64::try_from(one.bytes?).ok()));
    format!("**Snapshots**: {shared} shared by the drives on them, {own} that drives hold alone")
}

/// A sum of sizes. One that could not be measured is `None`, which is not zero.
fn in_all(sizes: impl Iterator<Item = Option<u64>>) -> String {
    let sizes: Vec<_> = sizes.collect();
    let known: u64 = sizes.iter().flatten().sum();
    if sizes.iter().all(Option::is_some) {
        bytes(known)
    } else if sizes.iter().any(Option::is_some) {
        format!("at least {}", bytes(known))
    } else {
        "an unknown amount".to_owned()
    }
}

pub fn games(games: &[GameView]) -> Said {
    if games.is_empty() {
        return Said::new("There is no recipe here. Whoever operates Spawnpoint puts them into `game-scripts`.");
    }
    let line = |game: &GameView| {
        let snapshot = match &game.snapshot {
            Some(snapshot) => format!("golden snapshot {}", code(snapshot)),
            None => "not installed yet: the first start takes longer".to_owned(),
        };
        format!("{} · **{}** · {snapshot}", code(&game.game), plain(&game.title, NAME_SHOWN))
    };
    Said::new(lines_that_fit("**Games**; `/game show` tells more about one", games.iter().map(line)))
}

pub fn game(game: &GameView) -> Said {
    let mut text = format!("**{}** ({})", plain(&game.title, NAME_SHOWN), code(&game.game));
    if !game.description.is_empty() {
        text += &format!("\n{}", plain(&game.description, REMARK_SHOWN * 2));
    }
    // Angle brackets keep Discord from drawing a preview.
    let homepage =
        game.homepage.as_deref().filter(|page| page.starts_with("https://") && !page.contains(['<', '>', ' ']));
    if let Some(page) = homepage {
        text += &format!("\n<{}>", clip(page, 200));
    }
    let ports: Vec<String> = game.ports.iter().map(|port| plain(port, NAME_SHOWN)).collect();
    text += &format!("\nPorts: {} · memory: {} MB", ports.join(", "), game.memory_mb);
    text += &match &game.console {
        Some(console) => format!(" · console: {}", plain(console, NAME_SHOWN)),
        None => " · no console".to_owned(),
    };
    text += if game.keeps_world { " · keeps a world" } else { " · keeps no world" };
    text += &match &game.snapshot {
        Some(snapshot) => format!("\nGolden snapshot: {}", code(snapshot)),
        None => "\nNot installed yet: the first start, or `/snapshot build`, installs it.".to_owned(),
    };
    if game.variables.is_empty() {
        return Said::new(text);
    }
    Said::new(lines_that_fit(
        &clip(&format!("{text}\nSettings:"), MESSAGE_MAX - 60),
        game.variables.iter().map(variable),
    ))
}

fn variable(variable: &VariableView) -> String {
    let mut about = vec![plain(&variable.allowed, REMARK_SHOWN)];
    about.extend(variable.default.as_deref().map(|default| format!("default {}", code(default))));
    about.extend(variable.required.then(|| "needed".to_owned()));
    about.extend(variable.secret.then(|| "secret".to_owned()));
    format!("{}: {} ({})", code(&variable.key), plain(&variable.help, REMARK_SHOWN), about.join(", "))
}

/// What may stand in a setting, for people.
pub fn what_is_allowed(field: &Field) -> String {
    match &field.kind {
        FieldKind::Text => "Any text.".to_owned(),
        FieldKind::YesNo => "`true` or `false`.".to_owned(),
        FieldKind::Choice(allowed) => {
            format!("One of {}.", allowed.iter().map(|one| code(one)).collect::<Vec<_>>().join(", "))
        }
        FieldKind::Decimal { min, max } => format!("A number from {min} to {max}."),
        FieldKind::Number { min: Some(min), max: Some(max) } => format!("A whole number from {min} to {max}."),
        FieldKind::Number { min: Some(min), max: None } => format!("A whole number, {min} or more."),
        FieldKind::Number { min: None, max: Some(max) } => format!("A whole number, {max} or less."),
        FieldKind::Number { min: None, max: None } => "A whole number.".to_owned(),
    }
}

/// Who may do what, and under it who did what.
pub fn audit_with_grants(entries: &[AuditEntry], grants: &[(Grant, Option<String>)]) -> Said {
    let grants = clip(&granted(grants), MESSAGE_MAX / 2);
    if entries.is_empty() {
        return Said::new(format!("{grants}\n**Audit log**: nothing is on record yet"));
    }
    let line = |entry: &AuditEntry| {
        let server = entry.server.as_deref().map(|server| format!(" {}", code(server))).unwrap_or_default();
        let detail = match entry.detail.is_empty() {
            true => String::new(),
            false => format!(" ({})", plain(&entry.detail, REMARK_SHOWN / 2)),
        };
        let (who, action) = (plain(entry.actor.name(), NAME_SHOWN), plain(&entry.action, NAME_SHOWN));
        let outcome = plain(&entry.outcome, REMARK_SHOWN / 2);
        format!("{} · {who} · {action}{server}{detail} · {outcome}", relative(entry.at))
    };
    Said::new(lines_that_fit(&format!("{grants}\n**Audit log**, newest first"), entries.iter().map(line)))
}

fn granted(grants: &[(Grant, Option<String>)]) -> String {
    let line = |(grant, server): &(Grant, Option<String>)| {
        let who = match &grant.grantee {
            Grantee::User(id) => format!("<@{id}>"),
            Grantee::Role(id) => format!("<@&{id}>"),
        };
        let place = server.as_deref().map_or("all servers".to_owned(), code);
        format!("{who} · {} · {place}", grant.permission.word())
    };
    let head = match grants {
        [] => "**Grants**: none",
        _ => "**Grants**",
    };
    lines_that_fit(head, grants.iter().map(line))
}

/// A question before something is destroyed. Only who was asked can answer it, and not for long.
pub fn question(text: &str, yes: &str, sure: Sure, asker: Asker) -> Said {
    Said::new(format!("{text}\n{}", ends(asker))).button(Press::Sure(sure, asker), yes, Look::Danger).button(
        Press::Never,
        "Leave it",
        Look::Plain,
    )
}

fn ends(asker: Asker) -> String {
    format!("-# Only you can answer. The question ends {}.", relative(asker.until))
}

#[cfg(test)]
mod tests {
    use super::super::shown;
    use super::*;
    use crate::model::Ms;

    const T0: Ms = 1_795_000_000_000;

    fn backup(id: &str) -> BackupView {
        BackupView {
            id: id.into(),
            server: "world".into(),
            taken_at: T0,
            files: 1,
            bytes: 18_400_000,
            own_bytes: Some(1_200_000),
            reason: "asked for".into(),
            by: Some("@everyone".into()),
            doubt: None,
            acceptable: false,
            present: false,
        }
    }

    #[test]
    fn backups_that_were_not_all_measured() {
        let head = |own: [Option<u64>; 2]| {
            let list = own.map(|own_bytes| BackupView { own_bytes, ..backup("20261121T075309Z-4f1c") });
            shown(&backups("world", &list)).lines().next().unwrap_or_default().to_owned()
        };
        insta::assert_snapshot!(head([Some(1_200_000), None]), @"**2 backups of `world`**, at least 1.2 MB on disk that no other backup shares");
        insta::assert_snapshot!(head([None, None]), @"**2 backups of `world`**, an unknown amount on disk that no other backup shares");
    }

    #[test]
    fn backups_with_what_is_doubtful() {
        let list = [
            BackupView { present: true, ..backup("20261121T075309Z-4f1c") },
            BackupView {
                doubt: Some("much smaller than the one before".into()),
                acceptable: true,
                ..backup("20261120T075309Z-1111")
            },
            BackupView {
                taken_at: 0,
                reason: "damaged".into(),
                doubt: Some("a file is missing".into()),
                ..backup("20261119T075309Z-2222")
            },
        ];
        insta::assert_snapshot!(shown(&backups("world", &list)), @r"
        **3 backups of `world`**, 3.6 MB on disk that no other backup shares
        A world became much smaller. Until somebody decides, no backup that could undo it goes. Was it meant? `/backup accept` says so. Was something lost? `/backup restore` goes back to one before it.
        `20261121T075309Z-4f1c` · <t:1795000000:R> · 1 file, 18 MB · asked for by @␣everyone · the present world
        `20261120T075309Z-1111` · <t:1795000000:R> · 1 file, 18 MB · asked for by @␣everyone · careful: much smaller than the one before
        `20261119T075309Z-2222` · damaged · careful: a file is missing
        ");
        insta::assert_snapshot!(shown(&backups("world", &[])), @"`world` has no backup yet. Every stop makes one; `/backup create` makes one now.");
        assert!(shown(&backups("world", &vec![backup("20261121T075309Z-4f1c"); 500])).contains("… and "));
    }

    #[test]
    fn snapshots_with_who_stands_on_them() {
        let snapshot = |version: i64| SnapshotView {
            id: format!("openttd-{version}"),
            game: "openttd".into(),
            version,
            golden: version == 2,
            sealed: version < 3,
            created_at: T0,
            files: Some(4120),
            bytes: Some(200_000_000),
            outdated: version == 2,
            copied: false,
            drives: if version == 1 { vec![("world".into(), Some(12_000)), ("other".into(), None)] } else { vec![] },
        };
        insta::assert_snapshot!(shown(&snapshots(&[snapshot(3), snapshot(2), snapshot(1)])), @r"
        **Snapshots**: 200 MB shared by the drives on them, at least 12 KB that drives hold alone
        `openttd-3` · being built · <t:1795000000:R> · no drive stands on it
        `openttd-2` · 4120 files, 200 MB · <t:1795000000:R> · golden: new drives are cloned from it · the recipe has changed since; `/snapshot build` makes a new one · no drive stands on it
        `openttd-1` · 4120 files, 200 MB · <t:1795000000:R> · 2 drives: world (12 KB of its own), other (size unknown)
        ");
        let copy = SnapshotView { copied: true, drives: vec![("world".into(), Some(200_012_000))], ..snapshot(1) };
        insta::assert_snapshot!(shown(&snapshots(&[snapshot(3), copy])), @r"
        **Snapshots**; drives are whole copies here, and take 200 MB
        `openttd-3` · being built · <t:1795000000:R> · no drive stands on it
        `openttd-1` · 4120 files, 200 MB · <t:1795000000:R> · 1 drive: world (200 MB)
        ");
        let copies = |drives| on_disk(&[SnapshotView { copied: true, drives, ..snapshot(1) }]);
        insta::assert_snapshot!(copies(vec![("world".into(), Some(200_012_000)), ("other".into(), None)]), @"**Snapshots**; drives are whole copies here, and take at least 200 MB");
        let unmeasured = SnapshotView { bytes: None, drives: vec![("world".into(), None)], ..snapshot(1) };
        insta::assert_snapshot!(on_disk(&[unmeasured]), @"**Snapshots**: an unknown amount shared by the drives on them, an unknown amount that drives hold alone");
        insta::assert_snapshot!(shown(&snapshots(&[snapshot(2)])), @r"
        **Snapshots**; no drive stands on one
        `openttd-2` · 4120 files, 200 MB · <t:1795000000:R> · golden: new drives are cloned from it · the recipe has changed since; `/snapshot build` makes a new one · no drive stands on it
        ");
    }

    #[test]
    fn a_question_says_who_may_answer() {
        let sure = Sure::Delete(ServerId("k3j9x0a1b2".into()));
        let said = question("Delete `world`?", "Delete world", sure, Asker::new(7, T0));
        insta::assert_snapshot!(shown(&said), @r"
        Delete `world`?
        -# Only you can answer. The question ends <t:1795000180:R>.
        [Delete world] [Leave it]
        ");
    }
}
