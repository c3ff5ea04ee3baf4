//! What a button or a form stands for, written into its `custom_id`. Nothing is kept in memory for them, so they go
//! on working after a restart of the bot; a `v1:` in front lets a later release tell them from its own. Pure.

use crate::model::host::Place;
use crate::model::job::Step;
use crate::model::server::Backend;
use crate::model::world::BackupId;
use crate::model::{JobId, Ms, ServerId};

/// The longest `custom_id` that Discord takes, in characters.
pub const ID_MAX_CHARS: usize = 100;
/// How long a question ("Delete it?") may be answered: long enough to read it, too short to find it next week.
pub const QUESTION_MS: Ms = 3 * 60 * 1000;

/// An orphan's tag is this long.
const TAG_CHARS: usize = 16;

/// What a button asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Press {
    Start(ServerId),
    Stop(ServerId),
    Restart(ServerId),
    Extend(ServerId),
    /// Opens a form with one line.
    Console(ServerId),
    /// Opens a form with the settings of this page, counted from 0.
    Settings(ServerId, usize),
    Cancel(JobId),
    Retry(JobId),
    /// Asks first: it says what is lost.
    Force(JobId),
    Abandon(JobId),
    /// Asks first: older backups may go then.
    Accept(ServerId, BackupId),
    /// Asks first. The word is the orphan's tag.
    DeleteOrphan(String),
    /// Gives a host back to its server.
    AdoptOrphan(String),
    /// The answer "yes" to a question.
    Sure(Sure, Asker),
    /// The answer "no" to a question.
    Never,
}

/// What was asked about before it was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sure {
    Delete(ServerId),
    Move(ServerId, Backend),
    Kill(ServerId),
    Restore(ServerId, BackupId),
    Accept(ServerId, BackupId),
    /// Starts it with this backup, though it is in doubt.
    StartWith(ServerId, BackupId),
    /// Starts it on the host of this tag, which is not the usual one.
    StartOn(ServerId, String),
    /// Starts it on the usual host after all.
    StartAnyway(ServerId),
    DeleteSnapshot(String),
    DeleteOrphan(String),
    AdoptOrphan(String),
    /// The step that is left out: the job may wait at another one by the time of the answer.
    Force(JobId, Step),
}

/// Who was asked, and until when they may say yes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    pub user: u64,
    pub until: Ms,
}

impl Asker {
    pub fn new(user: u64, now: Ms) -> Asker {
        // Whole seconds: that is what the id keeps.
        Asker { user, until: (now + QUESTION_MS) / 1000 * 1000 }
    }
}

/// What a form was opened for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filled {
    Console(ServerId),
    Settings(ServerId, usize),
    Create { name: String, game: String, backend: Option<String>, place: Place },
}

impl Press {
    pub fn id(&self) -> String {
        match self {
            Press::Start(server) => format!("v1:start:{server}"),
            Press::Stop(server) => format!("v1:stop:{server}"),
            Press::Restart(server) => format!("v1:restart:{server}"),
            Press::Extend(server) => format!("v1:extend:{server}"),
            Press::Console(server) => format!("v1:console:{server}"),
            Press::Settings(server, page) => format!("v1:settings:{server}:{page}"),
            Press::Cancel(job) => format!("v1:cancel:{job}"),
            Press::Retry(job) => format!("v1:retry:{job}"),
            Press::Force(job) => format!("v1:force:{job}"),
            Press::Abandon(job) => format!("v1:abandon:{job}"),
            Press::Accept(server, backup) => format!("v1:accept:{server}:{backup}"),
            Press::DeleteOrphan(tag) => format!("v1:unorphan:{tag}"),
            Press::AdoptOrphan(tag) => format!("v1:adopt:{tag}"),
            Press::Sure(sure, asker) => {
                let what = match sure {
                    Sure::Delete(server) => format!("delete:{server}"),
                    Sure::Move(server, to) => format!("move:{server}:{}", to.word()),
                    Sure::Kill(server) => format!("kill:{server}"),
                    Sure::Restore(server, backup) => format!("restore:{server}:{backup}"),
                    Sure::Accept(server, backup) => format!("accept:{server}:{backup}"),
                    Sure::StartWith(server, backup) => format!("with:{server}:{backup}"),
                    Sure::StartOn(server, tag) => format!("on:{server}:{tag}"),
                    Sure::StartAnyway(server) => format!("start:{server}"),
                    Sure::DeleteSnapshot(snapshot) => format!("unsnap:{snapshot}"),
                    Sure::DeleteOrphan(tag) => format!("unorphan:{tag}"),
                    Sure::AdoptOrphan(tag) => format!("adopt:{tag}"),
                    Sure::Force(job, step) => format!("force:{job}:{}", step.word()),
                };
                let until = u64::try_from(asker.until / 1000).unwrap_or_default();
                format!("v1:!{}:{}:{what}", base36(asker.user), base36(until))
            }
            Press::Never => "v1:never".to_owned(),
        }
    }

