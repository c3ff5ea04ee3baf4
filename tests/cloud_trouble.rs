//! The cloud backend when things go wrong that nobody watches: hours without Spawnpoint, a token that sees other hosts, a
//! provider in trouble, an answer that comes too late. Hosts and machines are real, the provider is not.

mod common {
    pub mod beds;
    pub mod cloud;
    pub mod stage;
}

use common::beds::{evening, nothing_left, own_machine, rent_at};
use common::cloud::{Clouds, Failure, Machines, Options};
use common::stage::Stage;
use spawnpoint::app::{Choice, NewServer};
use spawnpoint::discord::render;
use spawnpoint::model::JobId;
use spawnpoint::model::access::Actor;
use spawnpoint::model::cost::Rental;
use spawnpoint::model::host::HostRef;
use spawnpoint::model::job::{Outcome, Step};
use spawnpoint::model::server::{Backend, Seen, Server};
use spawnpoint::model::view::JobView;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

async fn until_begun(stage: &Stage, job: JobId, step: Step) {
    let begun = async || stage.program.store.job(job).await.unwrap().unwrap().0.has_begun(step).then_some(());
    stage.until(step.label(), begun).await;
}

async fn until_succeeded(stage: &Stage, job: JobId) {
    let end =
        async || (stage.program.app.job_view(job).await.unwrap().outcome == Some(Outcome::Succeeded)).then_some(());
    stage.until("the end of the job", end).await;
}

fn error_of(job: &JobView, step: Step) -> String {
    let found = job.steps.iter().find(|one| one.label == step.label()).expect("the job has this step");
    found.error.clone().unwrap_or_default()
}

