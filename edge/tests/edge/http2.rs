//! HTTP/2: streams that end before their time, on either side.

use std::path::Path;
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixListener;
use tokio::sync::Semaphore;

use crate::client::request;
use crate::edge::{Edge, Options, patiently, socket};

/// What a shard has seen of requests that it does not answer.
struct Unanswered {
    asked: Semaphore,
    gone: Semaphore,
}

/// A shard that is well, but breaks off its answer to `/half`, and never answers `/never`.
fn start_unreliable(path: &Path) -> Arc<Unanswered> {
    let listener = UnixListener::bind(path).unwrap();
    let unanswered = Arc::new(Unanswered { asked: Semaphore::new(0), gone: Semaphore::new(0) });
    let tells = unanswered.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, tells) = (BufReader::new(listener.accept().await.unwrap().0), tells.clone());
            tokio::spawn(async move {
                loop {
                    let (mut head, mut line) = (String::new(), String::new());
                    while line != "\r\n" {
                        line.clear();
                        if stream.read_line(&mut line).await.unwrap_or_default() == 0 {
                            return;
                        }
                        head += &line;
                    }
                    if head.contains("/half ") {
                        let half = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n";
                        return stream.write_all(half.as_bytes()).await.unwrap();
                    }
                    if head.contains("/never ") {
                        tells.asked.add_permits(1);
                        let _ = stream.read(&mut [0]).await;
                        return tells.gone.add_permits(1);
                    }
                    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await.unwrap();
                }
            });
        }
    });
    unanswered
}

async fn edge_before_an_unreliable_shard() -> (Edge, Arc<Unanswered>) {
    let folder = tempfile::tempdir().unwrap();
    let unanswered = start_unreliable(&socket(folder.path(), 0));
    let sections = format!(
        "[[route]]\npath = \"/other\"\nupstream = [\"unix:{}\"]\nstrip_prefix = true\n",
        socket(folder.path(), 0).display()
    );
    let options = Options { shards: 1, sections: &sections, ..Options::default() };
    let edge = Edge::in_folder(folder, Vec::new(), options).await;
    edge.healthy_shards(1).await;
    (edge, unanswered)
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_taken_for_a_whole_one() {
    let (edge, _) = edge_before_an_unreliable_shard().await;
    let mut connection = edge.http2().await;
    for target in ["/_matrix/client/v3/half", "/other/half"] {
        let broken = patiently(target, connection.try_read(request("GET", target, ""))).await;
        assert!(broken.is_err(), "{target}: {broken:?}");
    }
    // The other streams of the connection go on.
    assert_eq!(connection.send(request("GET", "/_matrix/client/v3/whole", "")).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_client_that_gives_a_request_up_takes_it_from_the_server() {
    let (edge, unanswered) = edge_before_an_unreliable_shard().await;
    let mut connection = edge.http2().await;
    for target in ["/_matrix/client/v3/never", "/other/never"] {
        tokio::select! {
            answer = connection.send(request("GET", target, "")) => panic!("{target}: {answer:?}"),
            asked = patiently(target, unanswered.asked.acquire()) => asked.unwrap().forget(),
        }
        patiently(target, unanswered.gone.acquire()).await.unwrap().forget();
    }
}
