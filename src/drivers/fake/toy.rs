//! The game of `tests/recipes/toy`, as the fake plays it: it counts turns, answers on its console and misbehaves as its
//! settings say, without a process. Its worlds go through the real vault, so that what is listed, restored and counted
//! as a backup is one. With it the fake can be held to the claims that real backends are held to (tests/drivers.rs).

use super::Done;
use super::outside::{Game, Outside, Things, Way};
use crate::drivers::backups::{Backups, note_of, vault_error};
use crate::drivers::blocking;
use crate::engine::{StepCx, StepError};
use crate::model::ServerId;
use crate::model::job::{Gain, Step};
use crate::model::recipe::{Recipe, Surroundings};
use crate::vault::Shift;
use anyhow::Context;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// What the game keeps of its world, in its folder.
const TURNS_FILE: &str = "world/turns";
/// Lines of its output that can still be read.
const LINES_MAX: usize = 5_000;
/// Lines of a dying game's output that its failure quotes.
const LAST_WORDS: usize = 3;
/// How often a start looks whether the game is ready.
const READY_POLL: Duration = Duration::from_millis(100);
/// Exit codes: of a game that was ended by force, and of one that crashed.
const KILLED: i64 = 137;
const CRASHED: i64 = 139;

/// Plays toys on a fake, and keeps their worlds.
#[derive(Clone)]
pub struct Toys {
    pub backups: Backups,
}

/// One run of the game. It writes its world at every turn, unless it was told to hold still.
#[derive(Clone, Debug, Default)]
pub struct Toy {
    behaviour: Behaviour,
    lines: VecDeque<String>,
    /// Lines that were dropped, so that a reader knows where it was.
    dropped: usize,
    turns: u64,
    saved: u64,
    still: bool,
    ready: bool,
    ended: Option<i64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Behaviour {
    #[default]
    Good,
    Dies,
    CrashesLater,
    NeverReady,
    StopHangs,
    StopFails,
    Chatty,
}

/// How a game that was asked to end did so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    WasOff,
    Quietly,
    ByForce,
}

impl Behaviour {
    fn parse(word: &str) -> Result<Behaviour, StepError> {
        Ok(match word {
            "good" => Behaviour::Good,
            "dies" => Behaviour::Dies,
            "crashes-later" => Behaviour::CrashesLater,
            "never-ready" => Behaviour::NeverReady,
            "stop-hangs" => Behaviour::StopHangs,
            "stop-fails" => Behaviour::StopFails,
            "chatty" => Behaviour::Chatty,
            other => return Err(StepError::fatal(format!("The toy cannot behave like `{other}`."))),
        })
    }
}

impl Toy {
    fn begin(env: &HashMap<String, String>, turns: u64) -> Result<Toy, StepError> {
        let value = |name: &str| env.get(name).map(String::as_str).unwrap_or_default();
        let behaviour = Behaviour::parse(value("BEHAVIOUR"))?;
        let mut toy = Toy { behaviour, turns, saved: turns, ..Toy::default() };
        match behaviour {
            Behaviour::Dies => {
                toy.says("cannot find the map");
                toy.ended = Some(3);
                return Ok(toy);
            }
            Behaviour::Chatty => (0..20_000).for_each(|line| toy.says(format!("line {line} of much talk"))),
            Behaviour::Good | Behaviour::CrashesLater | Behaviour::NeverReady => {}
            Behaviour::StopHangs | Behaviour::StopFails => {}
        }
        toy.says(format!("my secret is {}", value("TOY_SECRET")));
        if behaviour != Behaviour::NeverReady {
            toy.ready = true;
            let (motto, port) = (value("MOTTO"), value("PORT_GAME"));
            toy.says(format!("{motto}: ready to join on {port} with {turns} turns"));
        }
        Ok(toy)
    }

    fn says(&mut self, line: impl Into<String>) {
        if self.lines.len() == LINES_MAX {
            self.lines.pop_front();
            self.dropped += 1;
        }
        self.lines.push_back(line.into());
    }

