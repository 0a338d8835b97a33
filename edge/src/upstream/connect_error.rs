//! Tells a shard that is gone from one that is crowded, by the error of a connection that failed.

use std::error::Error as StdError;
use std::io;

use pingora_error::{Error, ErrorType};

/// Whether the connection failed for want of room (a full backlog, no descriptor left, no answer in time) rather than
/// because nothing listens there. A crowded shard is asked again; its health check decides whether it is well.
pub(crate) fn is_crowded(error: &Error) -> bool {
    if *error.etype() == ErrorType::ConnectTimedout {
        return true;
    }
    let Some(cause) = io_cause(error) else { return false };
    // A Unix socket whose backlog is full answers EAGAIN at once.
    lacks_descriptors(error) || matches!(cause.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// Whether this process has no descriptor left, which no shard can help.
pub(crate) fn lacks_descriptors(error: &Error) -> bool {
    io_cause(error).is_some_and(|cause| matches!(cause.raw_os_error(), Some(EMFILE | ENFILE)))
}

/// The same numbers on every system that the edge runs on.
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;

/// Pingora's error keeps its cause in a field and names no source, so the chain is walked by hand.
fn io_cause(error: &Error) -> Option<&io::Error> {
    let mut cause: Option<&(dyn StdError + 'static)> = error.cause.as_deref().map(|cause| cause as _);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref::<io::Error>() {
            return Some(found);
        }
        let pingora =
            error.downcast_ref::<Error>().or_else(|| error.downcast_ref::<Box<Error>>().map(|error| &**error));
        cause = match pingora {
            Some(error) => error.cause.as_deref().map(|cause| cause as _),
            None => error.source(),
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(kind: ErrorType, cause: io::Error) -> Box<Error> {
        Error::because(kind, "while connecting", cause).more_context("to a shard")
    }

    #[test]
    fn a_full_backlog_is_no_death() {
        assert!(is_crowded(&failed(ErrorType::ConnectError, io::ErrorKind::WouldBlock.into())));
        assert!(is_crowded(&failed(ErrorType::ConnectError, io::Error::from_raw_os_error(EMFILE))));
        assert!(is_crowded(&Error::explain(ErrorType::ConnectTimedout, "2 s")));
    }

    #[test]
    fn a_refusal_is() {
        assert!(!is_crowded(&failed(ErrorType::ConnectRefused, io::ErrorKind::ConnectionRefused.into())));
        assert!(!is_crowded(&failed(ErrorType::ConnectError, io::ErrorKind::NotFound.into())));
        assert!(!is_crowded(&Error::explain(ErrorType::ConnectError, "no cause")));
    }
}
