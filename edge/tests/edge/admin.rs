//! From where the admin API may be reached.

use crate::client::{Connection, request};
use crate::edge::{Edge, Options};

const ADMIN: [&str; 4] = [
    "/_synapse/admin/v1/register",
    "/_synapse/%61dmin/v1/register",
    "/_synapse//admin/v1/register",
    "/_matrix/client/v1/admin/lock/@a:b",
];

async fn edge_with(admin: &str) -> Edge {
    let sections = format!("[admin]\n{admin}\n");
    Edge::with(Options { shards: 1, sections: &sections, ..Options::default() }).await
}

#[tokio::test]
async fn loopback_may_use_the_admin_api() {
    let edge = Edge::start().await;
    for target in ADMIN {
        assert_eq!(edge.ask("POST", target).await.json()["shard"], "shard 0", "{target}");
    }
}

#[tokio::test]
async fn others_may_not_and_are_told_as_configured() {
    let edge = edge_with("allow = [\"192.0.2.0/24\"]").await;
    for target in ADMIN {
        edge.ask("POST", target).await.assert_error(403, "M_FORBIDDEN");
        let mut connection = Connection::http2(edge.https, &edge.ca).await;
        connection.send(request("POST", target, "")).await.unwrap().assert_error(403, "M_FORBIDDEN");
    }
    assert_eq!(edge.shards[0].served(), 0);
    // What users may ask about themselves is the shard's to judge.
    for target in ["/_matrix/client/v3/admin/whois/@a:b", "/_matrix/client/v3/sync"] {
        assert_eq!(edge.ask("GET", target).await.json()["shard"], "shard 0", "{target}");
    }
    let edge = edge_with("allow = []\nrefuse_with = 404").await;
    edge.ask("POST", ADMIN[0]).await.assert_error(404, "M_UNRECOGNIZED");
}
