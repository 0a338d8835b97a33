//! Runs a client that is a program of its own, and does for it what it asks for.
//!
//! The program writes a line that begins with `@` to ask for something, such as `@restart`, and reads `done` when that
//! has happened. All its other lines are kept, and shown when it fails.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::keeper::{self, Kept};

/// How long a script may take.
const LIMIT: Duration = Duration::from_secs(240);

/// Runs the command until it ends; `act` is called with each of its requests, without the `@`. Returns its last line.
///
/// # Panics
/// When it takes too long or fails, with the end of its output.
pub fn run(command: &mut Command, mut act: impl FnMut(&str)) -> String {
    let log = tempfile::NamedTempFile::new().expect("the temporary folder is writable");
    let errors = log.reopen().expect("the file was just made");
    let mut script = Kept::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors));
    let mut input = script.child().stdin.take().expect("standard input was piped");
    let output = script.child().stdout.take().expect("standard output was piped");
    let limit = watch(script.pid());
    let mut lines = Vec::new();
    for line in BufReader::new(output).lines() {
        let line = line.expect("scripts write UTF-8");
        if let Some(request) = line.strip_prefix('@') {
            act(request);
            // A script that has ended meanwhile is judged by its status below.
            let _ = writeln!(input, "done");
        }
        lines.push(line);
    }
    let status = script.child().wait().expect("a child can be waited for");
    let in_time = limit.send(()).is_ok();
    if !status.success() {
        let shown = lines.len().saturating_sub(60);
        panic!(
            "{:?} {}: {status}\n{}\n{}",
            command.get_args().next().unwrap_or_default(),
            if in_time { "failed" } else { "took too long" },
            lines[shown..].join("\n"),
            tail(log.path()),
        );
    }
    lines.pop().unwrap_or_default()
}

/// Kills the script after the limit, unless the returned sender is used before.
fn watch(pid: u32) -> std::sync::mpsc::Sender<()> {
    let (sender, receiver) = std::sync::mpsc::channel();
    let deadline = Instant::now() + LIMIT;
    std::thread::spawn(move || {
        if receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_err() {
            keeper::kill(pid);
        }
    });
    sender
}

fn tail(file: &Path) -> String {
    let text = std::fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}
