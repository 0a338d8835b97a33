//! HTTP/1.1 as it is on the wire, for the requests that are written as everybody writes them.
//!
//! What is not (an older version, a change of protocol, a header that could be read in two ways) is left to Pingora's parser,
//! byte for byte, so that there is one place that decides about it. What is read here allocates little: values of fields
//! are slices of what was received, and an answer leaves with its header in one piece.

pub(crate) mod body;
pub(crate) mod connection;
pub(crate) mod head;
pub(crate) mod wire;
