//! The demo of rented hosts, against a stand-in of the providers on this machine (tests/cloud). It refuses to rent
//! anywhere else, so it cannot cost anything.

use super::{SERVERS, Show, bytes, heading, say};
use crate::app::{CostFilter, NewServer};
use crate::config::{Config, Provider};
use crate::discord::render;
use crate::model::lease::spoken;
use crate::model::server::State;
use crate::model::view::{BackupView, spoken_files};
use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The provider that the stand-in plays here.
const PROVIDER: &str = "hetzner";
/// The stand-in is on this machine and answers at once.
const STANDIN_LIMIT: Duration = Duration::from_secs(10);
/// For a game to say that its clock has moved.
const CLOCK_LIMIT: Duration = Duration::from_secs(30);
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// The stand-in's other side, which no real provider has.
pub(super) struct StandIn {
    address: String,
    http: reqwest::Client,
}

/// A host as the provider lists it.
#[derive(Deserialize)]
struct Host {
    name: String,
    phase: String,
    address: String,
    size: String,
    region: String,
}

/// A firewall, key or volume as the provider lists it.
#[derive(Deserialize)]
struct Thing {
    kind: String,
    name: String,
}

impl StandIn {
    /// # Errors
    /// Where no stand-in answers at this address.
    pub(super) async fn find(address: &str) -> anyhow::Result<StandIn> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(STANDIN_LIMIT)
            .build()
            .context("making a client for the stand-in")?;
        let standin = StandIn { address: address.trim_end_matches('/').to_owned(), http };
        standin.hosts().await.with_context(|| {
            format!("at {address} is no stand-in, and the demo rents nowhere else; use scripts/demo --cloud")
        })?;
        Ok(standin)
    }

    /// Servers rent at the stand-in, and nowhere else, whatever the configuration says.
    pub(super) fn only_here(&self, config: &mut Config) {
        config.docker.enabled = false;
        config.hosts.clear();
        config.dns = Default::default();
        config.cloud = Default::default();
        config.cloud.hetzner = Provider {
            token: Some("stand-in".into()),
            api_url: Some(format!("{}/{PROVIDER}", self.address)),
            ..Provider::default()
        };
    }

    async fn list<T: serde::de::DeserializeOwned>(&self, what: &str) -> anyhow::Result<Vec<T>> {
        let answer = self.http.get(format!("{}/_control/{what}", self.address)).send().await?.error_for_status()?;
        Ok(answer.json().await?)
    }

    async fn hosts(&self) -> anyhow::Result<Vec<Host>> {
        self.list("hosts").await
    }

    /// What it would bill now.
    async fn show_hosts(&self) -> anyhow::Result<usize> {
        let mut living = self.hosts().await?;
        living.retain(|host| host.phase != "gone");
        for Host { name, phase, address, size, region } in &living {
            say(&format!("  The provider lists: {name}, {size} in {region}, {phase}, {address}"));
        }
        if living.is_empty() {
            say("  The provider lists no host.");
        }
        Ok(living.len())
    }

    /// # Errors
    /// When something is left that a provider would bill.
    pub(super) async fn prove_empty(&self) -> anyhow::Result<()> {
        let (hosts, things) = (self.hosts().await?, self.list::<Thing>("things").await?);
        let left: Vec<String> = (hosts.iter().filter(|host| host.phase != "gone"))
            .map(|host| format!("host {} ({})", host.name, host.phase))
            .chain(things.iter().map(|thing| format!("{} {}", thing.kind, thing.name)))
            .collect();
        ensure!(left.is_empty(), "the provider still lists: {}", left.join(", "));
        say(&format!(
            "  The provider lists no host, key or firewall any more. Hosts rented and gone: {}.",
            hosts.len()
        ));
        Ok(())
    }
}

