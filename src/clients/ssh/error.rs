//! Why something over SSH did not happen, in sentences, and whether trying again can help.

use std::net::SocketAddr;
use std::time::Duration;

use super::exec::Ended;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SshError {
    /// Nobody answers, or not with SSH: a host that still boots looks like this.
    #[error("{address} cannot be reached by SSH: {why}")]
    Unreachable { address: SocketAddr, why: String },
    #[error(
        "{address} showed another host key than the one that is trusted: {found} instead of {expected}. Either this is another machine, or it was installed anew; if it is yours and you did that, `spawnpoint trust` takes its new key"
    )]
    WrongHostKey { address: SocketAddr, expected: String, found: String },
    #[error(
        "{address} has no host key that Spawnpoint can use: it offers {offered}. Make an ed25519 host key there with `ssh-keygen -A` and restart its sshd"
    )]
    NoUsableHostKey { address: SocketAddr, offered: String },
    /// A host whose first boot has not finished can answer like this too; the caller knows how old the host is.
    #[error(
        "{address} does not let {user} in with this key. Put the public key into ~{user}/.ssh/authorized_keys there"
    )]
    Denied { address: SocketAddr, user: String },
    #[error("{what} took longer than {} s", limit.as_secs_f32())]
    Timeout { what: String, limit: Duration },
    /// The connection was lost in the middle: the command may or may not have done its work.
    #[error("the connection was lost during {what}: {why}")]
    Broken { what: String, why: String },
    #[error("{what} {ended}{}", said(last))]
    Exit { what: String, ended: Ended, last: Vec<String> },
    /// What was asked for cannot be done, here or there.
    #[error("{0}")]
    Refused(String),
}

impl SshError {
    /// Whether the same again can go better without anybody's help.
    pub fn may_pass(&self) -> bool {
        match self {
            SshError::Unreachable { .. } | SshError::Timeout { .. } | SshError::Broken { .. } => true,
            SshError::WrongHostKey { .. }
            | SshError::NoUsableHostKey { .. }
            | SshError::Denied { .. }
            | SshError::Exit { .. }
            | SshError::Refused(_) => false,
        }
    }
}

/// The last words of a command; the very last of them tells most.
fn said(last: &[String]) -> String {
    match last.iter().rev().find(|line| !line.trim().is_empty()) {
        Some(line) => format!(": {}", line.trim()),
        None => String::new(),
    }
}
