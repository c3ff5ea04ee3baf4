//! Images: looked up, pulled from a registry, built from files in memory, removed.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use bollard::models::CreateImageInfo;
use bollard::query_parameters::{
    BuildImageOptionsBuilder, CreateImageOptionsBuilder, ListImagesOptions, ListImagesOptionsBuilder,
    RemoveImageOptions,
};
use futures::StreamExt;

use super::error::{by_message, by_pull};
use super::lines::{Output, Unfinished};
use super::{Docker, DockerError, label_filter};

/// How many of the last lines a failed build hands out.
const LAST_LINES: usize = 20;

/// A layer's progress is said each time it passes another such part.
const PROGRESS_PARTS: i64 = 10;

/// Over such a time the kernel counts how much of the CPUs a build's command had: its own default.
const CPU_PERIOD_US: u64 = 100_000;

#[derive(Clone, Debug, PartialEq)]
pub struct ImageInfo {
    pub id: String,
    pub size_bytes: u64,
    pub labels: HashMap<String, String>,
}

#[derive(Clone, Debug, Default)]
pub struct BuildSpec {
    /// `name:tag`
    pub tag: String,
    pub labels: Vec<(String, String)>,
    pub dockerfile: String,
    /// Path in the build's context, content, mode.
    pub files: Vec<(String, Vec<u8>, u32)>,
    /// Commands of the build use the host's network.
    pub network_host: bool,
    /// They stay readable in the image's history: nothing secret belongs here.
    pub build_args: Vec<(String, String)>,
    /// Memory and swap together, of each command.
    pub memory_bytes: Option<u64>,
    /// Billionths of a CPU.
    pub nano_cpus: Option<u64>,
}

