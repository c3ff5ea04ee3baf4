//! Timed rules: made, listed and removed. What happens when one is due is in `due`.

use super::{Answer, App, Did, Refusal, listed};
use crate::engine::mask;
use crate::model::access::{Actor, Caller, Permission, permission};
use crate::model::bill::StartCost;
use crate::model::lease::Rules;
use crate::model::schedule::{Does, PER_SERVER_MAX, Schedule, When};
use crate::model::server::{Backend, Server};
use crate::model::view::ScheduleView;
use crate::store::schedules::NewSchedule;
use jiff::tz::TimeZone;

/// Characters of a command that the audit log keeps.
const LINE_ON_RECORD: usize = 200;

/// What somebody types for a new rule.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    pub server: String,
    pub action: String,
    pub when: String,
    pub command: Option<String>,
    pub timezone: Option<String>,
}

/// A rule that was made.
#[derive(Clone, Debug)]
pub struct Added {
    pub view: ScheduleView,
    /// What each start costs, where a host is rented for it.
    pub start: Option<StartCost>,
    /// What ends each start.
    pub ends: Rules,
}

impl App {
    /// Makes a rule. `channel` is told about it where the server has no channel yet.
    pub async fn schedule_add(&self, caller: &Caller, rule: Rule, channel: Option<String>) -> Answer<Added> {
        let name = rule.server.clone();
        let detail: String = format!("{} {}", rule.action, rule.when).chars().take(80).collect();
        let mut line = self.asked_for(caller, Did::new("schedule add", &name).with(detail)).await?;
        let answer = Box::pin(self.schedule_unaudited(caller, rule, channel)).await;
        if let Ok(Added { view, .. }) = &answer {
            let ScheduleView { number, does, when, zone, line: typed, .. } = view;
            let typed = typed.as_deref().map(|typed| format!(": {}", on_record(typed)));
            line.entry.detail = format!("{number}: {does} {when} ({zone}){}", typed.unwrap_or_default());
        }
        self.became(line, answer).await
    }

    async fn schedule_unaudited(&self, caller: &Caller, rule: Rule, channel: Option<String>) -> Answer<Added> {
        let does = does_of(&rule.action, rule.command.as_deref())?;
        let server = self.server(caller, &rule.server, does.needs()).await?;
        match &caller.actor {
            Actor::Discord { .. } | Actor::Operator => {}
            Actor::Token { .. } | Actor::Schedule { .. } | Actor::Watcher => {
                return Err(Refusal::NotAllowed("A schedule is made by a person, who answers for it.".to_owned()));
            }
        }
        self.can_do(&server, &does)?;
        let zone = match rule.timezone.as_deref().map(str::trim).filter(|name| !name.is_empty()) {
            Some(name) => zone_of(name)?,
            None => self.inner.choices.zone.clone(),
        };
        let when = When::parse(&rule.when).map_err(Refusal::Invalid)?;
        let now = self.now();
        let due_at = when.first(&does, now, &zone).map_err(Refusal::Invalid)?;
        let start = match does {
            Does::Start => self.cost_of_each_start(&server).await?,
            Does::Stop | Does::Restart | Does::Backup | Does::Command { .. } => None,
        };
        let (guild, made_by) = (caller.guild.clone(), caller.actor.clone());
        let new = NewSchedule { guild, server: server.id.clone(), does, when, zone, made_by, made_at: now, due_at };
        let Some(schedule) = self.store().add_schedule(new).await? else {
            return Err(Refusal::Invalid(format!(
                "`{}` has {PER_SERVER_MAX} schedules already; `/schedule remove` makes room.",
                server.name
            )));
        };
        if let (None, Some(channel)) = (&server.channel, channel) {
            self.store().set_channel(&server.id, &channel).await?;
        }
        self.changed(&server);
        let view = self.schedule_view(&schedule, &server, true).await?;
        Ok(Added { view, start, ends: self.engine().rules(&server) })
    }

    /// What would be refused each time is refused at once.
    fn can_do(&self, server: &Server, does: &Does) -> Answer<()> {
        self.driver(server)?;
        match does {
            Does::Start | Does::Restart => self.recipe_of(server).map(drop),
            Does::Stop => Ok(()),
            Does::Backup => self.must_have_world(server),
            Does::Command { line } => {
                super::servers::console_line(line)?;
                let recipe = self.recipe_of(server)?;
                match recipe.console {
                    Some(_) => Ok(()),
                    None => Err(Refusal::Invalid(format!("{} has no console.", recipe.name))),
                }
            }
        }
    }

