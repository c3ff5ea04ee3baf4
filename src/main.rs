//! The command line.

use anyhow::Context;
use clap::{Parser, Subcommand};
use spawnpoint::cli;
use spawnpoint::config::Config;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

/// Friends run game servers from Discord.
#[derive(Parser)]
#[command(version, about, arg_required_else_help = true)]
struct Arguments {
    /// The configuration file (default: config.toml, if it is there)
    #[arg(long, short, global = true, env = "SPAWNPOINT_CONFIG")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the bot until it is told to stop
    Run {
        /// Carry jobs out and watch servers, and leave Discord alone
        #[arg(long)]
        without_discord: bool,
    },
    /// Check the configuration and every recipe, and say all that is wrong
    Check,
    /// Say what is missing on this machine or in the Discord guild, and how to mend it
    Doctor,
    /// Say that a machine of your own, under [hosts] in the configuration, is the right one: it has to show this key then
    Trust {
        /// Its name under [hosts]
        host: String,
        /// The key's SHA-256 fingerprint, as the machine itself says it; another key is refused
        #[arg(long, value_name = "SHA256:…")]
        fingerprint: Option<String>,
        /// Do not ask, for scripts
        #[arg(long, requires = "fingerprint")]
        yes: bool,
    },
    /// Do the main job once with a real game, in the terminal, and leave nothing behind
    Demo {
        /// The recipe to show
        #[arg(long, default_value = "openttd")]
        game: String,
        /// Keep the golden snapshot's image for the next time
        #[arg(long)]
        keep_image: bool,
        /// Show rented hosts in the place of containers, with the stand-in for providers (tests/cloud/standin.py) that
        /// answers at this address; scripts/demo --cloud starts it
        #[arg(long, value_name = "URL", conflicts_with = "keep_image")]
        cloud_standin: Option<String>,
    },
    /// What rsync starts in the place of ssh; not for people
    #[command(hide = true)]
    Rsh {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<OsString>,
    },
}

/// What systemd calls a configuration that starting again does not mend (EX_CONFIG of sysexits.h).
const EXIT_CONFIG: u8 = 78;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Before any runtime: it must not touch the pipes that rsync hands over.
    if let Command::Rsh { words } = arguments.command {
        spawnpoint::clients::rsync::rsh::main(words);
    }
    rustls::crypto::ring::default_provider().install_default().expect("nothing has chosen a TLS provider before");
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("Spawnpoint could not start: {error}");
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(run(arguments))
}

async fn run(arguments: Arguments) -> ExitCode {
    let config = match Config::load(arguments.config.as_deref(), std::env::vars()) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("{error:#}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let result = match arguments.command {
        Command::Run { without_discord } => return cli::run::run(&config, !without_discord).await,
        Command::Check => cli::check::check(&config),
        Command::Doctor => cli::doctor::doctor(&config).await,
        Command::Trust { host, fingerprint, yes } => {
            cli::trust::trust(&config, &cli::trust::Wish { host, fingerprint, yes }).await
        }
        Command::Demo { game, cloud_standin: Some(standin), keep_image: _ } => {
            cli::demo::demo_of_rented_hosts(&config, &game, &standin).await.context("the demo stopped")
        }
        Command::Demo { game, cloud_standin: None, keep_image } => {
            cli::demo::demo(&config, &game, keep_image).await.context("the demo stopped")
        }
        Command::Rsh { words } => spawnpoint::clients::rsync::rsh::main(words),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
