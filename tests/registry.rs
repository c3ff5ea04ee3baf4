//! A base image that this machine does not have, pulled with progress from a real registry on loopback.

#[path = "common/stage.rs"]
mod stage;

use stage::{Stage, docker_or_skip, test_image};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

struct Registry(Child);

impl Registry {
    /// Debian's docker-registry with its files in `home`; Docker trusts a registry on loopback without TLS.
    fn start(home: &Path, address: &str) -> Option<Registry> {
        let config = home.join("registry.yml");
        let files = home.join("registry");
        let text = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n",
            files.display()
        );
        std::fs::write(&config, text).unwrap();
        let started = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let child = match started {
            Ok(child) => child,
            Err(error) if std::env::var("CI").is_ok_and(|ci| ci == "true") => panic!("no docker-registry: {error}"),
            Err(error) => {
                println!("skipped: no docker-registry ({error})");
                return None;
            }
        };
        let registry = Registry(child);
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < deadline, "the registry does not listen");
            std::thread::yield_now();
        }
        Some(registry)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn docker(args: &[&str]) {
    let out = Command::new("docker").args(args).output().expect("the docker client can be run");
    assert!(out.status.success(), "docker {args:?}: {}", String::from_utf8_lossy(&out.stderr));
}

/// The toy on a base image that only a registry at this address has.
struct Remote {
    home: tempfile::TempDir,
    base: String,
    _registry: Registry,
}

async fn remote(address: &str) -> Option<Remote> {
    if !docker_or_skip().await {
        return None;
    }
    test_image("busybox");
    let home = tempfile::tempdir().unwrap();
    let registry = Registry::start(home.path(), address)?;
    let base = format!("{address}/base:1");
    docker(&["tag", "spawnpoint-test/busybox:1", &base]);
    docker(&["push", "-q", &base]);
    docker(&["rmi", &base]);

    let recipes = home.path().join("recipes");
    let toy = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recipes/toy");
    std::fs::create_dir(&recipes).unwrap();
    assert!(Command::new("cp").arg("-a").arg(toy).arg(&recipes).status().unwrap().success());
    let file = recipes.join("toy/recipe.toml");
    let text = std::fs::read_to_string(&file).unwrap().replace("spawnpoint-test/busybox:1", &base);
    std::fs::write(&file, text).unwrap();
    // The daemon may still have the image of an earlier run, and would pull nothing: this recipe is no other's.
    let script = recipes.join("toy/bootstrap");
    let text = std::fs::read_to_string(&script).unwrap();
    std::fs::write(&script, format!("{text}\n# {}\n", uuid::Uuid::new_v4())).unwrap();
    Some(Remote { home, base, _registry: registry })
}

#[tokio::test]
async fn a_base_image_is_pulled_where_a_registry_answers() {
    let Some(Remote { home, base, _registry }) = remote("127.0.0.1:5057").await else { return };
    let stage = Stage::open(home.path().join("recipes").to_str().unwrap(), |_| {}).await;
    let job = stage.program.app.snapshot_build(&stage.caller, "toy", None).await.unwrap();
    stage.succeeds(job).await;
    let output = stage.program.store.job_output(job, None, 400).await.unwrap().join("\n");
    assert!(output.contains(&format!("Pulling {base}")), "{output}");
    let built = stage.docker.images(&[("spawnpoint.instance".to_owned(), stage.instance.clone())]).await.unwrap();
    stage.close().await;
    for image in built {
        docker(&["rmi", &image]);
    }
    docker(&["rmi", &base]);
}

#[tokio::test]
async fn the_demo_names_the_base_image_that_it_pulled_and_that_stays() {
    let Some(Remote { home, base, _registry }) = remote("127.0.0.1:5058").await else { return };
    let demo = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_spawnpoint"));
        command.args(["demo", "--game", "toy"]).env("SPAWNPOINT_GAME_SCRIPTS", home.path().join("recipes"));
        let done = command.stdin(Stdio::null()).current_dir(home.path()).output().unwrap();
        assert!(done.status.success(), "{done:?}");
        String::from_utf8(done.stdout).unwrap()
    };
    let (first, second) = (demo(), demo());
    docker(&["rmi", &base]);
    assert!(first.contains(&format!("`docker image rm {base}` removes it.")), "{first}");
    assert!(!second.contains("docker image rm"), "it was there before: {second}");
}
