//! Certificates by ACME, from real authorities and with real name servers.

mod authority;
mod double;
mod renewal;

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::client::{Answer, Connection, request};
use crate::double::{SECRET, Shard};
use crate::edge::{Edge, patiently, program, socket};
use authority::{Bind, NameServer, Pebble, TSIG_KEY, free_port, local};

/// Where the edge of a test will listen; the authority must know before.
struct Place {
    folder: TempDir,
    https: u16,
    http: u16,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), https: free_port(), http: free_port() }
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// The configuration with these entries of `[[tls.acme]]`.
    fn config(&self, acme: &str) -> String {
        format!(
            "[server]\nname = \"example.test\"\n\
             [listen]\nhttps = [\"{https}\"]\nhttp = [\"{http}\"]\n\
             [upstream]\ncluster_secret = \"{SECRET}\"\nhealth_interval_ms = 200\nshards = [\"unix:{shard}\"]\n\
             [telemetry]\nmetrics_address = \"127.0.0.1:0\"\n\
             [control]\nsocket = {control:?}\n[tls]\nstate_folder = {state:?}\n{acme}",
            https = local(self.https),
            http = local(self.http),
            shard = socket(self.folder.path(), 0).display(),
            control = self.folder.path().join("control/control.sock"),
            state = self.state(),
        )
    }

    /// Starts the edge, which does not wait for any authority.
    async fn start(self, acme: &str) -> Edge {
        let shards = vec![Shard::start(&socket(self.folder.path(), 0), "shard 0")];
        let config = self.config(acme);
        Edge::launch(self.folder, shards, &config).await
    }
}

/// The certificate that is served under `name`, whoever signed it.
async fn served(address: SocketAddr, name: &str) -> Vec<u8> {
    let seen = crate::tls::look(address, Some(name)).await.unwrap();
    seen.certificate.to_vec()
}

fn issuer(der: &[u8]) -> String {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).unwrap();
    certificate.issuer().to_string()
}

