//! `gatehouse shards`: the shards behind the running edge.

use std::process::ExitCode;

use clap::Args;

use super::CommandError;
use super::edge::RunningEdge;
use crate::control::protocol::{Request, ShardReport};

/// The options of `gatehouse shards`.
#[derive(Debug, Args)]
pub(super) struct Shards {
    #[command(flatten)]
    edge: RunningEdge,
}

impl Shards {
    pub(super) fn execute(&self) -> Result<ExitCode, CommandError> {
        self.edge.ask(&Request::Shards, |shards: &Vec<ShardReport>| show(shards))
    }
}

/// One line a shard.
pub(super) fn show(shards: &[ShardReport]) {
    for ShardReport { shard, healthy, supervised, starts } in shards {
        let state = if *healthy { "takes requests" } else { "takes no requests" };
        let starts = if *supervised { format!(", started {starts} times") } else { String::new() };
        println!("{shard}  {state}{starts}");
    }
}
