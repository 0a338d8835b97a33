//! Why a membership stays as it is.

use crate::{
    federation::{HandshakeError, InviteError, QueryError},
    rooms::AppendError,
    storage::DbError,
    stream::CommitError,
};

/// Why a membership was not changed. Nothing of it is stored.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    #[error("this server does not know the room, and no other server was named that does")]
    UnknownRoom,
    #[error("nobody knows the alias")]
    UnknownAlias,
    #[error("the user is not in the room")]
    NotInRoom,
    #[error("the other user is not in the room")]
    TargetNotInRoom,
    #[error("the user is in the room already")]
    AlreadyJoined,
    #[error("the user is banned from the room")]
    Banned,
    #[error("the user is not banned")]
    NotBanned,
    #[error("the user is still in the room; leave it first")]
    StillInRoom,
    /// A restricted join that the user meets no condition of.
    #[error("the user is in none of the rooms whose members may join")]
    ConditionsNotMet,
    /// A restricted join that no server at hand can vouch for.
    #[error("no server that may invite can be reached")]
    CannotAuthorise,
    #[error("the room does not take knocks")]
    NoKnocks,
    /// Another server did not let the user in, or out.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// Another server did not take the invite.
    #[error(transparent)]
    Invite(#[from] InviteError),
    /// Another server could not be asked about its alias.
    #[error(transparent)]
    Query(#[from] QueryError),
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error(transparent)]
    Db(#[from] DbError),
}