fn shell(clouds: &Clouds, script: &str) -> String {
    let container = clouds.living().remove(0).container.expect("it is a container");
    let ran = Command::new("docker").args(["exec", &container, "bash", "-euc", script]).output().unwrap();
    assert!(ran.status.success(), "{script}: {}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8_lossy(&ran.stdout).trim().to_owned()
}

/// Two hours of play, and then nobody watches over it any more and the host stops the game.
const HOURS: &str = r#"cd /srv/spawnpoint/*/state; id=$(basename "$(dirname "$PWD")")
    for turn in 1 2 3; do echo turn | /opt/spawnpoint/keeper type "$id"; done
    until [ "$(cat ../game/world/turns 2>/dev/null)" = 3 ]; do sleep 0.1; done
    printf '%-60s\n' "$(($(date +%s) - 7200))" >started_at
    /opt/spawnpoint/keeper stop "$id" deadman"#;

/// From now on the host takes longer to say how the game is than anybody waits.
const SLOW_STATUS: &str = r#"cd /opt/spawnpoint; mv keeper keeper.real
    printf '%s\n' '#!/bin/sh' '[ "$1" != status ] || sleep 60' 'exec /opt/spawnpoint/keeper.real "$@"' >keeper
    chmod +x keeper"#;

/// From now on nobody hears that the game was started.
const NEVER_STARTED: &str = r#"cd /opt/spawnpoint; mv keeper keeper.real
    printf '%s\n' '#!/bin/sh' '/opt/spawnpoint/keeper.real "$@"' '[ "$1" != start ] || sleep 600' >keeper
    chmod +x keeper"#;

/// Nobody wants the server on: what is left is stopped like anything else, with a backup, and the next start has it.
async fn saved_with_three_turns(stage: &Stage) {
    let app = &stage.program.app;
    let saved = async || {
        let view = app.status(&stage.caller, "world").await.unwrap();
        (view.job.is_none() && !app.backups(&stage.caller, "world").await.unwrap().is_empty()).then_some(())
    };
    stage.until("the world to be saved", saved).await;
    app.settings_apply(&stage.caller, "world", BTreeMap::from([("BEHAVIOUR".into(), "good".into())])).await.unwrap();
    stage.starts_with("world", 3).await;
    stage.stop_server("world").await;
}

/// Spawnpoint went away before it had seen the game ready, and comes back when all is over.
async fn a_start_is_taken_up_after_hours_of_play(mut stage: Stage, on_the_host: impl Fn(&str)) -> Stage {
    stage.create("world", "toy", &[("BEHAVIOUR", "never-ready")]).await;
    let job = stage.program.app.start(&stage.caller, "world", None).await.unwrap();
    until_begun(&stage, job, Step::AwaitReady).await;
    stage.rest().await;
    on_the_host(HOURS);
    let stage = stage.work_now();
    let end = stage.end_of(job).await;
    assert_eq!(end.outcome, Some(Outcome::Failed), "{end:#?}");
    let shown = render::job(&end, stage.program.app.now()).text;
    assert!(shown.contains("people may have played") && shown.contains("until its world is saved"), "{shown}");
    assert!(shown.contains("What stays is said above"), "{shown}");
    saved_with_three_turns(&stage).await;
    stage
}

#[tokio::test]
async fn a_host_that_was_played_on_while_nobody_watched_is_saved_and_not_undone() {
    let Some((clouds, stage)) = evening("hetzner").await else { return };
    let stage = a_start_is_taken_up_after_hours_of_play(stage, |script| drop(shell(&clouds, script))).await;
    nothing_left(&clouds);
    stage.close().await;
}

/// Spawnpoint is away for longer than the host waits for a beat.
const UNHEARD: &str = r#"cd /srv/spawnpoint/*/state; sed -i 's/^deadman_s=.*/deadman_s=2/' ../settings
    echo warn_wait_s=1 >>../settings
    id=$(basename "$(dirname "$PWD")")
    until /opt/spawnpoint/keeper status "$id" | grep -q '^state=stopped'; do sleep 0.2; done
    /opt/spawnpoint/keeper status "$id"; cat ../game/world/turns log"#;

#[tokio::test]
async fn a_host_that_hears_nothing_warns_its_players_and_stops_and_its_world_comes_home() {
    let Some((clouds, mut stage)) = evening("hetzner").await else { return };
    stage.create("world", "toy", &[]).await;
    stage.start("world").await;
    stage.turns("world", 3).await;
    stage.rest().await;
    let seen = shell(&clouds, UNHEARD);
    for part in ["deadman=fired", "ended_by=deadman", "Spawnpoint cannot be reached any more."] {
        assert!(seen.contains(part), "{part} is not in {seen}");
    }
    assert!(seen.lines().any(|line| line == "3"), "the world was not saved: {seen}");
    assert_eq!(clouds.living().len(), 1, "the host alone destroys nothing");
    let stage = stage.work_now();
    saved_with_three_turns(&stage).await;
    nothing_left(&clouds);
    stage.close().await;
}

/// The start goes on with a run of its own, which leaves no trace of the one before.
#[tokio::test]
async fn hours_of_play_of_which_not_even_the_beginning_was_heard_are_saved() {
    let Some((clouds, mut stage)) = evening("hetzner").await else { return };
    let app = &stage.program.app;
    stage.create("world", "toy", &[("BEHAVIOUR", "never-ready")]).await;
    let job = app.start(&stage.caller, "world", None).await.unwrap();
    until_begun(&stage, job, Step::Install).await;
    shell(&clouds, NEVER_STARTED);
    let runs = async || {
        let begun = stage.program.store.job(job).await.unwrap().unwrap().0.has_begun(Step::StartGame);
        (begun && !shell(&clouds, "ls /srv/spawnpoint/*/state/started_at 2>/dev/null || true").is_empty()).then_some(())
    };
    stage.until("the game to run", runs).await;
    stage.rest().await;
    shell(&clouds, "mv /opt/spawnpoint/keeper.real /opt/spawnpoint/keeper");
    shell(&clouds, HOURS);
    let stage = stage.work_now();
    let end = stage.end_of(job).await;
    assert_eq!(end.outcome, Some(Outcome::Failed), "{end:#?}");
    saved_with_three_turns(&stage).await;
    nothing_left(&clouds);
    stage.close().await;
}

/// As where a recipe looks for the world in the wrong place: the first evening would go with its host.
#[tokio::test]
async fn a_host_on_which_no_file_of_a_world_is_found_stays_until_somebody_has_looked() {
    let Some((clouds, stage)) = evening("hetzner").await else { return };
    let app = &stage.program.app;
    stage.create("world", "toy", &[]).await;
    stage.start("world").await;
    app.console(&stage.caller, "world", "turn").await.unwrap();
    shell(&clouds, "cd /srv/spawnpoint/*/game; mv world elsewhere; rm -f settings/keep.txt");
    // A backup of nothing says nothing about where the world is.
    stage.succeeds(app.backup(&stage.caller, "world", None).await.unwrap()).await;
    let job = app.stop(&stage.caller, "world", None).await.unwrap();
    let held = stage.end_of(job).await;
    assert_eq!(held.outcome, Some(Outcome::Held), "{held:#?}");
    let error = error_of(&held, Step::VerifyWorld);
    assert!(error.contains("no file of a world") && error.contains("`world`, `settings/keep.txt`"), "{error}");
    shell(&clouds, "cd /srv/spawnpoint/*/game; rm -rf world; mv elsewhere world");
    app.choose(&stage.caller, "world", Choice::Retry).await.unwrap();
    until_succeeded(&stage, job).await;
    nothing_left(&clouds);
    stage.starts_with("world", 1).await;

    // From here on an admin says that there is nothing to keep, and then it is so.
    shell(&clouds, "cd /srv/spawnpoint/*/game; mv world elsewhere; rm -f settings/keep.txt");
    let job = app.stop(&stage.caller, "world", None).await.unwrap();
    assert_eq!(stage.end_of(job).await.outcome, Some(Outcome::Held));
    app.choose(&stage.caller, "world", Choice::Force).await.unwrap();
    until_succeeded(&stage, job).await;
    nothing_left(&clouds);
    let refused = app.start(&stage.caller, "world", None).await.unwrap_err().to_string();
    assert!(refused.contains("its world is in doubt") && refused.contains("0 files"), "{refused}");
    stage.close().await;
}

/// As on a machine that was installed anew, or whose disk did not come up.
const FOLDER_GONE: &str = r#"pkill -KILL -f '[/]opt/spawnpoint/keeper' || true
    pkill -KILL -u "$(getent passwd | grep ^sp- | cut -d: -f1)" || true; rm -rf /srv/spawnpoint/*"#;

/// A backup of two turns, and a third that is nowhere any more: nobody is asked, and the game does not begin anew.
async fn a_folder_is_gone_and_its_world_is_not(stage: &Stage, on_the_host: impl Fn(&str)) {
    let app = &stage.program.app;
    stage.create("world", "toy", &[]).await;
    stage.start("world").await;
    stage.turns("world", 2).await;
    let backup = app.backup(&stage.caller, "world", None).await.unwrap();
    stage.succeeds(backup).await;
    stage.turns("world", 1).await;
    on_the_host(FOLDER_GONE);
    let next = JobId(backup.0 + 1);
    stage.until("the start after the crash", async || app.job_view(next).await.ok()).await;
    let end = stage.succeeds(next).await;
    let note = end.steps.iter().find(|step| step.step == Step::PushWorld).and_then(|step| step.note.clone());
    let note = note.unwrap_or_default();
    assert!(note.ends_with("what was played since that backup is lost"), "{note}");
    assert!(app.console(&stage.caller, "world", "turn").await.unwrap().contains("turn 3"));
    stage.stop_server("world").await;
}

#[tokio::test]
async fn a_machine_that_lost_its_folder_begins_with_the_newest_backup() {
    let Some((machine, stage)) = own_machine("tests/recipes").await else { return };
    a_folder_is_gone_and_its_world_is_not(&stage, |script| drop(machine.shell(script))).await;
    stage.close().await;
}

#[tokio::test]
async fn a_host_that_lost_its_folder_begins_with_the_newest_backup() {
    let Some((clouds, stage)) = evening("hetzner").await else { return };
    a_folder_is_gone_and_its_world_is_not(&stage, |script| drop(shell(&clouds, script))).await;
    nothing_left(&clouds);
    stage.close().await;
}

/// rsync takes a file of the same size and time for the one that it has, and only the comparison sees the difference.
#[tokio::test]
async fn a_copy_that_differs_in_nothing_but_content_is_fetched_anew() {
    let Some((clouds, stage)) = evening("hetzner").await else { return };
    let app = &stage.program.app;
    stage.create("world", "toy", &[]).await;
    stage.start("world").await;
    stage.turns("world", 2).await;
    let region = |content: &str| {
        let text = "cd /srv/spawnpoint/*/game/world; printf %s CONTENT >region; touch -d 2026-01-01 region";
        shell(&clouds, &format!("{}; chown --reference=. region", text.replace("CONTENT", content)))
    };
    region("early");
    stage.succeeds(app.backup(&stage.caller, "world", None).await.unwrap()).await;
    region("later");
    stage.stop_server("world").await;
    nothing_left(&clouds);
    stage.starts_with("world", 2).await;
    assert_eq!(shell(&clouds, "cat /srv/spawnpoint/*/game/world/region"), "later");
    stage.stop_server("world").await;
    stage.close().await;
}

