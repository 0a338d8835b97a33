//! Bytes that no client would send: they end their own connection and nothing else.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::tls;
use crate::edge::{Edge, Options};

/// Chance that comes again with the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % sides
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.roll(most)).map(|_| u8::try_from(self.roll(256)).unwrap()).collect()
    }

    /// Replaces, doubles or drops a few bytes.
    fn spoil(&mut self, text: &[u8]) -> Vec<u8> {
        let mut spoiled = text.to_vec();
        for _ in 0..=self.roll(6) {
            let at = self.roll(spoiled.len());
            match self.roll(3) {
                0 => spoiled[at] = u8::try_from(self.roll(256)).unwrap(),
                1 => spoiled.insert(at, spoiled[at]),
                _ => drop(spoiled.remove(at)),
            }
        }
        spoiled
    }
}

const HTTP1: &[u8] = b"PUT https://localhost/_matrix/client/v3/rooms/!a:b/send/m.room.message/1?a=b%2F HTTP/1.1\r\n\
    Host: localhost\r\nAuthorization: Bearer gh_00000000_x\r\nExpect: 100-continue\r\nUpgrade: websocket\r\n\
    Connection: keep-alive, upgrade\r\nTransfer-Encoding: chunked\r\nTraceparent: 00-00-00-00\r\n\r\n\
    5\r\n{\"a\":\r\n3;x=y\r\n1}\n\r\n0\r\nTrailer: x\r\n\r\n";

/// The preface, SETTINGS, HEADERS with a few indexed fields, DATA, RST_STREAM, WINDOW_UPDATE, PRIORITY and PING.
fn http2(dice: &mut Dice) -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
    let mut frames = vec![0, 0, 5, 1, 4, 0, 0, 0, 1, 0x83, 0x86, 0x84, 0x41, 0x00];
    frames.extend([0, 0, 2, 0, 0, 0, 0, 0, 1, b'x', b'y']);
    frames.extend([0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 8]);
    frames.extend([0, 0, 4, 8, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff]);
    frames.extend([0, 0, 5, 2, 0, 0, 0, 0, 3, 0, 0, 0, 3, 1]);
    frames.extend([0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
    bytes.extend(dice.spoil(&frames));
    bytes.extend(dice.bytes(64));
    bytes
}

async fn send<S: AsyncReadExt + AsyncWriteExt + Unpin>(mut stream: S, bytes: &[u8]) {
    // The edge may have cut the connection already, and need not answer.
    let _ = stream.write_all(bytes).await;
    let _ = stream.flush().await;
    let _ = tokio::time::timeout(Duration::from_millis(20), stream.read(&mut [0; 1024])).await;
}

#[tokio::test]
async fn nonsense_ends_its_own_connection_and_nothing_else() {
    let edge = Edge::with(Options { shards: 1, limits: "header_seconds = 2", ..Options::default() }).await;
    let mut dice = Dice(1);
    for _ in 0..60 {
        let bytes = dice.bytes(512);
        send(TcpStream::connect(edge.https).await.unwrap(), &bytes).await;
        send(TcpStream::connect(edge.http).await.unwrap(), &bytes).await;
        let bytes = dice.spoil(HTTP1);
        send(TcpStream::connect(edge.http).await.unwrap(), &bytes).await;
        send(tls(edge.https, &edge.ca, "localhost", &[b"http/1.1"]).await, &bytes).await;
        let bytes = http2(&mut dice);
        send(tls(edge.https, &edge.ca, "localhost", &[b"h2"]).await, &bytes).await;
    }
    assert_eq!(edge.ask("GET", "/_matrix/client/versions").await.status, 200);
    assert!(!edge.log().contains("panicked"), "{}", edge.log());
}
