//! The few answers of shards that are the same for everybody: kept for a while, and fetched by one request for all that
//! ask at the same time.
//!
//! Two documents are kept whole in memory, so none of a general cache is needed: no eviction, no keys from outside, no
//! variants. That is also why Pingora's cache is not used, whose store in memory is made for tests and whose rules would
//! change what is sent to shards.
//!
//! Other servers' `state_ids` are not shared here although many ask for the same: each such request carries its own
//! signature, which only a shard can verify, and answering a second one with what the first was given would skip that.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, SET_COOKIE};
use http::{Method, StatusCode};
use parking_lot::Mutex;
use pingora_http::RequestHeader;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::answer_head::AnswerHead;

/// The largest answer that is kept.
const MOST_BYTES: usize = 64 * 1024;
/// An answer that could not be kept is not waited for again so soon.
const NOT_KEPT_FOR: Duration = Duration::from_secs(5);

/// A document that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Document {
    /// `GET /_matrix/client/versions` of nobody in particular; to a user it may say more.
    Versions,
    /// `GET /_matrix/key/v2/server`.
    ServerKeys,
}

impl Document {
    const COUNT: usize = 2;

    /// The document that a request asks for, if it is one of these and asks for it plainly.
    pub(crate) fn asked_by(request: &RequestHeader) -> Option<Self> {
        let document = match request.uri.path() {
            "/_matrix/client/versions" => Self::Versions,
            "/_matrix/key/v2/server" => Self::ServerKeys,
            _ => return None,
        };
        let personal = [AUTHORIZATION, COOKIE].iter().any(|name| request.headers.contains_key(name));
        let plain = request.method == Method::GET && request.uri.query().is_none() && !personal;
        plain.then_some(document)
    }
}

/// How long answers are kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lifetimes {
    pub(crate) fresh: Duration,
    /// After that, while a new one is fetched or no shard is there.
    pub(crate) stale: Duration,
}

/// What is known about a document when it is asked for.
#[derive(Debug)]
pub(crate) enum Looked {
    /// It is here.
    Kept(Bytes),
    /// The request is to fetch it, for the others as well.
    Fetch(Fetching),
    /// The request fetches it for itself.
    Pass,
}

/// The documents.
#[derive(Debug, Default)]
pub(crate) struct AnswerCache {
    slots: [Arc<Slot>; Document::COUNT],
}

#[derive(Debug, Default)]
struct Slot {
    state: Mutex<State>,
    /// Notified when a fetch ends, whatever came of it.
    fetched: Notify,
}

#[derive(Debug, Default)]
struct State {
    kept: Option<Kept>,
    is_fetched: bool,
    not_kept_until: Option<Instant>,
}

#[derive(Debug, Clone)]
struct Kept {
    body: Bytes,
    since: Instant,
    fresh: Duration,
}

impl AnswerCache {
    /// Looks a document up; waits, at most for `wait`, while another request fetches it for the first time.
    pub(crate) async fn look(&self, document: Document, lives: Lifetimes, wait: Duration, no_shard: bool) -> Looked {
        let Some(slot) = self.slots.get(document as usize).filter(|_| !lives.fresh.is_zero()) else {
            return Looked::Pass;
        };
        let deadline = Instant::now() + wait;
        loop {
            let fetched = slot.fetched.notified();
            tokio::pin!(fetched);
            // Before the state is read, so that an end between the two is not missed.
            fetched.as_mut().enable();
            if let Some(looked) = slot.look(lives, no_shard) {
                return looked;
            }
            if tokio::time::timeout_at(deadline, fetched).await.is_err() {
                return Looked::Pass;
            }
        }
    }
}

impl Slot {
    /// `None` when there is nothing to do but wait.
    fn look(self: &Arc<Self>, lives: Lifetimes, no_shard: bool) -> Option<Looked> {
        let mut state = self.state.lock();
        let now = Instant::now();
        if let Some(kept) = &state.kept {
            let age = now.duration_since(kept.since);
            let fresh = kept.fresh.min(lives.fresh);
            let stands_in = age < fresh.saturating_add(lives.stale) && (state.is_fetched || no_shard);
            if age < fresh || stands_in {
                return Some(Looked::Kept(kept.body.clone()));
            }
        }
        if state.not_kept_until.is_some_and(|until| now < until) {
            return Some(Looked::Pass);
        }
        if state.is_fetched {
            return None;
        }
        state.is_fetched = true;
        Some(Looked::Fetch(Fetching { slot: self.clone(), body: BytesMut::new(), fresh: None }))
    }
}

/// A request that fetches a document. When it is dropped, whoever waits looks again.
#[derive(Debug)]
pub(crate) struct Fetching {
    slot: Arc<Slot>,
    body: BytesMut,
    /// How long the answer may be kept; `None` before its header, or when it may not.
    fresh: Option<Duration>,
}

impl Fetching {
    /// The header of the shard's answer came; `false` when it is not kept.
    pub(crate) fn header(&mut self, response: &AnswerHead) -> bool {
        self.fresh = keepable_for(response);
        if self.fresh.is_none() {
            self.slot.state.lock().not_kept_until = Some(Instant::now() + NOT_KEPT_FOR);
        }
        self.fresh.is_some()
    }

    /// A piece of its body came, as the shard sent it.
    pub(crate) fn body(&mut self, piece: Option<&Bytes>, ends: bool) {
        let Some(fresh) = self.fresh else { return };
        if let Some(piece) = piece.filter(|piece| self.body.len() + piece.len() <= MOST_BYTES) {
            self.body.extend_from_slice(piece);
        } else if piece.is_some() {
            self.fresh = None;
            return;
        }
        if ends {
            let body = std::mem::take(&mut self.body).freeze();
            self.slot.state.lock().kept = Some(Kept { body, since: Instant::now(), fresh });
            self.fresh = None;
        }
    }
}

