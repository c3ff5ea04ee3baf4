//! Reads a tar stream of a world: only what is selected, only what is safe, and only to a proper end.

use std::io::{self, Read};

use super::{
    error::{Error, Result},
    name::{WorldPath, check_link},
    select::{Selection, Shift},
};

const BLOCK_BYTES: usize = 512;
/// What may follow the end mark: GNU tar pads to 10 KiB, nobody to more than this.
const PADDING_MAX_BYTES: u64 = 1 << 20;

pub(super) struct Item<'a> {
    pub path: WorldPath,
    pub mode: u32,
    pub mtime_ns: i64,
    pub what: What<'a>,
}

pub(super) enum What<'a> {
    Dir,
    File {
        size: u64,
        content: &'a mut dyn Read,
    },
    Link {
        to: Vec<u8>,
    },
    /// Another name of a file that came earlier in the stream.
    SameAs(WorldPath),
}

/// Calls `each` for every selected thing, in the stream's order.
pub(super) fn walk(
    stream: impl Read,
    selection: &Selection,
    shift: &Shift,
    mut each: impl FnMut(Item<'_>) -> Result<()>,
) -> Result<()> {
    let mut archive = tar::Archive::new(SeesEnd { inner: stream, ended: false });
    for entry in archive.entries().map_err(Error::Stream)? {
        let mut entry = entry.map_err(Error::Stream)?;
        let name = entry.path_bytes().into_owned();
        let path = shift.apply(&name)?;
        let kind = entry.header().entry_type();
        // A global header (git archive writes one) names nothing in the world.
        if kind.is_pax_global_extensions() || !selection.takes(&path, kind.is_dir()) || path.is_root() && kind.is_dir()
        {
            continue;
        }
        if path.is_root() {
            return Err(Error::refused(&name, "it has no name inside the world"));
        }
        let mode = entry.header().mode().map_err(Error::Stream)?;
        let mtime_ns = mtime_ns(&mut entry)?;
        let size = entry.size();
        let target = entry.link_name_bytes().map(|t| t.into_owned()).unwrap_or_default();
        let mut item = |what, mask| each(Item { path: path.clone(), mode: mode & mask, mtime_ns, what });
        // A world has no use for set-user-id; set-group-id and sticky mean something on folders.
        if kind.is_dir() {
            item(What::Dir, 0o3777)?;
        } else if kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse() {
            let content = &mut entry;
            item(What::File { size, content }, 0o777)?;
        } else if kind.is_symlink() {
            check_link(&path, &target)?;
            item(What::Link { to: target }, 0o777)?;
        } else if kind.is_hard_link() {
            item(What::SameAs(shift.apply(&target)?), 0o777)?;
        } else {
            return Err(Error::refused(&name, "it is a device, a pipe or a socket; exclude it in the recipe"));
        }
    }
    // `tar` takes the end of the stream for the end of the archive, even where a broken connection ended it, and
    // one block of zeros for the end mark, which has two.
    let mut stream = archive.into_inner();
    let mut second = [1; BLOCK_BYTES];
    if stream.ended || stream.read_exact(&mut second).is_err() || second != [0; BLOCK_BYTES] {
        return Err(Error::CutShort);
    }
    io::copy(&mut stream.by_ref().take(PADDING_MAX_BYTES), &mut io::sink()).map_err(Error::Stream)?;
    Ok(())
}

/// The PAX extension has fractions and negative times, the plain header whole seconds since 1970.
fn mtime_ns<R: Read>(entry: &mut tar::Entry<'_, R>) -> Result<i64> {
    let plain = entry.header().mtime().map_err(Error::Stream)?;
    let plain = i64::try_from(plain).unwrap_or(i64::MAX).saturating_mul(1_000_000_000);
    let Some(extensions) = entry.pax_extensions().map_err(Error::Stream)? else {
        return Ok(plain);
    };
    let exact =
        extensions.flatten().filter(|e| e.key_bytes() == b"mtime").find_map(|e| parse_decimal_ns(e.value().ok()?));
    Ok(exact.unwrap_or(plain))
}

fn parse_decimal_ns(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let part: i64 = digits.parse().ok()?;
    let part = if whole.starts_with('-') { -part } else { part };
    seconds.checked_mul(1_000_000_000)?.checked_add(part)
}

struct SeesEnd<R> {
    inner: R,
    ended: bool,
}

impl<R: Read> Read for SeesEnd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.ended |= n == 0 && !buffer.is_empty();
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_to_the_nanosecond_and_before_1970() {
        assert_eq!(parse_decimal_ns("1795247589.5"), Some(1_795_247_589_500_000_000));
        assert_eq!(parse_decimal_ns("-1.25"), Some(-1_250_000_000));
        assert_eq!(parse_decimal_ns("7"), Some(7_000_000_000));
        assert_eq!(parse_decimal_ns("x"), None);
        assert_eq!(parse_decimal_ns("99999999999999"), None);
    }
}
