//! Streams of HTTP/2: what a client asks on one, and the way back.
//!
//! The frames are the `h2` library's. Pingora's session around them is left out, because it copies each head that it writes,
//! and ends an answer that broke off as if it were whole.

pub(crate) mod request;
