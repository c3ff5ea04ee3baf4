//! What must be there after a round of `kills`: the server as it was asked for and nothing beside it, its world byte for
//! byte where it is played, and one backup for every state that something was done to.
#![allow(dead_code, reason = "each test binary uses its own part")]

use super::beds::nothing_left;
use super::kills::{Ask, Asked, Scene};
use rand::RngExt;
use rand::rngs::StdRng;
use spawnpoint::model::job::Outcome;
use spawnpoint::model::server::{Backend, State};
use spawnpoint::vault::{Backup, BackupId, Listed, OwnerId, Vault};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

/// Every file of the toy's world with its hash, seen from the game's folder.
const LIST: &str =
    r#"cd "$1" && find world settings/keep.txt -type f ! -name '*.tmp' -exec sha256sum {} + 2>/dev/null | sort -k 2"#;
/// Where a container has the game's folder.
const GAME_DIR: &str = "/srv/game";
const TURNS: &str = "world/turns";

/// What the game is known to have saved.
#[derive(Clone, Debug, Default)]
pub struct World {
    pub turns: usize,
    pub files: BTreeMap<String, String>,
}

/// A server that was deleted, of which the vault keeps these.
#[derive(Clone, Debug)]
pub struct Grave {
    owner: OwnerId,
    backups: BTreeMap<BackupId, World>,
}

/// The server as it must be, and what its vault must hold.
#[derive(Clone, Debug)]
pub struct Known {
    pub backend: Backend,
    pub running: bool,
    pub world: World,
    pub backups: BTreeMap<BackupId, World>,
    pub graves: Vec<Grave>,
}

impl World {
    /// A game that ends before its first turn has written that there was none.
    fn is(&self, found: &BTreeMap<String, String>) -> bool {
        match self.turns {
            0 => found.keys().all(|path| path == TURNS),
            _ => *found == self.files,
        }
    }
}

impl Known {
    pub fn new(backend: Backend) -> Known {
        let (world, backups) = (World::default(), BTreeMap::new());
        Known { backend, running: false, world, backups, graves: vec![] }
    }

    /// What a job leaves; false where it may not end like this.
    pub fn ended(&mut self, asked: &Asked, outcome: Option<Outcome>) -> bool {
        match (asked.ask, outcome) {
            (Ask::Start | Ask::CancelledStart | Ask::Restart | Ask::UpdateAtStart, Some(Outcome::Succeeded)) => {
                self.running = true;
            }
            (Ask::CancelledStart, Some(Outcome::Cancelled)) => self.running = false,
            (Ask::Stop | Ask::Delete, Some(Outcome::Succeeded)) => self.running = false,
            (Ask::Backup | Ask::Update, Some(Outcome::Succeeded)) => {}
            (Ask::Restore, Some(Outcome::Succeeded)) => {
                let chosen = asked.chosen.as_deref().expect("a restore is of a backup");
                self.world = self.backups[&BackupId::parse(chosen).unwrap()].clone();
            }
            (Ask::Move, Some(Outcome::Succeeded)) => (self.running, self.backend) = (false, other(self.backend)),
            (_, _) => return false,
        }
        true
    }
}

/// Where a move goes.
pub fn other(backend: Backend) -> Backend {
    match backend {
        Backend::Docker => Backend::Cloud,
        Backend::Cloud => Backend::Docker,
    }
}

impl Scene {
    /// People play: turns that the game saves at once, and now and then a large part of the world is another.
    pub async fn play(&self, world: &mut World, random: &mut StdRng) {
        // Before its first turn the game has written nothing, and when it stops it does.
        let least = usize::from(world.turns == 0);
        for _ in 0..random.random_range(least..4) {
            let answer = self.stage.program.app.console(&self.stage.caller, "world", "turn").await.unwrap();
            world.turns += 1;
            assert!(answer.contains(&format!("turn {}", world.turns)), "{answer}");
        }
        if random.random_bool(0.6) {
            let (name, old) = (random.random_range(0..4), random.random_range(0..4));
            let bytes = random.random_range(1..=self.region_max_mb) << 20;
            let build = format!(
                "cd \"$1\" && owner=$(stat -c %u:%g world) && rm -f world/region-{old}.bin && \
                 head -c {bytes} /dev/urandom >world/region-{name}.bin && \
                 head -c 64 /dev/urandom >settings/keep.txt && chown \"$owner\" world/region-{name}.bin settings/keep.txt"
            );
            self.in_game(&build).await;
        }
        world.files = listed(&self.in_game(LIST).await);
        assert!(!world.files.is_empty(), "turns were played, and nothing was saved");
    }

    /// Runs a script where the server's game runs, around the driver; `$1` is the game's folder.
    async fn in_game(&self, script: &str) -> String {
        let server = self.server().await;
        let (container, folder) = match (&self.clouds, server.owned.host) {
            (Some(clouds), Some(host)) => {
                let container = clouds.host(&host.id).container.expect("the host is a machine");
                (container, format!("/srv/spawnpoint/{}/game", server.id))
            }
            (_, _) => (self.containers().await.remove(0), GAME_DIR.to_owned()),
        };
        run(Command::new("docker").args(["exec", &container, "sh", "-c", script, "sh", &folder]))
    }

