//! Files of a container as tar streams, running or never started. Its volumes are mounted for it, so this
//! is how the merged view of an overlay is read and written without root.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bollard::query_parameters::{
    ContainerArchiveInfoOptionsBuilder, DownloadFromContainerOptionsBuilder, UploadToContainerOptionsBuilder,
};
use futures::{StreamExt, TryStreamExt};
use tokio::io::AsyncRead;
use tokio_util::io::{ReaderStream, StreamReader};

use super::{Docker, DockerError, TRANSFER_TIMEOUT_S};

const CHUNK_BYTES: usize = 64 * 1024;

/// Go's mark of a directory in a mode.
const GO_MODE_DIR: u32 = 1 << 31;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathStat {
    pub size_bytes: u64,
    pub is_dir: bool,
    /// Permission bits.
    pub mode: u32,
}

impl Docker {
    /// Unpacks a tar into the directory `path`, which must exist. Owners and modes are the tar's. Ends with
    /// [`DockerError::Input`] when the tar cannot be read to its end; what was unpacked by then stays.
    pub async fn upload_tar(
        &self,
        id: &str,
        path: &str,
        tar: impl AsyncRead + Send + 'static,
    ) -> Result<(), DockerError> {
        // hyper wraps a failed read into an error of the connection; kept here, it can be told apart.
        let failed = Arc::new(Mutex::new(None));
        let slot = Arc::clone(&failed);
        let chunks = ReaderStream::with_capacity(tar, CHUNK_BYTES).map_err(move |error| {
            if let Ok(mut slot) = slot.lock() {
                *slot = Some(error.to_string());
            }
            error
        });
        let options = UploadToContainerOptionsBuilder::new().path(path).no_overwrite_dir_non_dir("true").build();
        let client = self.client_waiting(Duration::from_secs(TRANSFER_TIMEOUT_S))?;
        let sent = client.upload_to_container(id, Some(options), bollard::body_try_stream(chunks)).await;
        let reading = failed.lock().ok().and_then(|mut slot| slot.take());
        match reading {
            Some(error) => Err(DockerError::Input(format!("what was to be uploaded cannot be read: {error}"))),
            None => Ok(sent?),
        }
    }

    /// A tar of `path`, whose entries begin with the path's last part (`path/.` for `.`). A tar that is cut
    /// off lacks its end mark: read it to the end before you trust it.
    pub async fn download_tar(
        &self,
        id: &str,
        path: &str,
    ) -> Result<impl AsyncRead + Send + Unpin + use<>, DockerError> {
        let options = DownloadFromContainerOptionsBuilder::new().path(path).build();
        let client = self.client_waiting(Duration::from_secs(TRANSFER_TIMEOUT_S))?;
        let mut chunks = client.download_from_container(id, Some(options)).boxed();
        // The first chunk is waited for here, so that a refusal is an error of ours and not of reading.
        let first = match chunks.next().await {
            Some(first) => first?,
            None => return Err(DockerError::DaemonUnreachable("it sent nothing".to_string())),
        };
        let chunks = futures::stream::once(async { Ok(first) }).chain(chunks.map_err(io::Error::other));
        Ok(StreamReader::new(chunks.boxed()))
    }

    /// `None` when the container has no such path; [`DockerError::Gone`] when there is no container.
    pub async fn stat_path(&self, id: &str, path: &str) -> Result<Option<PathStat>, DockerError> {
        let options = ContainerArchiveInfoOptionsBuilder::new().path(path).build();
        let stat = match self.client()?.get_container_archive_info(id, Some(options)).await {
            Ok(stat) => stat,
            // An answer to HEAD has no words, so which of the two is missing has to be asked.
            Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. }) => {
                return match self.inspect(id).await? {
                    Some(_) => Ok(None),
                    None => Err(DockerError::Gone(format!("No such container: {id}"))),
                };
            }
            Err(error) => return Err(error.into()),
        };
        Ok(Some(PathStat {
            size_bytes: u64::try_from(stat.size).unwrap_or(0),
            is_dir: stat.file_mode & GO_MODE_DIR != 0,
            mode: stat.file_mode & 0o777,
        }))
    }
}
