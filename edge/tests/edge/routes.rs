//! Configured routes: whose they are, and where they lead.

use http::{HeaderValue, StatusCode};
use rcgen::{CertificateParams, Issuer, KeyPair};
use rustls_pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use crate::backend::Backend;
use crate::client::{Answer, Connection, request, tls};
use crate::edge::{Edge, Options, patiently};

async fn edge_with(sections: &str) -> Edge {
    Edge::with(Options { shards: 1, sections, ..Options::default() }).await
}

async fn ask_for(edge: &Edge, host: &str, target: &str) -> Answer {
    let mut connection = edge.http1().await;
    let mut asked = request("GET", target, "");
    asked.headers_mut().insert("host", HeaderValue::from_str(host).unwrap());
    patiently(target, connection.send(asked)).await.unwrap()
}

fn header<'e>(echo: &'e serde_json::Value, name: &str) -> Vec<&'e str> {
    let pairs = echo["headers"].as_array().unwrap().iter();
    pairs.filter(|pair| pair[0] == name).map(|pair| pair[1].as_str().unwrap()).collect()
}

#[tokio::test]
async fn matrix_stays_the_shards_whatever_a_route_for_everything_says() {
    let backend = Backend::tcp("everything").await;
    let edge = edge_with(&format!(
        "[[route]]\npath = \"/\"\nupstream = [\"http://{}\"]\n\
         [[route]]\npath = \"/_matrix/client/unstable/org.example\"\nupstream = [\"http://{0}\"]\n\
         [[route]]\nhost = \"old.example.org\"\npath = \"/\"\nredirect = \"https://example.org\"\nkeep_path = true\n\
         [[route]]\npath = \"/short\"\nredirect = \"/long/\"\nstatus = 307\n",
        backend.address
    ))
    .await;
    for target in ["/_matrix/client/v3/sync", "/_synapse/admin/v1/register", "/_matrix//x"] {
        assert_eq!(edge.ask("GET", target).await.json()["shard"], "shard 0", "{target}");
    }
    assert!(edge.ask("GET", "/.well-known/matrix/client").await.json()["m.homeserver"].is_object());
    for target in ["/", "/x?y=%2F", "/_matrixed", "/_matrix/client/unstable/org.example/x", "/.well-known/other"] {
        let echo = edge.ask("GET", target).await.json();
        assert_eq!((&echo["backend"], &echo["target"]), (&"everything".into(), &target.into()));
    }
    let moved = ask_for(&edge, "OLD.example.org:8443", "/a?b=c").await;
    assert_eq!((moved.status.as_u16(), moved.header("location")), (302, "https://example.org/a?b=c"));
    let moved = edge.ask("GET", "/short/x").await;
    assert_eq!((moved.status.as_u16(), moved.header("location")), (307, "/long/"));
}