/// Somebody started it by hand while its stop waited.
#[tokio::test]
async fn a_game_that_runs_again_on_its_host_is_ended_before_its_world_is_taken_for_the_last() {
    let Some((clouds, stage)) = evening("hetzner").await else { return };
    let app = &stage.program.app;
    stage.create("world", "toy", &[]).await;
    stage.start("world").await;
    stage.turns("world", 1).await;
    shell(&clouds, "mv /usr/bin/rsync /usr/bin/rsync.away");
    let job = app.stop(&stage.caller, "world", None).await.unwrap();
    assert_eq!(stage.end_of(job).await.outcome, Some(Outcome::Held));
    shell(&clouds, "mv /usr/bin/rsync.away /usr/bin/rsync; /opt/spawnpoint/keeper start $(ls /srv/spawnpoint)");
    app.choose(&stage.caller, "world", Choice::Retry).await.unwrap();
    let held = async || {
        let view = app.job_view(job).await.unwrap();
        (view.outcome == Some(Outcome::Held) && !error_of(&view, Step::VerifyWorld).is_empty()).then_some(view)
    };
    let held = stage.until("the comparison", held).await;
    let error = error_of(&held, Step::VerifyWorld);
    assert!(error.contains("The game runs again on its host") && error.contains("`/server kill`"), "{error}");
    assert_eq!(clouds.living().len(), 1);
    app.kill(&stage.caller, "world").await.unwrap();
    app.choose(&stage.caller, "world", Choice::Retry).await.unwrap();
    until_succeeded(&stage, job).await;
    nothing_left(&clouds);
    stage.starts_with("world", 1).await;
    stage.stop_server("world").await;
    stage.close().await;
}

/// The host bills and its firewall does not: one that may not be deleted holds no stop up.
#[tokio::test]
async fn a_firewall_that_does_not_go_is_found_later_and_its_host_is_off_the_bill() {
    let Some((clouds, stage)) = evening("hetzner").await else { return };
    let app = &stage.program.app;
    stage.create("world", "toy", &[]).await;
    stage.start("world").await;
    let keys = stage.config.data_dir.join("ssh/hosts");
    // And one of the same server that nobody has seen go, for which its key may still be wanted.
    let id = app.status(&stage.caller, "world").await.unwrap().id;
    std::fs::write(keys.join(format!("{id}-4711")), "a key").unwrap();
    clouds.fail(Failure::denied().of("hetzner").on("DELETE", "^/firewalls/").times(None));
    let end = stage.stop_server("world").await;
    assert!(clouds.living().is_empty(), "{end:#?}");
    assert_eq!(stage.program.store.left_rentals().await.unwrap(), []);
    let left: Vec<_> = std::fs::read_dir(keys).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, [format!("{id}-4711").as_str()]);
    clouds.heal();
    let orphans = app.orphans(&stage.caller).await.unwrap().found;
    let [firewall] = &orphans[..] else { panic!("one: {orphans:#?}") };
    assert_eq!(firewall.orphan.kind.word(), "firewall");
    app.orphan_delete(&stage.caller, &firewall.orphan.tag()).await.unwrap();
    nothing_left(&clouds);
    stage.close().await;
}

#[tokio::test]
async fn a_folder_that_was_played_in_while_nobody_watched_is_saved_and_not_undone() {
    let Some((machine, stage)) = own_machine("tests/recipes").await else { return };
    let stage = a_start_is_taken_up_after_hours_of_play(stage, |script| drop(machine.shell(script))).await;
    assert_eq!(machine.shell("ls /srv/spawnpoint"), "");
    stage.close().await;
}

#[tokio::test]
async fn a_token_that_does_not_see_the_host_costs_neither_the_world_nor_the_host() {
    let Some((clouds, stage)) = evening("hetzner").await else { return };
    let app = &stage.program.app;
    stage.create("world", "toy", &[]).await;
    stage.start("world").await;
    stage.turns("world", 2).await;
    // As a token of another project is answered.
    for method in ["GET", "DELETE"] {
        clouds.fail(Failure::status(404).of("hetzner").on(method, "^/servers/").times(None));
    }
    let job = app.stop(&stage.caller, "world", None).await.unwrap();
    let held = stage.end_of(job).await;
    assert_eq!(held.outcome, Some(Outcome::Held), "{held:#?}");
    assert!(error_of(&held, Step::DestroyHost).contains("another project"), "{held:#?}");
    assert_eq!(clouds.living().len(), 1, "{:#?}", clouds.living());
    assert_eq!(app.backups(&stage.caller, "world").await.unwrap().len(), 1, "its world was saved over SSH");
    clouds.heal();
    app.choose(&stage.caller, "world", Choice::Retry).await.unwrap();
    until_succeeded(&stage, job).await;
    nothing_left(&clouds);
    stage.starts_with("world", 2).await;
    stage.stop_server("world").await;
    stage.close().await;
}

#[tokio::test]
async fn a_provider_in_trouble_holds_up_no_stop_that_nobody_watches() {
    let Some((clouds, stage)) = evening("hetzner").await else { return };
    stage.create("world", "toy", &[]).await;
    stage.start("world").await;
    stage.turns("world", 2).await;
    clouds.fail(Failure::status(503).of("hetzner").times(None));
    let asked = clouds.requests().len();
    let job = stage.program.app.stop(&stage.caller, "world", None).await.unwrap();
    let many = async || {
        let view = stage.program.app.job_view(job).await.unwrap();
        assert_eq!(view.outcome, None, "{view:#?}");
        let about_it = |one: &&common::cloud::Request| one.path.starts_with("/servers/");
        (clouds.requests().iter().skip(asked).filter(about_it).count() > 18).then_some(())
    };
    stage.until("many tries", many).await;
    clouds.heal();
    stage.succeeds(job).await;
    nothing_left(&clouds);
    stage.close().await;
}

