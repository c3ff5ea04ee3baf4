//! Budgets and paid hours over whole evenings, on a clock that stands still unless everybody waits. A host of these
//! evenings costs 0.01 $ for every hour that was begun.

use super::watching::{DONE, Evening};
use super::*;
use spawnpoint::model::HOUR_MS;
use spawnpoint::model::bill::{Budget, BudgetOf, Spending};
use spawnpoint::model::cost::{Micros, Month};
use tokio_util::sync::CancellationToken;

fn spent(whose: BudgetOf) -> String {
    format!("stop {:?} {DONE}", Cause::BudgetSpent { whose })
}

pub fn guild(text: &str) -> Spending {
    Spending { guild: vec![text.parse().unwrap()], ..Spending::default() }
}

/// A server that runs on a rented host, somebody on it, and its world played.
pub async fn begun(spending: Spending, change: impl Fn(&mut Server)) -> Evening {
    let scene = Scene::new(Backend::Cloud);
    scene.outside.get().hosts_have_age = true;
    {
        let mut rows = scene.memory.get();
        let server = rows.servers.get_mut(&scene.id).unwrap();
        // Nothing but what is tried here ends these evenings.
        (server.limits.lease_min, server.limits.idle_min) = (Some(0), Some(0));
        change(server);
    }
    // The first of a month, so that no evening crosses into another one.
    let clock = Clock::test(Month::parse("2026-11").unwrap().start(&spending.zone));
    let engine = scene.engine_with(Arc::new(scene.memory.clone()), clock.clone()).with_spending(spending);
    let evening = Evening { scene, engine, clock, stop: CancellationToken::new() };
    evening.works();
    evening.asks(Action::Start).await;
    evening.minutes(1).await;
    assert!(evening.runs());
    evening.players(Some(2));
    evening.scene.outside.play(&evening.scene.id);
    evening
}

/// What all hosts have cost until now.
fn billed(evening: &Evening) -> Micros {
    let zone = Spending::default().zone;
    let rows = evening.scene.memory.get();
    rows.rentals.iter().filter_map(|rental| rental.so_far(evening.engine.now(), &zone)).sum()
}

#[tokio::test(start_paused = true)]
async fn a_spent_budget_warns_once_stops_in_time_and_keeps_the_world() {
    for whose in [BudgetOf::Guild, BudgetOf::Server] {
        let budget: Budget = "0.05 USD".parse().unwrap();
        let (spending, own) = match whose {
            BudgetOf::Guild => (guild("0.05 USD"), None),
            BudgetOf::Server => (Spending::default(), Some(budget)),
        };
        let evening = begun(spending, |server| server.limits.budget = own.clone()).await;
        evening.minutes(178).await;
        assert_eq!(evening.notices(), [""; 0], "three of five cents");
        evening.minutes(10).await;
        assert_eq!(evening.notices(), [format!("{whose:?} budget: 0.04 $ of 0.05 $")]);
        evening.minutes(100).await;
        assert!(evening.runs(), "the fifth hour is paid for: {:?}", evening.jobs());
        evening.minutes(11).await;
        assert_eq!(evening.jobs()[1..], [spent(whose)]);
        assert_eq!(evening.notices().len(), 1, "{:?}", evening.notices());
        assert!(evening.scene.outside.get().hosts.is_empty());
        assert_eq!(evening.scene.outside.get().backups.len(), 1, "its world is saved");
        assert_eq!(evening.scene.server().wanted, Wanted::Off);
        evening.minutes(24 * 60).await;
        assert_eq!(billed(&evening), 50_000, "not a cent more than the budget");
        assert_eq!(evening.jobs().len(), 2, "{:?}", evening.jobs());
        evening.scene.check("budget");
    }
}

