//! Which running edge a command speaks to, and how its answer is shown.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::CommandError;
use crate::config::DEFAULT_SOCKET;
use crate::control::client::{AskError, ask};
use crate::control::protocol::Request;

/// The options of every command that asks a running edge.
#[derive(Debug, Args)]
pub(super) struct RunningEdge {
    /// The configuration file of the running edge
    #[arg(long, value_name = "FILE", env = "GATEHOUSE_CONFIG", default_value = "/etc/gatehouse/edge.toml")]
    config: PathBuf,
    /// The control socket of the running edge, in the place of the one that the configuration names
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Write the answer as one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

impl RunningEdge {
    /// Asks, then writes the answer as JSON or as `show` does.
    pub(super) fn ask<T>(&self, request: &Request, show: impl FnOnce(&T)) -> Result<ExitCode, CommandError>
    where
        T: DeserializeOwned + Serialize,
    {
        match ask::<T>(&self.socket(), request) {
            Ok(told) if self.json => println!("{}", json!(told)),
            Ok(told) => show(&told),
            Err(AskError::Refused(refused)) if self.json => {
                println!("{}", json!({ "refused": refused.message, "details": refused.details }));
                return Ok(ExitCode::FAILURE);
            }
            Err(error) => return Err(error.into()),
        }
        Ok(ExitCode::SUCCESS)
    }

    fn socket(&self) -> PathBuf {
        let configured = || socket_of(&std::fs::read_to_string(&self.config).ok()?);
        self.socket.clone().or_else(configured).unwrap_or_else(|| Path::new(DEFAULT_SOCKET).to_owned())
    }
}

/// `control.socket` of a configuration that may hold mistakes elsewhere: asking the edge about them must still be possible.
fn socket_of(config: &str) -> Option<PathBuf> {
    let (document, _mistakes) = toml::de::DeTable::parse_recoverable(config);
    let section = document.get_ref().get("control")?.get_ref().as_table()?;
    Some(section.get("socket")?.get_ref().as_str()?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_found_in_a_broken_configuration() {
        let text = "[server]\nnaem = 1\n[control]\nsocket = \"/run/x.sock\"\n[limits]\nmax = = 1\n";
        assert_eq!(socket_of(text), Some("/run/x.sock".into()));
        assert_eq!(socket_of("[server]\n"), None);
    }
}
