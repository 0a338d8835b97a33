//! The new process's side of an upgrade: takes sockets and shards over from the edge that started it.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::channel::Channel;
use super::companion::share_bans;
use super::{Go, Offer, Offered, Verdict};
use crate::bans::{Bans, Origin};
use crate::upstream::shard_process::Lifeline;

/// The old process answers at once, or is gone.
const WITHIN: Duration = Duration::from_secs(30);

/// The edge that this process is to replace.
#[derive(Debug, Clone)]
pub struct Predecessor(Arc<Channel>);

impl Predecessor {
    /// The edge at the other end of the standard input.
    ///
    /// # Errors
    /// When the standard input is nothing of the kind.
    pub fn on_stdin() -> io::Result<Self> {
        let stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        Ok(Self(Arc::new(Channel::new(stream, WITHIN)?)))
    }

    /// What it offers.
    pub(crate) fn inherit(&self) -> io::Result<Vec<(Offered, OwnedFd)>> {
        let (Offer { listeners }, descriptors) = self.0.receive()?;
        Ok(listeners.into_iter().zip(descriptors).collect())
    }

    /// Everything is prepared: takes over the bans, and the shards that run, by their address. From here on this process
    /// serves, also when the old one died meanwhile.
    pub(crate) async fn take_over(&self, bans: &Bans) -> HashMap<String, Lifeline> {
        let channel = self.0.clone();
        let taken = tokio::task::spawn_blocking(move || {
            channel.send(&Verdict::Ready { version: env!("CARGO_PKG_VERSION").to_owned() }, &[])?;
            channel.receive::<Go>()
        });
        let (Go { shards, bans: legacy }, descriptors) = match taken.await {
            Ok(Ok(taken)) => taken,
            Ok(Err(error)) => {
                tracing::warn!(%error, "the old process is gone; starting the shards anew");
                return HashMap::new();
            }
            // The runtime is taken down.
            Err(_) => return HashMap::new(),
        };
        bans.inherit(legacy);
        let mut descriptors = descriptors.into_iter();
        let lifelines = shards.into_iter().map_while(|shard| {
            let (pipe, process) = (descriptors.next()?, descriptors.next()?);
            Some((shard.address, Lifeline { process_id: shard.process_id, pipe, process }))
        });
        lifelines.collect()
    }

    /// Hears of bans of the old process until it ends, and tells it of this one's.
    pub(crate) async fn share_bans(self, bans: Arc<Bans>, stop: CancellationToken) {
        let changes = bans.follow(Origin::Predecessor);
        match self.0.stream() {
            Ok(stream) => share_bans(stream, bans, Origin::Predecessor, changes, stop).await,
            Err(error) => tracing::warn!(%error, "hears of no bans of the old process"),
        }
    }

    /// Says why this process cannot serve.
    pub(crate) fn refuse(&self, message: String) {
        // Nobody there to be told means that nobody waits.
        let _ = self.0.send(&Verdict::Failed { message }, &[]);
    }
}
