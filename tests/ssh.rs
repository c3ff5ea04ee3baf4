//! The SSH client against a real OpenSSH server.

#[path = "common/sshd.rs"]
mod sshd;

use spawnpoint::clients::ssh::{Ended, Exec, HostKey, KeyError, KeyPair, Limits, Pin, Ssh, SshError, Target, scan};
use sshd::{Sshd, sshd_or_skip};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(20);

fn sh(script: &str) -> Exec {
    Exec::new(["sh", "-c", script], LIMIT)
}

async fn lines(ssh: &Ssh, exec: Exec) -> Vec<String> {
    let mut lines = vec![];
    ssh.run(exec, &mut |line| lines.push(line.to_string())).await.unwrap().ok().unwrap();
    lines
}

/// Waits until it is so. What happens in another process has no event to wait for.
async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !so() {
        assert!(began.elapsed() < LIMIT, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_command_streams_its_output_and_says_how_it_ended() {
    if !sshd_or_skip() {
        return;
    }
    let sshd = Sshd::start().await;
    let ssh = sshd.ssh();
    assert_eq!(lines(&ssh, sh("echo one; printf 'two\\r\\nthree'")).await, ["one", "two", "three"]);
    assert_eq!(lines(&ssh, sh("echo oops >&2")).await, ["oops"]);
    let nasty = "it's \"$HOME\" `id`\n\\ ü \u{1f680} *";
    let mut exec = Exec::new(["printf", "%s", nasty], LIMIT);
    assert_eq!(lines(&ssh, exec.clone()).await.join("\n"), nasty);
    exec.env = vec![("NASTY".into(), nasty.into()), ("EMPTY".into(), String::new())];
    exec.argv = ["sh", "-c", "printf %s \"$NASTY\"; cat"].map(String::from).into();
    exec.stdin = Some("\nand stdin".into());
    assert_eq!(lines(&ssh, exec).await.join("\n"), format!("{nasty}\nand stdin"));

    for (script, ended) in [
        ("exit 0", Ended::Code(0)),
        ("exit 77", Ended::Code(77)),
        ("kill -TERM $$", Ended::Signal("TERM".into())),
        ("kill -KILL $$", Ended::Signal("KILL".into())),
    ] {
        assert_eq!(ssh.run_quietly(sh(script)).await.unwrap().ended, ended, "{script}");
    }
    let missing = ssh.run_quietly(Exec::new(["no-such-program"], LIMIT)).await.unwrap();
    assert_eq!(missing.ended, Ended::Code(127));
    let error = ssh.run_quietly(sh("echo the disk is full >&2; exit 3")).await.unwrap().ok().unwrap_err();
    assert_eq!(error.to_string(), "`sh` ended with code 3: the disk is full");
    assert!(!error.may_pass());
}

#[tokio::test]
async fn what_a_command_writes_to_its_stdout_comes_back_byte_for_byte() {
    if !sshd_or_skip() {
        return;
    }
    let sshd = Sshd::start().await;
    let ssh = sshd.ssh();
    let content = [&[b'x'; 5000][..], b"\r\n\n\xff\xfe\0 and no line break at the end"].concat();
    let exec = Exec { stdin: Some(content.clone().into()), ..sh("echo noise >&2; cat; echo more noise >&2") };
    let (exited, stdout) = ssh.stdout(exec, content.len()).await.unwrap();
    assert!(exited.success() && stdout == content, "{exited:?} {}", String::from_utf8_lossy(&stdout));
    assert_eq!(exited.last, ["noise", "more noise"]);

    let (exited, stdout) = ssh.stdout(sh("echo half; echo the disk is full >&2; exit 3"), 100).await.unwrap();
    assert_eq!(stdout, b"half\n");
    assert_eq!(exited.ok().unwrap_err().to_string(), "`sh` ended with code 3: the disk is full");
    let flood = ssh.stdout(sh("yes"), 1000).await.unwrap_err();
    assert!(!flood.may_pass(), "{flood:?}");
    assert_eq!(flood.to_string(), "`sh` wrote more than the 1000 bytes that are read");

    let mut answer = vec![];
    let both = sh("echo state=lost >&2; echo state=running");
    let exited = ssh.stdout_lines(both, &mut |line| answer.push(line.to_string())).await.unwrap();
    assert_eq!(answer, ["state=running"]);
    assert!(exited.last.contains(&"state=lost".to_string()), "{exited:?}");
}

#[tokio::test]
async fn lines_come_while_the_command_runs() {
    if !sshd_or_skip() {
        return;
    }
    let sshd = Sshd::start().await;
    let ssh = sshd.ssh();
    let gate = sshd.home.join("gate");
    let script = format!("echo ready; while [ ! -e {} ]; do sleep 0.02; done; echo through", gate.display());
    let mut seen = vec![];
    ssh.run(sh(&script), &mut |line| {
        if line == "ready" {
            std::fs::write(&gate, "").unwrap();
        }
        seen.push(line.to_string());
    })
    .await
    .unwrap();
    assert_eq!(seen, ["ready", "through"]);
}

#[tokio::test]
async fn only_the_pinned_host_is_spoken_to() {
    if !sshd_or_skip() {
        return;
    }
    let sshd = Sshd::start().await;
    let scanned = scan(sshd.address).await.unwrap();
    assert_eq!(scanned.fingerprint, sshd.host_key.fingerprint());
    for pin in [&scanned.public_line, &scanned.fingerprint] {
        let target = Target { host_key: Pin::parse(pin).unwrap(), ..sshd.target() };
        Ssh::new(target).connect().await.unwrap();
    }
    let other = Pin::parse(&HostKey::generate().public_line).unwrap();
    for pin in [other.clone(), Pin::parse(&other.fingerprint()).unwrap()] {
        let error = Ssh::new(Target { host_key: pin, ..sshd.target() }).connect().await.unwrap_err();
        assert!(matches!(error, SshError::WrongHostKey { .. }), "{error:?}");
        assert!(!error.may_pass());
        for fingerprint in [other.fingerprint(), scanned.fingerprint.clone()] {
            assert!(error.to_string().contains(&fingerprint), "{error}");
        }
    }
}

#[tokio::test]
async fn whoever_is_not_let_in_is_told_so() {
    if !sshd_or_skip() {
        return;
    }
    let sshd = Sshd::start().await;
    let stranger = Arc::new(KeyPair::load_or_make(&sshd.home.join("stranger")).unwrap());
    let denied = Ssh::new(Target { key: stranger, ..sshd.target() }).connect().await.unwrap_err();
    assert!(matches!(denied, SshError::Denied { .. }), "{denied:?}");
    let denied = Ssh::new(Target { user: "nobody".into(), ..sshd.target() }).connect().await.unwrap_err();
    assert!(matches!(denied, SshError::Denied { .. }), "{denied:?}");
}

#[tokio::test]
async fn a_host_that_is_not_there_or_never_speaks_is_unreachable_in_time() {
    if !sshd_or_skip() {
        return;
    }
    let mut sshd = Sshd::start().await;
    sshd.kill();
    let error = sshd.ssh().connect().await.unwrap_err();
    assert!(matches!(error, SshError::Unreachable { .. }) && error.may_pass(), "{error:?}");
    let mute = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let target = Target { address: mute.local_addr().unwrap(), ..sshd.target() };
    let error = Ssh::with_connect_limit(target, Duration::from_millis(300)).connect().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("{} cannot be reached by SSH: no answer within 0.3 s", mute.local_addr().unwrap())
    );
    let (mut accepted, _) = mute.accept().await.unwrap();
    let mut greeting = vec![];
    timeout(LIMIT, accepted.read_to_end(&mut greeting)).await.expect("the connection was let go").ok();
}

#[tokio::test]
async fn a_host_with_only_an_rsa_key_is_refused_with_advice() {
    if !sshd_or_skip() {
        return;
    }
    let mut sshd = Sshd::start().await;
    sshd.kill();
    let key = sshd.home.join("host_key");
    std::fs::remove_file(&key).unwrap();
    let made = Command::new("ssh-keygen").args(["-q", "-t", "rsa", "-b", "2048", "-N", "", "-f"]).arg(&key).status();
    assert!(made.unwrap().success());
    sshd.run().await;
    for error in [sshd.ssh().connect().await.unwrap_err(), scan(sshd.address).await.unwrap_err()] {
        assert!(matches!(error, SshError::NoUsableHostKey { .. }), "{error:?}");
        assert!(error.to_string().contains("rsa") && error.to_string().contains("ssh-keygen -A"), "{error}");
    }
}

#[tokio::test]
async fn keys_of_people_work_unless_nobody_could_type_their_passphrase() {
    if !sshd_or_skip() {
        return;
    }
    let sshd = Sshd::start().await;
    let make = |name: &str, kind: &str, passphrase: &str| {
        let path = sshd.home.join(name);
        let made = Command::new("ssh-keygen").args(["-q", "-t", kind, "-N", passphrase, "-f"]).arg(&path).status();
        assert!(made.unwrap().success());
        KeyPair::load(&path)
    };
    for kind in ["ed25519", "ecdsa"] {
        let key = Arc::new(make(kind, kind, "").unwrap());
        std::fs::write(sshd.home.join("authorized_keys"), key.public_line()).unwrap();
        Ssh::new(Target { key, ..sshd.target() }).connect().await.unwrap();
    }
    assert!(matches!(make("locked", "ed25519", "secret"), Err(KeyError::Passphrase { .. })));
    assert!(matches!(make("rsa", "rsa", ""), Err(KeyError::Kind { .. })));
}

#[tokio::test]
async fn the_environment_is_seen_by_the_command_and_in_no_process_list() {
    if !sshd_or_skip() {
        return;
    }
    let sshd = Sshd::start().await;
    let ssh = sshd.ssh();
    let secret = format!("hush-{}", std::process::id());
    let exec = Exec { env: vec![("TOKEN".into(), secret.clone())], ..sh("echo got $TOKEN; read -r _; echo bye") };
    let mut seen = vec![];
    ssh.run(exec, &mut |line| {
        if line.starts_with("got") {
            let listed = Command::new("ps").args(["-eww", "-o", "args"]).output().unwrap();
            seen.push(String::from_utf8_lossy(&listed.stdout).into_owned());
        }
        seen.push(line.to_string());
    })
    .await
    .unwrap();
    assert_eq!(seen[1], format!("got {secret}"));
    assert!(!seen[0].contains(&secret), "{}", seen[0]);
    assert!(seen[0].contains("sshd"), "the list was taken");
}

#[tokio::test]
async fn a_hundred_commands_at_once_all_come_to_their_end() {
    if !sshd_or_skip() {
        return;
    }
    let sshd = Sshd::start().await;
    let ssh = sshd.ssh();
    let runs = (0..100).map(|n| {
        let ssh = ssh.clone();
        tokio::spawn(async move { lines(&ssh, sh(&format!("seq 200; echo {n}"))).await })
    });
    for (n, run) in (0..).zip(runs.collect::<Vec<_>>()) {
        let lines = run.await.unwrap();
        let expected: Vec<String> = (1..=200).chain([n]).map(|n| n.to_string()).collect();
        assert_eq!(lines, expected);
    }
    assert_eq!(sshd.connections().len(), 1, "all went over one connection");
}

#[tokio::test]
async fn a_lost_connection_is_broken_and_the_next_command_connects_anew() {
    if !sshd_or_skip() {
        return;
    }
    let sshd = Sshd::start().await;
    let ssh = sshd.ssh();
    let broken = ssh.run(sh("echo up; sleep 60"), &mut |_| sshd.cut_connections()).await.unwrap_err();
    assert!(matches!(broken, SshError::Broken { .. }) && broken.may_pass(), "{broken:?}");
    assert_eq!(lines(&ssh, sh("echo again")).await, ["again"]);
    sshd.cut_connections();
    assert_eq!(lines(&ssh, sh("echo and again")).await, ["and again"]);
}

/// Once the host is silent the clock jumps from one thing that is waited for to the next. What is asserted is how long
/// the client would have waited, not how long the test takes.
#[tokio::test]
async fn a_host_that_falls_silent_is_broken_after_a_minute_and_not_waited_for() {
    if !sshd_or_skip() {
        return;
    }
    let sshd = Sshd::start().await;
    let ssh = sshd.ssh();
    let patient = Exec { limit: Duration::from_secs(3600), ..sh("echo up; sleep 5; echo too late") };
    let mut silent = tokio::time::Instant::now();
    let broken = ssh
        .run(patient, &mut |_| {
            sshd.freeze();
            tokio::time::pause();
            silent = tokio::time::Instant::now();
        })
        .await
        .unwrap_err();
    let waited = silent.elapsed();
    assert!(matches!(broken, SshError::Broken { .. }) && broken.may_pass(), "{broken:?}");
    assert!((45..=61).contains(&waited.as_secs()), "{waited:?}: {broken}");
    assert_eq!(broken.to_string(), "the connection was lost during `sh`: the host has fallen silent");
    // Somebody accepts, for the kernel does that, and nobody speaks.
    let again = ssh.run_quietly(sh("echo nobody hears this")).await.unwrap_err();
    assert!(matches!(again, SshError::Unreachable { .. }) && again.may_pass(), "{again:?}");
    tokio::time::resume();
    sshd.thaw();
    assert_eq!(lines(&ssh, sh("echo again")).await, ["again"]);
}

/// In the middle of sending no keepalive can be sent. The kernel's clock, which counts then, does not jump.
#[tokio::test]
async fn a_host_that_falls_silent_while_it_is_sent_to_is_broken_too() {
    if !sshd_or_skip() {
        return;
    }
    let sshd = Sshd::start().await;
    let limits = Limits { silence: Duration::from_secs(2), ..Limits::default() };
    let ssh = Ssh::with_limits(sshd.target(), limits);
    let large = Some(vec![7u8; 64 << 20].into());
    let patient = Exec { stdin: large, limit: Duration::from_secs(3600), ..sh("echo up; cat >/dev/null") };
    let broken = timeout(Duration::from_secs(60), ssh.run(patient, &mut |_| sshd.freeze())).await.expect("in time");
    let broken = broken.unwrap_err();
    assert!(matches!(broken, SshError::Broken { .. }) && broken.may_pass(), "{broken:?}");
    sshd.thaw();
    assert_eq!(lines(&ssh, sh("echo again")).await, ["again"]);
}

#[tokio::test]
async fn a_command_ends_with_its_limit_or_its_caller_and_does_not_run_on() {
    if !sshd_or_skip() {
        return;
    }
    let sshd = Sshd::start().await;
    let ssh = sshd.ssh();
    let mark = |name: &str| sshd.home.join(name);
    let script = |name: &str| format!("trap 'echo > {}; exit' TERM; echo; sleep 60 & wait", mark(name).display());
    // By then the command has begun, however slow the login was.
    let limit = Duration::from_millis(2500);
    let error = ssh.run_quietly(Exec { limit, ..sh(&script("limit")) }).await.unwrap_err();
    assert_eq!(error, SshError::Timeout { what: "`sh`".into(), limit });
    assert_eq!(error.to_string(), "`sh` took longer than 2.5 s");
    until("the command heard of its limit", || mark("limit").exists()).await;
    let dropped = timeout(limit, ssh.run_quietly(sh(&script("dropped")))).await;
    assert!(dropped.is_err());
    until("the command heard that its caller has gone", || mark("dropped").exists()).await;
    let stubborn = format!("trap '' TERM; echo $$ > {}; while :; do sleep 0.1; done", mark("pid").display());
    timeout(limit, ssh.run_quietly(sh(&stubborn))).await.unwrap_err();
    let pid = std::fs::read_to_string(mark("pid")).unwrap();
    until("the one that does not listen was killed", || !Path::new("/proc").join(pid.trim()).exists()).await;
    assert_eq!(lines(&ssh, sh("echo the connection is as good as before")).await.len(), 1);
}

#[tokio::test]
async fn the_connection_ends_with_the_last_clone() {
    if !sshd_or_skip() {
        return;
    }
    let sshd = Sshd::start().await;
    let ssh = sshd.ssh();
    let clone = ssh.clone();
    ssh.connect().await.unwrap();
    drop(ssh);
    assert_eq!(lines(&clone, sh("echo here")).await, ["here"]);
    drop(clone);
    until("sshd saw the connection end", || sshd.connections().is_empty()).await;
}

#[tokio::test]
async fn files_arrive_whole_with_their_permissions_or_not_at_all() {
    if !sshd_or_skip() {
        return;
    }
    let sshd = Sshd::start().await;
    let ssh = sshd.ssh();
    let path = sshd.home.join("it's a \"file\"");
    let path = path.to_str().unwrap();
    let content: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    for (content, mode) in [(content, 0o640), (b"short".to_vec(), 0o600), (vec![], 0o755)] {
        ssh.put(path, content.clone(), mode).await.unwrap();
        assert_eq!(ssh.read(path, 4 << 20).await.unwrap().unwrap(), content);
        let meta = std::fs::metadata(path).unwrap();
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&meta.permissions()) & 0o777, mode);
    }
    assert_eq!(ssh.read("/no/such/file", 10).await.unwrap(), None);
    ssh.put(path, "12345678901", 0o600).await.unwrap();
    assert!(matches!(ssh.read(path, 10).await, Err(SshError::Refused(_))));
    assert_eq!(ssh.read(path, 11).await.unwrap().unwrap().len(), 11);
    let error = ssh.put("/no/such/folder/file", "x", 0o600).await.unwrap_err();
    assert!(error.to_string().contains("/no/such/folder/file"), "{error}");
    let beside: Vec<_> = std::fs::read_dir(&sshd.home).unwrap().flatten().map(|one| one.file_name()).collect();
    assert!(!beside.iter().any(|name| name.to_string_lossy().contains("file\".")), "{beside:?}");
}

