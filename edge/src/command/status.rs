//! `gatehouse status`: what the running edge is doing.

use std::process::ExitCode;

use clap::Args;

use super::CommandError;
use super::edge::RunningEdge;
use crate::control::protocol::Request;
use crate::status;

/// The options of `gatehouse status`.
#[derive(Debug, Args)]
pub(super) struct Status {
    #[command(flatten)]
    edge: RunningEdge,
}

impl Status {
    pub(super) fn execute(&self) -> Result<ExitCode, CommandError> {
        self.edge.ask(&Request::Status, |status: &status::Status| {
            let status::Status { version, process_id, uptime_seconds, server_name, shards } = status;
            println!("{server_name}: gatehouse {version}, process {process_id}, up {uptime_seconds} s");
            super::shards::show(shards);
        })
    }
}
