//! Delivers what other servers have to know: our events to the servers in their rooms, and what passes.
//!
//! The sender follows the lanes with a cursor of its own. [`follower`] turns what they changed into rows of the outbox,
//! in one transaction with the cursor; [`destination`] sends the rows of one server in order and deletes them once they
//! arrived. A lease makes sure that one shard does it at a time. After a crash the cursor and the outbox say where to go
//! on; a transaction that is sent again has the same id.

mod destination;
mod follower;

use std::{collections::HashMap, sync::Arc, time::Duration};

use gatehouse_shared::clock::Clock;
use ruma::{OwnedServerName, ServerName};
use serde_json::value::RawValue;
use tokio::time::MissedTickBehavior;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    destination::{Destination, Mailbox},
    follower::{FollowError, Follower},
};
use crate::{
    e2ee::E2ee,
    federation::Federation,
    remote::FederationClient,
    storage::{
        Db, DbError, UserNames,
        leases::{self, Lease},
        outbox, to_device,
    },
    stream::Stream,
};

/// The name of the lease.
const LEASE: &str = "federation_sender";
/// How long the work belongs to a shard that does not renew the lease.
const LEASED_FOR: Duration = Duration::from_secs(30);
/// How often it is renewed, and how often a shard without it asks for it.
const RENEWAL: Duration = Duration::from_secs(10);
/// How often answers to old transactions are forgotten.
const TIDYING: Duration = Duration::from_secs(60 * 60);
/// How long to wait after the database failed.
const PAUSE: Duration = Duration::from_secs(1);

/// What the sender is built on.
pub struct SenderParts {
    pub db: Db,
    pub names: UserNames,
    pub stream: Stream,
    pub client: FederationClient,
    pub e2ee: E2ee,
    pub federation: Federation,
    pub server_name: OwnedServerName,
    pub clock: Arc<dyn Clock>,
}

/// The sender of one shard; at most one shard's works at a time.
pub struct Sender {
    parts: Arc<SenderParts>,
    holder: String,
}

impl Sender {
    pub fn new(parts: SenderParts) -> Self {
        Self { parts: Arc::new(parts), holder: format!("{:016x}", rand::random::<u64>()) }
    }

    /// Waits for the lease and sends while it is held, until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut tries = tokio::time::interval(RENEWAL);
        tries.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = tries.tick() => {}
            }
            match self.take_lease().await {
                Ok(Some(lease)) => {
                    tracing::info!(epoch = lease.epoch, "sending to other servers");
                    self.send_while_held(lease, &shutdown).await;
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "cannot ask for the sender's lease");
                }
            }
        }
    }

    async fn take_lease(&self) -> Result<Option<Lease>, DbError> {
        let now = self.parts.clock.now_ms();
        leases::take(&self.parts.db, LEASE, &self.holder, now, now.saturating_add(millis(LEASED_FOR))).await
    }

    async fn send_while_held(&self, lease: Lease, shutdown: &CancellationToken) {
        let mut mailboxes = Mailboxes::new(self.parts.clone(), shutdown.child_token());
        let result = self.follow(&lease, &mut mailboxes, shutdown).await;
        mailboxes.close().await;
        match result {
            Ok(()) => {
                // So that another shard need not wait for the lease to run out.
                let free = leases::keep(&lease, 0);
                if let Err(error) = self.parts.db.write(vec![free]).await {
                    tracing::debug!(%error, "the sender's lease runs out by itself");
                }
            }
            Err(FollowError::LeaseLost) => tracing::warn!("another shard took the sending over"),
            Err(FollowError::Db(error)) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the sender stops for a moment");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    async fn follow(
        &self,
        lease: &Lease,
        mailboxes: &mut Mailboxes,
        shutdown: &CancellationToken,
    ) -> Result<(), FollowError> {
        let mut moves = self.parts.stream.subscribe();
        let mut alive = self.parts.client.destinations().subscribe();
        let mut follower = Follower::open(self.parts.clone(), lease.clone()).await?;
        let mut renewal = tokio::time::interval(RENEWAL);
        renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut tidying = tokio::time::interval(TIDYING);
        tidying.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            moves.borrow_and_update();
            follower.follow(mailboxes).await?;
            tokio::select! {
                () = shutdown.cancelled() => return follower.persist().await,
                moved = moves.changed() => if moved.is_err() { return Ok(()) },
                // When names were missed, the next renewal wakes everybody for whom something waits.
                name = alive.recv() => if let Ok(name) = name { mailboxes.wake_known(&name) },
                _ = renewal.tick() => {
                    follower.persist().await?;
                    mailboxes.wake_waiting().await?;
                }
                _ = tidying.tick() => self.parts.federation.forget_old_transactions().await?,
            }
        }
    }
}

/// The mailboxes of all servers that something was sent to.
struct Mailboxes {
    parts: Arc<SenderParts>,
    known: HashMap<OwnedServerName, Mailbox>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Mailboxes {
    fn new(parts: Arc<SenderParts>, stop: CancellationToken) -> Self {
        Self { parts, known: HashMap::new(), tasks: TaskTracker::new(), stop }
    }

    /// Something durable waits for the server.
    fn wake(&mut self, destination: &ServerName) {
        self.mailbox(destination).wake();
    }

    /// The server is worth trying, if something waits for it.
    fn wake_known(&self, destination: &ServerName) {
        if let Some(mailbox) = self.known.get(destination) {
            mailbox.wake();
        }
    }

    /// Gives the server an EDU that may get lost; a later one of the same key takes its place.
    fn pass(&mut self, destination: &ServerName, key: String, edu: Box<RawValue>) {
        self.mailbox(destination).pass(key, edu);
    }

    /// Wakes all servers for which something waits in the database.
    async fn wake_waiting(&mut self) -> Result<(), DbError> {
        for destination in outbox::list_destinations(&self.parts.db).await? {
            self.wake(&destination);
        }
        for destination in to_device::list_destinations(&self.parts.db).await? {
            if let Ok(destination) = <&ServerName>::try_from(destination.as_str()) {
                self.wake(destination);
            }
        }
        Ok(())
    }

    fn mailbox(&mut self, destination: &ServerName) -> &Mailbox {
        let Self { parts, known, tasks, stop } = self;
        known.entry(destination.to_owned()).or_insert_with(|| {
            let (destination, mailbox) = Destination::new(parts.clone(), destination.to_owned());
            tasks.spawn(destination.run(stop.clone()));
            mailbox
        })
    }

    async fn close(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
