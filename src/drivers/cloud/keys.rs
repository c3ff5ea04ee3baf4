//! The keys that hosts are given before they exist, by which the first connection knows them. Beside a key stands a mark
//! while nobody knows whether its host was made.

use super::CloudDriver;
use crate::clients::ssh::HostKey;
use crate::drivers::{blocking, read_if_there, sync_dir};
use crate::engine::{StepCx, StepError};
use crate::model::ServerId;
use crate::model::server::Server;
use secrecy::ExposeSecret;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Between the private and the public half of a host's key in its file.
const KEY_BORDER: &str = "\n---\n";

impl CloudDriver {
    fn host_key_path(&self, server: &ServerId, job: &str) -> PathBuf {
        self.settings.data_dir.join("ssh/hosts").join(format!("{}-{job}", server.0))
    }

    /// Makes the host's key, or takes the one that an earlier try of this job made.
    pub(super) async fn new_host_key(&self, cx: &StepCx<'_>, server: &Server) -> Result<HostKey, StepError> {
        let path = self.host_key_path(&server.id, &cx.job.id.to_string());
        let work = move || -> anyhow::Result<HostKey> {
            if let Some(key) = read_if_there(&path)?.and_then(|text| read_key(&text)) {
                return Ok(key);
            }
            let key = HostKey::generate();
            std::fs::create_dir_all(path.parent().expect("the path has a folder"))?;
            let part = path.with_extension("part");
            let mut file =
                std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
            file.write_all(written_key(&key).as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&part, &path)?;
            Ok(key)
        };
        blocking(work).await?.map_err(|error| StepError::fatal(format!("keeping the host's SSH key: {error:#}")))
    }

    pub(super) async fn known_host_key(&self, server: &ServerId, job: &str) -> Result<Option<String>, StepError> {
        let path = self.host_key_path(server, job);
        let text = blocking(move || read_if_there(&path)).await?.map_err(unreadable)?;
        Ok(text.and_then(|text| read_key(&text)).map(|key| key.public_line))
    }

    /// From now on a host of this job may come to be at any moment, whether or not anybody hears the answer. Says whether
    /// that is new. The mark goes with the key, if not before.
    pub(super) async fn note_asked(&self, cx: &StepCx<'_>, server: &Server) -> Result<bool, StepError> {
        let path = self.asked_path(&server.id, &cx.job.id.to_string());
        let work = move || -> io::Result<bool> {
            match File::create_new(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
                created => created?.sync_all()?,
            }
            sync_dir(path.parent().expect("the path has a folder"))?;
            Ok(true)
        };
        blocking(work).await?.map_err(not_noted)
    }

    pub(super) async fn forget_asked(&self, cx: &StepCx<'_>, server: &Server) -> Result<(), StepError> {
        let path = self.asked_path(&server.id, &cx.job.id.to_string());
        let work = move || match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        };
        blocking(work).await?.map_err(not_noted)
    }

    pub(super) async fn was_asked(&self, cx: &StepCx<'_>, server: &Server) -> Result<bool, StepError> {
        let path = self.asked_path(&server.id, &cx.job.id.to_string());
        blocking(move || path.try_exists()).await?.map_err(unreadable)
    }

    fn asked_path(&self, server: &ServerId, job: &str) -> PathBuf {
        self.host_key_path(server, job).with_extension("asked")
    }

    /// The jobs that had hosts made for a server, as far as their keys are still here.
    pub(super) async fn jobs_with_keys(&self, server: &Server) -> Result<Vec<String>, StepError> {
        let (folder, prefix) = (self.settings.data_dir.join("ssh/hosts"), format!("{}-", server.id.0));
        let names = blocking(move || names_in(&folder)).await?.map_err(unreadable)?;
        let jobs = names.iter().filter_map(|name| name.strip_prefix(&prefix)).filter(|job| is_number(job));
        Ok(jobs.map(str::to_owned).collect())
    }

    /// The key of one job's host, and what is beside it. Only for a host that is known to be gone: where one may still
    /// exist, its key is all that proves which one it is.
    pub(super) async fn forget_key(&self, server: &ServerId, job: &str) -> Result<(), StepError> {
        let paths = [self.host_key_path(server, job), self.asked_path(server, job)];
        blocking(move || paths.iter().for_each(|path| drop(std::fs::remove_file(path)))).await
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The files of a folder, which need not be there.
fn names_in(folder: &Path) -> io::Result<Vec<String>> {
    match std::fs::read_dir(folder) {
        Ok(files) => files.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(vec![]),
        Err(error) => Err(error),
    }
}

fn not_noted(error: io::Error) -> StepError {
    StepError::fatal(format!("noting that a host was asked for: {error}"))
}

/// Too many open files, a disk in trouble: whether there is a key is not known.
fn unreadable(error: io::Error) -> StepError {
    StepError::retry(format!("reading the keys of hosts in the data folder: {error}"))
}

/// A host's key as it lies on our disk.
fn written_key(key: &HostKey) -> String {
    format!("{}{KEY_BORDER}{}\n", key.private_pem.expose_secret().trim_end(), key.public_line)
}

/// What was written, to the last newline: sshd refuses a private key that ends without one.
fn read_key(text: &str) -> Option<HostKey> {
    let (private, public) = text.split_once(KEY_BORDER)?;
    let private = format!("{}\n", private.trim_end());
    Some(HostKey { private_pem: private.into(), public_line: public.trim().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_try_gives_the_host_the_very_key_of_the_first() {
        let key = HostKey::generate();
        let again = read_key(&written_key(&key)).unwrap();
        assert_eq!(again.private_pem.expose_secret(), key.private_pem.expose_secret());
        assert_eq!(again.public_line, key.public_line);
        assert!(read_key("half of a").is_none());
    }
}
