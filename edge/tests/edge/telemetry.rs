//! What the edge tells a collector of traces.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use crate::client::request;
use crate::edge::{Edge, Options};

/// Takes whatever is posted to `/v1/traces`.
async fn collector() -> (std::net::SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let collected = Arc::new(Mutex::new(Vec::new()));
    let kept = collected.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let kept = kept.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let kept = kept.clone();
                async move {
                    assert_eq!(request.uri().path(), "/v1/traces");
                    let body = request.into_body().collect().await?.to_bytes();
                    kept.lock().unwrap().extend_from_slice(&body);
                    Ok::<_, hyper::Error>(Response::new(Full::<Bytes>::default()))
                }
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    (address, collected)
}

fn holds(haystack: &[u8], hex: &str) -> bool {
    let needle: Vec<u8> =
        (0..hex.len() / 2).map(|byte| u8::from_str_radix(&hex[2 * byte..2 * byte + 2], 16).unwrap()).collect();
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[tokio::test]
async fn a_trace_runs_from_the_client_through_the_edge_to_the_shard() {
    let (address, collected) = collector().await;
    let sections = format!("otlp_endpoint = \"http://{address}\"\nlog_filter = \"info\"");
    let mut edge = Edge::with(Options { shards: 1, sections: &sections, ..Options::default() }).await;
    let mut traced = request("GET", "/_matrix/client/versions", "");
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse().unwrap();
    traced.headers_mut().insert("traceparent", parent);
    let echo = edge.http1().await.send(traced).await.unwrap().json();
    let headers: Vec<(String, String)> = serde_json::from_value(echo["headers"].clone()).unwrap();
    let passed_on = headers.iter().find(|(name, _)| name == "traceparent").unwrap().1.clone();
    let span = passed_on.split('-').nth(2).unwrap();
    edge.signal("TERM");
    assert!(edge.ended().await.success());
    let collected = collected.lock().unwrap();
    for (what, id) in
        [("trace", "0af7651916cd43dd8448eb211c80319c"), ("client's span", "b7ad6b7169203331"), ("edge's span", span)]
    {
        assert!(holds(&collected, id), "the {what} {id} was not exported");
    }
    assert!(collected.windows(14).any(|window| window == b"gatehouse-edge"));
}
