//! Every operation of the specification is routed, or listed in `tests/unrouted.txt` with a reason.

use std::{collections::BTreeMap, fs, path::Path};

use http::Method;
use serde_json::{Value, json};

use crate::harness::{Engine, Server};

const UNROUTED: &str = include_str!("../unrouted.txt");
/// Operations that answer late on purpose, and what makes them answer at once.
const QUERIES: &[(&str, &str)] = &[("/sync", "?timeout=0"), ("/events", "?timeout=0")];
/// Operations that end the session which the others need.
const LAST: &[&str] = &["logout", "deactivate", "account/password"];

#[tokio::test]
async fn every_operation_is_routed_or_listed_with_a_reason() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/matrix-spec");
    if !folder.is_dir() {
        eprintln!("skipped: the documents of the specification are not at {}", folder.display());
        return;
    }
    let listed = listed();
    let server = Server::start(Engine::Sqlite).await;
    let alice = server.register("alice").await;
    let mut mistakes = Vec::new();
    let mut operations = operations(&folder);
    operations.sort_by_key(|(method, path)| format!("{path} {method}"));
    operations.dedup();
    operations.sort_by_key(|(_, path)| LAST.iter().any(|last| path.contains(last)));
    assert!(operations.len() > 150, "only {} operations were found", operations.len());
    for (method, path) in &operations {
        let query = QUERIES.iter().find(|(end, _)| path.ends_with(end)).map_or("", |(_, query)| *query);
        let call = server.call(method.clone(), &(fill(path) + query)).by(&alice);
        let call = if *method == Method::GET { call } else { call.json(json!({})) };
        let reply = call.await;
        let operation = format!("{method} {path}");
        let is_routed = reply.body["errcode"] != "M_UNRECOGNIZED";
        if reply.status.as_u16() == 500 {
            mistakes.push(format!("{operation} failed: {}", reply.body));
        }
        match (is_routed, listed.get(&operation)) {
            (true, Some(_)) => mistakes.push(format!("{operation} is routed: take it out of unrouted.txt")),
            (false, None) => {
                mistakes.push(format!("{operation} is not routed: route it, or give unrouted.txt a reason"))
            }
            _ => {}
        }
    }
    let known: Vec<String> = operations.iter().map(|(method, path)| format!("{method} {path}")).collect();
    mistakes.extend(listed.keys().filter(|line| !known.contains(line)).map(|line| format!("{line} is no operation")));
    assert!(mistakes.is_empty(), "\n{}", mistakes.join("\n"));
}

/// `METHOD PATH: reason`, one a line.
fn listed() -> BTreeMap<String, String> {
    let lines = UNROUTED.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (operation, reason) = line.split_once(": ").unwrap_or_else(|| panic!("no reason: {line}"));
            assert!(!reason.trim().is_empty(), "no reason: {line}");
            (operation.to_owned(), reason.to_owned())
        })
        .collect()
}

fn operations(folder: &Path) -> Vec<(Method, String)> {
    let mut found = Vec::new();
    for document in ["client-server.json", "server-server.json"] {
        let text = fs::read_to_string(folder.join(document)).unwrap();
        let document: Value = serde_json::from_str(&text).unwrap();
        for (path, methods) in document["paths"].as_object().unwrap() {
            // The edge answers these itself.
            if path.starts_with("/.well-known/") {
                continue;
            }
            for method in methods.as_object().unwrap().keys() {
                if let "get" | "put" | "post" | "delete" = method.as_str() {
                    // Two paths stand in the document a second time, with a blank behind them and another body.
                    found.push((method.to_uppercase().parse().unwrap(), path.trim_end().to_owned()));
                }
            }
        }
    }
    found
}

/// Puts something plausible into the path's places.
fn fill(path: &str) -> String {
    let place = |segment: &str| match segment {
        "{userId}" => "@nobody:example.org",
        "{roomId}" | "{roomIdOrAlias}" => "!nowhere:example.org",
        "{roomAlias}" => "%23nowhere:example.org",
        "{eventId}" => "$nothing",
        "{eventType}" => "m.room.message",
        "{serverName}" => "example.org",
        "{keyId}" => "ed25519:none",
        "{kind}" => "content",
        "{receiptType}" => "m.read",
        _ => "x",
    };
    let segments = path.split('/').map(|segment| if segment.contains('{') { place(segment) } else { segment });
    segments.collect::<Vec<_>>().join("/")
}
