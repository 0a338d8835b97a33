//! A room's events, state and members.

use axum::{Router, extract::State};
use ruma::{
    api::client::{
        membership::{get_member_events::v3 as get_members, joined_members::v3 as joined_members},
        room::get_room_event::v3 as get_event,
        state::{
            get_state_event_for_key::v3::{self as get_state_event, StateEventFormat},
            get_state_events::v3 as get_state,
        },
    },
    events::room::member::MembershipState,
};

use super::message_pagination::{reader, token};
use crate::{
    api::{ApiError, ApiState, Ruma, RumaRouter, caller::Requester, json::RawJson},
    rules::membership::Membership,
    sync::{
        Syncer,
        room::{MembersQuery, StateFormat},
    },
};

pub(super) fn routes() -> Router<ApiState> {
    Router::new()
        .endpoint::<get_event::Request, _, _>(event)
        .endpoint::<get_members::Request, _, _>(members)
        .endpoint::<get_state::Request, _, _>(state)
        .endpoint::<get_state_event::Request, _, _>(state_event)
        .endpoint::<joined_members::Request, _, _>(joined)
}

async fn event(
    State(sync): State<Syncer>,
    requester: Requester,
    Ruma(request): Ruma<get_event::Request>,
) -> Result<RawJson, ApiError> {
    Ok(RawJson(sync.event(reader(&requester), &request.room_id, &request.event_id).await?))
}

async fn members(
    State(sync): State<Syncer>,
    requester: Requester,
    Ruma(request): Ruma<get_members::Request>,
) -> Result<RawJson, ApiError> {
    let query = MembersQuery {
        at: token(request.at.as_deref())?,
        membership: membership(request.membership.as_ref())?,
        not_membership: membership(request.not_membership.as_ref())?,
    };
    Ok(RawJson(sync.members(reader(&requester), &request.room_id, &query).await?))
}

async fn state(
    State(sync): State<Syncer>,
    requester: Requester,
    Ruma(request): Ruma<get_state::Request>,
) -> Result<RawJson, ApiError> {
    Ok(RawJson(sync.state(reader(&requester), &request.room_id).await?))
}

async fn state_event(
    State(sync): State<Syncer>,
    requester: Requester,
    Ruma(request): Ruma<get_state_event::Request>,
) -> Result<RawJson, ApiError> {
    let format = if request.format == StateEventFormat::Event { StateFormat::Event } else { StateFormat::Content };
    let event_type = request.event_type.to_string();
    let (room_id, state_key) = (&request.room_id, &request.state_key);
    Ok(RawJson(sync.state_event(reader(&requester), room_id, &event_type, state_key, format).await?))
}

async fn joined(
    State(sync): State<Syncer>,
    requester: Requester,
    Ruma(request): Ruma<joined_members::Request>,
) -> Result<RawJson, ApiError> {
    Ok(RawJson(sync.joined_members(reader(&requester), &request.room_id).await?))
}

fn membership(membership: Option<&MembershipState>) -> Result<Option<Membership>, ApiError> {
    let parse = |name: &MembershipState| {
        Membership::parse(name.as_str()).ok_or_else(|| ApiError::invalid_param("There is no such membership"))
    };
    membership.map(parse).transpose()
}