#[tokio::test]
async fn a_host_that_comes_after_its_start_was_called_off_is_destroyed() {
    let Some((clouds, stage)) = evening("hetzner").await else { return };
    let app = &stage.program.app;
    stage.create("world", "toy", &[]).await;
    clouds.fail(Failure::slow(Duration::from_secs(8)).of("hetzner").on("POST", "^/servers$"));
    let job = app.start(&stage.caller, "world", None).await.unwrap();
    let asked =
        async || clouds.requests().iter().any(|one| one.method == "POST" && one.path == "/servers").then_some(());
    stage.until("the request for a host", asked).await;
    app.choose(&stage.caller, "world", Choice::Cancel).await.unwrap();
    let end = stage.end_of(job).await;
    assert_eq!(end.outcome, Some(Outcome::Cancelled), "{end:#?}");
    assert_eq!(clouds.hosts().len(), 1, "it came: {:#?}", clouds.hosts());
    nothing_left(&clouds);
    let keys: Vec<_> = std::fs::read_dir(stage.config.data_dir.join("ssh/hosts")).unwrap().flatten().collect();
    assert!(keys.is_empty(), "{keys:?}");
    stage.close().await;
}

/// A key that cannot be read is not taken for one that was never made: a host may have come with it.
#[tokio::test]
async fn a_host_whose_key_cannot_be_read_just_now_is_not_taken_for_none() {
    let Some((clouds, stage)) = evening("hetzner").await else { return };
    let app = &stage.program.app;
    stage.create("world", "toy", &[]).await;
    clouds.fail(Failure::slow(Duration::from_secs(8)).of("hetzner").on("POST", "^/servers$"));
    let job = app.start(&stage.caller, "world", None).await.unwrap();
    let asked =
        async || clouds.requests().iter().any(|one| one.method == "POST" && one.path == "/servers").then_some(());
    stage.until("the request for a host", asked).await;
    let id = app.status(&stage.caller, "world").await.unwrap().id;
    let key = stage.config.data_dir.join(format!("ssh/hosts/{id}-{job}"));
    let aside = key.with_extension("aside");
    std::fs::rename(&key, &aside).unwrap();
    std::fs::create_dir(&key).unwrap();
    app.choose(&stage.caller, "world", Choice::Cancel).await.unwrap();
    let held = stage.end_of(job).await;
    assert_eq!(held.outcome, Some(Outcome::Held), "{held:#?}");
    assert!(error_of(&held, Step::CreateHost).contains("reading the keys of hosts"), "{held:#?}");
    std::fs::remove_dir(&key).unwrap();
    std::fs::rename(&aside, &key).unwrap();
    app.choose(&stage.caller, "world", Choice::Retry).await.unwrap();
    let over = async || (app.job_view(job).await.unwrap().outcome == Some(Outcome::Cancelled)).then_some(());
    stage.until("the end of the start", over).await;
    nothing_left(&clouds);
    stage.close().await;
}

/// Nor is one forgotten because another that is gone by now is still on record.
#[tokio::test]
async fn a_host_that_comes_late_in_place_of_one_that_is_gone_is_destroyed() {
    let Some((clouds, stage)) = evening("hetzner").await else { return };
    let app = &stage.program.app;
    stage.create("world", "toy", &[]).await;
    stage.start("world").await;
    clouds.fail(Failure::slow(Duration::from_secs(8)).of("hetzner").on("POST", "^/servers$"));
    clouds.die(&clouds.living()[0].id, "gone");
    // The watcher asks for another.
    let asked = async || {
        let requests = clouds.requests();
        let posts = requests.iter().filter(|one| one.method == "POST" && one.path == "/servers");
        (posts.count() == 2).then_some(())
    };
    stage.until("the request for another host", asked).await;
    let job = app.status(&stage.caller, "world").await.unwrap().job.expect("a start is under way").id;
    app.choose(&stage.caller, "world", Choice::Cancel).await.unwrap();
    let end = stage.end_of(job).await;
    assert_eq!(end.outcome, Some(Outcome::Cancelled), "{end:#?}");
    assert_eq!(clouds.hosts().len(), 2, "it came: {:#?}", clouds.hosts());
    nothing_left(&clouds);
    stage.close().await;
}

/// Nor because the one on record was from another provider.
#[tokio::test]
async fn a_host_that_comes_late_from_another_provider_than_the_lost_one_is_destroyed() {
    let Some(clouds) = Clouds::start(&Options { machines: Machines::None, ..Options::default() }) else { return };
    let stage = Stage::open("tests/recipes", |config| {
        ["linode", "hetzner"].iter().for_each(|provider| rent_at(config, &clouds, provider));
    })
    .await;
    let app = &stage.program.app;
    let server = server_at(&stage, "linode", "world").await;
    let lost = planted_host(&clouds, "hetzner");
    assert!(stage.program.store.adopt_host(&server.id, &lost, &Actor::Operator, 0).await.unwrap());
    clouds.die(&lost.id, "gone");
    clouds.fail(Failure::slow(Duration::from_secs(8)).of("linode").on("POST", "^/linode/instances$"));
    let job = app.start(&stage.caller, "world", None).await.unwrap();
    let asked = async || {
        let requests = clouds.requests();
        requests.iter().any(|one| one.method == "POST" && one.path == "/linode/instances").then_some(())
    };
    stage.until("the request for another host", asked).await;
    app.choose(&stage.caller, "world", Choice::Cancel).await.unwrap();
    let end = stage.end_of(job).await;
    assert_eq!(end.outcome, Some(Outcome::Cancelled), "{end:#?}");
    assert_eq!(clouds.hosts().iter().filter(|host| host.provider == "linode").count(), 1, "it came: {end:#?}");
    nothing_left(&clouds);
    stage.close().await;
}

