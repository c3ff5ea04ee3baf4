//! The real binary on a stage's own home, for tests that end it as nothing in a program can: with `kill -9`. And what
//! such tests are told by their environment.

use super::stage::Stage;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::process::{Child, Command, Stdio};

/// `kill -9` at random moments: the seed is printed; `SPAWNPOINT_CHAOS_SEED` repeats a run and `SPAWNPOINT_CHAOS_ROUNDS`
/// sets how many kills there are (50 is the full measure, a few are enough for every day).
#[derive(Clone, Copy)]
pub struct Chaos {
    pub seed: u64,
    pub kills: usize,
}

impl Chaos {
    pub fn asked(usual: usize) -> Chaos {
        let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
        let seed = number("SPAWNPOINT_CHAOS_SEED").unwrap_or_else(rand::random);
        let kills = number("SPAWNPOINT_CHAOS_ROUNDS").map_or(usual, |rounds| rounds as usize);
        println!("SPAWNPOINT_CHAOS_SEED={seed} ({kills} kills)");
        Chaos { seed, kills }
    }

    /// The randomness of one round. It depends on nothing that happened before, so a round can be repeated.
    pub fn random(self, round: usize) -> StdRng {
        let mut random = StdRng::seed_from_u64(self.seed);
        let mut own = random.random::<u64>();
        for _ in 0..round {
            own = random.random();
        }
        StdRng::seed_from_u64(own)
    }
}

/// Without Discord: it carries out jobs and watches.
pub struct Binary(Child);

impl Binary {
    pub fn start(stage: &Stage, more: &[(String, String)]) -> Binary {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(stage.home.join("binary.log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_spawnpoint"))
            .args(["run", "--without-discord"])
            .current_dir(&stage.home)
            .env_remove("SPAWNPOINT_DISCORD__TOKEN")
            .env_remove("SPAWNPOINT_CHAOS_SEED")
            .env_remove("SPAWNPOINT_CHAOS_ROUNDS")
            .env_remove("SPAWNPOINT_CHAOS_PROVIDER")
            .env("SPAWNPOINT_DATA_DIR", &stage.config.data_dir)
            .env("SPAWNPOINT_GAME_SCRIPTS", &stage.config.game_scripts)
            .env("SPAWNPOINT_DOCKER__PUBLISH_ADDRESS", stage.config.docker.publish_address.to_string())
            .env("SPAWNPOINT_WATCH__EVERY_SECONDS", "1")
            .envs(more.iter().cloned())
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the binary starts");
        Binary(child)
    }

    pub fn kill(mut self) {
        self.0.kill().expect("the binary can be killed");
        self.0.wait().expect("the binary has ended");
    }
}

impl Drop for Binary {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
