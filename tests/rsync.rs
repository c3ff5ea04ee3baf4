//! rsync over our SSH connection, against a real OpenSSH server and the real rsync on both ends.

#[path = "common/sshd.rs"]
mod sshd;

use spawnpoint::clients::rsync::{Progress, RsyncError, Side, Transfer};
use spawnpoint::clients::ssh::SshError;
use sshd::{Sshd, sshd_or_skip};
use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(120);

struct Stage {
    sshd: Sshd,
    here: PathBuf,
    there: PathBuf,
}

impl Stage {
    async fn open() -> Option<Stage> {
        if !sshd_or_skip() {
            return None;
        }
        let sshd = Sshd::start().await;
        let (here, there) = (sshd.home.join("here is it's"), sshd.home.join("there \"is\" $HOME it's"));
        std::fs::create_dir_all(&here).unwrap();
        std::fs::create_dir_all(&there).unwrap();
        Some(Stage { sshd, here, there })
    }

    fn transfer(&self) -> Transfer {
        self.between(&self.here, &self.there)
    }

    fn between(&self, here: &Path, there: &Path) -> Transfer {
        let program = Some(PathBuf::from(env!("CARGO_BIN_EXE_spawnpoint")));
        Transfer { program, ..Transfer::new(self.sshd.ssh(), here, there.to_str().unwrap(), LIMIT) }
    }
}

