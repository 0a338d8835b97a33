//! Static folders: which files are served, how they are kept, and that nothing else is.

use std::fs;
use std::path::Path;

use http::StatusCode;

use crate::client::{Answer, request};
use crate::edge::{Edge, Options, patiently};

fn web_client(folder: &Path) {
    let files: [(&str, &[u8]); 9] = [
        ("index.html", b"<!doctype html>the client"),
        ("config.json", b"{}"),
        ("bundle.0a1b2c3d.js", b"let answer = 42;"),
        ("bundle.0a1b2c3d.js.br", b"as brotli"),
        ("bundle.0a1b2c3d.js.gz", b"as gzip"),
        ("icon.png", b"0123456789"),
        (".secret", b"hidden"),
        ("sub/index.html", b"the sub page"),
        ("empty.txt", b""),
    ];
    fs::create_dir_all(folder.join("sub")).unwrap();
    for (name, bytes) in files {
        fs::write(folder.join(name), bytes).unwrap();
    }
}

/// An edge with the folder at `/app` and, as a program for browsers, at `/`.
async fn serving() -> (tempfile::TempDir, Edge) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("web");
    fs::create_dir(&root).unwrap();
    web_client(&root);
    fs::write(folder.path().join("outside.txt"), "outside").unwrap();
    std::os::unix::fs::symlink("../outside.txt", root.join("link.txt")).unwrap();
    std::os::unix::fs::symlink("icon.png", root.join("alias.png")).unwrap();
    let sections = format!(
        "[[route]]\npath = \"/app\"\nstatic = \"{0}\"\ncache_seconds = 60\n\
         [[route]]\npath = \"/\"\nstatic = \"{0}\"\nfallback = \"index.html\"\n",
        root.display()
    );
    let edge = Edge::with(Options { shards: 1, sections: &sections, ..Options::default() }).await;
    (folder, edge)
}

