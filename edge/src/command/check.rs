//! `gatehouse check`: names every mistake in a configuration.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use gatehouse_shared::config::ConfigError;
use serde_json::json;

use crate::config::{self, chain_of};

/// The options of `gatehouse check`.
#[derive(Debug, Args)]
pub(super) struct Check {
    /// The configuration file
    #[arg(value_name = "CONFIG")]
    config: PathBuf,
    /// Write the findings as one JSON object
    #[arg(long)]
    json: bool,
}

impl Check {
    /// Mistakes are the command's result, not an error.
    pub(super) fn execute(&self) -> ExitCode {
        check(&self.config, self.json)
    }
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
