//! Talking to a running container: a line to its input, or a command of its own inside it.

use std::time::Duration;

use bollard::exec::{StartExecOptions, StartExecResults};
use bollard::models::ExecConfig;
use bollard::query_parameters::AttachContainerOptionsBuilder;
use futures::StreamExt;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, interval_at, timeout, timeout_at};

use super::lines::{Output, Unfinished, split};
use super::{Docker, DockerError};

/// How often a command's end is looked for beside its output.
const LOOK_MS: u64 = 500;

/// How long output may still come after a command's end.
const REST_MS: u64 = 500;

/// How long the daemon may take to hand bytes to a container's input.
const STDIN_TIMEOUT_S: u64 = 10;

#[derive(Clone, Debug, Default)]
pub struct ExecSpec {
    pub cmd: Vec<String>,
    pub env: Vec<(String, String)>,
    /// Nothing means the container's own.
    pub user: Option<String>,
    pub workdir: Option<String>,
}

impl Docker {
    /// Writes to the input of the container's first process, which must have been made with `stdin_open`.
    /// The input stays open. [`DockerError::Conflict`] when it does not run.
    pub async fn write_stdin(&self, id: &str, bytes: &[u8]) -> Result<(), DockerError> {
        // The daemon attaches to a stopped container as well, and the bytes would be lost.
        match self.inspect(id).await? {
            None => return Err(DockerError::Gone(format!("No such container: {id}"))),
            Some(state) if !state.running => {
                return Err(DockerError::Conflict(format!("container {} is not running", state.name)));
            }
            Some(_) => {}
        }
        let options = AttachContainerOptionsBuilder::new().stream(true).stdin(true).build();
        let mut attached = self.client()?.attach_container(id, Some(options)).await?;
        let send = async {
            attached.input.write_all(bytes).await?;
            attached.input.flush().await?;
            attached.input.shutdown().await?;
            // The daemon closes its side when it has read all of it.
            while attached.output.next().await.is_some() {}
            Ok::<_, std::io::Error>(())
        };
        match timeout(Duration::from_secs(STDIN_TIMEOUT_S), send).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(DockerError::DaemonUnreachable(error.to_string())),
            Err(_) => Err(DockerError::Timeout),
        }
    }

    /// Runs a command in a running container and gives its exit code. After `limit` this returns
    /// [`DockerError::Timeout`]; the command itself goes on, for Docker has no way to end it: put `timeout`
    /// in front of what may hang.
    pub async fn exec(
        &self,
        id: &str,
        spec: &ExecSpec,
        limit: Duration,
        line: &mut (dyn FnMut(Output, &str) + Send),
    ) -> Result<i64, DockerError> {
        let deadline = Instant::now() + limit;
        timeout_at(deadline, self.run_exec(id, spec, line)).await.map_err(|_| DockerError::Timeout)?
    }

    async fn run_exec(
        &self,
        id: &str,
        spec: &ExecSpec,
        line: &mut (dyn FnMut(Output, &str) + Send),
    ) -> Result<i64, DockerError> {
        let client = self.client()?;
        let config = ExecConfig {
            cmd: Some(spec.cmd.clone()),
            env: Some(spec.env.iter().map(|(key, value)| format!("{key}={value}")).collect()),
            user: spec.user.clone(),
            working_dir: spec.workdir.clone(),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            ..ExecConfig::default()
        };
        let exec = client.create_exec(id, config).await?.id;
        let StartExecResults::Attached { mut output, input } =
            client.start_exec(&exec, None::<StartExecOptions>).await?
        else {
            return Err(DockerError::Refused("the daemon ran the command without its output".to_string()));
        };
        let mut unfinished = Unfinished::default();
        let mut looks = interval_at(Instant::now() + Duration::from_millis(LOOK_MS), Duration::from_millis(LOOK_MS));
        let mut ended_at = None;
        // The stream stays open for as long as anything the command left behind holds its output
        // (bollard#251), so the command's own end is looked for as well.
        loop {
            tokio::select! {
                chunk = output.next() => {
                    let Some(chunk) = chunk else { break };
                    let (from, bytes) = split(chunk?);
                    for text in unfinished.add(from, &bytes) {
                        line(from, &text);
                    }
                }
                _ = looks.tick() => {
                    if ended_at.is_none() && client.inspect_exec(&exec).await?.running == Some(false) {
                        ended_at = Some(Instant::now());
                    }
                    if ended_at.is_some_and(|at| at.elapsed() >= Duration::from_millis(REST_MS)) {
                        break;
                    }
                }
            }
        }
        for from in [Output::Stdout, Output::Stderr] {
            if let Some(text) = unfinished.rest(from) {
                line(from, &text);
            }
        }
        drop(input);
        // The output can end a moment before the daemon knows the code.
        loop {
            let now = client.inspect_exec(&exec).await?;
            match now.exit_code {
                Some(code) if now.running != Some(true) => return Ok(code),
                _ => looks.tick().await,
            };
        }
    }
}
