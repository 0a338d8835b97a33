//! Imposes bans and lifts them: at once in this process, and after that wherever else they are kept.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gatehouse_shared::clock::Clock;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::admission::Admission;
use crate::admission::ban_table::{BY_OPERATOR, Ban};
use crate::admission::connection_limit::Counted;
use crate::admission::jail::{Offence, Past, Sentence, Tally};
use crate::admission::offender::Offender;
use crate::admission::rules::Rules;
use crate::config::AdmissionConfig;
use crate::config::policy::Feed;
use crate::live::Current;
use crate::metrics::Metrics;

mod journal;
mod nftables;
mod shared;

use journal::{Journal, Kept};

/// What has no effect any more is forgotten this often.
const PRUNE: Duration = Duration::from_secs(60);

/// Something that is kept beyond this process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Change {
    /// A ban, and what the jail remembers of it.
    Banned { ban: Ban, past: Option<Past> },
    /// A ban was lifted before its time.
    Lifted { offender: Offender, at_ms: u64 },
}

/// What one process leaves to the next.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Legacy {
    #[serde(flatten)]
    kept: Kept,
    counted: Vec<Tally>,
}

/// Where changes go beside this process. Each has its own queue and works through it by itself, so that a slow disk or a
/// database that is away delays no ban.
#[derive(Debug, Default)]
struct Keepers {
    journal: Option<Journal>,
    /// Other edges.
    others: Option<UnboundedSender<Change>>,
    /// The packet filter.
    filter: Option<UnboundedSender<Change>>,
    /// Other processes of this edge, during an upgrade.
    kin: Mutex<Vec<(Origin, UnboundedSender<Change>)>>,
}

/// The bans of this edge.
pub(crate) struct Bans {
    pub(crate) admission: Admission,
    /// From when on the time of buckets is counted.
    pub(crate) born: Instant,
    current: Current,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    keepers: Keepers,
}

