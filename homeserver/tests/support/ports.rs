//! Chooses ports for servers that tests start.

use std::net::TcpListener;

use crate::chance;

/// Below the range from which the system takes ports for outgoing connections, so that no connection sits on the port of
/// a server that is stopped and started again.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// A port of the loopback that nobody listens on. Somebody may take it before it is used; with thousands to choose from,
/// that is rare.
///
/// # Panics
/// When all are taken.
pub(crate) fn free_port() -> u16 {
    let size = u64::from(RANGE.end - RANGE.start);
    (0..1_000)
        .filter_map(|_| u16::try_from(chance::random() % size).ok())
        .map(|offset| RANGE.start + offset)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("one of a thousand ports is free")
}
