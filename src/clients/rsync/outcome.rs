//! What rsync's exit code and last words mean, and what its progress lines say.

use crate::clients::ssh::{Ended, SshError};

/// How a full disk is called by the system.
pub(super) const FULL: [&str; 2] = ["No space left on device", "Disk quota exceeded"];

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RsyncError {
    #[error(transparent)]
    Ssh(#[from] SshError),
    #[error("rsync is not installed on {0}: install the package rsync there")]
    Missing(Side),
    #[error("the disk of {0} is full")]
    Full(Side),
    /// For a world a part is a failure: rsync went through all files and could not carry some.
    #[error("not every file was transferred: {0}")]
    Partial(String),
    #[error("the transfer was cut off: {0}")]
    Cut(String),
    #[error("rsync failed with code {code}: {why}")]
    Failed { code: i32, why: String },
    #[error("{0}")]
    Refused(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Here,
    There,
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Side::Here => f.write_str("this machine"),
            Side::There => f.write_str("the host"),
        }
    }
}

impl RsyncError {
    /// Whether the same again can go better without anybody's help. What arrived is used then.
    pub fn may_pass(&self) -> bool {
        match self {
            RsyncError::Ssh(error) => error.may_pass(),
            RsyncError::Cut(_) => true,
            RsyncError::Missing(_)
            | RsyncError::Full(_)
            | RsyncError::Partial(_)
            | RsyncError::Failed { .. }
            | RsyncError::Refused(_) => false,
        }
    }
}

/// `writer` is the side that receives, `there` how the command on the host ended, `said` what rsync wrote on stderr.
pub(super) fn outcome(
    code: i32,
    writer: Side,
    there: Option<Result<Ended, SshError>>,
    said: &[String],
) -> Result<(), RsyncError> {
    if code == 0 {
        return Ok(());
    }
    if said.iter().any(|line| FULL.iter().any(|words| line.contains(words))) {
        return Err(RsyncError::Full(writer));
    }
    match there {
        Some(Err(error)) => return Err(error.into()),
        Some(Ok(Ended::Code(127))) => return Err(RsyncError::Missing(Side::There)),
        Some(Ok(Ended::Code(_) | Ended::Signal(_))) | None => {}
    }
    let why = reason(said);
    Err(match code {
        23 | 24 => RsyncError::Partial(why),
        10 | 12 | 30 | 35 | 255 => RsyncError::Cut(why),
        code => RsyncError::Failed { code, why },
    })
}

/// The first thing that went wrong; the lines after it are consequences, and the last is rsync's own summary.
fn reason(said: &[String]) -> String {
    let own = |line: &&String| !line.trim().is_empty() && !line.starts_with("rsync error:");
    said.iter().find(own).or(said.first()).map_or_else(|| "rsync gave no reason".into(), |line| line.trim().into())
}

/// How far a transfer is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    pub bytes: u64,
    pub percent: u8,
    pub bytes_per_s: u64,
    /// Files that were transferred, apart from those that were the same.
    pub files: u64,
}

impl std::fmt::Display for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mb = |bytes: u64| bytes as f64 / 1e6;
        write!(f, "{} %, {} files", self.percent, self.files)?;
        write!(f, ", {:.1} MB, {:.1} MB/s", mb(self.bytes), mb(self.bytes_per_s))
    }
}

/// Reads a line of `--info=progress2`: `1,234,567  42%   11.21MB/s    0:00:01 (xfr#3, to-chk=7/11)`.
pub(super) fn progress(line: &str) -> Option<Progress> {
    let mut words = line.split_whitespace();
    let bytes = words.next()?.replace(',', "").parse().ok()?;
    let percent = words.next()?.strip_suffix('%')?.parse().ok()?;
    let bytes_per_s = rate(words.next()?)?;
    let files = line.split("xfr#").nth(1).and_then(|rest| rest.split(',').next()).and_then(|files| files.parse().ok());
    Some(Progress { bytes, percent, bytes_per_s, files: files.unwrap_or(0) })
}

