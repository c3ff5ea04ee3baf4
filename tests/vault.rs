//! The vault on a real file system: worlds come in as tar streams, rot, run out of space, and come back.

use std::{
    fs,
    io::{self, Read},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, MetadataExt, PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
    process::Command,
};

use spawnpoint::vault::{
    Backup, BackupId, Error, Listed, Meta, OwnerId, Pack, Reason, Selection, Shift, Staging, Vault,
};
use tempfile::TempDir;

struct Place {
    dir: TempDir,
    vault: Vault,
    owner: OwnerId,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let vault = Vault::open(&dir.path().join("vault")).unwrap();
        let owner = OwnerId::parse("server-1").unwrap();
        fs::create_dir(dir.path().join("world")).unwrap();
        Self { dir, vault, owner }
    }

    fn world(&self) -> PathBuf {
        self.dir.path().join("world")
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.world().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn stage(&self, n: u32) -> Staging {
        self.vault.stage(&self.owner, Some(id(n))).unwrap()
    }

    /// Reads the world twice and keeps it.
    fn take(&self, n: u32) -> Backup {
        let mut stage = self.stage(n);
        let stream = tar_of(&self.world());
        stage.unpack(&stream[..], &Selection::everything(), &Shift::none()).unwrap();
        let found = stage.compare(&stream[..], &Selection::everything(), &Shift::none()).unwrap();
        assert!(found.is_whole(), "{found:?}");
        stage.keep(meta(n)).unwrap()
    }

    fn stored(&self, n: u32, name: &str) -> PathBuf {
        self.vault.home(&self.owner, &id(n)).join("files").join(name)
    }

    fn unpack(&self, n: u32, stream: &[u8]) -> Result<(), Error> {
        self.stage(n).unpack(stream, &Selection::everything(), &Shift::none())
    }

    fn ids(&self) -> Vec<String> {
        let list = self.vault.list(&self.owner).unwrap();
        list.iter().map(|l| l.id().to_string()).collect()
    }
}

fn id(n: u32) -> BackupId {
    BackupId::parse(&format!("20261121T0753{n:02}Z-test")).unwrap()
}

fn meta(n: u32) -> Meta {
    Meta {
        server: "friends".into(),
        game: "openttd".into(),
        recipe_version: None,
        reason: Reason::Stop,
        taken_at_ms: 1_795_247_580_000 + i64::from(n) * 1000,
        live: false,
        by: "test".into(),
        note: Some("a \"note\"\n".into()),
    }
}

/// By the system's tar, which nobody here wrote.
fn tar_of(dir: &Path) -> Vec<u8> {
    let out = Command::new("tar").args(["--format=pax", "--sort=name", "-cC"]).arg(dir).arg(".").output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

/// Name, kind, link, content.
type RawEntry<'a> = (&'a [u8], tar::EntryType, &'a [u8], &'a [u8]);

/// Entries that the tar crate would refuse to write, with a right check sum and end mark.
fn raw_tar(entries: &[RawEntry]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, kind, link, content) in entries {
        let mut header = tar::Header::new_gnu();
        let old = header.as_old_mut();
        old.name[..name.len()].copy_from_slice(name);
        old.linkname[..link.len()].copy_from_slice(link);
        header.set_entry_type(*kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(1);
        header.set_cksum();
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(content);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1024, 0);
    out
}

/// Everything that can be told of a tree, one line each.
fn portrait(dir: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    for entry in walkdir::WalkDir::new(dir).min_depth(1).sort_by_file_name() {
        let entry = entry.unwrap();
        let stat = entry.metadata().unwrap();
        let name = entry.path().strip_prefix(dir).unwrap().to_owned();
        lines.push(if stat.is_symlink() {
            format!("{name:?} -> {:?}", fs::read_link(entry.path()).unwrap())
        } else {
            let content = if stat.is_file() { fs::read(entry.path()).unwrap() } else { Vec::new() };
            let hash = blake3::hash(&content);
            let time = (stat.mtime(), stat.mtime_nsec());
            format!("{name:?} {:o} {time:?} {} {hash}", stat.mode(), content.len())
        });
    }
    lines
}

fn rot(path: &Path) {
    let stat = fs::metadata(path).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 0).unwrap();
    file.write_all_at(&[!byte[0]], 0).unwrap();
    file.set_permissions(stat.permissions()).unwrap();
    file.set_modified(stat.modified().unwrap()).unwrap();
}