#[tokio::test]
async fn another_server_learns_the_client_and_nothing_of_the_contract() {
    let backend = Backend::tcp("bridge").await;
    let edge = edge_with(&format!(
        "[[route]]\npath = \"/bridge\"\nupstream = [\"http://{}\"]\nstrip_prefix = true\n\
         remove_request_headers = [\"cookie\"]\nremove_response_headers = [\"X-Powered-By\"]\n\
         [route.set_request_headers]\nX-Example = \"yes\"\n[route.set_response_headers]\nX-Answer = \"edited\"\n",
        backend.address
    ))
    .await;
    for mut connection in [edge.http1().await, edge.http2().await] {
        let mut asked = request("POST", "/bridge/login?x=%2F", "body");
        for (name, value) in [("x-forwarded-for", "198.51.100.1"), ("x-gatehouse-client", "x"), ("cookie", "a=b")] {
            asked.headers_mut().append(name, value.parse().unwrap());
        }
        let answer = connection.send(asked).await.unwrap();
        assert_eq!(answer.headers.get_all("x-answer").iter().collect::<Vec<_>>(), ["edited"]);
        assert!(
            !answer.headers.contains_key("x-powered-by") && !answer.headers.contains_key("access-control-allow-origin")
        );
        let echo = answer.json();
        assert_eq!((&echo["target"], &echo["body_bytes"]), (&"/login?x=%2F".into(), &4.into()));
        assert_eq!(header(&echo, "x-forwarded-for"), ["127.0.0.1"]);
        assert_eq!(header(&echo, "x-forwarded-proto"), ["https"]);
        assert_eq!(header(&echo, "x-forwarded-host"), ["localhost"]);
        assert_eq!(header(&echo, "host"), ["localhost"]);
        assert_eq!(header(&echo, "x-example"), ["yes"]);
        assert!(header(&echo, "cookie").is_empty());
        assert!(!echo["headers"].to_string().contains("x-gatehouse"), "{echo}");
    }
    assert_eq!(edge.ask("GET", "/bridge").await.json()["target"], "/");
    assert_eq!(edge.ask("GET", "/bridges").await.status, StatusCode::NOT_FOUND);
    // Its own words, and no verdict of it.
    let busy = edge.ask("GET", "/bridge/status-503").await;
    assert_eq!((busy.status, &busy.body[..]), (StatusCode::SERVICE_UNAVAILABLE, &b"its own words"[..]));
    assert!(!busy.headers.contains_key("x-gatehouse-verdict"));
    assert!(!edge.private("/metrics").await.contains("gatehouse_edge_verdicts_total{"));
    // Preflights are its own to answer, and paths that lead out of its part are nobody's.
    assert_eq!(edge.ask("OPTIONS", "/bridge/x").await.json()["method"], "OPTIONS");
    for target in ["/bridge/../admin", "/bridge/%2e%2e/admin", "/bridge/..%2fadmin", "/bridge/..%5cadmin"] {
        edge.ask("GET", target).await.assert_status_without_cors(400);
    }
}

#[tokio::test]
async fn websockets_pass_to_another_server() {
    let backend = Backend::tcp("bridge").await;
    let edge = edge_with(&format!("[[route]]\npath = \"/ws\"\nupstream = [\"http://{}\"]\n", backend.address)).await;
    let mut stream = tls(edge.https, &edge.ca, "localhost", &[b"http/1.1"]).await;
    let handshake = "GET /ws HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                     sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(handshake.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(patiently("the handshake", stream.read_u8()).await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", head.escape_ascii());
    stream.write_all(b"ping").await.unwrap();
    let mut echo = [0; 4];
    patiently("the echo", stream.read_exact(&mut echo)).await.unwrap();
    assert_eq!(&echo, b"ping");
}

#[tokio::test]
async fn addresses_take_turns_and_those_that_are_gone_are_left_out() {
    let first = Backend::tcp("first").await;
    let second = Backend::tcp("second").await;
    // A port that nobody listens on any more.
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let edge = edge_with(&format!(
        "[[route]]\npath = \"/x\"\nupstream = [\"http://{}\", \"http://{gone}\", \"http://localhost:{}\"]\n\
         [[route]]\npath = \"/gone\"\nupstream = [\"http://{gone}\"]\n",
        first.address,
        second.address.port(),
    ))
    .await;
    for _ in 0..12 {
        assert_eq!(edge.ask("GET", "/x").await.status, StatusCode::OK);
    }
    assert!(first.asked() >= 4 && second.asked() >= 4, "{} and {}", first.asked(), second.asked());
    edge.ask("GET", "/gone").await.assert_error(502, "M_UNKNOWN");
}

#[tokio::test]
async fn a_server_that_is_silent_for_too_long_is_given_up() {
    let backend = Backend::tcp("slow").await;
    let edge = edge_with(&format!(
        "[[route]]\npath = \"/slow\"\nupstream = [\"http://{}\"]\nanswer_seconds = 1\n",
        backend.address
    ))
    .await;
    edge.ask("GET", "/slow/never").await.assert_error(504, "M_UNKNOWN");
}

