//! A real OpenSSH server for tests: an ordinary process on a loopback address of its own, with its own keys and
//! configuration, gone with its guard. Its home folder is empty, so that no `.bashrc` of this machine plays a part.
// Each test binary uses its own part.
#![allow(dead_code)]

use spawnpoint::clients::ssh::{HostKey, KeyPair, Pin, Ssh, Target};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use secrecy::ExposeSecret;

const SSHD: &str = "/usr/sbin/sshd";
static NEXT: AtomicU8 = AtomicU8::new(1);

pub struct Sshd {
    pub address: SocketAddr,
    pub home: PathBuf,
    pub key: Arc<KeyPair>,
    pub host_key: Pin,
    extra: String,
    child: Option<Child>,
    _home: tempfile::TempDir,
}

/// A laptop without sshd, rsync or root skips; CI does not.
pub fn sshd_or_skip() -> bool {
    let missing = if !Path::new(SSHD).exists() {
        "there is no /usr/sbin/sshd"
    } else if !rustix::process::geteuid().is_root() {
        "sshd needs root to let anybody in"
    } else {
        return true;
    };
    assert!(!std::env::var("CI").is_ok_and(|ci| ci == "true"), "{missing}");
    println!("skipped: {missing}");
    false
}

impl Sshd {
    pub async fn start() -> Sshd {
        Sshd::with("").await
    }

    /// With more lines for its configuration.
    pub async fn with(extra: &str) -> Sshd {
        std::fs::create_dir_all("/run/sshd").unwrap();
        let home = tempfile::Builder::new().prefix("sshd-").tempdir().unwrap();
        let dir = home.path().to_path_buf();
        let key = Arc::new(KeyPair::load_or_make(&dir.join("id")).unwrap());
        let host = HostKey::generate();
        write(&dir.join("host_key"), host.private_pem.expose_secret());
        write(&dir.join("authorized_keys"), &key.public_line());
        let host_ip = [127, 77, (std::process::id() % 250) as u8 + 1, NEXT.fetch_add(1, Ordering::Relaxed)];
        let address = TcpListener::bind(SocketAddr::from((host_ip, 0))).unwrap().local_addr().unwrap();
        let mut sshd = Sshd {
            address,
            home: dir,
            key,
            host_key: Pin::parse(&host.public_line).unwrap(),
            extra: extra.into(),
            child: None,
            _home: home,
        };
        sshd.run().await;
        sshd
    }

    /// Starts the server; again after [`Sshd::kill`].
    pub async fn run(&mut self) {
        let dir = self.home.display();
        let config = format!(
            "ListenAddress {}\nPort {}\nHostKey {dir}/host_key\nAuthorizedKeysFile {dir}/authorized_keys\n\
             PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n\
             MaxStartups 100\nLogLevel ERROR\n\
             SetEnv HOME={dir}\n{}\n",
            self.address.ip(),
            self.address.port(),
            self.extra
        );
        write(&self.home.join("sshd_config"), &config);
        let child = Command::new(SSHD)
            .args(["-D", "-E"])
            .arg(self.home.join("log"))
            .arg("-f")
            .arg(self.home.join("sshd_config"))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        self.child = Some(child);
        let began = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            assert!(began.elapsed() < Duration::from_secs(20), "sshd did not start: {}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn target(&self) -> Target {
        Target { address: self.address, user: "root".into(), key: self.key.clone(), host_key: self.host_key.clone() }
    }

    pub fn ssh(&self) -> Ssh {
        Ssh::new(self.target())
    }

    /// Kills the server and every connection of it at once.
    pub fn kill(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        for pid in below(child.id()) {
            signal(pid, rustix::process::Signal::KILL);
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Kills what serves the connections and leaves the server: the network broke, the host is still there.
    pub fn cut_connections(&self) {
        for pid in self.connections() {
            signal(pid, rustix::process::Signal::KILL);
        }
    }

    /// The host hangs: the kernel still takes what is sent to it, and nobody reads it.
    pub fn freeze(&self) {
        self.tell_all(rustix::process::Signal::STOP);
    }

    pub fn thaw(&self) {
        self.tell_all(rustix::process::Signal::CONT);
    }

    fn tell_all(&self, what: rustix::process::Signal) {
        let server = self.child.as_ref().expect("the server runs").id();
        signal(server as i32, what);
        for pid in below(server) {
            signal(pid, what);
        }
    }

    /// The processes that serve a connection.
    pub fn connections(&self) -> Vec<i32> {
        children(self.child.as_ref().expect("the server runs").id() as i32)
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.home.join("log")).unwrap_or_default()
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.kill();
    }
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
}

fn signal(pid: i32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    // One that has ended by itself is what was wanted.
    let _ = rustix::process::kill_process(pid, signal);
}

fn children(of: i32) -> Vec<i32> {
    let mut found = vec![];
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1));
        if parent == Some(of.to_string().as_str()) {
            found.push(pid);
        }
    }
    found
}

/// All that descends from this process, the sessions' commands included.
fn below(of: u32) -> Vec<i32> {
    let mut found = children(of as i32);
    let mut at = 0;
    while at < found.len() {
        found.extend(children(found[at]));
        at += 1;
    }
    found
}
