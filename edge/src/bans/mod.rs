//! Imposes bans and lifts them: at once in this process, and after that wherever else they are kept.

use std::sync::Arc;
use std::time::Duration;

use gatehouse_shared::clock::Clock;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::admission::Admission;
use crate::admission::ban_table::{BY_OPERATOR, Ban};
use crate::admission::jail::{Offence, Past, Sentence};
use crate::admission::offender::Offender;
use crate::metrics::Metrics;

pub(crate) mod journal;

/// What has no effect any more is forgotten this often.
const PRUNE: Duration = Duration::from_secs(60);

/// Something that is kept beyond this process.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    /// A ban, and what the jail remembers of it.
    Banned { ban: Ban, past: Option<Past> },
    /// A ban was lifted before its time.
    Lifted { offender: Offender, at_ms: u64 },
}

/// Where changes go beside this process. Each has its own queue and works through it by itself, so that a slow disk or a
/// database that is away delays no ban.
#[derive(Debug, Default)]
pub(crate) struct Keepers {
    pub(crate) journal: Option<journal::Journal>,
    /// Other edges.
    pub(crate) others: Option<UnboundedSender<Change>>,
    /// The packet filter.
    pub(crate) filter: Option<UnboundedSender<Change>>,
}

/// The bans of this edge.
pub(crate) struct Bans {
    pub(crate) admission: Arc<Admission>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    keepers: Keepers,
}

impl Bans {
    pub(crate) fn new(
        admission: Arc<Admission>,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
        keepers: Keepers,
    ) -> Self {
        let bans = Self { admission, clock, metrics, keepers };
        bans.count();
        bans
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    /// Something that a jail may count; whoever it is enough for is banned when this returns.
    pub(crate) fn report(&self, offence: &Offence) {
        for Sentence { ban, past } in self.admission.hear(offence, self.now_ms()) {
            self.metrics.imposed(&ban.jail);
            info!(offender = %ban.offender, jail = ban.jail, until_ms = ban.until_ms, bans = past.bans, "banned");
            self.impose(ban, Some(past), Origin::Here);
        }
    }

    /// Bans by an operator's word; `None` is for ever.
    pub(crate) fn ban(&self, offender: Offender, lasting: Option<Duration>) -> Ban {
        let since_ms = self.now_ms();
        let lasting_ms = lasting.map(|lasting| u64::try_from(lasting.as_millis()).unwrap_or(u64::MAX));
        let until_ms = lasting_ms.map(|lasting_ms| since_ms.saturating_add(lasting_ms));
        let ban = Ban { offender, jail: BY_OPERATOR.to_owned(), since_ms, until_ms };
        info!(offender = %ban.offender, until_ms = ban.until_ms, "banned by an operator");
        // An operator may also shorten a ban.
        self.admission.bans.remove(&ban.offender);
        self.impose(ban.clone(), None, Origin::Here);
        ban
    }

    /// Lifts a ban, and forgets what the offender did; `None` when there is no such ban.
    pub(crate) fn unban(&self, offender: &Offender) -> Option<Ban> {
        self.admission.jails.forgive(offender);
        let now_ms = self.now_ms();
        let lifted = self.admission.bans.remove(offender).filter(|ban| ban.holds(now_ms))?;
        info!(%offender, "lifted a ban");
        self.tell(&Change::Lifted { offender: offender.clone(), at_ms: now_ms }, Origin::Here);
        self.count();
        Some(lifted)
    }

    /// Takes over what another edge has done.
    pub(crate) fn adopt(&self, change: Change) {
        match change {
            Change::Banned { ban, past } if ban.holds(self.now_ms()) => {
                if let Some(past) = &past {
                    self.admission.jails.remember(past.clone());
                }
                self.impose(ban, past, Origin::AnotherEdge);
            }
            Change::Banned { .. } => {}
            Change::Lifted { ref offender, at_ms } => {
                let standing = self.admission.bans.find(offender, self.now_ms());
                if standing.is_some_and(|ban| ban.since_ms <= at_ms) {
                    self.admission.jails.forgive(offender);
                    self.admission.bans.remove(offender);
                    self.tell(&change, Origin::AnotherEdge);
                    self.count();
                }
            }
        }
    }

    /// Every ban that holds.
    pub(crate) fn list(&self) -> Vec<Ban> {
        self.admission.bans.list(self.now_ms())
    }

    /// Frees memory from time to time, until `stop`.
    pub(crate) async fn keep_small(self: Arc<Self>, born: Instant, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(PRUNE) => {}
            }
            self.admission.prune(born.elapsed(), self.now_ms());
            self.count();
        }
    }

    fn impose(&self, ban: Ban, past: Option<Past>, origin: Origin) {
        if !self.admission.bans.insert(ban.clone()) {
            return;
        }
        if let Offender::Prefix(prefix) = ban.offender {
            self.cut(prefix);
        }
        self.tell(&Change::Banned { ban, past }, origin);
        self.count();
    }

    fn cut(&self, prefix: ipnet::IpNet) {
        let rules = self.admission.rules();
        if rules.is_exempt(prefix.addr()) {
            warn!(%prefix, "a ban has no effect, because addresses.exempt of the policy holds the address");
            return;
        }
        let cut = self.admission.live.cut(prefix);
        if cut > 0 {
            info!(%prefix, connections = cut, "cut the connections of a banned client");
        }
    }

    fn tell(&self, change: &Change, origin: Origin) {
        if let Some(journal) = &self.keepers.journal {
            journal.write(change.clone());
        }
        // A keeper that has ended does so only when the edge stops.
        if let Some(filter) = &self.keepers.filter {
            let _ = filter.send(change.clone());
        }
        if let (Some(others), Origin::Here) = (&self.keepers.others, origin) {
            let _ = others.send(change.clone());
        }
    }

    fn count(&self) {
        self.metrics.bans.set(i64::try_from(self.list().len()).unwrap_or(i64::MAX));
    }
}

/// Who decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Here,
    AnotherEdge,
}