    fn label(&self) -> [(String, String); 1] {
        [("spawnpoint.instance".to_owned(), self.stage.instance.clone())]
    }

    async fn containers(&self) -> Vec<String> {
        self.stage.docker.list(&self.label()).await.unwrap().into_iter().map(|one| one.name).collect()
    }

    fn vault(&self) -> Vault {
        Vault::open(&self.stage.config.data_dir.join("vault")).unwrap()
    }

    async fn owner(&self) -> OwnerId {
        OwnerId::parse(&self.server().await.id.0).unwrap()
    }

    /// The server's backups, oldest first. None of them is broken.
    pub async fn kept(&self) -> Vec<Backup> {
        self.kept_of(&self.owner().await)
    }

    fn kept_of(&self, owner: &OwnerId) -> Vec<Backup> {
        let whole = |one: Listed| match one {
            Listed::Kept(backup) => *backup,
            Listed::Broken { id, why } => panic!("the backup {id} is broken: {why}"),
        };
        let mut kept: Vec<_> = self.vault().list(owner).unwrap().into_iter().map(whole).collect();
        kept.sort_by(|a, b| a.id.cmp(&b.id));
        kept
    }

    fn files_of(&self, owner: &OwnerId, id: &BackupId) -> BTreeMap<String, String> {
        let files = self.vault().home(owner, id).join("files");
        listed(&run(Command::new("sh").args(["-c", LIST, "sh"]).arg(&files)))
    }

    /// The state is what was asked for, the world is there, and there is nothing that the server does not have.
    pub async fn check(&self, about: &str, asked: &Asked, before: &Known, known: &Known) {
        self.check_places(about, known).await;
        let (app, caller) = (&self.stage.program.app, &self.stage.caller);
        let view = app.status(caller, "world").await.unwrap();
        if known.running {
            let found = listed(&self.in_game(LIST).await);
            assert!(known.world.is(&found), "{about}: the world that is played: {found:#?}, not {:#?}", known.world);
        }
        let started = match asked.ask {
            Ask::Start | Ask::CancelledStart | Ask::Restart | Ask::UpdateAtStart => known.running,
            Ask::Restore | Ask::Update => before.running,
            Ask::Stop | Ask::Backup | Ask::Delete | Ask::Move => false,
        };
        if started {
            let (log, turns) = (app.logs(caller, "world", 50).await.unwrap(), known.world.turns);
            let last = log.lines().rfind(|line| line.contains("ready to join")).unwrap_or_default();
            assert!(last.ends_with(&format!(" with {turns} turns")), "{about}, {turns} turns: {log}");
        }
        if matches!(asked.ask, Ask::Update | Ask::UpdateAtStart) {
            assert_eq!((view.newer_snapshot, view.update_at_start), (None, false), "{about}");
        }
    }

    /// What exists is what the server has.
    pub async fn check_places(&self, about: &str, known: &Known) {
        let (app, caller) = (&self.stage.program.app, &self.stage.caller);
        let view = app.status(caller, "world").await.unwrap();
        let state = if known.running { State::Running } else { State::Offline };
        assert_eq!((view.state, view.backend), (state, known.backend), "{about}");
        assert!(self.stage.program.store.open_jobs_all().await.unwrap().is_empty(), "{about}: a job is open");
        let owned = self.server().await.owned;
        let contained = known.running && known.backend == Backend::Docker;
        let containers = self.containers().await;
        assert_eq!(containers.len(), usize::from(contained), "{about}: {containers:?}");
        let drives = usize::from(owned.drive.is_some());
        assert_eq!((self.volumes().await, self.drives().len()), (drives, drives), "{about}: {:?}", self.drives());
        let Some(clouds) = &self.clouds else { return };
        let living: Vec<String> = clouds.living().into_iter().map(|host| host.id).collect();
        let claimed: Vec<String> = owned.host.iter().map(|host| host.id.clone()).collect();
        assert_eq!(living, claimed, "{about}: living and claimed");
        if !known.running || known.backend == Backend::Docker {
            nothing_left(clouds);
            let keys = names(&self.stage.config.data_dir.join("ssh/hosts"));
            assert!(keys.is_empty(), "{about}: keys of hosts that are gone: {keys:?}");
        }
    }

    async fn volumes(&self) -> usize {
        self.stage.docker.list_volumes(&self.label()).await.unwrap().len()
    }

    fn drives(&self) -> Vec<String> {
        names(&self.stage.config.data_dir.join("drives"))
    }

