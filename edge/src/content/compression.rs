//! Which answers are compressed on their way to the client, and how.
//!
//! Pingora's encoders do the work. Its module that drives them does not know weights in `Accept-Encoding`, nor a smallest
//! size, and would touch every answer. Only answers that announce their length are compressed: those are complete when they
//! begin, so nothing that trickles (a stream of events) is ever held back by an encoder.

use std::io::Write;

use brotli::CompressorWriter;
use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG,
    TRANSFER_ENCODING, VARY,
};
use http::{HeaderName, HeaderValue, Method, StatusCode, Version};
use pingora_core::protocols::http::compression::{Algorithm, COMPRESSION_ERROR, Encode};
use pingora_error::{OrErr, Result};
use pingora_http::RequestHeader;

use super::media_type::is_compressible;
use crate::answer_head::{AnswerHead, Fields};
use crate::routing::accept::{Coding, acceptable};

/// What is compressed, and how hard.
#[derive(Debug, Clone)]
pub(crate) struct Compression {
    /// Best first.
    offered: Vec<Coding>,
    /// With their levels.
    codings: Vec<(Coding, u32)>,
    min_bytes: u64,
}

/// The encoder of one answer.
pub(crate) struct Encoder(Kind);

enum Kind {
    Pingora(Box<dyn Encode + Send + Sync>),
    /// Pingora's own flushes at the end and lacks the last block, which strict clients miss. `None` once it has ended.
    Brotli(Option<Box<CompressorWriter<Vec<u8>>>>),
}

/// As Pingora chooses them: what the encoder gathers before it writes, and how far it looks back (2^19 bytes).
const BROTLI_BUFFER_BYTES: usize = 4_096;
const BROTLI_WINDOW: u32 = 19;

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Encoder")
    }
}

impl Compression {
    /// `level` is 0 for a coding that is not used.
    pub(crate) fn new(level: impl Fn(Coding) -> u32, min_bytes: u64) -> Self {
        let codings = Coding::ALL.map(|coding| (coding, level(coding)));
        let codings: Vec<_> = codings.into_iter().filter(|(_, level)| *level > 0).collect();
        Self { offered: codings.iter().map(|(coding, _)| *coding).collect(), codings, min_bytes }
    }

    /// Decides about an answer, and makes its header that of the compressed answer. `None` leaves the body as it is.
    pub(crate) fn begin(&self, request: &RequestHeader, response: &mut AnswerHead) -> Option<Encoder> {
        if self.codings.is_empty() || !self.is_worth_it(response) {
            return None;
        }
        let fields = &mut response.fields;
        vary_by_encoding(fields);
        if request.method == Method::HEAD {
            return None;
        }
        let accept = request.headers.get(ACCEPT_ENCODING).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
        let coding = acceptable(accept, &self.offered).first().copied()?;
        let level = self.codings.iter().find(|(other, _)| *other == coding).map_or(0, |(_, level)| *level);
        let encoder = encoder(coding, level)?;
        fields.remove(&CONTENT_LENGTH);
        fields.remove(&ACCEPT_RANGES);
        fields.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.as_str()));
        if request.version != Version::HTTP_2 {
            fields.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        weaken_etag(fields);
        Some(encoder)
    }

    fn is_worth_it(&self, response: &AnswerHead) -> bool {
        let fields = &response.fields;
        let whole = response.status.is_success()
            && !matches!(response.status, StatusCode::NO_CONTENT | StatusCode::PARTIAL_CONTENT)
            && !fields.contains(&CONTENT_RANGE);
        let may_change = !fields.text(&CACHE_CONTROL).contains("no-transform") && !fields.contains(&CONTENT_ENCODING);
        let length = fields.text(&CONTENT_LENGTH).parse::<u64>();
        whole
            && may_change
            && length.is_ok_and(|length| length >= self.min_bytes)
            && is_compressible(fields.text(&CONTENT_TYPE))
    }
}

impl Encoder {
    /// Replaces a piece of the body by its compressed form, which may still be nothing.
    pub(crate) fn encode(&mut self, body: &mut Option<Bytes>, ends: bool) -> Result<()> {
        let piece = body.take().unwrap_or_default();
        if piece.is_empty() && !ends {
            return Ok(());
        }
        let encoded = match &mut self.0 {
            Kind::Pingora(encoder) => encoder.encode(&piece, ends)?,
            Kind::Brotli(writer) => encode_brotli(writer, &piece, ends)?,
        };
        *body = Some(encoded).filter(|encoded| !encoded.is_empty());
        Ok(())
    }
}

