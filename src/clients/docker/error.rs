//! What can go wrong with a daemon, sorted by what the caller can do about it.

use std::error::Error as _;

/// Each carries the daemon's own words. A caller retries [`DaemonUnreachable`](Self::DaemonUnreachable),
/// [`RegistryUnreachable`](Self::RegistryUnreachable) and [`Timeout`](Self::Timeout); the others need a
/// person or another decision.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DockerError {
    /// The daemon answered, and it has no such container, image, volume or path.
    #[error("{0}")]
    Gone(String),
    /// The name is taken.
    #[error("{0}")]
    AlreadyExists(String),
    /// The thing is in a state that forbids this: in use, not running, being removed.
    #[error("{0}")]
    Conflict(String),
    /// Another program or container listens on a port that was to be published.
    #[error("{0}")]
    PortTaken(String),
    #[error("the Docker daemon does not answer: {0}")]
    DaemonUnreachable(String),
    #[error("the registry cannot be reached: {0}")]
    RegistryUnreachable(String),
    /// The registry answered, and it wants a login or does not know the image: it does not say which.
    #[error("the registry refuses the image: {0}")]
    AccessDenied(String),
    #[error("no space left: {0}")]
    NoSpace(String),
    #[error("the build failed: {reason}")]
    BuildFailed { reason: String, last_lines: Vec<String> },
    /// Asked for something that cannot be, or the bytes to send could not be read. Nothing was done.
    #[error("{0}")]
    Input(String),
    /// The daemon says no for a reason of its own.
    #[error("Docker refuses: {0}")]
    Refused(String),
    #[error("the Docker daemon did not answer in time")]
    Timeout,
}

impl DockerError {
    /// Whether the same call may succeed a little later with nothing changed by us.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::DaemonUnreachable(_) | Self::RegistryUnreachable(_) | Self::Timeout => true,
            Self::Gone(_)
            | Self::AlreadyExists(_)
            | Self::Conflict(_)
            | Self::PortTaken(_)
            | Self::AccessDenied(_)
            | Self::NoSpace(_)
            | Self::BuildFailed { .. }
            | Self::Input(_)
            | Self::Refused(_) => false,
        }
    }
}

impl From<bollard::errors::Error> for DockerError {
    fn from(error: bollard::errors::Error) -> Self {
        use bollard::errors::Error;
        match error {
            Error::DockerResponseServerError { status_code, message } => by_status(status_code, message),
            Error::DockerStreamError { error } => by_message(error),
            Error::RequestTimeoutError => Self::Timeout,
            Error::SocketNotFoundError(path) => Self::DaemonUnreachable(format!("there is no socket {path}")),
            Error::HyperLegacyError { .. } | Error::HyperResponseError { .. } | Error::IOError { .. } => {
                Self::DaemonUnreachable(chain(&error))
            }
            // bollard's enum is not ours and grows with its features.
            other => Self::Refused(chain(&other)),
        }
    }
}

fn by_status(status: u16, message: String) -> DockerError {
    let lower = message.to_lowercase();
    match status {
        // A proxy or another web server says 404 as well: only the daemon's own words mean that it is gone.
        404 if ["no such", "not known", "could not find"].iter().any(|words| lower.contains(words)) => {
            DockerError::Gone(message)
        }
        409 if lower.contains("already in use by container") || lower.contains("already exists") => {
            DockerError::AlreadyExists(message)
        }
        409 => DockerError::Conflict(message),
        404 if message.is_empty() => DockerError::Refused("not found, without a reason".to_string()),
        502..=504 => DockerError::DaemonUnreachable(message),
        _ => by_message(message),
    }
}

/// Sorts what the daemon says in plain words, also in the middle of a stream.
pub(super) fn by_message(message: String) -> DockerError {
    let lower = message.to_lowercase();
    if lower.contains("no space left on device") || lower.contains("disk quota exceeded") {
        return DockerError::NoSpace(message);
    }
    if lower.contains("port is already allocated") || lower.contains("address already in use") {
        return DockerError::PortTaken(message);
    }
    DockerError::Refused(message)
}

/// Sorts what a pull ended with. The daemon hands on the registry's words, whatever their status.
pub(super) fn by_pull(error: DockerError) -> DockerError {
    let (DockerError::Refused(message) | DockerError::Gone(message)) = error else { return error };
    let lower = message.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    if says(&["manifest unknown", "manifest for", "not found: manifest", "name unknown"]) {
        return DockerError::Gone(message);
    }
    if says(&["denied", "unauthorized", "authentication required", "no basic auth"]) {
        return DockerError::AccessDenied(message);
    }
    let network = [
        "connection refused",
        "no such host",
        "i/o timeout",
        "server misbehaving",
        "network is unreachable",
        "tls handshake",
        "connection reset",
        "client.timeout",
        "request canceled",
        "deadline exceeded",
        "no route to host",
        "eof",
        "temporary failure",
        "proxyconnect",
        "bad gateway",
        "service unavailable",
        "received unexpected http status: 5",
    ];
    if says(&network) {
        return DockerError::RegistryUnreachable(message);
    }
    DockerError::Refused(message)
}

/// hyper's own sentence ("client error (Connect)") says nothing; its causes do ("Permission denied").
fn chain(error: &bollard::errors::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let words = inner.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_daemons_own_words_mean_gone() {
        let gone = |text: &str| matches!(by_status(404, text.to_string()), DockerError::Gone(_));
        assert!(gone("No such container: a"));
        assert!(gone("get a: no such volume"));
        assert!(gone("Could not find the file /x in container a"));
        assert!(!gone("404 page not found"));
        assert!(!gone("<html>nginx: not found</html>"));
        assert!(!gone(""));
    }

    #[test]
    fn what_a_daemon_says_is_sorted_by_what_can_be_done_about_it() {
        let table = [
            (409, "Conflict. The container name \"/a\" is already in use by container \"b\".", "AlreadyExists"),
            (409, "remove a: volume is in use - [b]", "Conflict"),
            (500, "driver failed: Bind for 127.0.1.1:80 failed: port is already allocated", "PortTaken"),
            (500, "listen tcp4 0.0.0.0:80: bind: address already in use", "PortTaken"),
            (500, "write /var/lib/docker/x: no space left on device", "NoSpace"),
            (503, "upstream away", "DaemonUnreachable"),
            (400, "invalid mount config", "Refused"),
        ];
        for (status, text, kind) in table {
            let error = by_status(status, text.to_string());
            assert!(format!("{error:?}").starts_with(kind), "{text}: {error:?}");
        }
    }

    #[test]
    fn a_failed_pull_says_whether_the_registry_is_away_or_says_no() {
        let table = [
            (
                "Get \"https://registry.example/v2/\": dial tcp: lookup registry.example: no such host",
                "RegistryUnreachable",
            ),
            (
                "Get \"https://registry.example/v2/\": dial tcp 192.0.2.1:443: connect: connection refused",
                "RegistryUnreachable",
            ),
            ("pull access denied for a, repository does not exist or may require 'docker login'", "AccessDenied"),
            ("unauthorized: authentication required", "AccessDenied"),
            ("manifest for debian:nonsense not found: manifest unknown: manifest unknown", "Gone"),
            ("invalid reference format", "Refused"),
        ];
        for (text, kind) in table {
            let error = by_pull(DockerError::Refused(text.to_string()));
            assert!(format!("{error:?}").starts_with(kind), "{text}: {error:?}");
        }
    }
}