#[tokio::test]
async fn a_large_stream_crosses_new_keys_both_ways() {
    if !sshd_or_skip() {
        return;
    }
    // New keys after every 8 MB, so that many changes fall into these 64.
    let sshd = Sshd::with("RekeyLimit 8M").await;
    let ssh = sshd.ssh();
    let content = vec![7u8; 64 << 20];
    let exec =
        Exec { stdin: Some(content.into()), limit: Duration::from_secs(60), ..sh("cat | tee /dev/null | wc -c") };
    assert_eq!(lines(&ssh, exec).await, [(64 << 20).to_string()]);
    let script = "head -c 67108864 /dev/zero | tr '\\0' 'x' | fold -w 1023; echo";
    let exec = Exec { limit: Duration::from_secs(60), ..sh(script) };
    let mut bytes = 0;
    ssh.run(exec, &mut |line| bytes += line.len()).await.unwrap().ok().unwrap();
    assert_eq!(bytes, 64 << 20);
}

#[tokio::test]
async fn a_caller_who_does_not_read_holds_nobody_up() {
    if !sshd_or_skip() {
        return;
    }
    let sshd = Sshd::start().await;
    let ssh = sshd.ssh();
    let flood = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = flood.local_addr().unwrap().port();
    let stuck = ssh.forward_tcp(port).await.unwrap();
    let (mut far, _) = flood.accept().await.unwrap();
    let flooding = tokio::spawn(async move { while far.write_all(&[0; 65536]).await.is_ok() {} });
    for n in 0..20 {
        assert_eq!(lines(&ssh, sh(&format!("echo {n}"))).await, [n.to_string()]);
    }
    drop(stuck);
    timeout(LIMIT, flooding).await.expect("the forward ended with its reader").unwrap();
}

