//! The Docker client against a real daemon, with real overlay mounts. Every test labels what it makes with a
//! name of its own and removes it at its end, also when it fails.

use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use futures::StreamExt;
use spawnpoint::clients::docker::{
    BuildSpec, ContainerSpec, Docker, DockerError, ExecSpec, Line, Mount, Network, Output, OverlayVolume, Protocol,
    Publish,
};
use tokio::io::{AsyncReadExt, copy_bidirectional};
use tokio::net::{UnixListener, UnixStream};

const LABEL: &str = "spawnpoint-test";
const IMAGE: &str = "spawnpoint-test/busybox:1";
const DEADLINE: Duration = Duration::from_secs(30);

/// One test's corner of the daemon.
struct Corner {
    name: String,
    docker: Docker,
    dir: tempfile::TempDir,
}

impl Corner {
    /// `None`, with a word about it, where there is no Docker; an error where there has to be (CI).
    async fn open(name: &str) -> Option<Corner> {
        let docker = Docker::connect(None).unwrap();
        if let Err(error) = docker.ping().await {
            assert!(std::env::var("CI").is_err(), "no Docker: {error}");
            println!("skipped: no Docker: {error}");
            return None;
        }
        let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/lib/test-images");
        let made = Command::new(images).arg("busybox").status().unwrap();
        assert!(made.success(), "the test image cannot be made");
        let corner = Corner { name: format!("sp-test-{name}"), docker, dir: tempfile::tempdir().unwrap() };
        corner.sweep();
        Some(corner)
    }

    fn labels(&self) -> Vec<(String, String)> {
        vec![(LABEL.into(), self.name.clone())]
    }

    /// A container that runs this shell line.
    fn sh(&self, script: &str) -> ContainerSpec {
        ContainerSpec {
            name: self.name.clone(),
            image: IMAGE.into(),
            cmd: vec!["/bin/sh".into(), "-c".into(), script.into()],
            labels: self.labels(),
            network: Network::None,
            ..ContainerSpec::default()
        }
    }

    async fn run(&self, script: &str) -> String {
        let id = self.docker.create(&self.sh(script)).await.unwrap();
        self.docker.start(&id).await.unwrap();
        id
    }

    fn overlay(&self, lower: &Path) -> OverlayVolume {
        let path = |name: &str| {
            let path = self.dir.path().join(name);
            std::fs::create_dir_all(&path).unwrap();
            path.to_str().unwrap().to_string()
        };
        OverlayVolume {
            name: self.name.clone(),
            lower: lower.to_str().unwrap().into(),
            upper: path("upper"),
            work: path("work"),
            labels: self.labels(),
        }
    }

    /// By the command line, so that it works in a panic and does not trust what is tested.
    fn sweep(&self) {
        let filter = format!("label={LABEL}={}", self.name);
        for (list, remove) in [
            (vec!["ps", "-aq"], vec!["rm", "-fv"]),
            (vec!["volume", "ls", "-q"], vec!["volume", "rm", "-f"]),
            (vec!["image", "ls", "-q"], vec!["image", "rm", "-f"]),
        ] {
            let found = Command::new("docker").args(list).args(["--filter", &filter]).output().unwrap();
            let found = String::from_utf8(found.stdout).unwrap();
            if !found.trim().is_empty() {
                let _ = Command::new("docker").args(remove).args(found.split_whitespace()).output();
            }
        }
    }
}

impl Drop for Corner {
    fn drop(&mut self) {
        self.sweep();
    }
}

