//! Why something with other servers did not work, and whose fault it is.

use ruma::OwnedEventId;

use crate::{
    remote::RequestError,
    rooms::{AppendError, ReceiveError},
    rules::{auth::AuthError, pdu::PduError, room_version::UnsupportedRoomVersion},
    storage::DbError,
    stream::CommitError,
};

/// Why an event that another server sent was not taken in.
#[derive(Debug, thiserror::Error)]
pub enum ReceivePduError {
    #[error("this server is not in the room")]
    UnknownRoom,
    #[error("the room's access list excludes the server")]
    NotAdmitted,
    #[error("the event is of another room")]
    OtherRoom,
    /// Check 1 on receipt.
    #[error("the event is malformed")]
    Malformed(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Check 2 on receipt.
    #[error("the event's signatures are wrong or absent")]
    Signatures(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("event {0}, which it rests on, cannot be had")]
    Incomplete(OwnedEventId),
    #[error("an answer of the other server is needed")]
    Request(#[from] RequestError),
    /// Ours.
    #[error(transparent)]
    Room(#[from] ReceiveError),
    /// Ours.
    #[error(transparent)]
    Db(#[from] DbError),
}

impl ReceivePduError {
    /// Whether it is our fault, so that the other server has to send the event again.
    pub(super) fn is_ours(&self) -> bool {
        match self {
            Self::Db(_) => true,
            Self::Room(error) => {
                matches!(error, ReceiveError::Busy | ReceiveError::Commit(_) | ReceiveError::Db(_))
            }
            _ => false,
        }
    }
}

impl From<PduError> for ReceivePduError {
    fn from(error: PduError) -> Self {
        Self::Malformed(error.into())
    }
}

/// Why another server's request about a room was refused.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("this server does not know it")]
    NotFound,
    #[error("the server is not in the room")]
    NotInRoom,
    #[error("the room's access list excludes the server")]
    NotAdmitted,
    #[error("the request is about a user of another server")]
    OtherServersUser,
    #[error("the user is not of this server")]
    NoSuchUser,
    #[error("the room has version {0}, which the server does not support")]
    IncompatibleVersion(&'static str),
    #[error(transparent)]
    UnsupportedVersion(#[from] UnsupportedRoomVersion),
    /// The event is not what the endpoint takes.
    #[error("{0}")]
    WrongEvent(&'static str),
    #[error("the event cannot be taken in")]
    Event(#[source] ReceivePduError),
    #[error(transparent)]
    Forbidden(#[from] AuthError),
    /// Another server has to decide whether the room's conditions are met.
    #[error("this server cannot tell whether the conditions for joining are met")]
    UnableToAuthorise,
    /// The conditions are met, but no local user may invite.
    #[error("this server cannot let the user in")]
    UnableToGrant,
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error(transparent)]
    Db(#[from] DbError),
}

impl From<ReceivePduError> for ServeError {
    fn from(error: ReceivePduError) -> Self {
        match error {
            ReceivePduError::Db(error) => Self::Db(error),
            ReceivePduError::NotAdmitted => Self::NotAdmitted,
            ReceivePduError::UnknownRoom => Self::NotFound,
            other => Self::Event(other),
        }
    }
}

/// Why one of our users could not join, leave or knock through another server.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    #[error("no server is known that is in the room")]
    NoServer,
    /// What the last server that was asked said.
    #[error("no server let the user in")]
    Request(#[source] RequestError),
    #[error(transparent)]
    UnsupportedVersion(#[from] UnsupportedRoomVersion),
    /// The other server misbehaved.
    #[error("the other server's answer cannot be used: {0}")]
    Nonsense(&'static str),
    /// By the state that the other server told, the user may not do that.
    #[error(transparent)]
    Forbidden(#[from] AuthError),
    #[error("the event cannot be taken in")]
    Event(#[from] ReceivePduError),
    #[error("the event cannot be made")]
    Build(#[from] crate::rules::pdu::BuildError),
    #[error(transparent)]
    Room(#[from] ReceiveError),
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error(transparent)]
    Db(#[from] DbError),
}

/// Why a user of another server could not be invited.
#[derive(Debug, thiserror::Error)]
pub enum InviteError {
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The invited user's server refused or did not answer.
    #[error("the user's server did not take the invite")]
    Request(#[from] RequestError),
    #[error("the user's server signed something else")]
    Nonsense(#[source] ReceivePduError),
    /// The room moved on while the other server was asked.
    #[error(transparent)]
    Forbidden(AuthError),
    #[error(transparent)]
    Room(#[from] ReceiveError),
    #[error(transparent)]
    Db(#[from] DbError),
}

/// Why a question to another server has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    #[error("the other server does not know it")]
    NotFound,
    #[error("the other server cannot be asked")]
    Request(#[source] RequestError),
}

impl From<RequestError> for QueryError {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Refused { status, .. } if status == http::StatusCode::NOT_FOUND => Self::NotFound,
            other => Self::Request(other),
        }
    }
}
