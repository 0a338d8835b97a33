//! Decides whether a request may pass: its shape, its class and the size that class allows. No I/O.

pub(crate) mod overload;
pub(crate) mod request_class;
pub(crate) mod request_shape;
