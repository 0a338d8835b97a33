//! `gatehouse reload`: has the running edge read its configuration again.

use std::process::ExitCode;

use clap::Args;

use super::CommandError;
use super::edge::RunningEdge;
use crate::control::protocol::Request;
use crate::reload::Reloaded;

/// The options of `gatehouse reload`.
#[derive(Debug, Args)]
pub(super) struct Reload {
    #[command(flatten)]
    edge: RunningEdge,
}

impl Reload {
    pub(super) fn execute(&self) -> Result<ExitCode, CommandError> {
        self.edge.ask(&Request::Reload, |reloaded: &Reloaded| {
            println!("reloaded; certificates in use: {}", reloaded.certificates);
            for key in &reloaded.needs_upgrade {
                println!("{key} was changed as well and takes effect with `gatehouse upgrade`");
            }
        })
    }
}
