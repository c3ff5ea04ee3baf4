//! What Discord offers while an option is typed: at most 25 choices, from data that is at hand.

use super::Context;
use crate::discord::render::text::clip;
use crate::model::GuildId;
use crate::model::access::Permission;
use crate::model::cost::{Quote, spoken};
use crate::model::host::HostImage;
use crate::model::lease;
use crate::model::schedule::{Does, When};
use crate::model::server::Backend;
use crate::model::view::ScheduleView;
use poise::serenity_prelude as serenity;
use std::future::Future;
use std::time::Duration;

/// Discord takes no more.
const CHOICES: usize = 25;
const CHOICE_MAX: usize = 100;
/// Discord forgets the question after three seconds, and people type on meanwhile.
const WITHIN: Duration = Duration::from_secs(2);

/// What people read, and what is filled in.
type Choice = (String, String);
type Choices = serenity::CreateAutocompleteResponse;

pub async fn server(ctx: Context<'_>, typed: &str) -> Choices {
    let Some(guild) = guild(&ctx) else { return Choices::new() };
    offered(typed, plain(ctx.framework.user_data.app.server_names(&guild))).await
}

pub async fn game(ctx: Context<'_>, typed: &str) -> Choices {
    if guild(&ctx).is_none() {
        return Choices::new();
    }
    let games = async {
        let games = ctx.framework.user_data.app.games().await;
        games.into_iter().map(|(game, title)| (format!("{title} ({game})"), game)).collect()
    };
    offered(typed, games).await
}

pub async fn backup(ctx: Context<'_>, typed: &str) -> Choices {
    let (Some(guild), Some(server)) = (guild(&ctx), option(&ctx, "server")) else { return Choices::new() };
    offered(typed, labelled(ctx.framework.user_data.app.backup_choices(&guild, server))).await
}

pub async fn doubted(ctx: Context<'_>, typed: &str) -> Choices {
    let (Some(guild), Some(server)) = (guild(&ctx), option(&ctx, "server")) else { return Choices::new() };
    offered(typed, labelled(ctx.framework.user_data.app.doubted_choices(&guild, server))).await
}

pub async fn snapshot(ctx: Context<'_>, typed: &str) -> Choices {
    if guild(&ctx).is_none() {
        return Choices::new();
    }
    offered(typed, labelled(ctx.framework.user_data.app.snapshot_choices())).await
}

pub async fn command(ctx: Context<'_>, typed: &str) -> Choices {
    let (Some(guild), Some(server)) = (guild(&ctx), option(&ctx, "server")) else { return Choices::new() };
    offered(typed, plain(ctx.framework.user_data.app.console_suggestions(&guild, server, typed))).await
}

pub async fn variable(ctx: Context<'_>, typed: &str) -> Choices {
    let Some(server) = option(&ctx, "server") else { return Choices::new() };
    let fields = async {
        let asked = super::asked(&ctx);
        let Ok(caller) = asked.caller().await else { return vec![] };
        let Ok(form) = asked.app.settings_form(&caller, server).await else { return vec![] };
        form.fields.into_iter().map(|field| (format!("{} · {}", field.key, field.label), field.key)).collect()
    };
    offered(typed, fields).await
}

pub async fn month(ctx: Context<'_>, typed: &str) -> Choices {
    let Some(guild) = guild(&ctx) else { return Choices::new() };
    let months = async {
        let months = ctx.framework.user_data.app.cost_months(&guild).await;
        months.into_iter().map(|month| (month.spoken(), month.to_string())).collect()
    };
    offered(typed, months).await
}

/// Usual lengths of time, with what was typed in front when it is one.
pub async fn duration(_ctx: Context<'_>, typed: &str) -> Choices {
    let usual = ["30m", "1h", "2h", "4h", "8h", "1d"];
    let mut all: Vec<(String, String)> = vec![];
    if let Ok(time) = lease::parse_duration(typed) {
        all.push((lease::spoken(time), typed.trim().to_owned()));
    }
    all.extend(usual.into_iter().filter(|one| one.starts_with(typed.trim()) && *one != typed.trim()).map(|one| {
        let time = lease::parse_duration(one).expect("the usual ones are written right");
        (lease::spoken(time), one.to_owned())
    }));
    choices("", all)
}

pub async fn backend(_ctx: Context<'_>, typed: &str) -> Choices {
    let all = Backend::ALL.into_iter().map(|backend| (backend.word().to_owned(), backend.word().to_owned()));
    choices(typed, all.collect())
}

pub async fn provider(ctx: Context<'_>, typed: &str) -> Choices {
    let providers = async { distinct(ctx.framework.user_data.app.offers().await, provider_choice) };
    offered(typed, providers).await
}

pub async fn region(ctx: Context<'_>, typed: &str) -> Choices {
    let provider = option(&ctx, "provider");
    let regions = async { distinct(within(ctx.framework.user_data.app.offers().await, provider, None), region_choice) };
    offered(typed, regions).await
}

