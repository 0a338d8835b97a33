//! TLS with one client, apart from where its bytes come from and go to: rustls keeps the keys, and no buffers. Those that it
//! would bring along hold 4 KiB for each connection, idle or not.

use std::cell::RefCell;
use std::io::IoSlice;
use std::sync::Arc;

use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, InsufficientSizeError, UnbufferedStatus, WriteTraffic,
};
use rustls::{Error, ProtocolVersion, ServerConfig};
use tokio::io::ReadBuf;

use super::gathered::Unsent;

/// What a session begins with: the type of a record that holds a handshake (RFC 8446, section 5.1).
const TLS_HANDSHAKE: u8 = 22;
/// The most plaintext that a record holds (RFC 8446, section 5.1).
const RECORD_BYTES: usize = 16 * 1024;
/// A record is larger than what it holds by no more than this (RFC 8446, section 5.2).
const RECORD_OVERHEAD: usize = 5 + 256;
/// Pieces that are not larger are put together into one record: to copy them is cheaper than one more.
const JOINED_BYTES: usize = 4 * 1024;
/// About so much is encrypted at once. What is left is for the next call: it need not be in memory twice.
const MOST_AT_ONCE: usize = 2 * RECORD_BYTES;
/// The most that a record takes before it is decrypted (RFC 5246, section 6.2.3, which allows more than RFC 8446).
const MOST_RECEIVED: usize = 5 + RECORD_BYTES + 2048;
/// So much of a handshake's message in several records is kept until the rest comes.
const MOST_HANDSHAKE: usize = 64 * 1024;

/// The alert with which rustls answers when no certificate fits: a record of TLS 1.2 with two bytes, fatal and
/// `access_denied`. Nothing else is ever the first thing that is written.
const NO_CERTIFICATE: [u8; 7] = [21, 3, 3, 0, 2, 2, 49];
/// The one that says what is wrong: `unrecognized_name` (RFC 6066, section 3). rustls has no way of being told so.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

