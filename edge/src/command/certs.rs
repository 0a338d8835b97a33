//! `gatehouse certs`: lists the certificates of a configuration, whether the edge runs or not.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use gatehouse_shared::clock::SystemClock;
use serde_json::json;

use super::CommandError;
use crate::certs::{self, Listed};
use crate::config;

/// The options of `gatehouse certs`.
#[derive(Debug, Args)]
pub(super) struct Certs {
    /// The configuration file
    #[arg(long, value_name = "FILE", env = "GATEHOUSE_CONFIG", default_value = "/etc/gatehouse/edge.toml")]
    config: PathBuf,
    /// Write the certificates as one JSON object
    #[arg(long)]
    json: bool,
}

impl Certs {
    pub(super) fn execute(self) -> Result<ExitCode, CommandError> {
        let all = certs::list(&config::load(&self.config)?, &SystemClock);
        if self.json {
            println!("{}", json!({ "certificates": all }));
        } else {
            let blocks: Vec<String> = all.iter().map(ToString::to_string).collect();
            print!("{}", blocks.join("\n"));
        }
        Ok(if all.iter().all(Listed::is_valid) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