/// Its provider bills a begun hour all the same. The first try to undo does not see it go, and the second does.
#[tokio::test]
async fn a_host_that_goes_before_it_was_ever_on_record_is_on_the_bill_once() {
    let Some(clouds) = Clouds::start(&Options { machines: Machines::None, ..Options::default() }) else { return };
    let stage = Stage::open("tests/recipes", |config| rent_at(config, &clouds, "hetzner")).await;
    let app = &stage.program.app;
    stage.create("world", "toy", &[]).await;
    clouds.fail(Failure::slow(Duration::from_secs(8)).of("hetzner").on("POST", "^/servers$"));
    clouds.fail(Failure::denied().of("hetzner").on("DELETE", "^/servers/").times(None));
    let job = app.start(&stage.caller, "world", None).await.unwrap();
    let asked =
        async || clouds.requests().iter().any(|one| one.method == "POST" && one.path == "/servers").then_some(());
    stage.until("the request for a host", asked).await;
    app.choose(&stage.caller, "world", Choice::Cancel).await.unwrap();
    let held = stage.end_of(job).await;
    assert_eq!(held.outcome, Some(Outcome::Held), "{held:#?}");
    let bill = async || stage.program.store.rentals_of(&stage.caller.guild, 0).await.unwrap();
    let before = bill().await;
    clouds.heal();
    app.choose(&stage.caller, "world", Choice::Retry).await.unwrap();
    let over = async || (app.job_view(job).await.unwrap().outcome == Some(Outcome::Cancelled)).then_some(());
    stage.until("the end of the start", over).await;

    let after = bill().await;
    let ([first], [rental]) = (&before[..], &after[..]) else { panic!("one and one: {before:#?} {after:#?}") };
    assert_eq!(*first, Rental { ended_at: first.ended_at, ..rental.clone() });
    assert!(first.ended_at.is_some() && first.ended_at < rental.ended_at, "{before:#?} {after:#?}");
    let (host, server) = (clouds.hosts().remove(0), app.status(&stage.caller, "world").await.unwrap());
    assert_eq!((&rental.host, &rental.server.0, &rental.actor), (&host.id, &server.id, &stage.caller.actor));
    let billing = server.billing.expect("it is on the bill");
    assert!(!billing.on && !billing.month.is_nothing(), "{billing:#?}");
    nothing_left(&clouds);
    stage.close().await;
}

/// At a provider that has no word for a host that leaves.
#[tokio::test]
async fn a_host_that_was_made_too_late_is_on_the_bill_and_the_next_start_goes_on_without_it() {
    let Some(clouds) = Clouds::start(&Options { machines: Machines::None, ..Options::default() }) else { return };
    let stage = Stage::open("tests/recipes", |config| rent_at(config, &clouds, "vultr")).await;
    let app = &stage.program.app;
    stage.create("world", "toy", &[]).await;
    let first = rented_and_called_off(&stage).await;
    let id = app.status(&stage.caller, "world").await.unwrap().id;
    let tags =
        [format!("spawnpoint-i-{}", stage.instance), format!("spawnpoint-s-{id}"), format!("spawnpoint-j-{first}")];
    let late = clouds.plant("vultr", "late", &tags.each_ref().map(String::as_str), &[]);
    rented_and_called_off(&stage).await;
    let bill = stage.program.store.rentals_of(&stage.caller.guild, 0).await.unwrap();
    let of_late: Vec<_> = bill.iter().filter(|rental| rental.host == late.id).collect();
    let [rental] = of_late[..] else { panic!("one: {bill:#?}") };
    assert!(rental.price.is_some() && rental.ended_at >= Some(rental.began_at), "{rental:#?}");
    assert_eq!((&rental.server.0, &rental.actor), (&id, &stage.caller.actor));
    assert_eq!(bill.len(), 3, "and the two that were on record: {bill:#?}");
    nothing_left(&clouds);
    stage.close().await;
}

/// A start that gets as far as a host on record, and is called off then.
async fn rented_and_called_off(stage: &Stage) -> JobId {
    let app = &stage.program.app;
    let job = app.start(&stage.caller, "world", None).await.unwrap();
    let rented = async || {
        let view = app.job_view(job).await.unwrap();
        assert_eq!(view.outcome, None, "{view:#?}");
        stage.program.store.job(job).await.unwrap().unwrap().0.has_begun(Step::AwaitHost).then_some(())
    };
    stage.until("a host", rented).await;
    app.choose(&stage.caller, "world", Choice::Cancel).await.unwrap();
    let end = stage.end_of(job).await;
    assert_eq!(end.outcome, Some(Outcome::Cancelled), "{end:#?}");
    job
}

/// A list may go on showing it for a while. Its key is gone as well, so nobody could look what is on it.
#[tokio::test]
async fn a_host_that_is_gone_and_still_listed_is_no_orphan_and_no_start_finds_it() {
    let Some(clouds) = Clouds::start(&Options { machines: Machines::None, ..Options::default() }) else { return };
    let providers = ["linode", "hetzner", "digitalocean", "vultr"];
    let stage = Stage::open("tests/recipes", |config| {
        providers.iter().for_each(|provider| rent_at(config, &clouds, provider));
    })
    .await;
    let server = server_at(&stage, "hetzner", "world").await;
    rented_and_called_off(&stage).await;
    nothing_left(&clouds);
    let (instance, id) = (stage.instance.as_str(), server.id.0.as_str());
    let tags = [format!("spawnpoint-i-{instance}"), format!("spawnpoint-s-{id}"), "spawnpoint-j-7".to_owned()];
    let labels = [("spawnpoint-instance", instance), ("spawnpoint-server", id), ("spawnpoint-job", "7")];
    for provider in providers {
        let gone = clouds.plant(provider, "gone", &tags.each_ref().map(String::as_str), &labels);
        clouds.die(&gone.id, "gone");
    }
    clouds.fail(Failure::stale_list());
    let orphans = stage.program.app.orphans(&stage.caller).await.unwrap();
    let nothing = orphans.found.is_empty() && orphans.waiting.is_empty() && orphans.leaving.is_empty();
    assert!(nothing && orphans.unasked.is_empty(), "{orphans:#?}");
    let asked = clouds.requests().into_iter().filter(|one| one.failure.as_deref() == Some("stale_list"));
    let lagged: std::collections::BTreeSet<String> = asked.map(|one| one.provider).collect();
    assert_eq!(lagged.len(), providers.len(), "{lagged:?}");
    rented_and_called_off(&stage).await;
    nothing_left(&clouds);
    stage.close().await;
}

#[tokio::test]
async fn a_host_that_is_powered_off_is_said_to_be_and_its_stop_goes_on_when_it_is_on_again() {
    let Some((clouds, stage)) = evening("hetzner").await else { return };
    stage.create("world", "toy", &[]).await;
    stage.start("world").await;
    clouds.die(&clouds.living()[0].id, "off");
    let job = stage.program.app.stop(&stage.caller, "world", None).await.unwrap();
    let held = stage.end_of(job).await;
    assert_eq!(held.outcome, Some(Outcome::Held), "{held:#?}");
    let said = error_of(&held, Step::StopGame);
    assert!(said.contains("is powered off, and bills all the same") && said.contains("at hetzner"), "{said}");
    assert!(held.tries_again_at.is_some(), "{held:#?}");
    let no_log = stage.program.app.logs(&stage.caller, "world", 10).await.unwrap_err().to_string();
    assert!(no_log.contains("does not answer just now") && no_log.contains("the host bills"), "{no_log}");
    // It never comes back.
    clouds.die(&clouds.hosts()[0].id, "gone");
    stage.program.app.choose(&stage.caller, "world", Choice::Retry).await.unwrap();
    until_succeeded(&stage, job).await;
    nothing_left(&clouds);
    stage.close().await;
}

