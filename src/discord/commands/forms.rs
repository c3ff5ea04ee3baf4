//! Forms: a console line, a page of settings, what a new server needs. A form has to be the first answer to an
//! interaction, so nothing slow stands before it. Secrets are never asked for in one: Discord warns people of that.

use crate::app::{Answer, App, NewServer, Refusal};
use crate::discord::asked::Asked;
use crate::discord::ids::Filled;
use crate::discord::pairs;
use crate::discord::panel::Panels;
use crate::discord::render::{self, Said, answers, text};
use crate::model::ServerId;
use crate::model::host::Place;
use crate::model::view::ServerView;
use poise::serenity_prelude as serenity;
use std::collections::BTreeMap;

/// The one input of the console's form.
const LINE: &str = "line";
const LINE_MAX: u16 = 1000;
const VALUE_MAX: u16 = 1000;
/// Discord's limit for a label.
const LABEL_MAX: usize = 45;

/// What was asked of `/server create`.
pub struct Wish {
    pub name: String,
    pub game: String,
    pub backend: Option<String>,
    pub place: Place,
    pub settings: Option<String>,
}

/// Makes the server, or first asks for the settings that it needs and has no default for.
pub async fn create(asked: &Asked<'_>, panels: &Panels, wish: Wish) {
    if wish.settings.is_none()
        && let Ok(caller) = asked.caller().await
        && let Ok(game) = asked.app.game(&caller, &wish.game).await
    {
        let needed = game.variables.iter().filter(|one| one.required && one.default.is_none());
        let (secret, open): (Vec<_>, Vec<_>) = needed.partition(|one| one.secret);
        if secret.is_empty() && !open.is_empty() && open.len() <= answers::INPUTS {
            let input = |one: &&crate::app::VariableView| {
                let hint =
                    text::clip(&format!("{} ({})", one.help, one.allowed).replace('`', "").replace('\n', " "), 100);
                serenity::CreateInputText::new(
                    serenity::InputTextStyle::Short,
                    text::clip(&one.key, LABEL_MAX),
                    &one.key,
                )
                .placeholder(hint)
                .max_length(VALUE_MAX)
                .required(true)
            };
            let inputs = open.iter().map(input).collect();
            let filled = Filled::Create { name: wish.name, game: wish.game, backend: wish.backend, place: wish.place };
            return asked.open(&filled, &format!("{} needs to know", game.title), inputs).await;
        }
        if !secret.is_empty() || open.len() > answers::INPUTS {
            let all: Vec<String> = secret.iter().chain(&open).map(|one| format!("{}=…", one.key)).collect();
            let sentence = format!(
                "{} needs settings. Give them with the option `settings`, which only you see: `{}`.",
                text::plain(&game.title, text::NAME_SHOWN),
                all.join(", ").replace('`', "ˋ")
            );
            return asked.answer(async { Err(Refusal::Invalid(sentence)) }).await;
        }
    }
    let settings = pairs::parse(wish.settings.as_deref().unwrap_or_default()).map_err(Refusal::Invalid);
    let Wish { name, game, backend, place, settings: _ } = wish;
    let make = async {
        let new = NewServer { name, game, backend, settings: settings?, place, channel: asked.channel_id() };
        make(asked, panels, new).await
    };
    asked.answer(make).await;
}

async fn make(asked: &Asked<'_>, panels: &Panels, new: NewServer) -> Answer<Said> {
    let caller = asked.caller().await?;
    asked.may_tell_here()?;
    let created = asked.app.create(&caller, new).await?;
    panels.wanted(ServerId(created.view.id.clone()), asked.channel.to_string());
    Ok(answers::created(&created))
}

/// Opens the console's form, from a panel.
pub async fn console(asked: &Asked<'_>, id: &ServerId) {
    match named(asked.app, id).await {
        Ok(view) => {
            let input = serenity::CreateInputText::new(serenity::InputTextStyle::Short, "Command", LINE)
                .placeholder("What to type, as the game understands it")
                .max_length(LINE_MAX);
            asked.open(&Filled::Console(id.clone()), &format!("Console of {}", view.name), vec![input]).await;
        }
        Err(refusal) => asked.answer(async { Err(refusal) }).await,
    }
}

/// Opens the form with one page of settings.
pub async fn settings(asked: &Asked<'_>, id: &ServerId, page: usize) {
    let form = async {
        let view = named(asked.app, id).await?;
        asked.app.settings_form(&asked.caller().await?, &view.name).await
    };
    let form = match form.await {
        Ok(form) => form,
        Err(refusal) => return asked.answer(async { Err(refusal) }).await,
    };
    let fields = answers::asked_in_forms(&form);
    let inputs: Vec<_> = fields
        .iter()
        .skip(page.saturating_mul(answers::INPUTS))
        .take(answers::INPUTS)
        .map(|field| {
            let label = text::clip(&field.label, LABEL_MAX);
            let input = serenity::CreateInputText::new(serenity::InputTextStyle::Short, label, &field.key)
                .placeholder(answers::hint(field))
                .max_length(VALUE_MAX)
                .required(field.required && field.default.is_none());
            match &field.value {
                Some(value) => input.value(text::clip(value, VALUE_MAX.into())),
                None => input,
            }
        })
        .collect();
    if inputs.is_empty() {
        let gone = "There are no settings on that page any more. `/server settings` shows them anew.";
        return asked.answer(async { Err(Refusal::NotFound(gone.to_owned())) }).await;
    }
    asked.open(&Filled::Settings(id.clone(), page), &format!("Settings of {}", form.server), inputs).await;
}

/// A form was sent.
pub async fn filled(asked: &Asked<'_>, panels: &Panels, from: &serenity::ModalInteraction) {
    let mut values = inputs(from);
    let Some(filled) = Filled::parse(&from.data.custom_id) else {
        return asked.answer(async { Err(super::presses::outdated()) }).await;
    };
    match filled {
        Filled::Console(id) => {
            let line = values.remove(LINE).unwrap_or_default();
            let work = async {
                let view = named(asked.app, &id).await?;
                let answer = asked.app.console(&asked.caller().await?, &view.name, &line).await?;
                let before = format!("{} answered {}:", text::code(&view.name), text::code(&line));
                Ok(render::output_apart(before, answer, "console.txt").await?)
            };
            asked.answer(work).await;
        }
        Filled::Settings(id, _) => {
            let work = async {
                let view = named(asked.app, &id).await?;
                let applied = asked.app.settings_apply(&asked.caller().await?, &view.name, values).await?;
                Ok(answers::applied(&view.name, &applied))
            };
            asked.answer(work).await;
        }
        Filled::Create { name, game, backend, place } => {
            let channel = asked.channel_id();
            let new = NewServer { name, game, backend, settings: values, place, channel };
            asked.answer(make(asked, panels, new)).await;
        }
    }
}

/// The server behind a button or a form, if it is still there.
pub async fn named(app: &App, id: &ServerId) -> Answer<ServerView> {
    match app.server_view(id).await? {
        Some(view) => Ok(view),
        None => Err(Refusal::NotFound("That server is deleted.".to_owned())),
    }
}

fn inputs(from: &serenity::ModalInteraction) -> BTreeMap<String, String> {
    let rows = from.data.components.iter().flat_map(|row| &row.components);
    rows.filter_map(|component| match component {
        serenity::ActionRowComponent::InputText(input) => {
            Some((input.custom_id.clone(), input.value.clone().unwrap_or_default()))
        }
        _ => None,
    })
    .collect()
}
