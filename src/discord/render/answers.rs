//! What the asker alone reads right after a command or a click: what happens now, and where to watch it.

use super::lists::what_is_allowed;
use super::server::lines_that_fit;
use super::text::{NAME_SHOWN, REMARK_SHOWN, clip, code, moment, plain, relative};
use super::{Look, Said};
use crate::app::{Applied, Created, Extended, Field, Form, Moving, UpdateWhen};
use crate::discord::ids::Press;
use crate::model::bill::{More, StartPrice};
use crate::model::cost::{Quote, spoken};
use crate::model::job::Action;
use crate::model::server::Backend;
use crate::model::{JobId, ServerId};

/// Inputs that fit into one form.
pub const INPUTS: usize = 5;

/// A job was opened; its message follows in the channel.
pub fn opened(action: &Action, subject: &str, job: JobId, channel: u64) -> Said {
    let what = super::job::doing(action);
    Said::new(format!("{what} {} (job {job}). Watch <#{channel}>.", code(subject)))
}

/// The same for a move, with what a start costs there.
pub fn moved(action: &Action, subject: &str, job: JobId, channel: u64, told: Option<&Quote>) -> Said {
    let opened = opened(action, subject, job, channel);
    match told.and_then(super::cost::host_quote) {
        Some(quote) => Said::new(format!("{}\n{quote}", opened.text)),
        None => opened,
    }
}

/// The same for a start, with what it costs.
pub fn started(subject: &str, job: JobId, channel: u64, price: Option<&StartPrice>) -> Said {
    let opened = opened(&Action::Start, subject, job, channel);
    match price.and_then(super::cost::start_price) {
        Some(price) => Said::new(format!("{}\n{price}", opened.text)),
        None => opened,
    }
}

pub fn extended(server: &str, extended: &Extended) -> Said {
    let until = extended.until;
    let costs = match &extended.more {
        None => String::new(),
        Some(More::Costs { amount, currency }) => {
            format!(" Its host costs at most {} more for that.", spoken(*amount, currency))
        }
        Some(More::Nothing) => " Its host costs nothing more for that: the time is paid for.".to_owned(),
        Some(More::Unknown) => " What its host costs for that is not known.".to_owned(),
    };
    Said::new(format!("{} now runs until {} ({}).{costs}", code(server), moment(until), relative(until)))
}

pub fn created(created: &Created) -> Said {
    let view = &created.view;
    let quote = view.place.as_ref().and_then(|place| place.told.as_deref());
    let named = quote.and_then(super::cost::host_quote).map(|quote| format!("\n{quote}"));
    let rents = created.cheapest.as_ref().map(|found| format!("\n{}", super::cost::cheapest(found))).or(named);
    Said::new(format!(
        "{} is made: {} on {}. Start it with `/server start` or the button on its panel.{}",
        code(&view.name),
        plain(&view.title, NAME_SHOWN),
        view.backend.word(),
        rents.unwrap_or_default()
    ))
}

/// What a move does and costs, before it is done.
pub fn moving(moving: &Moving) -> String {
    let runs = if moving.running { "It runs now, so it is stopped first. " } else { "" };
    let saved = match moving.to {
        Backend::Cloud => "A backup of its world is made, then its drive here is deleted.",
        Backend::Docker => "A backup of its world is kept before its host goes, if it has one.",
    };
    let costs = match (moving.to, &moving.quote) {
        (Backend::Docker, _) => "There it costs nothing but this machine's room and memory.".to_owned(),
        (Backend::Cloud, None) => "What its host costs there could not be asked just now.".to_owned(),
        (Backend::Cloud, Some(Quote { provider, region, size, price, cpus: _, memory_mb: _ })) => {
            let what = [size, region, provider].map(|word| code(word)).join(", ");
            match price {
                Some(price) => format!(
                    "There it costs {} for each hour that its host exists ({what}).",
                    spoken(price.hourly, &price.currency)
                ),
                None => format!("There it runs on a machine of your own ({what}), and nothing is billed."),
            }
        }
    };
    let again = match moving.starts {
        0 => "It is not started again by itself.".to_owned(),
        1 => "One schedule starts it again.".to_owned(),
        n => format!("{n} schedules start it again."),
    };
    let own = moving.quote.as_ref().is_some_and(|quote| quote.price.is_none());
    let rents = match (moving.to, moving.starts) {
        (Backend::Cloud, 1..) if !own => " Each of these starts rents a host.",
        (Backend::Cloud | Backend::Docker, _) => "",
    };
    format!(
        "Move {}, so that it runs {}? {runs}{saved} {again}{rents} {costs}",
        code(&moving.name),
        super::job::where_to(moving.to)
    )
}