thread_local! {
    /// Where pieces are put together that are written at once.
    static JOINED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Why a session does not go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    /// What came is something else than TLS.
    #[error("this is no TLS")]
    Garbage,
    #[error(transparent)]
    Tls(#[from] Error),
    #[error("a message is too large")]
    TooLarge,
    #[error("the session has ended")]
    Ended,
}

/// One session, and what it has read and not handed on.
pub(super) struct Session {
    tls: UnbufferedServerConnection,
    /// What was received of a record that is not whole yet, or of a handshake message.
    kept: Vec<u8>,
    /// What was decrypted and is for the reader; of that, `taken` bytes are his already.
    plain: Vec<u8>,
    taken: usize,
    has_heard: bool,
    has_spoken: bool,
    /// Whether the client said that nothing more comes.
    has_client_closed: bool,
    has_closed: bool,
    is_broken: bool,
}

impl Session {
    /// # Errors
    /// Those of rustls, for a configuration that contradicts itself.
    pub(super) fn new(config: Arc<ServerConfig>) -> Result<Self, Error> {
        Ok(Self {
            tls: UnbufferedServerConnection::new(config)?,
            kept: Vec::new(),
            plain: Vec::new(),
            taken: 0,
            has_heard: false,
            has_spoken: false,
            has_client_closed: false,
            has_closed: false,
            is_broken: false,
        })
    }

    /// What was agreed on to speak.
    pub(super) fn protocol(&self) -> Option<&[u8]> {
        self.tls.alpn_protocol()
    }

    /// The version of TLS, once it is agreed on.
    pub(super) fn version(&self) -> Option<ProtocolVersion> {
        self.tls.protocol_version()
    }

    /// Whether hands are still being shaken.
    pub(super) fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    /// Whether the client said that nothing more comes.
    pub(super) fn has_client_closed(&self) -> bool {
        self.has_client_closed
    }

    /// Whether it failed, so that nothing more comes of it.
    pub(super) fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// Whether something is there for the reader.
    pub(super) fn has_plain(&self) -> bool {
        self.taken < self.plain.len()
    }

    /// What was received and is to stand before what is received next.
    pub(super) fn kept(&self) -> &[u8] {
        &self.kept
    }

    /// Hands on what is there for the reader, as far as there is room.
    pub(super) fn take_plain(&mut self, reader: &mut ReadBuf<'_>) {
        let rest = self.plain.get(self.taken..).unwrap_or_default();
        let bytes = rest.len().min(reader.remaining());
        reader.put_slice(&rest[..bytes]);
        self.taken += bytes;
        if self.taken == self.plain.len() {
            (self.plain, self.taken) = (Vec::new(), 0);
        }
    }

    /// Takes `received`, which begins with what is [kept](Self::kept), and decrypts all of it: into `reader` as far as there is
    /// room, the rest waits. What is to be answered is put into `out`, also when it fails.
    ///
    /// # Errors
    /// When what came is not what TLS expects. The session is of no use then.
    pub(super) fn receive(
        &mut self,
        received: &mut [u8],
        reader: &mut ReadBuf<'_>,
        out: &mut Unsent,
    ) -> Result<(), SessionError> {
        if self.is_broken {
            return Err(SessionError::Ended);
        }
        if self.has_closed {
            // Whatever the client still had to say, it can get no answer.
            return Ok(());
        }
        if !std::mem::replace(&mut self.has_heard, true) && received.first() != Some(&TLS_HANDSHAKE) {
            self.is_broken = true;
            return Err(SessionError::Garbage);
        }
        let (done, outcome) = self.decrypt(received, reader, out);
        let rest = received.get_mut(done..).unwrap_or_default();
        if let Err(error) = outcome {
            self.is_broken = true;
            // The alert that says so. Behind it rustls would go on with what it was given, and fail once more.
            while self.tls.wants_write() {
                let Ok(ConnectionState::EncodeTlsData(message)) = self.tls.process_tls_records(rest).state else {
                    break;
                };
                put_message(message, out, &mut self.has_spoken);
            }
            return Err(error.into());
        }
        // Behind its end a client has nothing to say.
        let rest = if self.has_client_closed { &[] } else { &*rest };
        if rest.len() > if self.is_handshaking() { MOST_HANDSHAKE } else { MOST_RECEIVED } {
            self.is_broken = true;
            return Err(SessionError::TooLarge);
        }
        self.kept = rest.to_vec();
        Ok(())
    }

    /// Has rustls take what it can of `received`; returns how much that was, and how it ended.
    fn decrypt(
        &mut self,
        received: &mut [u8],
        reader: &mut ReadBuf<'_>,
        out: &mut Unsent,
    ) -> (usize, Result<(), Error>) {
        let mut done = 0;
        loop {
            let UnbufferedStatus { discard, state } = self.tls.process_tls_records(&mut received[done..]);
            done += discard;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = match record {
                            Ok(record) => record,
                            Err(error) => return (done, Err(error)),
                        };
                        done += record.discard;
                        let room = if self.plain.is_empty() { reader.remaining() } else { 0 };
                        let (now, later) = record.payload.split_at(room.min(record.payload.len()));
                        reader.put_slice(now);
                        self.plain.extend_from_slice(later);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(message)) => put_message(message, out, &mut self.has_spoken),
                Ok(ConnectionState::TransmitTlsData(message)) => message.done(),
                Ok(ConnectionState::PeerClosed) => self.has_client_closed = true,
                Ok(_) => return (done, Ok(())),
                Err(error) => return (done, Err(error)),
            }
        }
    }

    /// Encrypts what stands at the beginning of `pieces` into one record or some, and puts them into `out`; returns how much
    /// that was.
    ///
    /// # Errors
    /// When the session does not go on.
    pub(super) fn encrypt(&mut self, pieces: &[IoSlice<'_>], out: &mut Unsent) -> Result<usize, SessionError> {
        if let [only] = pieces {
            return self.encrypt_plain(only, out);
        }
        JOINED.with_borrow_mut(|joined| {
            joined.clear();
            let mut said = 0;
            for piece in pieces {
                let joins = piece.len() <= JOINED_BYTES;
                if !joins || joined.len() + piece.len() > RECORD_BYTES {
                    said += self.encrypt_plain(joined, out)?;
                    joined.clear();
                }
                if said >= MOST_AT_ONCE {
                    break;
                } else if joins {
                    joined.extend_from_slice(piece);
                } else {
                    let part = self.encrypt_plain(piece, out)?;
                    said += part;
                    if part < piece.len() {
                        break;
                    }
                }
            }
            Ok(said + self.encrypt_plain(joined, out)?)
        })
    }

    fn encrypt_plain(&mut self, plain: &[u8], out: &mut Unsent) -> Result<usize, SessionError> {
        let plain = &plain[..plain.len().min(MOST_AT_ONCE)];
        if plain.is_empty() {
            return Ok(0);
        }
        let records = plain.len().div_ceil(RECORD_BYTES);
        let encrypt = |mut traffic: WriteTraffic<'_, _>, room: &mut [u8]| traffic.encrypt(plain, room);
        self.write(plain.len() + records * RECORD_OVERHEAD, encrypt, out)?;
        Ok(plain.len())
    }

    /// Says that nothing more comes (RFC 8446, section 6.1).
    ///
    /// # Errors
    /// When the session does not go on.
    pub(super) fn close(&mut self, out: &mut Unsent) -> Result<(), SessionError> {
        if self.has_closed {
            return Ok(());
        }
        let close = |mut traffic: WriteTraffic<'_, _>, room: &mut [u8]| traffic.queue_close_notify(room);
        self.write(RECORD_OVERHEAD, close, out)?;
        self.has_closed = true;
        Ok(())
    }

    /// Has `write` write into `out`, where it finds so many bytes of room, or as many as it asks for.
    fn write<W>(&mut self, mut room: usize, write: W, out: &mut Unsent) -> Result<(), SessionError>
    where
        W: Fn(WriteTraffic<'_, rustls::server::ServerConnectionData>, &mut [u8]) -> Result<usize, EncryptError>,
    {
        if self.is_broken || self.has_closed {
            return Err(SessionError::Ended);
        }
        loop {
            // Of what is kept no record is whole, so nothing is read here.
            match self.tls.process_tls_records(&mut self.kept).state? {
                ConnectionState::WriteTraffic(traffic) => match write(traffic, out.room(room)) {
                    Ok(bytes) => {
                        out.add(bytes);
                        return Ok(());
                    }
                    Err(EncryptError::InsufficientSize(InsufficientSizeError { required_size })) => {
                        room = required_size;
                    }
                    Err(EncryptError::EncryptExhausted) => return Err(SessionError::Ended),
                },
                ConnectionState::EncodeTlsData(message) => put_message(message, out, &mut self.has_spoken),
                ConnectionState::TransmitTlsData(message) => message.done(),
                _ => return Err(SessionError::Ended),
            }
        }
    }
}

/// Puts a message of TLS itself into `out`.
fn put_message<D>(mut message: EncodeTlsData<'_, D>, out: &mut Unsent, has_spoken: &mut bool) {
    let mut room = 512;
    loop {
        let space = out.room(room);
        match message.encode(space) {
            Ok(bytes) => {
                if !*has_spoken && space[..bytes] == NO_CERTIFICATE {
                    space[..bytes].copy_from_slice(&UNRECOGNIZED_NAME);
                }
                *has_spoken = true;
                return out.add(bytes);
            }
            Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) => room = required_size,
            Err(EncodeError::AlreadyEncoded) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use rustls::{AlertDescription, ClientConnection};

    use super::*;
    use crate::listener::test_server::Server;
    use crate::listener::tickets::Tickets;

    fn server() -> Server {
        Server::new(Arc::new(Tickets::new().unwrap()))
    }

    /// Both ends of a session, whose bytes go to and fro in pieces of some size.
    struct Ends {
        client: ClientConnection,
        edge: Session,
        step: usize,
        /// What the client said, as its reader got it.
        heard: Vec<u8>,
        out: Unsent,
    }

    impl Ends {
        fn new(
            server: &Server,
            version: &'static rustls::SupportedProtocolVersion,
            step: usize,
            largest: Option<usize>,
        ) -> Self {
            let mut config = server.client(version);
            config.max_fragment_size = largest;
            let client = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
            let edge = Session::new(server.config.clone()).unwrap();
            Self { client, edge, step, heard: Vec::new(), out: Unsent::default() }
        }

        /// What the client has to send.
        fn sent(&mut self) -> Vec<u8> {
            let mut sent = Vec::new();
            while self.client.wants_write() {
                self.client.write_tls(&mut sent).unwrap();
            }
            sent
        }

        fn deliver(&mut self, sent: &[u8]) -> Result<(), SessionError> {
            for piece in sent.chunks(self.step) {
                let mut received = self.edge.kept().to_vec();
                received.extend_from_slice(piece);
                let mut room = [0; 100];
                let mut reader = ReadBuf::new(&mut room);
                self.edge.receive(&mut received, &mut reader, &mut self.out)?;
                self.heard.extend_from_slice(reader.filled());
                while self.edge.has_plain() {
                    let mut reader = ReadBuf::new(&mut room);
                    self.edge.take_plain(&mut reader);
                    self.heard.extend_from_slice(reader.filled());
                }
            }
            Ok(())
        }

        /// Hands to the client what the edge has to say; returns what it is for the client's reader.
        fn answered(&mut self) -> Result<Vec<u8>, Error> {
            let answered = self.out.bytes().to_vec();
            self.out.advance(answered.len());
            let (mut answered, mut heard) = (answered.as_slice(), Vec::new());
            while !answered.is_empty() {
                self.client.read_tls(&mut answered).unwrap();
                self.client.process_new_packets()?;
                // Without an end of the session there is an error at the end of what is there.
                let _ = self.client.reader().read_to_end(&mut heard);
            }
            Ok(heard)
        }

        fn shake_hands(&mut self) {
            while self.client.is_handshaking() || self.edge.is_handshaking() {
                let sent = self.sent();
                self.deliver(&sent).unwrap();
                self.answered().unwrap();
            }
        }

        fn say(&mut self, words: &[u8]) {
            self.client.writer().write_all(words).unwrap();
            let sent = self.sent();
            self.deliver(&sent).unwrap();
        }
    }

    #[test]
    fn what_is_said_is_heard_however_it_arrives() {
        let server = server();
        let words: Vec<u8> = (0..60_000_u32).map(|number| number as u8).collect();
        for version in rustls::ALL_VERSIONS {
            for (step, largest) in [(1, Some(64)), (1, None), (7, Some(200)), (1_500, None), (100_000, None)] {
                let mut ends = Ends::new(&server, version, step, largest);
                ends.shake_hands();
                ends.say(&words);
                assert!(ends.heard == words);
                let (first, second) = words.split_at(100);
                for pieces in [
                    &[&words[..]][..],
                    &[first, second],
                    &[second, first],
                    &[b"", first, b"", first],
                    &[first, &second[..16_000], first, &second[..20_000], first],
                    &[&second[..4_000]; 6],
                ] {
                    let parts: Vec<_> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
                    let said = ends.edge.encrypt(&parts, &mut ends.out).unwrap();
                    assert!(said > 0);
                    assert!(ends.answered().unwrap() == pieces.concat()[..said]);
                }
                let Ends { edge, out, .. } = &ends;
                assert_eq!((edge.kept.capacity(), edge.plain.capacity(), out.bytes().len()), (0, 0, 0));
            }
        }
    }

    #[test]
    fn keys_are_changed_when_the_client_asks() {
        let mut ends = Ends::new(&server(), &rustls::version::TLS13, 100, None);
        ends.shake_hands();
        for round in 0..3 {
            ends.client.refresh_traffic_keys().unwrap();
            ends.say(b"with new keys");
            assert_eq!(ends.heard.len(), 13 * (round + 1));
            ends.edge.encrypt(&[IoSlice::new(b"so be it")], &mut ends.out).unwrap();
            assert_eq!(ends.answered().unwrap(), b"so be it");
        }
    }

    #[test]
    fn each_side_closes_for_itself() {
        for version in rustls::ALL_VERSIONS {
            let mut ends = Ends::new(&server(), version, 100, None);
            ends.shake_hands();
            ends.client.send_close_notify();
            let mut sent = ends.sent();
            sent.extend_from_slice(&[9; 100_000]);
            ends.deliver(&sent).unwrap();
            assert!(ends.edge.has_client_closed() && ends.edge.kept().is_empty());
            ends.edge.encrypt(&[IoSlice::new(b"one more thing")], &mut ends.out).unwrap();
            assert_eq!(ends.answered().unwrap(), b"one more thing");
            ends.edge.close(&mut ends.out).unwrap();
            ends.edge.close(&mut ends.out).unwrap();
            ends.answered().unwrap();
            assert!(ends.client.process_new_packets().unwrap().peer_has_closed());
            assert!(matches!(ends.edge.encrypt(&[IoSlice::new(b"x")], &mut ends.out), Err(SessionError::Ended)));
            ends.deliver(&[23, 3, 3, 0, 2, 1, 1]).unwrap();
            assert!(ends.out.bytes().is_empty());
        }
    }

    #[test]
    fn what_was_changed_on_its_way_is_refused_with_an_alert() {
        for version in rustls::ALL_VERSIONS {
            let mut ends = Ends::new(&server(), version, 100_000, None);
            ends.shake_hands();
            ends.client.writer().write_all(b"a request").unwrap();
            let mut sent = ends.sent();
            *sent.last_mut().unwrap() ^= 1;
            assert!(matches!(ends.deliver(&sent), Err(SessionError::Tls(Error::DecryptError))));
            assert_eq!(ends.answered(), Err(Error::AlertReceived(AlertDescription::BadRecordMac)));
            assert!(ends.heard.is_empty());
            assert!(matches!(ends.deliver(&sent), Err(SessionError::Ended)));
        }
    }

    #[test]
    fn what_is_no_tls_gets_no_answer() {
        let mut ends = Ends::new(&server(), &rustls::version::TLS13, 1, None);
        assert!(matches!(ends.deliver(b"GET / HTTP/1.1\r\n"), Err(SessionError::Garbage)));
        assert!(ends.out.bytes().is_empty());
    }

    #[test]
    fn a_message_has_a_largest_size() {
        let mut ends = Ends::new(&server(), &rustls::version::TLS13, 1_000, None);
        // A ClientHello that will have 16 MB, in records of 16 KiB.
        let mut record = vec![22, 3, 1, 0x40, 0];
        record.extend([1, 0xff, 0xff, 0xff].iter().chain(&[0; RECORD_BYTES - 4]));
        let mut sent = record.clone();
        record[5..9].fill(0);
        (0..20).for_each(|_| sent.extend_from_slice(&record));
        assert!(ends.deliver(&sent).is_err());
        assert!(ends.edge.kept().len() <= MOST_HANDSHAKE);
    }

    /// Whatever a client sends, the edge answers or refuses it.
    #[test]
    fn no_bytes_stop_the_edge() {
        let server = server();
        let mut number = 1_u64;
        let mut below = |limit: usize| {
            number = number.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            (number >> 33) as usize % limit.max(1)
        };
        for round in 0..600 {
            let largest = (below(2) == 0).then_some(100);
            let mut ends = Ends::new(&server, rustls::ALL_VERSIONS[round % 2], 1 + below(600), largest);
            let spoilt_flight = below(4);
            for flight in 0..4 {
                if !ends.client.is_handshaking() {
                    ends.client.writer().write_all(&[7; 3_000]).unwrap();
                }
                let mut sent = ends.sent();
                if flight == spoilt_flight && !sent.is_empty() {
                    for _ in 0..=below(3) {
                        let at = below(sent.len());
                        match below(4) {
                            0 => sent[at] ^= 1 << below(8),
                            1 => sent.truncate(at + 1),
                            2 => sent.insert(at, below(256) as u8),
                            _ => drop(sent.splice(at..at, [23, 3, 3, 0, 0])),
                        }
                    }
                }
                let answered = ends.deliver(&sent).and_then(|()| {
                    let _ = ends.edge.encrypt(&[IoSlice::new(b"answer")], &mut ends.out);
                    ends.answered().map_err(SessionError::from)
                });
                if answered.is_err() {
                    let _ = ends.edge.close(&mut ends.out);
                    break;
                }
            }
        }
    }
}