/// Waits until a certificate that pebble signed is served under `name`, and answers with it.
async fn certified(edge: &Edge, name: &str) -> Vec<u8> {
    patiently("the certificate", async {
        loop {
            let certificate = served(edge.https, name).await;
            if issuer(&certificate).contains("Pebble") {
                return certificate;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
}

async fn ask(edge: &Edge, root: &Path, name: &str) -> Answer {
    let mut connection = Connection::http1_as(edge.https, root, name).await;
    connection.send(request("GET", "/_matrix/client/versions", "")).await.unwrap()
}

async fn certs(edge: &Edge) -> serde_json::Value {
    let config = edge.folder.path().join("edge.toml");
    let output = program().args(["certs", "--json", "--config"]).arg(config).output().await.unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    report["certificates"].clone()
}

async fn metric(edge: &Edge, name: &str) -> f64 {
    let metrics = edge.private("/metrics").await;
    // A series is there once it was counted.
    let line = metrics.lines().find(|line| line.starts_with(name));
    line.map_or(0.0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
}

#[tokio::test]
async fn http_01_brings_one_certificate_for_several_names() {
    let (place, names) = (Place::new(), NameServer::start().await);
    let pebble = Pebble { http_port: place.http, dns_port: names.port, ..Pebble::default() }.start().await;
    let acme = format!(
        "[[tls.acme]]\nnames = [\"example.test\", \"matrix.example.test\"]\nagree_to_terms = true\n\
         contact = [\"mailto:admin@example.test\"]\n{}",
        pebble.config()
    );
    let edge = place.start(&acme).await;
    certified(&edge, "example.test").await;
    let root = pebble.root().await;
    for name in ["example.test", "matrix.example.test"] {
        assert_eq!(ask(&edge, &root, name).await.status, 200);
    }
    let listed = certs(&edge).await;
    assert_eq!(listed[0]["source"], "acme");
    assert_eq!(listed[0]["challenge"], "http-01");
    assert_eq!(listed[0]["authority"], pebble.directory);
    assert_eq!(listed[0]["is_valid"], true);
    assert_eq!(listed.as_array().unwrap().len(), 1);
    let expiry =
        metric(&edge, "gatehouse_edge_certificate_expiry_seconds{certificate=\"example.test\",source=\"acme\"}");
    assert_eq!(Some(expiry.await), listed[0]["not_after"].as_f64());
    assert_eq!(metric(&edge, "gatehouse_edge_acme_orders_total{certificate=\"example.test\"}").await, 1.0);
    everything_is_private(&edge.folder.path().join("state"));
    // No challenge is left, and the other paths are redirected as ever.
    assert!(!edge.log().contains("panicked"), "{}", edge.log());
}

fn everything_is_private(folder: &Path) {
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(folder), 0o700, "{}", folder.display());
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            everything_is_private(&path);
        } else {
            assert_eq!(mode(&path), 0o600, "{}", path.display());
        }
    }
}

#[tokio::test]
async fn tls_alpn_01_needs_no_port_80() {
    let (mut place, names) = (Place::new(), NameServer::start().await);
    place.http = free_port();
    let pebble = Pebble { tls_port: place.https, dns_port: names.port, ..Pebble::default() }.start().await;
    let acme = format!("[[tls.acme]]\nchallenge = \"tls-alpn-01\"\nagree_to_terms = true\n{}", pebble.config());
    let edge = place.start(&acme).await;
    certified(&edge, "example.test").await;
    assert_eq!(ask(&edge, &pebble.root().await, "example.test").await.status, 200);
    // Nobody else can have the challenge's protocol spoken to him.
    let refused = crate::tls::look_with(edge.https, Some("example.test"), &[b"acme-tls/1"]).await;
    assert!(refused.unwrap_err().contains("UnrecognisedName"));
}

#[tokio::test]
async fn dns_01_by_update_brings_a_wildcard_and_cleans_up() {
    let place = Place::new();
    let bind = Bind::start("example.test").await;
    let pebble = Pebble { dns_port: bind.port, ..Pebble::default() }.start().await;
    let update = |key: &str| {
        format!(
            "[[tls.acme]]\nnames = [\"example.test\", \"*.example.test\"]\nchallenge = \"dns-01\"\nagree_to_terms = true\n\
             {}[tls.acme.dns]\nvisible_at = [\"{server}\"]\n\
             [tls.acme.dns.rfc2136]\nserver = \"{server}\"\nzone = \"example.test\"\nkey_name = \"gatehouse\"\nkey = {key:?}\n",
            pebble.config(),
            server = local(bind.port),
        )
    };
    let edge = place.start(&update(TSIG_KEY)).await;
    certified(&edge, "example.test").await;
    let root = pebble.root().await;
    for name in ["example.test", "anything.example.test"] {
        assert_eq!(ask(&edge, &root, name).await.status, 200);
    }
    assert_eq!(bind.texts("_acme-challenge.example.test").await, "");
    drop(edge);

    // A key that the name server does not know is told as such, and does not reach the authority.
    let edge = Place::new().start(&update("d3Jvbmc=")).await;
    patiently("the refusal", async {
        while !edge.log().contains("answers Not Auth") && !edge.log().contains("answers ") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(certs(&edge).await[0]["problem"].as_str().unwrap().contains("cannot set up dns-01 for example.test"));
}

#[tokio::test]
async fn dns_01_by_hook_sets_and_deletes() {
    let (place, names) = (Place::new(), NameServer::start().await);
    let pebble = Pebble { dns_port: names.port, ..Pebble::default() }.start().await;
    let hook = place.folder.path().join("hook.py");
    let calls = place.folder.path().join("calls");
    let script = format!(
        "import json, sys, urllib.request\n\
         action, name, value = sys.argv[2:]\n\
         body = {{'host': name, 'value': value}}\n\
         path = {{'present': 'set-txt', 'cleanup': 'clear-txt'}}[action]\n\
         request = urllib.request.Request('http://{}/' + path, json.dumps(body).encode())\n\
         urllib.request.urlopen(request).read()\n\
         open({calls:?}, 'a').write(sys.argv[1] + ' ' + action + ' ' + name + '\\n')\n",
        names.management
    );
    std::fs::write(&hook, script).unwrap();
    let acme = format!(
        "[[tls.acme]]\nchallenge = \"dns-01\"\nagree_to_terms = true\n{}\
         [tls.acme.dns]\nhook = [\"python3\", {hook:?}, \"--zone=test\"]\n",
        pebble.config()
    );
    let edge = place.start(&acme).await;
    certified(&edge, "example.test").await;
    assert_eq!(
        std::fs::read_to_string(calls).unwrap(),
        "--zone=test present _acme-challenge.example.test.\n--zone=test cleanup _acme-challenge.example.test.\n"
    );
}

#[tokio::test]
async fn several_certificates_are_kept_and_survive_a_restart() {
    let (place, names) = (Place::new(), NameServer::start().await);
    let pebble = Pebble { http_port: place.http, tls_port: place.https, dns_port: names.port, ..Pebble::default() };
    let mut pebble = pebble.start().await;
    let acme = format!(
        "[[tls.acme]]\nnames = [\"a.test\"]\nagree_to_terms = true\n{authority}\
         [[tls.acme]]\nnames = [\"b.test\"]\nchallenge = \"tls-alpn-01\"\nagree_to_terms = true\n{authority}",
        authority = pebble.config()
    );
    let mut edge = place.start(&acme).await;
    let first = certified(&edge, "a.test").await;
    let other = certified(&edge, "b.test").await;
    assert_ne!(first, other);
    edge.signal("TERM");
    assert!(edge.ended().await.success());
    // The authority is gone: what was issued serves from the first handshake on.
    pebble.process.kill().await.unwrap();
    let config = std::fs::read_to_string(edge.folder.path().join("edge.toml")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let again = Edge::launch(folder, Vec::new(), &config).await;
    assert_eq!(served(again.https, "a.test").await, first);
    assert_eq!(served(again.https, "b.test").await, other);
    assert!(crate::tls::look(again.https, Some("c.test")).await.unwrap_err().contains("UnrecognisedName"));
}

#[tokio::test]
async fn an_external_account_is_bound() {
    const KEY: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let (place, names) = (Place::new(), NameServer::start().await);
    let pebble = Pebble {
        http_port: place.http,
        dns_port: names.port,
        external_accounts: &[("kid-1", KEY)],
        ..Pebble::default()
    };
    let pebble = pebble.start().await;
    let bound = |kid: &str| {
        format!(
            "[[tls.acme]]\nagree_to_terms = true\n{}[tls.acme.authorities.external_account]\n\
             kid = {kid:?}\nhmac_key = \"{KEY}\"\n",
            pebble.config()
        )
    };
    let edge = place.start(&bound("kid-1")).await;
    certified(&edge, "example.test").await;
    assert!(!edge.log().contains(KEY));
    drop(edge);
    let edge = Place::new().start(&bound("kid-2")).await;
    patiently("the refusal", async {
        while !edge.log().contains("the authority refuses") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_name_that_cannot_be_verified_leaves_the_old_certificate_and_says_why() {
    let (place, names) = (Place::new(), NameServer::start().await);
    // The authority looks where nobody listens.
    let pebble = Pebble { http_port: free_port(), dns_port: names.port, ..Pebble::default() }.start().await;
    let edge = place.start(&format!("[[tls.acme]]\nagree_to_terms = true\n{}", pebble.config())).await;
    patiently("the failure", async {
        while metric(&edge, "gatehouse_edge_acme_order_failures_total").await < 1.0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let told = patiently("the report", async {
        loop {
            if let Some(problem) = certs(&edge).await[0]["problem"].as_str().filter(|told| told.contains("verify")) {
                return problem.to_owned();
            }
        }
    })
    .await;
    assert!(told.contains("could not verify example.test by http-01") && told.contains("refused"), "{told}");
    assert!(issuer(&served(edge.https, "example.test").await).contains("not yet certified"));
    let listed = certs(&edge).await;
    assert_eq!(listed[0]["source"], "self-signed");
    assert!(listed[0]["next_attempt"].as_u64().is_some());
    let human = program().args(["certs", "--config"]).arg(edge.folder.path().join("edge.toml")).output().await.unwrap();
    assert_eq!(human.status.code(), Some(1));
    assert!(String::from_utf8(human.stdout).unwrap().contains("next try"));
}

#[tokio::test]
async fn a_start_does_not_wait_for_an_authority_and_uses_it_once_it_is_there() {
    let (place, names, port) = (Place::new(), NameServer::start().await, free_port());
    let unborn = tempfile::tempdir().unwrap();
    // The edge knows the authority by its directory and trusts what the test will sign.
    let (http_port, dns_port) = (place.http, names.port);
    let roots = unborn.path().join("roots.pem");
    authority::TestCa::new(unborn.path());
    std::fs::copy(unborn.path().join("test-ca.pem"), &roots).unwrap();
    let acme = format!(
        "[[tls.acme]]\nagree_to_terms = true\n[[tls.acme.authorities]]\ndirectory = \"https://{}/dir\"\nca_root = {roots:?}\n",
        local(port)
    );
    let started = std::time::Instant::now();
    let edge = place.start(&acme).await;
    assert!(started.elapsed() < Duration::from_secs(10));
    assert!(issuer(&served(edge.https, "example.test").await).contains("not yet certified"));
    patiently("the failure", async {
        while !edge.log().contains("the authority cannot be spoken to") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let pebble = Pebble { http_port, dns_port, port, ..Pebble::default() }.start().await;
    // The roots are read anew for each order.
    std::fs::copy(&pebble.ca_root, &roots).unwrap();
    certified(&edge, "example.test").await;
}

#[tokio::test]
async fn a_second_authority_stands_in_for_the_first() {
    let (place, names) = (Place::new(), NameServer::start().await);
    let pebble = Pebble { http_port: place.http, dns_port: names.port, ..Pebble::default() }.start().await;
    let acme = format!(
        "[[tls.acme]]\nagree_to_terms = true\n[[tls.acme.authorities]]\ndirectory = \"https://{}/dir\"\nca_root = {:?}\n{}",
        local(free_port()),
        pebble.ca_root,
        pebble.config()
    );
    let edge = place.start(&acme).await;
    tokio::time::timeout(Duration::from_secs(90), async {
        while !issuer(&served(edge.https, "example.test").await).contains("Pebble") {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await
    .expect("the second authority is never asked");
    assert_eq!(edge.log().matches("no certificate was issued").count(), 3, "{}", edge.log());
    let listed = certs(&edge).await;
    assert_eq!(listed[0]["authority"], pebble.directory);
    assert!(listed[0]["problem"].is_null());
}
