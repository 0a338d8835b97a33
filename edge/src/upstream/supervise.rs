//! Starts local shards, starts them again when they end, and stops them gently.
//!
//! A shard is started with a pipe on its standard input, and ends when that pipe closes. The edge closes it to stop the
//! shard; the system closes it when the edge dies, so that no shard is left behind. An edge that is upgraded hands the
//! pipes on, and the shards notice nothing.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gatehouse_shared::config::Secret;
use gatehouse_shared::contract::SECRET_VARIABLE;
use gatehouse_shared::net::ListenAddr;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::shard::Shard;
use super::shard_process::{self, Lifeline, ShardProcess};
use crate::config::SuperviseConfig;

/// The first pause before a restart; it doubles up to [`LONGEST_PAUSE`] while shards end quickly.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A shard that ran this long ended for a new reason.
const STEADY: Duration = Duration::from_secs(10);

/// How long a shard that is to be restarted has for its requests before it is told to stop.
const DRAIN: Duration = Duration::from_secs(2);

/// What can be done with a shard that runs. Each is answered when it is done.
#[derive(Debug)]
pub(crate) enum Order {
    /// Stop it in order, and start it again.
    Restart(oneshot::Sender<()>),
    /// Tell it to read its lists of servers again.
    Reload,
    /// Let another edge have it without stopping it.
    GiveAway(oneshot::Sender<Given>),
}

/// A shard that another edge may have. Unless that is confirmed, it stays ours.
#[derive(Debug)]
pub(crate) struct Given {
    /// Its process; `None` when it does not run, and the other edge is to start it.
    pub(crate) lifeline: Option<Lifeline>,
    taken: oneshot::Sender<()>,
}

impl Given {
    /// The other edge has it.
    pub(crate) fn confirm(self) {
        // A supervisor that ended meanwhile has let go of it as well.
        let _ = self.taken.send(());
    }
}

/// Why the edge no longer watches a process.
enum End {
    Unasked,
    Ordered,
    GivenAway,
}

/// A shard that this edge runs, and the way to its supervisor.
#[derive(Debug, Clone)]
pub(crate) struct Supervised {
    pub(crate) shard: Arc<Shard>,
    pub(crate) orders: mpsc::Sender<Order>,
}

impl Supervised {
    /// Stops the shard in order; answers once a new one takes requests, or `false` when that takes longer than `within`.
    pub(crate) async fn restart(&self, within: Duration) -> bool {
        let (done, ended) = oneshot::channel();
        let restarted = async {
            self.orders.send(Order::Restart(done)).await.ok()?;
            ended.await.ok()?;
            self.shard.becomes_healthy().await;
            Some(())
        };
        matches!(tokio::time::timeout(within, restarted).await, Ok(Some(())))
    }

    /// Tells the shard to read its lists of servers again, without waiting until it has.
    pub(crate) fn reload(&self) {
        // An order that waits already makes this one needless: the shard is told the same, or starts anew, or is given to
        // an edge that tells it. So does an end of its supervisor.
        let _ = self.orders.try_send(Order::Reload);
    }

