//! What a running edge says about itself, to a terminal, a program and the status page alike.

use serde::{Deserialize, Serialize};

use crate::control::protocol::ShardReport;

/// The edge at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Status {
    /// The program's version.
    pub(crate) version: String,
    /// The process.
    pub(crate) process_id: u32,
    /// Seconds since it began to serve.
    pub(crate) uptime_seconds: u64,
    /// The server's name.
    pub(crate) server_name: String,
    /// All shards.
    pub(crate) shards: Vec<ShardReport>,
}