impl Docker {
    /// Of an image that the daemon holds already.
    pub async fn image(&self, name: &str) -> Result<Option<ImageInfo>, DockerError> {
        match self.client()?.inspect_image(name).await.map_err(DockerError::from) {
            Ok(image) => Ok(Some(ImageInfo {
                id: image.id.unwrap_or_default(),
                size_bytes: super::count(image.size),
                labels: image.config.and_then(|config| config.labels).unwrap_or_default(),
            })),
            Err(DockerError::Gone(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Fetches an image; without a tag, `latest`. Each line tells of one layer. `Gone` when the registry
    /// knows no such image, `AccessDenied` when it wants a login, `RegistryUnreachable` when none answers.
    pub async fn pull(&self, name: &str, line: &mut (dyn FnMut(&str) + Send)) -> Result<(), DockerError> {
        // Without a tag the daemon would fetch all of them.
        let options = CreateImageOptionsBuilder::new().from_image(&with_tag(name)).build();
        let client = self.client_waiting(Duration::from_secs(180))?;
        let mut steps = std::pin::pin!(client.create_image(Some(options), None, None));
        let mut layers = HashMap::new();
        while let Some(step) = steps.next().await {
            let step = step.map_err(|error| by_pull(error.into()))?;
            if let Some(error) = step.error_detail {
                return Err(by_pull(by_message(error.message.unwrap_or_default())));
            }
            if let Some(text) = pull_line(&mut layers, step) {
                line(&text);
            }
        }
        // A daemon that goes away ends the stream as if all were well.
        match self.image(name).await? {
            Some(_) => Ok(()),
            None => Err(DockerError::DaemonUnreachable("the pull ended early".to_string())),
        }
    }

    /// Builds with the classic builder, which every daemon has, and hands each line of output on as it
    /// comes. Dropping the future stops the build. Gives the image's id. There is no limit on processes: the classic
    /// builder has none.
    pub async fn build(&self, spec: &BuildSpec, line: &mut (dyn FnMut(&str) + Send)) -> Result<String, DockerError> {
        let pairs = |list: &[(String, String)]| list.iter().cloned().collect::<HashMap<_, _>>();
        let mut options = BuildImageOptionsBuilder::new()
            .dockerfile("Dockerfile")
            .t(&spec.tag)
            .labels(&pairs(&spec.labels))
            .buildargs(&pairs(&spec.build_args))
            .rm(true)
            .forcerm(true);
        if spec.network_host {
            options = options.networkmode("host");
        }
        let body = bollard::body_full(context(spec)?.into());
        // The first step may run long before it says anything.
        let client = self.client_waiting(Duration::from_secs(super::TRANSFER_TIMEOUT_S))?;
        let limits = limits(spec);
        let client = client.with_request_modifier(move |mut request| {
            let address = format!("{}{limits}", request.uri());
            *request.uri_mut() = address.parse().expect("digits after an address are an address");
            request
        });
        let mut steps = std::pin::pin!(client.build_image(options.build(), None, Some(body)));
        let mut unfinished = Unfinished::default();
        let mut last = VecDeque::new();
        let mut built = None;
        let mut failure = None;
        while let Some(step) = steps.next().await {
            let step = match step {
                Ok(step) => step,
                Err(bollard::errors::Error::DockerStreamError { error }) => {
                    failure = Some(error);
                    break;
                }
                Err(error) => return Err(error.into()),
            };
            if let Some(error) = step.error_detail {
                failure = Some(error.message.unwrap_or_default());
                break;
            }
            built = step.aux.and_then(|image| image.id).or(built);
            let text = step.stream.or(step.status.map(|status| format!("{status}\n"))).unwrap_or_default();
            for text in unfinished.add(Output::Stdout, text.as_bytes()) {
                keep(&mut last, &text);
                line(&text);
            }
        }
        if let Some(text) = unfinished.rest(Output::Stdout) {
            keep(&mut last, &text);
            line(&text);
        }
        if let Some(reason) = failure {
            return Err(match by_message(reason) {
                DockerError::Refused(reason) => DockerError::BuildFailed { reason, last_lines: last.into() },
                known => known,
            });
        }
        built.ok_or_else(|| DockerError::DaemonUnreachable("the build ended early".to_string()))
    }

    /// The ids of the images with all of these labels.
    pub async fn images(&self, labels: &[(String, String)]) -> Result<Vec<String>, DockerError> {
        let options = ListImagesOptionsBuilder::new().filters(&label_filter(labels)).build();
        Ok(self.client()?.list_images(Some(options)).await?.into_iter().map(|image| image.id).collect())
    }

    /// The ids of the images of this name, whatever their tags.
    pub async fn images_named(&self, name: &str) -> Result<Vec<String>, DockerError> {
        let filters = HashMap::from([("reference".to_owned(), vec![name.to_owned()])]);
        let options = ListImagesOptionsBuilder::new().filters(&filters).build();
        Ok(self.client()?.list_images(Some(options)).await?.into_iter().map(|image| image.id).collect())
    }

    /// Any image that the daemon holds, for trying something that needs one.
    pub async fn any_image(&self) -> Result<Option<String>, DockerError> {
        let images = self.client()?.list_images(None::<ListImagesOptions>).await?;
        Ok(images.into_iter().next().map(|image| image.id))
    }

    /// Fine when there is none; a `Conflict` while a container uses it.
    pub async fn remove_image(&self, name: &str) -> Result<(), DockerError> {
        match self.client()?.remove_image(name, None::<RemoveImageOptions>, None).await.map_err(DockerError::from) {
            Ok(_) | Err(DockerError::Gone(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// The limits as the end of a build's address. They are no options of bollard's, where a number of bytes ends at 2 GB.
fn limits(spec: &BuildSpec) -> String {
    let mut limits = String::new();
    if let Some(bytes) = spec.memory_bytes {
        // The same number again means: no swap on top.
        limits += &format!("&memory={bytes}&memswap={bytes}");
    }
    if let Some(nano_cpus) = spec.nano_cpus {
        let quota_us = u128::from(nano_cpus) * u128::from(CPU_PERIOD_US) / 1_000_000_000;
        limits += &format!("&cpuperiod={CPU_PERIOD_US}&cpuquota={quota_us}");
    }
    limits
}

fn keep(last: &mut VecDeque<String>, line: &str) {
    if last.len() == LAST_LINES {
        last.pop_front();
    }
    last.push_back(line.to_string());
}

/// The build's files as a tar. Times are zero, so that the daemon's cache sees contents and nothing else.
fn context(spec: &BuildSpec) -> Result<Vec<u8>, DockerError> {
    let refuse = |error: std::io::Error| DockerError::Input(format!("the build's files cannot be packed: {error}"));
    let mut archive = tar::Builder::new(Vec::new());
    let dockerfile = ("Dockerfile", spec.dockerfile.as_bytes(), 0o644);
    let files = spec.files.iter().map(|(path, bytes, mode)| (path.as_str(), bytes.as_slice(), *mode));
    for (path, bytes, mode) in std::iter::once(dockerfile).chain(files) {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(mode);
        archive.append_data(&mut header, path, bytes).map_err(refuse)?;
    }
    archive.into_inner().map_err(refuse)
}

fn with_tag(name: &str) -> String {
    // A colon before the last slash belongs to a registry's port.
    let last = name.rsplit('/').next().unwrap_or(name);
    if last.contains([':', '@']) { name.to_string() } else { format!("{name}:latest") }
}

/// The daemon reports a layer many times a second; a line is due when the layer's status changes or another
/// tenth of it is there.
fn pull_line(layers: &mut HashMap<String, (String, i64)>, step: CreateImageInfo) -> Option<String> {
    let status = step.status?;
    let Some(layer) = step.id else { return Some(status) };
    let progress = step.progress_detail.unwrap_or_default();
    let parts = match (progress.current, progress.total) {
        (Some(current), Some(total)) if total > 0 => Some(current.min(total) * PROGRESS_PARTS / total),
        _ => None,
    };
    let now = (status.clone(), parts.unwrap_or(0));
    if layers.get(&layer) == Some(&now) {
        return None;
    }
    layers.insert(layer.clone(), now);
    Some(match (parts, progress.total) {
        (Some(parts), Some(total)) => {
            format!("{layer}: {status}, {} % of {:.1} MB", parts * 100 / PROGRESS_PARTS, total as f64 / 1e6)
        }
        _ => format!("{layer}: {status}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard::models::ProgressDetail;

    #[test]
    fn an_image_without_a_tag_is_the_latest() {
        assert_eq!(with_tag("debian"), "debian:latest");
        assert_eq!(with_tag("debian:12"), "debian:12");
        assert_eq!(with_tag("registry.example:5000/debian"), "registry.example:5000/debian:latest");
        assert_eq!(with_tag("debian@sha256:00"), "debian@sha256:00");
    }

    #[test]
    fn a_layer_speaks_at_each_tenth_and_each_change() {
        let mut layers = HashMap::new();
        let mut say = |status: &str, current| {
            pull_line(
                &mut layers,
                CreateImageInfo {
                    id: Some("a1b2".into()),
                    status: Some(status.into()),
                    progress_detail: Some(ProgressDetail { current, total: current.map(|_| 200_000_000) }),
                    ..Default::default()
                },
            )
        };
        assert_eq!(say("Waiting", None).as_deref(), Some("a1b2: Waiting"));
        assert_eq!(say("Waiting", None), None);
        assert_eq!(say("Downloading", Some(1_000)).as_deref(), Some("a1b2: Downloading, 0 % of 200.0 MB"));
        assert_eq!(say("Downloading", Some(19_000_000)), None);
        assert_eq!(say("Downloading", Some(21_000_000)).as_deref(), Some("a1b2: Downloading, 10 % of 200.0 MB"));
        assert_eq!(say("Pull complete", None).as_deref(), Some("a1b2: Pull complete"));
    }
}
