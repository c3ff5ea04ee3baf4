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

/// Logs to standard error; `SPAWNPOINT_LOG` says how much, as tracing's filters are written.
pub fn start_log() {
    // russh and serenity write a line for every packet at their own debug level.
    let usual = "info,russh=warn,serenity=warn,poise=error,tracing::span=warn";
    let filter =
        std::env::var("SPAWNPOINT_LOG").ok().filter(|text| !text.is_empty()).unwrap_or_else(|| usual.to_owned());
    let filter = tracing_subscriber::EnvFilter::try_new(&filter).unwrap_or_else(|error| {
        eprintln!("SPAWNPOINT_LOG is not a filter ({error}); using `{usual}`.");
        tracing_subscriber::EnvFilter::new(usual)
    });
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // A second start in one process, as in a test, keeps the first log.
    let _ = log.try_init();
}
