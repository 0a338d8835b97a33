//! Sending events, setting state and redacting. The specification, client-server API, "Sending events to a room" and
//! "Redactions".

use axum::{Router, extract::State};
use ruma::{
    CanonicalJsonObject, EventId, UserId,
    api::client::{
        message::send_message_event::v3 as send_message, redact::redact_event::v3 as redact_event,
        state::send_state_event::v3 as send_state,
    },
};

use super::create_room::object_of;
use crate::{
    api::{ApiError, ApiState, Ruma, RumaRouter, caller::Requester},
    membership::Membership,
    rooms::{Draft, Rooms, Transaction},
};

pub(super) fn routes() -> Router<ApiState> {
    Router::new()
        .endpoint::<redact_event::Request, _, _>(redact)
        .endpoint::<send_message::Request, _, _>(send)
        .endpoint::<send_state::Request, _, _>(set_state)
}

async fn send(
    State(rooms): State<Rooms>,
    requester: Requester,
    Ruma(request): Ruma<send_message::Request>,
) -> Result<Ruma<send_message::Response>, ApiError> {
    let event_type = request.event_type.to_string();
    let scope = format!("send/{}", request.room_id);
    let content = object_of(&request.body)?;
    // A redaction that a client sends as an event is none the less one.
    let redacts = content.get("redacts").filter(|_| event_type == "m.room.redaction");
    let redacts = redacts.and_then(|target| target.as_str()).and_then(|target| EventId::parse(target).ok());
    let draft = Draft {
        sender: &requester.user_id,
        event_type: &event_type,
        state_key: None,
        content,
        redacts: redacts.as_deref(),
        transaction: Some(transaction(&requester, &scope, request.txn_id.as_str())?),
    };
    let event_id = rooms.append(&request.room_id, draft).await?;
    Ok(Ruma(send_message::Response::new(event_id)))
}

async fn set_state(
    State(rooms): State<Rooms>,
    State(membership): State<Membership>,
    requester: Requester,
    Ruma(request): Ruma<send_state::Request>,
) -> Result<Ruma<send_state::Response>, ApiError> {
    let event_type = request.event_type.to_string();
    let content = object_of(&request.body)?;
    if event_type == "m.room.member"
        && let Ok(user_id) = <&UserId>::try_from(request.state_key.as_str())
    {
        let event_id = membership.set_member_event(&requester.user_id, &request.room_id, user_id, content).await?;
        return Ok(Ruma(send_state::Response::new(event_id)));
    }
    let draft = Draft::state(&requester.user_id, &event_type, &request.state_key, content);
    let event_id = rooms.set_state(&request.room_id, draft).await?;
    Ok(Ruma(send_state::Response::new(event_id)))
}

async fn redact(
    State(rooms): State<Rooms>,
    requester: Requester,
    Ruma(request): Ruma<redact_event::Request>,
) -> Result<Ruma<redact_event::Response>, ApiError> {
    let mut content = CanonicalJsonObject::new();
    if let Some(reason) = &request.reason {
        content.insert("reason".to_owned(), reason.as_str().into());
    }
    let scope = format!("redact/{}", request.room_id);
    let draft = Draft {
        sender: &requester.user_id,
        event_type: "m.room.redaction",
        state_key: None,
        content,
        redacts: Some(&request.event_id),
        transaction: Some(transaction(&requester, &scope, request.txn_id.as_str())?),
    };
    let event_id = rooms.append(&request.room_id, draft).await?;
    Ok(Ruma(redact_event::Response::new(event_id)))
}

fn transaction<'a>(requester: &'a Requester, scope: &'a str, txn_id: &'a str) -> Result<Transaction<'a>, ApiError> {
    if txn_id.len() > 255 || txn_id.contains('\0') {
        return Err(ApiError::invalid_param("The transaction id is too long or holds a null byte"));
    }
    let device_id = requester.device_id.as_str();
    Ok(Transaction { user_nid: requester.user_nid, device_id, scope, txn_id })
}
