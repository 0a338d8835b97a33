//! Certificates that others refuse.

use gatehouse_shared::clock::{Clock, SystemClock};

use super::World;
use super::authority::{Authority, DAY};
use crate::own_network::{MATRIX, in_own_network};

#[test]
fn one_that_has_expired() {
    in_own_network(async {
        let mut world = World::new();
        let now = SystemClock.now();
        world.matrix.certificate = world.authority.issue_for(&["matrix.example.org"], now - 90 * DAY, now - 3 * DAY);
        world.examine().await.finds_one("tls-expired", 1, "3 days ago", "[[tls.certificates]]");
    });
}

#[test]
fn one_that_should_have_been_renewed() {
    in_own_network(async {
        let mut world = World::new();
        let now = SystemClock.now();
        world.matrix.certificate = world.authority.issue_for(&["matrix.example.org"], now - 85 * DAY, now + 5 * DAY);
        world.examine().await.finds_one("tls-expires-soon", 0, "days", "renewed certificate for matrix.example.org");
    });
}

#[test]
fn one_of_another_name() {
    in_own_network(async {
        let mut world = World::new();
        world.matrix.certificate = world.authority.issue(&["other.example.org"]);
        world.examine().await.finds_one(
            "tls-wrong-name",
            1,
            "holds other.example.org, not matrix",
            "holds matrix.example.org",
        );
    });
}

#[test]
fn one_of_another_name_where_the_document_is() {
    in_own_network(async {
        let mut world = World::new();
        world.web.certificate = world.authority.issue(&["other.example.org"]);
        world.records.push("_matrix-fed._tcp IN SRV 10 5 443 matrix".to_owned());
        world.matrix.certificate = world.authority.issue(&["example.org", "matrix.example.org"]);
        world.examine().await.finds(&["tls-wrong-name", "well-known-server-tls"], 1);
    });
}

#[test]
fn one_without_its_intermediate() {
    in_own_network(async {
        let mut world = World::new();
        world.matrix.certificate.chain.truncate(1);
        world.examine().await.finds_one("tls-chain-incomplete", 1, "Test intermediate", "fullchain.pem");
    });
}

#[test]
fn one_of_an_authority_that_nobody_trusts() {
    in_own_network(async {
        let mut world = World::new();
        let other = Authority::new("Other");
        world.matrix.certificate = other.with_root(other.issue(&["matrix.example.org"]));
        world.examine().await.finds_one("tls-untrusted", 1, "Other root", "[[tls.certificates]]");
    });
}

#[test]
fn a_port_on_which_nobody_speaks_tls() {
    in_own_network(async {
        let mut world = World::new();
        world.matrix.listen.clear();
        for address in MATRIX {
            let listener = tokio::net::TcpListener::bind((address, 443)).await.unwrap();
            tokio::spawn(async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    use tokio::io::AsyncWriteExt;
                    let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
                }
            });
        }
        world.examine().await.finds(&["client-api-unreachable", "tls-handshake", "tls-handshake"], 1);
    });
}