impl Drop for Fetching {
    fn drop(&mut self) {
        self.slot.state.lock().is_fetched = false;
        self.slot.fetched.notify_waiters();
    }
}

/// For how long an answer may be kept at most: JSON for everybody, of known length, for which the shard does not say
/// otherwise.
fn keepable_for(response: &AnswerHead) -> Option<Duration> {
    let fields = &response.fields;
    let json = fields.text(&CONTENT_TYPE).starts_with("application/json");
    let small = fields.text(&CONTENT_LENGTH).parse::<usize>().is_ok_and(|length| length <= MOST_BYTES);
    let plain = !fields.contains(&SET_COOKIE) && !fields.contains(&CONTENT_ENCODING);
    if response.status != StatusCode::OK || !(json && small && plain) {
        return None;
    }
    age_allowed(fields.text(&CACHE_CONTROL))
}

fn age_allowed(cache_control: &str) -> Option<Duration> {
    let directives = cache_control.split(',').map(str::trim);
    let mut allowed = Duration::MAX;
    for directive in directives {
        if ["no-store", "no-cache", "private"].iter().any(|no| directive.eq_ignore_ascii_case(no)) {
            return None;
        }
        if let Some(seconds) = directive.strip_prefix("max-age=").and_then(|seconds| seconds.parse().ok()) {
            allowed = Duration::from_secs(seconds);
        }
    }
    Some(allowed)
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    const LIVES: Lifetimes = Lifetimes { fresh: Duration::from_secs(60), stale: Duration::from_secs(600) };

    fn json(headers: &[(&'static str, &'static str)]) -> AnswerHead {
        let mut response = AnswerHead::new(StatusCode::OK, 0);
        for (name, value) in [("content-type", "application/json"), ("content-length", "2")].iter().chain(headers) {
            response.fields.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        response
    }

    async fn look(cache: &AnswerCache, no_shard: bool) -> Looked {
        cache.look(Document::Versions, LIVES, Duration::from_secs(5), no_shard).await
    }

    async fn fetch(cache: &AnswerCache) -> Fetching {
        match look(cache, false).await {
            Looked::Fetch(fetching) => fetching,
            other => panic!("{other:?}"),
        }
    }

    fn complete(mut fetching: Fetching, body: &'static str) {
        assert!(fetching.header(&json(&[])));
        fetching.body(Some(&Bytes::from_static(body.as_bytes())), true);
    }

    #[tokio::test(start_paused = true)]
    async fn one_fetches_and_the_others_wait_for_it() {
        let cache = Arc::new(AnswerCache::default());
        let fetching = fetch(&cache).await;
        let waiting = cache.clone();
        let waiter = tokio::spawn(async move { look(&waiting, false).await });
        tokio::task::yield_now().await;
        complete(fetching, "{}");
        assert!(matches!(waiter.await.unwrap(), Looked::Kept(body) if body == "{}"));
    }

    #[tokio::test(start_paused = true)]
    async fn when_a_fetch_fails_the_next_one_tries() {
        let cache = Arc::new(AnswerCache::default());
        let fetching = fetch(&cache).await;
        let waiting = cache.clone();
        let waiter = tokio::spawn(async move { look(&waiting, false).await });
        tokio::task::yield_now().await;
        drop(fetching);
        assert!(matches!(waiter.await.unwrap(), Looked::Fetch(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_answer_stands_in_while_a_new_one_is_fetched_or_no_shard_is_there() {
        let cache = AnswerCache::default();
        complete(fetch(&cache).await, "{}");
        tokio::time::advance(Duration::from_secs(61)).await;
        assert!(matches!(look(&cache, true).await, Looked::Kept(_)));
        let fetching = fetch(&cache).await;
        assert!(matches!(look(&cache, false).await, Looked::Kept(_)));
        drop(fetching);
        tokio::time::advance(Duration::from_secs(600)).await;
        assert!(matches!(look(&cache, true).await, Looked::Fetch(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_not_be_kept_is_waited_for_once() {
        let cache = AnswerCache::default();
        for headers in [
            [("cache-control", "no-store")],
            [("cache-control", "max-age=5, private")],
            [("content-type", "text/plain")],
            [("set-cookie", "a=b")],
            [("content-length", "1000000")],
        ] {
            let mut fetching = fetch(&cache).await;
            assert!(!fetching.header(&json(&headers)), "{headers:?}");
            fetching.body(Some(&Bytes::from_static(b"{}")), true);
            drop(fetching);
            assert!(matches!(look(&cache, false).await, Looked::Pass));
            tokio::time::advance(NOT_KEPT_FOR).await;
        }
        complete(fetch(&cache).await, "{}");
        assert!(matches!(look(&cache, false).await, Looked::Kept(_)));
    }

    #[test]
    fn only_plain_requests_are_everybodys() {
        let request = |method, target: &str| RequestHeader::build(method, target.as_bytes(), None).unwrap();
        let asked = |request: &RequestHeader| Document::asked_by(request);
        assert_eq!(asked(&request("GET", "/_matrix/client/versions")), Some(Document::Versions));
        assert_eq!(asked(&request("GET", "/_matrix/key/v2/server")), Some(Document::ServerKeys));
        for (method, target) in [
            ("POST", "/_matrix/client/versions"),
            ("GET", "/_matrix/client/versions?access_token=x"),
            ("GET", "/_matrix/key/v2/server/ed25519:1"),
        ] {
            assert_eq!(asked(&request(method, target)), None);
        }
        let mut personal = request("GET", "/_matrix/client/versions");
        personal.insert_header("authorization", "Bearer x").unwrap();
        assert_eq!(asked(&personal), None);
    }
}
