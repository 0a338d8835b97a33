//! Session tickets, whose keys change.
//!
//! rustls has keys that change as well, but only when a handshake comes after their time: on a server that nobody visits
//! they stay, and a ticket of any age would resume.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::Error;
use rustls::crypto::aws_lc_rs;
use rustls::server::ProducesTickets;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Tickets are made with a key for so long, and taken for as long again.
const KEY_HOURS: u32 = 6;

/// Makes tickets and takes them. The keys are in memory alone.
#[derive(Debug)]
pub(crate) struct Tickets(ArcSwap<Keys>);

/// What rustls makes from one key. It changes that by itself after the same time, still takes what it made before for
/// as long again, and by then it is gone from here.
type Key = Arc<dyn ProducesTickets>;

#[derive(Debug)]
struct Keys {
    current: Key,
    previous: Option<Key>,
}

impl Tickets {
    pub(crate) fn new() -> Result<Self, Error> {
        Ok(Self(ArcSwap::from_pointee(Keys { current: aws_lc_rs::Ticketer::new()?, previous: None })))
    }

    /// Changes the key whenever it is time, until `stop`.
    pub(crate) async fn change_keys(self: Arc<Self>, stop: CancellationToken) {
        let time = Duration::from_secs(u64::from(KEY_HOURS) * 3_600);
        while stop.run_until_cancelled(tokio::time::sleep(time)).await.is_some() {
            match aws_lc_rs::Ticketer::new() {
                Ok(current) => {
                    let previous = Some(self.0.load().current.clone());
                    self.0.store(Arc::new(Keys { current, previous }));
                }
                Err(error) => warn!(%error, "cannot change the keys of session tickets"),
            }
        }
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        2 * KEY_HOURS * 3_600
    }

    fn encrypt(&self, session: &[u8]) -> Option<Vec<u8>> {
        self.0.load().current.encrypt(session)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let keys = self.0.load();
        let by_previous = || keys.previous.as_ref()?.decrypt(ticket);
        keys.current.decrypt(ticket).or_else(by_previous)
    }
}

#[cfg(test)]
mod tests {
    use rustls::{ClientConfig, ClientConnection, HandshakeKind, ServerConnection, SupportedProtocolVersion};

    use super::*;
    use crate::listener::test_server::Server;

    const HOUR: Duration = Duration::from_secs(3_600);

    /// A client that has been here now, and has its tickets.
    fn visitor(server: &Server, version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
        let client = Arc::new(server.client(version));
        assert!(!resumes(server, &client));
        client
    }

    /// Shakes hands with a client; whether that resumed a session.
    fn resumes(server: &Server, client: &Arc<ClientConfig>) -> bool {
        let mut client = ClientConnection::new(client.clone(), "localhost".try_into().unwrap()).unwrap();
        let mut server = ServerConnection::new(server.config.clone()).unwrap();
        while client.wants_write() || server.wants_write() {
            let mut sent = Vec::new();
            client.write_tls(&mut sent).unwrap();
            server.read_tls(&mut sent.as_slice()).unwrap();
            server.process_new_packets().unwrap();
            let mut answered = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut answered).unwrap();
            }
            let mut answered = answered.as_slice();
            while !answered.is_empty() {
                client.read_tls(&mut answered).unwrap();
                client.process_new_packets().unwrap();
            }
        }
        assert!(!client.is_handshaking() && !server.is_handshaking());
        server.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    #[tokio::test(start_paused = true)]
    async fn a_ticket_resumes_until_its_key_was_changed_twice() {
        for version in rustls::ALL_VERSIONS {
            let tickets = Arc::new(Tickets::new().unwrap());
            let server = Server::new(tickets.clone());
            let (stop, began) = (CancellationToken::new(), tokio::time::Instant::now());
            let changing = tokio::spawn(tickets.change_keys(stop.clone()));
            let after = |hours: f32| tokio::time::sleep_until(began + HOUR.mul_f32(hours));
            // Each comes back once.
            let [soon, late, too_late] = [(); 3].map(|()| visitor(&server, version));
            after(5.9).await;
            assert!(resumes(&server, &soon));
            let second_key = {
                after(6.1).await;
                visitor(&server, version)
            };
            after(11.9).await;
            assert!(resumes(&server, &late), "with the key before");
            // Nobody came in between, and the key is gone all the same.
            after(12.1).await;
            assert!(!resumes(&server, &too_late));
            assert!(resumes(&server, &too_late), "with its new ticket");
            assert!(resumes(&server, &second_key));
            stop.cancel();
            changing.await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_need_come_for_a_key_to_go() {
        let tickets = Arc::new(Tickets::new().unwrap());
        let ticket = tickets.encrypt(b"a session").unwrap();
        assert_eq!(tickets.decrypt(&ticket).as_deref(), Some(&b"a session"[..]));
        let _changing = tokio::spawn(tickets.clone().change_keys(CancellationToken::new()));
        tokio::time::sleep(HOUR * 13).await;
        assert_eq!(tickets.decrypt(&ticket), None);
    }
}
