//! Asking a provider again: how often, and how long at its own word.

use super::cloud_error;
use crate::clients::cloud::CloudError;
use crate::engine::{StepCx, StepError};
use std::time::Duration;

/// How often a provider is asked whether a host is up or gone.
pub(super) const ASK_EVERY: Duration = Duration::from_secs(3);

/// The answer of a provider that may ask for patience first. It is given all that the step has: nobody may be there to
/// try the step again.
pub(super) async fn patiently<T, Asked: Future<Output = Result<T, CloudError>>>(
    cx: &StepCx<'_>,
    what: &str,
    ask: impl Fn() -> Asked,
) -> Result<T, StepError> {
    ask_again(cx, what, ask, |after| Some(after.unwrap_or(ASK_EVERY))).await
}

/// The answer of a provider at the moment that it asks for. Trouble of which it names no end is for the next try of the
/// step, which people see.
pub(super) async fn when_it_says<T, Asked: Future<Output = Result<T, CloudError>>>(
    cx: &StepCx<'_>,
    what: &str,
    ask: impl Fn() -> Asked,
) -> Result<T, StepError> {
    ask_again(cx, what, ask, |after| after).await
}

/// `pause` says how long to wait, given what the provider asked for; `None` leaves it.
async fn ask_again<T, Asked: Future<Output = Result<T, CloudError>>>(
    cx: &StepCx<'_>,
    what: &str,
    ask: impl Fn() -> Asked,
    pause: impl Fn(Option<Duration>) -> Option<Duration>,
) -> Result<T, StepError> {
    loop {
        let error = match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        if let CloudError::Busy { why, after } = &error
            && let Some(wait) = pause(*after)
        {
            cx.out.line(why);
            tokio::time::sleep(wait.max(ASK_EVERY)).await;
            continue;
        }
        return Err(cloud_error(what)(error));
    }
}