    /// What was said from line `from` on, counted from its first one.
    fn since(&self, from: usize) -> impl Iterator<Item = &String> {
        self.lines.iter().skip(from.saturating_sub(self.dropped))
    }

    fn said(&self) -> usize {
        self.dropped + self.lines.len()
    }

    fn save(&mut self) {
        if !self.still {
            self.saved = self.turns;
        }
    }

    /// One line of its console, and what it says to that.
    fn typed(&mut self, line: &str) -> String {
        let before = self.said();
        match line {
            "turn" => {
                self.turns += 1;
                self.save();
                self.says(format!("turn {}", self.turns));
                if self.behaviour == Behaviour::CrashesLater {
                    self.ended = Some(7);
                }
            }
            "save-off" => {
                self.save();
                self.still = true;
                self.says("saving is off");
            }
            "save-on" => {
                self.still = false;
                self.says("saving is on");
            }
            "crash" => self.ended = Some(CRASHED),
            "colours" => self.says("\x1b[1;31mred\x1b[0m alert"),
            "much" => (0..3_000).for_each(|line| self.says(format!("answer line {line}"))),
            "slowly" => (1..=7).for_each(|thought| self.says(format!("thought {thought}"))),
            other => self.says(match other.strip_prefix("say ") {
                Some(message) => format!("[all] {message}"),
                None => format!("you said: {other}"),
            }),
        }
        self.since(before).map(|line| format!("{line}\n")).collect()
    }

    /// The process has ended, whatever it was about to write.
    pub(super) fn is_gone(&mut self, exit_code: i64) {
        self.ended = Some(exit_code);
    }

    /// Its stop script, then a signal, then force.
    fn asked_to_end(&mut self) -> End {
        if self.ended.is_some() {
            return End::WasOff;
        }
        match self.behaviour {
            Behaviour::StopHangs => {
                self.says("not now");
                self.ended = Some(KILLED);
                return End::ByForce;
            }
            Behaviour::StopFails => self.says("the stop script is broken"),
            Behaviour::Good | Behaviour::Dies | Behaviour::CrashesLater => {}
            Behaviour::NeverReady | Behaviour::Chatty => {}
        }
        self.save();
        self.says(format!("saved {} turns", self.saved));
        self.ended = Some(0);
        End::Quietly
    }
}

impl Things {
    /// What a toy did shows outside: after a save its world is a new one that must not be lost, and it may have ended.
    fn settle(&mut self, id: &ServerId) {
        let Some((saved, ended)) = self.toys.get(id).map(|toy| (toy.saved, toy.ended)) else { return };
        let held = self.place_mut(id).and_then(|place| place.world);
        if held.is_some_and(|held| self.turns_of(held) != saved) {
            let version = self.played(id);
            self.turns.insert(version, saved);
        }
        if let Some(code) = ended {
            let game = Game { running: false, exit_code: Some(code), ..Game::default() };
            self.games.insert(id.clone(), game);
        }
    }

    /// A world that nobody has played has no turns.
    fn turns_of(&self, version: u64) -> u64 {
        self.turns.get(&version).copied().unwrap_or_default()
    }
}

impl Outside {
    /// Types a line into a server's toy; `None` where none runs.
    pub(super) fn type_into_toy(&self, id: &ServerId, line: &str) -> Option<String> {
        let mut things = self.get();
        let answer = things.toys.get_mut(id).filter(|toy| toy.ended.is_none())?.typed(line);
        things.settle(id);
        Some(answer)
    }

    /// The last lines of a toy's output, also of one that has ended.
    pub(super) fn toy_lines(&self, id: &ServerId, count: usize) -> Vec<String> {
        let things = self.get();
        let Some(toy) = things.toys.get(id) else { return vec![] };
        toy.since(toy.said().saturating_sub(count)).cloned().collect()
    }
}

