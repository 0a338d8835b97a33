//! Which rooms of the edge may use which, read from the sources.

use std::fs;
use std::path::{Path, PathBuf};

/// `listener → admission → routing → upstream`: these never use each other, nor what puts them together.
const ROOMS: [(&str, &[&str]); 10] = [
    (
        "listener",
        &[
            "admission",
            "answer_head",
            "bans",
            "config",
            "conversation",
            "ending",
            "header_deadline",
            "http1",
            "http2",
            "metrics",
            "private_file",
            "workers",
        ],
    ),
    ("http1", &["admission", "answer_head", "conversation", "ending"]),
    ("http2", &["answer_head", "conversation", "ending"]),
    ("acme", &["chance", "config", "listener", "private_file"]),
    ("admission", &["config", "ending"]),
    ("bans", &["admission", "config", "live", "metrics", "private_file"]),
    ("routing", &[]),
    // Files and what is done to bodies; what a client takes is decided in `routing`.
    ("content", &["answer_head", "routing"]),
    ("upstream", &["answer_head", "config", "http1", "workers"]),
    // Asks from outside, like a stranger: what the edge does inside is nothing to it.
    ("doctor", &["config", "server_name"]),
];
/// These decide and do nothing else.
const WITHOUT_IO: [&str; 3] = ["admission", "routing", "doctor/checks"];

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else {
            found.push(path);
        }
    }
    found
}

#[test]
fn rooms_use_only_what_they_may() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for (room, may_use) in ROOMS {
        for file in sources(&root.join(room)) {
            let text = fs::read_to_string(&file).unwrap();
            for used in text.split("crate::").skip(1) {
                let used: String =
                    used.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect();
                let allowed = used == room || may_use.contains(&used.as_str());
                assert!(allowed, "{} uses crate::{used}", file.display());
            }
        }
    }
}

#[test]
fn rooms_that_decide_do_no_io() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for room in WITHOUT_IO {
        for file in sources(&root.join(room)) {
            let text = fs::read_to_string(&file).unwrap();
            for forbidden in ["tokio::", "std::fs", "std::net::Tcp", "async fn", ".await"] {
                assert!(!text.contains(forbidden), "{} holds {forbidden}", file.display());
            }
        }
    }
}
