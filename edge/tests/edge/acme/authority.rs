//! Real authorities and name servers: pebble, its challenge test server, and BIND.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::edge::patiently;

/// A port of 127.0.0.1 that nothing uses. It lies below those that the system hands out, so that nobody gets it between
/// this look and its use.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 10_000 + (std::process::id() as u16 % 200) * 100 + step % 100;
        let address = (Ipv4Addr::LOCALHOST, port);
        if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
            return port;
        }
    }
}

pub(crate) fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// An authority for the test's own servers, with a certificate for 127.0.0.1.
pub(crate) struct TestCa {
    pub(crate) issuer: CertifiedIssuer<'static, KeyPair>,
    pub(crate) file: PathBuf,
    pub(crate) chain: PathBuf,
    pub(crate) key: PathBuf,
}

impl TestCa {
    pub(crate) fn new(folder: &Path) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
        let chain = params.signed_by(&key, &issuer).unwrap();
        let file = |name: &str, text: String| {
            let path = folder.join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        Self {
            file: file("test-ca.pem", issuer.pem()),
            chain: file("test-chain.pem", chain.pem()),
            key: file("test-key.pem", key.serialize_pem()),
            issuer,
        }
    }
}

/// What a test wants of pebble.
#[derive(Default)]
pub(crate) struct Pebble {
    /// Where it asks for HTTP-01.
    pub(crate) http_port: u16,
    /// Where it asks for TLS-ALPN-01.
    pub(crate) tls_port: u16,
    /// The name server that it asks.
    pub(crate) dns_port: u16,
    /// Where it listens; 0: anywhere.
    pub(crate) port: u16,
    /// How long certificates live, in seconds; 0: years.
    pub(crate) lifetime: u64,
    /// Accounts must be bound to one of these keys.
    pub(crate) external_accounts: &'static [(&'static str, &'static str)],
}

/// A running pebble.
pub(crate) struct Authority {
    pub(crate) process: Child,
    pub(crate) directory: String,
    /// The roots of its own HTTPS.
    pub(crate) ca_root: PathBuf,
    management: SocketAddr,
    folder: TempDir,
}

impl Pebble {
    pub(crate) async fn start(self) -> Authority {
        let folder = tempfile::tempdir().unwrap();
        let ca = TestCa::new(folder.path());
        let port = if self.port == 0 { free_port() } else { self.port };
        let management = local(free_port());
        let mut settings = serde_json::json!({
            "listenAddress": local(port),
            "managementListenAddress": management,
            "certificate": ca.chain,
            "privateKey": ca.key,
            "httpPort": self.http_port,
            "tlsPort": self.tls_port,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": !self.external_accounts.is_empty(),
            "externalAccountMACKeys": std::collections::BTreeMap::from_iter(self.external_accounts.iter().copied()),
        });
        if self.lifetime > 0 {
            settings["certificateValidityPeriod"] = self.lifetime.into();
        }
        let file = folder.path().join("pebble.json");
        std::fs::write(&file, serde_json::json!({ "pebble": settings }).to_string()).unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let process = Command::new("pebble")
            .args(["-strict", "-config"])
            .arg(&file)
            .args(["-dnsserver", &local(self.dns_port).to_string()])
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env("PEBBLE_WFE_NONCEREJECT", "5")
            .env("PEBBLE_AUTHZREUSE", "0")
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("pebble is installed by homeserver/tests/interop/setup.sh");
        listens(local(port)).await;
        listens(management).await;
        let directory = format!("https://{}/dir", local(port));
        Authority { process, directory, ca_root: ca.file, management, folder }
    }
}

impl Authority {
    /// What it signs certificates with, for clients to trust.
    pub(crate) async fn root(&self) -> PathBuf {
        let root = self.folder.path().join("root.pem");
        std::fs::write(&root, https_get(self.management, &self.ca_root, "/roots/0").await).unwrap();
        root
    }

    /// Lines for `[[tls.acme.authorities]]`.
    pub(crate) fn config(&self) -> String {
        format!("[[tls.acme.authorities]]\ndirectory = {:?}\nca_root = {:?}\n", self.directory, self.ca_root)
    }
}

async fn https_get(address: SocketAddr, ca: &Path, target: &str) -> Vec<u8> {
    let mut connection = crate::client::Connection::http1_as(address, ca, "localhost").await;
    let answer = connection.send(crate::client::request("GET", target, "")).await.unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body.to_vec()
}

/// Waits until something listens.
pub(crate) async fn listens(address: SocketAddr) {
    patiently("a listener", async {
        while TcpStream::connect(address).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// pebble's challenge test server, as a name server that knows every name and says 127.0.0.1.
pub(crate) struct NameServer {
    pub(crate) port: u16,
    pub(crate) management: SocketAddr,
    _process: Child,
}

impl NameServer {
    pub(crate) async fn start() -> Self {
        let (port, management) = (free_port(), local(free_port()));
        let process = Command::new("pebble-challtestsrv")
            .args(["-dns01", &local(port).to_string(), "-management", &management.to_string()])
            .args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv6", ""])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("pebble-challtestsrv is installed by homeserver/tests/interop/setup.sh");
        listens(management).await;
        Self { port, management, _process: process }
    }
}

/// BIND with one zone that takes updates signed with one key.
pub(crate) struct Bind {
    pub(crate) port: u16,
    _process: Child,
    _folder: TempDir,
}

pub(crate) const TSIG_KEY: &str = "bm90IGEgc2VjcmV0LCBidXQgMzIgYnl0ZXMgbG9uZyE=";

impl Bind {
    pub(crate) async fn start(zone: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let path = folder.path().display();
        let records = format!(
            "$TTL 1\n@ SOA ns admin 1 60 60 60 1\n@ NS ns\n@ A 127.0.0.1\nns A 127.0.0.1\n* A 127.0.0.1\n; {zone}\n"
        );
        std::fs::write(folder.path().join("zone"), records).unwrap();
        let config = format!(
            "options {{ directory \"{path}\"; pid-file none; session-keyfile \"{path}/session.key\"; recursion no;\n\
             listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }}; dnssec-validation no; }};\n\
             controls {{ }};\n\
             key \"gatehouse\" {{ algorithm hmac-sha256; secret \"{TSIG_KEY}\"; }};\n\
             zone \"{zone}\" {{ type primary; file \"zone\"; allow-update {{ key gatehouse; }}; }};\n"
        );
        std::fs::write(folder.path().join("named.conf"), config).unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let process =
            Command::new(["/usr/sbin/named", "named"].iter().find(|path| Path::new(path).exists()).unwrap_or(&"named"))
                .args(["-g", "-n", "1", "-c"])
                .arg(folder.path().join("named.conf"))
                .stdout(Stdio::null())
                .stderr(log)
                .kill_on_drop(true)
                .spawn()
                .expect("bind9 is installed by homeserver/tests/interop/setup.sh");
        listens(local(port)).await;
        Self { port, _process: process, _folder: folder }
    }

    /// The texts that it has of a name.
    pub(crate) async fn texts(&self, name: &str) -> String {
        let asked = Command::new("dig")
            .args(["@127.0.0.1", "-p", &self.port.to_string(), "+short", "+tcp", "TXT", name])
            .output()
            .await
            .expect("bind9-dnsutils is installed by homeserver/tests/interop/setup.sh");
        String::from_utf8(asked.stdout).unwrap()
    }
}