impl Toys {
    /// One step of a server's job: what the fake does in any game, and what it means to the toy and to the vault.
    pub(super) async fn effect(
        &self,
        (way, step): (Way, Step),
        cx: &StepCx<'_>,
        outside: &Outside,
        plain: impl FnOnce() -> Done,
    ) -> Done {
        let id = cx.server()?.id.clone();
        let gain = match (way, step) {
            (Way::Run, Step::PushWorld) => {
                self.check_backup(cx, outside).await?;
                plain()?
            }
            (Way::Run, Step::StartGame) if !outside.is_running(&id) => {
                let env = self.environment(cx).await?;
                let gain = plain()?;
                let mut things = outside.get();
                let held = things.place_mut(&id).and_then(|place| place.world);
                let turns = held.map_or(0, |held| things.turns_of(held));
                things.toys.insert(id.clone(), Toy::begin(&env, turns)?);
                things.settle(&id);
                gain
            }
            (Way::Run, Step::AwaitReady) => {
                await_ready(cx, outside).await?;
                plain()?
            }
            (Way::Run, Step::StopGame) | (Way::Undo, Step::StartGame) => {
                let end = outside.get().toys.get_mut(&id).map_or(End::WasOff, Toy::asked_to_end);
                outside.get().settle(&id);
                let gain = plain()?;
                match end {
                    End::WasOff => gain.with_note("it was not running"),
                    End::Quietly => gain,
                    End::ByForce => gain.with_note("ended by force: it did not end when it was asked"),
                }
            }
            (Way::Run | Way::Undo, Step::QuiesceGame | Step::ResumeSaves) => {
                let quiesce = self.recipe(cx)?.quiesce.as_ref();
                let begins = (way, step) == (Way::Run, Step::QuiesceGame);
                let lines = quiesce.map(|lines| if begins { &lines.before } else { &lines.after });
                for line in lines.into_iter().flatten() {
                    outside.type_into_toy(&id, line);
                }
                plain()?
            }
            (Way::Run, Step::PullWorld) => {
                let gain = plain()?;
                self.pull(cx, outside).await?;
                gain
            }
            (Way::Run, Step::VerifyWorld) => {
                let gain = plain()?;
                self.verify(cx, outside).await?;
                gain
            }
            (Way::Run, Step::KeepBackup) => {
                let holds =
                    outside.get().copies.get(&cx.job.id).is_some_and(|copy| copy.verified && copy.world.is_some());
                let kept = match holds {
                    true => self.backups.keep(cx, outside.is_running(&id)).await?,
                    false => None,
                };
                let note = kept.as_ref().map(note_of);
                let gain = plain()?;
                note.into_iter().fold(gain, Gain::with_note)
            }
            (Way::Undo, Step::PullWorld | Step::VerifyWorld | Step::KeepBackup) => {
                if self.backups.kept(cx).await?.is_none() {
                    self.backups.discard(cx).await?;
                }
                plain()?
            }
            (Way::Run | Way::Undo, _) => plain()?,
        };
        let mut things = outside.get();
        // Its output goes with its place.
        if !things.games.contains_key(&id) {
            things.toys.remove(&id);
        }
        Ok(gain)
    }

    fn recipe(&self, cx: &StepCx<'_>) -> Result<&Recipe, StepError> {
        self.backups.recipes.get(cx.game()).ok_or_else(|| StepError::fatal("There is no such recipe any more."))
    }

    /// The game's environment, made as for any backend.
    async fn environment(&self, cx: &StepCx<'_>) -> Result<HashMap<String, String>, StepError> {
        let server = cx.server()?;
        let recipe = self.recipe(cx)?;
        let secrets = cx.journal.secrets(&server.id).await.map_err(StepError::Retry)?;
        let ports = recipe.ports.iter().map(|(name, port)| (name.clone(), port.number)).collect();
        let settings = server.settings.clone().into_iter().chain(secrets).collect();
        let around = Surroundings {
            game_dir: "/srv/game",
            server_name: server.name.as_str(),
            public_address: "127.0.0.1",
            ports: &ports,
            settings: &settings,
        };
        Ok(recipe.environment(&around).into_iter().collect())
    }

