//! Decides a room's state where its history forks: state resolution versions 1, 2 and 2.1.
//!
//! Specification: rooms/v1, rooms/v2 and rooms/v12, "State resolution". Versions 2 and 2.1 are ruma's.

use std::collections::{HashMap, HashSet};

use ruma::{
    EventId, OwnedEventId,
    events::StateEventType,
    room_version_rules::StateResolutionVersion,
    state_res::{self, utils::event_id_set::EventIdSet},
};

use super::{pdu::Pdu, room_version::RoomVersion};

#[cfg(test)]
mod tests;
mod v1;

/// A room state: which event stands at each type and key.
pub type StateMap = state_res::StateMap<OwnedEventId>;

/// Why states could not be resolved.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// An event was not prefetched; see [`missing_events`].
    #[error("event {0} is needed and was not given")]
    Missing(OwnedEventId),
    /// Events that allow each other, which only rooms of versions 1 and 2 can have, where ids are no hashes.
    #[error("event {0} is among the events that allow it")]
    Cycle(OwnedEventId),
    /// ruma's algorithm met an event that cannot be in a room state.
    #[error("the states cannot be resolved")]
    Invalid(#[source] state_res::Error),
}

/// Resolves the states after several events into one.
///
/// `events` must hold every event of `states` that they do not all agree on, and the full auth chains of all events
/// of `states` (with [`Pdu::implied_create_event_id`] in version 12), with their `rejected` flags. [`missing_events`]
/// names what is absent, so that a caller can fetch in rounds. All events must be of one room. Needs nothing of
/// `events` when the states agree.
///
/// # Errors
///
/// When an event is missing or malformed beyond what the authorization rules tolerate.
pub fn resolve(
    version: RoomVersion,
    states: &[StateMap],
    events: &HashMap<OwnedEventId, Pdu>,
) -> Result<StateMap, ResolveError> {
    let Some((first, others)) = states.split_first() else {
        return Ok(StateMap::new());
    };
    if others.iter().all(|state| state == first) {
        return Ok(first.clone());
    }
    if let Some(missing) = missing_events(version, states, events).into_iter().next() {
        return Err(ResolveError::Missing(missing));
    }
    if version.event_id_is_in_event()
        && let Some(event_id) = find_cycle(states, events)
    {
        return Err(ResolveError::Cycle(event_id.to_owned()));
    }
    let rules = version.rules();
    let StateResolutionVersion::V2(resolution) = &rules.state_res else {
        return Ok(v1::resolve(states, events));
    };
    state_res::resolve(
        &rules.authorization,
        resolution,
        states.iter(),
        auth_chain_differences(states, events),
        |event_id| events.get(event_id).cloned(),
        |conflicted| Some(conflicted_subgraph(conflicted.values().flatten(), events)),
    )
    .map_err(ResolveError::Invalid)
}

/// The events that [`resolve`] needs and `events` lacks, as far as `events` tells.
///
/// Fetch them, add them, and ask again until nothing is missing. Starts with the events of the states themselves; an
/// event that all states agree on is asked for too, since its auth chain takes part in the difference.
pub fn missing_events(
    version: RoomVersion,
    states: &[StateMap],
    events: &HashMap<OwnedEventId, Pdu>,
) -> Vec<OwnedEventId> {
    let mut missing = Vec::new();
    let mut seen: HashSet<&EventId> = HashSet::new();
    let mut open: Vec<&EventId> = states.iter().flat_map(|state| state.values()).map(|id| &**id).collect();
    let mut implied = None;
    while let Some(event_id) = open.pop() {
        if !seen.insert(event_id) {
            continue;
        }
        match events.get(event_id) {
            Some(event) => {
                open.extend(event.auth_events().iter().map(|id| &**id));
                if version.room_id_is_create_event_id() && implied.is_none() {
                    implied = event.implied_create_event_id();
                }
            }
            None => missing.push(event_id.to_owned()),
        }
    }
    if let Some(create) = implied.filter(|create| !events.contains_key(create) && !missing.contains(create)) {
        missing.push(create);
    }
    missing
}

