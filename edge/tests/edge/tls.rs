//! Certificates by name, swapped while the edge runs.

use gatehouse::listener::development_ca;
use gatehouse_shared::clock::SystemClock;

use crate::client::{request, tls};
use crate::edge::{Edge, Options, patiently};

#[tokio::test]
async fn http1_and_http2_are_spoken_on_every_endpoint_with_tls() {
    let edge = Edge::start().await;
    for address in [edge.https, edge.federation] {
        for mut connection in [
            crate::client::Connection::http1(address, &edge.ca).await,
            crate::client::Connection::http2(address, &edge.ca).await,
        ] {
            for _ in 0..3 {
                let echo = connection.send(request("GET", "/_matrix/key/v2/server", "")).await.unwrap().json();
                assert_eq!(echo["shard"], "shard 0");
            }
        }
    }
}

#[tokio::test]
async fn a_certificate_is_chosen_by_name_and_swapped_by_sighup() {
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("other");
    let made = development_ca::prepare(&other, &["matrix.example".to_owned()], &SystemClock).unwrap();
    let (chain, key) = (made.leaf.chain.display(), made.leaf.key.display());
    let sections = format!("[[tls.certificates]]\nchain = \"{chain}\"\nkey = \"{key}\"\n");
    let edge = Edge::with(Options { shards: 1, sections: &sections, ..Options::default() }).await;
    // The certificate of the other authority holds this name, the edge's own holds only `localhost` …
    let first = certificate(&edge, &made.ca, "matrix.example").await;
    // … which both hold: the configured one comes first.
    assert_eq!(certificate(&edge, &made.ca, "localhost").await, first);

    development_ca::prepare(&other, &["matrix.example".to_owned()], &SystemClock).unwrap();
    edge.signal("HUP");
    patiently("the swap", async {
        while certificate(&edge, &made.ca, "matrix.example").await == first {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;

    std::fs::write(&made.leaf.key, "no key").unwrap();
    edge.signal("HUP");
    assert_eq!(edge.ask_via(&made.ca, "/_matrix/client/versions").await.status, 200);
}

async fn certificate(edge: &Edge, ca: &std::path::Path, name: &str) -> Vec<u8> {
    let stream = tls(edge.https, ca, name, &[b"http/1.1"]).await;
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

impl Edge {
    async fn ask_via(&self, ca: &std::path::Path, target: &str) -> crate::client::Answer {
        let mut connection = crate::client::Connection::http1(self.https, ca).await;
        connection.send(request("GET", target, "")).await.unwrap()
    }
}
