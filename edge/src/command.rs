//! The command line.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand};
use gatehouse_shared::clock::SystemClock;
use gatehouse_shared::config::ConfigError;
use gatehouse_shared::shutdown;
use gatehouse_shared::telemetry::{self, TelemetryError};
use serde_json::json;

use crate::config::{self, EdgeConfig, chain_of};
use crate::dev::{self, DevError, Workbench};
use crate::server::{self, Environment, Listening, StartError};

mod doctor;

/// Gatehouse's front door: TLS, routing and supervision of a Matrix homeserver.
#[derive(Debug, Parser)]
#[command(name = "gatehouse", version, about)]
pub struct Command {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Runs the edge until SIGTERM or SIGINT; SIGHUP reads the certificates again
    Run(Run),
    /// Checks a configuration and names the file, line and key of every mistake
    Check(Check),
    /// Runs a whole server for development: makes a folder with everything it needs, and starts edge and shard
    Dev(Dev),
    /// Finds what keeps other servers and clients from a Matrix server, and says what mends it
    Doctor(doctor::Doctor),
}

#[derive(Debug, Args)]
struct Run {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Write where the edge listens as one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Check {
    /// The configuration file
    #[arg(value_name = "CONFIG")]
    config: PathBuf,
    /// Write the findings as one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Dev {
    /// The folder for configuration, keys and data; kept between runs
    #[arg(long, value_name = "FOLDER", default_value = "run")]
    folder: PathBuf,
    /// The port for clients, on 127.0.0.1
    #[arg(long, value_name = "PORT", default_value_t = 8443)]
    https_port: u16,
    /// The port for other servers, on 127.0.0.1
    #[arg(long, value_name = "PORT", default_value_t = 8448)]
    federation_port: u16,
    /// The port in the clear, on 127.0.0.1
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    http_port: u16,
    /// Write where the edge listens as one JSON object
    #[arg(long)]
    json: bool,
}

/// Why a command failed. The alternate form of `Display` (`{:#}`) adds the sources.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The folder for development cannot be made.
    #[error(transparent)]
    Dev(#[from] DevError),
    /// Logs and traces cannot be set up.
    #[error("{}", chain_of(.0))]
    Telemetry(#[from] TelemetryError),
    /// The edge cannot start.
    #[error("{}", chain_of(.0))]
    Start(#[from] StartError),
    /// The system refuses something that every program needs.
    #[error("the system refuses to run this program: {0}")]
    System(#[from] std::io::Error),
    /// The doctor cannot ask anything.
    #[error(transparent)]
    Doctor(#[from] doctor::DoctorError),
}

impl Command {
    /// Does what the command line says.
    ///
    /// # Errors
    /// When it cannot be done. Mistakes that `check` finds are its result, not an error.
    pub fn execute(self) -> Result<ExitCode, CommandError> {
        match self.action {
            Action::Run(Run { config, json }) => run(config::load(&config)?, |listening| announce(listening, json)),
            Action::Check(Check { config, json }) => Ok(check(&config, json)),
            Action::Dev(dev) => run_dev(&dev),
            Action::Doctor(options) => Ok(doctor::run(&options)?),
        }
    }
}

fn run(config: EdgeConfig, announce: impl FnOnce(&Listening)) -> Result<ExitCode, CommandError> {
    // Pingora takes whichever provider came first, so this comes before everything.
    // It fails only when one is installed already, and nothing ran before this.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let guard = telemetry::init(&config.telemetry, "gatehouse-edge")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let environment = Environment {
            clock: Arc::new(SystemClock),
            seed: rand::random(),
            exports_spans: guard.exports_spans(),
            stop: shutdown::on_signals()?,
        };
        server::run(config, environment, announce).await?;
        Ok(ExitCode::SUCCESS)
    })
}

fn check(path: &Path, as_json: bool) -> ExitCode {
    let outcome = config::load(path);
    if as_json {
        let (mistakes, error) = match &outcome {
            Ok(_) => (&[][..], None),
            Err(error @ ConfigError::Read { .. }) => (&[][..], Some(chain_of(error))),
            Err(error) => (error.mistakes(), None),
        };
        println!("{}", json!({ "file": path, "ok": outcome.is_ok(), "mistakes": mistakes, "error": error }));
    } else {
        match &outcome {
            Ok(_) => println!("{}: no mistakes", path.display()),
            Err(error) => println!("{}", chain_of(error)),
        }
    }
    if outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn announce(listening: &Listening, as_json: bool) {
    if as_json {
        println!("{}", json!({ "listening": listening }));
        return;
    }
    for (kind, addresses) in
        [("https", &listening.https), ("federation", &listening.federation), ("http", &listening.http)]
    {
        for address in addresses {
            println!("listening on {kind} {address}");
        }
    }
    if let Some(address) = listening.metrics {
        println!("metrics on http://{address}/metrics");
    }
}

fn run_dev(options: &Dev) -> Result<ExitCode, CommandError> {
    let ports = dev::Ports { https: options.https_port, federation: options.federation_port, http: options.http_port };
    let workbench = dev::prepare(&options.folder, ports)?;
    let config = config::load(&workbench.edge_config)?;
    let (server_name, base_url) = (config.server.name.clone(), config.server.base_url.clone());
    run(config, |listening| {
        if options.json {
            announce(listening, true);
        } else {
            greet(&workbench, listening, &server_name, base_url.as_deref().unwrap_or("(no base URL)"));
        }
    })
}

fn greet(workbench: &Workbench, listening: &Listening, server_name: &str, base_url: &str) {
    let program = workbench.homeserver_program.display();
    let homeserver_config = workbench.homeserver_config.display();
    println!("Gatehouse runs as {server_name}.\n");
    println!("  homeserver URL for clients   {base_url}");
    for address in &listening.federation {
        println!("  address for other servers    {address}");
    }
    println!("  make the first user          {program} user create NAME --admin --config {homeserver_config}");
    if let Some(ca) = listening.ca.as_deref().map(Path::display) {
        println!("  certificate to trust         {ca}");
        println!("  try                          curl --cacert {ca} {base_url}/_matrix/client/versions");
    }
    println!("  configuration                {}", workbench.edge_config.display());
    println!("  stop                         Ctrl-C\n");
}
