//! The command line: one file a command.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use gatehouse_shared::config::ConfigError;
use gatehouse_shared::telemetry::TelemetryError;

use crate::config::chain_of;
use crate::control::client::AskError;
use crate::dev::DevError;
use crate::server::StartError;
use crate::upgrade::predecessor::Predecessor;

mod bans;
mod certs;
mod check;
mod dev;
mod doctor;
mod edge;
mod reload;
mod run;
mod shards;
mod status;
mod times;
mod upgrade;

/// Gatehouse's front door: TLS, routing and supervision of a Matrix homeserver.
#[derive(Debug, Parser)]
#[command(name = "gatehouse", version, about)]
pub struct Command {
    #[command(subcommand)]
    action: Action,
    /// The edge at the other end of the standard input is to be replaced; only an edge starts another one like this
    #[arg(long, hide = true, global = true)]
    take_over: bool,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Runs the edge until SIGTERM or SIGINT; SIGHUP reads the configuration again
    Run(run::Run),
    /// Checks a configuration and names the file, line and key of every mistake
    Check(check::Check),
    /// Lists the certificates of a configuration; fails when one of them is missing or not valid now
    Certs(certs::Certs),
    /// Runs a whole server for development: makes a folder with everything it needs, and starts edge and shard
    Dev(dev::Dev),
    /// Finds what keeps other servers and clients from a Matrix server, and says what mends it
    Doctor(doctor::Doctor),
    /// Has the running edge read its whole configuration again; a mistake changes nothing and is named
    Reload(reload::Reload),
    /// Shows what the running edge is doing
    Status(status::Status),
    /// Lists and restarts the shards behind the running edge
    Shards(shards::Shards),
    /// Lists everybody whom the running edge keeps out, and for how long
    Bans(bans::Bans),
    /// Keeps an address, a prefix or another server out; open connections end at once
    Ban(bans::Ban),
    /// Lets somebody in again, and forgets what was counted
    Unban(bans::Unban),
    /// Shows a jail: what it counts, whom it has banned, and who is on the way there
    Jail(bans::Jail),
    /// Replaces the running edge by a new process of its program, which may be a newer one; no request fails
    Upgrade(upgrade::Upgrade),
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
    /// The running edge gave no answer, or refused.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// The doctor cannot ask anything.
    #[error(transparent)]
    Doctor(#[from] doctor::DoctorError),
    /// The system refuses something that every program needs.
    #[error("the system refuses to run this program: {0}")]
    System(#[from] std::io::Error),
}

impl Command {
    /// Does what the command line says.
    ///
    /// # Errors
    /// When it cannot be done. Mistakes that `check` finds are its result, not an error.
    pub fn execute(self) -> Result<ExitCode, CommandError> {
        let predecessor = self.take_over.then(Predecessor::on_stdin).transpose()?;
        let done = self.action.execute(predecessor.clone());
        if let (Err(error), Some(predecessor)) = (&done, predecessor) {
            predecessor.refuse(format!("{error:#}"));
        }
        done
    }
}

impl Action {
    fn execute(self, predecessor: Option<Predecessor>) -> Result<ExitCode, CommandError> {
        match self {
            Self::Run(run) => run.execute(predecessor),
            Self::Check(check) => Ok(check.execute()),
            Self::Certs(certs) => certs.execute(),
            Self::Dev(dev) => dev.execute(predecessor),
            Self::Doctor(doctor) => Ok(doctor.execute()?),
            Self::Reload(reload) => reload.execute(),
            Self::Status(status) => status.execute(),
            Self::Shards(shards) => shards.execute(),
            Self::Upgrade(upgrade) => upgrade.execute(),
            Self::Bans(bans) => bans.execute(),
            Self::Ban(ban) => ban.execute(),
            Self::Unban(unban) => unban.execute(),
            Self::Jail(jail) => jail.execute(),
        }
    }
}
