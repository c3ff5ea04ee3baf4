//! Small files on a host, whole or not at all. Worlds go by rsync.

use std::time::Duration;

use bytes::Bytes;

use super::connection::Ssh;
use super::error::SshError;
use super::exec::{Ended, Exec};

const PUT_LIMIT: Duration = Duration::from_secs(60);
const READ_LIMIT: Duration = Duration::from_secs(60);
/// Our own code for "there is no such file", apart from those of the tools.
const NOT_THERE: u32 = 44;

/// The count comes before the rename: a connection that breaks looks to `cat` like the end of the file.
const PUT: &str = r#"set -eu
umask 077
part=$(mktemp "$1.XXXXXX")
trap 'rm -f "$part"' EXIT
cat >"$part"
[ "$(wc -c <"$part")" -eq "$3" ] || { echo "only a part of the file arrived" >&2; exit 1; }
chmod "$2" "$part"
sync "$part"
mv -fT "$part" "$1"
trap - EXIT"#;

const READ: &str = r#"[ -e "$1" ] || exit 44
exec head -c "$2" "$1""#;

impl Ssh {
    /// Writes a file with these permissions. Its folder must exist. Who reads it meanwhile sees the old one or the new
    /// one.
    pub async fn put(&self, path: &str, content: impl Into<Bytes>, mode: u32) -> Result<(), SshError> {
        let content = content.into();
        let argv = ["sh", "-c", PUT, "sh", &at(path)?, &format!("{mode:o}"), &content.len().to_string()];
        let exec = Exec { stdin: Some(content), ..Exec::new(argv, PUT_LIMIT) };
        let exited = self.run_quietly(exec).await?;
        exited.ok().map(drop).map_err(|error| named(error, &format!("writing {path}")))
    }

    /// The file's content, or nothing if there is no such file. More than `max` bytes are refused.
    pub async fn read(&self, path: &str, max: usize) -> Result<Option<Bytes>, SshError> {
        let argv = ["sh", "-c", READ, "sh", &at(path)?, &(max + 1).to_string()];
        // One byte too many is as many as `head` gives.
        let (exited, content) = self.stdout(Exec::new(argv, READ_LIMIT), max + 1).await?;
        match exited.ended {
            Ended::Code(0) if content.len() > max => {
                Err(SshError::Refused(format!("{path} on the host is larger than {max} bytes")))
            }
            Ended::Code(0) => Ok(Some(content.into())),
            Ended::Code(NOT_THERE) => Ok(None),
            Ended::Code(_) | Ended::Signal(_) => {
                Err(SshError::Exit { what: format!("reading {path}"), ended: exited.ended, last: exited.last })
            }
        }
    }
}

/// A path that no tool takes for an option.
fn at(path: &str) -> Result<String, SshError> {
    match path {
        "" => Err(SshError::Refused("a file on the host needs a path".into())),
        path if path.starts_with('/') => Ok(path.into()),
        path => Ok(format!("./{path}")),
    }
}

fn named(error: SshError, name: &str) -> SshError {
    match error {
        SshError::Exit { ended, last, .. } => SshError::Exit { what: name.into(), ended, last },
        other => other,
    }
}
