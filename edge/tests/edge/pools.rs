//! How shards are judged by what they answer, and reached over TLS.

use std::sync::Arc;

use http::StatusCode;
use rcgen::{CertificateParams, Issuer, KeyPair};
use rustls_pki_types::PrivateKeyDer;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, crypto};

use crate::backend::Backend;
use crate::client::request;
use crate::double::{Order, Shard};
use crate::edge::{Edge, Options, patiently};

async fn home_of(edge: &Edge, target: &str) -> usize {
    if edge.ask("GET", target).await.json()["shard"] == "shard 0" { 0 } else { 1 }
}

#[tokio::test]
async fn a_shard_that_fails_its_requests_is_left_out_and_the_last_one_never() {
    let upstream = "failures = 3";
    let edge = Edge::with(Options { shards: 2, upstream, ..Options::default() }).await;
    let room = "/_matrix/client/v3/rooms/!a:localhost/members";
    let home = home_of(&edge, room).await;
    for _ in 0..3 {
        edge.shards[home].order(Order::Answer(StatusCode::INTERNAL_SERVER_ERROR, vec![]));
        assert_eq!(edge.ask("GET", room).await.status, StatusCode::INTERNAL_SERVER_ERROR);
    }
    assert_eq!(home_of(&edge, room).await, 1 - home);
    for _ in 0..4 {
        edge.shards[1 - home].order(Order::Answer(StatusCode::INTERNAL_SERVER_ERROR, vec![]));
        assert_eq!(edge.ask("GET", room).await.status, StatusCode::INTERNAL_SERVER_ERROR);
    }
    assert_eq!(home_of(&edge, room).await, 1 - home, "somebody has to");
}

#[tokio::test]
async fn repetitions_end_where_the_budget_does() {
    let upstream = "retry_percent = 0\nretry_burst = 2";
    let edge = Edge::with(Options { shards: 1, upstream, ..Options::default() }).await;
    let put = "/_matrix/client/v3/rooms/!a:localhost/send/m.room.message/1";
    let mut connection = edge.http1().await;
    for _ in 0..2 {
        edge.shards[0].order(Order::HangUp);
        let answer = patiently("the repetition", connection.send(request("PUT", put, "{}"))).await.unwrap();
        assert_eq!(answer.status, StatusCode::OK);
    }
    edge.shards[0].order(Order::HangUp);
    let answer = patiently("the answer", connection.send(request("PUT", put, "{}"))).await.unwrap();
    answer.assert_error(502, "M_UNKNOWN");
}

#[tokio::test]
async fn a_shard_that_says_that_it_ends_gets_no_more_requests() {
    let edge = Edge::with(Options { shards: 2, ..Options::default() }).await;
    edge.shards[0].drain();
    edge.healthy_shards(1).await;
    for room in 0..20 {
        assert_eq!(home_of(&edge, &format!("/_matrix/client/v3/rooms/!{room}:localhost/members")).await, 1);
    }
    assert!(edge.log().contains("the shard drains"), "{}", edge.log());
}

#[tokio::test]
async fn shards_on_other_machines_are_reached_over_tls_with_certificates_on_both_sides() {
    let folder = tempfile::tempdir().unwrap();
    let authority = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let root = params.self_signed(&authority).unwrap();
    let issuer = Issuer::from_params(&params, &authority);
    let issue = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        (certificate, key)
    };
    let mut roots = RootCertStore::empty();
    roots.add(root.der().clone()).unwrap();
    let provider = Arc::new(crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
    let (certificate, key) = issue("shards.internal");
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    let shard = Backend::tls("a shard over TLS", TlsAcceptor::from(Arc::new(config))).await;
    let (certificate, key) = issue("edge");
    for (name, pem) in [("ca", root.pem()), ("edge", certificate.pem()), ("key", key.serialize_pem())] {
        std::fs::write(folder.path().join(name), pem).unwrap();
    }
    let path = folder.path().display();
    let address = shard.address;
    let upstream = |rest: &str| format!("[upstream.tls]\nca = \"{path}/ca\"\n{rest}");
    let identity = format!("certificate = \"{path}/edge\"\nkey = \"{path}/key\"\n");

    let tls = upstream(&format!("name = \"shards.internal\"\n{identity}"));
    let edge = Edge::with(Options { upstream: &tls, also_shard: Some(address), ..Options::default() }).await;
    edge.healthy_shards(1).await;
    let echo = edge.ask("GET", "/_matrix/client/v3/x").await.json();
    assert_eq!(echo["backend"], "a shard over TLS");
    assert!(echo["headers"].to_string().contains("x-gatehouse-mac"), "the contract holds as ever: {echo}");

    for tls in [upstream(&format!("name = \"other.internal\"\n{identity}")), upstream("name = \"shards.internal\"\n")] {
        let hold = format!("hold_seconds = 1\n{tls}");
        let edge = Edge::with(Options { upstream: &hold, also_shard: Some(address), ..Options::default() }).await;
        edge.ask("GET", "/_matrix/client/v3/x").await.assert_error(429, "M_LIMIT_EXCEEDED");
    }
}

#[tokio::test]
async fn a_shard_that_comes_back_beside_another_takes_its_keys_little_by_little() {
    let upstream = "slow_start_seconds = 2";
    let edge = Edge::with(Options { shards: 2, upstream, ..Options::default() }).await;
    let rooms: Vec<String> =
        (0..40).map(|room| format!("/_matrix/client/v3/rooms/!{room}:localhost/members")).collect();
    let mut homes = Vec::new();
    for room in &rooms {
        homes.push(home_of(&edge, room).await);
    }
    // The other one has to have been there for as long as it takes to start slowly.
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    edge.shards[0].die().await;
    edge.healthy_shards(1).await;
    let _back = Shard::start(&edge.shards[0].path, "shard 0");
    edge.healthy_shards(2).await;
    let began = std::time::Instant::now();
    let mut connection = edge.http1().await;
    let mut early = 0;
    for (room, _) in rooms.iter().zip(&homes).filter(|(_, home)| **home == 0) {
        early += usize::from(connection.send(request("GET", room, "")).await.unwrap().json()["shard"] == "shard 0");
    }
    let whole = homes.iter().filter(|home| **home == 0).count();
    assert!(early < whole || began.elapsed().as_secs() >= 1, "all {whole} at once");
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    for (room, home) in rooms.iter().zip(&homes) {
        assert_eq!(home_of(&edge, room).await, *home, "in the end everything is as before");
    }
}
