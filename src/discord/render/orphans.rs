//! What a sweep found, and what is asked before some of it is deleted.

use super::server::lines_that_fit;
use super::text::{NAME_SHOWN, REMARK_SHOWN, code, counted, moment, plain, relative, took};
use super::{Look, Said};
use crate::app::{LostView, OrphanView, Orphans};
use crate::discord::ids::Press;
use crate::model::cost::spoken;
use crate::model::sweep::{Orphan, OrphanKind, Unasked};
use crate::model::{JobId, Ms};

/// Orphans that one list has buttons for: a message holds 25.
const WITH_BUTTONS: usize = 10;

pub fn orphans(all: &Orphans, now: Ms) -> Said {
    let Orphans { found, waiting, leaving, lost, unasked } = all;
    let mut lines: Vec<String> = unasked.iter().map(unlooked).collect();
    lines.extend(lost.iter().map(host_lost));
    let numbered = found.iter().enumerate().map(|(at, view)| format!("{}. {}", at + 1, line(view, now)));
    lines.extend(numbered);
    lines.extend(waiting.iter().map(|(view, job)| waits(view, *job, now)));
    lines.extend(leaving.iter().map(|view| leaves(view, now)));
    let head = match found.len() {
        0 if !waiting.is_empty() => {
            "**Nothing can be put away now**: first decide about the jobs that wait.".to_owned()
        }
        0 if !leaving.is_empty() => "**What no server has is on its way out**, and is not gone yet.".to_owned(),
        0 if unasked.is_empty() => {
            "**Nothing lies around**: everything with this Spawnpoint's label belongs to a server.".to_owned()
        }
        0 => "**Not everything could be looked at.** In the rest, everything belongs to a server.".to_owned(),
        count => {
            format!("**{} with this Spawnpoint's label that no server has**", counted(count as u64, "thing", "things"))
        }
    };
    let mut said = Said::new(lines_that_fit(&head, lines.into_iter()));
    for (at, view) in found.iter().take(WITH_BUTTONS).enumerate() {
        let tag = view.orphan.tag();
        if view.adoptable {
            said = said.button(Press::AdoptOrphan(tag.clone()), format!("Give back {}", at + 1), Look::Main);
        }
        said = said.button(Press::DeleteOrphan(tag), format!("Delete {}", at + 1), Look::Danger);
    }
    said
}

fn unlooked(unasked: &Unasked) -> String {
    format!("Could not be looked at: {}. {}", plain(&unasked.provider, NAME_SHOWN), plain(&unasked.why, REMARK_SHOWN))
}

/// What its job may still want, so that it has no buttons.
fn waits(view: &OrphanView, job: JobId, now: Ms) -> String {
    format!(
        "{} · job {job} of that server waits for a person: decide it first, with `/server retry` or `/server cancel`",
        line(view, now)
    )
}

/// A delete that its provider has accepted and not done.
fn leaves(view: &OrphanView, now: Ms) -> String {
    format!(
        "{} · its provider is deleting it, and it may bill until it is gone: if it stays here, look at {}'s page",
        line(view, now),
        plain(&view.orphan.provider, NAME_SHOWN)
    )
}

fn host_lost(lost: &LostView) -> String {
    let backup = lost.backup.as_ref().map(ToString::to_string);
    let what = what_was_lost(lost.lost_since, backup.as_deref());
    format!(
        "{} has the host {} on record, and {} does not have it. {what}",
        code(&lost.server),
        code(&lost.host.id),
        plain(&lost.host.provider, NAME_SHOWN)
    )
}

fn what_was_lost(since: Option<Ms>, backup: Option<&str>) -> String {
    match (since, backup) {
        (None, _) => "Nothing that was played is lost.".to_owned(),
        (Some(since), Some(backup)) => {
            format!("What was played since {} is lost; the newest backup is {}.", moment(since), code(backup))
        }
        (Some(since), None) => format!("What was played since {} is lost, and there is no backup.", moment(since)),
    }
}

fn line(view: &OrphanView, now: Ms) -> String {
    let mut parts = vec![named(&view.orphan)];
    parts.extend(age_and_price(view, now));
    parts.push(match &view.server {
        Some(server) if view.deleted => format!("made for {}, which is deleted", code(server)),
        Some(server) => format!("made for {}", code(server)),
        None if view.orphan.server.is_some() => "made for a server that nobody knows".to_owned(),
        None => "nobody knows what for".to_owned(),
    });
    parts.join(" · ")
}

fn named(orphan: &Orphan) -> String {
    let name = if orphan.name == orphan.id { String::new() } else { format!(" {}", code(&orphan.name)) };
    format!("{}{name} (id {}) at {}", orphan.kind.word(), code(&orphan.id), plain(&orphan.provider, NAME_SHOWN))
}

fn age_and_price(view: &OrphanView, now: Ms) -> Vec<String> {
    let age = view.orphan.since.map(|since| format!("{} old", took((now - since).max(0))));
    let price = view.orphan.price.as_ref().map(|price| {
        let so_far = view.so_far.map(|amount| format!(", {} so far", spoken(amount, &price.currency)));
        format!("{} an hour{}", spoken(price.hourly, &price.currency), so_far.unwrap_or_default())
    });
    age.into_iter().chain(price).collect()
}