#[tokio::test]
async fn a_size_that_is_sold_out_here_is_taken_elsewhere_where_it_costs_no_more() {
    let Some((clouds, stage)) = evening("hetzner").await else { return };
    stage.create("world", "toy", &[]).await;
    clouds.fail(Failure::capacity().of("hetzner").on("POST", "^/servers$"));
    let job = stage.program.app.start(&stage.caller, "world", None).await.unwrap();
    stage.succeeds(job).await;
    let said = stage.program.store.job_output(job, Some(Step::CreateHost), 100).await.unwrap().join("\n");
    assert!(said.contains("Trying size") && said.contains("instead"), "{said}");
    stage.stop_server("world").await;
    nothing_left(&clouds);
    stage.close().await;
}

#[tokio::test]
async fn who_gets_no_host_here_reads_what_another_provider_has() {
    let Some(clouds) = Clouds::start(&Options { machines: Machines::None, ..Options::default() }) else { return };
    let stage = Stage::open("tests/recipes", |config| {
        ["linode", "hetzner"].iter().for_each(|provider| rent_at(config, &clouds, provider));
        config.cloud.provider = Some("linode".into());
    })
    .await;
    let driver = stage.program.engine.driver(Backend::Cloud).expect("it is set up");
    let listed = async || {
        let offers = driver.offers().await.unwrap();
        offers.iter().any(|quote| quote.provider == "hetzner").then_some(())
    };
    stage.until("prices", listed).await;
    stage.create("world", "toy", &[]).await;
    for failure in [Failure::quota(), Failure::capacity().times(None)] {
        clouds.fail(failure.of("linode").on("POST", "^/linode/instances$"));
        let job = stage.program.app.start(&stage.caller, "world", None).await.unwrap();
        let end = stage.end_of(job).await;
        assert_eq!(end.outcome, Some(Outcome::Failed), "{end:#?}");
        let said = error_of(&end, Step::CreateHost);
        assert!(said.contains("Of the other providers, `hetzner` has size `"), "{said}");
        clouds.heal();
    }
    stage.close().await;
}

/// Of the firewall as of everything: it is asked again when its provider says, and not before.
#[tokio::test]
async fn a_start_waits_as_long_as_the_provider_asks_for() {
    let Some((clouds, stage)) = evening("hetzner").await else { return };
    stage.create("world", "toy", &[]).await;
    let busy = Failure::status(429).of("hetzner").header("Retry-After", "12");
    // The sweep asks for them as well, and may be told before the start is.
    clouds.fail(busy.on("GET", "^/firewalls").times(Some(3)));
    let job = stage.program.app.start(&stage.caller, "world", None).await.unwrap();
    let end = stage.succeeds(job).await;
    let rented = end.steps.iter().find(|one| one.step == Step::CreateHost).unwrap();
    assert_eq!(rented.attempts, 1, "{rented:#?}");
    let took = rented.ended_at.zip(rented.started_at).map(|(end, start)| end - start).unwrap();
    assert!(took >= 12_000, "{took} ms");
    stage.stop_server("world").await;
    nothing_left(&clouds);
    stage.close().await;
}

/// The same of a host that is given back. The client itself waits no longer than 10 s, and the usual pause is 30 s.
#[tokio::test]
async fn a_destroy_is_asked_for_again_at_the_moment_that_the_provider_names() {
    let Some(clouds) = Clouds::start(&Options { machines: Machines::None, ..Options::default() }) else { return };
    let stage = Stage::open("tests/recipes", |config| rent_at(config, &clouds, "hetzner")).await;
    let app = &stage.program.app;
    stage.create("world", "toy", &[]).await;
    let job = app.start(&stage.caller, "world", None).await.unwrap();
    until_begun(&stage, job, Step::AwaitHost).await;
    clouds.fail(Failure::status(429).of("hetzner").header("Retry-After", "12").on("DELETE", "^/servers/"));
    app.choose(&stage.caller, "world", Choice::Cancel).await.unwrap();
    let asked = async |times: usize| {
        let of_host = |one: &&common::cloud::Request| one.method == "DELETE" && one.path.starts_with("/servers/");
        let enough = async || (clouds.requests().iter().filter(of_host).count() >= times).then_some(());
        stage.until("the end of the host to be asked for", enough).await;
        Instant::now()
    };
    let first = asked(1).await;
    let waited = asked(2).await - first;
    // The first is seen a moment late, and the second up to one look at the host later than it might be.
    assert!((11..25).contains(&waited.as_secs()), "{waited:?}");
    let end = stage.end_of(job).await;
    assert_eq!(end.outcome, Some(Outcome::Cancelled), "{end:#?}");
    nothing_left(&clouds);
    stage.close().await;
}

#[tokio::test]
async fn a_machine_that_outlives_its_providers_record_of_it_is_waited_for() {
    let Some((clouds, stage)) = evening("hetzner").await else { return };
    stage.create("world", "toy", &[]).await;
    stage.start("world").await;
    clouds.fail(Failure::half_delete(None).of("hetzner").on("DELETE", "^/servers/").times(None));
    let job = stage.program.app.stop(&stage.caller, "world", None).await.unwrap();
    let accepted = async || {
        let asked = clouds.requests().iter().any(|one| one.method == "DELETE" && one.path.starts_with("/servers/"));
        asked.then_some(())
    };
    stage.until("the end of the host to be asked for", accepted).await;
    clouds.fail(Failure::status(404).of("hetzner").on("GET", "^/servers/").times(None));
    // Longer than one is given whose end nobody has accepted.
    let until = Instant::now() + Duration::from_secs(45);
    let waits = async || {
        let view = stage.program.app.job_view(job).await.unwrap();
        assert_eq!(view.outcome, None, "{view:#?}");
        (Instant::now() > until).then_some(())
    };
    stage.until("the machine's last breath", waits).await;
    clouds.heal();
    for host in clouds.living() {
        clouds.die(&host.id, "gone");
    }
    stage.succeeds(job).await;
    nothing_left(&clouds);
    stage.close().await;
}