/// Why bans cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder cannot be used.
    #[error("cannot keep bans in {} (admission.state_folder)", folder.display())]
    StateFolder {
        /// The folder.
        folder: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The database's URL is none.
    #[error("cannot read the URL of the database (admission.shared_database)")]
    SharedDatabase(#[source] tokio_postgres::Error),
}

/// Takes over what is kept, and starts keeping. What runs from then on ends with `stop`.
pub(crate) fn open(
    config: &AdmissionConfig,
    current: Current,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    (tasks, stop): (&TaskTracker, &CancellationToken),
) -> Result<Arc<Bans>, OpenError> {
    let admission = Admission::default();
    let mut keepers = Keepers::default();
    if let Some(folder) = &config.state_folder {
        let unusable = |source| OpenError::StateFolder { folder: folder.clone(), source };
        let (journal, kept) = Journal::open(folder, clock.clone()).map_err(unusable)?;
        kept.past.into_iter().for_each(|past| admission.jails.remember(past));
        kept.bans.into_iter().for_each(|ban| {
            admission.bans.insert(ban);
        });
        keepers.journal = Some(journal);
    }
    let (others, told_others) = unbounded_channel();
    let (filter, told_filter) = unbounded_channel();
    let database = match &config.shared_database {
        Some(url) => Some(url.expose().parse().map_err(OpenError::SharedDatabase)?),
        None => None,
    };
    keepers.others = database.is_some().then_some(others);
    keepers.filter = config.nftables.is_some().then_some(filter);
    let bans = Arc::new(Bans::new(admission, current, clock, metrics, keepers));
    if let Some(database) = database {
        tasks.spawn(shared::share(database, bans.clone(), told_others, stop.clone()));
    }
    if let Some(nftables) = config.nftables.clone() {
        let (handed, stop) = (nftables::hand_over(nftables, bans.clone(), told_filter), stop.clone());
        tasks.spawn(async move { stop.run_until_cancelled_owned(handed).await });
    }
    tasks.spawn(bans.clone().keep_small(stop.clone()));
    Ok(bans)
}

impl Bans {
    fn new(
        admission: Admission,
        current: Current,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
        keepers: Keepers,
    ) -> Self {
        let bans = Self { admission, born: Instant::now(), current, clock, metrics, keepers };
        bans.count();
        bans
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    /// The policy of this moment.
    pub(crate) fn rules(&self) -> Arc<Rules> {
        self.current.load().rules.clone()
    }

    /// Whether anything at all may come from `address`.
    pub(crate) fn may_come(&self, address: IpAddr) -> bool {
        self.admission.may_come(&self.current.load().rules, address, || self.now_ms())
    }

    /// Counts a connection of `address`; `None` when its client has as many as the policy allows.
    pub(crate) fn enter(&self, address: IpAddr) -> Option<Counted> {
        let current = self.current.load();
        let believed = current.rules.is_exempt(address) || current.trusted_proxies.contains(address);
        let most = if believed { usize::MAX } else { current.rules.connections.per_client };
        self.admission.live.enter(address, current.rules.client(address), most)
    }

    /// What the edge has found out itself about whoever is at `client`.
    pub(crate) fn found(&self, feed: Feed, client: IpAddr) {
        self.report(&Offence { feed, client, server: None, mark: None });
    }

    /// Something that a jail may count; whoever it is enough for is banned when this returns.
    pub(crate) fn report(&self, offence: &Offence) {
        for Sentence { ban, past } in self.admission.hear(&self.current.load().rules, offence, self.now_ms()) {
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

    /// Bans as the jail of this name would; `None` when the policy has none.
    pub(crate) fn ban_by_jail(&self, jail: &str, offender: Offender) -> Option<Ban> {
        let rules = self.rules();
        let jail = rules.jails.iter().find(|known| &*known.name == jail)?;
        let Sentence { ban, past } = self.admission.jails.convict(jail, offender, self.now_ms());
        info!(offender = %ban.offender, jail = ban.jail, until_ms = ban.until_ms, "banned by an operator");
        self.admission.bans.remove(&ban.offender);
        self.impose(ban.clone(), Some(past), Origin::Here);
        Some(ban)
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

    /// Takes over what somebody else has done.
    pub(crate) fn adopt(&self, change: Change, origin: Origin) {
        match change {
            Change::Banned { ban, past } if ban.holds(self.now_ms()) => {
                self.admission.jails.settle(&ban.jail, &ban.offender);
                if let Some(past) = &past {
                    self.admission.jails.remember(past.clone());
                }
                let standing = self.admission.bans.find(&ban.offender, self.now_ms());
                if standing.as_ref() == Some(&ban) {
                    return;
                }
                // An operator's newer word may also shorten a ban.
                if ban.jail == BY_OPERATOR && standing.is_some_and(|old| old.since_ms < ban.since_ms) {
                    self.admission.bans.remove(&ban.offender);
                }
                self.impose(ban, past, origin);
            }
            Change::Banned { .. } => {}
            Change::Lifted { ref offender, at_ms } => {
                let standing = self.admission.bans.find(offender, self.now_ms());
                if standing.is_some_and(|ban| ban.since_ms <= at_ms) {
                    self.admission.jails.forgive(offender);
                    self.admission.bans.remove(offender);
                    self.tell(&change, origin);
                    self.count();
                }
            }
        }
    }

    /// Everything that holds, is remembered and is counted, for the process that replaces this one.
    pub(crate) fn legacy(&self) -> Legacy {
        let kept = Kept { bans: self.list(), past: self.admission.jails.past() };
        Legacy { kept, counted: self.admission.jails.tallies() }
    }

    /// Takes over what the process had that this one replaces: what is not kept in a folder, and what came after the folder
    /// was read.
    pub(crate) fn inherit(&self, Legacy { kept, counted }: Legacy) {
        self.admission.jails.go_on_from(counted);
        kept.past.into_iter().for_each(|past| self.admission.jails.remember(past));
        for ban in kept.bans {
            self.adopt(Change::Banned { ban, past: None }, Origin::Predecessor);
        }
    }

    /// Every change from now on that is not from `kin` itself, until [`Self::part_from`].
    pub(crate) fn follow(&self, kin: Origin) -> UnboundedReceiver<Change> {
        let (sender, changes) = unbounded_channel();
        self.keepers.kin.lock().push((kin, sender));
        changes
    }

    /// Tells `kin` nothing more.
    pub(crate) fn part_from(&self, kin: Origin) {
        self.keepers.kin.lock().retain(|(known, _)| *known != kin);
    }

    /// Every ban that holds.
    pub(crate) fn list(&self) -> Vec<Ban> {
        self.admission.bans.list(self.now_ms())
    }

    /// Frees memory from time to time, until `stop`.
    pub(crate) async fn keep_small(self: Arc<Self>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(PRUNE) => {}
            }
            self.admission.prune(&self.rules(), self.born.elapsed(), self.now_ms());
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
        let rules = self.rules();
        if prefix.prefix_len() == prefix.max_prefix_len() && rules.is_exempt(prefix.addr()) {
            warn!(%prefix, "a ban has no effect, because addresses.exempt of the policy holds the address");
        }
        let cut = self.admission.live.cut(|address| prefix.contains(&address) && !rules.is_exempt(address));
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
        self.keepers.kin.lock().retain(|(kin, sender)| *kin == origin || sender.send(change.clone()).is_ok());
    }

    fn count(&self) {
        self.metrics.bans.set(i64::try_from(self.admission.bans.len()).unwrap_or(i64::MAX));
    }
}

/// Who decided. What another process of this edge decides, it tells other edges itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    Here,
    AnotherEdge,
    /// The process that this one replaces.
    Predecessor,
    /// The process that replaces this one.
    Successor,
}
