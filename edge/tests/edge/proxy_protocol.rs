//! Clients behind load balancers and proxies: who is believed, and that a client's address has one meaning.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::{Answer, Connection, request, tcp_from};
use crate::edge::{Edge, Options, patiently};
use crate::policy::Policy;

/// An edge that expects PROXY headers from 127.0.0.1 and believes `X-Forwarded-For` of 127.0.0.2 and 192.0.2.0/24.
async fn edge(policy: &Policy) -> Edge {
    let sections =
        format!("[admission]\npolicy = {:?}\ntrusted_proxies = [\"127.0.0.2/32\", \"192.0.2.0/24\"]\n", policy.file());
    let listen = "proxy_protocol_from = [\"127.0.0.1/32\"]";
    Edge::with(Options { shards: 1, listen, sections: &sections, ..Options::default() }).await
}

async fn ask_behind(
    edge: &Edge,
    balancer: &str,
    header: &[u8],
    forwarded_for: Option<&str>,
) -> std::io::Result<Answer> {
    let mut tcp = tcp_from(balancer, edge.https).await;
    tcp.write_all(header).await?;
    let mut connection = Connection::http1_over(tcp, &edge.ca).await?;
    let mut request = request("GET", "/_matrix/client/versions", "");
    if let Some(forwarded_for) = forwarded_for {
        request.headers_mut().insert("x-forwarded-for", forwarded_for.parse().unwrap());
    }
    patiently("an answer", connection.send(request)).await.map_err(std::io::Error::other)
}

fn client_seen(answer: &Answer) -> String {
    answer.json()["forwarded"]["client"].as_str().unwrap().to_owned()
}

fn v2(source: SocketAddr) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21".to_vec();
    match source {
        SocketAddr::V4(source) => {
            header.extend([0x11, 0, 15]);
            header.extend(source.ip().octets());
            header.extend([203, 0, 113, 1]);
        }
        SocketAddr::V6(source) => {
            header.extend([0x21, 0, 39]);
            header.extend(source.ip().octets());
            header.extend([0; 16]);
        }
    }
    header.extend(source.port().to_be_bytes());
    header.extend(443_u16.to_be_bytes());
    // An extension without meaning here.
    header.extend([4, 0, 0]);
    header
}

#[tokio::test]
async fn the_announced_client_is_the_client() {
    let policy = Policy::new("");
    let edge = edge(&policy).await;
    let v1 = b"PROXY TCP4 198.51.100.7 203.0.113.1 4711 443\r\n";
    assert_eq!(client_seen(&ask_behind(&edge, "127.0.0.1", v1, None).await.unwrap()), "198.51.100.7");
    let mapped = b"PROXY TCP6 ::ffff:198.51.100.8 ::1 4711 443\r\n";
    assert_eq!(client_seen(&ask_behind(&edge, "127.0.0.1", mapped, None).await.unwrap()), "198.51.100.8");
    for client in ["198.51.100.9:4711", "[2001:db8::9]:4711"] {
        let answer = ask_behind(&edge, "127.0.0.1", &v2(client.parse().unwrap()), None).await.unwrap();
        assert_eq!(client_seen(&answer), client.parse::<SocketAddr>().unwrap().ip().to_string());
    }
    // A health check of the balancer is the balancer's own.
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    assert_eq!(client_seen(&ask_behind(&edge, "127.0.0.1", local, None).await.unwrap()), "127.0.0.1");
}

#[tokio::test]
async fn nobody_else_may_announce_and_a_balancer_must() {
    let policy = Policy::new("");
    let edge = edge(&policy).await;
    let v1 = b"PROXY TCP4 198.51.100.7 203.0.113.1 4711 443\r\n";
    assert!(ask_behind(&edge, "127.0.0.9", v1, None).await.is_err());
    assert!(ask_behind(&edge, "127.0.0.1", b"", None).await.is_err());
    assert!(ask_behind(&edge, "127.0.0.1", b"PROXY TCP4 nobody\r\n", None).await.is_err());
    assert_eq!(client_seen(&ask_behind(&edge, "127.0.0.9", b"", None).await.unwrap()), "127.0.0.9");
}

#[tokio::test]
async fn a_header_that_comes_in_pieces_is_read_whole() {
    let policy = Policy::new("");
    let edge = edge(&policy).await;
    for header in [b"PROXY TCP4 198.51.100.7 203.0.113.1 4711 443\r\n".to_vec(), v2("198.51.100.7:1".parse().unwrap())]
    {
        let mut tcp = tcp_from("127.0.0.1", edge.https).await;
        tcp.set_nodelay(true).unwrap();
        for byte in header {
            tcp.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        let mut connection = Connection::http1_over(tcp, &edge.ca).await.unwrap();
        let answer = connection.send(request("GET", "/_matrix/client/versions", "")).await.unwrap();
        assert_eq!(client_seen(&answer), "198.51.100.7");
    }
}

#[tokio::test]
async fn forwarded_for_is_believed_from_trusted_proxies_alone() {
    let policy = Policy::new("");
    let edge = edge(&policy).await;
    let seen = async |proxy: &str, forwarded_for: &str| {
        client_seen(&ask_behind(&edge, proxy, b"", Some(forwarded_for)).await.unwrap())
    };
    assert_eq!(seen("127.0.0.2", "6.6.6.6, 198.51.100.7").await, "198.51.100.7");
    assert_eq!(seen("127.0.0.2", "198.51.100.7, 192.0.2.8").await, "198.51.100.7");
    assert_eq!(seen("127.0.0.9", "198.51.100.7").await, "127.0.0.9");
    // One behind the other.
    let v1 = b"PROXY TCP4 192.0.2.3 203.0.113.1 4711 443\r\n";
    let answer = ask_behind(&edge, "127.0.0.1", v1, Some("198.51.100.7")).await.unwrap();
    assert_eq!(client_seen(&answer), "198.51.100.7");
    let v1 = b"PROXY TCP4 198.51.100.4 203.0.113.1 4711 443\r\n";
    let answer = ask_behind(&edge, "127.0.0.1", v1, Some("6.6.6.6")).await.unwrap();
    assert_eq!(client_seen(&answer), "198.51.100.4");
}

#[tokio::test]
async fn a_ban_is_about_the_client_and_not_about_who_stands_before_it() {
    let policy = Policy::new("");
    let edge = edge(&policy).await;
    assert_eq!(edge.command(&["ban", "198.51.100.7"]).await.code, Some(0));
    let mut tcp = tcp_from("127.0.0.1", edge.https).await;
    tcp.write_all(b"PROXY TCP4 198.51.100.7 203.0.113.1 4711 443\r\n").await.unwrap();
    let read = patiently("the reset", tcp.read(&mut [0])).await;
    assert_eq!(read.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    let other = b"PROXY TCP4 198.51.100.8 203.0.113.1 4711 443\r\n";
    assert_eq!(ask_behind(&edge, "127.0.0.1", other, None).await.unwrap().status, 200);
    // Behind a proxy that shares its connections only the request can be refused.
    ask_behind(&edge, "127.0.0.2", b"", Some("198.51.100.7")).await.unwrap().assert_error(403, "M_FORBIDDEN");
    assert_eq!(ask_behind(&edge, "127.0.0.2", b"", Some("198.51.100.8")).await.unwrap().status, 200);
}