/// Asks until the answer is there.
async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(start.elapsed() < DEADLINE, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn texts(lines: &[Line]) -> Vec<&str> {
    lines.iter().map(|line| line.text.as_str()).collect()
}

#[tokio::test]
async fn a_daemon_says_what_it_is() {
    let Some(corner) = Corner::open("about").await else { return };
    let about = corner.docker.about().await.unwrap();
    assert!(!about.version.is_empty() && !about.storage_driver.is_empty(), "{about:?}");
    assert!(about.root_dir.starts_with('/') && about.cpus > 0 && about.memory_bytes > 0, "{about:?}");
}

#[tokio::test]
async fn a_daemon_that_is_not_there_is_unreachable_and_never_gone() {
    let dir = tempfile::tempdir().unwrap();
    let nothing = dir.path().join("none.sock");
    let dead = dir.path().join("dead.sock");
    drop(std::os::unix::net::UnixListener::bind(&dead).unwrap());
    for endpoint in [nothing.to_str().unwrap(), dead.to_str().unwrap(), "tcp://127.0.97.1:1"] {
        let docker = Docker::connect(Some(endpoint)).unwrap();
        for error in [
            docker.ping().await.unwrap_err(),
            docker.inspect("a").await.unwrap_err(),
            docker.volume("a").await.unwrap_err(),
            docker.remove("a", true).await.unwrap_err(),
        ] {
            assert!(matches!(error, DockerError::DaemonUnreachable(_)), "{endpoint}: {error:?}");
            assert!(error.is_passing());
        }
    }
    assert!(matches!(Docker::connect(Some("ftp://a")), Err(DockerError::Input(_))));
}

#[tokio::test]
async fn what_is_gone_is_none_and_removing_it_is_fine() {
    let Some(corner) = Corner::open("gone").await else { return };
    let docker = &corner.docker;
    let nobody = "sp-test-nobody";
    assert_eq!(docker.inspect(nobody).await.unwrap(), None);
    assert_eq!(docker.volume(nobody).await.unwrap(), None);
    assert_eq!(docker.image("spawnpoint-test/nothing:1").await.unwrap(), None);
    docker.remove(nobody, true).await.unwrap();
    docker.remove_volume(nobody).await.unwrap();
    docker.remove_image("spawnpoint-test/nothing:1").await.unwrap();
    for error in [
        docker.start(nobody).await.unwrap_err(),
        docker.wait(nobody).await.unwrap_err(),
        docker.stat_path(nobody, "/").await.unwrap_err(),
        docker.write_stdin(nobody, b"x").await.unwrap_err(),
        docker.logs(nobody, None, true).next().await.unwrap().unwrap_err(),
        docker
            .create(&ContainerSpec { image: "spawnpoint-test/nothing:1".into(), ..corner.sh("true") })
            .await
            .unwrap_err(),
    ] {
        assert!(matches!(error, DockerError::Gone(_)), "{error:?}");
    }
}

#[tokio::test]
async fn an_overlay_volume_is_mounted_by_the_daemon_and_keeps_the_snapshot_whole() {
    let Some(corner) = Corner::open("overlay").await else { return };
    let docker = &corner.docker;
    let lower = corner.dir.path().join("lower");
    std::fs::create_dir_all(&lower).unwrap();
    std::fs::write(lower.join("kept"), "old").unwrap();
    std::fs::write(lower.join("deleted"), "old").unwrap();
    let volume = corner.overlay(&lower);
    docker.create_overlay_volume(&volume).await.unwrap();
    let again = docker.create_overlay_volume(&volume).await.unwrap();
    assert_eq!(docker.list_volumes(&corner.labels()).await.unwrap(), vec![again]);
    let elsewhere = OverlayVolume { lower: "/".into(), ..volume.clone() };
    let taken = docker.create_overlay_volume(&elsewhere).await.unwrap_err();
    assert!(matches!(taken, DockerError::AlreadyExists(_)), "{taken:?}");

    let mut spec =
        corner.sh("cat /drive/kept && echo new > /drive/kept && echo more > /drive/made && rm /drive/deleted");
    spec.mounts = vec![Mount::Volume { name: volume.name.clone(), target: "/drive".into() }];
    let id = docker.create(&spec).await.unwrap();
    docker.start(&id).await.unwrap();
    let end = docker.wait(&id).await.unwrap();
    let said = docker.recent_logs(&id, 10).await.unwrap();
    assert_eq!((end.exit_code, texts(&said)), (Some(0), vec!["old"]));
    assert_eq!(std::fs::read_to_string(lower.join("kept")).unwrap(), "old");
    assert!(lower.join("deleted").exists() && !lower.join("made").exists());
    assert_eq!(std::fs::read_to_string(Path::new(&volume.upper).join("kept")).unwrap(), "new\n");

    // The merged view is readable through the container though it does not run.
    assert_eq!(docker.stat_path(&id, "/drive/deleted").await.unwrap(), None);
    assert_eq!(docker.stat_path(&id, "/drive/made").await.unwrap().unwrap().size_bytes, 5);
    assert!(docker.stat_path(&id, "/drive").await.unwrap().unwrap().is_dir);

    let used = docker.remove_volume(&volume.name).await.unwrap_err();
    assert!(matches!(used, DockerError::Conflict(_)), "{used:?}");
    docker.remove(&id, false).await.unwrap();
    docker.remove_volume(&volume.name).await.unwrap();
    assert_eq!(docker.volume(&volume.name).await.unwrap(), None);
}

#[tokio::test]
async fn a_container_is_limited_and_tells_its_state() {
    let Some(corner) = Corner::open("state").await else { return };
    let docker = &corner.docker;
    let mut spec = corner.sh("cat /proc/self/status; id -u; trap 'exit 7' TERM; while :; do sleep 0.1; done");
    spec.user = Some("1234:1234".into());
    spec.memory_bytes = Some(64 << 20);
    spec.pids = Some(50);
    spec.nano_cpus = Some(500_000_000);
    spec.network = Network::Bridge;
    spec.ports = vec![Publish {
        container_port: 7777,
        protocol: Protocol::Udp,
        host_ip: "127.0.97.2".into(),
        host_port: 17_777,
    }];
    let id = docker.create(&spec).await.unwrap();
    let made = docker.inspect(&corner.name).await.unwrap().unwrap();
    assert_eq!((made.status.as_str(), made.running, made.exit_code), ("created", false, None));
    assert_eq!((made.started_at, made.finished_at), (None, None));
    let taken = docker.create(&spec).await.unwrap_err();
    assert!(matches!(taken, DockerError::AlreadyExists(_)), "{taken:?}");

    docker.start(&id).await.unwrap();
    docker.start(&id).await.unwrap();
    let said = eventually("the user id", || async {
        let said = docker.recent_logs(&id, 100).await.unwrap();
        texts(&said).contains(&"1234").then_some(said)
    })
    .await;
    for fact in ["CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "CapEff:\t0000000000000000"] {
        assert!(texts(&said).contains(&fact), "{fact} is not in {said:?}");
    }
    let running = docker.inspect(&id).await.unwrap().unwrap();
    assert!(running.running && running.ip.is_some() && running.started_at.is_some(), "{running:?}");
    assert_eq!((running.exit_code, running.finished_at), (None, None));
    assert_eq!((running.ports.clone(), running.labels.get(LABEL)), (spec.ports.clone(), Some(&corner.name)));
    let usage = docker.usage(&id).await.unwrap();
    assert!(usage.memory_bytes > 0 && usage.memory_bytes < 64 << 20 && usage.pids >= 1, "{usage:?}");
    let listed = docker.list(&corner.labels()).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!((&listed[0].id, listed[0].running), (&id, true));

    let other = ContainerSpec { name: format!("{}-2", corner.name), ..spec.clone() };
    let other = docker.create(&other).await.unwrap();
    let port = docker.start(&other).await.unwrap_err();
    assert!(matches!(port, DockerError::PortTaken(_)), "{port:?}");

    docker.stop(&id, Duration::from_secs(20)).await.unwrap();
    docker.stop(&id, Duration::from_secs(20)).await.unwrap();
    let end = docker.inspect(&id).await.unwrap().unwrap();
    assert_eq!((end.status.as_str(), end.running, end.exit_code), ("exited", false, Some(7)));
    assert!(end.finished_at >= end.started_at);
    docker.kill(&id).await.unwrap();
    assert!(matches!(docker.signal(&id, "SIGHUP").await, Err(DockerError::Conflict(_))));
    docker.remove(&id, false).await.unwrap();
    assert_eq!(docker.inspect(&id).await.unwrap(), None);
}

/// The daemon goes on with what it has begun, and the name is not there yet when the caller looks for it.
#[tokio::test]
async fn a_container_whose_making_is_called_off_does_not_come_later() {
    let Some(corner) = Corner::open("called-off").await else { return };
    for moment in 0..60 {
        let spec = ContainerSpec { name: format!("{}-{moment}", corner.name), ..corner.sh("true") };
        let making = corner.docker.create(&spec);
        let called_off = tokio::time::timeout(Duration::from_millis(moment), making).await;
        corner.docker.remove(&spec.name, true).await.unwrap();
        if called_off.is_ok() {
            break;
        }
    }
    eventually("the end of what had begun", || async {
        corner.docker.list(&corner.labels()).await.unwrap().is_empty().then_some(())
    })
    .await;
    // Nothing comes once all is quiet.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(corner.docker.list(&corner.labels()).await.unwrap(), []);
}

#[tokio::test]
async fn a_port_without_an_address_and_an_impossible_variable_are_refused() {
    let docker = Docker::connect(None).unwrap();
    let port = Publish { container_port: 1, protocol: Protocol::Tcp, host_ip: String::new(), host_port: 1 };
    let open = ContainerSpec { ports: vec![port], ..ContainerSpec::default() };
    let odd = ContainerSpec { env: vec![("A=B".into(), "c".into())], ..ContainerSpec::default() };
    for spec in [open, odd] {
        assert!(matches!(docker.create(&spec).await, Err(DockerError::Input(_))), "{spec:?}");
    }
}

#[tokio::test]
async fn a_game_that_takes_too_much_memory_is_told_apart_from_one_that_fails() {
    let Some(corner) = Corner::open("oom").await else { return };
    let mut spec = corner.sh("tail /dev/zero");
    spec.memory_bytes = Some(16 << 20);
    let id = corner.docker.create(&spec).await.unwrap();
    corner.docker.start(&id).await.unwrap();
    let end = corner.docker.wait(&id).await.unwrap();
    assert!(end.oom_killed && end.exit_code == Some(137), "{end:?}");
}

#[tokio::test]
async fn a_log_is_followed_to_the_end_of_the_container() {
    let Some(corner) = Corner::open("logs").await else { return };
    let long = "printf '%020000d\\n' 5";
    let id = corner
        .run(&format!("echo one; echo two >&2; {long}; read go < /dev/null; trap 'echo bye; printf end; exit' TERM; echo up; while :; do sleep 0.1; done"))
        .await;
    let mut lines = corner.docker.logs(&id, None, true);
    let mut heard = Vec::new();
    while let Some(line) = lines.next().await {
        let line = line.unwrap();
        if line.text == "up" {
            corner.docker.stop(&id, Duration::from_secs(20)).await.unwrap();
        }
        heard.push(line);
    }
    let of = |output: Output| {
        heard.iter().filter(|line| line.output == output).map(|line| line.text.clone()).collect::<Vec<_>>()
    };
    assert_eq!(of(Output::Stdout), ["one".into(), format!("{:020000}", 5), "up".into(), "bye".into(), "end".into()]);
    assert_eq!(of(Output::Stderr), ["two"]);
    assert_eq!(texts(&corner.docker.recent_logs(&id, 2).await.unwrap()), ["bye", "end"]);
    let bye = heard.iter().find(|line| line.text == "bye").unwrap().at;
    let late: Vec<_> = corner.docker.logs(&id, Some(bye), false).map(|line| line.unwrap()).collect().await;
    assert_eq!(texts(&late), ["bye", "end"]);
}

/// Stands between the client and the daemon; dropping it cuts every connection, as a daemon's restart does.
struct Relay(tokio::task::JoinHandle<()>);

impl Relay {
    fn open(path: &Path) -> Relay {
        let _ = std::fs::remove_file(path);
        let listener = UnixListener::bind(path).unwrap();
        Relay(tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (mut near, _) = listener.accept().await.unwrap();
                connections.spawn(async move {
                    let mut far = UnixStream::connect("/var/run/docker.sock").await.unwrap();
                    let _ = copy_bidirectional(&mut near, &mut far).await;
                });
            }
        }))
    }

    async fn cut(self) {
        self.0.abort();
        let _ = self.0.await;
    }
}

