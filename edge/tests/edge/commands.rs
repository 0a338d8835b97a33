//! The command line, as a person or a script uses it.

use std::process::Stdio;

use crate::edge::{patiently, program};

async fn output(arguments: &[&str]) -> (Option<i32>, String) {
    let output = program().args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).output();
    let output = patiently("the command", output).await.unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap())
}

#[tokio::test]
async fn check_names_file_line_and_key_of_every_mistake() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("edge.toml");
    let text = "[server]\nname = \"localhost\"\ncolour = \"red\"\n[listen]\nhttp = [\"localhost:80\"]\n\
                [upstream]\ncluster_secret = 7\n[limits]\nmax_connections = \"many\"\n";
    std::fs::write(&file, text).unwrap();
    let path = file.to_str().unwrap();
    let (code, told) = output(&["check", path]).await;
    assert_eq!(code, Some(1));
    for expected in [
        "3:1: server.colour: ",
        "5:9: listen.http[0]: ",
        "7:18: upstream.cluster_secret: ",
        "9:19: limits.max_connections: ",
    ] {
        assert!(told.contains(&format!("{path}:{expected}")), "{expected} is not in {told}");
    }
    let (code, told) = output(&["check", "--json", path]).await;
    assert_eq!(code, Some(1));
    let report: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(report["mistakes"].as_array().unwrap().len(), 4);
    assert_eq!(report["mistakes"][0]["line"], 3);
    assert_eq!(report["mistakes"][0]["key"], "server.colour");
}

#[tokio::test]
async fn check_is_content_with_what_is_right() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("edge.toml");
    let text = "[server]\nname = \"localhost\"\n[listen]\nhttp = [\"127.0.0.1:0\"]\n\
                [upstream]\ncluster_secret = \"0123456789abcdef0123456789abcdef\"\nshards = [\"unix:/run/x.sock\"]\n";
    std::fs::write(&file, text).unwrap();
    assert_eq!(output(&["check", file.to_str().unwrap()]).await.0, Some(0));
    let (code, told) = output(&["check", "/nowhere/edge.toml"]).await;
    assert!(code == Some(1) && told.contains("/nowhere/edge.toml"), "{told}");
}

#[tokio::test]
async fn every_command_helps() {
    for arguments in [
        &["--help"][..],
        &["run", "--help"],
        &["check", "--help"],
        &["certs", "--help"],
        &["dev", "--help"],
        &["doctor", "--help"],
        &["reload", "--help"],
        &["status", "--help"],
        &["shards", "--help"],
        &["bans", "--help"],
        &["ban", "--help"],
        &["unban", "--help"],
        &["jail", "--help"],
        &["shards", "restart", "--help"],
        &["upgrade", "--help"],
    ] {
        let (code, told) = output(arguments).await;
        assert!(code == Some(0) && told.contains("Usage: gatehouse"), "{told}");
    }
}