/// An event that is in its own auth chain. ruma would follow such a chain forever.
fn find_cycle<'a>(states: &'a [StateMap], events: &'a HashMap<OwnedEventId, Pdu>) -> Option<&'a EventId> {
    enum Step<'a> {
        Enter(&'a EventId),
        Leave(&'a EventId),
    }

    // True while the events below it are being visited, false afterwards.
    let mut on_path: HashMap<&EventId, bool> = HashMap::new();
    let mut steps: Vec<Step<'_>> = states.iter().flat_map(|state| state.values()).map(|id| Step::Enter(id)).collect();
    while let Some(step) = steps.pop() {
        match step {
            Step::Leave(event_id) => {
                on_path.insert(event_id, false);
            }
            Step::Enter(event_id) => match on_path.get(event_id) {
                Some(true) => return Some(event_id),
                Some(false) => {}
                None => {
                    on_path.insert(event_id, true);
                    steps.push(Step::Leave(event_id));
                    let below = events.get(event_id).map(Pdu::auth_events).unwrap_or_default();
                    steps.extend(below.iter().map(|id| Step::Enter(id)));
                }
            },
        }
    }
    None
}

/// For each state its auth chain, less what the chains of all states have in common.
///
/// State resolution only looks at the difference of the chains. What the agreed events rest on is in every chain, so
/// leaving it out everywhere changes nothing and keeps the sets small.
fn auth_chain_differences(states: &[StateMap], events: &HashMap<OwnedEventId, Pdu>) -> Vec<EventIdSet<OwnedEventId>> {
    let agreed = |key: &(StateEventType, String), event_id: &OwnedEventId| {
        states.iter().all(|state| state.get(key) == Some(event_id))
    };
    let common_roots = states.iter().take(1).flatten().filter(|(key, event_id)| agreed(key, event_id));
    let common = auth_chain(common_roots.map(|(_, event_id)| event_id), &HashSet::new(), events);
    let difference = |state: &StateMap| {
        let roots = state.iter().filter(|(key, event_id)| !agreed(key, event_id)).map(|(_, event_id)| event_id);
        auth_chain(roots, &common, events).into_iter().map(ToOwned::to_owned).collect()
    };
    states.iter().map(difference).collect()
}

/// The events reached by `auth_events` from some events, without those themselves and without what is under `stop`.
fn auth_chain<'a>(
    roots: impl Iterator<Item = &'a OwnedEventId>,
    stop: &HashSet<&EventId>,
    events: &'a HashMap<OwnedEventId, Pdu>,
) -> HashSet<&'a EventId> {
    let mut chain: HashSet<&EventId> = HashSet::new();
    let mut open: Vec<&EventId> = roots.map(|id| &**id).collect();
    while let Some(event_id) = open.pop() {
        for auth_event_id in events.get(event_id).map(Pdu::auth_events).unwrap_or_default() {
            if !stop.contains(&**auth_event_id) && chain.insert(auth_event_id) {
                open.push(auth_event_id);
            }
        }
    }
    chain
}

/// The conflicted state subgraph of version 2.1: all events on a path of `auth_events` between two conflicted events.
fn conflicted_subgraph<'a>(
    conflicted: impl Iterator<Item = &'a OwnedEventId> + Clone,
    events: &'a HashMap<OwnedEventId, Pdu>,
) -> EventIdSet<OwnedEventId> {
    let mut below = auth_chain(conflicted.clone(), &HashSet::new(), events);
    below.extend(conflicted.clone().map(|id| &**id));

    // The same edges upside down, among the events below.
    let mut referenced_by: HashMap<&EventId, Vec<&EventId>> = HashMap::new();
    for event_id in &below {
        for auth_event_id in events.get(*event_id).map(Pdu::auth_events).unwrap_or_default() {
            referenced_by.entry(auth_event_id).or_default().push(event_id);
        }
    }

    // Whatever is below a conflicted event and above one as well is on a path between them.
    let mut above: HashSet<&EventId> = HashSet::new();
    let mut open: Vec<&EventId> = conflicted.map(|id| &**id).collect();
    while let Some(event_id) = open.pop() {
        if above.insert(event_id) {
            open.extend(referenced_by.get(event_id).into_iter().flatten().copied());
        }
    }
    above.into_iter().map(ToOwned::to_owned).collect()
}
