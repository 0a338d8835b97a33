//! `gatehouse dev`: a whole server for development, from nothing.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::CommandError;
use super::run::{announce, run, say};
use crate::config;
use crate::dev::{self, Workbench};
use crate::server::Listening;
use crate::upgrade::predecessor::Predecessor;

/// The options of `gatehouse dev`.
#[derive(Debug, Args)]
pub(super) struct Dev {
    /// The folder for configuration, keys and data; kept between runs
    #[arg(long, value_name = "FOLDER", default_value = "run")]
    folder: PathBuf,
    /// The port for clients, on 127.0.0.1
    #[arg(long, value_name = "PORT", default_value_t = 8443)]
    https_port: u16,
    /// The port for other servers, on 127.0.0.1
    #[arg(long, value_name = "PORT", default_value_t = 8448)]
    federation_port: u16,
    /// The port in the clear, on 127.0.0.1
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    http_port: u16,
    /// Write where the edge listens as one JSON object
    #[arg(long)]
    json: bool,
}

impl Dev {
    pub(super) fn execute(&self, predecessor: Option<Predecessor>) -> Result<ExitCode, CommandError> {
        run_dev(self, predecessor)
    }
}

fn run_dev(options: &Dev, predecessor: Option<Predecessor>) -> Result<ExitCode, CommandError> {
    let ports = dev::Ports { https: options.https_port, federation: options.federation_port, http: options.http_port };
    let workbench = dev::prepare(&options.folder, ports)?;
    let config = config::load(&workbench.edge_config)?;
    let (server_name, base_url) = (config.server.name.clone(), config.server.base_url.clone());
    run(config, &workbench.edge_config, predecessor, |listening| {
        if options.json {
            announce(listening, true);
        } else {
            greet(&workbench, listening, &server_name, base_url.as_deref().unwrap_or("(no base URL)"));
        }
    })
}

fn greet(workbench: &Workbench, listening: &Listening, server_name: &str, base_url: &str) {
    let program = workbench.homeserver_program.display();
    let homeserver_config = workbench.homeserver_config.display();
    let mut text = format!("Gatehouse runs as {server_name}.\n\n");
    let mut line = |what: &str, value: &str| text.push_str(&format!("  {what:<27}  {value}\n"));
    line("homeserver URL for clients", base_url);
    for address in &listening.federation {
        line("address for other servers", &address.to_string());
    }
    line("make the first user", &format!("{program} user create NAME --admin --config {homeserver_config}"));
    if let Some(ca) = listening.ca.as_deref().map(Path::display) {
        line("certificate to trust", &ca.to_string());
        line("try", &format!("curl --cacert {ca} {base_url}/_matrix/client/versions"));
    }
    line("configuration", &workbench.edge_config.display().to_string());
    line("stop", "Ctrl-C");
    say(&text);
}
