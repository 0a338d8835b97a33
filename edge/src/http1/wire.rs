//! What is written the same to a client and to a shard.

use bytes::{BufMut, BytesMut};

/// The end of a body in chunks, without fields behind it.
pub(crate) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// One field of a head, as a line.
pub(crate) fn put_field(out: &mut BytesMut, name: &str, value: &[u8]) {
    out.reserve(name.len() + value.len() + ": \r\n".len());
    out.put_slice(name.as_bytes());
    out.put_slice(b": ");
    out.put_slice(value);
    out.put_slice(b"\r\n");
}

/// A piece of a body as a chunk; nothing for an empty one, which would be the last.
pub(crate) fn put_chunk(out: &mut BytesMut, piece: &[u8]) {
    if !piece.is_empty() {
        out.put_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        out.put_slice(piece);
        out.put_slice(b"\r\n");
    }
}