    /// The vault has got the state before, and nothing else; what it had before it has still.
    pub async fn check_vault(&self, about: &str, asked: &Asked, before: &Known, known: &mut Known) {
        // What was deleted has kept its id for itself.
        let owner = self.owner_of(asked).await;
        let kept = self.kept_of(&owner);
        for backup in &kept {
            let id = &backup.id;
            assert!(backup.verified, "{about}: {backup:#?}");
            if !known.backups.contains_key(id) {
                let found = self.files_of(&owner, id);
                assert!(before.world.is(&found), "{about}: the backup {id}: {found:#?}, not {:#?}", before.world);
                known.backups.insert(id.clone(), before.world.clone());
            }
        }
        let listed: BTreeSet<_> = kept.iter().map(|backup| &backup.id).collect();
        let last = self.stage.config.backups.keep_last;
        for id in known.backups.keys().rev().take(last) {
            assert!(listed.contains(id), "{about}: the backup {id} is gone: {listed:?}");
        }
        let saves = match asked.ask {
            Ask::Start | Ask::CancelledStart => false,
            Ask::Stop | Ask::Restart | Ask::Backup | Ask::Restore => true,
            Ask::Update | Ask::UpdateAtStart | Ask::Delete | Ask::Move => true,
        };
        if saves && before.world.turns > 0 {
            let is_it = |id: &BackupId| known.backups[id].files == before.world.files;
            let own = |id: &BackupId| !before.running || id.as_str().ends_with(&format!("-j{}", asked.job));
            assert!(listed.iter().any(|id| is_it(id) && own(id)), "{about}: the state before is not kept: {listed:?}");
        }
        if asked.ask == Ask::Delete {
            let backups = kept.iter().map(|backup| (backup.id.clone(), known.backups[&backup.id].clone())).collect();
            known.graves.push(Grave { owner, backups });
            return;
        }
        let views = self.stage.program.app.backups(&self.stage.caller, "world").await.unwrap();
        // A restore of an old backup may well make the world much smaller; nothing else is in doubt.
        let doubts: Vec<_> = views.iter().filter_map(|one| one.doubt.as_ref()).collect();
        assert!(doubts.iter().all(|doubt| doubt.contains("smaller")), "{about}: {doubts:?}");
        let present = views.iter().find(|one| one.present).map(|one| BackupId::parse(&one.id).unwrap());
        if known.world.turns > 0 {
            let present = present.unwrap_or_else(|| panic!("{about}: no backup is the present world: {views:#?}"));
            assert_eq!(known.backups[&present].files, known.world.files, "{about}: the present world is {present}");
        }
    }

    async fn owner_of(&self, asked: &Asked) -> OwnerId {
        let (job, _, _) = self.stage.program.store.job(asked.job).await.unwrap().expect("the job is on record");
        OwnerId::parse(&job.subject.server().expect("it is about a server").0).unwrap()
    }

    /// Nothing of a deleted server is left but its backups.
    pub async fn check_deleted(&self, about: &str, asked: &Asked) {
        let owner = self.owner_of(asked).await;
        assert!(self.stage.program.app.status(&self.stage.caller, "world").await.is_err(), "{about}: it is there");
        assert_eq!((self.containers().await, self.volumes().await), (vec![], 0), "{about}");
        self.clouds.iter().for_each(nothing_left);
        let data = &self.stage.config.data_dir;
        let vault = data.join("vault");
        let walk = walkdir::WalkDir::new(data).into_iter().filter_entry(|entry| entry.path() != vault);
        let paths = walk.map(|entry| entry.unwrap().into_path());
        let left: Vec<_> = paths.filter(|path| path.to_string_lossy().contains(owner.as_str())).collect();
        assert!(left.is_empty() && self.drives().is_empty(), "{about}: {left:?} {:?}", self.drives());
    }

    /// Every backup that was ever taken and should be there, byte for byte, also of the deleted.
    pub async fn check_all_backups(&self, known: &Known) {
        let owner = self.owner().await;
        for backup in self.kept_of(&owner) {
            let found = self.files_of(&owner, &backup.id);
            let world = known.backups.get(&backup.id).unwrap_or(&known.world);
            assert!(world.is(&found), "the backup {} is another: {found:#?}", backup.id);
        }
        for Grave { owner, backups } in &known.graves {
            assert_eq!(self.kept_of(owner).len(), backups.len(), "of the deleted {}", owner.as_str());
            for (id, world) in backups {
                let found = self.files_of(owner, id);
                assert!(world.is(&found), "the backup {id} of the deleted {}: {found:#?}", owner.as_str());
            }
        }
    }
}

fn names(folder: &Path) -> Vec<String> {
    let found = std::fs::read_dir(folder).into_iter().flatten();
    found.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

fn run(command: &mut Command) -> String {
    let ran = command.output().expect("it can be run");
    assert!(ran.status.success(), "{command:?}: {}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).expect("names of ASCII")
}

fn listed(text: &str) -> BTreeMap<String, String> {
    let pair = |line: &str| line.split_once("  ").map(|(hash, path)| (path.to_owned(), hash.to_owned()));
    text.lines().filter_map(pair).collect()
}
