//! The program itself: its command line, and how it begins and ends.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::harness::{PASSWORD, SECRET, SERVER_NAME, contract_headers, password_login};

const PROGRAM: &str = env!("CARGO_BIN_EXE_gatehouse-homeserver");
/// How long the program may take for anything that is asked of it here.
const DEADLINE: Duration = Duration::from_secs(30);

struct Place {
    folder: tempfile::TempDir,
    config: PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("homeserver.toml");
        let data = folder.path().join("data");
        let text = format!("server_name = {SERVER_NAME:?}\ndata_folder = {data:?}\ncluster_secret = {SECRET:?}\n");
        fs::write(&config, text).unwrap();
        Self { folder, config }
    }

    fn socket(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, socket: &Path) -> Child {
        Command::new(PROGRAM)
            .args(["run", "--supervised", "--config"])
            .arg(&self.config)
            .arg("--listen")
            .arg(format!("unix:{}", socket.display()))
            .env("GATEHOUSE_LOG", "warn")
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn create_user(&self, name: &str) -> Output {
        let mut child = Command::new(PROGRAM)
            .args(["user", "create", name, "--admin", "--password-stdin", "--config"])
            .arg(&self.config)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(format!("{PASSWORD}\n").as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < DEADLINE, "{what} never came");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn end(child: &mut Child) -> ExitStatus {
    until("the end", || child.try_wait().unwrap())
}

/// One request as the edge would send it, on a connection of its own.
fn ask(socket: &Path, method: &str, target: &str, body: &Value) -> String {
    let mut stream = until("the socket", || UnixStream::connect(socket).ok());
    let body = body.to_string();
    let mut request =
        format!("{method} {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in contract_headers("192.0.2.7", method, target) {
        request += &format!("{name}: {value}\r\n");
    }
    stream.write_all(format!("{request}\r\n{body}").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_user_is_made_beside_a_running_shard_and_every_end_is_orderly() {
    let place = Place::new();
    let socket = place.socket("shard.sock");
    let mut shard = place.run(&socket);
    assert!(ask(&socket, "GET", "/_matrix/client/versions", &json!({})).starts_with("HTTP/1.1 200"));

    let made = place.create_user("alice");
    assert!(made.status.success(), "{made:?}");
    assert_eq!(String::from_utf8(made.stdout).unwrap(), "@alice:example.org\n");
    let login = ask(&socket, "POST", "/_matrix/client/v3/login", &password_login("alice", PASSWORD));
    assert!(login.starts_with("HTTP/1.1 200"), "{login}");
    let again = place.create_user("alice");
    assert!(!again.status.success());
    assert!(String::from_utf8(again.stderr).unwrap().contains("the user name is taken"));

    // A second shard on the same file is refused, in words that help.
    let second = place.run(&place.socket("second.sock")).wait_with_output().unwrap();
    assert!(!second.status.success());
    let message = String::from_utf8(second.stderr).unwrap();
    assert!(message.contains("only one shard may run on a SQLite file"), "{message}");

    // Whoever started it is gone.
    drop(shard.stdin.take());
    assert!(end(&mut shard).success());

    // The stale socket is no obstacle, and SIGTERM is an orderly end too.
    let mut shard = place.run(&socket);
    let login = ask(&socket, "POST", "/_matrix/client/v3/login", &password_login("alice", PASSWORD));
    assert!(login.starts_with("HTTP/1.1 200"), "{login}");
    let signalled = Command::new("kill").args(["-TERM", &shard.id().to_string()]).status().unwrap();
    assert!(signalled.success());
    assert!(end(&mut shard).success());
}

#[test]
fn lists_of_servers_are_read_again_on_the_edges_word_and_on_sighup() {
    let place = Place::new();
    let policy = place.folder.path().join("policy.toml");
    let deny = |name: &str| fs::write(&policy, format!("[servers]\ndeny = [{name:?}]\n")).unwrap();
    deny("127.0.0.1");
    let mut config = fs::read_to_string(&place.config).unwrap();
    config += &format!("[federation]\npolicy = {policy:?}\n");
    fs::write(&place.config, config).unwrap();
    let socket = place.socket("shard.sock");
    let mut shard = place.run(&socket);
    // Nobody is there in any case, but only of a denied server that is not even tried.
    let is_denied = || {
        let answer = ask(&socket, "GET", "/_matrix/client/v3/profile/@bob:127.0.0.1:1", &json!({}));
        assert!(answer.starts_with("HTTP/1.1 403") || answer.starts_with("HTTP/1.1 502"), "{answer}");
        answer.starts_with("HTTP/1.1 403")
    };
    assert!(is_denied());
    deny("other.test");
    assert!(is_denied());
    let mut pipe = shard.stdin.take().unwrap();
    pipe.write_all(b"\n").unwrap();
    until("the mended list", || (!is_denied()).then_some(()));
    deny("127.0.0.1");
    let signalled = Command::new("kill").args(["-HUP", &shard.id().to_string()]).status().unwrap();
    assert!(signalled.success());
    until("the list before", || is_denied().then_some(()));
    drop(pipe);
    assert!(end(&mut shard).success());
    // A shard that cannot know whom it may call does not start, and `check` says why.
    fs::write(&policy, "[servers]\ndeny = [\"*\"]\n").unwrap();
    let refused = place.run(&socket).wait_with_output().unwrap();
    assert!(!refused.status.success());
    let message = String::from_utf8(refused.stderr).unwrap();
    assert!(message.contains("federation.policy") && message.contains("policy.toml:2"), "{message}");
}

#[test]
fn check_names_file_line_and_key_of_every_mistake() {
    let place = Place::new();
    let check =
        |arguments: &[&str]| Command::new(PROGRAM).arg("check").args(arguments).arg(&place.config).output().unwrap();
    assert!(check(&[]).status.success());
    fs::write(&place.config, "server_name = \"example.org\"\ndata_folder = \"/tmp\"\n[media]\ncolour = 1\n").unwrap();
    let found = check(&[]);
    assert!(!found.status.success());
    let text = String::from_utf8(found.stdout).unwrap();
    assert!(text.starts_with(&format!("{}:4:1: media.colour: ", place.config.display())), "{text}");
    let report: Value = serde_json::from_slice(&check(&["--json"]).stdout).unwrap();
    assert_eq!((&report["ok"], &report["mistakes"][0]["line"]), (&json!(false), &json!(4)));
    assert_eq!(report["mistakes"][0]["key"], "media.colour");
}
