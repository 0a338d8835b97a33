use std::sync::atomic::{AtomicUsize, Ordering};

use axum::{Router, response::IntoResponse, routing::get};
use gatehouse_shared::clock::TurnedClock;
use ruma::server_name;

use super::*;
use crate::remote::testing::{TestAuthority, TestDns};

struct Fixture {
    discovery: Discovery,
    clock: Arc<TurnedClock>,
    fetches: Arc<AtomicUsize>,
}

/// All names lead to loopback; `wk-*` hosts serve a well-known document that names what the test says.
async fn fixture(document: &'static str, headers: &'static [(&'static str, &'static str)]) -> Fixture {
    let authority = TestAuthority::new();
    let fetches = Arc::new(AtomicUsize::new(0));
    let counted = fetches.clone();
    let serve = move || {
        counted.fetch_add(1, Ordering::SeqCst);
        async move {
            let mut response = document.into_response();
            for (name, value) in headers {
                response.headers_mut().insert(*name, value.parse().unwrap());
            }
            response
        }
    };
    let router = Router::new().route("/.well-known/matrix/server", get(serve));
    let https = authority.serve(&["wk.test"], router).await;
    let dns = TestDns::new()
        .address("wk.test", [127, 0, 0, 1])
        .address("plain.test", [127, 0, 0, 2])
        .address("fed.test", [127, 0, 0, 3])
        .address("old.test", [127, 0, 0, 4])
        .address("target-a.test", [127, 0, 0, 5])
        .address("target-b.test", [127, 0, 0, 6])
        .address("delegated.test", [127, 0, 0, 7])
        .address("inside.test", [10, 0, 0, 1])
        .address("gone.test", [127, 0, 0, 8])
        .service("_matrix-fed._tcp.fed.test", 20, 1002, "target-b.test.")
        .service("_matrix-fed._tcp.fed.test", 10, 1001, "target-a.test.")
        .service("_matrix._tcp.fed.test", 1, 9, "old.test.")
        .service("_matrix._tcp.old.test", 1, 2001, "target-a.test.")
        .service("_matrix-fed._tcp.delegated.test", 1, 3001, "target-b.test.")
        .service("_matrix-fed._tcp.gone.test", 0, 0, ".")
        .serve()
        .await;
    let config = authority.config();
    let dns = Dns::new(&[dns], config.allowed_private_addresses.clone()).unwrap();
    let tls = crate::remote::client::tls_config(&config.extra_ca_files).unwrap();
    let clock = Arc::new(TurnedClock::at_ms(1_700_000_000_000));
    let discovery = Discovery::at_port(https.port(), dns, tls, clock.clone()).unwrap();
    Fixture { discovery, clock, fetches }
}

async fn found(discovery: &Discovery, server_name: &str) -> (String, String, Vec<String>) {
    let route = discovery.find(server_name.try_into().unwrap()).await.unwrap();
    (route.host, route.tls_name, route.addresses.iter().map(ToString::to_string).collect())
}

fn expected(host: &str, tls_name: &str, addresses: &[&str]) -> (String, String, Vec<String>) {
    (host.to_owned(), tls_name.to_owned(), addresses.iter().map(|address| (*address).to_owned()).collect())
}

#[tokio::test]
async fn each_step_of_the_specification_leads_where_it_says() {
    let Fixture { discovery, .. } = fixture("{}", &[]).await;
    let cases = [
        // 1: literals.
        ("127.0.0.9", expected("127.0.0.9", "127.0.0.9", &["127.0.0.9:8448"])),
        ("127.0.0.9:77", expected("127.0.0.9:77", "127.0.0.9", &["127.0.0.9:77"])),
        // 2: an explicit port asks neither the document nor the services.
        ("fed.test:77", expected("fed.test:77", "fed.test", &["127.0.0.3:77"])),
        // 4: services, in order of priority.
        ("fed.test", expected("fed.test", "fed.test", &["127.0.0.5:1001", "127.0.0.6:1002"])),
        // 5: services under the old name.
        ("old.test", expected("old.test", "old.test", &["127.0.0.5:2001"])),
        // 6: the host itself.
        ("plain.test", expected("plain.test", "plain.test", &["127.0.0.2:8448"])),
        // An invalid document counts as none.
        ("wk.test", expected("wk.test", "wk.test", &["127.0.0.1:8448"])),
    ];
    for (server_name, expected) in cases {
        assert_eq!(found(&discovery, server_name).await, expected, "{server_name}");
    }
}