    /// The rules that the caller may see, of one server or of all.
    pub async fn schedules(&self, caller: &Caller, server: Option<&str>) -> Answer<Vec<ScheduleView>> {
        let only = match server.map(str::trim).filter(|name| !name.is_empty()) {
            Some(name) => Some(self.server(caller, name, Permission::View).await?.id),
            None => None,
        };
        let grants = self.store().grants(&caller.guild).await?;
        let servers = self.store().servers_of(&caller.guild).await?;
        let mut views = vec![];
        for schedule in self.store().schedules_of(&caller.guild).await? {
            let Some(server) = servers.iter().find(|server| server.id == schedule.server) else { continue };
            let may = permission(caller, &grants, Some(&server.id), &self.inner.choices.players_role);
            if may >= Permission::View && only.as_ref().is_none_or(|only| *only == server.id) {
                views.push(self.schedule_view(&schedule, server, may >= schedule.does.needs()).await?);
            }
        }
        Ok(views)
    }

    /// Removes a rule: one's own, or one that the caller could have made.
    pub async fn schedule_remove(&self, caller: &Caller, number: &str) -> Answer<ScheduleView> {
        if let Some(gone) = self.remove_unreadable(caller, number).await? {
            return Ok(gone);
        }
        let found = self.schedule_called(caller, number).await?;
        let Some((schedule, server)) = found else {
            return Err(Refusal::NotFound("There is no such schedule. `/schedule list` shows them.".to_owned()));
        };
        let work = Box::pin(async {
            if !is_theirs(caller, &schedule) {
                self.require(caller, Some(&server), schedule.does.needs()).await?;
            }
            let view = self.schedule_view(&schedule, &server, false).await?;
            self.store().remove_schedule(&schedule.guild, schedule.number).await?;
            self.changed(&server);
            Ok(view)
        });
        let did = Did::new("schedule remove", server.name.as_str());
        let detail = format!("{}: {} {}", schedule.number, schedule.does.word(), schedule.when.words());
        self.audited(caller, did.with(detail), work).await
    }

    /// A rule that cannot be read can still be removed, by whoever could have made any rule of its server.
    async fn remove_unreadable(&self, caller: &Caller, number: &str) -> Answer<Option<ScheduleView>> {
        let Ok(number) = number.trim().trim_start_matches('#').parse() else { return Ok(None) };
        let Some(found) = self.store().unreadable_schedule(&caller.guild, number).await? else { return Ok(None) };
        let server = self.store().server_any(&found.server).await?;
        let Some(server) = server.filter(|server| server.deleted_at.is_none()) else { return Ok(None) };
        let work = Box::pin(async {
            self.require(caller, Some(&server), Permission::Operate).await?;
            self.store().remove_schedule(&caller.guild, number).await?;
            self.changed(&server);
            Ok(Some(ScheduleView {
                number,
                server: server.name.to_string(),
                does: "unreadable".to_owned(),
                line: None,
                when: found.rule.clone(),
                zone: found.zone.clone(),
                made_by: String::new(),
                next_at: found.due_at,
                last: None,
            }))
        });
        let did = Did::new("schedule remove", server.name.as_str());
        self.audited(caller, did.with(format!("{number}: unreadable {}", found.rule)), work).await
    }

