//! Containers: made, started, asked about, stopped, removed. What every one of them has in common (no
//! capabilities, no new privileges, no restart by itself) is written once, in [`host_config`].

use std::collections::HashMap;
use std::time::Duration;

use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, ContainerStatsResponse, ContainerSummary, HostConfig,
    HostConfigLogConfig, MountType, PortBinding, RestartPolicy, RestartPolicyNameEnum,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, KillContainerOptionsBuilder, ListContainersOptionsBuilder,
    RemoveContainerOptionsBuilder, StartContainerOptions, StatsOptionsBuilder, StopContainerOptionsBuilder,
    WaitContainerOptions,
};
use futures::StreamExt;
use jiff::Timestamp;
use tokio::sync::{oneshot, watch};

use super::{DAEMON_PATIENCE_S, DAEMON_RETRY_MS, Docker, DockerError, count, label_filter};

#[derive(Clone, Debug, Default)]
pub struct ContainerSpec {
    pub name: String,
    pub image: String,
    /// Nothing means the image's own.
    pub entrypoint: Vec<String>,
    /// Nothing means the image's own.
    pub cmd: Vec<String>,
    pub env: Vec<(String, String)>,
    pub labels: Vec<(String, String)>,
    /// `uid:gid`; nothing means the image's own.
    pub user: Option<String>,
    pub workdir: Option<String>,
    pub mounts: Vec<Mount>,
    pub ports: Vec<Publish>,
    /// Memory and swap together.
    pub memory_bytes: Option<u64>,
    /// Billionths of a CPU.
    pub nano_cpus: Option<u64>,
    pub pids: Option<u64>,
    pub stdin_open: bool,
    pub network: Network,
    /// The signal of [`Docker::stop`]; nothing means the image's own, and SIGTERM if it has none.
    pub stop_signal: Option<String>,
    /// Seconds that the daemon waits after that signal when it ends itself, as at a reboot; nothing means its own 10.
    pub stop_timeout_s: Option<u64>,
    pub read_only_root: bool,
    /// A small init as process 1, which reaps what the game leaves behind and hands signals on.
    pub init: bool,
    pub log_limit: LogLimit,
}

#[derive(Clone, Debug)]
pub enum Mount {
    Volume { name: String, target: String },
    Bind { source: String, target: String, read_only: bool },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    pub container_port: u16,
    pub protocol: Protocol,
    pub host_ip: String,
    pub host_port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Tcp,
    Udp,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    #[default]
    Bridge,
    None,
    Host,
}

/// How much of a container's output the daemon keeps, in files that it turns over.
#[derive(Clone, Copy, Debug)]
pub struct LogLimit {
    pub file_bytes: u64,
    pub files: u32,
}

impl Default for LogLimit {
    fn default() -> Self {
        LogLimit { file_bytes: 10_000_000, files: 3 }
    }
}

/// A container as the daemon knows it now.
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerState {
    pub id: String,
    pub name: String,
    pub labels: HashMap<String, String>,
    /// Docker's word: created, running, paused, exited, dead, removing.
    pub status: String,
    pub running: bool,
    /// Of the last run; `None` while it runs and before it first did.
    pub exit_code: Option<i64>,
    pub oom_killed: bool,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    /// On the bridge; containers on other networks have none.
    pub ip: Option<String>,
    pub ports: Vec<Publish>,
    /// Why it could not be started, in the daemon's words.
    pub error: Option<String>,
}

/// A line of a list of containers.
#[derive(Clone, Debug, PartialEq)]
pub struct Container {
    pub id: String,
    pub name: String,
    pub image: String,
    pub labels: HashMap<String, String>,
    pub status: String,
    pub running: bool,
}

/// What a container uses at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usage {
    /// Without the page cache that the kernel can take back.
    pub memory_bytes: u64,
    /// CPUs in use over the last second: 1.5 is one and a half.
    pub cpus: f64,
    pub pids: u64,
}

impl Docker {
    /// Makes a container and does not start it. [`DockerError::AlreadyExists`] if the name is taken,
    /// [`DockerError::Gone`] if there is no such image. Gives its id.
    ///
    /// The daemon goes on with what it was asked for when nobody waits for the answer any more, and the container is there
    /// a little later. So the asking is done in a task of its own, which removes a container that nobody wants by then.
    pub async fn create(&self, spec: &ContainerSpec) -> Result<String, DockerError> {
        let body = create_body(spec)?;
        let options = CreateContainerOptionsBuilder::new().name(&spec.name).build();
        // A busy disk makes it slow, and what comes after the last word would come unseen.
        let client = self.client_waiting(Duration::from_secs(600))?;
        let (answer, answered) = oneshot::channel();
        let (over, making) = watch::channel(());
        self.making.lock().expect("no holder of this lock can panic").insert(spec.name.clone(), making.clone());
        let (docker, name) = (self.clone(), spec.name.clone());
        tokio::spawn(async move {
            let made = client.create_container(Some(options), body).await;
            let made = made.map(|made| made.id).map_err(DockerError::from);
            if let Err(Ok(unwanted)) = answer.send(made)
                && let Err(error) = docker.remove_made(&unwanted, true).await
            {
                tracing::warn!("The container {name}, whose making was called off, could not be removed: {error}");
            }
            let mut all = docker.making.lock().expect("no holder of this lock can panic");
            if all.get(&name).is_some_and(|newest| newest.same_channel(&making)) {
                all.remove(&name);
            }
            drop(over);
        });
        answered.await.unwrap_or_else(|_| Err(DockerError::DaemonUnreachable("Spawnpoint is ending".to_owned())))
    }