#[tokio::test]
async fn each_form_of_delegation_leads_where_it_says() {
    let cases = [
        (r#"{"m.server":"127.0.0.9"}"#, expected("127.0.0.9", "127.0.0.9", &["127.0.0.9:8448"])),
        (r#"{"m.server":"127.0.0.9:5"}"#, expected("127.0.0.9:5", "127.0.0.9", &["127.0.0.9:5"])),
        (r#"{"m.server":"delegated.test:5"}"#, expected("delegated.test:5", "delegated.test", &["127.0.0.7:5"])),
        (r#"{"m.server":"delegated.test"}"#, expected("delegated.test", "delegated.test", &["127.0.0.6:3001"])),
        (r#"{"m.server":"old.test"}"#, expected("old.test", "old.test", &["127.0.0.5:2001"])),
        (r#"{"m.server":"plain.test"}"#, expected("plain.test", "plain.test", &["127.0.0.2:8448"])),
    ];
    for (document, expected) in cases {
        let Fixture { discovery, .. } = fixture(document, &[]).await;
        assert_eq!(found(&discovery, "wk.test").await, expected, "{document}");
    }
}

#[tokio::test]
async fn private_addresses_and_missing_services_are_refused() {
    let Fixture { discovery, .. } = fixture("{}", &[]).await;
    for server_name in
        ["10.0.0.1", "10.0.0.1:8448", "[::1]", "inside.test", "inside.test:8448", "unknown.test", "gone.test"]
    {
        assert!(discovery.find(server_name.try_into().unwrap()).await.is_err(), "{server_name}");
    }
}

#[tokio::test]
async fn a_document_holds_as_long_as_it_says_within_bounds() {
    let hour = Duration::from_secs(3600);
    let minute = Duration::from_secs(60);
    let cases: [(&'static [(&str, &str)], Duration); 5] = [
        (&[], 24 * hour),
        (&[("cache-control", "public, max-age=7200")], 2 * hour),
        (&[("cache-control", "max-age=99999999")], 48 * hour),
        (&[("cache-control", "no-store")], 5 * minute),
        (&[("expires", "0")], 5 * minute),
    ];
    for (headers, holds) in cases {
        let Fixture { discovery, clock, fetches } = fixture(r#"{"m.server":"plain.test:1"}"#, headers).await;
        let wk = server_name!("wk.test");
        discovery.find(wk).await.unwrap();
        clock.advance(holds - Duration::from_secs(1));
        discovery.forget(wk);
        discovery.find(wk).await.unwrap();
        assert_eq!(fetches.load(Ordering::SeqCst), 1, "{headers:?}");
        clock.advance(Duration::from_secs(1));
        discovery.forget(wk);
        discovery.find(wk).await.unwrap();
        assert_eq!(fetches.load(Ordering::SeqCst), 2, "{headers:?}");
    }
}

#[tokio::test]
async fn the_absence_of_a_document_is_believed_longer_each_time() {
    let Fixture { discovery, clock, fetches } = fixture("no document", &[]).await;
    let wk = server_name!("wk.test");
    discovery.find(wk).await.unwrap();
    for (failures, believed) in [(1, 60), (2, 120), (3, 240), (4, 480), (5, 960), (6, 1920), (7, 3600), (8, 3600)] {
        clock.advance(Duration::from_secs(believed - 1));
        discovery.forget(wk);
        discovery.find(wk).await.unwrap();
        assert_eq!(fetches.load(Ordering::SeqCst), failures);
        clock.advance(Duration::from_secs(1));
        discovery.forget(wk);
        discovery.find(wk).await.unwrap();
        assert_eq!(fetches.load(Ordering::SeqCst), failures + 1);
    }
}
