//! One command on a host as a stream of events. Its channel is drained by a task of its own whatever the caller does,
//! because a channel that nobody reads stops all others of the connection; and it is ended when the caller goes away.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use russh::client::Msg;
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Sig};
use tokio::io::AsyncWrite;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, sleep, timeout};

use super::connection::Live;
use super::error::SshError;
use super::exec::Ended;

/// Chunks of output that wait for the caller, at most 32 KiB each.
const EVENTS: usize = 64;
/// After the caller has gone: how long the host may take to close the channel before its place is given on.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);

/// How long to ask a host again that opens no more sessions, and how often.
const FULL_LIMIT: Duration = Duration::from_secs(20);
const FULL_PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(in crate::clients) enum Event {
    Out(Bytes),
    Err(Bytes),
    Ended(Ended),
}

pub(in crate::clients) struct Session {
    live: Arc<Live>,
    write: Option<ChannelWriteHalf<Msg>>,
    events: mpsc::Receiver<Event>,
    /// The process to end when the caller goes away before it has ended; 0 is none.
    process: u32,
    over: bool,
}

/// An error, the place that was held, and whether the command may have reached the host.
type OpenError = (SshError, OwnedSemaphorePermit, bool);

impl Session {
    /// A caller who goes away meanwhile leaves nothing half open: the work is done in a task of its own.
    pub(super) async fn open(
        live: Arc<Live>,
        command: String,
        permit: OwnedSemaphorePermit,
        patience: Duration,
    ) -> Result<Session, OpenError> {
        let task = tokio::spawn(async move {
            let opened = open_channel(&live).await;
            let channel = match opened {
                Ok(channel) => channel,
                Err(russh::Error::ChannelOpenFailure(_)) => {
                    let why = "the host opens no more sessions (`MaxSessions` of its sshd)".into();
                    return Err((SshError::Broken { what: "opening a session".into(), why }, permit, true));
                }
                Err(_) => return Err((live.broken("opening a session"), permit, false)),
            };
            let (mut read, write) = channel.split();
            if write.exec(true, command).await.is_err() {
                return Err((live.broken("starting a command"), permit, false));
            }
            loop {
                match read.wait().await {
                    Some(ChannelMsg::Success) => break,
                    Some(ChannelMsg::Failure) => {
                        let why = "the host refuses to run commands for this user".into();
                        return Err((SshError::Refused(why), permit, true));
                    }
                    Some(_) => {}
                    None => return Err((live.broken("starting a command"), permit, true)),
                }
            }
            let (sender, events) = mpsc::channel(EVENTS);
            tokio::spawn(drain(read, sender, permit, patience));
            Ok(Session { live, write: Some(write), events, process: 0, over: false })
        });
        task.await.expect("opening a session does not panic")
    }

    /// The next event, or nothing once the channel is closed. Without [`Event::Ended`] before it the connection was
    /// lost, or the caller was too slow.
    pub(in crate::clients) async fn next(&mut self) -> Option<Event> {
        let event = self.events.recv().await;
        self.over |= event.is_none();
        event
    }

    /// What is written here is the command's stdin; shutting it down is its end.
    pub(in crate::clients) fn stdin(&self) -> impl AsyncWrite + Send + Unpin + 'static {
        Box::pin(self.write.as_ref().expect("only drop takes it").make_writer())
    }

    /// The leader of the command's process group. sshd itself ends nothing for root, neither at a signal request nor when
    /// the channel is closed.
    pub(super) fn end_on_drop(&mut self, process: u32) {
        self.process = process;
    }

    pub(in crate::clients) fn broken(&self, what: &str) -> SshError {
        self.live.broken(what)
    }
}

/// A command whose caller has gone is told to end, and killed if it does not listen.
impl Drop for Session {
    fn drop(&mut self) {
        let (Some(write), Ok(runtime)) = (self.write.take(), tokio::runtime::Handle::try_current()) else { return };
        if self.over {
            return;
        }
        let (live, process) = (self.live.clone(), self.process);
        runtime.spawn(async move {
            // A connection that takes no message any more closes the channel by its own end.
            let _ = timeout(CLOSE_LIMIT, write.close()).await;
            if process == 0 {
                return;
            }
            let _turn = live.ending.lock().await;
            match timeout(CLOSE_LIMIT, end(&live, process)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!("a command on the host may run on: {error}"),
                Err(_) => tracing::debug!("a command on the host may run on: it could not be ended in time"),
            }
        });
    }
}

/// An sshd counts a session until it has cleaned up after it, which is a little later than it closes its channel; and
/// it may allow fewer than most do.
async fn open_channel(live: &Live) -> Result<Channel<Msg>, russh::Error> {
    let began = Instant::now();
    loop {
        match live.handle.channel_open_session().await {
            Err(russh::Error::ChannelOpenFailure(_)) if began.elapsed() < FULL_LIMIT => sleep(FULL_PAUSE).await,
            result => return result,
        }
    }
}

/// Ends a process group from a second session. It needs no place of its own: an sshd allows more sessions than are used.
async fn end(live: &Live, process: u32) -> Result<(), russh::Error> {
    let mut channel = open_channel(live).await?;
    let script = format!(
        "kill -TERM -{process} || exit 0; for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do kill -0 -{process} || exit 0; sleep 0.2; done; kill -KILL -{process}"
    );
    channel.exec(true, format!("exec sh -c '{script}' 2>/dev/null")).await?;
    while channel.wait().await.is_some() {}
    Ok(())
}

/// Reads the channel to its end, whether or not somebody still wants it.
async fn drain(
    mut read: ChannelReadHalf,
    sender: mpsc::Sender<Event>,
    permit: OwnedSemaphorePermit,
    patience: Duration,
) {
    while let Some(message) = next_message(&mut read, &sender).await {
        let event = match message {
            ChannelMsg::Data { data } => Event::Out(data),
            ChannelMsg::ExtendedData { data, .. } => Event::Err(data),
            ChannelMsg::ExitStatus { exit_status } => Event::Ended(Ended::Code(exit_status)),
            ChannelMsg::ExitSignal { signal_name, .. } => Event::Ended(Ended::Signal(signal(&signal_name))),
            // The rest is flow control, and what only a server hears.
            _ => continue,
        };
        if sender.is_closed() {
            continue;
        }
        if sender.send_timeout(event, patience).await.is_err() {
            break;
        }
    }
    drop(sender);
    // Whatever is still to come is thrown away, so that the others on this connection go on.
    let rest = async { while read.wait().await.is_some() {} };
    let _ = timeout(CLOSE_LIMIT, rest).await;
    drop(permit);
}

/// Once nobody listens the host has [`CLOSE_LIMIT`] to close the channel.
async fn next_message(read: &mut ChannelReadHalf, sender: &mpsc::Sender<Event>) -> Option<ChannelMsg> {
    tokio::select! {
        message = read.wait() => message,
        () = sender.closed() => None,
    }
}

fn signal(name: &Sig) -> String {
    let name = match name {
        Sig::Custom(name) => return name.clone(),
        Sig::ABRT => "ABRT",
        Sig::ALRM => "ALRM",
        Sig::FPE => "FPE",
        Sig::HUP => "HUP",
        Sig::ILL => "ILL",
        Sig::INT => "INT",
        Sig::KILL => "KILL",
        Sig::PIPE => "PIPE",
        Sig::QUIT => "QUIT",
        Sig::SEGV => "SEGV",
        Sig::TERM => "TERM",
        Sig::USR1 => "USR1",
    };
    name.to_string()
}
