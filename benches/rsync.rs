//! Measures carrying worlds to a host and back as docs/benchmarks.md reports it: our own SSH connection under rsync,
//! beside `rsync -e ssh` with the same options against the same OpenSSH server, in turns. Prints a table in Markdown.
//! Nothing in here is a test of speed: a slow machine fails nothing. What arrives is compared all the same.
//!
//!   cargo bench --bench rsync [-- ROUNDS]      TMPDIR says where the worlds lie

#[path = "../tests/common/sshd.rs"]
mod sshd;

use spawnpoint::clients::rsync::Transfer;
use sshd::{Sshd, sshd_or_skip};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const ROUNDS: usize = 5;
const LARGE_BYTES: usize = 1 << 30;
const SMALL_FILES: usize = 20_000;
/// Sizes are spread evenly below this.
const SMALL_MAX_BYTES: u64 = 8 << 10;
const FILES_IN_A_FOLDER: usize = 500;
const LIMIT: Duration = Duration::from_secs(600);

/// Who carries.
#[derive(Clone, Copy)]
enum Way {
    Ours,
    /// OpenSSH's client as it comes.
    Ssh,
    /// OpenSSH's client with the cipher that ours prefers.
    SshSameCipher,
}

const WAYS: [Way; 3] = [Way::Ours, Way::Ssh, Way::SshSameCipher];

#[derive(Clone, Copy)]
enum Direction {
    Push,
    Pull,
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        if !sshd_or_skip() {
            return;
        }
        // Cargo passes `--bench`, which says nothing here.
        let rounds = std::env::args().skip(1).find_map(|one| one.parse().ok()).unwrap_or(ROUNDS);
        let sshd = Sshd::start().await;
        let home = tempfile::Builder::new().prefix("spawnpoint-bench-").tempdir().unwrap();
        println!(
            "| what, {rounds} rounds | Spawnpoint | `rsync -e ssh` | the same with AES-256-GCM |\n|---|---|---|---|"
        );
        for (what, make) in
            [("1 GiB in one file", large as fn(&Path)), ("20,000 files of at most 8 KiB", small as fn(&Path))]
        {
            let world = home.path().join("world");
            make(&world);
            for direction in [Direction::Push, Direction::Pull] {
                measure(&sshd, what, direction, &world, &home.path().join("copy"), rounds).await;
            }
            std::fs::remove_dir_all(&world).unwrap();
        }
    });
}

async fn measure(sshd: &Sshd, what: &str, direction: Direction, world: &Path, copy: &Path, rounds: usize) {
    let mut times: [Vec<f64>; WAYS.len()] = Default::default();
    for round in 0..=rounds {
        for at in 0..WAYS.len() {
            // Each is the first of a round as often as the others.
            let at = (at + round) % WAYS.len();
            // What the last one wrote is not written out at the cost of this one.
            rustix::fs::sync();
            let began = Instant::now();
            carry(sshd, WAYS[at], direction, world, copy).await;
            let took = began.elapsed().as_secs_f64();
            assert_eq!(contents(world), contents(copy));
            std::fs::remove_dir_all(copy).unwrap();
            // The first round warms up.
            if round > 0 {
                times[at].push(took);
            }
        }
    }
    let direction = match direction {
        Direction::Push => "to the host",
        Direction::Pull => "back",
    };
    let [ours, ssh, same] = times.map(spread);
    println!("| {what}, {direction} | {ours} | {ssh} | {same} |");
}

