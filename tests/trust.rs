//! Machines of one's own are known by a key that somebody has compared, and `spawnpoint doctor` says whether hosts can
//! be had at all: the program itself in a terminal, beside a real sshd and stand-ins of the providers.

mod common {
    pub mod cloud;
    pub mod sshd;
}

use common::cloud::{Clouds, Failure, Machines, Options};
use common::sshd::{Sshd, sshd_or_skip};
use secrecy::ExposeSecret;
use spawnpoint::app::NewServer;
use spawnpoint::clients::ssh::HostKey;
use spawnpoint::config::Config;
use spawnpoint::model::GuildId;
use spawnpoint::model::access::Caller;
use spawnpoint::model::host::Place;
use spawnpoint::program::Program;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(60);

/// A folder with a configuration.
struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    fn with(config: &str) -> Home {
        let home = Home { dir: tempfile::tempdir().expect("a folder") };
        let recipes = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recipes");
        let head = format!("game_scripts = {:?}\n[docker]\nenabled = false\n", recipes.display().to_string());
        std::fs::write(home.config(), head + config).expect("it is written");
        home
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("config.toml")
    }

    /// What the program says in the terminal when somebody types this, and whether it was content.
    async fn says(&self, words: &[&str], typed: &str) -> (String, bool) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_spawnpoint"));
        command.arg("--config").arg(self.config()).args(words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let typed = typed.to_owned();
        let work = move || {
            let mut child = command.spawn().expect("it starts");
            child.stdin.take().expect("an input").write_all(typed.as_bytes()).expect("somebody types");
            child.wait_with_output().expect("it ends")
        };
        let output = tokio::task::spawn_blocking(work).await.expect("it does not panic");
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        (text, output.status.success())
    }
}

fn machine(sshd: &Sshd, more: &str) -> String {
    let key = sshd.home.join("id");
    let (address, port, key) = (sshd.address.ip(), sshd.address.port(), key.display().to_string());
    format!("[hosts.attic]\naddress = \"{address}\"\nport = {port}\nkey_file = {key:?}\n{more}\n")
}

/// The machine is installed anew.
async fn new_key(sshd: &mut Sshd) -> String {
    let key = HostKey::generate();
    sshd.kill();
    std::fs::write(sshd.home.join("host_key"), key.private_pem.expose_secret()).expect("it is written");
    sshd.run().await;
    spawnpoint::clients::ssh::Pin::parse(&key.public_line).expect("a key").fingerprint()
}

