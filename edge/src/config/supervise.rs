//! `[supervise]`: local shards that the edge starts itself.

use std::path::PathBuf;

use gatehouse_shared::config::Checker;
use serde::{Deserialize, Serialize};

/// Local shards that the edge starts, and starts again when they end.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SuperviseConfig {
    /// How many shards to run. An SQLite file takes one.
    pub shards: u16,
    /// The shards' program. Left out: `gatehouse-homeserver` beside this program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub program: Option<PathBuf>,
    /// The shards' configuration file.
    pub config: PathBuf,
    /// Folder for the shards' sockets; made with mode 0700.
    pub socket_folder: PathBuf,
    /// How long a shard may take to finish its requests when it is stopped, in seconds.
    #[serde(default = "stop_seconds")]
    pub stop_seconds: u64,
}

pub(super) fn stop_seconds() -> u64 {
    15
}

/// More on one machine would only compete with each other.
const MOST_SHARDS: u16 = 64;

impl SuperviseConfig {
    pub(super) fn check(&self, checker: &mut Checker<'_>) {
        if !(1..=MOST_SHARDS).contains(&self.shards) {
            checker.reject("supervise.shards", format_args!("must be between 1 and {MOST_SHARDS}"));
        }
        if let Some(program) = self.program.as_ref().filter(|program| !program.is_file()) {
            checker.reject("supervise.program", format_args!("{} is not a file", program.display()));
        }
        if !self.config.is_file() {
            checker.reject("supervise.config", format_args!("{} is not a file", self.config.display()));
        }
    }
}
