//! `gatehouse doctor` against real name servers and real broken set-ups, each in a network of its own.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;

use crate::edge::{patiently, program, signal_process};
use crate::own_network::{MATRIX, WEB, in_own_network};

mod apis;
mod authority;
mod certificates;
mod documents;
mod name_server;
mod names;
mod proxies;
mod site;

use authority::Authority;
use name_server::NameServer;
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

/// Asserts that nothing is wrong with `example.org` when a real edge serves it, with `upstream` behind it.
async fn a_real_edge_has_no_finding(upstream: impl FnOnce(&Path) -> String) {
    let world = World::new();
    let _name_server = NameServer::start(&world.records).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display();
    let issued = world.authority.issue(&["example.org", "matrix.example.org"]);
    std::fs::write(folder.path().join("chain.pem"), &issued.chain_pem).unwrap();
    std::fs::write(folder.path().join("key.pem"), &issued.key_pem).unwrap();
    let config = folder.path().join("edge.toml");
    let text = format!(
        "[server]\nname = \"example.org\"\nbase_url = \"https://matrix.example.org\"\n\
         federation_address = \"matrix.example.org:443\"\n\
         [listen]\nhttps = [\"[::]:443\"]\nfederation = [\"[::]:8448\"]\nhttp = [\"[::]:80\"]\n\
         [[tls.certificates]]\nchain = \"{path}/chain.pem\"\nkey = \"{path}/key.pem\"\n\
         [upstream]\ncluster_secret = \"0123456789abcdef0123456789abcdef\"\n{}\n",
        upstream(folder.path())
    );
    std::fs::write(&config, text).unwrap();
    let mut edge = program().args(["run", "--json", "--config"]).arg(&config).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(edge.stdout.take().unwrap()));
    patiently("the edge's start", lines.next_line()).await.unwrap().expect("the edge ended at once");
    let ca = world.authority.file().display().to_string();
    let arguments = ["--strict", "--ca", &ca, "--config", &config.display().to_string()].map(str::to_owned);
    doctor("example.org", &arguments).await.finds(&[], 0);
    signal_process(edge.id().unwrap(), "TERM");
    patiently("the edge's end", edge.wait()).await.unwrap();
}

#[test]
fn an_edge_has_no_finding() {
    let a_shard = |folder: &Path| {
        let socket = folder.join("shard.sock");
        let health = (gatehouse_shared::contract::HEALTH_PATH, Page::status(200));
        site::shard(&socket, pages().into_iter().chain([health]).collect());
        format!("shards = [\"unix:{}\"]", socket.display())
    };
    in_own_network(async { a_real_edge_has_no_finding(a_shard).await });
}

/// With the homeserver itself, where it is built: `make test` says where.
#[test]
fn a_whole_server_has_no_finding() {
    let programs = std::env::var_os("GATEHOUSE_TEST_PROGRAMS").map(PathBuf::from);
    let Some(program) = programs.map(|folder| folder.join("gatehouse-homeserver")).filter(|file| file.exists()) else {
        eprintln!("skipped: GATEHOUSE_TEST_PROGRAMS names no folder with gatehouse-homeserver");
        return;
    };
    let a_homeserver = |folder: &Path| {
        let path = folder.display();
        let homeserver = format!("server_name = \"example.org\"\ndata_folder = \"{path}/data\"\n");
        std::fs::write(folder.join("homeserver.toml"), homeserver).unwrap();
        format!(
            "[supervise]\nshards = 1\nprogram = \"{}\"\nconfig = \"{path}/homeserver.toml\"\n\
             socket_folder = \"{path}/sockets\"\n",
            program.display()
        )
    };
    in_own_network(async { a_real_edge_has_no_finding(a_homeserver).await });
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
