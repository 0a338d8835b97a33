//! Decides the state of rooms of version 1 where history forks. Known to be flawed, and kept as specified.
//!
//! Specification: rooms/v1, "State resolution".

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ruma::{OwnedEventId, events::StateEventType};
use sha1::{Digest, Sha1};

use super::StateMap;
use crate::rules::{auth::check_against_state, pdu::Pdu};

/// The conflicting events of each key, in a fixed order of keys.
type Conflicts<'a> = BTreeMap<(String, String), Vec<&'a Pdu>>;

/// Resolves states that do not agree. `events` holds every event of them.
pub(super) fn resolve(states: &[StateMap], events: &HashMap<OwnedEventId, Pdu>) -> StateMap {
    let (mut resolved, mut conflicts) = split(states, events);
    for kind in [StateEventType::RoomPowerLevels, StateEventType::RoomJoinRules, StateEventType::RoomMember] {
        let kind_name = kind.to_string();
        let (of_kind, rest): (Conflicts<'_>, Conflicts<'_>) =
            conflicts.into_iter().partition(|((event_type, _), _)| *event_type == kind_name);
        conflicts = rest;
        // Keys of one kind do not see each other's outcome, so that their order does not matter.
        let decided: Vec<_> = of_kind
            .into_iter()
            .map(|((_, state_key), candidates)| {
                ((kind.clone(), state_key), last_allowed(candidates, &resolved, events))
            })
            .collect();
        resolved.extend(decided);
    }
    let decided: Vec<_> = conflicts
        .into_iter()
        .map(|((event_type, state_key), candidates)| {
            ((StateEventType::from(event_type), state_key), deepest_allowed(candidates, &resolved, events))
        })
        .collect();
    resolved.extend(decided);
    resolved
}

/// The union of what does not conflict, and the events of each key that does. A key that some states lack does not
/// conflict by that.
fn split<'a>(states: &[StateMap], events: &'a HashMap<OwnedEventId, Pdu>) -> (StateMap, Conflicts<'a>) {
    let mut candidates: HashMap<&(StateEventType, String), BTreeSet<&OwnedEventId>> = HashMap::new();
    for (key, event_id) in states.iter().flatten() {
        candidates.entry(key).or_default().insert(event_id);
    }
    let mut agreed = StateMap::new();
    let mut conflicts = Conflicts::new();
    for (key, event_ids) in candidates {
        if event_ids.len() == 1 {
            agreed.extend(event_ids.into_iter().map(|event_id| (key.clone(), event_id.clone())));
        } else {
            let known = event_ids.into_iter().filter_map(|event_id| events.get(event_id)).collect();
            conflicts.insert((key.0.to_string(), key.1.clone()), known);
        }
    }
    (agreed, conflicts)
}

/// For kinds that affect authorization: from the shallowest on, each event that the one before it allows.
fn last_allowed(mut candidates: Vec<&Pdu>, resolved: &StateMap, events: &HashMap<OwnedEventId, Pdu>) -> OwnedEventId {
    candidates.sort_by_cached_key(|pdu| (pdu.depth(), std::cmp::Reverse(sha1_of(pdu))));
    let mut chosen: Option<&Pdu> = None;
    for candidate in &candidates {
        if chosen.is_some() && !allowed(candidate, chosen, resolved, events) {
            break;
        }
        chosen = Some(candidate);
    }
    chosen.expect("a conflict has at least two events, all of them given").event_id().to_owned()
}

/// For all other kinds: the deepest event that the resolved state allows. When it allows none, the shallowest, which is
/// what servers that speak this version have always done.
fn deepest_allowed(
    mut candidates: Vec<&Pdu>,
    resolved: &StateMap,
    events: &HashMap<OwnedEventId, Pdu>,
) -> OwnedEventId {
    candidates.sort_by_cached_key(|pdu| (std::cmp::Reverse(pdu.depth()), sha1_of(pdu)));
    let chosen = candidates.iter().find(|candidate| allowed(candidate, None, resolved, events)).or(candidates.last());
    chosen.expect("a conflict has at least two events, all of them given").event_id().to_owned()
}

/// Whether the authorization rules allow an event in the resolved state, with one event of it replaced.
fn allowed(pdu: &Pdu, over: Option<&Pdu>, resolved: &StateMap, events: &HashMap<OwnedEventId, Pdu>) -> bool {
    check_against_state(pdu, |kind, state_key| {
        if let Some(over) = over.filter(|over| over.is_state_of(&kind.to_string(), state_key)) {
            return Some(over.clone());
        }
        resolved.get(&(kind.clone(), state_key.to_owned())).and_then(|event_id| events.get(event_id)).cloned()
    })
    .is_ok()
}

fn sha1_of(pdu: &Pdu) -> [u8; 20] {
    Sha1::digest(pdu.event_id().as_bytes()).into()
}