    /// Fine when it runs already.
    pub async fn start(&self, id: &str) -> Result<(), DockerError> {
        // Mounting and the network are part of it, and a busy disk makes them slow.
        let client = self.client_waiting(Duration::from_secs(180))?;
        client.start_container(id, None::<StartContainerOptions>).await?;
        Ok(())
    }

    /// Sends the stop signal, waits this long, and kills. Fine when it does not run.
    pub async fn stop(&self, id: &str, grace: Duration) -> Result<(), DockerError> {
        let seconds = i32::try_from(grace.as_secs()).unwrap_or(i32::MAX);
        let options = StopContainerOptionsBuilder::new().t(seconds).build();
        self.client_waiting(grace)?.stop_container(id, Some(options)).await?;
        Ok(())
    }

    /// [`DockerError::Conflict`] when it does not run.
    pub async fn signal(&self, id: &str, signal: &str) -> Result<(), DockerError> {
        let options = KillContainerOptionsBuilder::new().signal(signal).build();
        self.client()?.kill_container(id, Some(options)).await?;
        Ok(())
    }

    /// Ends it at once. Fine when it does not run.
    pub async fn kill(&self, id: &str) -> Result<(), DockerError> {
        match self.signal(id, "SIGKILL").await {
            Err(DockerError::Conflict(_)) => Ok(()),
            other => other,
        }
    }

    /// Removes it with its unnamed volumes; `force` also while it runs. Fine when there is none. One that is being made
    /// under this name is waited for.
    pub async fn remove(&self, id: &str, force: bool) -> Result<(), DockerError> {
        let making = self.making.lock().expect("no holder of this lock can panic").get(id).cloned();
        if let Some(mut making) = making {
            // Nothing is ever sent: it ends with its sender.
            let _ = making.changed().await;
        }
        self.remove_made(id, force).await
    }

