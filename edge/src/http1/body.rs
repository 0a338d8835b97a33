//! Bodies of messages as they are on the wire.

use bytes::{Buf, Bytes, BytesMut};
use httparse::Status;

/// How much is read at once at least, and at most.
const FIRST_READ: usize = 4 * 1024;
const LARGEST_READ: usize = 64 * 1024;
/// So small a piece is copied, which costs less than another buffer for what comes next.
const COPIED_BYTES: usize = 1024;
/// The longest line that may stand before a chunk.
const MOST_CHUNK_LINE_BYTES: usize = 4 * 1024;
/// What may stand behind the last chunk.
const MOST_TRAILER_BYTES: usize = 64 * 1024;

/// What is still to come of a body (RFC 9112, section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Body {
    Nothing,
    Bytes(u64),
    /// The line that says how long the next chunk is.
    ChunkSize,
    /// So many bytes of a chunk.
    Chunk(u64),
    /// The line break behind a chunk.
    ChunkEnd,
    /// The fields behind the last chunk, which nobody reads.
    Trailer,
    UntilClose,
}

/// What cannot be the body that was announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unreadable(&'static str);

impl Body {
    /// One of so many bytes.
    pub(crate) fn of_length(bytes: u64) -> Self {
        if bytes == 0 { Self::Nothing } else { Self::Bytes(bytes) }
    }

    /// Whether all of it was taken.
    pub(crate) fn is_done(self) -> bool {
        self == Self::Nothing
    }

    /// How many bytes to read next.
    pub(crate) fn wanted(self) -> usize {
        match self {
            Self::Bytes(bytes) | Self::Chunk(bytes) => {
                usize::try_from(bytes).unwrap_or(LARGEST_READ).clamp(FIRST_READ, LARGEST_READ)
            }
            _ => FIRST_READ,
        }
    }

    /// Takes what of it is in `input`, and what stands between its pieces; `None` when more has to be read, or all is taken.
    ///
    /// # Errors
    /// When `input` holds something else.
    pub(crate) fn take(&mut self, input: &mut BytesMut) -> Result<Option<Bytes>, Unreadable> {
        self.pass_markers(input)?;
        let at_hand = input.len();
        let part = |bytes: u64| {
            let taken = at_hand.min(usize::try_from(bytes).unwrap_or(usize::MAX));
            (taken, bytes - taken as u64)
        };
        let (bytes, after) = match *self {
            Self::Bytes(bytes) => {
                let (taken, rest) = part(bytes);
                (taken, Self::of_length(rest))
            }
            Self::Chunk(bytes) => {
                let (taken, rest) = part(bytes);
                (taken, if rest == 0 { Self::ChunkEnd } else { Self::Chunk(rest) })
            }
            Self::UntilClose => (at_hand, Self::UntilClose),
            _ => return Ok(None),
        };
        if bytes == 0 {
            return Ok(None);
        }
        *self = after;
        let piece = if bytes <= COPIED_BYTES {
            let copy = Bytes::copy_from_slice(input.get(..bytes).unwrap_or_default());
            input.advance(bytes);
            copy
        } else {
            input.split_to(bytes).freeze()
        };
        self.pass_markers(input)?;
        Ok(Some(piece))
    }

    /// Passes what stands between the pieces of a body in chunks, as far as it is there.
    fn pass_markers(&mut self, input: &mut BytesMut) -> Result<(), Unreadable> {
        loop {
            match self {
                Self::ChunkEnd if input.len() >= 2 => {
                    if !input.starts_with(b"\r\n") {
                        return Err(Unreadable("a chunk does not end where it said"));
                    }
                    input.advance(2);
                    *self = Self::ChunkSize;
                }
                // The parser takes a line without digits for the last chunk.
                Self::ChunkSize if input.first().is_some_and(|first| !first.is_ascii_hexdigit()) => {
                    return Err(Unreadable("a chunk does not say how long it is"));
                }
                Self::ChunkSize => match httparse::parse_chunk_size(input) {
                    Ok(Status::Complete((line, size))) => {
                        input.advance(line);
                        *self = if size == 0 { Self::Trailer } else { Self::Chunk(size) };
                    }
                    Ok(Status::Partial) if input.len() <= MOST_CHUNK_LINE_BYTES => return Ok(()),
                    _ => return Err(Unreadable("a chunk does not say how long it is")),
                },
                Self::Trailer => match input.windows(2).position(|pair| pair == b"\r\n") {
                    Some(line) => {
                        input.advance(line + 2);
                        if line == 0 {
                            *self = Self::Nothing;
                        }
                    }
                    None if input.len() <= MOST_TRAILER_BYTES => return Ok(()),
                    None => return Err(Unreadable("a trailer is too long")),
                },
                _ => return Ok(()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(mut body: Body, wire: &[u8], step: usize) -> Result<(Vec<u8>, Body, usize), Unreadable> {
        let (mut input, mut read) = (BytesMut::new(), Vec::new());
        for part in wire.chunks(step) {
            input.extend_from_slice(part);
            while let Some(piece) = body.take(&mut input)? {
                read.extend_from_slice(&piece);
            }
        }
        Ok((read, body, input.len()))
    }

    #[test]
    fn a_body_is_whole_however_it_arrives() {
        for step in [1, 2, 3, 7, 100] {
            let chunks = b"5;ext=1\r\nhello\r\n1\r\n \r\n5\r\nworld\r\n0\r\nx-end: 1\r\n\r\nnext";
            assert_eq!(read(Body::ChunkSize, chunks, step).unwrap(), (b"hello world".to_vec(), Body::Nothing, 4));
            let length = Body::of_length(11);
            assert_eq!(read(length, b"hello world!", step).unwrap(), (b"hello world".to_vec(), Body::Nothing, 1));
            assert_eq!(read(Body::UntilClose, b"hi", step).unwrap(), (b"hi".to_vec(), Body::UntilClose, 0));
        }
        assert_eq!(read(Body::of_length(0), b"x", 1).unwrap(), (vec![], Body::Nothing, 1));
    }

    #[test]
    fn what_is_no_chunk_is_an_error() {
        for wire in ["5\r\nhello!\r\n", "x\r\n", "-1\r\n", "0x5\r\nhello\r\n", "+5\r\nhello\r\n", "\r\n"] {
            assert!(read(Body::ChunkSize, wire.as_bytes(), 100).is_err(), "{wire:?}");
        }
    }
}
