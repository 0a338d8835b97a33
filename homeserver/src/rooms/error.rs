//! Why an event cannot enter a room.

use std::sync::Arc;

use crate::{
    rules::{auth::AuthError, pdu::BuildError, resolve::ResolveError},
    storage::DbError,
    stream::CommitError,
};

/// Why an event of our own user was not appended. Nothing of it is stored.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    #[error("this server does not know the room")]
    UnknownRoom,
    #[error("the event is not in the room")]
    UnknownEvent,
    #[error("the alias {0} does not lead to the room")]
    BadAlias(String),
    /// The authorization rules refuse it.
    #[error(transparent)]
    Forbidden(#[from] AuthError),
    /// The event breaks the event format or is too large.
    #[error(transparent)]
    Format(#[from] BuildError),
    #[error("the room is too busy; every attempt lost against another one")]
    Busy,
    #[error("the room's state cannot be resolved")]
    Resolve(#[from] ResolveError),
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error(transparent)]
    Db(#[from] DbError),
}

/// Why an event of another server was not taken in.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    #[error("this server does not take part in the room")]
    UnknownRoom,
    /// One of its `prev_events`, of its `auth_events`, or of the state before it.
    #[error("event {0}, which it rests on, is not stored")]
    MissingPrev(ruma::OwnedEventId),
    #[error("the state before it is not known")]
    UnknownState,
    /// It cannot be part of the room, whatever is fetched. Nothing of it is stored.
    #[error("it cannot be part of the room: {0}")]
    Refused(&'static str),
    #[error("the room is too busy; every attempt lost against another one")]
    Busy,
    #[error("the room's state cannot be resolved")]
    Resolve(#[from] ResolveError),
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error(transparent)]
    Db(#[from] DbError),
}

impl From<Arc<DbError>> for AppendError {
    fn from(error: Arc<DbError>) -> Self {
        Self::Commit(CommitError::Db(error))
    }
}