    pub fn parse(id: &str) -> Option<Press> {
        let rest = id.strip_prefix("v1:")?;
        if rest == "never" {
            return Some(Press::Never);
        }
        if let Some(rest) = rest.strip_prefix('!') {
            let mut parts = rest.splitn(4, ':');
            let (user, until, verb, what) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
            let until = Ms::try_from(u64::from_str_radix(until, 36).ok()?).ok()?.checked_mul(1000)?;
            let asker = Asker { user: u64::from_str_radix(user, 36).ok()?, until };
            let sure = match verb {
                "delete" => Sure::Delete(server(what)?),
                "move" => {
                    let (id, to) = what.split_once(':')?;
                    Sure::Move(server(id)?, Backend::parse(to)?)
                }
                "kill" => Sure::Kill(server(what)?),
                "restore" => {
                    let (server, backup) = server_and_backup(what)?;
                    Sure::Restore(server, backup)
                }
                "accept" => {
                    let (server, backup) = server_and_backup(what)?;
                    Sure::Accept(server, backup)
                }
                "with" => {
                    let (server, backup) = server_and_backup(what)?;
                    Sure::StartWith(server, backup)
                }
                "on" => {
                    let (id, offer) = what.split_once(':')?;
                    Sure::StartOn(server(id)?, tag(offer)?)
                }
                "start" => Sure::StartAnyway(server(what)?),
                "unsnap" => Sure::DeleteSnapshot(what.to_owned()),
                "unorphan" => Sure::DeleteOrphan(tag(what)?),
                "adopt" => Sure::AdoptOrphan(tag(what)?),
                "force" => {
                    let (id, step) = what.split_once(':')?;
                    Sure::Force(job(id)?, Step::parse(step)?)
                }
                _ => return None,
            };
            return Some(Press::Sure(sure, asker));
        }
        let (verb, what) = rest.split_once(':')?;
        Some(match verb {
            "start" => Press::Start(server(what)?),
            "stop" => Press::Stop(server(what)?),
            "restart" => Press::Restart(server(what)?),
            "extend" => Press::Extend(server(what)?),
            "console" => Press::Console(server(what)?),
            "settings" => {
                let (id, page) = what.split_once(':')?;
                Press::Settings(server(id)?, page.parse().ok()?)
            }
            "cancel" => Press::Cancel(job(what)?),
            "retry" => Press::Retry(job(what)?),
            "force" => Press::Force(job(what)?),
            "abandon" => Press::Abandon(job(what)?),
            "accept" => {
                let (server, backup) = server_and_backup(what)?;
                Press::Accept(server, backup)
            }
            "unorphan" => Press::DeleteOrphan(tag(what)?),
            "adopt" => Press::AdoptOrphan(tag(what)?),
            _ => return None,
        })
    }
}

impl Filled {
    /// `None` when it would be too long for Discord, which only happens with input that is refused anyway.
    pub fn id(&self) -> Option<String> {
        let id = match self {
            Filled::Console(server) => format!("v1:console:{server}"),
            Filled::Settings(server, page) => format!("v1:settings:{server}:{page}"),
            Filled::Create { name, game, backend, place } => {
                let words = [backend, &place.provider, &place.region, &place.size, &place.image];
                let mut parts = vec![name.clone(), game.clone()];
                parts.extend(words.map(|word| word.clone().unwrap_or_default()));
                if parts.iter().any(|part| part.contains(':')) {
                    return None;
                }
                format!("v1:create:{}", parts.join(":"))
            }
        };
        (id.chars().count() <= ID_MAX_CHARS).then_some(id)
    }

    pub fn parse(id: &str) -> Option<Filled> {
        let (verb, what) = id.strip_prefix("v1:")?.split_once(':')?;
        Some(match verb {
            "console" => Filled::Console(server(what)?),
            "settings" => {
                let (id, page) = what.split_once(':')?;
                Filled::Settings(server(id)?, page.parse().ok()?)
            }
            "create" => {
                let parts: Vec<&str> = what.split(':').collect();
                let [name, game, backend, provider, region, size, image] = parts[..] else { return None };
                let word = |text: &str| (!text.is_empty()).then(|| text.to_owned());
                let place = Place {
                    provider: word(provider),
                    region: word(region),
                    size: word(size),
                    image: word(image),
                    ..Place::default()
                };
                Filled::Create { name: name.into(), game: game.into(), backend: word(backend), place }
            }
            _ => return None,
        })
    }
}