pub fn updated(server: &str, when: UpdateWhen, job: Option<JobId>, channel: u64) -> Said {
    match (when, job) {
        (UpdateWhen::Now | UpdateWhen::NextStart, Some(job)) => opened(&Action::Update, server, job, channel),
        (UpdateWhen::Now | UpdateWhen::NextStart, None) => Said::new(format!(
            "{} moves to the newest snapshot at its next start. A backup is made before.",
            code(server)
        )),
    }
}

pub fn applied(server: &str, applied: &Applied) -> Said {
    if applied.changed.is_empty() {
        return Said::new(format!("Nothing changed: {} has these settings already.", code(server)));
    }
    let changed: Vec<String> = applied.changed.iter().map(|key| code(key)).collect();
    let when = if applied.at_next_start { " It runs now, so this counts from its next start on." } else { "" };
    let named = applied.quote.as_ref().and_then(super::cost::host_quote).map(|quote| format!("\n{quote}"));
    let rents = applied.cheapest.as_ref().map(|found| format!("\n{}", super::cost::cheapest(found))).or(named);
    Said::new(format!("Changed {} of {}.{when}{}", changed.join(", "), code(server), rents.unwrap_or_default()))
}

/// All settings of a server, and buttons that open forms for them.
pub fn settings(form: &Form, id: &ServerId) -> Said {
    let secrets = match form.fields.iter().any(|field| field.secret) {
        true => " A secret one does with the option `reset`.",
        false => "",
    };
    let head = format!(
        "**Settings of {}** ({})\nThe buttons open forms. An emptied field goes back to its default.{secrets}",
        code(&form.server),
        plain(&form.game, NAME_SHOWN)
    );
    let line =
        |field: &Field| format!("{} {}: {}", code(&field.key), plain(&field.label, NAME_SHOWN), shown_value(field));
    let open: Vec<&Field> = asked_in_forms(form);
    let order = open.iter().copied().chain(form.fields.iter().filter(|field| field.secret));
    let lines: Vec<String> = order.map(line).collect();
    let mut said = Said::new(lines_that_fit(&head, lines.into_iter()));
    // 25 buttons fit under a message.
    for (page, fields) in open.chunks(INPUTS).enumerate().take(25) {
        let first = page * INPUTS + 1;
        let label = match fields.len() {
            1 => format!("{first}"),
            many => format!("{first}–{}", first + many - 1),
        };
        said = said.button(Press::Settings(id.clone(), page), label, Look::Plain);
    }
    said
}

/// One setting, when somebody names it without a value.
pub fn setting(server: &str, field: &Field) -> Said {
    let how = match field.secret {
        true => "It is secret, so it is neither shown nor asked for in a form. Set it",
        false => "Change it",
    };
    Said::new(format!(
        "{} of {}: {}\n{} {}\n{how} with `/server settings server:{} variable:{} value:…`; only you see that. With `reset:True` in place of \
         the value it goes back to its default.",
        code(&field.key),
        code(server),
        shown_value(field),
        plain(&field.help, REMARK_SHOWN),
        what_is_allowed(field),
        plain(server, NAME_SHOWN),
        plain(&field.key, NAME_SHOWN),
    ))
}

/// Secrets are never asked for in a form.
pub fn asked_in_forms(form: &Form) -> Vec<&Field> {
    form.fields.iter().filter(|field| !field.secret).collect()
}

fn shown_value(field: &Field) -> String {
    match (&field.value, &field.default, field.secret) {
        (_, _, true) => "secret, never shown".to_owned(),
        (Some(value), _, false) => code(value),
        (None, Some(default), false) => format!("{} (default)", code(default)),
        (None, None, false) if field.required => "not set, and needed".to_owned(),
        (None, None, false) => "not set".to_owned(),
    }
}

/// The grey text in an empty input: what it is and what is allowed.
pub fn hint(field: &Field) -> String {
    let default = field.default.as_deref().map(|default| format!("Default {default}. ")).unwrap_or_default();
    clip(&format!("{default}{} {}", what_is_allowed(field), field.help).replace('`', "").replace('\n', " "), 100)
}
