//! Decides whether an event is allowed: the authorization rules of its room version, by ruma's state resolution crate.
//!
//! Specification: server-server API, "Authorization rules", and each room version's own.

use std::collections::HashMap;

use ruma::{
    CanonicalJsonObject, EventId, UserId,
    events::{StateEventType, TimelineEventType},
    state_res::{self, events::RoomCreateEvent},
};

use super::{pdu::Pdu, room_version::RoomVersion};

#[cfg(test)]
mod tests;

/// An event that the authorization rules refuse: rejected when it comes from another server, `M_FORBIDDEN` from a client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct AuthError {
    /// Which rule refused it.
    pub reason: String,
}

impl From<String> for AuthError {
    fn from(reason: String) -> Self {
        Self { reason }
    }
}

/// The type and key of each state event that belongs into the `auth_events` of an event.
///
/// Specification: server-server API, "Auth events selection".
///
/// # Errors
///
/// When the content of an `m.room.member` event is too malformed to tell.
pub fn auth_types_for_event(
    version: RoomVersion,
    event_type: &str,
    sender: &UserId,
    state_key: Option<&str>,
    content: &CanonicalJsonObject,
) -> Result<Vec<(StateEventType, String)>, AuthError> {
    let kind = TimelineEventType::from(event_type);
    // Only the content of memberships says anything here.
    let content = match kind {
        TimelineEventType::RoomMember => serde_json::value::to_raw_value(content),
        _ => serde_json::value::to_raw_value(&()),
    };
    let content = content.map_err(|error| AuthError { reason: error.to_string() })?;
    let rules = &version.rules().authorization;
    Ok(state_res::auth_types_for_event(&kind, sender, state_key, &content, rules)?)
}

/// As [`auth_types_for_event`], for an event that exists.
///
/// # Errors
///
/// When the content of an `m.room.member` event is too malformed to tell.
pub fn auth_types_of(pdu: &Pdu) -> Result<Vec<(StateEventType, String)>, AuthError> {
    let rules = &pdu.room_version().rules().authorization;
    Ok(state_res::auth_types_for_event(pdu.kind(), pdu.sender(), pdu.state_key(), pdu.content(), rules)?)
}

/// Checks the rules that depend on no state: those for create events, and those for the list of `auth_events`.
///
/// `fetch_event` must know every auth event and, in version 12 rooms, the create event ([`Pdu::implied_create_event_id`]),
/// each with its `rejected` flag. Needed once per event, on receipt.
///
/// # Errors
///
/// The rule that refuses the event.
pub fn check_independent(pdu: &Pdu, fetch_event: impl Fn(&EventId) -> Option<Pdu>) -> Result<(), AuthError> {
    if *pdu.kind() == TimelineEventType::RoomCreate {
        let named = RoomCreateEvent::new(pdu).room_version()?;
        if named != pdu.room_version().id() {
            return Err(AuthError { reason: format!("the create event names room version {named:?}") });
        }
    }
    Ok(state_res::check_state_independent_auth_rules(&pdu.room_version().rules().authorization, pdu, fetch_event)?)
}

/// Checks the rules that depend on state, against a state that the caller can look into.
///
/// On receipt of an event this is done three times: against its auth events ([`check_against_auth_events`], rejected
/// on failure), against the state before it (rejected on failure), and against the room's current state (soft-failed
/// on failure). The keys asked for are those of [`auth_types_of`] and the create event.
///
/// # Errors
///
/// The rule that refuses the event.
pub fn check_against_state(
    pdu: &Pdu,
    fetch_state: impl Fn(&StateEventType, &str) -> Option<Pdu>,
) -> Result<(), AuthError> {
    // The rules themselves allow any create event of the server that the room id names, even in a room that exists.
    if *pdu.kind() == TimelineEventType::RoomCreate
        && fetch_state(&StateEventType::RoomCreate, "").is_some_and(|create| create != *pdu)
    {
        return Err(AuthError { reason: "the room has a create event already".to_owned() });
    }
    Ok(state_res::check_state_dependent_auth_rules(&pdu.room_version().rules().authorization, pdu, fetch_state)?)
}

/// Checks the rules that depend on state, against the event's own `auth_events`.
///
/// `fetch_event` is that of [`check_independent`].
///
/// # Errors
///
/// The rule that refuses the event.
pub fn check_against_auth_events(pdu: &Pdu, fetch_event: impl Fn(&EventId) -> Option<Pdu>) -> Result<(), AuthError> {
    let implied = pdu.implied_create_event_id();
    let mut state = HashMap::new();
    for event_id in pdu.auth_events().iter().chain(implied.iter()) {
        let Some(event) = fetch_event(event_id).filter(|event| !event.rejected()) else {
            continue;
        };
        let Some(state_key) = event.state_key() else {
            continue;
        };
        state.insert((StateEventType::from(event.event_type()), state_key.to_owned()), event);
    }
    check_against_state(pdu, |kind, key| state.get(&(kind.clone(), key.to_owned())).cloned())
}