#[tokio::test]
async fn unix_sockets_and_tls_lead_to_another_server() {
    let folder = tempfile::tempdir().unwrap();
    let authority = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let root = params.self_signed(&authority).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(["localhost".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &Issuer::from_params(&params, &authority)).unwrap();
    let provider = std::sync::Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let config = tokio_rustls::rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    let backend = Backend::tls("over TLS", TlsAcceptor::from(std::sync::Arc::new(config))).await;
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, root.pem()).unwrap();
    let socket = folder.path().join("backend.sock");
    Backend::unix("over a socket", &socket);
    let port = backend.address.port();
    let edge = edge_with(&format!(
        "[[route]]\npath = \"/unix\"\nupstream = [\"unix:{}\"]\n\
         [[route]]\npath = \"/tls\"\nupstream = [\"https://localhost:{port}\"]\nca = \"{}\"\n\
         [[route]]\npath = \"/wrong-name\"\nupstream = [\"https://127.0.0.1:{port}\"]\nca = \"{1}\"\n\
         [[route]]\npath = \"/untrusted\"\nupstream = [\"https://localhost:{port}\"]\n",
        socket.display(),
        ca.display(),
    ))
    .await;
    assert_eq!(edge.ask("GET", "/unix/x").await.json()["backend"], "over a socket");
    assert_eq!(edge.ask("GET", "/tls/x").await.json()["backend"], "over TLS");
    for target in ["/wrong-name/x", "/untrusted/x"] {
        edge.ask("GET", target).await.assert_error(502, "M_UNKNOWN");
    }
    // The connection that /tls left in the pool is of no use to those who do not trust it.
    edge.ask("GET", "/untrusted/x").await.assert_error(502, "M_UNKNOWN");
    assert_eq!(backend.asked(), 1);
}

#[tokio::test]
async fn the_federations_listener_serves_servers_only() {
    let edge = edge_with("[[route]]\npath = \"/\"\nredirect = \"https://example.org\"\n").await;
    let mut connection = Connection::http1(edge.federation, &edge.ca).await;
    for target in ["/_matrix/federation/v1/version", "/_matrix/key/v2/server", "/_matrix/media/v3/download/a/b"] {
        assert_eq!(connection.send(request("GET", target, "")).await.unwrap().json()["shard"], "shard 0");
    }
    let document = connection.send(request("GET", "/.well-known/matrix/server", "")).await.unwrap();
    assert_eq!(document.json()["m.server"], "matrix.localhost:443");
    for target in ["/_matrix/client/v3/sync", "/_synapse/admin/v1/register", "/"] {
        let mut connection = Connection::http1(edge.federation, &edge.ca).await;
        connection.send(request("GET", target, "")).await.unwrap().assert_error(404, "M_UNRECOGNIZED");
    }
}

#[tokio::test]
async fn browsers_are_told_what_is_safe_and_answers_have_the_last_word() {
    let backend = Backend::tcp("pages").await;
    let edge = edge_with(&format!(
        "[[route]]\nhost = \"example.org\"\npath = \"/pages\"\nupstream = [\"http://{}\"]\n",
        backend.address
    ))
    .await;
    for target in ["/_matrix/client/v3/account/whoami", "/.well-known/matrix/client", "/nothing"] {
        let answer = ask_for(&edge, "example.org", target).await;
        assert_eq!(answer.header("strict-transport-security"), "max-age=15552000");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("referrer-policy"), "no-referrer");
    }
    let media = ask_for(&edge, "example.org", "/_matrix/client/v1/media/download/a/b").await;
    assert!(media.header("content-security-policy").starts_with("sandbox;"));
    let page = ask_for(&edge, "example.org", "/pages").await;
    assert_eq!(page.header("strict-transport-security"), "max-age=15552000");
    assert!(!page.headers.contains_key("referrer-policy"));
    assert!(!edge.ask("GET", "/_matrix/client/v3/x").await.headers.contains_key("strict-transport-security"));
    let own = vec![("x-content-type-options", "its own"), ("content-security-policy", "its own")];
    edge.shards[0].order(crate::double::Order::Answer(StatusCode::OK, own));
    let answer = ask_for(&edge, "example.org", "/_matrix/client/v1/media/download/a/b").await;
    assert_eq!(answer.header("x-content-type-options"), "its own");
    assert_eq!(answer.header("content-security-policy"), "its own");
}