pub async fn size(ctx: Context<'_>, typed: &str) -> Choices {
    offered(typed, async { distinct(fitting(&ctx).await, size_choice) }).await
}

pub async fn image(ctx: Context<'_>, typed: &str) -> Choices {
    let provider = option(&ctx, "provider");
    offered(typed, async { image_choices(ctx.framework.user_data.app.images().await, provider) }).await
}

/// The value of the setting that was named before: a place has choices, other settings have what is allowed.
pub async fn value(ctx: Context<'_>, typed: &str) -> Choices {
    let (Some(server), Some(variable)) = (option(&ctx, "server"), option(&ctx, "variable")) else {
        return Choices::new();
    };
    let of: Option<fn(&Quote) -> Choice> = match variable {
        "provider" => Some(provider_choice),
        "region" => Some(region_choice),
        "size" => Some(size_choice),
        "image" => None,
        _ => return Choices::new(),
    };
    let values = async {
        let asked = super::asked(&ctx);
        let Ok(caller) = asked.caller().await else { return vec![] };
        let Ok(form) = asked.app.settings_form(&caller, server).await else { return vec![] };
        let chosen = |key: &str| {
            let field = form.fields.iter().find(|field| field.key == key && key != variable);
            field.and_then(|field| field.value.as_deref())
        };
        // What follows from the setting itself is no reason to offer less of it.
        let region = chosen("region").filter(|_| variable == "size");
        let provider = chosen("provider").filter(|_| variable != "provider");
        match of {
            Some(of) => distinct(within(asked.app.offers().await, provider, region), of),
            None => image_choices(asked.app.images().await, provider),
        }
    };
    offered(typed, values).await
}

/// What can be rented, within the provider and the region that were filled in before.
async fn fitting(ctx: &Context<'_>) -> Vec<Quote> {
    within(ctx.framework.user_data.app.offers().await, option(ctx, "provider"), option(ctx, "region"))
}

fn within(offers: Vec<Quote>, provider: Option<&str>, region: Option<&str>) -> Vec<Quote> {
    let fits = |chosen: Option<&str>, word: &str| chosen.is_none_or(|chosen| chosen.is_empty() || chosen == word);
    let all = offers.into_iter();
    all.filter(|offer| fits(provider, &offer.provider) && fits(region, &offer.region)).collect()
}

/// With what an hour costs, and what is had for it.
fn size_choice(offer: &Quote) -> (String, String) {
    let price = offer.price.as_ref().map(|price| format!("{} an hour", spoken(price.hourly, &price.currency)));
    let about: Vec<String> = [price, offer.equipment()].into_iter().flatten().collect();
    let about = if about.is_empty() { String::new() } else { format!(" · {}", about.join(", ")) };
    (format!("{}{about} ({})", offer.size, offer.provider), offer.size.clone())
}

fn provider_choice(offer: &Quote) -> (String, String) {
    (format!("{} · {}", offer.provider, at_least(offer)), offer.provider.clone())
}

fn region_choice(offer: &Quote) -> (String, String) {
    (format!("{} · {} ({})", offer.region, at_least(offer), offer.provider), offer.region.clone())
}

/// Of the cheapest that is there.
fn at_least(offer: &Quote) -> String {
    match &offer.price {
        Some(price) => format!("from {} an hour", spoken(price.hourly, &price.currency)),
        None => "a machine of your own".to_owned(),
    }
}

/// What hosts come with anyway stands first, with a word about it.
fn image_choices(mut images: Vec<HostImage>, provider: Option<&str>) -> Vec<(String, String)> {
    images.retain(|image| provider.is_none_or(|provider| provider.is_empty() || provider == image.provider));
    images.sort_by_key(|image| !image.usual);
    let usual = |image: &HostImage| if image.usual { ", the usual one" } else { "" };
    let label = |image: &HostImage| format!("{} ({}{})", image.title, image.provider, usual(image));
    images.into_iter().map(|image| (label(&image), image.word)).collect()
}

/// Each value once, from the cheapest offer that has it.
fn distinct(mut offers: Vec<Quote>, of: impl Fn(&Quote) -> (String, String)) -> Vec<(String, String)> {
    offers.sort_by_key(|offer| offer.price.as_ref().map_or(0, |price| price.hourly));
    let mut seen = std::collections::HashSet::new();
    offers.iter().map(of).filter(|(_, value)| seen.insert(value.clone())).collect()
}

pub async fn permission(_ctx: Context<'_>, typed: &str) -> Choices {
    let label = |one: Permission| (format!("{}: {}", one.word(), one.help()), one.word().to_owned());
    choices(typed, Permission::ALL.into_iter().map(label).collect())
}

pub async fn does(_ctx: Context<'_>, typed: &str) -> Choices {
    choices(typed, Does::WORDS.map(|(word, help)| (format!("{word}: {help}"), word.to_owned())).to_vec())
}

