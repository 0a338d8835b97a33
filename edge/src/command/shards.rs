//! `gatehouse shards`: the shards behind the running edge.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::CommandError;
use super::edge::RunningEdge;
use crate::control::protocol::{Request, ShardReport};

/// The options of `gatehouse shards`.
#[derive(Debug, Args)]
pub(super) struct Shards {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Lists all shards
    List(List),
    /// Restarts the supervised shards one by one: each is drained first, and serves before the next one stops
    Restart(Restart),
}

#[derive(Debug, Args)]
struct List {
    #[command(flatten)]
    edge: RunningEdge,
}

#[derive(Debug, Args)]
struct Restart {
    /// The address of the only one to restart, as `list` shows it
    #[arg(value_name = "SHARD")]
    only: Option<String>,
    #[command(flatten)]
    edge: RunningEdge,
}

impl Shards {
    pub(super) fn execute(&self) -> Result<ExitCode, CommandError> {
        match &self.action {
            Action::List(List { edge }) => edge.ask(&Request::Shards, |shards: &Vec<ShardReport>| show(shards)),
            Action::Restart(Restart { only, edge }) => restart(edge, only.clone()),
        }
    }
}

/// Restarts shards through the running edge.
pub(super) fn restart(edge: &RunningEdge, only: Option<String>) -> Result<ExitCode, CommandError> {
    edge.ask(&Request::RestartShards { only }, |shards: &Vec<ShardReport>| show(shards))
}

/// One line a shard.
pub(super) fn show(shards: &[ShardReport]) {
    for ShardReport { shard, healthy, in_flight, supervised, starts } in shards {
        let state = if *healthy { "takes requests" } else { "takes no requests" };
        let starts = if *supervised { format!(", starts: {starts}") } else { String::new() };
        println!("{shard}  {state}, {in_flight} in flight{starts}");
    }
}
