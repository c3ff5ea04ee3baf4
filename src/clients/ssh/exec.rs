//! Running a command on a host: its words, its environment, its stdin, its output line by line or byte for byte, and
//! how it ended.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::connection::Ssh;
use super::error::SshError;
use super::quote::{exports, quoted};
use super::session::{Event, Session};

/// Longer lines are cut; the rest of the line is dropped.
const LINE_MAX_BYTES: usize = 4096;
/// How many lines are kept for telling why a command failed.
const LAST_LINES: usize = 20;
/// Before the process number of a command, on its stdout.
const MARK: &str = "spawnpoint-process-";
/// In the remote shell, before the command: the name of the line break in the line of exports.
const BREAK: &str = "_spawnpoint_nl";

/// A command. Its words can be seen by everybody on the host, its environment and its stdin cannot.
#[derive(Clone)]
pub struct Exec {
    pub argv: Vec<String>,
    pub env: Vec<(String, String)>,
    pub stdin: Option<Bytes>,
    /// From the start to the end, with the wait for a free session.
    pub limit: Duration,
}

impl Exec {
    pub fn new(argv: impl IntoIterator<Item = impl Into<String>>, limit: Duration) -> Exec {
        Exec { argv: argv.into_iter().map(Into::into).collect(), env: vec![], stdin: None, limit }
    }

    /// Only the command's name, as errors show it.
    pub(super) fn name(&self) -> String {
        let program = self.argv.first().map(String::as_str).unwrap_or_default();
        format!("`{}`", program.rsplit('/').next().unwrap_or(program))
    }
}

/// Neither the environment nor the stdin, which hold secrets.
impl fmt::Debug for Exec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Exec({:?}, limit {:?})", self.argv, self.limit)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    Code(u32),
    /// The signal's name without SIG.
    Signal(String),
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ended::Code(code) => write!(f, "ended with code {code}"),
            Ended::Signal(name) => write!(f, "was ended by the signal {name}"),
        }
    }
}

/// A command that ended by itself, well or badly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exited {
    /// What ran, for a sentence.
    pub what: String,
    pub ended: Ended,
    /// The last lines of its output: of both streams together, or of stderr alone where stdout is given as bytes.
    pub last: Vec<String>,
}

impl Exited {
    pub fn success(&self) -> bool {
        self.ended == Ended::Code(0)
    }

    /// A command that must succeed.
    pub fn ok(self) -> Result<Exited, SshError> {
        if self.success() {
            return Ok(self);
        }
        Err(SshError::Exit { what: self.what, ended: self.ended, last: self.last })
    }
}

impl Ssh {
    /// Runs a command to its end and hands on each line of its output, of both streams. A command that does not exist
    /// ends with 127. Dropping the future ends the command where the host allows that.
    pub async fn run(&self, exec: Exec, line: &mut (dyn FnMut(&str) + Send)) -> Result<Exited, SshError> {
        self.lines(exec, &mut |_, text| line(text)).await
    }

    /// The same with the lines of stdout alone, for who takes them for an answer: on stderr others speak as well, sudo
    /// at every call where a host cannot resolve its own name.
    pub async fn stdout_lines(&self, exec: Exec, line: &mut (dyn FnMut(&str) + Send)) -> Result<Exited, SshError> {
        let mut of_stdout = |stream: Stream, text: &str| match stream {
            Stream::Out => line(text),
            Stream::Err => {}
        };
        self.lines(exec, &mut of_stdout).await
    }

    /// Runs a command to its end and gives what it wrote to its stdout, byte for byte and apart from its stderr. More
    /// than `max_bytes` are refused, and end the command.
    pub async fn stdout(&self, exec: Exec, max_bytes: usize) -> Result<(Exited, Vec<u8>), SshError> {
        let mut stdout: Vec<u8> = vec![];
        let (mut err, mut last) = (Lines::default(), VecDeque::new());
        let mut keep = |text: &str| keep_last(&mut last, text);
        let what = exec.name();
        let ended = self
            .stream(exec, &mut |event| {
                match event {
                    Output::Out(bytes) => stdout.extend_from_slice(&bytes),
                    Output::Err(bytes) => err.take(&bytes, &mut keep),
                }
                if stdout.len() > max_bytes {
                    return Err(SshError::Refused(format!(
                        "{what} wrote more than the {max_bytes} bytes that are read"
                    )));
                }
                Ok(())
            })
            .await?;
        err.end(&mut keep);
        Ok((Exited { what, ended, last: last.into() }, stdout))
    }

    /// Runs a command whose lines nobody needs to see meanwhile.
    pub async fn run_quietly(&self, exec: Exec) -> Result<Exited, SshError> {
        self.run(exec, &mut |_| {}).await
    }

