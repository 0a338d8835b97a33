//! `gatehouse run`: runs the edge until it is told to stop.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use gatehouse_shared::clock::SystemClock;
use gatehouse_shared::{shutdown, telemetry};
use serde_json::json;

use super::CommandError;
use crate::config::{self, EdgeConfig};
use crate::server::{self, Environment, Listening};

/// The options of `gatehouse run`.
#[derive(Debug, Args)]
pub(super) struct Run {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Write where the edge listens as one JSON object
    #[arg(long)]
    json: bool,
}

impl Run {
    pub(super) fn execute(self) -> Result<ExitCode, CommandError> {
        run(config::load(&self.config)?, &self.config, |listening| announce(listening, self.json))
    }
}

/// Runs the edge with `config`, which was read from `file`.
pub(super) fn run(
    config: EdgeConfig,
    file: &Path,
    announce: impl FnOnce(&Listening),
) -> Result<ExitCode, CommandError> {
    // Pingora takes whichever provider came first, so this comes before everything.
    // It fails only when one is installed already, and nothing ran before this.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let guard = telemetry::init(&config.telemetry, "gatehouse-edge")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let environment = Environment {
            // Absolute, because what is started later may stand elsewhere.
            config_file: std::path::absolute(file)?,
            clock: Arc::new(SystemClock),
            seed: rand::random(),
            exports_spans: guard.exports_spans(),
            stop: shutdown::on_signals()?,
        };
        server::run(config, environment, announce).await?;
        Ok(ExitCode::SUCCESS)
    })
}

/// Says where the edge listens.
pub(super) fn announce(listening: &Listening, as_json: bool) {
    if as_json {
        println!("{}", json!({ "listening": listening }));
        return;
    }
    for (kind, addresses) in [
        ("https", &listening.https),
        ("federation", &listening.federation),
        ("http", &listening.http),
        ("internal", &listening.internal),
    ] {
        for address in addresses {
            println!("listening on {kind} {address}");
        }
    }
    if let Some(address) = listening.metrics {
        println!("metrics on http://{address}/metrics");
    }
}
