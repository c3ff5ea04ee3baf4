//! A client for the Docker Engine: images, overlay volumes, containers, logs, files.
//!
//! It speaks Docker's language and knows nothing of ours: names, labels and paths come in as plain data and
//! plain structs go out. Nothing else in the crate names bollard. Every container made here drops all
//! capabilities, cannot gain privileges and never restarts by itself; there is no way to ask for less.
//!
//! Two rules hold everywhere. *Unknown is never gone*: only the daemon's own "no such container" becomes
//! `None` or [`DockerError::Gone`], everything else is an error. And *nothing is buffered whole* that can
//! grow: logs, trees and build output are streams.
//!
//! Start reading at [`Docker::create`] (containers), [`Docker::create_overlay_volume`] (volumes) and
//! [`Docker::logs`] (logs).

mod containers;
mod error;
mod exec;
mod files;
mod images;
mod lines;
mod logs;
mod volumes;

pub use containers::{Container, ContainerSpec, ContainerState, LogLimit, Mount, Network, Protocol, Publish, Usage};
pub use error::DockerError;
pub use exec::ExecSpec;
pub use files::PathStat;
pub use images::{BuildSpec, ImageInfo};
pub use lines::Output;
pub use logs::Line;
pub use volumes::{OverlayVolume, VolumeInfo};

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tokio::sync::watch;

/// Where the daemon listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

/// The longest wait for the head of an ordinary answer. Calls that take longer by nature raise it.
const REQUEST_TIMEOUT_S: u64 = 120;

/// The longest wait for the head of an answer that comes only when a whole tree has gone over.
const TRANSFER_TIMEOUT_S: u64 = 6 * 3600;

/// How long [`Docker::logs`] and [`Docker::wait`] look for a daemon that went away before they give up.
const DAEMON_PATIENCE_S: u64 = 600;

/// The pause between two looks for a daemon that went away.
const DAEMON_RETRY_MS: u64 = 250;

/// A connection to one daemon. Cheap to clone. The daemon need not be there when this is made: each call
/// connects anew, so a daemon that comes back is found again.
#[derive(Clone, Debug)]
pub struct Docker {
    endpoint: Endpoint,
    client: Arc<OnceLock<bollard::Docker>>,
    /// Names of containers that are being made; who waits for one hears when that is over.
    making: Arc<Mutex<HashMap<String, watch::Receiver<()>>>>,
}

#[derive(Clone, Debug)]
enum Endpoint {
    Unix(String),
    Tcp(String),
}

/// What a daemon says of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct About {
    pub version: String,
    pub storage_driver: String,
    /// The daemon's directory, in the daemon's own file system.
    pub root_dir: String,
    pub operating_system: String,
    pub kernel: String,
    pub cpus: u64,
    pub memory_bytes: u64,
    /// The daemon runs as an ordinary user, who is root in its containers; it cannot mount overlays with options of ours.
    pub rootless: bool,
    /// The daemon runs in a virtual machine of Docker Desktop; host paths are shared into it.
    pub desktop: bool,
    /// A daemon of root's that maps the ids in containers to other ids of the host (`userns-remap`).
    pub user_namespaces: bool,
    pub can_limit_memory: bool,
    pub can_limit_pids: bool,
    /// Where it cannot, it makes no container that asks for it. What it cannot of the other two it leaves out.
    pub can_limit_cpus: bool,
    /// Containers keep running while the daemon restarts.
    pub live_restore: bool,
}

impl Docker {
    /// Takes a path of a socket, `unix://path`, `tcp://host:port` or `http://host:port`; nothing means
    /// [`DEFAULT_SOCKET`]. Only the form is checked: see [`Docker::ping`] for whether anyone answers.
    pub fn connect(endpoint: Option<&str>) -> Result<Docker, DockerError> {
        let text = endpoint.unwrap_or(DEFAULT_SOCKET);
        let path = text.strip_prefix("unix://").unwrap_or(text);
        let endpoint = if path.starts_with('/') {
            Endpoint::Unix(path.to_string())
        } else if text.starts_with("tcp://") || text.starts_with("http://") {
            Endpoint::Tcp(text.to_string())
        } else {
            return Err(DockerError::Input(format!(
                "\"{text}\" is no Docker endpoint: give the path of a socket, unix://path or tcp://host:port"
            )));
        };
        Ok(Docker { endpoint, client: Arc::default(), making: Arc::default() })
    }

    pub async fn ping(&self) -> Result<(), DockerError> {
        self.client()?.ping().await?;
        Ok(())
    }

    pub async fn about(&self) -> Result<About, DockerError> {
        let info = self.client()?.info().await?;
        let security = info.security_options.unwrap_or_default();
        let says = |name: &str| security.iter().any(|o| o == name || o.starts_with(&format!("{name},")));
        let operating_system = info.operating_system.unwrap_or_default();
        Ok(About {
            version: info.server_version.unwrap_or_default(),
            storage_driver: info.driver.unwrap_or_default(),
            root_dir: info.docker_root_dir.unwrap_or_default(),
            desktop: operating_system.contains("Docker Desktop"),
            operating_system,
            kernel: info.kernel_version.unwrap_or_default(),
            cpus: count(info.ncpu),
            memory_bytes: count(info.mem_total),
            rootless: says("name=rootless"),
            user_namespaces: says("name=userns"),
            can_limit_memory: info.memory_limit.unwrap_or(false),
            can_limit_pids: info.pids_limit.unwrap_or(false),
            can_limit_cpus: info.cpu_cfs_period.unwrap_or(false) && info.cpu_cfs_quota.unwrap_or(false),
            live_restore: info.live_restore_enabled.unwrap_or(false),
        })
    }

    /// bollard looks for the socket's file when a client is made, so that is put off until the first call
    /// and tried again until it works.
    fn client(&self) -> Result<bollard::Docker, DockerError> {
        if let Some(client) = self.client.get() {
            return Ok(client.clone());
        }
        // The version is not sent by bollard 0.21 (bollard#736): the daemon answers in its newest shape.
        let version = bollard::API_DEFAULT_VERSION;
        let client = match &self.endpoint {
            Endpoint::Unix(path) => bollard::Docker::connect_with_unix(path, REQUEST_TIMEOUT_S, version)?,
            Endpoint::Tcp(address) => bollard::Docker::connect_with_http(address, REQUEST_TIMEOUT_S, version)?,
        };
        Ok(self.client.get_or_init(|| client).clone())
    }

    /// A client for one call that may take this much longer than an ordinary one to begin its answer.
    fn client_waiting(&self, longer: Duration) -> Result<bollard::Docker, DockerError> {
        let timeout = Duration::from_secs(REQUEST_TIMEOUT_S).saturating_add(longer);
        Ok(self.client()?.with_timeout(timeout))
    }
}

/// Docker's counts are signed and sometimes -1 for "unknown".
fn count(number: Option<i64>) -> u64 {
    number.and_then(|n| u64::try_from(n).ok()).unwrap_or(0)
}

/// A filter for exactly these labels, in the shape that list calls take.
fn label_filter(labels: &[(String, String)]) -> std::collections::HashMap<String, Vec<String>> {
    let wanted = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    std::collections::HashMap::from([("label".to_string(), wanted)])
}