pub(super) async fn play(show: &Show, standin: &StandIn, game: &str) -> anyhow::Result<()> {
    let (app, caller, name) = (&show.app, &show.caller, SERVERS[0]);
    let began = Instant::now();
    let clock = Clock::of(game);
    heading(&format!("What an evening would cost  (/server create name:{name} game:{game} backend:cloud)"));
    let new = NewServer {
        name: name.into(),
        game: game.into(),
        backend: Some("cloud".into()),
        settings: clock.as_ref().map(Clock::settings).unwrap_or_default(),
        place: Default::default(),
        channel: None,
    };
    app.create(caller, new).await?;
    if let Some(price) = app.start_price(caller, name).await?.as_ref().and_then(render::start_price) {
        say(&format!("  {price}"));
    }
    standin.show_hosts().await?;

    heading("A host is rented and the game starts on it  (/server start)");
    show.finish(app.start(caller, name, None).await?).await?;
    heading("Who is on, and what it costs  (the panel in the channel)");
    show.status(name, game).await?;
    meter(show).await?;
    ensure!(standin.show_hosts().await? == 1, "one host was rented, and the provider lists another number");
    let before = match &clock {
        Some(clock) => {
            heading(&format!("The console  (/console server:{name} command:{})", clock.command));
            Some(clock.after(show, clock.begins).await?)
        }
        None => {
            if let Some(command) = show.first_command(game).await? {
                heading(&format!("The console  (/console server:{name} command:{command})"));
                for line in app.console(caller, name, &command).await?.lines() {
                    say(&format!("  > {line}"));
                }
            }
            None
        }
    };

    heading("It stops: the world comes home, then the host goes  (/server stop)");
    show.finish(app.stop(caller, name, None).await?).await?;
    for BackupView { id, files, bytes: size, reason, .. } in app.backups(caller, name).await? {
        say(&format!("  backup {id}: {}, {}, {reason}", spoken_files(files), bytes(size)));
    }
    meter(show).await?;
    ensure!(standin.show_hosts().await? == 0, "the provider lists a host after the stop");

    heading("The next evening: another host, the same world  (/server start)");
    show.finish(app.start(caller, name, None).await?).await?;
    if let (Some(clock), Some(before)) = (&clock, before) {
        let now = clock.after(show, &before).await?;
        say(&format!(
            "  The world goes on: {before} when it was left, {now} now. A new one would begin at {}.",
            clock.begins
        ));
    }
    heading("And it stops again  (/server stop)");
    show.finish(app.stop(caller, name, None).await?).await?;

    heading("What it would have cost  (/cost)");
    plain(&render::cost(&app.cost(caller, CostFilter::default()).await?).text);
    say("");
    say(&format!("  All of it took {}.", spoken(began.elapsed().as_millis() as i64)));
    Ok(())
}

async fn meter(show: &Show) -> anyhow::Result<()> {
    let view = show.app.status(&show.caller, SERVERS[0]).await?;
    let Some(billing) = &view.billing else { bail!("a rented server has no meter") };
    ensure!(
        billing.on == (view.state == State::Running),
        "the meter of a server that is {} is wrong",
        view.state.word()
    );
    say(&format!("  {}", render::billing(billing)));
    Ok(())
}

/// Discord's markup is for Discord.
fn plain(text: &str) {
    for line in text.lines() {
        say(&format!("  {}", line.trim_start_matches("-# ").replace("**", "")));
    }
}

/// A game whose own clock shows that a world went on and did not begin anew.
struct Clock {
    command: &'static str,
    /// The date of a new world.
    begins: &'static str,
    /// The variable that lets it run while nobody is on.
    runs_alone: (&'static str, &'static str),
}

impl Clock {
    fn of(game: &str) -> Option<Clock> {
        (game == "openttd").then_some(Clock {
            command: "getdate",
            begins: "1950-01-01",
            runs_alone: ("PLAYERS_TO_RUN", "0"),
        })
    }

    fn settings(&self) -> BTreeMap<String, String> {
        let (name, value) = self.runs_alone;
        [(name.to_owned(), value.to_owned())].into()
    }

    /// Asks until the date is later than this one, and gives it.
    async fn after(&self, show: &Show, earlier: &str) -> anyhow::Result<String> {
        let deadline = Instant::now() + CLOCK_LIMIT;
        loop {
            let answer = show.app.console(&show.caller, SERVERS[0], self.command).await?;
            if let Some(date) = date_in(&answer).filter(|date| *date > earlier) {
                say(&format!("  > {}", answer.trim()));
                return Ok(date.to_owned());
            }
            ensure!(Instant::now() < deadline, "the game's clock does not pass {earlier}: {}", answer.trim());
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }
}

/// The first `1950-01-08` of a text. Such dates compare as texts do.
fn date_in(text: &str) -> Option<&str> {
    let is_date = |word: &&str| {
        let parts: Vec<usize> = word.split('-').map(str::len).collect();
        parts == [4, 2, 2] && word.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-')
    };
    text.split(|c: char| !c.is_ascii_digit() && c != '-').find(is_date)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_found_in_what_the_game_says() {
        assert_eq!(date_in("Date: 1950-01-08"), Some("1950-01-08"));
        assert_eq!(date_in("[12-34] it is 1950-01-08."), Some("1950-01-08"));
        assert_eq!(date_in("Date: soon"), None);
    }
}
