//! Golden snapshots of the fake: built like real ones, out of nothing.

use super::Done;
use super::outside::Things;
use crate::engine::{StepCx, StepError, builder_of};
use crate::model::drive::{Snapshot, SnapshotId, golden};
use crate::model::job::{Gain, Step};
use std::time::Duration;

/// How often a start looks whether another job's snapshot is there.
const BUILDER_POLL: Duration = Duration::from_secs(1);

/// Waits while another job makes the snapshot that this start needs.
pub(super) async fn await_builder(cx: &StepCx<'_>) -> Result<(), StepError> {
    // The builder first: one that ends in between has written its snapshot.
    while builder_of(cx.journal, cx.game(), Some(cx.job.id)).await.map_err(StepError::Retry)?.is_some() {
        if golden(&cx.journal.snapshots().await.map_err(StepError::Retry)?, cx.game()).is_some() {
            break;
        }
        tokio::time::sleep(BUILDER_POLL).await;
    }
    Ok(())
}

pub(super) fn snapshot_id(cx: &StepCx<'_>) -> SnapshotId {
    // One snapshot for each job that builds one: a second try finds the first one's.
    SnapshotId::new(cx.game(), cx.job.id.0)
}

fn snapshot(cx: &StepCx<'_>, sealed: bool) -> Snapshot {
    Snapshot {
        id: snapshot_id(cx),
        game: cx.game().to_owned(),
        version: cx.job.id.0,
        image: "fake".into(),
        install_key: "fake".into(),
        files: None,
        bytes: None,
        created_at: cx.job.created_at,
        sealed_at: sealed.then_some(cx.job.created_at),
    }
}

pub(super) fn build(things: &mut Things, step: Step, cx: &StepCx<'_>) -> Done {
    let id = snapshot_id(cx);
    let missing = || StepError::fatal("The snapshot is not there.");
    match step {
        Step::BuildImage => {
            things.images.insert(cx.game().to_owned());
            Ok(Gain::default())
        }
        Step::CreateSnapshot => {
            things.snapshots.entry(id.0).or_default();
            Ok(Gain { snapshot: Some(snapshot(cx, false)), ..Gain::default() })
        }
        Step::RunInstaller => {
            let files = things.snapshots.get_mut(&id.0).ok_or_else(missing)?;
            files.whole = true;
            Ok(Gain::default())
        }
        Step::SealSnapshot => {
            let files = things.snapshots.get_mut(&id.0).ok_or_else(missing)?;
            if !files.whole {
                return Err(StepError::fatal("The installer did not end."));
            }
            files.sealed = true;
            Ok(Gain { snapshot: Some(snapshot(cx, true)), ..Gain::default() })
        }
        other => Err(StepError::fatal(format!("{other:?} needs a server."))),
    }
}

pub(super) fn unbuild(things: &mut Things, step: Step, cx: &StepCx<'_>) -> Gain {
    let id = snapshot_id(cx);
    if step != Step::CreateSnapshot || things.snapshots.remove(&id.0).is_none() {
        // The image stays: it is a cache by content, and the next build finds it.
        return match step {
            Step::CreateSnapshot => Gain { snapshot_removed: Some(id.0), ..Gain::default() },
            _ => Gain::default(),
        };
    }
    Gain { snapshot_removed: Some(id.0), ..Gain::default() }
}
