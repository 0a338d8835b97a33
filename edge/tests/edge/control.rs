//! The control socket and the commands that speak over it.

use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use crate::edge::{Edge, Options, patiently, program};

/// What a command against this edge ended with, and wrote.
pub(crate) struct Told {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Told {
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {} {}", self.stdout, self.stderr))
    }
}

impl Edge {
    /// Runs `gatehouse` with `arguments` against this edge.
    pub(crate) async fn command(&self, arguments: &[&str]) -> Told {
        let mut command = program();
        command.args(arguments).arg("--config").arg(self.folder.path().join("edge.toml"));
        let output = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output();
        let output = patiently("a command", output).await.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Told { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

#[tokio::test]
async fn commands_reach_the_edge_over_a_private_socket() {
    let mut edge = Edge::start().await;
    let socket = edge.folder.path().join("control/control.sock");
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&socket), 0o600);
    assert_eq!(mode(socket.parent().unwrap()), 0o700);
    let status = edge.command(&["status", "--json"]).await.json();
    assert_eq!(status["server_name"], "localhost");
    assert_eq!(status["process_id"], edge.process.id().unwrap());
    let shards = edge.command(&["shards", "list", "--json"]).await.json();
    assert_eq!(shards[0]["healthy"], true);
    assert!(edge.command(&["status"]).await.stdout.starts_with("localhost: gatehouse "));
    edge.signal("TERM");
    assert!(edge.ended().await.success());
    assert!(!socket.exists());
    let told = edge.command(&["status"]).await;
    assert_eq!(told.code, Some(1));
    assert!(told.stderr.contains("no edge runs here") && told.stderr.contains("--socket"), "{}", told.stderr);
}

#[tokio::test]
async fn the_socket_of_a_dead_edge_is_replaced_and_that_of_a_living_one_is_not() {
    let edge = Edge::start().await;
    let second = program()
        .args(["run", "--config"])
        .arg(edge.folder.path().join("edge.toml"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output();
    let second = patiently("the refusal", second).await.unwrap();
    assert_eq!(second.status.code(), Some(1));
    let told = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(told.contains("another edge") && told.contains("control.socket"), "{told}");
    assert_eq!(edge.command(&["status"]).await.code, Some(0), "the first one goes on");

    edge.signal("KILL");
    let socket = edge.folder.path().join("control/control.sock");
    let mut edge = edge;
    edge.ended().await;
    assert!(socket.exists());
    let folder = std::mem::replace(&mut edge.folder, tempfile::tempdir().unwrap());
    std::fs::write(edge.folder.path().join("log"), "").unwrap();
    let shards = edge.shards.clone();
    let edge = Edge::in_folder(folder, shards, Options { shards: 1, ..Options::default() }).await;
    assert_eq!(edge.command(&["status"]).await.code, Some(0));
}

#[tokio::test]
async fn a_request_that_is_not_known_is_refused_in_words() {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    let edge = Edge::start().await;
    let socket = edge.folder.path().join("control/control.sock");
    let (read, mut write) = tokio::net::UnixStream::connect(socket).await.unwrap().into_split();
    let mut lines = BufReader::new(read).lines();
    for nonsense in ["destroy\n", "{\"ask\":\"destroy\"}\n", "\n"] {
        write.write_all(nonsense.as_bytes()).await.unwrap();
        let line = patiently("the answer", lines.next_line()).await.unwrap().unwrap();
        assert!(line.starts_with("{\"refused\":{\"message\":\"this edge does not know"), "{line}");
    }
    write.write_all(b"{\"ask\":\"status\"}\n").await.unwrap();
    let line = patiently("the answer", lines.next_line()).await.unwrap().unwrap();
    assert!(line.starts_with("{\"done\":{"), "{line}");
}