    async fn lines(&self, exec: Exec, line: &mut (dyn FnMut(Stream, &str) + Send)) -> Result<Exited, SshError> {
        let (mut out, mut err) = (Lines::default(), Lines::default());
        let mut last = VecDeque::new();
        let mut keep = |stream: Stream, text: &str| {
            keep_last(&mut last, text);
            line(stream, text);
        };
        let what = exec.name();
        let ended = self
            .stream(exec, &mut |event| {
                match event {
                    Output::Out(bytes) => out.take(&bytes, &mut |text| keep(Stream::Out, text)),
                    Output::Err(bytes) => err.take(&bytes, &mut |text| keep(Stream::Err, text)),
                }
                Ok(())
            })
            .await?;
        out.end(&mut |text| keep(Stream::Out, text));
        err.end(&mut |text| keep(Stream::Err, text));
        Ok(Exited { what, ended, last: last.into() })
    }

    /// Runs a command and gives each piece of its output to `take`, which may refuse more.
    async fn stream(
        &self,
        exec: Exec,
        take: &mut (dyn FnMut(Output) -> Result<(), SshError> + Send),
    ) -> Result<Ended, SshError> {
        let what = exec.name();
        let limit = exec.limit;
        let (command, input) = prepare(exec)?;
        let work = async {
            let mut session = self.session(command).await?;
            let writing = write_all(session.stdin(), input);
            let reading = read_all(&mut session, &what, take);
            tokio::pin!(writing, reading);
            // A command that ends without having read its input is its own affair; its exit code tells. And where the
            // connection is lost, room for the rest of the input may never come: only the reading hears of that.
            tokio::select! {
                ended = &mut reading => ended,
                _ = &mut writing => reading.await,
            }
        };
        timeout(limit, work).await.unwrap_or(Err(SshError::Timeout { what: what.clone(), limit }))
    }
}

enum Output {
    Out(Bytes),
    Err(Bytes),
}

/// Which of the two a line came on.
#[derive(Clone, Copy)]
enum Stream {
    Out,
    Err,
}

fn keep_last(last: &mut VecDeque<String>, text: &str) {
    if last.len() == LAST_LINES {
        last.pop_front();
    }
    last.push_back(text.to_owned());
}

async fn write_all(mut stdin: impl AsyncWrite + Unpin, input: Vec<Bytes>) -> std::io::Result<()> {
    for piece in input {
        stdin.write_all(&piece).await?;
    }
    stdin.shutdown().await
}

async fn read_all(
    session: &mut Session,
    what: &str,
    take: &mut (dyn FnMut(Output) -> Result<(), SshError> + Send),
) -> Result<Ended, SshError> {
    let mut ended = None;
    let mut header = Header::default();
    while let Some(event) = session.next().await {
        match event {
            Event::Out(bytes) => {
                let bytes = header.strip(bytes);
                if let Some(process) = header.process {
                    session.end_on_drop(process);
                }
                if !bytes.is_empty() {
                    take(Output::Out(bytes))?;
                }
            }
            Event::Err(bytes) => take(Output::Err(bytes))?,
            // Output that was on its way may still follow.
            Event::Ended(how) => ended = Some(how),
        }
    }
    ended.ok_or_else(|| session.broken(what))
}

/// The command line for the host's shell, and what goes to its stdin.
fn prepare(exec: Exec) -> Result<(String, Vec<Bytes>), SshError> {
    if exec.argv.first().is_none_or(|program| program.is_empty() || program.starts_with('-')) {
        return Err(SshError::Refused("a command needs a program to run".into()));
    }
    let words = quoted(&exec.argv)?;
    let mut input = vec![];
    let mut script = format!("echo {MARK}$$");
    if !exec.env.is_empty() {
        input.push(Bytes::from(exports(&exec.env, BREAK)? + "\n"));
        // `read` takes no byte more than the line, so the rest of stdin stays for the program.
        script.push_str(&format!(
            "; {BREAK}='\n'; IFS= read -r _spawnpoint_env || exit 125; eval \"$_spawnpoint_env\"; unset {BREAK} _spawnpoint_env"
        ));
    }
    input.extend(exec.stdin);
    // `exec`, so that the exit code, the signal and the process number are the program's own.
    let shell = quoted(&["sh", "-c", &format!("{script}; exec \"$@\""), "sh"])?;
    Ok((format!("exec {shell} {words}"), input))
}

/// What comes before a command's own output: its process number, and whatever the login shell of the host has to say.
#[derive(Default)]
struct Header {
    held: Vec<u8>,
    process: Option<u32>,
}

