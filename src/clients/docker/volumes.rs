//! Overlay volumes: the daemon itself mounts a writable layer over a read-only tree, so that no one here
//! needs root and no container is privileged.

use std::collections::HashMap;

use bollard::models::VolumeCreateRequest;
use bollard::query_parameters::{ListVolumesOptionsBuilder, RemoveVolumeOptions};

use super::{Docker, DockerError, label_filter};

/// The kernel takes mount options of less than a page.
const OPTIONS_MAX_BYTES: usize = 4096;

/// An overlay of `upper` (writable) on `lower` (read-only). The paths are the daemon's; `upper` and `work`
/// lie on one file system, and `lower` must not change while a container uses the volume.
#[derive(Clone, Debug)]
pub struct OverlayVolume {
    pub name: String,
    pub lower: String,
    pub upper: String,
    pub work: String,
    pub labels: Vec<(String, String)>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct VolumeInfo {
    pub name: String,
    pub labels: HashMap<String, String>,
    /// The options that it was made with.
    pub options: HashMap<String, String>,
    /// Where the daemon mounts it, in the daemon's own file system.
    pub mountpoint: String,
}

impl Docker {
    /// Makes the volume, or finds that it is there already with the same paths. Nothing is mounted until a
    /// container that uses it starts. The daemon does not look at the paths before that.
    pub async fn create_overlay_volume(&self, volume: &OverlayVolume) -> Result<VolumeInfo, DockerError> {
        let options = HashMap::from([
            ("type".to_string(), "overlay".to_string()),
            ("device".to_string(), "overlay".to_string()),
            ("o".to_string(), mount_options(volume)?),
        ]);
        let request = VolumeCreateRequest {
            name: Some(volume.name.clone()),
            driver: Some("local".to_string()),
            driver_opts: Some(options.clone()),
            labels: Some(volume.labels.iter().cloned().collect()),
            ..VolumeCreateRequest::default()
        };
        let made = info(self.client()?.create_volume(request).await?);
        // The daemon hands out an existing volume of that name without a word, whatever it stands on.
        if made.options != options {
            return Err(DockerError::AlreadyExists(format!(
                "there is a volume {} already, and it stands on other paths",
                volume.name
            )));
        }
        Ok(made)
    }

    pub async fn volume(&self, name: &str) -> Result<Option<VolumeInfo>, DockerError> {
        match self.client()?.inspect_volume(name).await.map_err(DockerError::from) {
            Ok(volume) => Ok(Some(info(volume))),
            Err(DockerError::Gone(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Volumes with all of these labels.
    pub async fn list_volumes(&self, labels: &[(String, String)]) -> Result<Vec<VolumeInfo>, DockerError> {
        let options = ListVolumesOptionsBuilder::new().filters(&label_filter(labels)).build();
        let found = self.client()?.list_volumes(Some(options)).await?;
        Ok(found.volumes.unwrap_or_default().into_iter().map(info).collect())
    }

    /// Fine when there is none; a `Conflict` while a container uses it. The overlay's directories stay.
    pub async fn remove_volume(&self, name: &str) -> Result<(), DockerError> {
        match self.client()?.remove_volume(name, None::<RemoveVolumeOptions>).await.map_err(DockerError::from) {
            Ok(()) | Err(DockerError::Gone(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn info(volume: bollard::models::Volume) -> VolumeInfo {
    VolumeInfo { name: volume.name, labels: volume.labels, options: volume.options, mountpoint: volume.mountpoint }
}

fn mount_options(volume: &OverlayVolume) -> Result<String, DockerError> {
    for path in [&volume.lower, &volume.upper, &volume.work] {
        // Commas part the options and colons the lower layers; the kernel knows an escape, but it is read
        // twice on the way, by the daemon and by mount.
        let forbidden = path.contains([',', ':', '\\', '"', '\n', '\0']);
        if !path.starts_with('/') || forbidden {
            return Err(DockerError::Input(format!(
                "{path:?} cannot be part of an overlay: such a path is absolute and has no comma, colon, \
                 backslash, quote or line end"
            )));
        }
    }
    let options = format!("lowerdir={},upperdir={},workdir={}", volume.lower, volume.upper, volume.work);
    if options.len() >= OPTIONS_MAX_BYTES {
        return Err(DockerError::Input(format!(
            "the paths of the overlay {} are too long together: {} bytes, and a mount takes less than {OPTIONS_MAX_BYTES}",
            volume.name,
            options.len()
        )));
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(lower: &str) -> Result<String, DockerError> {
        mount_options(&OverlayVolume {
            name: "v".into(),
            lower: lower.into(),
            upper: "/d/upper".into(),
            work: "/d/work".into(),
            labels: vec![],
        })
    }

    #[test]
    fn paths_that_a_mount_would_misread_are_refused() {
        assert_eq!(options("/s/a b").unwrap(), "lowerdir=/s/a b,upperdir=/d/upper,workdir=/d/work");
        for path in ["/a,b", "/a:b", "/a\nb", "/a\\b", "/a\"b", "relative", ""] {
            assert!(matches!(options(path), Err(DockerError::Input(_))), "{path:?}");
        }
        assert!(matches!(options(&format!("/{}", "x".repeat(4090))), Err(DockerError::Input(_))));
    }
}
