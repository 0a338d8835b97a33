//! `gatehouse run`: runs the edge until it is told to stop.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use gatehouse_shared::clock::SystemClock;
use gatehouse_shared::{shutdown, telemetry};
use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::json;

use super::CommandError;
use crate::config::{self, EdgeConfig};
use crate::server::{self, Environment, Listening};
use crate::upgrade::predecessor::Predecessor;
use crate::upgrade::successor::Invocation;

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
    pub(super) fn execute(self, predecessor: Option<Predecessor>) -> Result<ExitCode, CommandError> {
        let config = config::load(&self.config)?;
        run(config, &self.config, predecessor, |listening| announce(listening, self.json))
    }
}

/// Runs the edge with `config`, which was read from `file`.
pub(super) fn run(
    config: EdgeConfig,
    file: &Path,
    predecessor: Option<Predecessor>,
    announce: impl FnOnce(&Listening),
) -> Result<ExitCode, CommandError> {
    // Pingora takes whichever provider came first, so this comes before everything.
    // It fails only when one is installed already, and nothing ran before this.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let guard = telemetry::init(&config.telemetry, "gatehouse-edge")?;
    allow_many_descriptors();
    // For what is not a connection; those have workers of their own.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let ended = runtime.block_on(async {
        let environment = Environment {
            // Absolute, because what is started later may stand elsewhere.
            config_file: std::path::absolute(file)?,
            // Asked for now: once the file is replaced, the system says that it was deleted.
            invocation: Invocation {
                program: std::env::current_exe()?,
                arguments: std::env::args_os().skip(1).collect(),
            },
            predecessor,
            clock: Arc::new(SystemClock),
            seed: rand::random(),
            exports_spans: guard.exports_spans(),
            stop: shutdown::on_signals()?,
        };
        server::run(config, environment, announce).await?;
        Ok(ExitCode::SUCCESS)
    });
    // A thread that reads a file of a file system that hangs is not waited for; everything else has ended.
    runtime.shutdown_background();
    ended
}

/// A connection is a descriptor, and another one towards a shard. A service manager or a shell usually gives a process a
/// thousand and lets it take more.
fn allow_many_descriptors() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

/// Says where the edge listens.
pub(super) fn announce(listening: &Listening, as_json: bool) {
    use std::fmt::Write as _;
    let mut text = String::new();
    if as_json {
        text = format!("{}\n", json!({ "listening": listening }));
    } else {
        let addresses = [
            ("https", &listening.https),
            ("federation", &listening.federation),
            ("http", &listening.http),
            ("internal", &listening.internal),
        ];
        for (kind, address) in addresses.iter().flat_map(|(kind, all)| all.iter().map(move |one| (kind, one))) {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "listening on {kind} {address}");
        }
        if let Some(address) = listening.metrics {
            let _ = writeln!(text, "status and metrics on http://{address}/");
        }
    }
    say(&text);
}

/// Writes to the standard output. Whoever read it may have gone long ago, which is nothing to stop for.
pub(super) fn say(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}
