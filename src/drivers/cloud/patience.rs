//! Asking a provider again: how often, and how long at its own word.

use super::cloud_error;
use crate::clients::cloud::CloudError;
use crate::engine::{StepCx, StepError};
use std::time::Duration;

/// How often a provider is asked whether a host is up or gone.
pub(super) const ASK_EVERY: Duration = Duration::from_secs(3);
/// A provider that asks for patience is waited for this long before it is asked again, whatever it says.
pub(super) const PATIENCE_MAX: Duration = Duration::from_secs(60);

/// The answer of a provider that may ask for patience first. It is given all that the step has: nobody may be there to
/// try the step again.
pub(super) async fn patiently<T, Asked: Future<Output = Result<T, CloudError>>>(
    cx: &StepCx<'_>,
    what: &str,
    ask: impl Fn() -> Asked,
) -> Result<T, StepError> {
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(CloudError::Busy { why, after }) => {
                cx.out.line(&why);
                tokio::time::sleep(after.unwrap_or(ASK_EVERY).clamp(ASK_EVERY, PATIENCE_MAX)).await;
            }
            Err(error) => return Err(cloud_error(what)(error)),
        }
    }
}
