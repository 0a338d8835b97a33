//! How certificates are renewed: by lifetime and by suggestion, under load, and what becomes of orders that fail.

use std::time::Duration;

use crate::client::{Connection, request};
use crate::edge::{Edge, patiently};

use super::authority::{NameServer, Pebble};
use super::double::{Double, Mood};
use super::{Place, ask, certified, certs, metric, served};

/// Waits until another certificate is served than `old`.
async fn renewed(edge: &Edge, old: &[u8]) -> Vec<u8> {
    tokio::time::timeout(Duration::from_secs(90), async {
        loop {
            let now = served(edge.https, "example.test").await;
            if now != old {
                return now;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await
    .expect("the certificate is not renewed")
}

#[tokio::test]
async fn a_renewal_under_two_hundred_connections_is_noticed_by_none() {
    let (place, names) = (Place::new(), NameServer::start().await);
    // Renewed after half of its life.
    let pebble =
        Pebble { http_port: place.http, dns_port: names.port, lifetime: 40, ..Pebble::default() }.start().await;
    let edge = place.start(&format!("[[tls.acme]]\nagree_to_terms = true\n{}", pebble.config())).await;
    let first = certified(&edge, "example.test").await;
    let root = pebble.root().await;
    let mut connections = Vec::new();
    for number in 0..200 {
        connections.push(match number % 2 {
            0 => Connection::http1_as(edge.https, &root, "example.test").await,
            _ => Connection::http2_as(edge.https, &root, "example.test").await,
        });
    }
    let mut asked = 0;
    let mut round = async |connections: &mut Vec<Connection>| {
        for connection in connections {
            let answer = connection.send(request("GET", "/_matrix/client/versions", "")).await;
            assert_eq!(answer.unwrap().status, 200, "after {asked} requests");
            asked += 1;
        }
    };
    round(&mut connections).await;
    assert_eq!(
        served(edge.https, "example.test").await,
        first,
        "two hundred connections took longer than the certificate"
    );
    // Requests go on while the certificate is ordered and swapped.
    while served(edge.https, "example.test").await == first {
        round(&mut connections).await;
    }
    round(&mut connections).await;
    assert_eq!(ask(&edge, &root, "example.test").await.status, 200);
    assert!(metric(&edge, "gatehouse_edge_acme_orders_total").await >= 2.0);
}

#[tokio::test]
async fn the_authority_says_when_to_renew_and_is_told_what_was_replaced() {
    let double = Double::start(Mood::Issues).await;
    let acme = format!("[[tls.acme]]\nagree_to_terms = true\n{}profile = \"shortlived\"\n", double.config());
    let mut edge = Place::new().start(&acme).await;
    patiently("the certificate", async {
        while certs(&edge).await[0]["renewal_is_suggested"] != true {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let first = served(edge.https, "example.test").await;
    assert_eq!(ask(&edge, &double.root(), "example.test").await.status, 200);
    // 2100, which is long before its last third.
    assert!((4_102_444_800..4_102_531_200).contains(&certs(&edge).await[0]["renew_at"].as_u64().unwrap()));
    assert_eq!(double.orders()[0]["profile"], "shortlived");
    assert!(double.orders()[0]["replaces"].is_null());

    // The authority is asked again at the latest when the edge starts.
    double.suggest_renewal();
    edge.signal("TERM");
    assert!(edge.ended().await.success());
    let config = std::fs::read_to_string(edge.folder.path().join("edge.toml")).unwrap();
    let again = Edge::launch(tempfile::tempdir().unwrap(), Vec::new(), &config).await;
    renewed(&again, &first).await;
    let orders = double.orders();
    assert_eq!(orders.len(), 2);
    assert_eq!(orders[1]["profile"], "shortlived");
    let replaced = orders[1]["replaces"].as_str().unwrap();
    assert!(replaced.split_once('.').is_some_and(|(authority, serial)| !authority.is_empty() && !serial.is_empty()));
}

#[tokio::test]
async fn an_authority_that_is_asked_too_much_is_left_alone_and_another_one_asked() {
    let (limited, other) = (Double::start(Mood::Limits).await, Double::start(Mood::Issues).await);
    let acme = format!("[[tls.acme]]\nagree_to_terms = true\n{}{}", limited.config(), other.config());
    let edge = Place::new().start(&acme).await;
    patiently("the certificate", async {
        while certs(&edge).await[0]["authority"] != other.directory {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert_eq!(ask(&edge, &other.root(), "example.test").await.status, 200);
    let record = std::fs::read(edge.folder.path().join("state/certificates/example.test.json")).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    let until = record["limited_until"][&limited.directory].as_u64().unwrap();
    let issued = std::fs::metadata(edge.folder.path().join("state/certificates/example.test.pem")).unwrap();
    let issued = issued.modified().unwrap().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert!((7_100..7_300).contains(&(until - issued)), "it asked for two hours: {until} {issued}");
}

#[tokio::test]
async fn a_revoked_order_is_told_and_not_finalized() {
    let double = Double::start(Mood::Revokes).await;
    let edge = Place::new().start(&format!("[[tls.acme]]\nagree_to_terms = true\n{}", double.config())).await;
    patiently("the failure", async {
        while !certs(&edge).await[0]["problem"].as_str().is_some_and(|told| told.contains("authorization is revoked")) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert_eq!(certs(&edge).await[0]["source"], "self-signed");
    assert_eq!(double.orders().len(), 1);
    assert_eq!(metric(&edge, "gatehouse_edge_acme_order_failures_total").await, 1.0);
}