/// Counting as told before it was on record, it would never be said.
#[tokio::test(start_paused = true)]
async fn a_warning_that_found_no_room_is_said_at_the_next_look() {
    for (spending, blind) in [(guild("0.05 USD"), false), (guild("0.02 USD"), true), (Spending::default(), false)] {
        let mut said = vec![];
        for no_room in [0, 1] {
            let evening = begun(spending.clone(), |server| server.limits.lease_min = Some(200)).await;
            evening.scene.outside.get().blind = blind;
            evening.scene.memory.get().no_room = no_room;
            evening.minutes(190).await;
            assert_eq!(evening.scene.memory.get().no_room, 0);
            // It comes a minute later.
            let what = |notice: String| notice.split(" ends in ").next().unwrap_or_default().to_owned();
            said.push(evening.notices().into_iter().map(what).collect::<Vec<_>>());
        }
        assert!(!said[0].is_empty() && said[0] == said[1], "{said:#?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_crash_is_no_reason_to_rent_beyond_the_budget() {
    let evening = begun(guild("0.01 USD"), |_| ()).await;
    evening.minutes(56).await;
    assert_eq!(evening.jobs()[1..], [spent(BudgetOf::Guild)]);
    // Somebody starts it all the same, past the door; it falls, and is put away instead of started again.
    evening.asks(Action::Start).await;
    evening.crashes();
    evening.minutes(5).await;
    assert!(evening.scene.outside.get().hosts.is_empty(), "{:?}", evening.jobs());
    assert_eq!(evening.jobs().last(), Some(&spent(BudgetOf::Guild)));
    evening.scene.check("crash beyond the budget");
}

#[tokio::test(start_paused = true)]
async fn a_host_that_nobody_reaches_is_not_stopped_blindly_and_people_hear_of_it() {
    let evening = begun(guild("0.02 USD"), |_| ()).await;
    evening.scene.outside.get().blind = true;
    let silent = format!("should be on, and silent since minute {}", evening.engine.now() / MINUTE_MS);
    evening.minutes(200).await;
    assert_eq!(evening.jobs().len(), 1, "{:?}", evening.jobs());
    assert_eq!(evening.notices(), [&*silent, "stuck, Guild budget: 0.02 $ of 0.02 $"]);
    evening.scene.outside.get().blind = false;
    evening.minutes(2).await;
    assert_eq!(evening.jobs()[1..], [spent(BudgetOf::Guild)]);
    evening.scene.check("blind");
}

#[tokio::test(start_paused = true)]
async fn people_hear_of_a_host_that_should_be_off_and_does_not_answer() {
    let evening = begun(Spending::default(), |server| server.limits.lease_min = Some(60)).await;
    let began = evening.engine.now() / MINUTE_MS;
    let told = |should: &str, minute: Ms| format!("should be {should}, and silent since minute {}", began + minute);
    let lease_over_in = |minutes: Ms| {
        let until = evening.engine.now() + minutes * MINUTE_MS;
        evening.scene.memory.get().servers.get_mut(&evening.scene.id).unwrap().lease_until = Some(until);
    };
    let reached = |yes: bool| evening.scene.outside.get().blind = !yes;
    lease_over_in(20);
    evening.minutes(10).await;
    reached(false);
    evening.minutes(9).await;
    let warned = evening.notices().len();
    evening.minutes(120).await;
    assert_eq!(evening.notices()[warned..], [told("off", 10)], "once");
    // Somebody extends it, and it answers for a moment: whatever comes then is another story.
    lease_over_in(300);
    reached(true);
    evening.minutes(1).await;
    reached(false);
    evening.minutes(400).await;
    assert_eq!(evening.notices()[warned..], [told("off", 10), told("on", 140)]);
    assert_eq!(evening.jobs().len(), 1, "nothing is stopped blindly: {:?}", evening.jobs());
    reached(true);
    evening.minutes(2).await;
    assert_eq!(evening.jobs()[1..], [format!("stop {:?} {DONE}", Cause::LeaseOver)]);
    assert!(evening.scene.outside.get().hosts.is_empty());
    evening.scene.check("silent");
}

#[tokio::test(start_paused = true)]
async fn an_idle_host_stays_until_its_paid_hour_ends_where_that_was_asked_for() {
    for (by_config, own, stops_within) in
        [(false, None, 14), (true, None, 56), (false, Some(true), 56), (true, Some(false), 14)]
    {
        let spending = Spending { stop_at_unit: by_config, ..Spending::default() };
        let evening = begun(spending, |server| {
            server.limits.idle_min = Some(10);
            server.limits.stop_at_billing_unit = own;
        })
        .await;
        evening.players(Some(1));
        evening.minutes(1).await;
        evening.players(Some(0));
        evening.minutes(stops_within - 5).await;
        assert!(evening.runs(), "{by_config} {own:?}: {:?}", evening.jobs());
        evening.minutes(5).await;
        assert_eq!(evening.jobs()[1..], [format!("stop {:?} {DONE}", Cause::Idle { minutes: 10 })], "{own:?}");
        assert_eq!(evening.notices(), ["idle stop in 2 min"]);
        assert_eq!(billed(&evening), 10_000, "one hour either way");
        evening.scene.check("paid hour");
    }
}

#[tokio::test(start_paused = true)]
async fn a_budget_does_not_wait_for_the_end_of_a_lease_or_an_hour() {
    let spending = Spending { stop_at_unit: true, ..guild("0.01 USD") };
    let evening = begun(spending, |server| server.limits.lease_min = Some(50)).await;
    // The time of the lease ends within the first hour, and the stop waits until that is used up.
    evening.minutes(52).await;
    assert!(evening.runs());
    evening.minutes(4).await;
    assert!(!evening.runs(), "{:?}", evening.jobs());
    assert_eq!(billed(&evening), 10_000);
}

#[tokio::test(start_paused = true)]
async fn the_bill_of_a_host_ends_when_the_provider_says_that_it_is_gone() {
    let evening = begun(Spending::default(), |_| ()).await;
    let began = evening.scene.memory.get().rentals[0].began_at;
    evening.minutes(30).await;
    // Somebody destroys it at the provider's console. A new one is rented for those who play.
    evening.scene.outside.get().hosts.clear();
    evening.scene.outside.get().precious.clear();
    evening.minutes(3).await;
    let rentals = evening.scene.memory.get().rentals.clone();
    assert_eq!(rentals.len(), 2, "{:?}", evening.jobs());
    let ended = rentals[0].ended_at.expect("it ended");
    assert!(ended - began < HOUR_MS, "{ended}");
    assert_eq!(rentals[1].ended_at, None);
    assert!(evening.runs());
}

#[tokio::test(start_paused = true)]
async fn a_machine_of_your_own_goes_on_when_the_budget_is_spent() {
    let scene = Scene::new(Backend::Cloud);
    scene.outside.get().own_machines = true;
    let clock = Clock::test(Month::parse("2026-11").unwrap().start(&Spending::default().zone));
    let spending = guild("0 USD");
    let engine = scene.engine_with(Arc::new(scene.memory.clone()), clock.clone()).with_spending(spending);
    let evening = Evening { scene, engine, clock, stop: CancellationToken::new() };
    evening.works();
    evening.asks(Action::Start).await;
    evening.players(Some(2));
    evening.minutes(10).await;
    assert!(evening.runs(), "{:?}", evening.jobs());
    assert_eq!(evening.notices(), [""; 0]);
}