/// Says back what it hears.
async fn echo() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                tokio::io::copy(&mut read, &mut write).await.ok();
            });
        }
    });
    port
}

#[tokio::test]
async fn a_tcp_port_of_the_host_is_reached_and_half_closes_pass() {
    if !sshd_or_skip() {
        return;
    }
    let sshd = Sshd::start().await;
    let ssh = sshd.ssh();
    let port = echo().await;
    let content: Vec<u8> = (0..2_000_000u32).map(|n| (n % 253) as u8).collect();
    let (mut read, mut write) = tokio::io::split(ssh.forward_tcp(port).await.unwrap());
    let sent = content.clone();
    let writing = tokio::spawn(async move {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    });
    let mut back = vec![];
    timeout(LIMIT, read.read_to_end(&mut back)).await.unwrap().unwrap();
    writing.await.unwrap();
    assert!(back == content, "{} of {} bytes came back", back.len(), content.len());

    let local = ssh.local_tcp(port).await.unwrap();
    let mut streams = vec![];
    for n in 0..20u8 {
        let mut stream = TcpStream::connect(local.address).await.unwrap();
        stream.write_all(&[n]).await.unwrap();
        streams.push(stream);
    }
    for (n, stream) in streams.iter_mut().enumerate() {
        assert_eq!(usize::from(timeout(LIMIT, stream.read_u8()).await.unwrap().unwrap()), n);
    }
    let address = local.address;
    drop(local);
    for stream in &mut streams {
        assert_eq!(timeout(LIMIT, stream.read(&mut [0])).await.unwrap().unwrap_or(0), 0);
    }
    until("the local port is closed", || std::net::TcpStream::connect(address).is_err()).await;

    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap().port();
    let error = ssh.forward_tcp(closed).await.unwrap_err();
    assert!(error.to_string().contains("nobody listens there"), "{error}");
    let local = ssh.local_tcp(closed).await.unwrap();
    let mut stream = TcpStream::connect(local.address).await.unwrap();
    assert_eq!(timeout(LIMIT, stream.read(&mut [0])).await.unwrap().unwrap_or(0), 0);
}

