//! Starts local shards, starts them again when they end, and stops them gently.
//!
//! A shard is started with a pipe on its standard input, and ends when that pipe closes. The edge closes it to stop the
//! shard; the system closes it when the edge dies, so that no shard is left behind.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use gatehouse_shared::config::Secret;
use gatehouse_shared::contract::SECRET_VARIABLE;
use gatehouse_shared::net::ListenAddr;
use prometheus_client::metrics::counter::Counter;
use tokio::process::{Child, Command};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::shard::Shard;
use crate::config::SuperviseConfig;

/// The first pause before a restart; it doubles up to [`LONGEST_PAUSE`] while shards end quickly.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A shard that ran this long ended for a new reason.
const STEADY: Duration = Duration::from_secs(10);

/// Why no shard can be supervised.
#[derive(Debug, thiserror::Error)]
pub enum SuperviseError {
    /// The folder for the sockets cannot be made.
    #[error("cannot make the folder {} (supervise.socket_folder)", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The shards' program is not there.
    #[error("the shards' program {} cannot be started (supervise.program)", path.display())]
    Program {
        /// The program.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// The shards that this edge runs.
#[derive(Debug)]
pub(crate) struct Supervisor {
    program: PathBuf,
    config: PathBuf,
    stop_within: Duration,
    secret: Secret,
    addresses: Vec<ListenAddr>,
}

impl Supervisor {
    /// Prepares the sockets' folder and finds the program; starts nothing yet.
    pub(crate) fn prepare(config: &SuperviseConfig, secret: Secret) -> Result<Self, SuperviseError> {
        let folder = &config.socket_folder;
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
        let folder = made.and_then(|()| fs::canonicalize(folder));
        let folder = folder.map_err(|source| SuperviseError::Folder { path: config.socket_folder.clone(), source })?;
        let program = match &config.program {
            Some(program) => program.clone(),
            None => beside_this_program().map_err(|source| SuperviseError::Program { path: PROGRAM.into(), source })?,
        };
        if !program.is_file() {
            return Err(SuperviseError::Program { path: program, source: io::ErrorKind::NotFound.into() });
        }
        let address = |number| ListenAddr::Unix(folder.join(format!("shard-{number}.sock")));
        Ok(Self {
            program,
            config: config.config.clone(),
            stop_within: Duration::from_secs(config.stop_seconds),
            secret,
            addresses: (1..=config.shards).map(address).collect(),
        })
    }

    pub(crate) fn addresses(&self) -> &[ListenAddr] {
        &self.addresses
    }

    /// Runs `shard` until `stop`, then waits for it to end.
    pub(crate) async fn run(self: Arc<Self>, shard: Arc<Shard>, starts: Counter, stop: CancellationToken) {
        let mut pause = FIRST_PAUSE;
        while !stop.is_cancelled() {
            let started = Instant::now();
            starts.inc();
            match self.start(shard.address()) {
                Ok(child) => {
                    info!(shard = %shard.address(), process.id = child.id(), "started the shard");
                    shard.check_now();
                    self.watch(child, &shard, &stop).await;
                }
                Err(error) => error!(shard = %shard.address(), %error, "cannot start the shard"),
            }
            pause = if started.elapsed() > STEADY { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn start(&self, address: &ListenAddr) -> io::Result<Child> {
        Command::new(&self.program)
            .arg("run")
            .arg("--supervised")
            .arg("--config")
            .arg(&self.config)
            .arg("--listen")
            .arg(address.to_string())
            .env(SECRET_VARIABLE, self.secret.expose())
            .stdin(Stdio::piped())
            // A group of its own: Ctrl-C in a terminal reaches the edge alone, which then stops the shard in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
    }

    async fn watch(&self, mut child: Child, shard: &Shard, stop: &CancellationToken) {
        // `Child::wait` closes the standard input first, which would stop the shard: it is held here instead.
        let stdin = child.stdin.take();
        let ended = tokio::select! {
            ended = child.wait() => ended,
            () = stop.cancelled() => {
                shard.mark_unhealthy(&"the edge stops it");
                drop(stdin);
                self.wait_or_kill(&mut child, shard).await
            }
        };
        shard.mark_unhealthy(&"its process ended");
        match ended {
            Ok(status) if stop.is_cancelled() => info!(shard = %shard.address(), %status, "the shard ended"),
            Ok(status) => warn!(shard = %shard.address(), %status, "the shard ended; starting it again"),
            Err(error) => error!(shard = %shard.address(), %error, "cannot watch the shard"),
        }
    }

    async fn wait_or_kill(&self, child: &mut Child, shard: &Shard) -> io::Result<ExitStatus> {
        if let Ok(ended) = tokio::time::timeout(self.stop_within, child.wait()).await {
            return ended;
        }
        warn!(shard = %shard.address(), "the shard did not end in time and is killed");
        child.start_kill()?;
        child.wait().await
    }
}

const PROGRAM: &str = "gatehouse-homeserver";

fn beside_this_program() -> io::Result<PathBuf> {
    Ok(std::env::current_exe()?.parent().unwrap_or(Path::new("/")).join(PROGRAM))
}