fn strange_world(place: &Place) {
    place.write("new\nline \"and' quotes %41/ünïcödé ☃.dat", "x");
    place.write("deep/er/still/level.dat", vec![7; 300_000]);
    place.write("empty.txt", "");
    place.write("run.sh", "#!/bin/sh\n");
    place.write(&format!("{}/{}", "long".repeat(40), "name".repeat(50)), "long");
    fs::write(place.world().join(std::ffi::OsStr::from_bytes(b"latin-\xe9\xff.sav")), "bytes").unwrap();
    fs::create_dir_all(place.world().join("empty/folder")).unwrap();
    symlink("../deep/er", place.world().join("empty/link")).unwrap();
    let mode = |name: &str, bits| {
        fs::set_permissions(place.world().join(name), fs::Permissions::from_mode(bits)).unwrap();
    };
    mode("run.sh", 0o755);
    // Only root can read a file that nobody may read, and so put it into the stream.
    mode("empty.txt", if rustix::process::geteuid().is_root() { 0o000 } else { 0o400 });
    mode("empty/folder", 0o2555);
    // Long ago, the deepest first: a folder that is written to after its time was set shows it.
    for entry in walkdir::WalkDir::new(place.world()).min_depth(1).contents_first(true) {
        let path = entry.unwrap().into_path();
        let then = rustix::fs::Timestamps {
            last_access: rustix::fs::Timespec { tv_sec: 1_000_000_000, tv_nsec: 0 },
            last_modification: rustix::fs::Timespec { tv_sec: 1_000_000_000, tv_nsec: 123_456_789 },
        };
        rustix::fs::utimensat(rustix::fs::CWD, &path, &then, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
}

#[test]
fn a_restored_world_is_the_same_to_the_last_byte_mode_and_time() {
    let place = Place::new();
    strange_world(&place);
    let before = portrait(&place.world());
    let backup = place.take(1);
    assert!(backup.verified && !backup.suspicious());

    let back = place.dir.path().join("back");
    place.vault.restore_to(&place.owner, &id(1), &back).unwrap();
    assert_eq!(portrait(&back), before);

    // Copies: what is played on them must not reach the vault.
    fs::write(back.join("run.sh"), "changed").unwrap();
    assert!(place.vault.verify(&place.owner, &id(1)).unwrap().is_whole());
    let again = place.vault.restore_to(&place.owner, &id(1), &back);
    assert!(matches!(again, Err(Error::NotEmpty(_))), "{again:?}");
}

#[test]
fn a_packed_world_unpacks_with_the_systems_tar_for_its_new_owner() {
    let place = Place::new();
    strange_world(&place);
    place.take(1);
    let mut stream = Vec::new();
    let how = Pack { prefix: "data/world", uid: 1234, gid: 4321 };
    place.vault.pack(&place.owner, &id(1), &mut stream, &how).unwrap();

    let mut owners = Vec::new();
    for entry in tar::Archive::new(&stream[..]).entries().unwrap() {
        let entry = entry.unwrap();
        owners.push((entry.header().uid().unwrap(), entry.header().gid().unwrap()));
    }
    assert!(owners.iter().all(|o| *o == (1234, 4321)));

    let back = place.dir.path().join("back");
    fs::create_dir(&back).unwrap();
    fs::write(place.dir.path().join("x.tar"), &stream).unwrap();
    let out =
        Command::new("tar").arg("-xpf").arg(place.dir.path().join("x.tar")).arg("-C").arg(&back).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    // A plain tar stream has whole seconds; all else is the same.
    let seconds = |lines: Vec<String>| -> Vec<String> {
        let cut = regex::Regex::new(r"\((\d+), \d+\)").unwrap();
        lines.iter().map(|l| cut.replace(l, "$1").into_owned()).collect()
    };
    assert_eq!(seconds(portrait(&back.join("data/world"))), seconds(portrait(&place.world())));
}

#[test]
fn a_person_restores_with_cp_alone() {
    let place = Place::new();
    place.write("a/b.dat", "content");
    place.write("run.sh", "#!/bin/sh\n");
    fs::set_permissions(place.world().join("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    place.take(1);
    let text = fs::read_to_string(place.vault.home(&place.owner, &id(1)).join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
    let by_hand = manifest["restore_by_hand"].as_str().unwrap();

    let back = place.dir.path().join("back");
    let script = by_hand.replace("WHERE", "\"$BACK\"");
    let mut sh = Command::new("sh");
    sh.args(["-c", &script]).env("BACK", &back).current_dir(place.vault.home(&place.owner, &id(1)));
    fs::create_dir(&back).unwrap();
    assert!(sh.status().unwrap().success());
    assert_eq!(portrait(&back), portrait(&place.world()));
}

#[test]
fn unchanged_files_are_shared_and_only_changes_take_room() {
    let place = Place::new();
    place.write("region/big.mca", vec![1; 1 << 20]);
    place.write("level.dat", "one");
    let first = place.take(1);
    place.write("level.dat", "two");
    // Found by content, so a new name and a new time do not matter.
    fs::rename(place.world().join("region/big.mca"), place.world().join("region/moved.mca")).unwrap();
    let second = place.take(2);

    assert_eq!((first.new_bytes, first.shared_bytes), ((1 << 20) + 3, 0));
    assert_eq!((second.new_bytes, second.shared_bytes), (3, 1 << 20));
    let inode = |n, name| fs::metadata(place.stored(n, name)).unwrap();
    let (old, new) = (inode(1, "region/big.mca"), inode(2, "region/moved.mca"));
    assert_eq!((old.ino(), new.nlink()), (new.ino(), 2));
    assert_eq!(new.mode() & 0o222, 0, "shared files are read-only");

    let usage = place.vault.usage(&place.owner).unwrap();
    assert!(usage.apparent_bytes > 2 << 20, "{usage:?}");
    assert!(usage.disk_bytes < (1 << 20) + 200_000, "{usage:?}");
    assert!(usage.unique_bytes.values().all(|b| *b < 100_000), "{usage:?}");

    place.vault.delete(&place.owner, &id(1)).unwrap();
    assert!(place.vault.verify(&place.owner, &id(2)).unwrap().is_whole());
    assert!(place.vault.usage(&place.owner).unwrap().unique_bytes[&id(2)] >= 1 << 20);
}

#[test]
fn a_rotten_file_is_found_and_never_shared_with_the_next_backup() {
    let place = Place::new();
    place.write("level.dat", "precious");
    place.write("other.dat", "fine");
    place.take(1);
    rot(&place.stored(1, "level.dat"));

    let report = place.vault.verify(&place.owner, &id(1)).unwrap();
    let corrupt: Vec<_> = report.corrupt.iter().map(ToString::to_string).collect();
    assert_eq!(corrupt, ["level.dat"]);

    let second = place.take(2);
    assert_eq!((second.new_bytes, second.shared_bytes), (8, 4));
    assert!(place.vault.verify(&place.owner, &id(2)).unwrap().is_whole());

    let back = place.dir.path().join("back");
    let restored = place.vault.restore_to(&place.owner, &id(1), &back);
    assert!(matches!(restored, Err(Error::Broken { .. })), "{restored:?}");
    let mut stream = Vec::new();
    let how = Pack { prefix: "", uid: 0, gid: 0 };
    let packed = place.vault.pack(&place.owner, &id(1), &mut stream, &how);
    assert!(matches!(packed, Err(Error::Broken { .. })), "{packed:?}");
    assert!(matches!(place.unpack(3, &stream), Err(Error::CutShort)), "a pack that failed must not look whole");
}

#[test]
fn files_that_are_missing_strange_or_more_are_reported() {
    let place = Place::new();
    for name in ["a", "b", "c"] {
        place.write(name, name);
    }
    place.take(1);
    fs::remove_file(place.stored(1, "a")).unwrap();
    fs::remove_file(place.stored(1, "b")).unwrap();
    symlink("/etc/passwd", place.stored(1, "b")).unwrap();
    fs::write(place.stored(1, "d"), "d").unwrap();
    let report = place.vault.verify(&place.owner, &id(1)).unwrap();
    let text = |paths: &[spawnpoint::vault::WorldPath]| paths.iter().map(ToString::to_string).collect::<String>();
    assert_eq!(
        (text(&report.missing), text(&report.corrupt), text(&report.extra)),
        ("a".into(), "b".into(), "d".into())
    );
}

#[test]
fn what_could_escape_or_cannot_be_kept_is_refused() {
    use tar::EntryType as T;
    let outside = tempfile::tempdir().unwrap();
    let absolute = outside.path().join("x");
    let absolute = absolute.as_os_str().as_bytes();
    let table: &[(&str, &[RawEntry])] = &[
        ("absolute", &[(absolute, T::Regular, b"", b"x")]),
        ("dotdot", &[(b"../x", T::Regular, b"", b"x")]),
        ("inner dotdot", &[(b"a/../../x", T::Regular, b"", b"x")]),
        ("link out", &[(b"l", T::Symlink, b"../x", b"")]),
        ("absolute link", &[(b"l", T::Symlink, b"/etc", b"")]),
        ("link by link", &[(b"d/e/l", T::Symlink, b"../..", b""), (b"d/e/x", T::Symlink, b"l/..", b"")]),
        ("through a link", &[(b"l", T::Symlink, b"d", b""), (b"l/x", T::Regular, b"", b"x")]),
        ("through a file", &[(b"f", T::Regular, b"", b"x"), (b"f/x", T::Regular, b"", b"x")]),
        ("twice", &[(b"f", T::Regular, b"", b"x"), (b"f", T::Regular, b"", b"y")]),
        ("link over a folder", &[(b"d/x", T::Regular, b"", b"x"), (b"d", T::Symlink, b"e", b"")]),
        ("hard link out", &[(b"h", T::Link, b"/etc/passwd", b"")]),
        ("hard link to nothing", &[(b"h", T::Link, b"nothing", b"")]),
        ("character device", &[(b"c", T::Char, b"", b"")]),
        ("block device", &[(b"b", T::Block, b"", b"")]),
        ("pipe", &[(b"p", T::Fifo, b"", b"")]),
    ];
    let place = Place::new();
    for (what, entries) in table {
        let done = place.unpack(1, &raw_tar(entries));
        assert!(matches!(done, Err(Error::Refused { .. })), "{what}: {done:?}");
        let kept = place.stage(1).keep(meta(1));
        assert!(matches!(kept, Err(Error::Unfinished)), "{what}: {kept:?}");
    }
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    assert!(place.ids().is_empty());
    // The same names are no concern where the recipe excludes them.
    let pipe = raw_tar(&[(b"console.pipe", T::Fifo, b"", b""), (b"ok", T::Regular, b"", b"x")]);
    let selection = Selection::new::<&str, _>(&[], &["*.pipe"]).unwrap();
    place.stage(1).unpack(&pipe[..], &selection, &Shift::none()).unwrap();
}

#[test]
fn a_stream_cut_anywhere_is_never_taken_for_a_world() {
    let place = Place::new();
    place.write("a.dat", vec![0; 700]);
    place.write("b.dat", vec![1; 700]);
    let stream = tar_of(&place.world());
    let entries = stream.len() - stream.iter().rev().take_while(|b| **b == 0).count();
    // Every border of blocks up to the end mark's second block, and off the borders.
    for end in (0..entries.next_multiple_of(512) + 1024).step_by(256) {
        let done = place.unpack(1, &stream[..end]);
        assert!(matches!(done, Err(Error::CutShort | Error::Stream(_))), "{end}: {done:?}");
        assert!(matches!(place.stage(1).keep(meta(1)), Err(Error::Unfinished)));
    }
    place.unpack(1, &stream).unwrap();

    struct Breaks;
    impl Read for Breaks {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::ConnectionReset.into())
        }
    }
    let half = stream[..1500].chain(Breaks);
    let done = place.stage(2).unpack(half, &Selection::everything(), &Shift::none());
    assert!(matches!(done, Err(Error::Stream(_))), "{done:?}");
}

#[test]
fn a_comparison_tells_what_is_missing_more_and_different() {
    let place = Place::new();
    for name in ["same", "changed", "rotten", "gone-later"] {
        place.write(name, "aaaa");
    }
    let mut stage = place.stage(1);
    let all = Selection::everything();
    stage.unpack(&tar_of(&place.world())[..], &all, &Shift::none()).unwrap();
    place.write("changed", "bbbb");
    place.write("new", "n");
    fs::remove_file(place.world().join("gone-later")).unwrap();
    rot(&stage.tree().join("rotten"));
    let found = stage.compare(&tar_of(&place.world())[..], &all, &Shift::none()).unwrap();
    let differing: Vec<_> = found.differing.iter().map(|d| format!("{}: {}", d.path, d.why)).collect();
    assert_eq!(differing, ["changed: the contents differ", "rotten: the contents differ"]);
    assert_eq!((found.missing[0].to_string(), found.extra[0].to_string()), ("new".into(), "gone-later".into()));
    assert_eq!((found.missing.len(), found.extra.len()), (1, 1));
    let kept = stage.keep(meta(1)).unwrap();
    assert!(!kept.verified && !kept.good());
}

#[test]
fn a_crash_between_two_steps_goes_on_where_it_was() {
    let place = Place::new();
    place.write("a", "a");
    place.write("d/b", "b");
    let stream = tar_of(&place.world());
    let all = Selection::everything();
    // Each step in a stage of its own, as after a restart.
    place.stage(1).unpack(&stream[..], &all, &Shift::none()).unwrap();
    assert!(place.stage(1).compare(&stream[..], &all, &Shift::none()).unwrap().is_whole());
    let kept = place.stage(1).keep(meta(1)).unwrap();
    assert!(kept.verified);
    assert_eq!(place.vault.get(&place.owner, &id(1)).unwrap(), kept);
    let again = place.vault.stage(&place.owner, Some(id(1)));
    assert!(matches!(again, Err(Error::AlreadyKept { .. })), "{again:?}");
}

#[test]
fn a_keep_that_failed_can_be_tried_again() {
    let place = Place::new();
    place.write("a", "a");
    let mut stage = place.stage(1);
    stage.unpack(&tar_of(&place.world())[..], &Selection::everything(), &Shift::none()).unwrap();
    // The last thing that can fail: the name is taken.
    let home = place.vault.home(&place.owner, &id(1));
    fs::create_dir_all(home.join("in the way")).unwrap();
    let failed = stage.keep(meta(1));
    assert!(matches!(failed, Err(Error::Io { .. })), "{failed:?}");
    fs::remove_dir_all(&home).unwrap();
    place.stage(1).keep(meta(1)).unwrap();
    assert!(place.vault.verify(&place.owner, &id(1)).unwrap().is_whole());
    assert!(!home.join("draft.json").exists());
}

#[test]
fn leftovers_are_never_listed_and_are_swept_unless_a_job_needs_them() {
    let place = Place::new();
    place.write("a", "a");
    place.take(1);
    let dir = place.dir.path().join("vault/server-1");
    // Half a stream; all files and a manifest, and the power went before the rename; half a deletion.
    drop(place.unpack(2, &tar_of(&place.world())[..600]));
    place.take(3);
    fs::rename(dir.join(id(3).as_str()), dir.join(format!(".partial-{}", id(3)))).unwrap();
    fs::create_dir_all(dir.join(".deleting-20261121T075304Z-test/files/locked")).unwrap();
    fs::set_permissions(dir.join(".deleting-20261121T075304Z-test/files/locked"), fs::Permissions::from_mode(0o000))
        .unwrap();
    assert_eq!(place.ids(), [id(1).to_string()]);

    let held = place.stage(5);
    assert_eq!(place.vault.sweep(|_, _| false).unwrap().len(), 0, "an owner at work is left alone");
    drop(held);
    assert_eq!(place.vault.sweep(|_, wanted| *wanted == id(2)).unwrap().len(), 3);
    assert_eq!(place.vault.sweep(|_, _| false).unwrap().len(), 1);
    let mut left: Vec<_> = fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, [".lock", id(1).as_str()]);
    assert!(place.vault.verify(&place.owner, &id(1)).unwrap().is_whole());
}

#[test]
fn a_stage_can_take_away_what_another_one_left_and_no_backup() {
    let place = Place::new();
    place.write("a", "a");
    place.take(1);
    drop(place.unpack(2, &tar_of(&place.world())));
    let stage = place.stage(3);
    stage.drop_others().unwrap();
    assert!(stage.tree().is_dir());
    drop(stage);
    let left = place.vault.sweep(|_, _| false).unwrap();
    assert_eq!(left.len(), 1, "only its own: {left:?}");
    assert_eq!(place.ids(), [id(1).to_string()]);
}

#[test]
fn only_one_backup_of_an_owner_is_taken_at_a_time() {
    let place = Place::new();
    let first = place.stage(1);
    let second = place.vault.stage(&place.owner, Some(id(2)));
    assert!(matches!(second, Err(Error::Busy { .. })), "{second:?}");
    let other = OwnerId::parse("server-2").unwrap();
    drop(place.vault.stage(&other, None).unwrap());
    drop(first);
    place.stage(2);
}

/// A child holds the lock's file from its fork until its exec, and backups are taken while others run rsync.
#[test]
fn a_lock_is_free_at_once_also_while_other_threads_start_processes() {
    let place = Place::new();
    let children = std::thread::spawn(|| {
        for _ in 0..500 {
            std::process::Command::new("true").status().unwrap();
        }
    });
    while !children.is_finished() {
        drop(place.stage(1));
    }
    children.join().unwrap();
}

#[test]
fn a_broken_backup_is_listed_as_broken_and_harms_no_other() {
    let place = Place::new();
    place.write("a", "aaaa");
    for n in 1..=6 {
        place.take(n);
    }
    let manifest = |n| place.vault.home(&place.owner, &id(n)).join("manifest.json");
    fs::remove_file(manifest(2)).unwrap();
    fs::write(manifest(3), "{\"version\":1").unwrap();
    let other = fs::read_to_string(manifest(4)).unwrap().replacen("\"version\":1", "\"version\":9", 1);
    fs::write(manifest(4), other).unwrap();
    fs::write(manifest(5), fs::read_to_string(manifest(5)).unwrap().replace("\"size\":4", "\"size\":5")).unwrap();

    let text = fs::read(manifest(6)).unwrap();
    fs::write(manifest(6), &text[..text.len() - 10]).unwrap();

    let list = place.vault.list(&place.owner).unwrap();
    let broken: Vec<_> = list.iter().map(|l| matches!(l, Listed::Broken { .. })).collect();
    // A list does not read all of a manifest; verify does.
    assert_eq!(broken, [true, false, true, true, true, false]);
    assert_eq!(place.vault.newest(&place.owner).unwrap().as_ref(), list.first());
    assert!(matches!(place.vault.verify(&place.owner, &id(5)), Err(Error::Broken { .. })));
    assert!(place.vault.verify(&place.owner, &id(1)).unwrap().is_whole());
    let next = place.take(7);
    assert_eq!(next.files, 1);
}

#[test]
fn the_newest_is_told_without_a_look_at_older_ones_and_a_manifest_of_another_form_is_read_too() {
    let place = Place::new();
    place.write("a", "aaaa");
    place.take(1);
    let newest = place.take(2);
    let manifest = |n| place.vault.home(&place.owner, &id(n)).join("manifest.json");
    // Who opens a pipe that nobody writes to waits for ever.
    fs::remove_file(manifest(1)).unwrap();
    let mode = rustix::fs::Mode::RWXU;
    rustix::fs::mknodat(rustix::fs::CWD, manifest(1), rustix::fs::FileType::Fifo, mode, 0).unwrap();
    assert_eq!(place.vault.newest(&place.owner).unwrap(), Some(Listed::Kept(Box::new(newest.clone()))));
    let text = fs::read_to_string(manifest(2)).unwrap();
    fs::write(manifest(2), serde_json::from_str::<serde_json::Value>(&text).unwrap().to_string()).unwrap();
    assert_eq!(place.vault.newest(&place.owner).unwrap(), Some(Listed::Kept(Box::new(newest))));
    let nobody = OwnerId::parse("nobody").unwrap();
    assert_eq!(place.vault.newest(&nobody).unwrap(), None);
}

#[test]
fn a_world_that_came_back_small_is_kept_and_marked() {
    let place = Place::new();
    for n in 0..20 {
        place.write(&format!("{n}.dat"), vec![n; 10_000]);
    }
    place.take(1);
    for n in 0..15 {
        fs::remove_file(place.world().join(format!("{n}.dat"))).unwrap();
    }
    let small = place.take(2);
    let shrunk = small.shrunk.unwrap();
    assert_eq!((shrunk.was.files, shrunk.now.files), (20, 5));
    assert!(small.suspicious() && !small.good());
    place.vault.accept(&place.owner, &id(2)).unwrap();
    assert!(place.vault.get(&place.owner, &id(2)).unwrap().good());
    place.vault.pin(&place.owner, &id(2), true).unwrap();
    assert!(place.vault.get(&place.owner, &id(2)).unwrap().pinned);
    place.vault.pin(&place.owner, &id(2), false).unwrap();
    assert!(!place.vault.get(&place.owner, &id(2)).unwrap().pinned);
}

#[test]
fn several_paths_come_as_several_streams_without_what_is_excluded() {
    let place = Place::new();
    place.write("saves/a.sav", "a");
    place.write("saves/a.tmp", "t");
    place.write("server/config/c.ini", "c");
    let saves = tar_of(&place.world().join("saves"));
    let config = tar_of(&place.world().join("server/config"));
    let selection = Selection::new(&["saves", "server/config"], &["*.tmp"]).unwrap();
    let shifts = [Shift::new("", "saves").unwrap(), Shift::new("", "server/config").unwrap()];
    let mut stage = place.stage(1);
    let mut reading = stage.reading().unwrap();
    reading.read(&saves[..], &selection, &shifts[0]).unwrap();
    reading.read(&config[..], &selection, &shifts[1]).unwrap();
    reading.finish().unwrap();
    let mut comparing = stage.comparing().unwrap();
    comparing.read(&saves[..], &selection, &shifts[0]).unwrap();
    comparing.read(&config[..], &selection, &shifts[1]).unwrap();
    assert!(comparing.finish().unwrap().is_whole());
    assert_eq!(stage.keep(meta(1)).unwrap().files, 2);
    assert!(place.stored(1, "server/config/c.ini").exists() && !place.stored(1, "saves/a.tmp").exists());
}

#[test]
fn a_world_counts_as_read_only_when_the_last_of_its_paths_was() {
    let place = Place::new();
    place.write("a", "a");
    let (stream, all, deep) = (tar_of(&place.world()), Selection::everything(), Shift::new("", "deep").unwrap());
    let cut_off = |at_first: bool| {
        let mut stage = place.stage(1);
        let mut reading = stage.reading().unwrap();
        if !at_first {
            reading.read(&stream[..], &all, &Shift::none()).unwrap();
        }
        let cut = reading.read(&stream[..600], &all, &deep);
        assert!(matches!(cut, Err(Error::CutShort | Error::Stream(_))), "{cut:?}");
    };
    cut_off(false);
    assert!(!place.stage(1).is_filled(), "half of it was read");
    // The same after all of it was read once: that copy is gone.
    place.stage(1).unpack(&stream[..], &all, &Shift::none()).unwrap();
    assert!(place.stage(1).is_filled());
    cut_off(true);
    assert!(!place.stage(1).is_filled());
    assert!(matches!(place.stage(1).keep(meta(1)), Err(Error::Unfinished)));
    // rsync goes on with files that are there, and until they are looked at they are no copy either.
    place.stage(1).unpack(&stream[..], &all, &Shift::none()).unwrap();
    place.stage(1).reopen().unwrap();
    let mut stage = place.stage(1);
    assert!(!stage.is_filled() && stage.tree().join("a").exists());
    assert_eq!(stage.adopt_tree(|| true).unwrap().files, 1);
    let unwanted = stage.adopt_tree(|| false);
    assert!(matches!(unwanted, Err(Error::Unfinished)), "{unwanted:?}");
    drop(stage);
    assert!(!place.stage(1).is_filled());
}

#[test]
fn five_thousand_files_and_a_sparse_giant_stay_small() {
    let place = Place::new();
    for n in 0..5000 {
        place.write(&format!("{}/{n}.dat", n % 50), format!("file {n}"));
    }
    let giant = fs::File::create(place.world().join("giant")).unwrap();
    giant.set_len(512 << 20).unwrap();
    giant.write_all_at(b"end", (512 << 20) - 3).unwrap();
    let tar = || {
        let mut tar = Command::new("tar");
        tar.arg("-cC").arg(place.world()).arg(".").stdout(std::process::Stdio::piped()).spawn().unwrap()
    };
    let mut stage = place.stage(1);
    let (mut first, mut second) = (tar(), tar());
    stage.unpack(first.stdout.take().unwrap(), &Selection::everything(), &Shift::none()).unwrap();
    let found = stage.compare(second.stdout.take().unwrap(), &Selection::everything(), &Shift::none()).unwrap();
    assert!(first.wait().unwrap().success() && second.wait().unwrap().success());
    assert!(found.is_whole() && found.same == 5051, "{found:?}");
    let kept = stage.keep(meta(1)).unwrap();
    assert_eq!(kept.files, 5001);
    let usage = place.vault.usage(&place.owner).unwrap();
    assert!(usage.disk_bytes < 64 << 20, "{usage:?}");
}

#[test]
fn what_rsync_linked_is_checked_before_it_is_adopted() {
    let place = Place::new();
    place.write("good.dat", "good");
    place.write("bad.dat", "bad!");
    place.take(1);
    rot(&place.stored(1, "bad.dat"));
    let mut stage = place.stage(2);
    let previous = stage.previous_tree().unwrap();
    assert_eq!(previous, place.stored(1, ""));
    // What rsync --link-dest does when size and time are the same.
    for name in ["good.dat", "bad.dat"] {
        fs::hard_link(previous.join(name), stage.tree().join(name)).unwrap();
    }
    let adopted = stage.adopt_tree(|| true).unwrap();
    assert_eq!(adopted.rotten.iter().map(ToString::to_string).collect::<Vec<_>>(), ["bad.dat"]);
    assert!(!stage.is_filled());
    fs::write(stage.tree().join("bad.dat"), "bad!").unwrap();
    assert!(stage.adopt_tree(|| true).unwrap().rotten.is_empty());
    let kept = stage.keep(meta(2)).unwrap();
    assert_eq!((kept.shared_bytes, kept.new_bytes, kept.verified), (4, 4, false));
    assert!(place.vault.verify(&place.owner, &id(2)).unwrap().is_whole());
    assert_eq!(fs::metadata(place.stored(2, "bad.dat")).unwrap().mode() & 0o222, 0);
}

#[test]
fn a_full_disk_is_said_so_and_leaves_the_older_backups_whole() {
    let place = Place::new();
    let small = place.dir.path().join("small");
    fs::create_dir(&small).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=3m", "tmpfs"]).arg(&small).output();
    if !mounted.as_ref().is_ok_and(|o| o.status.success()) {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "CI must be able to mount a tmpfs: {mounted:?}");
        println!("skipped: mounting a small disk needs root");
        return;
    }
    struct Mounted(PathBuf);
    impl Drop for Mounted {
        fn drop(&mut self) {
            let done = Command::new("umount").arg(&self.0).status();
            assert!(done.is_ok_and(|s| s.success()) || std::thread::panicking());
        }
    }
    let _mounted = Mounted(small.clone());

    let vault = Vault::open(&small).unwrap();
    let all = Selection::everything();
    place.write("a.dat", vec![1; 1 << 20]);
    let stream = tar_of(&place.world());
    let mut stage = vault.stage(&place.owner, Some(id(1))).unwrap();
    stage.unpack(&stream[..], &all, &Shift::none()).unwrap();
    assert!(stage.compare(&stream[..], &all, &Shift::none()).unwrap().is_whole());
    stage.keep(meta(1)).unwrap();

    place.write("b.dat", vec![2; 4 << 20]);
    let full =
        vault.stage(&place.owner, Some(id(2))).unwrap().unpack(&tar_of(&place.world())[..], &all, &Shift::none());
    assert!(matches!(full, Err(Error::NoSpace { .. })), "{full:?}");
    assert!(matches!(vault.stage(&place.owner, Some(id(2))).unwrap().keep(meta(2)), Err(Error::Unfinished)));
    assert!(vault.verify(&place.owner, &id(1)).unwrap().is_whole());
    assert_eq!(vault.list(&place.owner).unwrap().len(), 1);

    // Room again, and the same step succeeds.
    fs::write(place.world().join("b.dat"), "small").unwrap();
    let mut stage = vault.stage(&place.owner, Some(id(2))).unwrap();
    stage.unpack(&tar_of(&place.world())[..], &all, &Shift::none()).unwrap();
    assert_eq!(stage.keep(meta(2)).unwrap().shared_bytes, 1 << 20);
}

#[test]
fn only_we_may_look_into_the_vault() {
    let place = Place::new();
    place.take(1);
    let mode = fs::metadata(place.dir.path().join("vault")).unwrap().mode();
    assert_eq!(mode & 0o077, 0);
    assert_eq!(place.vault.owners().unwrap(), std::slice::from_ref(&place.owner));
    let none = place.vault.get(&place.owner, &id(9));
    assert!(matches!(none, Err(Error::NoSuchBackup { .. })), "{none:?}");
}
