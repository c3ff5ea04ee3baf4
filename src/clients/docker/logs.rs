//! What a container said: the last lines, or all of them as they come.
//!
//! The daemon's stream ends without a word when the daemon restarts. So a follower that reaches the end looks
//! whether the container still runs and, if so, asks again from the last second on and drops what it had:
//! the API takes whole seconds, and lines carry nanoseconds.

use std::collections::VecDeque;
use std::pin::pin;

use bollard::query_parameters::{LogsOptions, LogsOptionsBuilder};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::containers::{be_patient, pause};
use super::lines::{Output, Unfinished, split};
use super::{Docker, DockerError};

/// How many lines may wait for a slow reader before the daemon is made to wait.
const WAITING_LINES: usize = 256;

#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    pub at: Timestamp,
    pub output: Output,
    pub text: String,
}

impl Docker {
    /// Lines from `since` on. With `follow`, also those to come, until the container stops or is gone; a
    /// daemon that goes away is waited for (ten minutes), and no line is lost or said twice. Follow what has
    /// been started: the log of a container that does not run has an end. Dropping the stream ends it.
    pub fn logs(
        &self,
        id: &str,
        since: Option<Timestamp>,
        follow: bool,
    ) -> BoxStream<'static, Result<Line, DockerError>> {
        let (sender, receiver) = mpsc::channel(WAITING_LINES);
        let (docker, id) = (self.clone(), id.to_string());
        let task = tokio::spawn(async move {
            let mut reader = Reader { since, seen: [Seen::default(); 2], unfinished: Unfinished::default(), sender };
            if let Err(error) = docker.follow(&id, follow, &mut reader).await {
                // Nobody to tell when the stream was dropped.
                let _ = reader.sender.send(Err(error)).await;
            }
        });
        let task = AbortOnDropHandle::new(task);
        futures::stream::unfold((receiver, task), |(mut receiver, task)| async {
            receiver.recv().await.map(|line| (line, (receiver, task)))
        })
        .boxed()
    }

    /// The last `lines` lines, oldest first.
    pub async fn recent_logs(&self, id: &str, lines: usize) -> Result<Vec<Line>, DockerError> {
        let options = LogsOptionsBuilder::new().stdout(true).stderr(true).timestamps(true).tail(&lines.to_string());
        let (sender, mut receiver) = mpsc::channel(WAITING_LINES);
        let mut reader = Reader { since: None, seen: [Seen::default(); 2], unfinished: Unfinished::default(), sender };
        let client = self.client()?;
        let read = async {
            let result = reader.read(client.logs(id, Some(options.build()))).await;
            reader.finish().await;
            drop(reader);
            result
        };
        let collect = async {
            let mut last = VecDeque::new();
            while let Some(line) = receiver.recv().await {
                if last.len() == lines {
                    last.pop_front();
                }
                last.push_back(line);
            }
            last
        };
        let (result, last) = tokio::join!(read, collect);
        result?;
        last.into_iter().collect()
    }

    async fn follow(&self, id: &str, follow: bool, reader: &mut Reader) -> Result<(), DockerError> {
        let (mut away_since, mut hung_up) = (None, false);
        loop {
            // Asked before reading: what a container says before it stops is in the log when it has stopped.
            let running = match self.inspect(id).await {
                Ok(Some(state)) => {
                    away_since = None;
                    if hung_up && state.running {
                        pause().await;
                    }
                    state.running
                }
                // Removed in the middle is an end like any other; never there is a mistake.
                Ok(None) if reader.has_read() => break,
                Ok(None) => return Err(DockerError::Gone(format!("No such container: {id}"))),
                Err(error) if follow => {
                    be_patient(&mut away_since, error).await?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let options = reader.options(follow && running);
            let result = reader.read(self.client()?.logs(id, Some(options))).await;
            if reader.sender.is_closed() {
                return Ok(());
            }
            match result {
                Ok(()) if !follow || !running => break,
                Ok(()) => hung_up = true,
                Err(DockerError::Gone(_)) if reader.has_read() => break,
                Err(error) if follow => be_patient(&mut away_since, error).await?,
                Err(error) => return Err(error),
            }
        }
        reader.finish().await;
        Ok(())
    }
}

/// Where the reading of one log stands.
struct Reader {
    since: Option<Timestamp>,
    /// Of stdout and stderr: their lines are in order each, but not with one another.
    seen: [Seen; 2],
    unfinished: Unfinished,
    sender: mpsc::Sender<Result<Line, DockerError>>,
}

/// The last moment of which something was read, how much of it, and how much of it comes again.
#[derive(Clone, Copy, Default)]
struct Seen {
    at: Option<Timestamp>,
    entries: u32,
    again: u32,
}

impl Seen {
    /// Whether an entry is new.
    fn note(&mut self, at: Timestamp) -> bool {
        if self.at.is_some_and(|last| at < last) {
            return false;
        }
        if self.at != Some(at) {
            *self = Seen { at: Some(at), entries: 1, again: 0 };
            return true;
        }
        if self.again > 0 {
            self.again -= 1;
            return false;
        }
        self.entries += 1;
        true
    }
}

impl Reader {
    fn has_read(&self) -> bool {
        self.seen.iter().any(|seen| seen.at.is_some())
    }

    fn options(&mut self, follow: bool) -> LogsOptions {
        let mut from = self.since;
        if self.has_read() {
            // From the output that is furthest behind; one that was never heard of may have begun meanwhile.
            from = self.seen.iter().map(|seen| seen.at.or(self.since)).min().flatten();
        }
        for seen in &mut self.seen {
            seen.again = seen.entries;
        }
        let options = LogsOptionsBuilder::new().stdout(true).stderr(true).timestamps(true).follow(follow);
        let second = from.and_then(|from| i32::try_from(from.as_second()).ok());
        second.map_or(options.clone(), |second| options.since(second)).build()
    }

    /// Reads one answer to its end. An entry is one write of at most 16 KB with the time in front; a longer
    /// line is several, and only the last of them ends with a line end.
    async fn read(
        &mut self,
        entries: impl Stream<Item = Result<bollard::container::LogOutput, bollard::errors::Error>>,
    ) -> Result<(), DockerError> {
        let mut entries = pin!(entries);
        while let Some(entry) = entries.next().await {
            let (output, bytes) = split(entry?);
            let Some((at, text)) = timed(&bytes) else { continue };
            let index = match output {
                Output::Stdout => 0,
                Output::Stderr => 1,
            };
            if !self.seen[index].note(at) || self.since.is_some_and(|since| at < since) {
                continue;
            }
            for text in self.unfinished.add(output, text) {
                if self.sender.send(Ok(Line { at, output, text })).await.is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Says what was left without a line end.
    async fn finish(&mut self) {
        for (index, output) in [Output::Stdout, Output::Stderr].into_iter().enumerate() {
            if let (Some(text), Some(at)) = (self.unfinished.rest(output), self.seen[index].at) {
                let _ = self.sender.send(Ok(Line { at, output, text })).await;
            }
        }
    }
}

/// Parts the time from what was said.
fn timed(entry: &[u8]) -> Option<(Timestamp, &[u8])> {
    let space = entry.iter().position(|byte| *byte == b' ')?;
    let at = std::str::from_utf8(&entry[..space]).ok()?.parse().ok()?;
    Some((at, &entry[space + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_again_after_a_reconnect_is_dropped_and_nothing_else() {
        let at = |nano: i64| Timestamp::from_nanosecond(i128::from(nano)).unwrap();
        let mut seen = Seen::default();
        let first: Vec<_> = [1, 2, 2].map(|nano| seen.note(at(nano))).into();
        assert_eq!(first, [true, true, true]);
        seen.again = seen.entries;
        let second: Vec<_> = [1, 2, 2, 2, 3, 3].map(|nano| seen.note(at(nano))).into();
        assert_eq!(second, [false, false, false, true, true, true]);
    }
}
