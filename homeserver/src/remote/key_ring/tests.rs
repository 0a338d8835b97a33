use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use axum::{Json, Router, routing::get, routing::post};
use gatehouse_shared::clock::TurnedClock;
use http::StatusCode;
use ruma::{MilliSecondsSinceUnixEpoch, UInt};
use tokio::net::TcpListener;

use super::*;
use crate::remote::{RequestAuth, RequestAuthError, testing::TestAuthority, x_matrix};

const NOW: u64 = 1_700_000_000_000;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

struct Fixture {
    authority: TestAuthority,
    clock: Arc<TurnedClock>,
    key_ring: KeyRing,
    us: SigningKey,
    /// Its name is its address, and it serves the keys of this one.
    peer: SigningKey,
    /// Whether the peer answers.
    is_up: Arc<AtomicBool>,
    fetches: Arc<AtomicUsize>,
}

async fn fixture() -> Fixture {
    let authority = TestAuthority::new();
    let clock = Arc::new(TurnedClock::at_ms(NOW));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let peer = authority.key(&listener.local_addr().unwrap().to_string());
    let (is_up, fetches) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let serve = {
        let (peer, clock, is_up, fetches) = (peer.clone(), clock.clone(), is_up.clone(), fetches.clone());
        move || async move {
            fetches.fetch_add(1, Ordering::SeqCst);
            if is_up.load(Ordering::SeqCst) {
                Ok(Json(peer.published(clock.now_ms())))
            } else {
                Err(StatusCode::BAD_GATEWAY)
            }
        }
    };
    authority.serve_on(listener, &["127.0.0.1"], Router::new().route("/_matrix/key/v2/server", get(serve)));

    // A notary that vouches for the peer even when that is down.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let notary = authority.key(&listener.local_addr().unwrap().to_string());
    let own = {
        let (notary, clock) = (notary.clone(), clock.clone());
        move || async move { Json(notary.published(clock.now_ms())) }
    };
    let query = {
        let (peer, notary, clock) = (peer.clone(), notary.clone(), clock.clone());
        move || async move {
            let mut document = peer.published(clock.now_ms());
            notary.sign(&mut document).unwrap();
            Json(serde_json::json!({ "server_keys": [document] }))
        }
    };
    let router = Router::new().route("/_matrix/key/v2/server", get(own)).route("/_matrix/key/v2/query", post(query));
    authority.serve_on(listener, &["127.0.0.1"], router);

    let us = authority.key("us.test");
    let db = authority.db("db").await;
    let client = authority.client(db.clone(), us.clone(), clock.clone());
    let key_ring = KeyRing::new(db, client, us.clone(), vec![notary.server_name().to_owned()], clock.clone());
    Fixture { authority, clock, key_ring, us, peer, is_up, fetches }
}

