//! `spawnpoint run`: the bot, until SIGTERM or Ctrl-C. Jobs under way are left where they are and go on at the next
//! start; the games run on meanwhile.

use crate::config::Config;
use crate::discord;
use crate::program::{self, Program};
use crate::recipes::Recipes;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::level_filters::LevelFilter;
use tracing::{Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// What is under way gets so long to write its last word.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(10);
/// See EXIT_CONFIG in main: starting again would not help, and Discord resets a token that is tried too often.
const EXIT_CONFIG: u8 = 78;

pub async fn run(config: &Config, with_discord: bool) -> ExitCode {
    start_log();
    if let Err(error) = program::check(config).and_then(|()| Recipes::load(&config.game_scripts).map(drop)) {
        tracing::error!("Spawnpoint could not start, and starting it again will not help: {error:#}");
        return ExitCode::from(EXIT_CONFIG);
    }
    let program = match Program::build(config).await {
        Ok(program) => program,
        Err(error) => {
            tracing::error!("Spawnpoint could not start: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let stop = CancellationToken::new();
    let work = program.work(&stop);
    // Heard from now on: whoever reads below that it runs may tell it to stop at once.
    let told = match told_to_stop() {
        Ok(told) => told,
        Err(error) => {
            tracing::error!("Spawnpoint could not start, because signals cannot be heard: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let signals = stop.clone();
    tokio::spawn(async move {
        told.await;
        tracing::info!("Told to stop. Games run on; jobs under way go on at the next start.");
        signals.cancel();
    });
    tracing::info!("Spawnpoint {} runs.", env!("CARGO_PKG_VERSION"));
    if !with_discord {
        stop.cancelled().await;
        return ended(work, ExitCode::SUCCESS).await;
    }
    let code = match discord::run(program.app.clone(), &config.discord, discord::WHOLE_WITHIN, stop.clone()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => {
            tracing::error!("{exit}");
            if exit.needs_a_person() { ExitCode::from(EXIT_CONFIG) } else { ExitCode::FAILURE }
        }
    };
    stop.cancel();
    ended(work, code).await
}

async fn ended(work: tokio::task::JoinHandle<()>, code: ExitCode) -> ExitCode {
    if tokio::time::timeout(SHUTDOWN_LIMIT, work).await.is_err() {
        tracing::warn!(
            "Something under way did not end in {} s; it goes on at the next start.",
            SHUTDOWN_LIMIT.as_secs()
        );
    }
    code
}

/// Listens from the call on; what it gives ends with the first signal.
fn told_to_stop() -> anyhow::Result<impl Future<Output = ()> + Send> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Libraries that write down at their debug level what they send and receive: containers with the passwords of their
/// games, tokens, every packet. Nobody can ask for more of them than this.
const CAPPED: [(&str, LevelFilter); 13] = [
    ("bollard", LevelFilter::INFO),
    ("h2", LevelFilter::INFO),
    ("hickory_proto", LevelFilter::INFO),
    ("hyper", LevelFilter::INFO),
    ("hyper_util", LevelFilter::INFO),
    ("poise", LevelFilter::ERROR),
    ("reqwest", LevelFilter::INFO),
    ("russh", LevelFilter::WARN),
    ("serenity", LevelFilter::WARN),
    ("sqlx", LevelFilter::INFO),
    ("tokio_tungstenite", LevelFilter::INFO),
    ("tracing", LevelFilter::WARN),
    ("tungstenite", LevelFilter::INFO),
];

/// Whether a line of this library may be written at this level, whatever somebody asked for.
fn is_within_cap(target: &str, level: &Level) -> bool {
    let library = target.split("::").next().unwrap_or_default();
    CAPPED.iter().all(|(capped, most)| *capped != library || level <= most)
}

/// Logs to standard error; `SPAWNPOINT_LOG` says how much.
pub fn start_log() {
    let wish = std::env::var("SPAWNPOINT_LOG").ok().filter(|text| !text.is_empty());
    let ansi = std::io::stderr().is_terminal();
    // A second start in one process, as in a test, keeps the first log.
    let _ = log_of(wish.as_deref(), ansi, std::io::stderr).try_init();
}

/// A log of what somebody wishes to read, in the words of tracing's filters.
fn log_of<W>(wish: Option<&str>, ansi: bool, to: W) -> impl Subscriber + Send + Sync
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let wished = EnvFilter::try_new(wish.unwrap_or("info")).unwrap_or_else(|error| {
        eprintln!("SPAWNPOINT_LOG is not a filter ({error}); using `info`.");
        EnvFilter::new("info")
    });
    let cap = filter_fn(|about| is_within_cap(about.target(), about.level()));
    tracing_subscriber::registry()
        .with(wished)
        .with(cap)
        .with(tracing_subscriber::fmt::layer().with_writer(to).with_ansi(ansi))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Page {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn nobody_can_ask_for_what_libraries_send_and_receive() {
        for wish in
            [None, Some("debug"), Some("trace"), Some("bollard=trace,serenity=trace"), Some("bollard::docker=debug")]
        {
            let page = Page::default();
            let to = page.clone();
            tracing::subscriber::with_default(log_of(wish, false, move || to.clone()), || {
                tracing::debug!(target: "bollard::docker", "PASSWORD=hush");
                tracing::trace!(target: "tungstenite::protocol", "hush");
                tracing::info_span!(target: "serenity::http::client", "request", token = "hush").in_scope(|| {
                    tracing::debug!(target: "spawnpoint::engine", "ours");
                });
                tracing::warn!(target: "serenity::gateway", "theirs");
            });
            let text = String::from_utf8(page.0.lock().unwrap().clone()).unwrap();
            assert!(!text.contains("hush"), "{wish:?}: {text}");
            assert_eq!(text.contains("ours"), matches!(wish, Some("debug" | "trace")), "{wish:?}: {text}");
        }
    }
}