impl Header {
    /// What of these bytes is the command's own.
    fn strip(&mut self, bytes: Bytes) -> Bytes {
        if self.process.is_some() {
            return bytes;
        }
        self.held.extend_from_slice(&bytes);
        let mark = self.held.windows(MARK.len()).position(|window| window == MARK.as_bytes());
        let Some(number_at) = mark.map(|mark| mark + MARK.len()) else {
            let keep = self.held.len().min(MARK.len());
            self.held.drain(..self.held.len() - keep);
            return Bytes::new();
        };
        let rest = &self.held[number_at..];
        let Some(end) = rest.iter().position(|byte| *byte == b'\n') else { return Bytes::new() };
        let number = std::str::from_utf8(&rest[..end]).ok().and_then(|text| text.parse().ok());
        self.process = Some(number.unwrap_or(0));
        Bytes::from(std::mem::take(&mut self.held)).slice(number_at + end + 1..)
    }
}

/// Cuts bytes into lines. A carriage return ends one as well: progress bars are written so.
#[derive(Default)]
pub(in crate::clients) struct Lines {
    line: Vec<u8>,
    after_return: bool,
}

impl Lines {
    pub(in crate::clients) fn take(&mut self, bytes: &[u8], line: &mut dyn FnMut(&str)) {
        for byte in bytes {
            match byte {
                b'\n' if self.after_return => self.after_return = false,
                b'\n' | b'\r' => {
                    self.give(line);
                    self.after_return = *byte == b'\r';
                }
                _ => {
                    self.after_return = false;
                    if self.line.len() < LINE_MAX_BYTES {
                        self.line.push(*byte);
                    }
                }
            }
        }
    }

    pub(in crate::clients) fn end(&mut self, line: &mut dyn FnMut(&str)) {
        if !self.line.is_empty() {
            self.give(line);
        }
    }

    fn give(&mut self, line: &mut dyn FnMut(&str)) {
        line(&String::from_utf8_lossy(&self.line));
        self.line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(chunks: &[&[u8]]) -> Vec<String> {
        let (mut lines, mut found) = (Lines::default(), vec![]);
        for chunk in chunks {
            lines.take(chunk, &mut |line| found.push(line.to_string()));
        }
        lines.end(&mut |line| found.push(line.to_string()));
        found
    }

    #[test]
    fn output_becomes_lines_however_it_is_chopped_and_ended() {
        let cases: &[(&[&[u8]], &[&str])] = &[
            (&[b"one\ntwo\n"], &["one", "two"]),
            (&[b"o", b"ne\r", b"\ntwo"], &["one", "two"]),
            (&[b"10%\r20%\r30%\n"], &["10%", "20%", "30%"]),
            (&[b"\n\nx"], &["", "", "x"]),
            (&["gr\u{fc}n".as_bytes().split_at(3).0, "gr\u{fc}n".as_bytes().split_at(3).1], &["grün"]),
            (&[b"\xff\n"], &["\u{fffd}"]),
            (&[], &[]),
        ];
        for (chunks, expected) in cases {
            assert_eq!(lines(chunks), *expected, "{chunks:?}");
        }
    }

    #[test]
    fn a_line_without_end_takes_bounded_room() {
        let long = vec![b'x'; 10 * LINE_MAX_BYTES];
        assert_eq!(lines(&[&long, b"\nnext"]), ["x".repeat(LINE_MAX_BYTES), "next".into()]);
    }

    #[test]
    fn a_talkative_login_shell_is_not_taken_for_the_command() {
        let all = b"Welcome!\nspawnpoint-process-417\nthe command's own\nspawnpoint-process-9\n";
        for step in [1, 7, all.len()] {
            let mut header = Header::default();
            let own: Vec<u8> = all.chunks(step).flat_map(|chunk| header.strip(Bytes::copy_from_slice(chunk))).collect();
            assert_eq!(own, b"the command's own\nspawnpoint-process-9\n", "{step}");
            assert_eq!(header.process, Some(417));
        }
    }

    #[test]
    fn the_environment_is_on_no_command_line() {
        let exec = Exec {
            env: vec![("TOKEN".into(), "hush\nhush".into())],
            stdin: Some(Bytes::from_static(b"input")),
            ..Exec::new(["run", "it"], Duration::from_secs(1))
        };
        assert!(!format!("{exec:?}").contains("hush"));
        let (command, input) = prepare(exec).unwrap();
        assert!(!command.contains("hush"));
        assert_eq!(input.len(), 2);
    }

    #[test]
    fn a_command_without_a_program_is_refused() {
        for argv in [vec![], vec![""], vec!["-c"]] {
            assert!(prepare(Exec::new(argv, Duration::ZERO)).is_err());
        }
    }
}
