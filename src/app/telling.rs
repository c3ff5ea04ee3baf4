//! What a front has to remember about its own messages, over its restarts: which message belongs to which job and
//! which panel to which server. Kept with everything else, so that there is one database to back up.

use super::App;
use crate::model::{JobId, ServerId};

pub use crate::store::messages::{JobMessage, Panel, WaitingNotice};

/// A front's own notebook.
#[derive(Clone)]
pub struct Telling {
    app: App,
}

impl App {
    pub fn telling(&self) -> Telling {
        Telling { app: self.clone() }
    }
}

impl Telling {
    pub async fn job_message(&self, job: JobId) -> anyhow::Result<Option<JobMessage>> {
        self.app.store().job_message(job).await
    }

    /// Remembers the message that shows a job, and a fingerprint of its last text.
    pub async fn set_job_message(&self, job: JobId, message: &JobMessage) -> anyhow::Result<()> {
        self.app.store().set_job_message(job, &message.channel, &message.message, &message.hash).await
    }

    pub async fn forget_job_message(&self, job: JobId) -> anyhow::Result<()> {
        self.app.store().forget_job_message(job).await
    }

    /// The job's last text was told; it need not be looked at again.
    pub async fn job_end_told(&self, job: JobId) -> anyhow::Result<()> {
        self.app.store().job_end_told(job).await
    }

    /// Jobs with a channel that are open, or whose end was not told yet.
    pub async fn jobs_to_tell(&self) -> anyhow::Result<Vec<JobId>> {
        self.app.store().jobs_with_message_unfinished().await
    }

    pub async fn panel(&self, server: &ServerId) -> anyhow::Result<Option<Panel>> {
        self.app.store().panel(server).await
    }

    pub async fn set_panel(&self, server: &ServerId, panel: &Panel) -> anyhow::Result<()> {
        self.app.store().set_panel(server, panel).await
    }

    pub async fn forget_panel(&self, server: &ServerId) -> anyhow::Result<()> {
        self.app.store().forget_panel(server).await
    }

    pub async fn panels(&self) -> anyhow::Result<Vec<ServerId>> {
        self.app.store().panels().await
    }

    pub async fn notices_waiting(&self) -> anyhow::Result<Vec<WaitingNotice>> {
        self.app.store().notices_waiting().await
    }

    pub async fn notice_told(&self, id: i64) -> anyhow::Result<()> {
        self.app.store().notice_told(id, self.app.now()).await
    }

    pub async fn meta(&self, key: &str) -> anyhow::Result<Option<String>> {
        self.app.store().meta(key).await
    }

    pub async fn set_meta(&self, key: &str, value: &str) -> anyhow::Result<()> {
        self.app.store().set_meta(key, value).await
    }
}