    async fn remove_made(&self, id: &str, force: bool) -> Result<(), DockerError> {
        let options = RemoveContainerOptionsBuilder::new().force(force).v(true).build();
        let client = self.client_waiting(Duration::from_secs(180))?;
        match client.remove_container(id, Some(options)).await.map_err(DockerError::from) {
            Ok(()) | Err(DockerError::Gone(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// By id or name. `None` only when the daemon says that there is none.
    pub async fn inspect(&self, id: &str) -> Result<Option<ContainerState>, DockerError> {
        match self.client()?.inspect_container(id, None::<InspectContainerOptions>).await.map_err(DockerError::from) {
            Ok(answer) => Ok(Some(state(answer))),
            Err(DockerError::Gone(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The environment that a container was made with.
    pub async fn environment(&self, id: &str) -> Result<Vec<(String, String)>, DockerError> {
        let found = self.client()?.inspect_container(id, None::<InspectContainerOptions>).await?;
        let lines = found.config.and_then(|config| config.env).unwrap_or_default();
        Ok(lines
            .iter()
            .filter_map(|line| line.split_once('='))
            .map(|(key, value)| (key.into(), value.into()))
            .collect())
    }

    /// Containers with all of these labels, running or not.
    pub async fn list(&self, labels: &[(String, String)]) -> Result<Vec<Container>, DockerError> {
        let options = ListContainersOptionsBuilder::new().all(true).filters(&label_filter(labels)).build();
        let found = self.client()?.list_containers(Some(options)).await?;
        Ok(found.into_iter().map(summary).collect())
    }

    /// Returns when it does not run (any more); at once for one that was never started. A daemon that goes
    /// away in between is waited for, up to ten minutes.
    pub async fn wait(&self, id: &str) -> Result<ContainerState, DockerError> {
        let mut away_since = None;
        loop {
            match self.inspect(id).await {
                Ok(None) => return Err(DockerError::Gone(format!("No such container: {id}"))),
                Ok(Some(state)) if !state.running => return Ok(state),
                Ok(Some(_)) => {
                    away_since = None;
                    let client = self.client()?;
                    let mut ends = std::pin::pin!(client.wait_container(id, None::<WaitContainerOptions>));
                    // Exit codes other than 0 come as errors here; the next look says them better.
                    match ends.next().await {
                        Some(Ok(_) | Err(bollard::errors::Error::DockerContainerWaitError { .. })) => {}
                        Some(Err(_)) | None => pause().await,
                    }
                }
                Err(error) => be_patient(&mut away_since, error).await?,
            }
        }
    }

    /// Takes about a second: a share of CPU needs two looks.
    pub async fn usage(&self, id: &str) -> Result<Usage, DockerError> {
        let options = StatsOptionsBuilder::new().stream(false).one_shot(false).build();
        let client = self.client()?;
        let mut answers = std::pin::pin!(client.stats(id, Some(options)));
        match answers.next().await {
            Some(answer) => Ok(usage(&answer?)),
            None => Err(DockerError::DaemonUnreachable("it closed the connection".to_string())),
        }
    }
}

/// Pauses when the daemon is away and has not been for too long; hands every other error on.
pub(super) async fn be_patient(
    away_since: &mut Option<tokio::time::Instant>,
    error: DockerError,
) -> Result<(), DockerError> {
    let since = *away_since.get_or_insert_with(tokio::time::Instant::now);
    if !error.is_passing() || since.elapsed() > Duration::from_secs(DAEMON_PATIENCE_S) {
        return Err(error);
    }
    pause().await;
    Ok(())
}

/// Between two looks for a daemon, so that one that hangs up at once is not asked in a tight loop.
pub(super) async fn pause() {
    tokio::time::sleep(Duration::from_millis(DAEMON_RETRY_MS)).await;
}

fn create_body(spec: &ContainerSpec) -> Result<ContainerCreateBody, DockerError> {
    let mut env = Vec::with_capacity(spec.env.len());
    for (key, value) in &spec.env {
        if key.is_empty() || key.contains(['=', '\0']) || value.contains('\0') {
            return Err(DockerError::Input(format!("{key:?} cannot be an environment variable")));
        }
        env.push(format!("{key}={value}"));
    }
    let some = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
    Ok(ContainerCreateBody {
        image: Some(spec.image.clone()),
        entrypoint: some(&spec.entrypoint),
        cmd: some(&spec.cmd),
        env: Some(env),
        labels: Some(spec.labels.iter().cloned().collect()),
        user: spec.user.clone(),
        working_dir: spec.workdir.clone(),
        open_stdin: Some(spec.stdin_open),
        // The input stays open when a writer leaves: see `write_stdin`.
        stdin_once: Some(false),
        tty: Some(false),
        stop_signal: spec.stop_signal.clone(),
        stop_timeout: spec.stop_timeout_s.map(|seconds| i64::try_from(seconds).unwrap_or(i64::MAX)),
        exposed_ports: Some(spec.ports.iter().map(port_key).collect()),
        host_config: Some(host_config(spec)?),
        ..ContainerCreateBody::default()
    })
}

fn host_config(spec: &ContainerSpec) -> Result<HostConfig, DockerError> {
    let signed = |number: Option<u64>| number.map(|n| i64::try_from(n).unwrap_or(i64::MAX));
    let mut bindings: HashMap<String, Option<Vec<PortBinding>>> = HashMap::new();
    for port in &spec.ports {
        // An empty address would publish on every interface.
        if port.host_ip.parse::<std::net::IpAddr>().is_err() {
            return Err(DockerError::Input(format!("{:?} is no address to publish a port on", port.host_ip)));
        }
        let binding = PortBinding { host_ip: Some(port.host_ip.clone()), host_port: Some(port.host_port.to_string()) };
        bindings.entry(port_key(port)).or_default().get_or_insert_default().push(binding);
    }
    let log = HashMap::from([
        ("max-size".to_string(), spec.log_limit.file_bytes.to_string()),
        ("max-file".to_string(), spec.log_limit.files.to_string()),
    ]);
    let network = match spec.network {
        Network::Bridge => "bridge",
        Network::None => "none",
        Network::Host => "host",
    };
    Ok(HostConfig {
        privileged: Some(false),
        cap_drop: Some(vec!["ALL".to_string()]),
        security_opt: Some(vec!["no-new-privileges:true".to_string()]),
        restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }),
        mounts: Some(spec.mounts.iter().map(mount).collect()),
        port_bindings: Some(bindings),
        memory: signed(spec.memory_bytes),
        // The same number again means: no swap on top.
        memory_swap: signed(spec.memory_bytes),
        nano_cpus: signed(spec.nano_cpus),
        pids_limit: signed(spec.pids),
        readonly_rootfs: Some(spec.read_only_root),
        init: Some(spec.init),
        network_mode: Some(network.to_string()),
        // Of the log drivers only this one and `local` can be read back, and this one is everywhere.
        log_config: Some(HostConfigLogConfig { typ: Some("json-file".to_string()), config: Some(log) }),
        ..HostConfig::default()
    })
}

fn mount(mount: &Mount) -> bollard::models::Mount {
    match mount {
        Mount::Volume { name, target } => bollard::models::Mount {
            typ: Some(MountType::VOLUME),
            source: Some(name.clone()),
            target: Some(target.clone()),
            // The image's files at that place must not be copied into a drive.
            volume_options: Some(bollard::models::MountVolumeOptions { no_copy: Some(true), ..Default::default() }),
            ..Default::default()
        },
        Mount::Bind { source, target, read_only } => bollard::models::Mount {
            typ: Some(MountType::BIND),
            source: Some(source.clone()),
            target: Some(target.clone()),
            read_only: Some(*read_only),
            ..Default::default()
        },
    }
}

fn port_key(port: &Publish) -> String {
    match port.protocol {
        Protocol::Tcp => format!("{}/tcp", port.container_port),
        Protocol::Udp => format!("{}/udp", port.container_port),
    }
}

fn published(key: &str, binding: &PortBinding) -> Option<Publish> {
    let (container_port, protocol) = key.split_once('/')?;
    Some(Publish {
        container_port: container_port.parse().ok()?,
        protocol: match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => return None,
        },
        host_ip: binding.host_ip.clone()?,
        host_port: binding.host_port.as_ref()?.parse().ok()?,
    })
}

fn state(answer: ContainerInspectResponse) -> ContainerState {
    let state = answer.state.unwrap_or_default();
    let running = state.running.unwrap_or(false);
    // Docker writes the year 1 for "never".
    let time =
        |text: Option<String>| text.and_then(|text| text.parse::<Timestamp>().ok()).filter(|time| time.as_second() > 0);
    let started_at = time(state.started_at);
    let finished_at = time(state.finished_at);
    let network = answer.network_settings.unwrap_or_default();
    let ip = network
        .networks
        .unwrap_or_default()
        .remove("bridge")
        .and_then(|bridge| bridge.ip_address)
        .filter(|address| !address.is_empty());
    // The bindings that were asked for: those of the network are empty while it does not run.
    let ports = answer
        .host_config
        .and_then(|config| config.port_bindings)
        .unwrap_or_default()
        .iter()
        .flat_map(|(key, bindings)| bindings.iter().flatten().filter_map(|binding| published(key, binding)))
        .collect();
    ContainerState {
        id: answer.id.unwrap_or_default(),
        name: answer.name.unwrap_or_default().trim_start_matches('/').to_string(),
        labels: answer.config.and_then(|config| config.labels).unwrap_or_default(),
        status: state.status.map(|status| status.to_string()).unwrap_or_default(),
        running,
        exit_code: state.exit_code.filter(|_| !running && finished_at.is_some()),
        oom_killed: state.oom_killed.unwrap_or(false),
        started_at,
        finished_at: finished_at.filter(|_| !running),
        ip,
        ports,
        error: state.error.filter(|error| !error.is_empty()),
    }
}

fn summary(found: ContainerSummary) -> Container {
    let status = found.state.map(|state| state.to_string()).unwrap_or_default();
    Container {
        id: found.id.unwrap_or_default(),
        name: found
            .names
            .and_then(|names| names.first().map(|name| name.trim_start_matches('/').to_string()))
            .unwrap_or_default(),
        image: found.image.unwrap_or_default(),
        labels: found.labels.unwrap_or_default(),
        running: matches!(status.as_str(), "running" | "paused" | "restarting"),
        status,
    }
}

fn usage(answer: &ContainerStatsResponse) -> Usage {
    let cpu = |stats: &Option<bollard::models::ContainerCpuStats>| {
        let stats = stats.clone().unwrap_or_default();
        let used = stats.cpu_usage.and_then(|usage| usage.total_usage).unwrap_or(0);
        (used, stats.system_cpu_usage.unwrap_or(0), stats.online_cpus.unwrap_or(1))
    };
    let (used, system, cpus) = cpu(&answer.cpu_stats);
    let (used_before, system_before, _) = cpu(&answer.precpu_stats);
    let passed = system.saturating_sub(system_before);
    let share =
        if passed == 0 { 0.0 } else { used.saturating_sub(used_before) as f64 / passed as f64 * f64::from(cpus) };
    let memory = answer.memory_stats.clone().unwrap_or_default();
    let details = memory.stats.unwrap_or_default();
    // One name in the first version of cgroups and another in the second.
    let cache = details.get("total_inactive_file").or_else(|| details.get("inactive_file")).copied();
    Usage {
        memory_bytes: memory.usage.unwrap_or(0).saturating_sub(cache.unwrap_or(0)),
        cpus: share,
        pids: count(answer.pids_stats.as_ref().and_then(|pids| pids.current).map(|n| n as i64)),
    }
}
