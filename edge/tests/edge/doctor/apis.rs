//! APIs that do not answer as they should.

use gatehouse_shared::clock::{Clock, SystemClock};

use super::World;
use super::authority::DAY;
use super::site::{KEYS, Page, VERSION, in_hours, key_document, key_document_of};
use crate::own_network::{MATRIX, in_own_network};

#[test]
fn keys_of_another_server() {
    in_own_network(async {
        let page = Page::json(key_document("other.example.org", in_hours(24)));
        World::new().spoil_api(KEYS, page).examine().await.finds(&["keys-signature", "keys-wrong-name"], 1);
    });
}

#[test]
fn keys_with_a_signature_that_does_not_verify() {
    in_own_network(async {
        let document = key_document("example.org", in_hours(24))
            .replace("\"old_verify_keys\":{}", "\"old_verify_keys\":{\"a\":1}");
        let report = World::new().spoil_api(KEYS, Page::json(document)).examine().await;
        report.finds_one("keys-signature", 1, "does not verify", "signing.key");
    });
}

#[test]
fn keys_that_have_expired() {
    in_own_network(async {
        let page = Page::json(key_document("example.org", in_hours(-2)));
        World::new().spoil_api(KEYS, page).examine().await.finds_one("keys-expired", 1, "minutes ago", "clocks");
    });
}

#[test]
fn a_federation_api_that_does_not_answer() {
    in_own_network(async {
        let report = World::new().spoil_api(VERSION, Page::status(404)).examine().await;
        report.finds(&["version", "version"], 1);
    });
}

#[test]
fn a_clock_that_is_wrong() {
    in_own_network(async {
        let date = httpdate::fmt_http_date(SystemClock.now() - DAY);
        let page = Page::json(key_document("example.org", in_hours(24))).with("date", &date);
        World::new().spoil_api(KEYS, page).examine().await.finds_one("clock-skew", 1, "behind", "set-ntp");
    });
}

#[test]
fn an_api_that_redirects() {
    in_own_network(async {
        let page = Page::redirect("https://matrix.example.org/");
        let report = World::new().spoil_api(VERSION, page).examine().await;
        report.finds(&["loop-redirect", "loop-redirect", "version", "version"], 1);
    });
}

#[test]
fn an_answer_that_came_through_one_proxy_twice() {
    in_own_network(async {
        let page = Page::json(r#"{"server":{"name":"Test","version":"1"}}"#).with("via", "1.1 a, 1.1 b, 1.1 a");
        World::new().spoil_api(VERSION, page).examine().await.finds(&["loop-via", "loop-via"], 1);
    });
}

#[test]
fn an_ipv6_address_on_which_nobody_listens() {
    in_own_network(async {
        let mut world = World::new();
        world.matrix.listen.truncate(1);
        let report = world.examine().await;
        report.finds(&["client-api-unreachable", "unreachable-ipv6"], 1);
        let listen =
            &report.findings().iter().find(|finding| finding["id"] == "unreachable-ipv6").unwrap()["mend"]["line"];
        assert!(listen.as_str().unwrap().contains("[listen] https = [\"[::]:443\"]"), "{listen}");
    });
}

#[test]
fn a_place_that_does_not_speak_http2() {
    in_own_network(async {
        let mut world = World::new();
        world.matrix.protocols = vec![b"http/1.1"];
        world.examine().await.finds(&["http2-not-offered", "http2-not-offered"], 0);
    });
}

#[test]
fn shards_with_different_keys() {
    in_own_network(async {
        let mut world = World::new();
        let mut other =
            world.matrix.clone().page(KEYS, Page::json(key_document_of("ed25519:b", "example.org", in_hours(24))));
        other.listen = world.matrix.listen.split_off(1);
        other.open().await;
        world.examine().await.finds_one("keys-differ", 1, "different keys", "signing.key");
    });
}

#[test]
fn keys_that_are_never_answered() {
    in_own_network(async {
        let report = World::new().spoil_api(KEYS, Page::status(429)).examine().await;
        report.finds_one("keys-status", 1, "429", "[upstream] shards");
    });
}

#[test]
fn a_place_that_agrees_on_http2_and_does_not_speak_it() {
    in_own_network(async {
        let mut world = World::new();
        world.matrix.http1_only = true;
        world.examine().await.finds(&["http2-broken", "http2-broken"], 1);
    });
}

#[test]
fn a_place_that_takes_connections_and_says_nothing() {
    in_own_network(async {
        let mut world = World::new();
        world.matrix.listen.clear();
        // Nobody accepts, so the system does.
        let listeners = [
            tokio::net::TcpListener::bind((MATRIX[0], 443)).await.unwrap(),
            tokio::net::TcpListener::bind((MATRIX[1], 443)).await.unwrap(),
        ];
        let report = world.examine().await;
        report.finds(&["client-api-unreachable", "tls-handshake", "tls-handshake"], 1);
        assert!(
            report.findings().iter().all(|finding| finding["seen"].as_str().unwrap().contains("not done within 10 s"))
        );
        drop(listeners);
    });
}

#[test]
fn an_ipv4_address_on_which_nobody_listens() {
    in_own_network(async {
        let mut world = World::by_service(&["_matrix-fed._tcp IN SRV 10 5 8448 matrix"]);
        world.matrix.listen.retain(|address| address.port() == 443 || address.is_ipv6());
        world.examine().await.finds_one("unreachable", 0, "refused", "[listen] federation = [\"0.0.0.0:8448\"]");
    });
}