/// What it says is true of other hosts than ours; that ours is slow to answer does not make it so.
#[tokio::test]
async fn a_host_that_is_slow_to_answer_is_not_gone_because_its_provider_says_so() {
    let Some((clouds, mut stage)) = evening("hetzner").await else { return };
    stage.create("world", "toy", &[]).await;
    stage.start("world").await;
    stage.rest().await;
    clouds.fail(Failure::status(404).of("hetzner").on("GET", "^/servers/").times(None));
    shell(&clouds, SLOW_STATUS);
    let server = stage.program.store.server_by_name(&stage.caller.guild, "world").await.unwrap().unwrap();
    let driver = stage.program.engine.driver(Backend::Cloud).expect("it is set up");
    let seen = driver.look(std::slice::from_ref(&server)).await;
    assert!(matches!(seen[..], [Seen::Unknown { .. }]), "{seen:?}");
    clouds.heal();
    shell(&clouds, "mv /opt/spawnpoint/keeper.real /opt/spawnpoint/keeper");
    let stage = stage.work_now();
    stage.stop_server("world").await;
    nothing_left(&clouds);
    stage.close().await;
}

#[tokio::test]
async fn a_list_that_cannot_be_had_ends_no_start_that_is_ready() {
    let Some((clouds, stage)) = evening("hetzner").await else { return };
    stage.create("world", "toy", &[]).await;
    let job = stage.program.app.start(&stage.caller, "world", None).await.unwrap();
    until_begun(&stage, job, Step::Bootstrap).await;
    // Longer than the recipe gives the game to be ready.
    clouds.fail(Failure::status(503).of("hetzner").header("Retry-After", "10").on("GET", "^/servers$").times(None));
    stage.succeeds(job).await;
    clouds.heal();
    stage.turns("world", 1).await;
    stage.stop_server("world").await;
    nothing_left(&clouds);
    stage.close().await;
}

/// Takes nftables from a host that boots, and lets this say what comes of installing it.
fn without_nft(install: &str) -> String {
    format!(
        r#"mv "$(command -v nft)" /root/nft
        printf '%s\n' '#!/bin/sh' 'case "$*" in *nftables*) {install} ;; esac' 'exec /usr/bin/apt-get "$@"' \
            >/usr/local/sbin/apt-get
        chmod +x /usr/local/sbin/apt-get"#
    )
}

/// What a start says of preparing a host that came like this.
async fn start_on_a_host_that(clouds: &Clouds, stage: &Stage, comes_like_this: &str) -> Option<String> {
    // Nobody goes on to the host before it is as it shall be.
    clouds.fail(Failure::status(503).of("hetzner").on("GET", "^/servers/").times(None));
    let job = stage.program.app.start(&stage.caller, "world", None).await.unwrap();
    let boots = async || {
        let container = clouds.living().into_iter().find_map(|host| host.container)?;
        let there = Command::new("docker").args(["exec", &container, "true"]).output().unwrap();
        there.status.success().then_some(())
    };
    stage.until("a host that boots", boots).await;
    shell(clouds, comes_like_this);
    clouds.heal();
    let end = stage.succeeds(job).await;
    end.steps.iter().find(|one| one.step == Step::Bootstrap).expect("it was prepared").note.clone()
}

#[tokio::test]
async fn a_host_that_comes_without_nftables_is_given_it_and_where_that_fails_its_start_says_so() {
    let Some((clouds, stage)) = evening("hetzner").await else { return };
    stage.create("world", "toy", &[]).await;
    let brings = without_nft("mv /root/nft /usr/sbin/nft; exit");
    let note = start_on_a_host_that(&clouds, &stage, &brings).await;
    assert_eq!(shell(&clouds, "command -v nft || echo none"), "/usr/sbin/nft");
    // Not every machine that runs tests lets containers set rules.
    if shell(&clouds, "nft list tables 2>/dev/null || echo it does not work") != "it does not work" {
        assert_eq!(note, None);
        assert!(shell(&clouds, "nft list table inet spawnpoint").contains("udp dport 27100 accept"));
    }
    stage.stop_server("world").await;
    nothing_left(&clouds);

    let note = start_on_a_host_that(&clouds, &stage, &without_nft("echo no such package; exit 100")).await;
    assert!(note.as_deref().is_some_and(|note| note.contains("the host has no firewall of its own")), "{note:?}");
    stage.stop_server("world").await;
    nothing_left(&clouds);
    stage.close().await;
}

/// A recipe whose game is the toy, with a file of settings that Spawnpoint edits; `install` runs as the game's user.
fn toy_with_a_config(folder: &Path, install: &str) {
    let toy = folder.join("toy");
    std::fs::create_dir_all(&toy).unwrap();
    for file in ["bootstrap", "install", "recipe.toml", "start", "stop"] {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recipes/toy").join(file);
        std::fs::copy(from, toy.join(file)).unwrap();
    }
    let add = |file: &str, text: &str| {
        let path = toy.join(file);
        let before = std::fs::read_to_string(&path).unwrap();
        std::fs::write(path, before + text).unwrap();
    };
    let edit = "\n[[config]]\nfile = \"etc/toy.conf\"\nformat = \"properties\"\nset = { name = \"{SERVER_NAME}\" }\n";
    add("recipe.toml", edit);
    add("install", &format!("\n{install}\n"));
}

#[tokio::test]
async fn a_link_that_a_game_lays_leads_nobody_with_more_rights() {
    let folder = tempfile::tempdir().unwrap();
    let recipes = folder.path().display().to_string();
    toy_with_a_config(folder.path(), "mkdir -p etc; ln -s /root/planted etc/toy.conf.part");
    let Some((machine, stage)) = own_machine(&recipes).await else { return };
    stage.create("world", "toy", &[]).await;
    let end = stage.end_of(stage.program.app.start(&stage.caller, "world", None).await.unwrap()).await;
    assert_eq!(machine.shell("cat /root/planted"), "", "root wrote where the game said");
    assert_eq!(end.outcome, Some(Outcome::Failed), "{end:#?}");
    assert!(error_of(&end, Step::StartGame).contains("toy.conf"), "{end:#?}");
    stage.close().await;

    toy_with_a_config(folder.path(), "mkdir -p etc; ln -s /root/secret etc/toy.conf");
    let Some((machine, stage)) = own_machine(&recipes).await else { return };
    machine.shell("echo password=hunter2 >/root/secret");
    stage.create("world", "toy", &[]).await;
    stage.start("world").await;
    // What the game may not see is not there for it, and the file is its own.
    let file =
        "cd /srv/spawnpoint/*/game/etc && cat toy.conf && stat -c %a toy.conf && stat -c %U toy.conf | cut -c 1-3";
    assert_eq!(machine.shell(file), "name=world\n644\nsp-");
    stage.stop_server("world").await;
    stage.close().await;
}