#[tokio::test]
async fn a_followed_log_loses_and_repeats_no_line_when_the_daemon_goes_away() {
    let Some(corner) = Corner::open("relog").await else { return };
    let socket = corner.dir.path().join("relay.sock");
    let mut relay = Relay::open(&socket);
    let through = Docker::connect(socket.to_str()).unwrap();
    let id =
        corner.run("i=0; while [ $i -lt 600 ]; do i=$((i+1)); echo $i; [ $((i%3)) = 0 ] && usleep 10000; done").await;
    let mut lines = through.logs(&id, None, true);
    let waiting = tokio::spawn({
        let (through, id) = (through.clone(), id.clone());
        async move { through.wait(&id).await }
    });
    let mut heard = Vec::new();
    while let Some(line) = lines.next().await {
        heard.push(line.unwrap().text);
        if heard.len() % 150 == 0 && heard.len() < 600 {
            relay.cut().await;
            relay = Relay::open(&socket);
        }
    }
    let wanted: Vec<_> = (1..=600).map(|n| n.to_string()).collect();
    assert_eq!(heard, wanted);
    assert_eq!(waiting.await.unwrap().unwrap().exit_code, Some(0));
    relay.cut().await;
}

#[tokio::test]
async fn a_line_reaches_the_input_of_the_game_and_the_next_one_too() {
    let Some(corner) = Corner::open("stdin").await else { return };
    let mut spec = corner.sh("while read line; do echo got $line; [ \"$line\" = stop ] && exit 3; done");
    spec.stdin_open = true;
    let id = corner.docker.create(&spec).await.unwrap();
    corner.docker.start(&id).await.unwrap();
    for line in ["say hello\n", "save\n", "stop\n"] {
        corner.docker.write_stdin(&id, line.as_bytes()).await.unwrap();
    }
    assert_eq!(corner.docker.wait(&id).await.unwrap().exit_code, Some(3));
    let said = corner.docker.recent_logs(&id, 10).await.unwrap();
    assert_eq!(texts(&said), ["got say hello", "got save", "got stop"]);
    assert!(matches!(corner.docker.write_stdin(&id, b"x\n").await, Err(DockerError::Conflict(_))));
}