#[tokio::test]
async fn many_who_need_a_key_wait_for_one_fetch() {
    let Fixture { key_ring, peer, fetches, .. } = fixture().await;
    let key_id = peer.key_id();
    let all = (0..20).map(|_| key_ring.current(peer.server_name(), &key_id));
    for keys in futures_util::future::join_all(all).await {
        assert_eq!(keys.unwrap().get(&peer.key_id()).unwrap().as_bytes(), peer.public_key());
    }
    assert_eq!(fetches.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_key_is_fetched_again_when_it_expires_but_an_unknown_one_not_at_once() {
    let Fixture { key_ring, peer, fetches, clock, .. } = fixture().await;
    key_ring.current(peer.server_name(), &peer.key_id()).await.unwrap();
    assert!(matches!(key_ring.current(peer.server_name(), "ed25519:other").await, Err(KeyError::UnknownKey)));
    assert_eq!(fetches.load(Ordering::SeqCst), 1);
    clock.advance(DAY);
    key_ring.current(peer.server_name(), &peer.key_id()).await.unwrap();
    assert_eq!(fetches.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_notary_answers_for_a_server_that_is_down() {
    let Fixture { key_ring, peer, is_up, .. } = fixture().await;
    is_up.store(false, Ordering::SeqCst);
    let keys = key_ring.current(peer.server_name(), &peer.key_id()).await.unwrap();
    assert_eq!(keys.get(&peer.key_id()).unwrap().as_bytes(), peer.public_key());
}

#[tokio::test]
async fn a_server_that_answers_nothing_is_not_asked_again_at_once() {
    let Fixture { authority, peer, us, clock, is_up, fetches, .. } = fixture().await;
    is_up.store(false, Ordering::SeqCst);
    let db = authority.db("alone").await;
    let client = authority.client(db.clone(), us.clone(), clock.clone());
    let alone = KeyRing::new(db, client, us, Vec::new(), clock.clone());
    assert!(matches!(alone.current(peer.server_name(), &peer.key_id()).await, Err(KeyError::Fetch(_))));
    assert!(matches!(alone.current(peer.server_name(), &peer.key_id()).await, Err(KeyError::TriedBefore)));
    assert_eq!(fetches.load(Ordering::SeqCst), 1);
    clock.advance(Duration::from_secs(60));
    is_up.store(true, Ordering::SeqCst);
    alone.current(peer.server_name(), &peer.key_id()).await.unwrap();
}

#[tokio::test]
async fn an_event_needs_a_key_that_was_valid_when_it_was_made() {
    let Fixture { key_ring, peer, .. } = fixture().await;
    let at = |ms: u64| {
        let valid_at = Some(MilliSecondsSinceUnixEpoch(UInt::try_from(ms).unwrap()));
        vec![RequiredSignature { server_name: peer.server_name().to_owned(), key_ids: vec![peer.key_id()], valid_at }]
    };
    let has_key = |map: PublicKeyMap| map.values().any(|keys| !keys.is_empty());
    assert!(has_key(key_ring.for_events(&at(NOW)).await.unwrap()));
    assert!(!has_key(key_ring.for_events(&at(NOW + 8 * 24 * 60 * 60 * 1000)).await.unwrap()));
}

fn request(body: &str) -> http::Request<Vec<u8>> {
    let target = "/_matrix/federation/v1/send/1?a=%2F..%20";
    http::Request::put(target).body(body.as_bytes().to_vec()).unwrap()
}

fn received(request: http::Request<Vec<u8>>) -> http::Request<bytes::Bytes> {
    request.map(Into::into)
}

#[tokio::test]
async fn a_signed_request_is_believed_and_a_changed_one_is_not() {
    let Fixture { key_ring, peer, us, .. } = fixture().await;
    let auth = RequestAuth::new(us.clone(), key_ring);
    let mut signed = request(r#"{"b":1,"a":"é"}"#);
    x_matrix::sign(&mut signed, &peer, us.server_name()).unwrap();
    assert_eq!(auth.verify(&received(signed.clone())).await.unwrap(), peer.server_name());

    let wrong = |result| matches!(result, Err(RequestAuthError::Wrong { .. }));
    let mut other_body = signed.clone();
    *other_body.body_mut() = r#"{"b":2,"a":"é"}"#.into();
    assert!(wrong(auth.verify(&received(other_body)).await));
    let mut other_target = signed.clone();
    *other_target.uri_mut() = "/_matrix/federation/v1/send/1?a=/..%20".parse().unwrap();
    assert!(wrong(auth.verify(&received(other_target)).await));
    let mut other_method = signed.clone();
    *other_method.method_mut() = http::Method::POST;
    assert!(wrong(auth.verify(&received(other_method)).await));
}

#[tokio::test]
async fn requests_for_others_from_ourselves_or_of_nobody_are_refused() {
    let Fixture { key_ring, peer, us, .. } = fixture().await;
    let auth = RequestAuth::new(us.clone(), key_ring);
    let mut for_other = request("{}");
    x_matrix::sign(&mut for_other, &peer, "other.test".try_into().unwrap()).unwrap();
    assert!(matches!(auth.verify(&received(for_other)).await, Err(RequestAuthError::OtherDestination)));
    let mut from_us = request("{}");
    x_matrix::sign(&mut from_us, &us, us.server_name()).unwrap();
    assert!(matches!(auth.verify(&received(from_us)).await, Err(RequestAuthError::Wrong { .. })));
    for header in ["", "Bearer abc", "X-Matrix", "X-Matrix origin=\"", "X-Matrix origin=a,origin=b,key=c,sig=d"] {
        let mut unsigned = request("{}");
        unsigned.headers_mut().insert(http::header::AUTHORIZATION, header.parse().unwrap());
        assert!(matches!(auth.verify(&received(unsigned)).await, Err(RequestAuthError::Unsigned)), "{header}");
    }
    assert!(matches!(auth.verify(&received(request("{}"))).await, Err(RequestAuthError::Unsigned)));
}

#[tokio::test]
async fn a_header_of_an_older_server_is_read() {
    let Fixture { key_ring, peer, us, .. } = fixture().await;
    let auth = RequestAuth::new(us.clone(), key_ring);
    let mut signed = request("{}");
    x_matrix::sign(&mut signed, &peer, us.server_name()).unwrap();
    let header = signed.headers()[http::header::AUTHORIZATION].to_str().unwrap().to_owned();
    // Without quotes around names with colons, as servers wrote it before the specification asked for them.
    let older = header.replacen('"', "", 4);
    assert!(older.contains(":") && older.matches('"').count() < header.matches('"').count());
    signed.headers_mut().insert(http::header::AUTHORIZATION, older.parse().unwrap());
    assert_eq!(auth.verify(&received(signed)).await.unwrap(), peer.server_name());
}