/// What is asked before an orphan is deleted: which it is, how old, what it costs, and which world may go with it.
pub fn whether_to_delete(view: &OrphanView, now: Ms) -> String {
    let facts = age_and_price(view, now);
    let facts = if facts.is_empty() { "its age and price are not known".to_owned() } else { facts.join(", ") };
    let mut text = format!("Delete the {}? ({facts})", named(&view.orphan));
    if !view.orphan.kind.may_hold_world() {
        return text + " No world is on it.";
    }
    if view.orphan.kind == OrphanKind::Folder {
        text += " A game that runs in it is stopped first.";
    }
    text += " **A world may be on it that is in no backup; it would be lost.**";
    text += &match (&view.server, &view.backup) {
        (Some(server), Some(backup)) => {
            let when = backup.taken_at().map(|at| format!(", {}", relative(at))).unwrap_or_default();
            format!(" The newest backup of {} is {}{when}.", code(server), code(&backup.0))
        }
        (Some(server), None) => format!(" There is no backup of {}.", code(server)),
        (None, _) => " Nobody knows which server it was for.".to_owned(),
    };
    if view.adoptable {
        text += " To save what is on it, give it back instead: then it is stopped with a backup.";
    }
    text
}

/// What is asked before a host is given back to a server that has been saved since that host was made: what is on it may be
/// older than what people have played since.
pub fn whether_to_give_back(view: &OrphanView) -> Option<String> {
    let (server, backup) = (view.server.as_ref()?, view.backup.as_ref()?);
    let saved_before = view.orphan.since.zip(backup.taken_at()).is_some_and(|(made, saved)| saved <= made);
    if !view.adoptable || saved_before {
        return None;
    }
    let when = backup.taken_at().map(|at| format!(", {}", relative(at))).unwrap_or_default();
    Some(format!(
        "Give the {} back to {}? The newest backup is {}{when}. **If something on that host was never saved, {} goes on with \
         it**, also where people have played elsewhere since. No backup goes: `/backup restore` brings a later world back.",
        named(&view.orphan),
        code(server),
        code(&backup.0),
        code(server),
    ))
}

/// An orphan, told in a channel where nobody asked for it.
pub fn found(orphan: &Orphan, now: Ms) -> Said {
    let view = OrphanView {
        orphan: orphan.clone(),
        server: None,
        deleted: false,
        backup: None,
        so_far: None,
        adoptable: false,
    };
    let facts: String = age_and_price(&view, now).into_iter().map(|fact| format!(", {fact}")).collect();
    let bills = if orphan.price.is_some() { " It bills until somebody deletes it." } else { "" };
    let tag = orphan.tag();
    let said = Said::new(format!(
        "Found something with Spawnpoint's label that belongs to no server: {}{facts}.{bills} It was left alone; an \
         admin can decide. `/admin orphans` lists all.",
        named(orphan)
    ));
    let said = match orphan.adoptable {
        true => said.button(Press::AdoptOrphan(tag.clone()), "Give it back", Look::Main),
        false => said,
    };
    said.button(Press::DeleteOrphan(tag), "Delete it", Look::Danger)
}

/// A host that is gone without a job.
pub fn lost(server: &str, provider: &str, host: &str, since: Option<Ms>, backup: Option<&str>) -> String {
    let next = match backup {
        Some(_) => " The next start rents another one and begins with that backup.",
        None => " The next start rents another one.",
    };
    format!(
        "The host of {} is gone: {} says that there is no host {}, and Spawnpoint did not destroy it. {}{next}",
        code(server),
        plain(provider, NAME_SHOWN),
        code(host),
        what_was_lost(since, backup)
    )
}

/// A host that nobody can stop, because nobody reaches it.
pub fn silent(server: &str, provider: &str, host: &str, since: Ms, on: bool) -> String {
    let at = plain(provider, NAME_SHOWN);
    let (should, next) = match on {
        true => ("be running", ", whatever its game does"),
        false => ("be off", ", and it is stopped as soon as it answers"),
    };
    format!(
        "{} should {should}, and its host {} at {at} has not answered since {}. It bills until it is stopped{next}. Look at \
         {at}'s page, or try `/server stop`.",
        code(server),
        code(host),
        moment(since)
    )
}

/// A host that waits for people.
pub fn still_bills(server: &str, provider: &str, host: &str, cost: Option<&str>, held: bool) -> String {
    let so_far = cost.map(|cost| format!(", {cost} so far")).unwrap_or_default();
    let what_now = match held {
        true => "A job of it waits: `/server retry` tries it again now, and its message has the other choices.",
        false => "`/server stop` saves its world and ends the host.",
    };
    format!(
        "The host of {} still bills: {} at {}{so_far}. {what_now}",
        code(server),
        code(host),
        plain(provider, NAME_SHOWN)
    )
}

/// A host that was taken for gone and is not.
pub fn back(server: &str, provider: &str, host: &str) -> String {
    format!(
        "The host of {} is there after all: {} at {} was taken for gone. It has billed all the time, and it bills on \
         until it is stopped.",
        code(server),
        code(host),
        plain(provider, NAME_SHOWN)
    )
}