#[tokio::test]
async fn a_command_inside_gives_its_output_and_its_code() {
    let Some(corner) = Corner::open("exec").await else { return };
    let id = corner.run("sleep 600").await;
    let mut heard = Vec::new();
    let spec = |script: &str| ExecSpec {
        cmd: vec!["/bin/sh".into(), "-c".into(), script.into()],
        env: vec![("WORD".into(), "a b; $c".into())],
        user: Some("77:77".into()),
        ..ExecSpec::default()
    };
    let mut line = |from: Output, text: &str| heard.push((from, text.to_string()));
    let code =
        corner.docker.exec(&id, &spec("echo $WORD; id -u >&2; printf end; exit 9"), DEADLINE, &mut line).await.unwrap();
    assert_eq!(code, 9);
    // What is left behind holds the output open; the command itself has ended.
    let start = Instant::now();
    assert_eq!(corner.docker.exec(&id, &spec("sleep 300 & exit 4"), DEADLINE, &mut line).await.unwrap(), 4);
    assert!(start.elapsed() < Duration::from_secs(10));
    let limit = Duration::from_secs(1);
    assert_eq!(corner.docker.exec(&id, &spec("sleep 300"), limit, &mut line).await, Err(DockerError::Timeout));
    heard.sort_by_key(|(from, _)| *from == Output::Stderr);
    let out = |text: &str| (Output::Stdout, text.to_string());
    assert_eq!(heard, [out("a b; $c"), out("end"), (Output::Stderr, "77".into())]);
    corner.docker.kill(&id).await.unwrap();
    corner.docker.wait(&id).await.unwrap();
    let stopped = corner.docker.exec(&id, &spec("true"), DEADLINE, &mut |_, _| {}).await.unwrap_err();
    assert!(matches!(stopped, DockerError::Conflict(_)), "{stopped:?}");
}

