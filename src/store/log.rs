//! What the steps of jobs print: the last lines of each step, never more, and never for longer than a month after the
//! job. The jobs themselves and their events stay: histories, forecasts and bills are made from them.

use super::Store;
use super::db::{Arg, Tx, word};
use crate::model::job::Step;
use crate::model::{GuildId, HOUR_MS, JobId, Ms};
use anyhow::Context;
use std::collections::HashMap;

/// Lines kept of each step of a job; older ones go. Enough to see why a script failed.
pub const LOG_LINES_MAX: usize = 400;
/// What a job printed is kept this long after its end, to see why it went as it did.
const OUTPUT_KEPT_MS: Ms = 30 * 24 * HOUR_MS;
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

    /// The last lines that each step of the guild's open jobs printed, oldest first.
    pub async fn outputs_in(
        &self,
        guild: &GuildId,
        last: usize,
    ) -> anyhow::Result<HashMap<(JobId, Step), Vec<String>>> {
        let sql = "SELECT job, step, line FROM
                       (SELECT job_log.job, job_log.step, job_log.n, job_log.line,
                               ROW_NUMBER() OVER (PARTITION BY job_log.job, job_log.step ORDER BY job_log.n DESC) AS back
                        FROM job_log JOIN jobs ON jobs.id = job_log.job
                        WHERE jobs.outcome IS NULL AND jobs.guild = $1) AS printed
                   WHERE back <= $2 ORDER BY job, step, n";
        let last = i64::try_from(last).unwrap_or(i64::MAX);
        let mut outputs: HashMap<(JobId, Step), Vec<String>> = HashMap::new();
        for row in self.db.rows(sql, [(&guild.0).into(), last.into()]).await? {
            outputs.entry((JobId(row.int("job")?), row.word("step")?)).or_default().push(row.text("line")?);
        }
        Ok(outputs)
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

/// Forgets what jobs printed that ended long ago.
pub(super) async fn forget_old_output(tx: &mut Tx, now: Ms) -> anyhow::Result<()> {
    // The bound is found from the newest job down, and below it are hardly any lines: old ones went before.
    let sql = "DELETE FROM job_log WHERE job <= (SELECT id FROM jobs WHERE closed_at < $1 ORDER BY id DESC LIMIT 1)
               AND job IN (SELECT id FROM jobs WHERE id = job_log.job AND closed_at < $1)";
    tx.run(sql, [(now - OUTPUT_KEPT_MS).into()]).await?;
    Ok(())
}