fn server(text: &str) -> Option<ServerId> {
    (!text.is_empty() && !text.contains(':')).then(|| ServerId(text.to_owned()))
}

fn server_and_backup(text: &str) -> Option<(ServerId, BackupId)> {
    let (id, backup) = text.split_once(':')?;
    Some((server(id)?, BackupId(backup.to_owned())))
}

fn tag(text: &str) -> Option<String> {
    (text.len() == TAG_CHARS && text.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| text.to_owned())
}

fn job(text: &str) -> Option<JobId> {
    text.parse().ok().map(JobId)
}

fn base36(mut number: u64) -> String {
    let mut digits = vec![];
    loop {
        let digit = u32::try_from(number % 36).expect("a digit is below 36");
        digits.push(char::from_digit(digit, 36).expect("a digit below 36 has a character"));
        number /= 36;
        if number == 0 {
            return digits.iter().rev().collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As long as ids get: a UUID for a server, the largest snowflake.
    fn server() -> ServerId {
        ServerId("019aa0f4-7a3c-7d21-9b3e-1f2a3b4c5d6e".into())
    }

    #[test]
    fn every_button_comes_back_as_what_it_was_and_fits() {
        let asker = Asker::new(u64::MAX, 1_795_000_000_123);
        let sures = [
            Sure::Delete(server()),
            Sure::Move(server(), Backend::Docker),
            Sure::Kill(server()),
            Sure::Restore(server(), BackupId("20261121T075309Z-4f1c".into())),
            Sure::Accept(server(), BackupId("20261121T075309Z-4f1c".into())),
            Sure::StartWith(server(), BackupId("20261121T075309Z-4f1c".into())),
            Sure::StartOn(server(), "0123456789abcdef".into()),
            Sure::StartAnyway(server()),
            Sure::DeleteSnapshot("a-game-with-quite-a-long-name-112".into()),
            Sure::DeleteOrphan("0123456789abcdef".into()),
            Sure::AdoptOrphan("0123456789abcdef".into()),
            Sure::Force(JobId(i64::MAX), Step::EnsureSnapshot),
        ];
        let mut all: Vec<Press> = sures.into_iter().map(|sure| Press::Sure(sure, asker)).collect();
        all.extend([
            Press::Start(server()),
            Press::Stop(server()),
            Press::Restart(server()),
            Press::Extend(server()),
            Press::Console(server()),
            Press::Settings(server(), 12),
            Press::Cancel(JobId(1)),
            Press::Retry(JobId(2)),
            Press::Force(JobId(3)),
            Press::Abandon(JobId(4)),
            Press::Accept(server(), BackupId("20261121T075309Z-4f1c".into())),
            Press::DeleteOrphan("0123456789abcdef".into()),
            Press::AdoptOrphan("0123456789abcdef".into()),
            Press::Never,
        ]);
        for press in all {
            let id = press.id();
            assert!(id.len() <= ID_MAX_CHARS, "{id}");
            assert_eq!(Press::parse(&id), Some(press), "{id}");
        }
    }

    #[test]
    fn every_form_comes_back_as_what_it_was_and_fits() {
        let create = |name: &str| {
            let (size, image) = (Some("cx23".to_owned()), Some("debian-13".to_owned()));
            let place = Place { size, image, ..Place::default() };
            Filled::Create { name: name.into(), game: "openttd".into(), backend: Some("docker".into()), place }
        };
        for filled in [Filled::Console(server()), Filled::Settings(server(), 3), create("friday")] {
            let id = filled.id().unwrap();
            assert_eq!(Filled::parse(&id), Some(filled), "{id}");
        }
        assert_eq!(create(&"x".repeat(99)).id(), None);
        assert_eq!(create("a:b").id(), None);
    }

    #[test]
    fn what_we_did_not_write_is_not_understood() {
        for id in [
            "",
            "v1",
            "v1:",
            "v1:start:",
            "v1:start:a:b",
            "v2:start:x",
            "v1:cancel:x",
            "v1:!zz:zz",
            "v1:adopt:x",
            "v1:unorphan:0123456789abcdeg",
            "v1:!:::",
            "x",
        ] {
            assert_eq!(Press::parse(id), None, "{id}");
            assert_eq!(Filled::parse(id), None, "{id}");
        }
    }
}