#[tokio::test]
async fn five_thousand_files_go_up_and_come_down_the_same() {
    const FILES: usize = 5_000;
    let Some(corner) = Corner::open("tar").await else { return };
    let docker = &corner.docker;
    let id = docker.create(&corner.sh("true")).await.unwrap();
    let content = |n: usize| format!("{n}").repeat(n % 300);
    let mut archive = tar::Builder::new(Vec::new());
    for n in 0..FILES {
        let mut header = tar::Header::new_gnu();
        let bytes = content(n);
        header.set_size(bytes.len() as u64);
        header.set_mode(0o640);
        header.set_uid(1234);
        header.set_gid(1234);
        archive.append_data(&mut header, format!("world/r{}/f{n}", n % 50), bytes.as_bytes()).unwrap();
    }
    let sent = archive.into_inner().unwrap();
    docker.upload_tar(&id, "/data", std::io::Cursor::new(sent)).await.unwrap();
    let mut got = Vec::new();
    docker.download_tar(&id, "/data/world").await.unwrap().read_to_end(&mut got).await.unwrap();
    let mut files = 0;
    for entry in tar::Archive::new(got.as_slice()).entries().unwrap() {
        let mut entry = entry.unwrap();
        if !entry.header().entry_type().is_file() {
            continue;
        }
        files += 1;
        let path = entry.path().unwrap().to_str().unwrap().to_string();
        let n: usize = path.rsplit_once("/f").unwrap().1.parse().unwrap();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        assert_eq!((path, text), (format!("world/r{}/f{n}", n % 50), content(n)));
        assert_eq!((entry.header().uid().unwrap(), entry.header().mode().unwrap() & 0o777), (1234, 0o640));
    }
    assert_eq!(files, FILES);

    let missing = docker.download_tar(&id, "/data/nothing").await.err().unwrap();
    assert!(matches!(missing, DockerError::Gone(_)), "{missing:?}");
    let broken = tokio_util::io::StreamReader::new(futures::stream::iter([
        Ok(bytes::Bytes::from_static(&[0; 100])),
        Err(std::io::Error::other("the disk fell out")),
    ]));
    let error = docker.upload_tar(&id, "/data", broken).await.unwrap_err();
    assert!(matches!(&error, DockerError::Input(text) if text.contains("the disk fell out")), "{error:?}");
}

