//! The W3C trace context (`traceparent`) as it travels from a client through the edge to a shard.

use std::fmt;
use std::num::{NonZeroU64, NonZeroU128};

use http::{HeaderMap, HeaderValue};
use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::contract::TRACEPARENT;
use crate::hex::Hex;

/// Which trace a request belongs to, and under which span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    trace_id: NonZeroU128,
    span_id: NonZeroU64,
    sampled: bool,
}

/// `00-<32 hex>-<16 hex>-<2 hex>`.
const LENGTH: usize = 55;

impl TraceParent {
    /// A trace that begins here. Both numbers come from the caller's source of chance.
    pub fn begin(trace_id: NonZeroU128, span_id: NonZeroU64) -> Self {
        Self { trace_id, span_id, sampled: false }
    }

    /// The same trace under another span.
    #[must_use]
    pub fn with_span(self, span_id: NonZeroU64) -> Self {
        Self { span_id, ..self }
    }

    /// Reads a header's value. Later versions are read as version 00 when they begin like it, as the W3C asks.
    pub fn parse(value: &str) -> Option<Self> {
        let (head, tail) = value.split_at_checked(LENGTH)?;
        let mut parts = head.split('-');
        let version = lower_hex(parts.next()?, 2)?;
        let trace_id = lower_hex(parts.next()?, 32)?;
        let span_id = lower_hex(parts.next()?, 16)?;
        let flags = lower_hex(parts.next()?, 2)?;
        let ends_well = tail.is_empty() || (version != 0 && tail.starts_with('-'));
        if version == 0xff || !ends_well || parts.next().is_some() {
            return None;
        }
        Some(Self {
            trace_id: NonZeroU128::new(trace_id)?,
            span_id: NonZeroU64::new(u64::try_from(span_id).ok()?)?,
            sampled: flags & 1 == 1,
        })
    }

    /// The one `traceparent` among `headers`.
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let value = values.next()?;
        if values.next().is_some() {
            return None;
        }
        Self::parse(value.to_str().ok()?)
    }

    /// The header's value.
    pub fn text(self) -> String {
        let trace_id = Hex::<32>::of(&self.trace_id.get().to_be_bytes());
        let span_id = Hex::<16>::of(&self.span_id.get().to_be_bytes());
        let flags = if self.sampled { "-01" } else { "-00" };
        let mut text = String::with_capacity(LENGTH);
        for part in ["00-", trace_id.as_str(), "-", span_id.as_str(), flags] {
            text.push_str(part);
        }
        text
    }

    /// Sets `traceparent` among `headers`.
    pub fn inject(self, headers: &mut HeaderMap) {
        if let Ok(value) = HeaderValue::from_str(&self.to_string()) {
            headers.insert(TRACEPARENT, value);
        }
    }

    /// Makes `span` a child of this one, when spans are exported at all.
    pub fn adopt(self, span: &Span) {
        let flags = if self.sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
        let context = SpanContext::new(
            TraceId::from_bytes(self.trace_id.get().to_be_bytes()),
            SpanId::from_bytes(self.span_id.get().to_be_bytes()),
            flags,
            true,
            TraceState::default(),
        );
        // Fails when nothing exports spans or the filter left this one out: there is nothing to adopt then.
        let _ = span.set_parent(Context::new().with_remote_span_context(context));
    }

    /// The context of `span`, when spans are exported.
    pub fn of_span(span: &Span) -> Option<Self> {
        let context = span.context();
        let context = context.span().span_context().clone();
        Some(Self {
            trace_id: NonZeroU128::new(u128::from_be_bytes(context.trace_id().to_bytes()))?,
            span_id: NonZeroU64::new(u64::from_be_bytes(context.span_id().to_bytes()))?,
            sampled: context.is_sampled(),
        })
    }

    /// The trace's id, for log lines.
    pub fn trace_id(self) -> u128 {
        self.trace_id.get()
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

fn lower_hex(text: &str, digits: usize) -> Option<u128> {
    let valid = text.len() == digits && text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    if valid { u128::from_str_radix(text, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_valid_context_survives_a_round_trip() {
        let parent = TraceParent::parse(VALID).unwrap();
        assert_eq!(parent.to_string(), VALID);
        let mut headers = HeaderMap::new();
        parent.inject(&mut headers);
        assert_eq!(TraceParent::from_headers(&headers), Some(parent));
    }

    #[test]
    fn what_the_w3c_forbids_is_none() {
        for value in [
            "",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319-cb7ad6b7169203331-01",
        ] {
            assert_eq!(TraceParent::parse(value), None, "{value}");
        }
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known() {
        assert!(TraceParent::parse(&format!("cc{}-more", &VALID[2..])).is_some());
    }
}
