//! The process of one shard: started by this edge, or taken over from the edge before it.
//!
//! A shard lives as long as somebody holds the pipe on its standard input. An edge that is replaced hands that pipe on,
//! with a descriptor by which the next edge sees the process end although it is not its parent.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Stdio;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::process::{Child, ChildStdin, Command};

/// What lets an edge keep, watch and stop a shard that another edge has started.
#[derive(Debug)]
pub(crate) struct Lifeline {
    pub(crate) process_id: u32,
    /// The writing end of its standard input.
    pub(crate) pipe: OwnedFd,
    /// Names the process whatever becomes of its number; readable once it ended.
    pub(crate) process: OwnedFd,
}

/// A shard's process.
#[derive(Debug)]
pub(crate) enum ShardProcess {
    Started { child: Child, pipe: Option<ChildStdin> },
    TakenOver { process_id: u32, process: AsyncFd<OwnedFd>, pipe: Option<OwnedFd> },
}

impl ShardProcess {
    /// Starts `command` with a pipe on its standard input.
    pub(crate) fn start(command: &mut Command) -> io::Result<Self> {
        // A group of its own: Ctrl-C in a terminal reaches the edge alone, which then stops the shard in order.
        let mut child = command.stdin(Stdio::piped()).process_group(0).spawn()?;
        // `Child::wait` closes the standard input first, which would stop the shard: it is held here instead.
        let pipe = child.stdin.take();
        Ok(Self::Started { child, pipe })
    }

    /// Takes a running process over.
    pub(crate) fn take_over(lifeline: Lifeline) -> io::Result<Self> {
        let Lifeline { process_id, pipe, process } = lifeline;
        #[expect(
            deprecated,
            reason = "it is unsound for descriptors that are not owned, and its successor is unsafe; this one is owned"
        )]
        let process = AsyncFd::with_interest(process, Interest::READABLE)?;
        Ok(Self::TakenOver { process_id, process, pipe: Some(pipe) })
    }

    pub(crate) fn id(&self) -> Option<u32> {
        match self {
            Self::Started { child, .. } => child.id(),
            Self::TakenOver { process_id, .. } => Some(*process_id),
        }
    }

    /// Resolves once the process ended, with what is known of its end.
    pub(crate) async fn ended(&mut self) -> io::Result<String> {
        match self {
            Self::Started { child, .. } => Ok(child.wait().await?.to_string()),
            Self::TakenOver { process, .. } => {
                process.readable().await?.retain_ready();
                Ok("its exit status went to the edge that started it".to_owned())
            }
        }
    }

    /// Writes a byte into the pipe, which a shard takes as the word to read its lists of servers again. A pipe that is
    /// full holds that word already.
    pub(crate) fn ask_to_reload(&self) -> io::Result<()> {
        let written = match self {
            Self::Started { pipe: Some(pipe), .. } => rustix::io::write(pipe, b"\n"),
            Self::TakenOver { pipe: Some(pipe), .. } => rustix::io::write(pipe, b"\n"),
            Self::Started { pipe: None, .. } | Self::TakenOver { pipe: None, .. } => Ok(0),
        };
        match written {
            Err(error) if error != rustix::io::Errno::AGAIN => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Lets go of the pipe, which a shard takes as the word to stop.
    pub(crate) fn ask_to_stop(&mut self) {
        match self {
            Self::Started { pipe, .. } => drop(pipe.take()),
            Self::TakenOver { pipe, .. } => drop(pipe.take()),
        }
    }

    pub(crate) fn kill(&mut self) -> io::Result<()> {
        match self {
            Self::Started { child, .. } => child.start_kill(),
            Self::TakenOver { process, .. } => Ok(pidfd_send_signal(process.get_ref(), Signal::KILL)?),
        }
    }

    /// What another edge needs to take the process over; `None` when it ended already or is told to stop.
    pub(crate) fn lifeline(&self) -> io::Result<Option<Lifeline>> {
        match self {
            Self::Started { child, pipe } => {
                let (Some(process_id), Some(pipe)) = (child.id(), pipe) else { return Ok(None) };
                // Nobody has waited for the child, so its number is still its own.
                let Some(pid) = i32::try_from(process_id).ok().and_then(Pid::from_raw) else { return Ok(None) };
                let process = pidfd_open(pid, PidfdFlags::empty())?;
                Ok(Some(Lifeline { process_id, pipe: pipe.as_fd().try_clone_to_owned()?, process }))
            }
            Self::TakenOver { process_id, process, pipe } => {
                let Some(pipe) = pipe else { return Ok(None) };
                let process = process.get_ref().try_clone()?;
                Ok(Some(Lifeline { process_id: *process_id, pipe: pipe.try_clone()?, process }))
            }
        }
    }
}

/// The program and everything that only it is to see.
pub(crate) fn command(program: &OsStr) -> Command {
    let mut command = Command::new(program);
    // Only the edge speaks with systemd.
    command.env_remove("NOTIFY_SOCKET");
    command
}
