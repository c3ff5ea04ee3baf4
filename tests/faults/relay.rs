//! A small relay in front of the daemon's socket. It can fall silent at a chosen request, as a daemon does that dies
//! after it has taken the request and before it has answered, and it counts who comes to ask meanwhile. It can let a
//! part of what is sent to the daemon or comes from it through, and then nothing more. And it can pass the daemon off as
//! another one.

use spawnpoint::clients::docker::DEFAULT_SOCKET;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, watch};

const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
struct Trap {
    /// What is in the request's first line, all of it.
    words: Vec<String>,
    then: Then,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Then {
    Fall,
    Hold,
    /// So many bytes of the request go on, and the rest nowhere.
    Swallow(usize),
    /// So many bytes of the answer come back, and then none, until the one who asked has left.
    Stall(usize),
}

struct Inside {
    trap: Mutex<Option<Trap>>,
    /// Even: up, odd: down. Every connection belongs to one number and ends with it.
    times: watch::Sender<usize>,
    held: watch::Sender<bool>,
    /// What is said of the daemon in place of its own word.
    mask: Mutex<Option<String>>,
    refused: AtomicUsize,
}

pub struct Relay {
    home: tempfile::TempDir,
    inside: Arc<Inside>,
    task: tokio::task::JoinHandle<()>,
}

impl Relay {
    pub async fn open() -> Relay {
        let home = tempfile::Builder::new().prefix("spawnpoint-relay-").tempdir().unwrap();
        let listener = UnixListener::bind(home.path().join("docker.sock")).unwrap();
        let inside = Arc::new(Inside {
            trap: Mutex::default(),
            times: watch::Sender::new(0),
            held: watch::Sender::new(false),
            mask: Mutex::default(),
            refused: AtomicUsize::new(0),
        });
        let of_task = inside.clone();
        let task = tokio::spawn(async move {
            loop {
                let Ok((client, _)) = listener.accept().await else { return };
                let times = *of_task.times.borrow();
                if times % 2 == 1 {
                    of_task.refused.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                tokio::spawn(serve(client, of_task.clone(), times));
            }
        });
        Relay { home, inside, task }
    }

    pub fn endpoint(&self) -> String {
        self.path().to_str().unwrap().to_owned()
    }

    fn path(&self) -> PathBuf {
        self.home.path().join("docker.sock")
    }

    /// Falls when a request like this has been handed on; its answer is lost.
    pub fn fall_at(&self, words: &[&str]) {
        self.set(words, Then::Fall);
    }

    /// Keeps a request like this back until [`Relay::release`].
    pub fn hold_at(&self, words: &[&str]) {
        self.set(words, Then::Hold);
    }

    /// Of a request like this the daemon gets so many bytes and waits for the rest.
    pub fn swallow_after(&self, bytes: usize, words: &[&str]) {
        self.set(words, Then::Swallow(bytes));
    }

    /// Of the answer to a request like this so many bytes arrive.
    pub fn stall_after(&self, bytes: usize, words: &[&str]) {
        self.set(words, Then::Stall(bytes));
    }

    /// From now on the daemon is another one to whoever asks what it is; with `null` it is itself again.
    pub fn wears(&self, info: serde_json::Value) {
        *self.inside.mask.lock().unwrap() = Some(info).filter(|info| !info.is_null()).map(|info| info.to_string());
    }

    fn set(&self, words: &[&str], then: Then) {
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        *self.inside.trap.lock().unwrap() = Some(Trap { words, then });
    }

    /// Waits for the request that the trap was set for.
    pub async fn caught(&self) {
        self.until("the request", |inside| inside.trap.lock().unwrap().is_none()).await;
    }

    pub fn release(&self) {
        self.inside.held.send_replace(false);
    }

    pub fn fall(&self) {
        assert_eq!(*self.inside.times.borrow() % 2, 0, "it is down already");
        self.inside.times.send_modify(|times| *times += 1);
    }

    pub fn rise(&self) {
        assert_eq!(*self.inside.times.borrow() % 2, 1, "it is up already");
        self.inside.times.send_modify(|times| *times += 1);
    }

    /// Waits until so many more have come in vain.
    pub async fn turned_away(&self, count: usize) {
        let before = self.inside.refused.load(Ordering::Relaxed);
        self.until("somebody to come in vain", |inside| inside.refused.load(Ordering::Relaxed) >= before + count).await;
    }

    async fn until(&self, what: &str, there: impl Fn(&Inside) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !there(&self.inside) {
            assert!(Instant::now() < deadline, "waited in vain for {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(client: UnixStream, inside: Arc<Inside>, times: usize) {
    let Ok(daemon) = UnixStream::connect(DEFAULT_SOCKET).await else { return };
    let mut fallen = inside.times.subscribe();
    let (mut from_client, to_client) = client.into_split();
    let to_client = tokio::sync::Mutex::new(to_client);
    let (mut from_daemon, mut to_daemon) = daemon.into_split();
    let (answer_left, client_left) = (AtomicUsize::new(usize::MAX), Notify::new());
    let up = async {
        let mut bytes = vec![0; 64 * 1024];
        let mut left = usize::MAX;
        while let Ok(count @ 1..) = from_client.read(&mut bytes).await {
            let mask = inside.mask.lock().unwrap().clone();
            let asks = |bytes: &[u8]| bytes.starts_with(b"GET ") && first_line(bytes).contains("/info");
            if let Some(info) = mask.filter(|_| asks(&bytes[..count])) {
                let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", info.len());
                let _ = to_client.lock().await.write_all((head + &info).as_bytes()).await;
                break;
            }
            let trap = take_if_caught(&inside, &bytes[..count]);
            match trap {
                Some(Then::Hold) => {
                    let mut held = inside.held.subscribe();
                    let _ = held.wait_for(|held| !held).await;
                }
                Some(Then::Swallow(bytes)) => left = bytes,
                Some(Then::Stall(bytes)) => answer_left.store(bytes, Ordering::Relaxed),
                Some(Then::Fall) | None => {}
            }
            let passed = count.min(left);
            left = if left == usize::MAX { left } else { left - passed };
            if to_daemon.write_all(&bytes[..passed]).await.is_err() {
                break;
            }
            if trap == Some(Then::Fall) {
                // The daemon has it when it begins to answer; nobody else gets to see that.
                let _ = to_daemon.flush().await;
                inside.times.send_modify(|times| *times += 1);
            }
        }
        let _ = to_daemon.shutdown().await;
        client_left.notify_one();
    };
    let down = async {
        let mut bytes = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from_daemon.read(&mut bytes).await {
            let left = answer_left.load(Ordering::Relaxed);
            if to_client.lock().await.write_all(&bytes[..count.min(left)]).await.is_err() {
                break;
            }
            if left < count {
                client_left.notified().await;
                break;
            }
            if left != usize::MAX {
                answer_left.store(left - count, Ordering::Relaxed);
            }
        }
        let _ = to_client.lock().await.shutdown().await;
    };
    tokio::select! {
        _ = fallen.wait_for(|now| *now != times) => {}
        _ = async { tokio::join!(up, down) } => {}
    }
}

fn first_line(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).lines().next().unwrap_or_default().to_owned()
}

fn take_if_caught(inside: &Inside, bytes: &[u8]) -> Option<Then> {
    let mut trap = inside.trap.lock().unwrap();
    let line = first_line(bytes);
    let caught = trap.as_ref().is_some_and(|trap| trap.words.iter().all(|word| line.contains(word)));
    if !caught {
        return None;
    }
    let then = trap.take().map(|trap| trap.then);
    if then == Some(Then::Hold) {
        inside.held.send_replace(true);
    }
    then
}
