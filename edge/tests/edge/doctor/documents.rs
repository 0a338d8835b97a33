//! Well-known documents that mislead.

use super::World;
use super::site::{CLIENT_DOCUMENT, Page, SERVER_DOCUMENT};
use crate::own_network::in_own_network;

#[test]
fn a_document_for_servers_that_is_no_json() {
    in_own_network(async {
        let mut world = World::by_service(&["_matrix-fed._tcp IN SRV 10 5 8448 matrix"]);
        world = world.spoil_document(SERVER_DOCUMENT, Page::json("{\"m.server\":"));
        world.examine().await.finds_one("well-known-server-json", 1, "no JSON object", "federation_address");
    });
}

#[test]
fn a_document_for_servers_that_is_configured_and_not_there() {
    in_own_network(async {
        let mut world = World::by_service(&["_matrix-fed._tcp IN SRV 10 5 8448 matrix"]);
        world.config = Some("federation_address = \"matrix.example.org:443\"");
        world.examine().await.finds_one("well-known-server-missing", 1, "404", "federation_address");
    });
}

#[test]
fn a_document_for_servers_that_names_nobody() {
    in_own_network(async {
        let mut world = World::by_service(&["_matrix-fed._tcp IN SRV 10 5 8448 matrix"]);
        world = world.spoil_document(SERVER_DOCUMENT, Page::json(r#"{"m.server":"https://matrix.example.org"}"#));
        world.examine().await.finds_one("well-known-server-invalid", 1, "https://", "federation_address");
    });
}

#[test]
fn a_document_for_servers_that_a_network_in_front_made_up() {
    in_own_network(async {
        let page = Page::json(r#"{"m.server":"matrix.example.org:443"}"#).with("cf-ray", "1").with("age", "900");
        let mut world = World::new().spoil_document(SERVER_DOCUMENT, page);
        world.config = Some("federation_address = \"example.org:443\"");
        world.examine().await.finds_one("well-known-server-not-ours", 1, "Cloudflare answered, 900 seconds", "purge");
    });
}

#[test]
fn a_web_page_in_the_place_of_a_document() {
    in_own_network(async {
        let mut page = Page::json("<!doctype html><title>Welcome</title>");
        page.headers[0].1 = "text/html".to_owned();
        let world = World::by_service(&["_matrix-fed._tcp IN SRV 10 5 8448 matrix"]);
        let world = world.spoil_document(SERVER_DOCUMENT, page);
        world.examine().await.finds_one("well-known-server-page", 1, "web page", "federation_address");
    });
}

#[test]
fn redirects_in_a_circle() {
    in_own_network(async {
        let world = World::by_service(&["_matrix-fed._tcp IN SRV 10 5 8448 matrix"])
            .spoil_document(SERVER_DOCUMENT, Page::redirect("/elsewhere"))
            .spoil_document("/elsewhere", Page::redirect("https://example.org/.well-known/matrix/server"));
        world.examine().await.finds_one(
            "well-known-server-redirect-loop",
            1,
            "lead back to",
            "pass /.well-known/matrix/",
        );
    });
}

#[test]
fn a_document_that_is_too_large_to_be_one() {
    in_own_network(async {
        let world = World::by_service(&["_matrix-fed._tcp IN SRV 10 5 8448 matrix"]);
        let world =
            world.spoil_document(SERVER_DOCUMENT, Page::json(format!("{{\"m.server\":\"{}\"}}", "a".repeat(70_000))));
        world.examine().await.finds_one("well-known-server-too-large", 1, "larger than", "federation_address");
    });
}

#[test]
fn a_document_for_clients_that_browsers_may_not_read() {
    in_own_network(async {
        let mut page = Page::json(r#"{"m.homeserver":{"base_url":"https://matrix.example.org"}}"#);
        page.headers.pop();
        let world = World::new().spoil_document(CLIENT_DOCUMENT, page);
        world.examine().await.finds_one(
            "well-known-client-cors",
            1,
            "no Access-Control-Allow-Origin",
            "Access-Control-Allow-Origin: *",
        );
    });
}

#[test]
fn a_document_for_clients_that_leads_to_nobody() {
    in_own_network(async {
        let page = Page::json(r#"{"m.homeserver":{"base_url":"https://matrix.example.org:9"}}"#);
        let world = World::new().spoil_document(CLIENT_DOCUMENT, page);
        world.examine().await.finds_one("client-api-unreachable", 1, "refused", "base_url");
    });
}

#[test]
fn addresses_that_serve_different_documents() {
    in_own_network(async {
        let mut world = World::new();
        let page = Page::json(r#"{"m.server":"matrix.example.org"}"#);
        let mut stale = world.web.clone().page(SERVER_DOCUMENT, page);
        stale.listen = world.web.listen.split_off(1);
        stale.open().await;
        world.examine().await.finds_one("well-known-server-differs", 1, "different documents", "A and AAAA");
    });
}

#[test]
fn a_document_for_servers_that_leads_nowhere_new() {
    in_own_network(async {
        let world = World::by_service(&["_matrix-fed._tcp IN SRV 10 5 8448 matrix"]);
        let world = world.spoil_document(SERVER_DOCUMENT, Page::json(r#"{"m.server":"example.org"}"#));
        let report = world.examine().await;
        report.finds_one("well-known-server-to-itself", 0, "to itself", "federation_address");
        assert_eq!(report.json["route"]["step"], "3.3");
    });
}

#[test]
fn a_redirect_that_leads_out_of_tls() {
    in_own_network(async {
        let world = World::by_service(&["_matrix-fed._tcp IN SRV 10 5 8448 matrix"]);
        let world = world.spoil_document(SERVER_DOCUMENT, Page::redirect("http://matrix.example.org/"));
        world.examine().await.finds_one("well-known-server-redirects", 1, "out of TLS", "pass /.well-known/matrix/");
    });
}

#[test]
fn a_redirect_to_another_host_is_followed() {
    in_own_network(async {
        let mut world = World::new();
        let page = world.web.pages[SERVER_DOCUMENT].clone();
        world.matrix.pages.insert(SERVER_DOCUMENT, page);
        let to = "https://matrix.example.org/.well-known/matrix/server";
        world.spoil_document(SERVER_DOCUMENT, Page::redirect(to)).examine().await.finds(&[], 0);
    });
}

#[test]
fn a_network_in_front_that_does_not_pass_the_port_on() {
    in_own_network(async {
        let mut world = World::new();
        world.web = world.web.page(SERVER_DOCUMENT, Page::status(404).with("cf-ray", "1"));
        let report = world.examine().await;
        report.finds(&["cdn-port", "unreachable", "unreachable", "well-known-server-missing"], 1);
    });
}

#[test]
fn a_document_for_clients_that_is_no_json() {
    in_own_network(async {
        let world = World::new().spoil_document(CLIENT_DOCUMENT, Page::json("m.homeserver"));
        world.examine().await.finds_one("well-known-client-json", 1, "no JSON object", "base_url");
    });
}
