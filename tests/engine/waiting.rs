//! Jobs that wait: what may pass is tried again by itself, and who pays for a host meanwhile hears of it.

use super::money::{begun, guild};
use super::watching::{DONE, Evening};
use super::*;
use spawnpoint::model::bill::Spending;
use spawnpoint::model::job::{Recorded, TRIES_AGAIN_MAX};

fn tried_again(evening: &Evening, id: JobId) -> usize {
    let rows = evening.scene.memory.get();
    let job = rows.jobs.iter().zip(1..).find(|(_, number)| *number == id.0).expect("it was opened").0;
    let again = |one: &&Recorded| matches!(one.event, Event::RetryRequested { by: Actor::Watcher });
    job.events.iter().filter(again).count()
}

#[tokio::test(start_paused = true)]
async fn a_stop_that_an_outage_holds_goes_on_by_itself_when_it_is_over() {
    for step in [Step::StopGame, Step::PullWorld, Step::VerifyWorld, Step::DestroyHost, Step::ConfirmGone] {
        let evening = Evening::begun(Backend::Cloud).await;
        evening.scene.outside.play(&evening.scene.id);
        // Five tries in a quarter of a minute, five more after five minutes, and then ten minutes of peace.
        evening.scene.outside.fault(Way::Run, step, Kind::Retry, 12);
        let id = evening.asks(Action::Stop).await;
        for (minutes, times) in [(1, 0), (5, 1)] {
            evening.minutes(minutes).await;
            assert_eq!(evening.job(id).rest(), Some(Outcome::Held), "{step:?}: {}", evening.job(id));
            assert_eq!(tried_again(&evening, id), times, "{step:?}");
        }
        evening.minutes(11).await;
        assert_eq!(evening.job(id).rest(), Some(Outcome::Succeeded), "{step:?}: {}", evening.job(id));
        assert!(evening.scene.outside.get().hosts.is_empty(), "{step:?}");
        assert_eq!(evening.scene.outside.get().backups.len(), 1, "{step:?}");
        evening.scene.check("outage");
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_whose_start_could_not_be_undone_is_given_back_later() {
    let evening = Evening::new(Backend::Cloud);
    evening.works();
    evening.scene.outside.fault(Way::Run, Step::StartGame, Kind::Before, 1);
    evening.scene.outside.fault(Way::Undo, Step::CreateHost, Kind::Retry, 12);
    let id = evening.asks(Action::Start).await;
    evening.minutes(2).await;
    assert_eq!(evening.job(id).rest(), Some(Outcome::Held), "{}", evening.job(id));
    evening.minutes(16).await;
    assert_eq!(evening.job(id).rest(), Some(Outcome::Failed), "{}", evening.job(id));
    assert!(evening.scene.outside.get().hosts.is_empty());
    evening.scene.check("undone later");
}

/// Not for ever, and people hear each day that it bills.
#[tokio::test(start_paused = true)]
async fn what_does_not_pass_is_tried_for_a_day_and_then_waits_for_people() {
    let evening = begun(Spending::default(), |_| {}).await;
    evening.scene.outside.fault(Way::Run, Step::PullWorld, Kind::Retry, 9999);
    let id = evening.asks(Action::Stop).await;
    evening.minutes(23 * 60).await;
    assert_eq!(evening.notices(), [""; 0]);
    evening.minutes(49 * 60).await;
    assert_eq!(evening.job(id).rest(), Some(Outcome::Held), "{}", evening.job(id));
    assert_eq!(tried_again(&evening, id), TRIES_AGAIN_MAX as usize);
    assert_eq!(evening.notices(), ["still bills, held"; 2]);
    assert_eq!(evening.scene.outside.get().hosts.len(), 1, "its world is on no other disk");
    // A person's word begins anew.
    evening.scene.memory.write(id, Event::RetryRequested { by: Actor::Operator }).await;
    evening.minutes(10).await;
    assert_eq!(tried_again(&evening, id), TRIES_AGAIN_MAX as usize + 1);
    evening.scene.check("a day");
}

#[tokio::test(start_paused = true)]
async fn what_another_try_cannot_mend_waits_for_a_person() {
    let evening = begun(Spending::default(), |_| {}).await;
    evening.scene.outside.fault(Way::Run, Step::PullWorld, Kind::Before, 1);
    let id = evening.asks(Action::Stop).await;
    evening.minutes(24 * 60 + 5).await;
    assert_eq!(evening.job(id).rest(), Some(Outcome::Held), "{}", evening.job(id));
    assert_eq!((tried_again(&evening, id), evening.job(id).tries_again_at()), (0, None));
    assert_eq!(evening.notices(), ["still bills, held"]);
    evening.scene.memory.write(id, Event::RetryRequested { by: Actor::Operator }).await;
    evening.minutes(1).await;
    assert_eq!(evening.jobs()[1..], [format!("stop Asked {DONE}")]);
    evening.minutes(48 * 60).await;
    assert_eq!(evening.notices().len(), 1, "nothing bills any more: {:?}", evening.notices());
}

/// Closed as it is, nothing happens to it by itself; what it costs is told all the same.
#[tokio::test(start_paused = true)]
async fn a_budget_that_is_spent_while_a_host_waits_for_people_is_told() {
    for closed in [false, true] {
        let evening = begun(guild("0.05 USD"), |_| {}).await;
        evening.scene.outside.fault(Way::Run, Step::PullWorld, Kind::Before, 1);
        let id = evening.asks(Action::Stop).await;
        evening.minutes(1).await;
        if closed {
            evening.scene.memory.write(id, Event::Abandoned { by: Actor::Operator }).await;
        }
        evening.minutes(3 * 60).await;
        assert_eq!(evening.notices(), [""; 0], "closed: {closed}");
        evening.minutes(3 * 60).await;
        let first = if closed { "still bills, spent" } else { "still bills, held, spent" };
        assert_eq!(evening.notices(), [first], "closed: {closed}");
        evening.minutes(24 * 60).await;
        let then = if closed { "still bills" } else { "still bills, held" };
        assert_eq!(evening.notices(), [first, then], "closed: {closed}");
        assert_eq!(evening.jobs().len(), 2, "{:?}", evening.jobs());
        assert_eq!(evening.scene.outside.get().hosts.len(), 1);
    }
}

/// Each try by itself is the same wait: the first reminder comes after a day and not after the last of them.
#[tokio::test(start_paused = true)]
async fn a_host_that_is_tried_again_all_day_is_told_of_after_a_day() {
    let evening = begun(Spending::default(), |_| {}).await;
    // Each try takes minutes, as where nobody answers.
    evening.scene.outside.fault(Way::Run, Step::PullWorld, Kind::Hang, 9999);
    let id = evening.asks(Action::Stop).await;
    evening.minutes(25 * 60).await;
    assert!(tried_again(&evening, id) > 3, "{}", evening.job(id));
    assert_eq!(evening.notices(), ["still bills, held"]);
}

/// Somebody has ended it at the provider: it bills no more, and what was on it is lost.
#[tokio::test(start_paused = true)]
async fn a_host_that_goes_while_its_stop_waits_is_told_as_lost_and_not_as_billing() {
    let evening = begun(Spending::default(), |_| {}).await;
    evening.scene.outside.fault(Way::Run, Step::PullWorld, Kind::Before, 1);
    let id = evening.asks(Action::Stop).await;
    evening.minutes(1).await;
    assert_eq!(evening.job(id).rest(), Some(Outcome::Held), "{}", evening.job(id));
    {
        let mut things = evening.scene.outside.get();
        things.hosts.clear();
        things.games.clear();
    }
    evening.minutes(50 * 60).await;
    let told = evening.notices();
    assert!(matches!(&told[..], [lost] if lost.starts_with("host lost, with what was played since")), "{told:?}");
}
