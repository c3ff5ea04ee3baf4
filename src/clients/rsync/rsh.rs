//! What rsync starts in the place of `ssh`: a small process that carries rsync's bytes to the one that holds the SSH
//! connection, over a Unix socket. `spawnpoint rsh SOCKET HOST WORD…` is for rsync alone.
//!
//! It uses plain threads. rsync hands it non-blocking pipes, which an async runtime that reads them in a thread takes for
//! ended ones, so they are made blocking first.
//!
//! On the socket: the length of the command (32 bits) and the command, then the bytes of stdin until they end. Back come
//! frames of one byte for the kind, the length in 32 bits and the bytes.

use std::ffi::OsString;
use std::io::{Read, Write, stderr, stdin, stdout};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

pub(super) const OUT: u8 = 1;
pub(super) const ERR: u8 = 2;
/// Its one byte is the exit code.
pub(super) const EXIT: u8 = 3;
/// No frame and no command is longer.
pub(super) const FRAME_MAX_BYTES: usize = 256 * 1024;
/// What `ssh` says when the connection failed.
pub(super) const LOST: u8 = 255;
const PIECE_BYTES: usize = 64 * 1024;

/// The whole life of this process. Its exit code is the remote command's, or 255 as with `ssh`.
pub fn main(words: Vec<OsString>) -> ! {
    let code = match carry(words) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("spawnpoint rsh: {error}");
            LOST
        }
    };
    std::process::exit(i32::from(code))
}

fn carry(words: Vec<OsString>) -> std::io::Result<u8> {
    let mut words = words.into_iter();
    let (Some(socket), Some(_host)) = (words.next(), words.next()) else {
        return Err(std::io::Error::other("this command is for rsync, which starts it with a socket and a host"));
    };
    block(stdin().as_fd())?;
    block(stdout().as_fd())?;
    block(stderr().as_fd())?;
    // As ssh does it: the words become one line, and rsync has quoted what needs it.
    let command = words.map(OsStringExt::into_vec).collect::<Vec<_>>().join(&b' ');
    let mut up = UnixStream::connect(socket)?;
    up.write_all(&(command.len() as u32).to_be_bytes())?;
    up.write_all(&command)?;
    let mut down = up.try_clone()?;
    std::thread::spawn(move || {
        // Whatever fails here ends the other direction as well, which tells.
        let _ = copy(&mut stdin().lock(), &mut up);
        let _ = up.shutdown(Shutdown::Write);
    });
    receive(&mut down)
}

fn receive(down: &mut UnixStream) -> std::io::Result<u8> {
    let mut frame = vec![0; FRAME_MAX_BYTES];
    loop {
        let mut head = [0; 5];
        down.read_exact(&mut head)?;
        let size = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let Some(bytes) = frame.get_mut(..size) else {
            return Err(std::io::Error::other("a frame is too long"));
        };
        down.read_exact(bytes)?;
        match head[0] {
            OUT => {
                let mut out = stdout().lock();
                out.write_all(bytes)?;
                out.flush()?;
            }
            ERR => stderr().write_all(bytes)?,
            EXIT => return Ok(bytes.first().copied().unwrap_or(LOST)),
            _ => return Err(std::io::Error::other("an unknown frame")),
        }
    }
}

fn copy(from: &mut impl Read, to: &mut impl Write) -> std::io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match from.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(size) => to.write_all(&piece[..size])?,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn block(fd: impl AsFd) -> std::io::Result<()> {
    let flags = fcntl_getfl(&fd)?;
    Ok(fcntl_setfl(&fd, flags - OFlags::NONBLOCK)?)
}