    /// The shard, for another edge; `None` when nobody supervises it any more.
    pub(crate) async fn give_away(&self) -> Option<Given> {
        let (to, given) = oneshot::channel();
        self.orders.send(Order::GiveAway(to)).await.ok()?;
        given.await.ok()
    }
}

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

    /// Runs `shard` until `stop` or until it is given away, beginning with the process that was `taken_over`.
    pub(crate) async fn run(
        self: Arc<Self>,
        shard: Arc<Shard>,
        starts: Counter,
        mut orders: mpsc::Receiver<Order>,
        taken_over: Option<Lifeline>,
        stop: CancellationToken,
    ) {
        let mut pause = FIRST_PAUSE;
        let mut taken_over = taken_over.and_then(|lifeline| take_over(lifeline, &shard));
        while !stop.is_cancelled() {
            let began = Instant::now();
            let process = taken_over.take().map_or_else(|| self.start(shard.address(), &starts), Ok);
            let end = match process {
                Ok(process) => {
                    shard.end_draining();
                    self.watch(process, &shard, &mut orders, &stop).await
                }
                Err(error) => {
                    error!(shard = %shard.address(), %error, "cannot start the shard");
                    End::Unasked
                }
            };
            match end {
                End::GivenAway => return,
                End::Ordered => pause = FIRST_PAUSE,
                End::Unasked => {
                    pause = if began.elapsed() > STEADY { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
                    tokio::select! {
                        () = stop.cancelled() => return,
                        order = orders.recv() => match order {
                            // A process that starts reads everything.
                            Some(Order::Reload) => {}
                            // There is nothing to stop.
                            Some(Order::Restart(done)) => drop(done.send(())),
                            Some(Order::GiveAway(to)) => {
                                if give_away(None, to).await {
                                    return;
                                }
                            }
                            None => return,
                        },
                        () = tokio::time::sleep(pause) => {}
                    }
                }
            }
        }
    }

    fn start(&self, address: &ListenAddr, starts: &Counter) -> io::Result<ShardProcess> {
        starts.inc();
        let mut command = shard_process::command(self.program.as_os_str());
        command
            .arg("run")
            .arg("--supervised")
            .arg("--config")
            .arg(&self.config)
            .arg("--listen")
            .arg(address.to_string());
        let process = ShardProcess::start(command.env(SECRET_VARIABLE, self.secret.expose()))?;
        info!(shard = %address, process.id = process.id(), "started the shard");
        Ok(process)
    }

    async fn watch(
        &self,
        mut process: ShardProcess,
        shard: &Shard,
        orders: &mut mpsc::Receiver<Order>,
        stop: &CancellationToken,
    ) -> End {
        loop {
            let order = tokio::select! {
                ended = process.ended() => {
                    shard.mark_unhealthy(&"its process ended");
                    match ended {
                        Ok(end) => warn!(shard = %shard.address(), %end, "the shard ended; starting it again"),
                        Err(error) => error!(shard = %shard.address(), %error, "cannot watch the shard"),
                    }
                    return End::Unasked;
                }
                () = stop.cancelled() => None,
                order = orders.recv() => order,
            };
            match order {
                Some(Order::GiveAway(to)) => {
                    let lifeline = process.lifeline().unwrap_or_else(|error| {
                        error!(shard = %shard.address(), %error, "cannot give the shard away");
                        None
                    });
                    if give_away(lifeline, to).await {
                        return End::GivenAway;
                    }
                }
                Some(Order::Reload) => tell_to_reload(&process, shard),
                Some(Order::Restart(done)) => {
                    shard.begin_draining();
                    // What it does not finish by then it finishes while it stops.
                    let _ = tokio::time::timeout(DRAIN, shard.drained()).await;
                    self.end(&mut process, shard).await;
                    // Whoever asked may have given up.
                    let _ = done.send(());
                    return End::Ordered;
                }
                None => {
                    shard.mark_unhealthy(&"the edge stops it");
                    self.end(&mut process, shard).await;
                    return End::Ordered;
                }
            }
        }
    }

    async fn end(&self, process: &mut ShardProcess, shard: &Shard) {
        process.ask_to_stop();
        let ended = match tokio::time::timeout(self.stop_within, process.ended()).await {
            Ok(ended) => ended,
            Err(_) => {
                warn!(shard = %shard.address(), "the shard did not end in time and is killed");
                match process.kill() {
                    Ok(()) => process.ended().await,
                    Err(error) => Err(error),
                }
            }
        };
        match ended {
            Ok(end) => info!(shard = %shard.address(), %end, "the shard ended"),
            Err(error) => error!(shard = %shard.address(), %error, "cannot watch the shard"),
        }
    }
}

fn tell_to_reload(process: &ShardProcess, shard: &Shard) {
    if let Err(error) = process.ask_to_reload() {
        error!(shard = %shard.address(), %error, "cannot tell the shard to read its lists of servers again");
    }
}

/// Whether another edge has the shard now.
async fn give_away(lifeline: Option<Lifeline>, to: oneshot::Sender<Given>) -> bool {
    let (taken, confirmed) = oneshot::channel();
    // Dropped unconfirmed, or not even received, the shard stays ours.
    let _ = to.send(Given { lifeline, taken });
    confirmed.await.is_ok()
}

fn take_over(lifeline: Lifeline, shard: &Shard) -> Option<ShardProcess> {
    let process_id = lifeline.process_id;
    match ShardProcess::take_over(lifeline) {
        Ok(process) => {
            info!(shard = %shard.address(), process.id = process_id, "took the shard over");
            // This edge has just read its own policy.
            tell_to_reload(&process, shard);
            Some(process)
        }
        Err(error) => {
            error!(shard = %shard.address(), %error, "cannot take the shard over; starting it anew");
            None
        }
    }
}

const PROGRAM: &str = "gatehouse-homeserver";

fn beside_this_program() -> io::Result<PathBuf> {
    Ok(std::env::current_exe()?.parent().unwrap_or(Path::new("/")).join(PROGRAM))
}
