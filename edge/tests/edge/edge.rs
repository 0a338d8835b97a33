//! The edge under test: the real program with a configuration of the test's own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::client::{Answer, Connection, request};
use crate::double::{SECRET, Shard};

/// Nothing in these tests takes this long unless it is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) async fn patiently<F: Future>(what: &str, future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what} takes forever"))
}

/// What a test changes about the configuration.
#[derive(Default)]
pub(crate) struct Options<'a> {
    /// Lines for `[listen]`.
    pub(crate) listen: &'a str,
    /// Lines for `[upstream]`.
    pub(crate) upstream: &'a str,
    /// Lines for `[limits]`.
    pub(crate) limits: &'a str,
    /// Further sections.
    pub(crate) sections: &'a str,
    /// Variables of the edge's environment.
    pub(crate) environment: &'a [(&'a str, &'a str)],
    /// The address of a further shard.
    pub(crate) also_shard: Option<SocketAddr>,
    /// How many shards in this process.
    pub(crate) shards: usize,
}

/// A running edge with its shards.
pub(crate) struct Edge {
    pub(crate) folder: TempDir,
    pub(crate) process: Child,
    pub(crate) https: SocketAddr,
    pub(crate) federation: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) internal: SocketAddr,
    pub(crate) metrics: SocketAddr,
    pub(crate) ca: PathBuf,
    pub(crate) shards: Vec<Arc<Shard>>,
}

pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gatehouse"));
    command.kill_on_drop(true);
    command
}

pub(crate) fn socket(folder: &Path, shard: usize) -> PathBuf {
    folder.join(format!("shard-{shard}.sock"))
}

impl Edge {
    /// An edge with one shard.
    pub(crate) async fn start() -> Self {
        Self::with(Options { shards: 1, ..Options::default() }).await
    }

    pub(crate) async fn with(options: Options<'_>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let shards = (0..options.shards)
            .map(|shard| Shard::start(&socket(folder.path(), shard), &format!("shard {shard}")))
            .collect();
        Self::in_folder(folder, shards, options).await
    }

    pub(crate) async fn in_folder(folder: TempDir, shards: Vec<Arc<Shard>>, options: Options<'_>) -> Self {
        let own = (0..options.shards).map(|shard| format!("unix:{}", socket(folder.path(), shard).display()));
        let sockets: Vec<String> = own.chain(options.also_shard.map(|address| address.to_string())).collect();
        let Options { listen, upstream, limits, sections, environment, .. } = options;
        let config = format!(
            "[server]\nname = \"localhost\"\nbase_url = \"https://matrix.localhost:8443\"\n\
             federation_address = \"matrix.localhost:443\"\n\
             [listen]\nhttps = [\"127.0.0.1:0\"]\nfederation = [\"127.0.0.1:0\"]\nhttp = [\"127.0.0.1:0\"]\n{listen}\n\
             [tls.development_ca]\nfolder = \"{folder}/ca\"\n\
             [upstream]\ncluster_secret = \"{SECRET}\"\nhealth_interval_ms = 200\nshards = {sockets:?}\n{upstream}\n\
             [control]\nsocket = \"{folder}/control/control.sock\"\n\
             [limits]\n{limits}\n[telemetry]\nmetrics_address = \"127.0.0.1:0\"\n{sections}\n",
            folder = folder.path().display(),
        );
        Self::launch_with(folder, shards, &config, environment).await
    }

    /// An edge with a configuration of the test's own.
    pub(crate) async fn launch(folder: TempDir, shards: Vec<Arc<Shard>>, config: &str) -> Self {
        Self::launch_with(folder, shards, config, &[]).await
    }

    async fn launch_with(folder: TempDir, shards: Vec<Arc<Shard>>, config: &str, environment: &[(&str, &str)]) -> Self {
        let file = folder.path().join("edge.toml");
        std::fs::write(&file, config).unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let mut process = program()
            .envs(environment.iter().copied())
            .arg("run")
            .arg("--json")
            .arg("--config")
            .arg(&file)
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let line = patiently("the edge's start", lines.next_line()).await.unwrap().expect("the edge ended at once");
        let listening = serde_json::from_str::<serde_json::Value>(&line).unwrap()["listening"].clone();
        let first = |kind: &str| listening[kind][0].as_str().unwrap_or("0.0.0.0:0").parse().unwrap();
        let edge = Self {
            process,
            https: first("https"),
            federation: first("federation"),
            http: first("http"),
            metrics: listening["metrics"].as_str().unwrap().parse().unwrap(),
            internal: first("internal"),
            ca: listening["ca"].as_str().unwrap_or_default().into(),
            shards,
            folder,
        };
        if !edge.shards.is_empty() {
            edge.healthy_shards(edge.shards.len()).await;
        }
        edge
    }

    pub(crate) async fn http1(&self) -> Connection {
        Connection::http1(self.https, &self.ca).await
    }

    pub(crate) async fn http2(&self) -> Connection {
        Connection::http2(self.https, &self.ca).await
    }

    /// One request on a connection of its own.
    pub(crate) async fn ask(&self, method: &str, target: &str) -> Answer {
        let mut connection = self.http1().await;
        patiently(target, connection.send(request(method, target, ""))).await.unwrap()
    }

    /// What the private address says of `path`.
    pub(crate) async fn private(&self, path: &str) -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(self.metrics).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\n\r\n").as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    /// Waits until the edge knows of so many healthy shards.
    pub(crate) async fn healthy_shards(&self, count: usize) {
        patiently("a shard's health", async {
            loop {
                let metrics = self.private("/metrics").await;
                let healthy = metrics
                    .lines()
                    .filter(|line| line.starts_with("gatehouse_edge_shard_healthy{") && line.ends_with(" 1"));
                if healthy.count() == count {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }

    /// What the edge has written to standard error.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    pub(crate) fn signal(&self, signal: &str) {
        signal_process(self.process.id().unwrap(), signal);
    }

    pub(crate) async fn ended(&mut self) -> ExitStatus {
        patiently("the edge's end", self.process.wait()).await.unwrap()
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the edge wrote:\n{}", self.log());
        }
    }
}

/// Sends a signal by the shell, because the workspace calls no unsafe code.
pub(crate) fn signal_process(process: u32, signal: &str) {
    let sent = std::process::Command::new("sh").arg("-c").arg(format!("kill -{signal} {process}")).status().unwrap();
    assert!(sent.success());
}
