//! Decides whether a connection and a request may pass, and who is to be banned. No I/O; time is an argument.

use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use gatehouse_shared::contract::token_routing_key;
use governor::Quota;

pub(crate) mod ban_table;
pub(crate) mod class_table;
pub(crate) mod connection_limit;
pub(crate) mod forwarded_for;
pub(crate) mod framing;
pub(crate) mod jail;
pub(crate) mod offender;
pub(crate) mod overload;
pub(crate) mod prefix_map;
pub(crate) mod rate_limit;
pub(crate) mod request_class;
pub(crate) mod request_shape;
pub(crate) mod rules;

use ban_table::BanTable;
use connection_limit::LiveConnections;
use jail::{Jails, Offence, Sentence};
use rate_limit::{Buckets, MOST_BUCKETS, Want};
use request_class::RequestClass;
use rules::Rules;

/// So many buckets are kept at one time: about 5 MB when all are there.
const MOST_BUCKETS_KEPT: usize = 200_000;

/// What has been counted so far. The policy is an argument of each decision and comes and goes with a reload, while all of
/// this stays: bans, what jails have counted, what is remembered of offenders, and buckets, whose value is a time and
/// means the same under any quota. A jail that is gone imposes nothing more; what it imposed holds until it expires or is
/// lifted. A request that is being decided finishes by the policy that it began with.
#[derive(Debug)]
pub(crate) struct Admission {
    buckets: Buckets,
    pub(crate) bans: BanTable,
    pub(crate) jails: Jails,
    pub(crate) live: Arc<LiveConnections>,
}

/// Who asks for what. Token and origin are what the request claims, unverified.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asking<'r> {
    pub(crate) client: IpAddr,
    pub(crate) class: RequestClass,
    pub(crate) token: Option<&'r str>,
    pub(crate) origin: Option<&'r str>,
}

/// Why a request does not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The client's address is banned or denied.
    Banned,
    /// The server that it claims to come from is banned or denied.
    ServerBanned,
    /// A limit is reached; so long until there is room again.
    Limited(Duration),
}

impl Admission {
    /// Whether anything may come from `address` at all: asked at accept, before a byte is read.
    pub(crate) fn may_come(&self, rules: &Rules, address: IpAddr, now_ms: impl FnOnce() -> u64) -> bool {
        let unwelcome = || self.bans.holds_address(address, now_ms) || rules.is_denied(address);
        !unwelcome() || rules.is_exempt(address)
    }

    /// Whether a request may pass. `now` is the time since the edge started, `now_ms` the time of day.
    pub(crate) fn admit(
        &self,
        rules: &Rules,
        asking: Asking<'_>,
        now: Duration,
        now_ms: impl Fn() -> u64,
    ) -> Result<(), Refused> {
        if let Some(origin) = asking.origin
            && (!rules.servers.may_talk(origin) || self.bans.holds_server(origin, &now_ms))
        {
            return Err(Refused::ServerBanned);
        }
        if rules.is_exempt(asking.client) {
            return Ok(());
        }
        if self.bans.holds_address(asking.client, &now_ms) || rules.is_denied(asking.client) {
            return Err(Refused::Banned);
        }
        let mut wants = Wants::new(&self.buckets, asking.class);
        let quotas = rules.quotas(asking.class);
        let client = rules.client(asking.client);
        wants.add(Kind::Client, quotas.client, Some(client));
        wants.add(Kind::Token, quotas.token, asking.token);
        // What a request claims is a bucket of this client, so that a claim costs nobody else anything.
        wants.add(Kind::User, quotas.user, asking.token.and_then(token_routing_key).map(|user| (user, client)));
        wants.add(Kind::Origin, quotas.origin, asking.origin.map(|origin| (origin, client)));
        self.buckets.charge(wants.as_slice(), now).map_err(Refused::Limited)
    }

    /// Counts an offence, and says which bans it leads to. Who is banned already is not counted again.
    pub(crate) fn hear(&self, rules: &Rules, offence: &Offence, now_ms: u64) -> Vec<Sentence> {
        let server_is_banned =
            offence.server.as_deref().is_some_and(|server| self.bans.holds_server(server, || now_ms));
        if server_is_banned || self.bans.holds_address(offence.client, || now_ms) {
            return Vec::new();
        }
        let prefix = rules.is_counted(offence.client).then(|| rules.client(offence.client));
        self.jails.hear(&rules.jails, offence, prefix, now_ms)
    }

    /// What is equal for equal tokens and tells nothing of them.
    pub(crate) fn mark(&self, token: &str) -> u64 {
        self.buckets.key(("mark", token)).number()
    }

    /// Frees the memory of what has no effect any more.
    pub(crate) fn prune(&self, rules: &Rules, now: Duration, now_ms: u64) {
        self.buckets.prune(now);
        self.bans.prune(now_ms);
        self.jails.prune(&rules.jails, now_ms);
    }
}

impl Default for Admission {
    fn default() -> Self {
        Self {
            buckets: Buckets::new(MOST_BUCKETS_KEPT),
            bans: BanTable::default(),
            jails: Jails::default(),
            live: Arc::default(),
        }
    }
}

/// The buckets of one request.
struct Wants<'a> {
    buckets: &'a Buckets,
    class: RequestClass,
    wants: [Want; MOST_BUCKETS],
    count: usize,
}

impl<'a> Wants<'a> {
    fn new(buckets: &'a Buckets, class: RequestClass) -> Self {
        Self { buckets, class, wants: [Want::NONE; MOST_BUCKETS], count: 0 }
    }

    fn add(&mut self, kind: Kind, quota: Option<Quota>, name: Option<impl Hash>) {
        let (Some(quota), Some(name)) = (quota, name) else { return };
        let key = self.buckets.key((kind, self.class, name));
        self.wants[self.count] = Want { key, quota };
        self.count += 1;
    }

    fn as_slice(&self) -> &[Want] {
        &self.wants[..self.count]
    }
}

/// What a bucket is kept for. There are [`MOST_BUCKETS`] kinds, and a request has at most one of each.
#[derive(Debug, Clone, Copy, Hash)]
enum Kind {
    Client,
    Token,
    User,
    Origin,
}

#[cfg(test)]
mod tests;
