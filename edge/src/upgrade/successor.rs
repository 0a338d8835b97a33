//! The running process's side of an upgrade: starts the next one, and lets go of sockets and shards once it is ready.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::channel::Channel;
use super::companion::share_bans;
use super::{Go, Offer, Offered, RunningShard, Verdict};
use crate::bans::{Bans, Origin};
use crate::systemd;
use crate::upstream::supervise::{Given, Supervised};

/// How long the new process may take to read its configuration and prepare everything.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// How this process was started, which is how the next one is.
#[derive(Debug, Clone)]
pub struct Invocation {
    /// The program's file. It may be another program by now; that is what an upgrade is for.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
}

/// The argument by which a process knows that it is to replace another one.
pub(crate) const TAKE_OVER: &str = "--take-over";

/// What an upgrade came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Upgraded {
    /// The process that serves now.
    pub(crate) process_id: u32,
    /// Its version.
    pub(crate) version: String,
    /// How many shards it took over.
    pub(crate) shards: usize,
}

/// Why this process goes on serving.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpgradeError {
    /// One at a time.
    #[error("another upgrade is under way")]
    UnderWay,
    /// Too late.
    #[error("the edge is stopping")]
    Stopping,
    /// The program cannot be started.
    #[error("cannot start {}", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The new process says that it cannot serve.
    #[error("the new process cannot serve, and the old one goes on:\n{0}")]
    Refused(String),
    /// The new process ended or says nothing.
    #[error("the new process did not get ready, and the old one goes on; its log may tell more")]
    NotReady(#[source] io::Error),
}

/// Can start the process that replaces this one.
pub(crate) struct Successor {
    pub(crate) invocation: Invocation,
    /// The sockets to hand over.
    pub(crate) sockets: Mutex<Vec<(Offered, OwnedFd)>>,
    pub(crate) supervised: Vec<Supervised>,
    /// Cancelled when this process is no longer the one that serves.
    pub(crate) serving: CancellationToken,
    /// Cancelled before `serving` when another process serves.
    pub(crate) replaced: CancellationToken,
    /// Handed over, and shared from then on, in one of `tasks` until `stop`.
    pub(crate) bans: Arc<Bans>,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
    pub(crate) turn: tokio::sync::Mutex<()>,
}

impl Successor {
    /// Replaces this process. When it answers an error, nothing has changed.
    pub(crate) async fn upgrade(&self) -> Result<Upgraded, UpgradeError> {
        let _turn = self.turn.try_lock().map_err(|_| UpgradeError::UnderWay)?;
        if self.serving.is_cancelled() {
            return Err(UpgradeError::Stopping);
        }
        let (mut child, channel) = self.start()?;
        let prepared = self.prepare(&child, channel).await;
        if prepared.is_err()
            && let Err(error) = child.start_kill()
        {
            warn!(%error, "cannot end the process that could not serve");
        }
        let upgraded = prepared?;
        info!(process.id = upgraded.process_id, upgraded.version, "another process serves now");
        systemd::notify(&format!("MAINPID={}", upgraded.process_id));
        self.replaced.cancel();
        self.serving.cancel();
        Ok(upgraded)
    }

    fn start(&self) -> Result<(Child, Channel), UpgradeError> {
        let Invocation { program, arguments } = &self.invocation;
        let cannot_start = |source| UpgradeError::Start { program: program.clone(), source };
        let (ours, theirs) = UnixStream::pair().map_err(cannot_start)?;
        let mut command = Command::new(program);
        command.args(arguments.iter().filter(|argument| *argument != TAKE_OVER)).arg(TAKE_OVER);
        let child = command.stdin(OwnedFd::from(theirs)).spawn().map_err(cannot_start)?;
        // With the command goes our copy of the other end, so that we see the new process end.
        drop(command);
        let channel = Channel::new(ours, READY_WITHIN).map_err(cannot_start)?;
        info!(process.id = child.id(), "started the process that is to replace this one");
        Ok((child, channel))
    }

    async fn prepare(&self, child: &Child, channel: Channel) -> Result<Upgraded, UpgradeError> {
        let sockets: Vec<(Offered, OwnedFd)> = {
            let sockets = self.sockets.lock();
            let copied = sockets.iter().map(|(offered, socket)| Ok((offered.clone(), socket.try_clone()?)));
            copied.collect::<io::Result<_>>().map_err(UpgradeError::NotReady)?
        };
        let offering = tokio::task::spawn_blocking(move || {
            let listeners = sockets.iter().map(|(offered, _)| offered.clone()).collect();
            let descriptors: Vec<_> = sockets.iter().map(|(_, socket)| socket.as_fd()).collect();
            let offered = channel.send(&Offer { listeners }, &descriptors);
            // A process that finds its configuration broken says so and ends, maybe before the offer reaches it.
            match channel.receive::<Verdict>() {
                Ok((verdict, _)) => Ok((verdict, channel)),
                Err(error) => Err(offered.err().unwrap_or(error)),
            }
        });
        let version;
        let channel = match offering.await {
            Ok(Ok((Verdict::Ready { version: told }, channel))) => {
                version = told;
                channel
            }
            Ok(Ok((Verdict::Failed { message }, _))) => return Err(UpgradeError::Refused(message)),
            Ok(Err(error)) => return Err(UpgradeError::NotReady(error)),
            Err(_) => return Err(UpgradeError::Stopping),
        };
        let process_id = child.id().ok_or_else(|| UpgradeError::NotReady(io::ErrorKind::BrokenPipe.into()))?;
        let shards = self.go(channel).await.map_err(UpgradeError::NotReady)?;
        Ok(Upgraded { process_id, version, shards })
    }

    /// Gives the shards and bans away and lets the new process begin. Shards that did not get there stay ours.
    async fn go(&self, channel: Channel) -> io::Result<usize> {
        let mut given: Vec<Given> = Vec::new();
        let mut shards = Vec::new();
        for supervised in &self.supervised {
            let Some(one) = supervised.give_away().await else { continue };
            if let Some(lifeline) = &one.lifeline {
                let address = supervised.shard.address().to_string();
                shards.push(RunningShard { address, process_id: lifeline.process_id });
            }
            given.push(one);
        }
        let count = shards.len();
        // Before the list is made: whoever is banned meanwhile is in both.
        let changes = self.bans.follow(Origin::Successor);
        let go = Go { shards, bans: self.bans.legacy() };
        let sending = tokio::task::spawn_blocking(move || {
            let lifelines = given.iter().filter_map(|given| given.lifeline.as_ref());
            let descriptors: Vec<_> = lifelines.flat_map(|one| [one.pipe.as_fd(), one.process.as_fd()]).collect();
            channel.send(&go, &descriptors)?;
            Ok((given, channel.stream()))
        });
        let sent = sending.await.map_err(io::Error::other).flatten();
        let (given, stream) = sent.inspect_err(|_| self.bans.part_from(Origin::Successor))?;
        given.into_iter().for_each(Given::confirm);
        match stream {
            Ok(stream) => {
                let (bans, stop) = (self.bans.clone(), self.stop.clone());
                self.tasks.spawn(share_bans(stream, bans, Origin::Successor, changes, stop));
            }
            Err(error) => warn!(%error, "the new process hears of no bans of this one"),
        }
        Ok(count)
    }
}
