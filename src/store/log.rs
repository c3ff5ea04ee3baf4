//! What the steps of jobs print: the last lines of each step, never more.

use super::Store;
use super::db::{Arg, word};
use crate::model::job::Step;
use crate::model::{JobId, Ms};
use anyhow::Context;

/// Lines kept of each step of a job; older ones go. Enough to see why a script failed.
pub const LOG_LINES_MAX: usize = 400;
/// Lines written by one statement.
const LINES_AT_ONCE: usize = 100;

impl Store {
    /// The last lines that one step printed, or all steps in their order of printing; oldest first.
    pub async fn job_output(&self, id: JobId, step: Option<Step>, last: usize) -> anyhow::Result<Vec<String>> {
        let last = i64::try_from(last).unwrap_or(i64::MAX);
        let rows = match step {
            Some(step) => {
                let sql = "SELECT line FROM job_log WHERE job = $1 AND step = $2 ORDER BY n DESC LIMIT $3";
                self.db.rows(sql, [id.0.into(), word(&step).into(), last.into()]).await?
            }
            None => {
                let sql = "SELECT line FROM job_log WHERE job = $1 ORDER BY n DESC LIMIT $2";
                self.db.rows(sql, [id.0.into(), last.into()]).await?
            }
        };
        rows.iter().rev().map(|row| row.text("line")).collect()
    }

    pub(super) async fn add_output(&self, id: JobId, step: Step, now: Ms, lines: &[String]) -> anyhow::Result<()> {
        let skipped = lines.len().saturating_sub(LOG_LINES_MAX);
        let lines = lines[skipped..].to_vec();
        if lines.is_empty() {
            return Ok(());
        }
        self.db
            .write(move |tx| {
                Box::pin(async move {
                    let step = word(&step);
                    // Numbers run over the whole job, so that the lines of all steps have one order.
                    let sql = "SELECT COALESCE(MAX(n), -1) + 1 AS next FROM job_log WHERE job = $1";
                    let row = tx.row(sql, [id.0.into()]).await?.context("a maximum is always there")?;
                    let mut next = row.int("next")?;
                    for chunk in lines.chunks(LINES_AT_ONCE) {
                        let mut args: Vec<Arg> = vec![];
                        let mut rows = vec![];
                        for line in chunk {
                            let first = args.len() + 1;
                            rows.push(format!(
                                "(${}, ${}, ${}, ${}, ${})",
                                first,
                                first + 1,
                                first + 2,
                                first + 3,
                                first + 4
                            ));
                            args.extend([id.0.into(), (&step).into(), next.into(), now.into(), line.into()]);
                            next += 1;
                        }
                        tx.run_built(
                            format!("INSERT INTO job_log (job, step, n, at, line) VALUES {}", rows.join(", ")),
                            args,
                        )
                        .await?;
                    }
                    let sql = "DELETE FROM job_log WHERE job = $1 AND step = $2 AND n <=
                           (SELECT n FROM job_log WHERE job = $1 AND step = $2 ORDER BY n DESC LIMIT 1 OFFSET $3)";
                    tx.run(sql, [id.0.into(), step.into(), (LOG_LINES_MAX as i64).into()]).await?;
                    anyhow::Ok(())
                })
            })
            .await
    }
}