async fn ask(edge: &Edge, method: &str, target: &str, headers: &[(&'static str, &str)]) -> Answer {
    let mut asked = request(method, target, "");
    for (name, value) in headers {
        asked.headers_mut().insert(*name, value.parse().unwrap());
    }
    let mut connection = edge.http1().await;
    patiently(target, connection.send(asked)).await.unwrap()
}

#[tokio::test]
async fn files_are_served_with_their_type_and_life() {
    let (_folder, edge) = serving().await;
    for (target, body, content_type, cache) in [
        ("/", "<!doctype html>the client", "text/html; charset=utf-8", "no-cache"),
        ("/app/", "<!doctype html>the client", "text/html; charset=utf-8", "no-cache"),
        ("/app/sub/", "the sub page", "text/html; charset=utf-8", "no-cache"),
        ("/app/config.json", "{}", "application/json", "no-cache"),
        (
            "/app/bundle.0a1b2c3d.js",
            "let answer = 42;",
            "text/javascript; charset=utf-8",
            "public, max-age=31536000, immutable",
        ),
        ("/app/icon.png?v=1", "0123456789", "image/png", "public, max-age=60"),
        ("/app/%69con.png", "0123456789", "image/png", "public, max-age=60"),
        ("/app/alias.png", "0123456789", "image/png", "public, max-age=60"),
        ("/app/empty.txt", "", "text/plain; charset=utf-8", "public, max-age=60"),
    ] {
        let answer = ask(&edge, "GET", target, &[]).await;
        assert_eq!((answer.status, &answer.body[..]), (StatusCode::OK, body.as_bytes()), "{target}");
        assert_eq!((answer.header("content-type"), answer.header("cache-control")), (content_type, cache), "{target}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("x-frame-options"), "SAMEORIGIN");
        assert!(answer.header("content-security-policy").contains("object-src 'none'"));
        assert!(!answer.headers.contains_key("access-control-allow-origin"));
        let head = ask(&edge, "HEAD", target, &[]).await;
        assert_eq!(head.header("content-length"), body.len().to_string());
        assert!(head.body.is_empty());
    }
    assert_eq!(edge.http2().await.send(request("GET", "/app/icon.png", "")).await.unwrap().body, "0123456789");
    assert_eq!(ask(&edge, "POST", "/app/icon.png", &[]).await.header("allow"), "GET, HEAD, OPTIONS");
    for (target, location) in [("/app", "/app/"), ("/app/sub?x=y", "/app/sub/?x=y")] {
        let moved = ask(&edge, "GET", target, &[]).await;
        assert_eq!((moved.status.as_u16(), moved.header("location")), (301, location));
    }
}

#[tokio::test]
async fn nothing_outside_of_the_folder_and_nothing_hidden_is_served() {
    let (_folder, edge) = serving().await;
    for target in [
        "/app/../outside.txt",
        "/app/%2e%2e/outside.txt",
        "/app/..%2foutside.txt",
        "/app/sub/..%5c..%5coutside.txt",
        "/app/link.txt",
        "/app/.secret",
        "/app/%2esecret",
        "/app//icon.png",
        "/app/icon.png/",
        "/app/icon.png%00.html",
        "/app/missing.png",
        "/app//etc/passwd",
        "//sub",
    ] {
        let answer = ask(&edge, "GET", target, &[]).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{target}");
        assert_eq!(answer.json()["errcode"], "M_NOT_FOUND");
    }
}

#[tokio::test]
async fn pages_that_are_none_are_the_programs_and_missing_scripts_stay_missing() {
    let (_folder, edge) = serving().await;
    let page = |answer: &Answer| answer.status == StatusCode::OK && answer.body.ends_with(b"the client");
    assert!(page(&ask(&edge, "GET", "/room/some-room", &[]).await));
    let html = [("accept", "text/html,*/*;q=0.8")];
    let answer = ask(&edge, "GET", "/room/!a:example.org", &html).await;
    assert!(page(&answer));
    assert_eq!(answer.header("cache-control"), "no-cache");
    assert_eq!(ask(&edge, "GET", "/bundle.old.js", &[("accept", "*/*")]).await.status, StatusCode::NOT_FOUND);
    // Matrix is not swallowed.
    assert_eq!(edge.ask("GET", "/_matrix/client/v3/x").await.json()["shard"], "shard 0");
}

#[tokio::test]
async fn what_a_browser_holds_is_not_sent_again() {
    let (folder, edge) = serving().await;
    let first = ask(&edge, "GET", "/app/icon.png", &[]).await;
    let (tag, date) = (first.header("etag"), first.header("last-modified"));
    for condition in [("if-none-match", tag), ("if-none-match", "*"), ("if-modified-since", date)] {
        for method in ["GET", "HEAD"] {
            let again = ask(&edge, method, "/app/icon.png", &[condition]).await;
            assert_eq!(again.status, StatusCode::NOT_MODIFIED, "{condition:?}");
            assert_eq!(again.header("etag"), tag);
        }
    }
    let weak = format!("\"x\", W/{tag}");
    assert_eq!(ask(&edge, "GET", "/app/icon.png", &[("if-none-match", &weak)]).await.status, StatusCode::NOT_MODIFIED);
    let tag = tag.to_owned();
    fs::write(folder.path().join("web/icon.png"), "changed").unwrap();
    let changed = ask(&edge, "GET", "/app/icon.png", &[("if-none-match", &tag)]).await;
    assert_eq!((changed.status, &changed.body[..]), (StatusCode::OK, &b"changed"[..]));
}

#[tokio::test]
async fn a_part_is_sent_to_who_asks_for_one() {
    let (_folder, edge) = serving().await;
    let tag = ask(&edge, "GET", "/app/icon.png", &[]).await.header("etag").to_owned();
    for (range, body, content_range) in [
        ("bytes=2-4", "234", "bytes 2-4/10"),
        ("bytes=-2", "89", "bytes 8-9/10"),
        ("bytes=7-99", "789", "bytes 7-9/10"),
    ] {
        let part = ask(&edge, "GET", "/app/icon.png", &[("range", range), ("if-range", &tag)]).await;
        assert_eq!((part.status, &part.body[..]), (StatusCode::PARTIAL_CONTENT, body.as_bytes()));
        assert_eq!(part.header("content-range"), content_range);
    }
    let beyond = ask(&edge, "GET", "/app/icon.png", &[("range", "bytes=10-")]).await;
    assert_eq!((beyond.status.as_u16(), beyond.header("content-range")), (416, "bytes */10"));
    for headers in [[("range", "bytes=0-1,3-4"), ("accept", "*/*")], [("range", "bytes=0-1"), ("if-range", "\"old\"")]]
    {
        assert_eq!(ask(&edge, "GET", "/app/icon.png", &headers).await.body, "0123456789");
    }
}

#[tokio::test]
async fn compressed_files_beside_a_file_are_sent_to_who_takes_them() {
    let (_folder, edge) = serving().await;
    let target = "/app/bundle.0a1b2c3d.js";
    let mut tags = std::collections::HashSet::new();
    for (accept, coding, body) in [
        ("gzip, deflate, br, zstd", Some("br"), "as brotli"),
        ("gzip", Some("gzip"), "as gzip"),
        ("br;q=0.5, gzip", Some("gzip"), "as gzip"),
        ("br;q=0, gzip;q=0", None, "let answer = 42;"),
        ("zstd", None, "let answer = 42;"),
    ] {
        let answer = ask(&edge, "GET", target, &[("accept-encoding", accept)]).await;
        let sent = answer.headers.get("content-encoding").map(|coding| coding.to_str().unwrap());
        assert_eq!((sent, &answer.body[..]), (coding, body.as_bytes()), "{accept}");
        assert_eq!(answer.header("vary"), "accept-encoding");
        assert_eq!(answer.header("content-type"), "text/javascript; charset=utf-8");
        tags.insert(answer.header("etag").to_owned());
    }
    assert_eq!(tags.len(), 3, "each coding has a tag of its own");
    let part = ask(&edge, "GET", target, &[("accept-encoding", "br"), ("range", "bytes=0-2")]).await;
    assert_eq!(part.body, "let");
}

#[tokio::test]
async fn a_large_file_arrives_whole() {
    let (folder, edge) = serving().await;
    let large: Vec<u8> = (0..3_000_000_u32).flat_map(|number| number.to_le_bytes()).collect();
    fs::write(folder.path().join("web/large.bin"), &large).unwrap();
    for mut connection in [edge.http1().await, edge.http2().await] {
        let answer = patiently("the file", connection.send(request("GET", "/app/large.bin", ""))).await.unwrap();
        assert!(answer.body == large);
    }
}