/// Reads the line of `--stats` that says what has to be carried: `Total transferred file size: 1,234 bytes`.
pub(super) fn transferred(line: &str) -> Option<u64> {
    let rest = line.strip_prefix("Total transferred file size:")?;
    rest.trim().strip_suffix("bytes")?.trim().replace([',', '.'], "").parse().ok()
}

fn rate(text: &str) -> Option<u64> {
    let units = [("GB/s", 1 << 30), ("MB/s", 1 << 20), ("kB/s", 1 << 10), ("B/s", 1)];
    let (number, unit) = units.iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?, *unit)))?;
    Some((number.parse::<f64>().ok()? * f64::from(unit)) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(lines: &[&str]) -> Vec<String> {
        lines.iter().map(|line| line.to_string()).collect()
    }

    #[test]
    fn each_exit_code_becomes_a_sentence_and_says_whether_to_try_again() {
        let full = said(&["rsync: [receiver] write failed on \"/x/y\": No space left on device (28)"]);
        let vanished = said(&["file has vanished: \"/x\"", "rsync warning: some files vanished"]);
        let broken = || SshError::Broken { what: "a transfer".into(), why: "the host closed it".into() };
        let cases: Vec<(_, _, _, _, &str, bool)> = vec![
            (11, Side::There, Some(Ok(Ended::Code(11))), &full, "the disk of the host is full", false),
            (11, Side::Here, None, &full, "the disk of this machine is full", false),
            (12, Side::There, Some(Err(broken())), &full, "the disk of the host is full", false),
            (24, Side::Here, None, &vanished, "not every file was transferred: file has vanished: \"/x\"", false),
            (23, Side::Here, None, &vanished, "not every file was transferred: file has vanished: \"/x\"", false),
            (12, Side::Here, None, &vanished, "the transfer was cut off: file has vanished: \"/x\"", true),
        ];
        for (code, writer, there, lines, sentence, again) in cases {
            let error = outcome(code, writer, there, lines).unwrap_err();
            assert_eq!((error.to_string().as_str(), error.may_pass()), (sentence, again), "{code}");
        }
        for code in [10, 12, 30, 35, 255] {
            assert!(outcome(code, Side::Here, None, &[]).unwrap_err().may_pass(), "{code}");
        }
        for code in [1, 2, 3, 4, 11, 14, 20, 25] {
            assert!(!outcome(code, Side::Here, None, &[]).unwrap_err().may_pass(), "{code}");
        }
        let missing = outcome(12, Side::Here, Some(Ok(Ended::Code(127))), &[]).unwrap_err();
        assert_eq!(missing, RsyncError::Missing(Side::There));
        assert_eq!(outcome(0, Side::Here, None, &[]), Ok(()));
    }

    #[test]
    fn what_is_to_be_carried_is_read_from_one_line_of_many() {
        assert_eq!(transferred("Total transferred file size: 4,194,308 bytes"), Some(4_194_308));
        assert_eq!(transferred("Total transferred file size: 7 bytes"), Some(7));
        for other in ["Total file size: 7 bytes", "Total transferred file size: much", ""] {
            assert_eq!(transferred(other), None, "{other:?}");
        }
    }

    #[test]
    fn progress_lines_are_read_and_others_are_not() {
        let line = "      1,234,567  42%   11.50MB/s    0:00:01 (xfr#3, to-chk=7/11)";
        let read = Progress { bytes: 1_234_567, percent: 42, bytes_per_s: 12_058_624, files: 3 };
        assert_eq!(progress(line), Some(read));
        assert_eq!(read.to_string(), "42 %, 3 files, 1.2 MB, 12.1 MB/s");
        assert_eq!(progress("32768   0%    0.00kB/s    0:00:00").map(|read| read.files), Some(0));
        for other in ["", "sending incremental file list", "1 2 3", "x 1% 1MB/s"] {
            assert_eq!(progress(other), None, "{other}");
        }
    }
}