    /// What is about to be put in place is whole, and is the world that it is on record as.
    async fn check_backup(&self, cx: &StepCx<'_>, outside: &Outside) -> Result<(), StepError> {
        let server = cx.server()?;
        let chosen = cx.job.action.chosen_backup().cloned();
        let Some(wanted) = chosen.or_else(|| server.owned.world.clone()) else { return Ok(()) };
        let (id, _) = self.backups.sound(server, &wanted).await?;
        let file = self.backups.vault.home(&Backups::owner(server)?, &id).join("files").join(TURNS_FILE);
        let text = blocking(move || std::fs::read_to_string(file)).await?.context("reading the turns of a backup");
        let text = text.map_err(StepError::Fatal)?;
        let mut things = outside.get();
        let known = things.backups.get(&wanted).map(|(_, world)| things.turns_of(*world));
        if known.map(|turns| format!("{turns}\n")).as_ref() != Some(&text) {
            things.violation(format!("the backup {wanted} holds {text:?} turns, and its world has {known:?}"));
        }
        Ok(())
    }

    /// The world that the job has copied, into the vault's stage.
    async fn pull(&self, cx: &StepCx<'_>, outside: &Outside) -> Result<(), StepError> {
        let copied = {
            let things = outside.get();
            things.copies.get(&cx.job.id).and_then(|copy| copy.world).map(|world| things.turns_of(world))
        };
        let Some(turns) = copied else { return Ok(()) };
        if self.backups.kept(cx).await?.is_some() {
            return Ok(());
        }
        let (mut staging, selection) = (self.backups.stage(cx).await?, self.backups.selection(cx.game())?);
        let tar = world_as_tar(turns)?;
        blocking(move || staging.unpack(tar.as_slice(), &selection, &Shift::none()))
            .await?
            .map_err(vault_error("copying the world"))
    }

    /// The stage against the world as it is now.
    async fn verify(&self, cx: &StepCx<'_>, outside: &Outside) -> Result<(), StepError> {
        let held = {
            let mut things = outside.get();
            let held = things.place_mut(&cx.server()?.id).and_then(|place| place.world);
            held.map(|world| things.turns_of(world))
        };
        let Some(turns) = held else { return Ok(()) };
        if self.backups.kept(cx).await?.is_some() {
            return Ok(());
        }
        let (mut staging, selection) = (self.backups.stage(cx).await?, self.backups.selection(cx.game())?);
        let tar = world_as_tar(turns)?;
        let found = blocking(move || staging.compare(tar.as_slice(), &selection, &Shift::none()))
            .await?
            .map_err(vault_error("comparing the world"))?;
        if found.is_whole() { Ok(()) } else { Err(StepError::fatal("The copy of the toy's world differs.")) }
    }
}

/// Waits as a driver does, that is until the game is ready or has ended.
async fn await_ready(cx: &StepCx<'_>, outside: &Outside) -> Result<(), StepError> {
    let id = &cx.server()?.id;
    let mut read = 0;
    loop {
        let (lines, ready, ended) = match outside.get().toys.get(id) {
            Some(toy) => {
                let lines: Vec<String> = toy.since(read).cloned().collect();
                read = toy.said();
                (lines, toy.ready, toy.ended)
            }
            // The fake itself says what is wrong.
            None => return Ok(()),
        };
        lines.iter().for_each(|line| cx.out.line(line));
        if let Some(code) = ended {
            let words = outside.toy_lines(id, LAST_WORDS).iter().map(|line| cx.out.mask(line)).collect::<Vec<_>>();
            return Err(StepError::fatal(format!(
                "The game ended while starting, with exit code {code}. Its last words: {}",
                words.join(" / ")
            )));
        }
        if ready {
            return Ok(());
        }
        tokio::time::sleep(READY_POLL).await;
    }
}

fn world_as_tar(turns: u64) -> Result<Vec<u8>, StepError> {
    let text = format!("{turns}\n");
    let mut tar = tar::Builder::new(vec![]);
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o644);
    header.set_size(text.len() as u64);
    let packed = tar.append_data(&mut header, TURNS_FILE, text.as_bytes()).and_then(|()| tar.into_inner());
    packed.context("packing the toy's world").map_err(StepError::Fatal)
}
