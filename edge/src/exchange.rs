//! What is known of one request while it is answered.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use gatehouse_shared::hex::Hex;
use tokio::time::Instant;
use tracing::Span;

use crate::admission::request_class::RequestClass;
use crate::content::answer_cache::{Document, Fetching};
use crate::content::compression::Encoder;
use crate::front::Route;
use crate::live::Live;
use crate::pace::Awaited;
use crate::upstream::headers::{Announced, Vouched};
use crate::upstream::shard::{Passage, Shard};

/// A request that a shard's death interrupts is tried this many times in all: twice is bad luck, thrice is its fault.
const MAX_INTERRUPTIONS: u32 = 3;

/// What both sides log a request under; nothing for what was not admitted.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RequestId(Option<Hex<16>>);

impl RequestId {
    pub(crate) fn of(number: u64) -> Self {
        Self(Some(Hex::of(&number.to_be_bytes())))
    }

    pub(crate) fn as_str(&self) -> &str {
        self.0.as_ref().map_or("", Hex::as_str)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One request and its answer.
#[derive(Debug)]
pub(crate) struct Exchange {
    /// What was in force when the request arrived, and is for it until its end.
    pub(crate) live: Arc<Live>,
    pub(crate) started: Instant,
    pub(crate) client: IpAddr,
    /// The host that the client named, as it did.
    pub(crate) host: String,
    pub(crate) class: RequestClass,
    pub(crate) request_id: RequestId,
    /// Places the request among the shards.
    pub(crate) key: u64,
    /// How many bytes of body are allowed, and how many this attempt has passed on.
    pub(crate) body_limit: u64,
    pub(crate) body_passed: u64,
    /// The body, from when a shard can take it until all of it has come.
    pub(crate) awaited: Option<Awaited>,
    pub(crate) vouched: Option<Vouched>,
    /// Whether the request is work while the shard has it, unlike a long poll.
    pub(crate) is_work: bool,
    /// The document that the request asks for, and which the edge keeps.
    pub(crate) document: Option<Document>,
    /// Keeps the answer for others.
    pub(crate) fetching: Option<Fetching>,
    /// Compresses the answer.
    pub(crate) encoder: Option<Encoder>,
    /// The configured route that the request takes past the shards.
    pub(crate) route: Option<Arc<Route>>,
    /// What the route's server is told.
    pub(crate) announced: Option<Announced>,
    /// Which of the route's addresses was tried last.
    pub(crate) address: usize,
    /// Until when the request waits for a healthy shard; set when it first has to.
    pub(crate) held_until: Option<Instant>,
    pub(crate) attempts: u32,
    /// Counts the request at the shard that has it.
    pub(crate) passage: Option<Passage>,
    /// The last shard had no room for another connection.
    pub(crate) crowded: bool,
    interruptions: u32,
    /// The last shard went away over the request, and nobody knows yet whether it did so for all.
    pub(crate) in_doubt: bool,
    /// What the shard that refused for now asks to wait, in seconds.
    pub(crate) retry_after: Option<u64>,
    /// Records the request for traces; disabled unless spans are exported.
    pub(crate) span: Span,
}

impl Exchange {
    pub(crate) fn new(live: Arc<Live>) -> Self {
        Self {
            live,
            started: Instant::now(),
            client: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            host: String::new(),
            class: RequestClass::Other,
            request_id: RequestId::default(),
            key: 0,
            body_limit: 0,
            body_passed: 0,
            awaited: None,
            vouched: None,
            is_work: false,
            document: None,
            fetching: None,
            encoder: None,
            route: None,
            announced: None,
            address: 0,
            held_until: None,
            attempts: 0,
            passage: None,
            crowded: false,
            interruptions: 0,
            in_doubt: false,
            retry_after: None,
            span: Span::none(),
        }
    }

    /// Goes to a shard.
    pub(crate) fn choose(&mut self, passage: Passage) {
        self.passage = Some(passage);
        self.works();
    }

    /// The shard has all of the request, and owes the answer.
    pub(crate) fn works(&mut self) {
        let is_work = self.is_work;
        self.passage.iter_mut().for_each(|passage| passage.set_work(is_work));
    }

    /// The client owes the rest of the body: however many are slow at that, the shard can work for others.
    pub(crate) fn rests(&mut self) {
        self.passage.iter_mut().for_each(|passage| passage.set_work(false));
    }

    /// What is left is the client's to take, at its own pace.
    pub(crate) fn answered(&mut self) {
        self.is_work = false;
        self.rests();
    }

    /// The shard that has the request, or had it last.
    pub(crate) fn shard(&self) -> Option<&Arc<Shard>> {
        self.passage.as_ref().map(Passage::shard)
    }

    /// Counts for no shard any more.
    pub(crate) fn leave(&mut self) {
        self.passage = None;
    }

    /// Counts bytes of the body; `false` when they are too many.
    pub(crate) fn pass_body(&mut self, bytes: usize) -> bool {
        self.body_passed = self.body_passed.saturating_add(bytes as u64);
        self.body_passed <= self.body_limit
    }

    /// Until when to wait for a healthy shard. The wait of one request is counted once, however often it is interrupted.
    pub(crate) fn hold(&mut self, at_most: Duration) -> Instant {
        *self.held_until.get_or_insert_with(|| Instant::now() + at_most)
    }

    /// A shard died over the request; `false` when it may not be tried again.
    pub(crate) fn interrupt(&mut self) -> bool {
        self.interruptions += 1;
        self.in_doubt = true;
        self.interruptions < MAX_INTERRUPTIONS
    }
}
