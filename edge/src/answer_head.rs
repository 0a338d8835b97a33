//! The head of an answer, before any protocol has a say in it.

use http::StatusCode;

/// Status and fields.
pub(crate) type AnswerHead = http::response::Parts;

/// A head without fields, with room for so many.
pub(crate) fn answer_head(status: StatusCode, fields: usize) -> AnswerHead {
    let mut head = http::Response::new(()).into_parts().0;
    head.status = status;
    head.headers.reserve(fields);
    head
}