/// Usual rules, with what was typed in front when it is one.
pub async fn rule(_ctx: Context<'_>, typed: &str) -> Choices {
    let usual = ["daily 20:00", "fri 20:00", "fri,sat 19:30", "weekdays 18:00", "weekends 14:00", "every 6h"];
    let own = When::parse(typed).ok().map(|when| (when.words().to_owned(), typed.trim().to_owned()));
    let fits = |one: &&str| one.starts_with(typed.trim()) && *one != typed.trim();
    let usual = usual.into_iter().filter(fits).map(|one| (one.to_owned(), one.to_owned()));
    choices("", own.into_iter().chain(usual).collect())
}

pub async fn timezone(ctx: Context<'_>, typed: &str) -> Choices {
    choices(&typed.trim().replace(' ', "_"), plain(async { ctx.framework.user_data.app.zones() }).await)
}

pub async fn schedule(ctx: Context<'_>, typed: &str) -> Choices {
    let schedules = async {
        let asked = super::asked(&ctx);
        let Ok(caller) = asked.caller().await else { return vec![] };
        let Ok(schedules) = asked.app.schedules(&caller, None).await else { return vec![] };
        let label =
            |one: &ScheduleView| format!("{}: {} {}, {} ({})", one.number, one.does, one.server, one.when, one.zone);
        schedules.iter().map(|one| (label(one), one.number.to_string())).collect()
    };
    if guild(&ctx).is_none() {
        return Choices::new();
    }
    offered(typed, schedules).await
}

pub async fn when(_ctx: Context<'_>, typed: &str) -> Choices {
    let all = [("now: it is stopped, updated and started again", "now"), ("at its next start", "next-start")];
    choices(typed, all.map(|(label, value)| (label.to_owned(), value.to_owned())).to_vec())
}

async fn plain(names: impl Future<Output = Vec<String>>) -> Vec<(String, String)> {
    names.await.into_iter().map(|name| (name.clone(), name)).collect()
}

async fn labelled(choices: impl Future<Output = Vec<(String, String)>>) -> Vec<(String, String)> {
    choices.await.into_iter().map(|(value, label)| (label, value)).collect()
}

async fn offered(typed: &str, all: impl Future<Output = Vec<(String, String)>>) -> Choices {
    match tokio::time::timeout(WITHIN, all).await {
        Ok(all) => choices(typed, all),
        Err(_) => Choices::new(),
    }
}

/// `(label, value)` of those that hold what was typed; those that begin with it come first.
fn choices(typed: &str, all: Vec<(String, String)>) -> Choices {
    let typed = typed.trim().to_lowercase();
    let fits = |(label, value): &(String, String)| {
        let (label, value) = (label.to_lowercase(), value.to_lowercase());
        match (value.starts_with(&typed) || label.starts_with(&typed), label.contains(&typed) || value.contains(&typed))
        {
            (true, _) => Some(0),
            (false, true) => Some(1),
            (false, false) => None,
        }
    };
    let mut found: Vec<(i32, (String, String))> = all.into_iter().filter_map(|one| Some((fits(&one)?, one))).collect();
    found.sort_by_key(|(rank, _)| *rank);
    let short = |(_, (_, value)): &&(i32, (String, String))| value.chars().count() <= CHOICE_MAX && !value.is_empty();
    let choice = |(_, (label, value)): &(i32, (String, String))| {
        serenity::AutocompleteChoice::new(clip(label, CHOICE_MAX), value.clone())
    };
    Choices::new().set_choices(found.iter().filter(short).take(CHOICES).map(choice).collect())
}

/// The guild that is typed in, if it is served.
fn guild(ctx: &Context<'_>) -> Option<GuildId> {
    let guild = ctx.interaction.guild_id.filter(|guild| ctx.framework.user_data.serves(*guild))?;
    Some(GuildId(guild.to_string()))
}

/// An option that was filled in before this one.
fn option<'a>(ctx: &Context<'a>, name: &str) -> Option<&'a str> {
    ctx.args.iter().find(|option| option.name == name).and_then(|option| match option.value {
        serenity::ResolvedValue::String(text) => Some(text),
        serenity::ResolvedValue::Autocomplete { value, .. } => Some(value),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(typed: &str, all: &[&str]) -> Vec<String> {
        let all = all.iter().map(|one| (format!("label of {one}"), one.to_string())).collect();
        let json = serde_json::to_value(choices(typed, all)).unwrap();
        let list = json["choices"].as_array().unwrap();
        list.iter().map(|choice| choice["value"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn what_begins_with_the_typed_text_comes_first_and_the_list_is_short() {
        assert_eq!(offered("wo", &["two", "world", "other"]), ["world", "two"]);
        assert_eq!(offered("", &["b", "a"]), ["b", "a"]);
        assert_eq!(offered("WORLD", &["world"]), ["world"]);
        let many: Vec<String> = (0..99).map(|n| format!("s{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(offered("s", &many).len(), CHOICES);
        let long = "x".repeat(101);
        assert!(offered("", &[&long, ""]).is_empty(), "Discord refuses the whole answer for one such value");
    }
}
