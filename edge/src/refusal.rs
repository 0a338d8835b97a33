//! The one place that says what each refusal and each failure is to a client.

use http::header::ALLOW;
use http::{HeaderValue, StatusCode};
use pingora_error::{Error, ErrorSource, ErrorType};

use crate::admission::Refused;
use crate::admission::request_shape::Misshapen;
use crate::exchange::Exchange;
use crate::reply::Reply;

/// What `Retry-After` says when no shard is healthy, in seconds.
const RETRY_UNAVAILABLE: u64 = 2;

pub(crate) fn misshapen(misshapen: Misshapen) -> Reply {
    match misshapen {
        Misshapen::TargetTooLong => {
            Reply::error(StatusCode::URI_TOO_LONG, "M_TOO_LARGE", "The request's path and query are too long")
        }
        Misshapen::HeaderTooLarge => Reply::error(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "M_TOO_LARGE",
            "The header of the request is too large",
        ),
        Misshapen::TooManyFields => Reply::error(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "M_TOO_LARGE",
            "The header of the request has too many fields",
        ),
        Misshapen::TargetNotText => {
            Reply::error(StatusCode::BAD_REQUEST, "M_UNRECOGNIZED", "The request's path or query is no URI")
        }
        Misshapen::Host => {
            Reply::error(StatusCode::BAD_REQUEST, "M_UNRECOGNIZED", "The request names no host that could be meant")
        }
    }
}

/// What a request gets that the policy does not let pass.
pub(crate) fn refused(refused: Refused) -> Reply {
    match refused {
        Refused::Banned => forbidden("Requests from this address are refused for now"),
        Refused::ServerBanned => forbidden("Requests from this server are refused"),
        Refused::Limited(wait) => Reply::limited(wait),
    }
}

fn forbidden(message: &str) -> Reply {
    Reply::error(StatusCode::FORBIDDEN, "M_FORBIDDEN", message)
}

pub(crate) fn unrecognized() -> Reply {
    Reply::error(StatusCode::NOT_FOUND, "M_UNRECOGNIZED", "Unrecognized request")
}

/// Two readers could see two ends of the request.
pub(crate) fn unclear_framing() -> Reply {
    Reply::error(StatusCode::BAD_REQUEST, "M_UNRECOGNIZED", "The request does not say clearly where it ends")
}

/// The admin API is closed to the client; with 404 as if there were none.
pub(crate) fn admin(status: StatusCode) -> Reply {
    if status == StatusCode::NOT_FOUND {
        return unrecognized();
    }
    Reply::error(status, "M_FORBIDDEN", "The admin API is not open to your address (admin.allow)")
}

/// The path could lead elsewhere than it seems to.
pub(crate) fn astray() -> Reply {
    Reply::error(StatusCode::BAD_REQUEST, "M_UNRECOGNIZED", "The path is not written as it is meant")
}

pub(crate) fn not_found() -> Reply {
    Reply::error(StatusCode::NOT_FOUND, "M_NOT_FOUND", "There is nothing here")
}

/// What is only there to be read is read with GET and HEAD.
pub(crate) fn read_only() -> Reply {
    Reply::error(StatusCode::METHOD_NOT_ALLOWED, "M_UNRECOGNIZED", "This can only be read")
        .with(ALLOW, HeaderValue::from_static("GET, HEAD, OPTIONS"))
}

/// Files cannot be read here, and the log says why.
pub(crate) fn unreadable() -> Reply {
    Reply::error(StatusCode::INTERNAL_SERVER_ERROR, "M_UNKNOWN", "The server cannot read its files")
}

pub(crate) fn too_large(exchange: &Exchange) -> Reply {
    let message = format!("The body may be at most {} bytes", exchange.body_limit);
    Reply::error(StatusCode::PAYLOAD_TOO_LARGE, "M_TOO_LARGE", &message)
}

fn too_slow() -> Reply {
    Reply::error(StatusCode::REQUEST_TIMEOUT, "M_UNKNOWN", "The body of the request took too long")
}

/// What a failed request gets; `None` when the client is gone.
pub(crate) fn failure(error: &Error, exchange: &Exchange) -> Option<Reply> {
    use ErrorType::{
        ConnectError, ConnectNoRoute, ConnectRefused, ConnectTimedout, ConnectionClosed, HTTPStatus, ReadError,
        ReadTimedout, WriteError, WriteTimedout,
    };
    let bad_request = |message| Reply::error(StatusCode::BAD_REQUEST, "M_UNKNOWN", message);
    let unavailable =
        || Reply::busy(exchange.retry_after.unwrap_or(RETRY_UNAVAILABLE), "The server is busy; try again soon");
    let bad_gateway = |status, message| Reply::error(status, "M_UNKNOWN", message);
    Some(match (error.etype(), error.esource()) {
        (HTTPStatus(413), _) => too_large(exchange),
        (HTTPStatus(408), _) => too_slow(),
        (ConnectError | ConnectNoRoute | ConnectRefused, _) if exchange.route.is_some() => {
            bad_gateway(StatusCode::BAD_GATEWAY, "The server behind this address cannot be reached")
        }
        (ConnectTimedout, _) | (ReadTimedout, ErrorSource::Upstream) if exchange.route.is_some() => {
            bad_gateway(StatusCode::GATEWAY_TIMEOUT, "The server behind this address takes too long")
        }
        (HTTPStatus(429), _) | (ConnectError | ConnectNoRoute | ConnectRefused | ConnectTimedout, _) => unavailable(),
        (ReadError | WriteError | ConnectionClosed | WriteTimedout, ErrorSource::Downstream) => return None,
        (ReadTimedout, ErrorSource::Downstream) => too_slow(),
        (_, ErrorSource::Downstream) => bad_request("The request is not HTTP as it should be"),
        (_, ErrorSource::Upstream) => Reply::error(
            StatusCode::BAD_GATEWAY,
            "M_UNKNOWN",
            "The server was interrupted; whether the request was carried out is unknown",
        ),
        (_, ErrorSource::Internal | ErrorSource::Unset) => {
            Reply::error(StatusCode::INTERNAL_SERVER_ERROR, "M_UNKNOWN", "The server failed")
        }
    })
}