/// Keys and addresses differ from run to run.
fn steady(text: &str, sshd: &Sshd, keys: &[(&str, &str)]) -> String {
    let mut text = text.replace(&sshd.address.to_string(), "ADDRESS");
    for (key, name) in keys {
        text = text.replace(key, name);
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_is_trusted_by_a_clear_yes_and_a_new_key_of_it_is_not() {
    if !sshd_or_skip() {
        return;
    }
    let mut sshd = Sshd::start().await;
    let first = sshd.host_key.fingerprint();
    let home = Home::with(&machine(&sshd, ""));
    let mut story = String::new();
    let mut say = async |sshd: &Sshd, words: &[&str], typed: &str, keys: &[(&str, &str)]| {
        let (text, content) = home.says(&[&["trust"], words].concat(), typed).await;
        story += &format!("$ trust {}\n{text}\n({content})\n", words.join(" "));
        story = steady(&story, sshd, keys);
    };
    let keys = [(first.as_str(), "FIRST")];
    say(&sshd, &["cellar"], "", &keys).await;
    say(&sshd, &["attic"], "", &keys).await;
    say(&sshd, &["attic"], "perhaps\n", &keys).await;
    say(&sshd, &["attic"], "y\n", &keys).await;
    say(&sshd, &["attic"], "", &keys).await;
    let file = home.dir.path().join("data/ssh/trusted.json");
    assert_eq!(std::fs::metadata(&file).expect("it is kept").permissions().mode() & 0o777, 0o600);

    let second = new_key(&mut sshd).await;
    let keys = [(first.as_str(), "FIRST"), (second.as_str(), "SECOND")];
    say(&sshd, &["attic"], "n\n", &keys).await;
    say(&sshd, &["attic", "--fingerprint", &first, "--yes"], "", &keys).await;
    say(&sshd, &["attic", "--fingerprint", &second, "--yes"], "", &keys).await;
    say(&sshd, &["attic"], "", &keys).await;
    // Nobody compared anything.
    let (text, content) = home.says(&["trust", "attic", "--yes"], "").await;
    assert!(!content && text.contains("--fingerprint"), "{text}");
    insta::assert_snapshot!(story);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_in_the_configuration_always_counts() {
    if !sshd_or_skip() {
        return;
    }
    let mut sshd = Sshd::start().await;
    let first = sshd.host_key.fingerprint();
    let home = Home::with(&machine(&sshd, &format!("host_key = \"{first}\"")));
    let (text, content) = home.says(&["trust", "attic"], "").await;
    assert!(content && text.contains("That is its `host_key` in the configuration"), "{text}");
    let second = new_key(&mut sshd).await;
    let (text, content) = home.says(&["trust", "attic", "--fingerprint", &second, "--yes"], "").await;
    assert!(
        !content && text.contains("the configuration always counts") && text.contains("Nothing was trusted"),
        "{text}"
    );
}

/// A start says what is missing, and goes on when somebody has trusted the machine: without a restart.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_on_a_machine_that_nobody_trusts_fails_and_a_program_that_runs_hears_of_the_trust() {
    if !sshd_or_skip() {
        return;
    }
    // Whatever it is asked to do there, it fails: nothing of this machine is touched.
    let sshd = Sshd::with("ForceCommand exit 1").await;
    let home = Home::with(&machine(&sshd, ""));
    let config = Config::load(Some(&home.config()), std::iter::empty()).expect("a configuration");
    let program = Program::build(&config).await.expect("the program is put together");
    let stop = CancellationToken::new();
    let work = program.work(&stop);
    let caller = Caller::operator(GuildId("test".into()));
    let place = Place { provider: Some("ssh".into()), region: Some("attic".into()), ..Place::default() };
    let new = NewServer { name: "world".into(), game: "toy".into(), place, ..NewServer::default() };
    program.app.create(&caller, new).await.expect("it is made");
    let start = async || {
        let job = program.app.start(&caller, "world", None).await.expect("it is asked for");
        let deadline = Instant::now() + PATIENCE;
        loop {
            let view = program.app.job_view(job).await.expect("the job");
            if view.outcome.is_some() {
                return format!("{view:?}");
            }
            assert!(Instant::now() < deadline, "it does not end: {view:#?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let failed = start().await;
    let fingerprint = sshd.host_key.fingerprint();
    assert!(
        failed.contains(&format!(
            "Nobody has said yet that the machine `attic` is the right one. It shows the key {fingerprint}."
        )),
        "{failed}"
    );
    assert!(failed.contains("`spawnpoint trust attic`"), "{failed}");
    let (text, content) = home.says(&["trust", "attic", "--fingerprint", &fingerprint, "--yes"], "").await;
    assert!(content, "{text}");
    let failed = start().await;
    assert!(failed.contains("ended with code 1"), "it was let in, and could do nothing there: {failed}");
    stop.cancel();
    work.await.expect("the engine does not panic");
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_says_which_machines_can_be_used_and_what_is_missing_on_the_others() {
    if !sshd_or_skip() {
        return;
    }
    let mut sshd = Sshd::start().await;
    let first = sshd.host_key.fingerprint();
    let pin = format!("host_key = \"{first}\"");
    let no_sudo = "case \"$SSH_ORIGINAL_COMMAND\" in *apt-get*) exit 0;; *) exit 1;; esac";
    let bare = Sshd::with(&format!("ForceCommand {no_sudo}")).await;
    let bare_pin = format!("host_key = \"{}\"", bare.host_key.fingerprint());
    let home = Home::with(
        &[
            machine(&sshd, &pin),
            machine(&sshd, "").replace("attic", "unknown"),
            machine(&bare, &bare_pin).replace("attic", "bare"),
            machine(&sshd, &pin).replace("attic", "locked").replace("key_file = ", "# "),
            machine(&sshd, &pin)
                .replace("attic", "dark")
                .replace(&format!("port = {}", sshd.address.port()), "port = 1"),
        ]
        .concat(),
    );
    let (text, content) = home.says(&["doctor"], "").await;
    assert!(!content, "{text}");
    let lines: Vec<&str> = text.lines().filter(|line| line.contains("machine `")).collect();
    let own_line = regex::Regex::new("ssh-ed25519 [A-Za-z0-9+/=]+( spawnpoint)?").unwrap();
    let said = own_line.replace_all(&lines.join("\n"), "LINE").into_owned();
    let said = steady(&said, &sshd, &[(first.as_str(), "FIRST"), (&format!("{}:1 ", sshd.address.ip()), "ADDRESS:1 ")]);
    insta::assert_snapshot!(said);

    // Installed anew: it is refused, and it is said how to trust it.
    new_key(&mut sshd).await;
    let (text, _) = home.says(&["doctor"], "").await;
    let attic = text.lines().find(|line| line.contains("`attic`")).expect("a line");
    assert!(attic.starts_with("MEND") && attic.contains("showed another host key"), "{attic}");
    assert!(attic.contains("`spawnpoint trust` takes its new key"), "{attic}");
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_asks_every_provider_whether_its_token_works_and_waits_for_none() {
    let Some(clouds) = Clouds::start(&Options { machines: Machines::None, ..Options::default() }) else { return };
    let account = |name: &str| format!("[cloud.{name}]\ntoken = \"hush-{name}\"\napi_url = \"{}\"\n", clouds.url(name));
    let home = Home::with(&["linode", "hetzner", "digitalocean", "vultr"].map(account).concat());
    let lines = |text: &str| {
        let of = |line: &&str| {
            ["linode", "Linode", "hetzner", "Hetzner", "digitalocean", "vultr"].iter().any(|name| line.contains(name))
        };
        text.lines().filter(of).map(|line| line.to_owned() + "\n").collect::<String>()
    };
    let (text, _) = home.says(&["doctor"], "").await;
    let mut story = lines(&text);
    assert_eq!(text.matches("accepts the token").count(), 4, "{text}");
    clouds.fail(Failure::denied().of("linode").times(None));
    clouds.fail(Failure::slow(Duration::from_secs(60)).of("hetzner").times(None));
    let began = Instant::now();
    let (text, content) = home.says(&["doctor"], "").await;
    assert!(began.elapsed() < Duration::from_secs(50), "{:?}", began.elapsed());
    assert!(!content && !text.contains("hush"), "{text}");
    story += "---\n";
    story += &lines(&text);
    insta::assert_snapshot!(story);
    assert!(clouds.requests().iter().all(|request| request.method == "GET"), "nothing was made");
}
