//! The product as plain data and pure functions: no async, no I/O, no clock. Start with `job` and `plan`:
//! who reads these two understands what Spawnpoint promises.

pub mod access;
pub mod bill;
pub mod config_edit;
pub mod cost;
pub mod drive;
pub mod host;
pub mod job;
pub mod lease;
pub mod plan;
pub mod recipe;
pub mod schedule;
pub mod server;
pub mod sweep;
pub mod view;
pub mod world;

use serde::{Deserialize, Serialize};
use std::fmt;

/// A moment in milliseconds since 1970 (UTC). Model code never asks the clock: it is always a parameter.
pub type Ms = i64;

pub const SECOND_MS: Ms = 1_000;
pub const MINUTE_MS: Ms = 60 * SECOND_MS;
pub const HOUR_MS: Ms = 60 * MINUTE_MS;

/// The number people see on a job, counted up from 1 over the whole installation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(pub i64);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What a server is called inside: never changes, never reused, safe in a path, a label and a container's name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ServerId(pub String);

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The Discord guild a server belongs to, as Discord writes its id. Names are unique within one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GuildId(pub String);

impl fmt::Display for GuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
