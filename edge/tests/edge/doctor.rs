//! `gatehouse doctor` against real name servers and real broken set-ups, each in a network of its own.

use std::collections::HashMap;
use std::process::Stdio;

use gatehouse_shared::clock::{Clock, SystemClock};
use serde_json::Value;

use crate::edge::{patiently, program};

mod authority;
mod name_server;
mod network;
mod site;

use authority::{Authority, DAY};
use name_server::NameServer;
use network::{MATRIX, WEB, in_own_network};
use site::{CLIENT_DOCUMENT, KEYS, Page, SERVER_DOCUMENT, Site, VERSION, VERSIONS, in_hours, key_document};

/// A server `example.org` whose documents are at one place and whose APIs are at another. Nothing is wrong with it, until a
/// test spoils something.
struct World {
    authority: Authority,
    records: Vec<String>,
    /// Serves the documents, at `example.org`.
    web: Site,
    /// Serves the APIs, at `matrix.example.org`.
    matrix: Site,
    /// Keys of `[server]` to compare with.
    config: Option<&'static str>,
}

fn pages() -> HashMap<&'static str, Page> {
    HashMap::from([
        (KEYS, Page::json(key_document("example.org", in_hours(24)))),
        (VERSION, Page::json(r#"{"server":{"name":"Test","version":"1"}}"#)),
        (VERSIONS, Page::json(r#"{"versions":["v1.11"]}"#)),
    ])
}

fn records(host: &str, addresses: [&str; 2]) -> [String; 2] {
    [format!("{host} IN A {}", addresses[0]), format!("{host} IN AAAA {}", addresses[1])]
}

impl World {
    fn new() -> Self {
        let authority = Authority::new("Test");
        let web = Site::at(&WEB, 443, authority.issue(&["example.org"]))
            .page(SERVER_DOCUMENT, Page::json(r#"{"m.server":"matrix.example.org:443"}"#))
            .page(CLIENT_DOCUMENT, Page::json(r#"{"m.homeserver":{"base_url":"https://matrix.example.org"}}"#));
        let matrix = Site { pages: pages(), ..Site::at(&MATRIX, 443, authority.issue(&["matrix.example.org"])) };
        let records = records("@", WEB).into_iter().chain(records("matrix", MATRIX)).collect();
        Self { authority, records, web, matrix, config: None }
    }

    /// Without a document for servers: service records lead to the APIs, at port 8448.
    fn by_service(records: &[&str]) -> Self {
        let mut world = Self::new();
        world.web.pages.remove(SERVER_DOCUMENT);
        let certificate = world.authority.issue(&["example.org"]);
        world.records.extend(records.iter().map(|record| (*record).to_owned()));
        world.matrix.certificate = world.authority.issue(&["example.org", "matrix.example.org"]);
        world.matrix.listen.extend(Site::at(&MATRIX, 8448, certificate).listen);
        world
    }

    fn spoil_api(mut self, path: &'static str, page: Page) -> Self {
        self.matrix = self.matrix.page(path, page);
        self
    }

    fn spoil_document(mut self, path: &'static str, page: Page) -> Self {
        self.web = self.web.page(path, page);
        self
    }

    async fn examine(&self) -> Report {
        let _name_server = NameServer::start(&self.records).await;
        self.web.open().await;
        self.matrix.open().await;
        self.ask("example.org").await
    }

    async fn ask(&self, name: &str) -> Report {
        let folder = tempfile::tempdir().unwrap();
        let mut arguments = vec!["--ca".to_owned(), self.authority.file().display().to_string()];
        if let Some(server) = self.config {
            let file = folder.path().join("edge.toml");
            let rest = "[upstream]\ncluster_secret = \"0123456789abcdef0123456789abcdef\"\nshards = [\"unix:/run/x.sock\"]\n\
                        [listen]\nhttp = [\"127.0.0.1:0\"]\n";
            std::fs::write(&file, format!("[server]\nname = \"example.org\"\n{server}\n{rest}")).unwrap();
            arguments.extend(["--config".to_owned(), file.display().to_string()]);
        }
        doctor(name, &arguments).await
    }
}

/// What the doctor told, as a script reads it.
struct Report {
    code: Option<i32>,
    json: Value,
}

async fn doctor(name: &str, arguments: &[String]) -> Report {
    let output = program()
        .args(["doctor", name, "--json", "--name-server", name_server::ADDRESS])
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output();
    let output = patiently("the doctor", output).await.unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    let json = serde_json::from_str(&told)
        .unwrap_or_else(|error| panic!("{error}: {told}{}", String::from_utf8_lossy(&output.stderr)));
    Report { code: output.status.code(), json }
}

impl Report {
    fn findings(&self) -> Vec<&Value> {
        let checks = self.json["checks"].as_array().unwrap().iter();
        checks.flat_map(|check| check["findings"].as_array().unwrap()).collect()
    }

    /// Asserts that just this was found, and that it says what to write where.
    #[track_caller]
    fn finds(&self, expected: &[&str], code: i32) {
        let mut ids: Vec<&str> = self.findings().iter().map(|finding| finding["id"].as_str().unwrap()).collect();
        ids.sort_unstable();
        assert_eq!((ids.as_slice(), self.code), (expected, Some(code)), "{:#}", self.json);
        for finding in self.findings() {
            for text in
                [&finding["at"], &finding["seen"], &finding["why"], &finding["mend"]["file"], &finding["mend"]["line"]]
            {
                assert!(text.as_str().is_some_and(|text| !text.is_empty()), "{finding}");
            }
        }
    }

    /// Asserts that one thing was found, and that it was seen and is mended like this.
    #[track_caller]
    fn finds_one(&self, id: &str, code: i32, seen: &str, mend: &str) {
        self.finds(&[id], code);
        let finding = self.findings()[0];
        assert!(finding["seen"].as_str().unwrap().contains(seen), "{finding:#}");
        assert!(finding["mend"]["line"].as_str().unwrap().contains(mend), "{finding:#}");
    }
}

#[test]
fn a_server_with_which_nothing_is_wrong_has_no_finding() {
    in_own_network(async {
        let report = World::new().examine().await;
        report.finds(&[], 0);
        assert_eq!(report.json["route"]["step"], "3.2");
        assert_eq!(report.json["route"]["targets"], serde_json::json!(["matrix.example.org:443"]));
    });
}

#[test]
fn a_server_that_is_found_by_service_records_has_no_finding() {
    in_own_network(async {
        let report = World::by_service(&["_matrix-fed._tcp IN SRV 10 5 8448 matrix"]).examine().await;
        report.finds(&[], 0);
        assert_eq!(report.json["route"]["step"], "4");
    });
}

mod names {
    use super::*;

    #[test]
    fn a_name_server_that_is_not_there() {
        in_own_network(async {
            let report = World::new().ask("example.org").await;
            let ids: Vec<_> = report.findings().iter().map(|finding| finding["id"].clone()).collect();
            assert!(ids.contains(&"dns-failed".into()) && report.code == Some(1), "{ids:?}");
        });
    }

    #[test]
    fn a_name_that_the_dns_does_not_know() {
        in_own_network(async {
            let world = World::new();
            let _name_server = NameServer::start(&world.records).await;
            let report = world.ask("nowhere.example.org").await;
            report.finds(
                &[
                    "dns-no-such-name",
                    "unreachable-everywhere",
                    "well-known-client-missing",
                    "well-known-server-missing",
                ],
                1,
            );
        });
    }

    #[test]
    fn a_delegated_name_without_addresses() {
        in_own_network(async {
            let mut world = World::new();
            world.records.truncate(2);
            world.records.push("matrix IN TXT nothing".to_owned());
            world.examine().await.finds(&["client-api-unreachable", "dns-no-address", "unreachable-everywhere"], 1);
        });
    }

    #[test]
    fn a_service_record_that_leads_to_an_alias() {
        in_own_network(async {
            let records = ["_matrix-fed._tcp IN SRV 10 5 8448 alias", "alias IN CNAME matrix"];
            let report = World::by_service(&records).examine().await;
            let mend = "_matrix-fed._tcp.example.org. 3600 IN SRV 10 5 8448 matrix.example.org.";
            report.finds_one("srv-alias", 1, "alias.example.org, is an alias (CNAME) of matrix.example.org", mend);
        });
    }

    #[test]
    fn a_service_record_that_leads_to_a_port_where_nobody_listens() {
        in_own_network(async {
            let report = World::by_service(&["_matrix-fed._tcp IN SRV 10 5 8449 matrix"]).examine().await;
            report.finds(&["unreachable", "unreachable", "well-known-server-missing"], 1);
            let mends: Vec<_> = report.findings().iter().map(|finding| finding["mend"]["line"].to_string()).collect();
            assert!(
                mends.iter().any(|line| line.contains("[listen] federation = [\\\"0.0.0.0:8449\\\"]")),
                "{mends:?}"
            );
        });
    }

    #[test]
    fn a_service_record_of_the_deprecated_name_alone() {
        in_own_network(async {
            let report = World::by_service(&["_matrix._tcp IN SRV 10 5 8448 matrix"]).examine().await;
            report.finds_one(
                "srv-deprecated",
                0,
                "only the deprecated",
                "_matrix-fed._tcp.example.org. 3600 IN SRV 10 5 8448",
            );
        });
    }

    #[test]
    fn a_service_record_that_says_there_is_no_service() {
        in_own_network(async {
            let report = World::by_service(&["_matrix-fed._tcp IN SRV 0 0 0 ."]).examine().await;
            report.finds(&["srv-none-offered", "unreachable-everywhere", "well-known-server-missing"], 1);
        });
    }
}

mod documents {
    use super::*;

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
            world.examine().await.finds_one(
                "well-known-server-not-ours",
                1,
                "Cloudflare answered, 900 seconds",
                "purge",
            );
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
            let world = world
                .spoil_document(SERVER_DOCUMENT, Page::json(format!("{{\"m.server\":\"{}\"}}", "a".repeat(70_000))));
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
}

mod certificates {
    use super::*;

    #[test]
    fn one_that_has_expired() {
        in_own_network(async {
            let mut world = World::new();
            let now = SystemClock.now();
            world.matrix.certificate =
                world.authority.issue_for(&["matrix.example.org"], now - 90 * DAY, now - 3 * DAY);
            world.examine().await.finds_one("tls-expired", 1, "3 days ago", "[[tls.certificates]]");
        });
    }

    #[test]
    fn one_that_should_have_been_renewed() {
        in_own_network(async {
            let mut world = World::new();
            let now = SystemClock.now();
            world.matrix.certificate =
                world.authority.issue_for(&["matrix.example.org"], now - 85 * DAY, now + 5 * DAY);
            world.examine().await.finds_one(
                "tls-expires-soon",
                0,
                "days",
                "renewed certificate for matrix.example.org",
            );
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
}

mod apis {
    use super::*;

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
    fn proxies_that_pass_requests_to_each_other() {
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
}

#[test]
fn a_running_edge_has_no_finding() {
    in_own_network(async {
        let world = World::new();
        let _name_server = NameServer::start(&world.records).await;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().display();
        let issued = world.authority.issue(&["example.org", "matrix.example.org"]);
        std::fs::write(folder.path().join("chain.pem"), &issued.chain_pem).unwrap();
        std::fs::write(folder.path().join("key.pem"), &issued.key_pem).unwrap();
        site::shard(&folder.path().join("shard.sock"), {
            let mut pages = pages();
            pages.insert(gatehouse_shared::contract::HEALTH_PATH, Page::status(200));
            pages
        });
        let config = folder.path().join("edge.toml");
        let text = format!(
            "[server]\nname = \"example.org\"\nbase_url = \"https://matrix.example.org\"\n\
             federation_address = \"matrix.example.org:443\"\n\
             [listen]\nhttps = [\"[::]:443\"]\nfederation = [\"[::]:8448\"]\nhttp = [\"[::]:80\"]\n\
             [[tls.certificates]]\nchain = \"{path}/chain.pem\"\nkey = \"{path}/key.pem\"\n\
             [upstream]\ncluster_secret = \"0123456789abcdef0123456789abcdef\"\nshards = [\"unix:{path}/shard.sock\"]\n"
        );
        std::fs::write(&config, text).unwrap();
        let mut edge =
            program().args(["run", "--json", "--config"]).arg(&config).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(edge.stdout.take().unwrap()));
        patiently("the edge's start", lines.next_line()).await.unwrap().expect("the edge ended at once");
        let ca = world.authority.file().display().to_string();
        let arguments = ["--strict", "--ca", &ca, "--config", &config.display().to_string()].map(str::to_owned);
        doctor("example.org", &arguments).await.finds(&[], 0);
    });
}

#[tokio::test]
async fn a_name_that_is_none_is_refused_without_asking_anybody() {
    let report = doctor("exa_mple.org", &[]).await;
    report.finds_one("name-invalid", 1, "'_'", "[server] name");
}

#[test]
fn a_person_reads_a_table_with_what_to_mend_below() {
    in_own_network(async {
        let mut world = World::new();
        world.matrix.certificate = world.authority.issue(&["other.example.org"]);
        let _name_server = NameServer::start(&world.records).await;
        world.web.open().await;
        world.matrix.open().await;
        let ca = world.authority.file();
        let output = program()
            .args(["doctor", "example.org", "--name-server", name_server::ADDRESS, "--ca"])
            .arg(ca)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .output();
        let output = patiently("the doctor", output).await.unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("  ok       name "), "{text}");
        assert!(text.contains("  error    certificates "), "{text}");
        assert!(text.contains("\nerror: tls-wrong-name\n  at    matrix.example.org at 192.0.2.2:443\n"), "{text}");
        assert!(text.contains("  mend  edge.toml: [[tls.certificates]] chain"), "{text}");
        assert!(output.stderr.is_empty());
    });
}
