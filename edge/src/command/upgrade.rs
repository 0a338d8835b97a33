//! `gatehouse upgrade`: replaces the running edge, or its shards, by what is installed now.

use std::process::ExitCode;

use clap::Args;

use super::CommandError;
use super::edge::RunningEdge;
use super::shards::restart;
use crate::control::protocol::Request;
use crate::upgrade::successor::Upgraded;

/// The options of `gatehouse upgrade`.
#[derive(Debug, Args)]
pub(super) struct Upgrade {
    /// Restart the supervised shards one by one, in the place of the edge itself
    #[arg(long)]
    shards: bool,
    #[command(flatten)]
    edge: RunningEdge,
}

impl Upgrade {
    pub(super) fn execute(&self) -> Result<ExitCode, CommandError> {
        if self.shards {
            return restart(&self.edge, None);
        }
        self.edge.ask(&Request::Upgrade, |upgraded: &Upgraded| {
            let Upgraded { process_id, version, shards } = upgraded;
            println!("process {process_id} serves now, gatehouse {version}; shards taken over: {shards}");
        })
    }
}