async fn carry(sshd: &Sshd, way: Way, direction: Direction, world: &Path, copy: &Path) {
    let (local, remote) = match direction {
        Direction::Push => (world, copy),
        Direction::Pull => (copy, world),
    };
    let shell = match way {
        Way::Ours => {
            let program = Some(PathBuf::from(env!("CARGO_BIN_EXE_spawnpoint")));
            let transfer = Transfer { program, ..Transfer::new(sshd.ssh(), local, remote.to_str().unwrap(), LIMIT) };
            return match direction {
                Direction::Push => transfer.push(&mut |_| {}).await.unwrap(),
                Direction::Pull => transfer.pull(&mut |_| {}).await.unwrap(),
            };
        }
        Way::Ssh => ssh(sshd, ""),
        Way::SshSameCipher => ssh(sshd, "-c aes256-gcm@openssh.com"),
    };
    let (local, remote) = (format!("{}/", local.display()), format!("host:{}/", remote.display()));
    let (from, to) = match direction {
        Direction::Push => (local, remote),
        Direction::Pull => (remote, local),
    };
    // What Transfer gives rsync.
    let options = "--protect-args -rl --perms --sparse --safe-links --partial-dir=.spawnpoint-partial --times \
                   --info=progress2 --no-human-readable --outbuf=L --delete-delay";
    let mut rsync = tokio::process::Command::new("rsync");
    rsync.args(options.split_whitespace()).args(["--rsh", &shell, "--", &from, &to]);
    let done = rsync.env("LC_ALL", "C").stdin(Stdio::null()).output().await.unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// OpenSSH's client with a pinned key, and nothing of this machine's configuration.
fn ssh(sshd: &Sshd, more: &str) -> String {
    let (ip, port) = (sshd.address.ip(), sshd.address.port());
    let public = std::fs::read_to_string(sshd.home.join("host_key.known")).unwrap_or_else(|_| {
        let key = Command::new("ssh-keygen").arg("-yf").arg(sshd.home.join("host_key")).output().unwrap();
        let line = format!("[{ip}]:{port} {}", String::from_utf8(key.stdout).unwrap());
        std::fs::write(sshd.home.join("host_key.known"), &line).unwrap();
        line
    });
    assert!(public.contains("ssh-ed25519"), "{public}");
    let home = sshd.home.display();
    format!(
        "ssh -F none -p {port} -i {home}/id -o IdentitiesOnly=yes -o BatchMode=yes -o HostName={ip} \
         -o HostKeyAlias=[{ip}]:{port} -o UserKnownHostsFile={home}/host_key.known -o StrictHostKeyChecking=yes {more}"
    )
}

/// Median, and the quickest and slowest, in seconds.
fn spread(mut times: Vec<f64>) -> String {
    times.sort_by(f64::total_cmp);
    format!("{:.2} s ({:.2} to {:.2})", times[times.len() / 2], times[0], times[times.len() - 1])
}

fn large(world: &Path) {
    std::fs::create_dir_all(world).unwrap();
    let mut bytes = vec![0; LARGE_BYTES];
    noise(1).fill(&mut bytes);
    std::fs::write(world.join("large"), bytes).unwrap();
}

fn small(world: &Path) {
    let mut bytes = vec![0; SMALL_MAX_BYTES as usize];
    for at in 0..SMALL_FILES {
        let folder = world.join((at / FILES_IN_A_FOLDER).to_string());
        std::fs::create_dir_all(&folder).unwrap();
        let size = 1 + at as u64 * 7919 % SMALL_MAX_BYTES;
        let bytes = &mut bytes[..size as usize];
        noise(at as u64).fill(bytes);
        std::fs::write(folder.join(at.to_string()), bytes).unwrap();
    }
}

/// Bytes that nothing makes smaller, the same in every run.
fn noise(seed: u64) -> blake3::OutputReader {
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof()
}

/// Every file with its hash.
fn contents(at: &Path) -> Vec<(PathBuf, blake3::Hash)> {
    let files = walkdir::WalkDir::new(at).sort_by_file_name().into_iter().map(Result::unwrap);
    let files = files.filter(|entry| entry.file_type().is_file());
    files
        .map(|entry| {
            let mut hasher = blake3::Hasher::new();
            std::io::copy(&mut std::fs::File::open(entry.path()).unwrap(), &mut hasher).unwrap();
            (entry.path().strip_prefix(at).unwrap().into(), hasher.finalize())
        })
        .collect()
}