fn write(path: impl AsRef<Path>, content: impl AsRef<[u8]>) {
    std::fs::create_dir_all(path.as_ref().parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

/// Every name below with its kind, permissions and content.
fn tree(at: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    for entry in walkdir::WalkDir::new(at).min_depth(1) {
        let entry = entry.unwrap();
        let meta = entry.metadata().unwrap();
        let content = if meta.is_file() {
            std::fs::read(entry.path()).unwrap()
        } else if meta.is_symlink() {
            std::fs::read_link(entry.path()).unwrap().as_os_str().as_bytes().to_vec()
        } else {
            vec![]
        };
        found.insert(entry.path().strip_prefix(at).unwrap().into(), (meta.mode(), content));
    }
    found
}

fn world(at: &Path) {
    let names = [
        "a file with spaces",
        "it's \"quoted\" $HOME `id`",
        "-n",
        "*?[x]",
        "grün \u{1f680}",
        "back\\slash",
        "line\nbreak",
        "deep/er/and/deeper/file",
    ];
    for name in names {
        write(at.join(name), format!("this is {name}"));
    }
    write(std::path::Path::new(&at.join(std::ffi::OsStr::from_bytes(b"not \xff utf-8"))), "bytes");
    write(at.join("run.sh"), "#!/bin/sh\n");
    std::fs::set_permissions(at.join("run.sh"), PermissionsExt::from_mode(0o751)).unwrap();
    std::fs::create_dir_all(at.join("empty")).unwrap();
    symlink("deep/er", at.join("link within")).unwrap();
    let sparse = std::fs::File::create(at.join("sparse")).unwrap();
    sparse.set_len(64 << 20).unwrap();
}

#[tokio::test]
async fn a_world_goes_there_and_back_unchanged_whatever_its_names_are() {
    let Some(stage) = Stage::open().await else { return };
    world(&stage.here);
    let mut seen: Vec<Progress> = vec![];
    stage.transfer().push(&mut |progress| seen.push(progress)).await.unwrap();
    assert!(tree(&stage.there) == tree(&stage.here));
    // rsync rounds down.
    assert_eq!(seen.last().map(|last| (last.percent >= 99, last.files > 9)), Some((true, true)));
    assert!(std::fs::metadata(stage.there.join("sparse")).unwrap().blocks() < 1000, "it stayed sparse");
    assert_eq!(stage.transfer().compare().await.unwrap(), [""; 0]);

    let back = stage.sshd.home.join("back");
    let pull = stage.between(&back, &stage.there);
    pull.pull(&mut |_| {}).await.unwrap();
    assert!(tree(&back) == tree(&stage.here));
    write(back.join("not of this world"), "x");
    std::fs::remove_file(back.join("-n")).unwrap();
    pull.pull(&mut |_| {}).await.unwrap();
    assert!(tree(&back) == tree(&stage.here), "what the source has not was removed");
}

#[tokio::test]
async fn compare_finds_what_differs_in_content_kind_or_permissions_and_nothing_else() {
    let Some(stage) = Stage::open().await else { return };
    let (here, there) = (&stage.here, &stage.there);
    for name in ["same", "touched", "flipped", "shrunk", "mode", "kind", "gone"] {
        write(here.join(name), "0123456789");
        write(there.join(name), "0123456789");
    }
    let old = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    std::fs::File::options().write(true).open(here.join("touched")).unwrap().set_modified(old).unwrap();
    assert_eq!(stage.transfer().compare().await.unwrap(), [""; 0]);
    let when = std::fs::metadata(here.join("flipped")).unwrap().modified().unwrap();
    write(there.join("flipped"), "012345678x");
    std::fs::File::options().write(true).open(there.join("flipped")).unwrap().set_modified(when).unwrap();
    write(there.join("shrunk"), "0123");
    std::fs::set_permissions(there.join("mode"), PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::remove_file(there.join("kind")).unwrap();
    symlink("same", there.join("kind")).unwrap();
    std::fs::remove_file(there.join("gone")).unwrap();
    let before = tree(here);
    let differences = stage.transfer().compare().await.unwrap();
    for name in ["flipped", "shrunk", "mode", "kind", "gone"] {
        assert!(differences.iter().any(|line| line.contains(name)), "{name}: {differences:?}");
    }
    assert_eq!(differences.len(), 5, "{differences:?}");
    assert!(tree(here) == before, "a comparison changes nothing");
}

#[tokio::test]
async fn a_write_protected_copy_is_the_same_and_is_pushed_as_it_was() {
    let Some(stage) = Stage::open().await else { return };
    for (name, mode) in [("plain", 0o644), ("run.sh", 0o755), ("closed/secret", 0o600)] {
        write(stage.there.join(name), name);
        std::fs::set_permissions(stage.there.join(name), PermissionsExt::from_mode(mode)).unwrap();
    }
    let before = tree(&stage.there);
    let protected = Transfer { write_protected: true, ..stage.transfer() };
    protected.pull(&mut |_| {}).await.unwrap();
    let mode = |name: &str| std::fs::metadata(stage.here.join(name)).unwrap().mode() & 0o7777;
    assert_eq!([mode("plain"), mode("run.sh"), mode("closed/secret")], [0o444, 0o555, 0o400]);
    assert_eq!(protected.compare().await.unwrap(), [""; 0]);
    write(stage.there.join("plain"), "other");
    assert_eq!(protected.compare().await.unwrap().len(), 1);
    std::fs::remove_dir_all(&stage.there).unwrap();
    protected.push(&mut |_| {}).await.unwrap();
    assert!(tree(&stage.there) == before);
    assert_eq!(protected.compare().await.unwrap(), [""; 0]);
}

#[tokio::test]
async fn what_is_excluded_is_neither_carried_nor_removed_nor_compared() {
    let Some(stage) = Stage::open().await else { return };
    write(stage.here.join("world/level"), "level");
    write(stage.here.join("logs/today"), "log");
    write(stage.here.join("world/logs"), "not at the top");
    write(stage.there.join("logs/yesterday"), "older log");
    let transfer = Transfer { rules: vec!["- /logs".into()], ..stage.transfer() };
    transfer.push(&mut |_| {}).await.unwrap();
    let names: Vec<_> = tree(&stage.there).into_keys().collect();
    assert_eq!(names, ["logs", "logs/yesterday", "world", "world/level", "world/logs"].map(PathBuf::from));
    assert_eq!(transfer.compare().await.unwrap(), [""; 0]);
}

#[tokio::test]
async fn twenty_thousand_small_files_arrive() {
    let Some(stage) = Stage::open().await else { return };
    for n in 0..20_000 {
        if n % 1000 == 0 {
            std::fs::create_dir_all(stage.there.join(format!("{}", n / 1000))).unwrap();
        }
        std::fs::write(stage.there.join(format!("{}/{n}", n / 1000)), format!("tile {n}")).unwrap();
    }
    stage.transfer().pull(&mut |_| {}).await.unwrap();
    assert!(tree(&stage.here) == tree(&stage.there));
}

#[tokio::test]
async fn an_earlier_copy_saves_the_room_of_what_is_the_same() {
    let Some(stage) = Stage::open().await else { return };
    write(stage.there.join("same"), "same");
    write(stage.there.join("other"), "before");
    stage.transfer().pull(&mut |_| {}).await.unwrap();
    write(stage.there.join("other"), "changed");
    let next = stage.sshd.home.join("next");
    let transfer = Transfer { link_dest: Some(stage.here.clone()), ..stage.between(&next, &stage.there) };
    transfer.pull(&mut |_| {}).await.unwrap();
    assert!(tree(&next) == tree(&stage.there));
    let inode = |path: &Path| std::fs::metadata(path).unwrap().ino();
    assert_eq!(inode(&next.join("same")), inode(&stage.here.join("same")));
    assert_ne!(inode(&next.join("other")), inode(&stage.here.join("other")));
}

#[tokio::test]
async fn a_transfer_that_was_cut_off_says_so_and_goes_on_where_it_was() {
    let Some(stage) = Stage::open().await else { return };
    let content: Vec<u8> = (0..96u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let (mut pulls, mut cut_short) = ([false, true].into_iter().peekable(), 0);
    while let Some(&pull) = pulls.peek() {
        let (from, to) = if pull { (&stage.there, &stage.here) } else { (&stage.here, &stage.there) };
        let _ = std::fs::remove_dir_all(to);
        write(from.join("big"), &content);
        let transfer = stage.transfer();
        let mut tell = |_: Progress| {};
        let moving = async { if pull { transfer.pull(&mut tell).await } else { transfer.push(&mut tell).await } };
        let cutting = async {
            while !has_begun(to) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            stage.sshd.cut_connections();
            std::future::pending::<()>().await;
        };
        let result = tokio::select! {
            result = moving => result,
            () = cutting => unreachable!("it never ends"),
        };
        if let Err(error) = &result {
            assert!(matches!(error, RsyncError::Ssh(SshError::Broken { .. })) && error.may_pass(), "{error:?}");
        }
        if result.is_ok() || to.join("big").exists() {
            assert!(tree(to) == tree(from), "half a file is not taken for the file, pull {pull}");
            cut_short += 1;
            assert!(cut_short < 10, "the connection can be cut before all has arrived");
            continue;
        }
        let kept = to.join(".spawnpoint-partial/big");
        let waited = std::time::Instant::now();
        while !kept.exists() {
            assert!(waited.elapsed() < LIMIT, "what arrived was kept");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        if pull {
            transfer.pull(&mut |_| {}).await.unwrap()
        } else {
            transfer.push(&mut |_| {}).await.unwrap()
        };
        assert!(tree(to) == tree(from), "and nothing else is left");
        pulls.next();
    }
}

/// Whether a part of a file has arrived that rsync has not given its name yet.
fn has_begun(at: &Path) -> bool {
    let entries = std::fs::read_dir(at).into_iter().flatten().flatten();
    let mut parts = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(".big."));
    parts.any(|part| part.metadata().is_ok_and(|meta| meta.len() > 8 << 20))
}

/// A small file system of its own, unmounted at the end.
struct Small(PathBuf);

impl Small {
    fn mount(at: &Path) -> Small {
        std::fs::create_dir_all(at).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(at).status().unwrap();
        assert!(mounted.success(), "a small file system could be mounted");
        Small(at.into())
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(&self.0).status().unwrap();
    }
}

#[tokio::test]
async fn a_full_disk_is_named_with_the_side_it_is_on() {
    let Some(stage) = Stage::open().await else { return };
    let small = Small::mount(&stage.sshd.home.join("small"));
    for dir in [&stage.here, &stage.there] {
        write(dir.join("big"), vec![7; 8 << 20]);
    }
    let error = stage.between(&small.0, &stage.there).pull(&mut |_| {}).await.unwrap_err();
    assert_eq!(error, RsyncError::Full(Side::Here));
    let error = stage.between(&stage.here, &small.0).push(&mut |_| {}).await.unwrap_err();
    assert_eq!(error, RsyncError::Full(Side::There));
}

#[tokio::test]
async fn a_host_cannot_lead_a_pull_out_of_its_folder() {
    let Some(stage) = Stage::open().await else { return };
    let outside = stage.sshd.home.join("outside");
    write(outside.join("precious"), "mine");
    symlink(&outside, stage.there.join("absolute")).unwrap();
    symlink("../outside", stage.there.join("upward")).unwrap();
    write(stage.there.join("trap/precious"), "theirs");
    write(stage.there.join("set-user"), "x");
    std::fs::set_permissions(stage.there.join("set-user"), PermissionsExt::from_mode(0o4755)).unwrap();
    let pipe = Command::new("mkfifo").arg(stage.there.join("pipe")).status().unwrap();
    assert!(pipe.success());
    // From an earlier pull of a host that had a link where there is a folder now.
    symlink(&outside, stage.here.join("trap")).unwrap();
    stage.transfer().pull(&mut |_| {}).await.unwrap();
    assert_eq!(std::fs::read(outside.join("precious")).unwrap(), b"mine");
    let names: Vec<_> = tree(&stage.here).into_keys().collect();
    assert_eq!(names, ["set-user", "trap", "trap/precious"].map(PathBuf::from));
    assert_eq!(std::fs::metadata(stage.here.join("set-user")).unwrap().mode() & 0o7777, 0o755);
    assert_eq!(stage.transfer().compare().await.unwrap(), [""; 0]);
}

#[tokio::test]
async fn what_stands_in_the_way_is_said_in_a_sentence() {
    let Some(stage) = Stage::open().await else { return };
    let nowhere = stage.between(&stage.here, Path::new("/no/such/folder"));
    let error = nowhere.pull(&mut |_| {}).await.unwrap_err();
    assert!(matches!(&error, RsyncError::Partial(why) if why.contains("/no/such/folder")), "{error:?}");

    let limit = Duration::from_millis(1);
    let error = Transfer { limit, ..stage.transfer() }.push(&mut |_| {}).await.unwrap_err();
    assert!(matches!(error, RsyncError::Ssh(SshError::Timeout { .. })), "{error:?}");

    let bare = Sshd::with("ForceCommand exit 127").await;
    let error = Transfer { ssh: bare.ssh(), ..stage.transfer() }.push(&mut |_| {}).await.unwrap_err();
    assert_eq!(error, RsyncError::Missing(Side::There));
    assert_eq!(error.to_string(), "rsync is not installed on the host: install the package rsync there");

    let mut gone = Sshd::start().await;
    gone.kill();
    let error = Transfer { ssh: gone.ssh(), ..stage.transfer() }.push(&mut |_| {}).await.unwrap_err();
    assert!(matches!(error, RsyncError::Ssh(SshError::Unreachable { .. })) && error.may_pass(), "{error:?}");
}
