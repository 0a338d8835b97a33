//! `gatehouse doctor`: its options, its progress and its exit status.

use std::io::{self, IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use gatehouse_shared::clock::SystemClock;
use gatehouse_shared::config::ConfigError;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::config::{self, EdgeConfig, chain_of};
use crate::doctor::{self, ProbeError, Question};

/// The options of `gatehouse doctor`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit status: 0 when there is no error; 1 when there is one (with --strict also for a warning) or \
                  nothing could be asked; 2 when the command line is wrong."
)]
pub(super) struct Doctor {
    /// The server name: the part of a user id after the colon
    #[arg(value_name = "SERVER_NAME")]
    server_name: String,
    /// Write the findings as one JSON object
    #[arg(long)]
    json: bool,
    /// Let the exit status be 1 for warnings too
    #[arg(long)]
    strict: bool,
    /// The configuration of the edge that should answer, to compare with what does
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A name server to ask instead of the operating system's; may be given several times
    #[arg(long = "name-server", value_name = "ADDR:PORT")]
    name_servers: Vec<SocketAddr>,
    /// A PEM file of certificate authorities to trust beside the operating system's
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

/// Why the doctor cannot ask anything.
#[derive(Debug, thiserror::Error)]
pub enum DoctorError {
    /// The configuration to compare with cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The file of authorities cannot be used.
    #[error("{} holds no certificates in PEM: {source}", path.display())]
    Authorities {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: rustls_pki_types::pem::Error,
    },
    /// There is nobody to ask.
    #[error("{}", chain_of(.0))]
    Probe(#[from] ProbeError),
    /// The system refuses something that every program needs.
    #[error("the system refuses to run this program: {0}")]
    System(#[from] io::Error),
}

impl Doctor {
    pub(super) fn execute(&self) -> Result<ExitCode, DoctorError> {
        let config: Option<EdgeConfig> = self.config.as_deref().map(config::load).transpose()?;
        let authorities = self.ca.as_deref().map(authorities).transpose()?.unwrap_or_default();
        let question = Question {
            server_name: &self.server_name,
            config: config.as_ref(),
            name_servers: &self.name_servers,
            authorities,
        };
        // A machine reads the report alone.
        let shows_progress = !self.json && io::stderr().is_terminal();
        let progress = |step: &str| {
            if shows_progress {
                eprint!("\r\x1b[K{step} …");
                let _ = io::stderr().flush();
            }
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let report = runtime.block_on(doctor::examine(question, &SystemClock, &progress))?;
        if shows_progress {
            eprint!("\r\x1b[K");
        }
        if self.json {
            println!("{}", serde_json::json!(report));
        } else {
            print!("{}", report.to_text());
        }
        Ok(if report.is_fine(self.strict) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, DoctorError> {
    let unusable = |source| DoctorError::Authorities { path: path.to_owned(), source };
    let found: Vec<_> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(unusable)?;
    if found.is_empty() { Err(unusable(rustls_pki_types::pem::Error::NoItemsFound)) } else { Ok(found) }
}