    /// A rule by its number, with its server, if the caller may see that.
    async fn schedule_called(&self, caller: &Caller, number: &str) -> Answer<Option<(Schedule, Server)>> {
        let Ok(number) = number.trim().trim_start_matches('#').parse() else { return Ok(None) };
        let Some(schedule) = self.store().schedule(&caller.guild, number).await? else { return Ok(None) };
        let server = self.store().server_any(&schedule.server).await?;
        let Some(server) = server.filter(|server| server.deleted_at.is_none()) else { return Ok(None) };
        match self.require(caller, Some(&server), Permission::View).await {
            Ok(()) => Ok(Some((schedule, server))),
            Err(Refusal::NotAllowed(_)) => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    /// What a command types is for those who may type it: it may hold a password.
    async fn schedule_view(&self, schedule: &Schedule, server: &Server, whole: bool) -> anyhow::Result<ScheduleView> {
        let line = if whole { self.masked_line(&schedule.does, server).await? } else { None };
        Ok(ScheduleView {
            number: schedule.number,
            server: server.name.to_string(),
            does: schedule.does.word().to_owned(),
            line,
            when: schedule.when.words().to_owned(),
            zone: schedule.zone_name().to_owned(),
            made_by: schedule.made_by.name().to_owned(),
            next_at: schedule.due_at,
            last: schedule.last.clone(),
        })
    }

    async fn masked_line(&self, does: &Does, server: &Server) -> anyhow::Result<Option<String>> {
        let Does::Command { line } = does else { return Ok(None) };
        Ok(Some(mask(line, &self.store().never_shown(&server.id).await?)))
    }

    /// What a command types, for the audit log.
    pub(super) async fn line_on_record(&self, does: &Does, server: &Server) -> anyhow::Result<Option<String>> {
        Ok(self.masked_line(does, server).await?.map(|line| on_record(&line)))
    }

    /// What starts, stops or restarts it next.
    pub(super) async fn scheduled_next(&self, server: &Server) -> anyhow::Result<Option<ScheduleView>> {
        let moves = |does: &Does| match does {
            Does::Start | Does::Stop | Does::Restart => true,
            Does::Backup | Does::Command { .. } => false,
        };
        let all = self.store().schedules_of(&server.guild).await?.into_iter();
        let own = all.filter(|schedule| schedule.server == server.id && moves(&schedule.does));
        match own.min_by_key(|schedule| schedule.due_at) {
            Some(schedule) => Ok(Some(self.schedule_view(&schedule, server, false).await?)),
            None => Ok(None),
        }
    }

    /// The names of time zones, the usual one first, for choosing.
    pub fn zones(&self) -> Vec<String> {
        let usual = self.inner.choices.zone.iana_name().unwrap_or("UTC").to_owned();
        let others = jiff::tz::db().available().map(|name| name.as_str().to_owned()).filter(|name| *name != usual);
        let mut others: Vec<String> = others.collect();
        others.sort();
        std::iter::once(usual.clone()).chain(others).collect()
    }

    async fn cost_of_each_start(&self, server: &Server) -> anyhow::Result<Option<StartCost>> {
        match server.backend {
            Backend::Docker => Ok(None),
            Backend::Cloud => self.cost_of_a_new_host(server).await,
        }
    }
}

/// Masked before it is cut: half a secret is no secret that could be found.
fn on_record(masked: &str) -> String {
    masked.chars().filter(|c| !c.is_control()).take(LINE_ON_RECORD).collect()
}

fn is_theirs(caller: &Caller, schedule: &Schedule) -> bool {
    caller.actor == Actor::Operator || caller.actor.is_same(&schedule.made_by)
}

fn does_of(action: &str, command: Option<&str>) -> Answer<Does> {
    let line = command.map(str::trim).filter(|line| !line.is_empty());
    let does = match action.trim() {
        "start" => Does::Start,
        "stop" => Does::Stop,
        "restart" => Does::Restart,
        "backup" => Does::Backup,
        "command" => match line {
            Some(line) => return Ok(Does::Command { line: line.to_owned() }),
            None => {
                let why = "Say with `command` what is typed into the console, for instance `command:save`.";
                return Err(Refusal::Invalid(why.to_owned()));
            }
        },
        _ => {
            let words = Does::WORDS.map(|(word, _)| word.to_owned());
            return Err(Refusal::Invalid(format!("An action is one of {}.", listed(&words))));
        }
    };
    match line {
        None => Ok(does),
        Some(_) => Err(Refusal::Invalid("`command` goes with `action:command` alone.".to_owned())),
    }
}

fn zone_of(name: &str) -> Answer<TimeZone> {
    TimeZone::get(name).map_err(|_| {
        let shown: String = name.chars().filter(|c| !c.is_control() && *c != '`').take(40).collect();
        Refusal::Invalid(format!("“{shown}” is no time zone. Write for instance `Europe/Berlin` or `UTC`."))
    })
}