fn encoder(coding: Coding, level: u32) -> Option<Encoder> {
    let algorithm = match coding {
        Coding::Zstd => Algorithm::Zstd,
        Coding::Gzip => Algorithm::Gzip,
        Coding::Brotli => {
            let writer = CompressorWriter::new(Vec::new(), BROTLI_BUFFER_BYTES, level, BROTLI_WINDOW);
            return Some(Encoder(Kind::Brotli(Some(Box::new(writer)))));
        }
    };
    algorithm.compressor(level).map(|encoder| Encoder(Kind::Pingora(encoder)))
}

fn encode_brotli(writer: &mut Option<Box<CompressorWriter<Vec<u8>>>>, piece: &[u8], ends: bool) -> Result<Bytes> {
    let Some(open) = writer else { return Ok(Bytes::new()) };
    open.write_all(piece).or_err(COMPRESSION_ERROR, "while compressing with Brotli")?;
    if ends && let Some(open) = writer.take() {
        return Ok(open.into_inner().into());
    }
    Ok(writer.as_mut().map(|open| std::mem::take(open.get_mut())).unwrap_or_default().into())
}

/// Says so to caches, beside what the answer says already.
fn vary_by_encoding(fields: &mut Fields) {
    let says = |(name, value): (&HeaderName, &[u8])| {
        let mut named = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        *name == VARY && named.any(|name| name == b"*" || name.eq_ignore_ascii_case(b"accept-encoding"))
    };
    if !fields.iter().any(says) {
        fields.append(VARY, HeaderValue::from_static("accept-encoding"));
    }
}

/// The bytes are no longer those that a strong tag vouches for (RFC 9110, section 8.8.1).
fn weaken_etag(fields: &mut Fields) {
    let strong = fields.get(&ETAG).filter(|tag| !tag.starts_with(b"W/"));
    if let Some(weak) = strong.and_then(|tag| HeaderValue::from_bytes(&[b"W/", tag].concat()).ok()) {
        fields.insert(ETAG, weak);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(accept: &str, headers: &[(&'static str, &str)]) -> (bool, AnswerHead) {
        let compression = Compression::new(|_| 1, 1_000);
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        request.insert_header(ACCEPT_ENCODING, accept).unwrap();
        let mut response = AnswerHead::new(StatusCode::OK, 0);
        for (name, value) in headers {
            response.fields.insert(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        let encoder = compression.begin(&request, &mut response);
        (encoder.is_some(), response)
    }

    const JSON: (&str, &str) = ("content-type", "application/json");
    const LONG: (&str, &str) = ("content-length", "1000");

    #[test]
    fn a_long_json_answer_is_compressed_for_who_asks() {
        let (compressed, response) =
            begin("br, zstd;q=0.9", &[JSON, LONG, ("etag", "\"x\""), ("accept-ranges", "bytes")]);
        assert!(compressed);
        let field =
            |name| response.fields.get(&HeaderName::from_static(name)).map(|value| str::from_utf8(value).unwrap());
        assert_eq!(field("content-encoding"), Some("br"));
        assert_eq!(field("etag"), Some("W/\"x\""));
        assert_eq!(field("vary"), Some("accept-encoding"));
        assert_eq!((field("content-length"), field("accept-ranges")), (None, None));
        assert_eq!(field("transfer-encoding"), Some("chunked"));
    }

    #[test]
    fn what_must_stay_as_it_is_does() {
        for headers in [
            vec![JSON],
            vec![JSON, ("content-length", "999")],
            vec![LONG, ("content-type", "image/png")],
            vec![LONG, ("content-type", "text/event-stream")],
            vec![JSON, LONG, ("content-encoding", "gzip")],
            vec![JSON, LONG, ("cache-control", "no-transform")],
            vec![JSON, LONG, ("content-range", "bytes 0-1/2")],
        ] {
            let (compressed, response) = begin("gzip", &headers);
            assert!(!compressed, "{headers:?}");
            assert!(!response.fields.contains(&VARY), "{headers:?}");
        }
        let (compressed, response) = begin("identity", &[JSON, LONG]);
        assert!(!compressed && response.fields.contains(&VARY), "another client gets another answer");
    }
}
