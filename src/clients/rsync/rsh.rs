//! What rsync starts in the place of `ssh`: a small process that hands its stdin and stdout over to the one that holds
//! the SSH connection, and waits for the end. `spawnpoint rsh SOCKET HOST WORD…` is for rsync alone. A world's bytes do
//! not go through here: each process on their way has to be woken for every piece, which takes a good part of the time.
//!
//! It uses no async runtime, and touches nothing of what it hands over.
//!
//! On the socket: the length of the command (32 bits), with the two descriptors beside it, and the command. Back come
//! frames of one byte for the kind, the length in 32 bits and the bytes.

use std::ffi::OsString;
use std::io::{IoSlice, Read, Write, stderr, stdin, stdout};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

pub(super) const ERR: u8 = 1;
/// Its one byte is the exit code.
pub(super) const EXIT: u8 = 2;
/// No frame and no command is longer.
pub(super) const FRAME_MAX_BYTES: usize = 256 * 1024;
/// What `ssh` says when the connection failed.
pub(super) const LOST: u8 = 255;

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
    // As ssh does it: the words become one line, and rsync has quoted what needs it.
    let command = words.map(OsStringExt::into_vec).collect::<Vec<_>>().join(&b' ');
    let mut relay = UnixStream::connect(socket)?;
    hand_over(&relay, (command.len() as u32).to_be_bytes())?;
    relay.write_all(&command)?;
    wait(&mut relay)
}

fn hand_over(relay: &UnixStream, size: [u8; 4]) -> std::io::Result<()> {
    let (stdin, stdout) = (stdin(), stdout());
    let both = [stdin.as_fd(), stdout.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    if !beside.push(SendAncillaryMessage::ScmRights(&both)) {
        return Err(std::io::Error::other("two descriptors do not fit into a message"));
    }
    match sendmsg(relay, &[IoSlice::new(&size)], &mut beside, SendFlags::empty())? {
        sent if sent == size.len() => Ok(()),
        _ => Err(std::io::Error::other("a message was cut short")),
    }
}

fn wait(relay: &mut UnixStream) -> std::io::Result<u8> {
    let mut frame = vec![0; FRAME_MAX_BYTES];
    loop {
        let mut head = [0; 5];
        relay.read_exact(&mut head)?;
        let size = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let Some(bytes) = frame.get_mut(..size) else {
            return Err(std::io::Error::other("a frame is too long"));
        };
        relay.read_exact(bytes)?;
        match head[0] {
            ERR => stderr().write_all(bytes)?,
            EXIT => return Ok(bytes.first().copied().unwrap_or(LOST)),
            _ => return Err(std::io::Error::other("an unknown frame")),
        }
    }
}
