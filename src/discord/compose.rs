//! From what `render` says to what Discord takes. Mentions are off in every message, without exception.

use super::render::{Button, File, Look, Said};
use poise::serenity_prelude as serenity;

/// Buttons that fit into one row.
const ROW: usize = 5;
/// Rows that fit under one message.
const ROWS: usize = 5;

pub fn answer(said: &Said) -> serenity::CreateInteractionResponseMessage {
    let message = serenity::CreateInteractionResponseMessage::new()
        .content(&said.text)
        .allowed_mentions(nobody())
        .components(rows(&said.buttons))
        .ephemeral(true);
    match &said.file {
        Some(file) => message.add_file(attachment(file)),
        None => message,
    }
}

pub fn late_answer(said: &Said) -> serenity::EditInteractionResponse {
    let message = serenity::EditInteractionResponse::new()
        .content(&said.text)
        .allowed_mentions(nobody())
        .components(rows(&said.buttons));
    match &said.file {
        Some(file) => message.new_attachment(attachment(file)),
        None => message,
    }
}

pub fn message(said: &Said) -> serenity::CreateMessage {
    serenity::CreateMessage::new().content(&said.text).allowed_mentions(nobody()).components(rows(&said.buttons))
}

pub fn edit(said: &Said) -> serenity::EditMessage {
    serenity::EditMessage::new().content(&said.text).allowed_mentions(nobody()).components(rows(&said.buttons))
}

fn nobody() -> serenity::CreateAllowedMentions {
    serenity::CreateAllowedMentions::new()
}

fn attachment(file: &File) -> serenity::CreateAttachment {
    serenity::CreateAttachment::bytes(file.content.clone().into_bytes(), file.name.clone())
}

fn rows(buttons: &[Button]) -> Vec<serenity::CreateActionRow> {
    let row = |buttons: &[Button]| serenity::CreateActionRow::Buttons(buttons.iter().map(button).collect());
    buttons.chunks(ROW).take(ROWS).map(row).collect()
}

fn button(button: &Button) -> serenity::CreateButton {
    let style = match button.look {
        Look::Main => serenity::ButtonStyle::Primary,
        Look::Plain => serenity::ButtonStyle::Secondary,
        Look::Danger => serenity::ButtonStyle::Danger,
    };
    serenity::CreateButton::new(button.press.id()).label(&button.label).style(style).disabled(!button.enabled)
}
