//! Joining, leaving, inviting and the rest. The specification, client-server API, "Room membership".

use axum::{Router, extract::State};
use ruma::{
    OwnedRoomId, OwnedRoomOrAliasId, OwnedServerName,
    api::client::{
        knock::knock_room::v3 as knock_room,
        membership::{
            ban_user::v3 as ban_user, forget_room::v3 as forget_room, invite_user::v3 as invite_user,
            join_room_by_id::v3 as join_by_id, join_room_by_id_or_alias::v3 as join_by_alias,
            kick_user::v3 as kick_user, leave_room::v3 as leave_room, unban_user::v3 as unban_user,
        },
    },
};

use crate::{
    api::{ApiError, ApiState, Ruma, RumaRouter, caller::Requester},
    membership::Membership,
};

pub(super) fn routes() -> Router<ApiState> {
    Router::new()
        .endpoint::<ban_user::Request, _, _>(ban)
        .endpoint::<forget_room::Request, _, _>(forget)
        .endpoint::<invite_user::Request, _, _>(invite)
        .endpoint::<join_by_alias::Request, _, _>(join_alias)
        .endpoint::<join_by_id::Request, _, _>(join_id)
        .endpoint::<kick_user::Request, _, _>(kick)
        .endpoint::<knock_room::Request, _, _>(knock)
        .endpoint::<leave_room::Request, _, _>(leave)
        .endpoint::<unban_user::Request, _, _>(unban)
}

async fn join_id(
    State(membership): State<Membership>,
    requester: Requester,
    Ruma(request): Ruma<join_by_id::Request>,
) -> Result<Ruma<join_by_id::Response>, ApiError> {
    membership.join(&requester.user_id, &request.room_id, &[], request.reason.as_deref()).await?;
    Ok(Ruma(join_by_id::Response::new(request.room_id)))
}

async fn join_alias(
    State(membership): State<Membership>,
    requester: Requester,
    Ruma(request): Ruma<join_by_alias::Request>,
) -> Result<Ruma<join_by_alias::Response>, ApiError> {
    let (room_id, servers) = resolve(&membership, request.room_id_or_alias, request.via).await?;
    membership.join(&requester.user_id, &room_id, &servers, request.reason.as_deref()).await?;
    Ok(Ruma(join_by_alias::Response::new(room_id)))
}

async fn knock(
    State(membership): State<Membership>,
    requester: Requester,
    Ruma(request): Ruma<knock_room::Request>,
) -> Result<Ruma<knock_room::Response>, ApiError> {
    let (room_id, servers) = resolve(&membership, request.room_id_or_alias, request.via).await?;
    membership.knock(&requester.user_id, &room_id, &servers, request.reason.as_deref()).await?;
    Ok(Ruma(knock_room::Response::new(room_id)))
}

/// The room that an id or alias names, and the servers through which it can be reached.
async fn resolve(
    membership: &Membership,
    named: OwnedRoomOrAliasId,
    via: Vec<OwnedServerName>,
) -> Result<(OwnedRoomId, Vec<OwnedServerName>), ApiError> {
    match OwnedRoomId::try_from(named) {
        Ok(room_id) => Ok((room_id, via)),
        Err(alias) => {
            let (room_id, mut servers) = membership.resolve_alias(&alias).await?;
            servers.extend(via);
            Ok((room_id, servers))
        }
    }
}

async fn leave(
    State(membership): State<Membership>,
    requester: Requester,
    Ruma(request): Ruma<leave_room::Request>,
) -> Result<Ruma<leave_room::Response>, ApiError> {
    membership.leave(&requester.user_id, &request.room_id, request.reason.as_deref()).await?;
    Ok(Ruma(leave_room::Response::new()))
}

async fn invite(
    State(membership): State<Membership>,
    requester: Requester,
    Ruma(request): Ruma<invite_user::Request>,
) -> Result<Ruma<invite_user::Response>, ApiError> {
    let invite_user::InvitationRecipient::UserId(user) = request.recipient else {
        return Err(ApiError::invalid_param("This server has no identity server to invite by address"));
    };
    let reason = user.reason.as_deref();
    membership.invite(&requester.user_id, &request.room_id, &user.user_id, reason, false).await?;
    Ok(Ruma(invite_user::Response::new()))
}

async fn kick(
    State(membership): State<Membership>,
    requester: Requester,
    Ruma(request): Ruma<kick_user::Request>,
) -> Result<Ruma<kick_user::Response>, ApiError> {
    let reason = request.reason.as_deref();
    membership.kick(&requester.user_id, &request.room_id, &request.user_id, reason).await?;
    Ok(Ruma(kick_user::Response::new()))
}

async fn ban(
    State(membership): State<Membership>,
    requester: Requester,
    Ruma(request): Ruma<ban_user::Request>,
) -> Result<Ruma<ban_user::Response>, ApiError> {
    let reason = request.reason.as_deref();
    membership.ban(&requester.user_id, &request.room_id, &request.user_id, reason).await?;
    Ok(Ruma(ban_user::Response::new()))
}

async fn unban(
    State(membership): State<Membership>,
    requester: Requester,
    Ruma(request): Ruma<unban_user::Request>,
) -> Result<Ruma<unban_user::Response>, ApiError> {
    let reason = request.reason.as_deref();
    membership.unban(&requester.user_id, &request.room_id, &request.user_id, reason).await?;
    Ok(Ruma(unban_user::Response::new()))
}

async fn forget(
    State(membership): State<Membership>,
    requester: Requester,
    Ruma(request): Ruma<forget_room::Request>,
) -> Result<Ruma<forget_room::Response>, ApiError> {
    membership.forget(&requester.user_id, &request.room_id).await?;
    Ok(Ruma(forget_room::Response::new()))
}
