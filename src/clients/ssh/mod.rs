//! Talking to a host over SSH: commands, small files, forwards. One [`Ssh`] per host, cheap to clone; it connects when
//! it is first needed and again after a connection has died, so a caller that repeats a broken operation needs nothing
//! else. Bulk transfers are not here: clients/rsync takes a connection of its own from [`Ssh::apart`].

mod connection;
mod error;
mod exec;
mod files;
mod forward;
mod keys;
mod quote;
mod session;
mod trust;
mod udp;

pub use connection::{Limits, Ssh, Target, scan};
pub use error::SshError;
pub use exec::{Ended, Exec, Exited};
pub use forward::LocalTcp;
pub use keys::{HostKey, KeyError, KeyPair, Pin, ScannedKey};
pub use quote::quoted;
pub use trust::Trust;
pub use udp::LocalUdp;

pub(in crate::clients) use exec::Lines;
pub(in crate::clients) use session::Event;