#[tokio::test]
async fn a_udp_port_of_the_host_answers_each_sender_for_himself() {
    if !sshd_or_skip() {
        return;
    }
    let sshd = Sshd::start().await;
    let ssh = sshd.ssh();
    let host = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = host.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut buffer = vec![0; 65536];
        while let Ok((size, from)) = host.recv_from(&mut buffer).await {
            host.send_to(&buffer[..size], from).await.ok();
        }
    });
    let local = ssh.local_udp(port).await.unwrap();
    let mut senders = vec![];
    for _ in 0..5 {
        senders.push(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap());
    }
    // Both ends drop what overflows their buffers, so the largest go one by one.
    for size in [0, 1, 1400, 65_000] {
        for (n, sender) in senders.iter().enumerate() {
            sender.send_to(&vec![n as u8; size], local.address).await.unwrap();
            let mut buffer = vec![0; 65536];
            let (got, from) = timeout(LIMIT, sender.recv_from(&mut buffer)).await.unwrap().unwrap();
            assert_eq!(from, local.address);
            assert_eq!(buffer[..got], vec![n as u8; size]);
        }
    }
    assert!(local.is_open());
    assert_eq!(sshd.connections().len(), 1);
    sshd.cut_connections();
    until("the relay noticed that its connection is gone", || !local.is_open()).await;
    let again = ssh.local_udp(port).await.unwrap();
    drop(again);
    until("the relay's connection ended with it", || sshd.connections().is_empty()).await;
}