/// As on a machine that cannot resolve its own name: sudo says so at every call, and does what it is told.
const SUDO_COMPLAINS: &str = r#"mv /usr/bin/sudo /usr/bin/sudo.real
    printf '%s\n' '#!/bin/sh' 'echo "sudo: unable to resolve host attic: Name or service not known" >&2' \
        'exec /usr/bin/sudo.real "$@"' >/usr/bin/sudo
    chmod 755 /usr/bin/sudo; sudo true 2>&1"#;

/// The second start is one after a crash: it shall take no longer than it must.
#[tokio::test]
async fn what_sudo_says_at_every_call_is_in_no_file_and_no_mark() {
    let folder = tempfile::tempdir().unwrap();
    let install = r"mkdir -p etc
{ echo '# of the game'; printf 'long=%05000d\n' 0; printf 'motto=gr\303\274n\n'; } >etc/toy.conf
echo installed >>installs";
    toy_with_a_config(folder.path(), install);
    let Some((machine, stage)) = own_machine(&folder.path().display().to_string()).await else { return };
    let said = machine.shell(SUDO_COMPLAINS);
    assert!(said.starts_with("sudo: unable to resolve host"), "{said}");
    let file = || machine.shell("cat /srv/spawnpoint/*/game/etc/toy.conf");
    let edited = format!("# of the game\nlong={}\nmotto=grün\nname=world", "0".repeat(5000));
    stage.create("world", "toy", &[]).await;
    let first = stage.start("world").await;
    assert_eq!(file(), edited);

    // The console goes silent because the game dies under it.
    let _ = stage.program.app.console(&stage.caller, "world", "crash").await;
    let next = JobId(first.id.0 + 1);
    stage.until("the start after the crash", async || stage.program.app.job_view(next).await.ok()).await;
    let again = stage.succeeds(next).await;
    for (step, done) in [(Step::Bootstrap, "already prepared"), (Step::Install, "already installed")] {
        let found = again.steps.iter().find(|one| one.step == step).expect("a start has this step");
        assert_eq!(found.note.as_deref(), Some(done), "{again:#?}");
    }
    assert_eq!(machine.shell("cat /srv/spawnpoint/*/game/installs"), "installed");
    assert_eq!(file(), edited);
    stage.stop_server("world").await;
    assert_eq!(machine.shell("ls /srv/spawnpoint"), "");
    stage.close().await;
}

/// And the folder goes with the start that failed: the mark of who made it is read as it was written.
#[tokio::test]
async fn a_config_file_that_is_no_utf_8_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    toy_with_a_config(folder.path(), r"mkdir -p etc; printf 'a=b\nmotto=gr\374n\n' >etc/toy.conf");
    let Some((machine, stage)) = own_machine(&folder.path().display().to_string()).await else { return };
    machine.shell(SUDO_COMPLAINS);
    stage.create("world", "toy", &[]).await;
    let end = stage.end_of(stage.program.app.start(&stage.caller, "world", None).await.unwrap()).await;
    assert_eq!(end.outcome, Some(Outcome::Failed), "{end:#?}");
    let error = error_of(&end, Step::StartGame);
    assert!(error.contains("etc/toy.conf in the game's folder is no UTF-8 text (line 2)"), "{error}");
    assert_eq!(machine.shell("ls /srv/spawnpoint"), "");
    stage.close().await;
}

/// A server that is to be rented there, and is not yet.
async fn server_at(stage: &Stage, provider: &str, name: &str) -> Server {
    let place = spawnpoint::model::host::Place { provider: Some(provider.into()), ..Default::default() };
    let new = NewServer {
        name: name.into(),
        game: "toy".into(),
        backend: Some("cloud".into()),
        settings: BTreeMap::new(),
        place,
        channel: None,
    };
    stage.program.app.create(&stage.caller, new).await.unwrap();
    stage.program.store.server_by_name(&stage.caller.guild, name).await.unwrap().expect("it was created")
}

/// A host at this provider on which nobody listens.
fn planted_host(clouds: &Clouds, provider: &str) -> HostRef {
    let planted = clouds.plant(provider, "host", &[], &[]).id;
    serde_json::from_value(serde_json::json!({
        "provider": provider, "id": planted, "region": "r", "size": "s", "created_at": 0, "address": "127.0.0.9",
        "host_key": spawnpoint::clients::ssh::HostKey::generate().public_line,
    }))
    .unwrap()
}

async fn server_with_a_host(stage: &Stage, clouds: &Clouds, provider: &str, name: &str) -> (Server, String) {
    let (server, host) = (server_at(stage, provider, name).await, planted_host(clouds, provider));
    let store = &stage.program.store;
    assert!(store.adopt_host(&server.id, &host, &Actor::Operator, 0).await.unwrap());
    let server = store.server_by_name(&stage.caller.guild, name).await.unwrap().expect("it was created");
    (server, host.id)
}

#[tokio::test]
async fn a_provider_that_says_nothing_hides_only_its_own_server() {
    let Some(clouds) = Clouds::start(&Options { machines: Machines::None, ..Options::default() }) else { return };
    let mut stage = Stage::open("tests/recipes", |config| {
        ["linode", "hetzner"].iter().for_each(|provider| rent_at(config, &clouds, provider));
    })
    .await;
    stage.rest().await;
    // More than are looked at side by side.
    let mut servers = vec![];
    let (silent, silent_id) = server_with_a_host(&stage, &clouds, "linode", "silent").await;
    servers.push(silent);
    for number in 0..40 {
        let (gone, gone_id) = server_with_a_host(&stage, &clouds, "hetzner", &format!("gone-{number}")).await;
        clouds.die(&gone_id, "gone");
        servers.push(gone);
    }
    clouds.fail(Failure::slow(Duration::from_secs(55)).of("linode").times(None));
    let driver = stage.program.engine.driver(Backend::Cloud).expect("it is set up");
    // The engine waits no longer, and would know nothing of either.
    let looked = tokio::time::timeout(Duration::from_secs(29), driver.look(&servers)).await;
    let looked = looked.expect("an answer");
    let (silent, gone) = looked.split_first().expect("one answer for each");
    assert!(matches!(silent, Seen::Unknown { .. }), "{silent:?}");
    assert!(gone.len() == 40 && gone.iter().all(|seen| *seen == Seen::Gone), "{gone:?}");
    clouds.heal();
    clouds.die(&silent_id, "gone");
    stage.work_now().close().await;
}