#[tokio::test]
async fn an_image_is_built_with_its_output_and_a_broken_one_says_where() {
    let Some(corner) = Corner::open("build").await else { return };
    let docker = &corner.docker;
    let mut spec = BuildSpec {
        tag: "spawnpoint-test/built:1".into(),
        labels: corner.labels(),
        dockerfile: format!("FROM {IMAGE}\nARG WORD\nCOPY hello.sh /hello.sh\nRUN /hello.sh \"$WORD\"\n"),
        files: vec![("hello.sh".into(), b"#!/bin/sh\necho hello $1\n".to_vec(), 0o755)],
        network_host: true,
        build_args: vec![("WORD".into(), "from the build".into())],
        ..BuildSpec::default()
    };
    let mut said = Vec::new();
    let id = docker.build(&spec, &mut |line| said.push(line.to_string())).await.unwrap();
    assert!(said.iter().any(|line| line == "hello from the build"), "{said:?}");
    let image = docker.image(&spec.tag).await.unwrap().unwrap();
    assert_eq!((&image.id, image.labels.get(LABEL)), (&id, Some(&corner.name)));
    assert!(image.size_bytes > 100_000);

    spec.tag = "spawnpoint-test/broken:1".into();
    spec.dockerfile = format!("FROM {IMAGE}\nRUN echo almost there && exit 5\n");
    let error = docker.build(&spec, &mut |_| {}).await.unwrap_err();
    let DockerError::BuildFailed { reason, last_lines } = &error else { panic!("{error:?}") };
    assert!(reason.contains('5') && last_lines.iter().any(|line| line == "almost there"), "{error:?}");
    docker.remove_image("spawnpoint-test/built:1").await.unwrap();
    assert_eq!(docker.image("spawnpoint-test/built:1").await.unwrap(), None);
}

#[tokio::test]
async fn dropping_a_build_stops_it() {
    let Some(corner) = Corner::open("unbuild").await else { return };
    let running = || async {
        let found = Command::new("docker").args(["ps", "--no-trunc", "--format", "{{.Command}}"]).output().unwrap();
        String::from_utf8(found.stdout).unwrap().contains("sp-unbuild")
    };
    let spec = BuildSpec {
        tag: "spawnpoint-test/never:1".into(),
        labels: corner.labels(),
        dockerfile: format!("FROM {IMAGE}\nRUN echo here; sleep 300; echo sp-unbuild\n"),
        ..BuildSpec::default()
    };
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let docker = corner.docker.clone();
    let build = tokio::spawn(async move {
        let mut sender = Some(sender);
        docker
            .build(&spec, &mut |line| {
                if line == "here" {
                    let _ = sender.take().map(|sender| sender.send(()));
                }
            })
            .await
    });
    receiver.await.unwrap();
    eventually("the build's container", || async { running().await.then_some(()) }).await;
    build.abort();
    eventually("the end of the build's container", || async { (!running().await).then_some(()) }).await;
    assert_eq!(corner.docker.image("spawnpoint-test/never:1").await.unwrap(), None);
}

#[tokio::test]
async fn a_pull_without_a_registry_says_so() {
    let Some(corner) = Corner::open("pull").await else { return };
    // Nobody listens there, and the daemon takes 127.0.0.0/8 for registries without TLS.
    let error = corner.docker.pull("127.0.97.3:1/nothing:1", &mut |_| {}).await.unwrap_err();
    assert!(matches!(error, DockerError::RegistryUnreachable(_)), "{error:?}");
    assert!(error.is_passing());
}
