//! Collects what appending one or more events to a room writes, and moves the room in memory along.

use std::sync::Arc;

use ruma::{UserId, events::TimelineEventType};
use serde::Deserialize;

use super::{RoomState, Rooms, StateEntry, hot::Hot};
use crate::{
    rules::{membership::Membership, pdu::Pdu, power::RoomPower, redaction},
    storage::{
        DbError, Stmt,
        event_cache::{self, CachedEvent},
        events::{self, Place, Standing},
        rooms::{self, Extremity, MembershipRow, Swap},
    },
    stream::{Change, Guard, Write},
};

/// Appends to one room that become one write.
pub(super) struct Batch {
    /// The room's version and extremities before the first append.
    expected_version: i64,
    expected_extremities: Vec<i64>,
    statements: Vec<Stmt>,
    changes: Vec<Change>,
}

/// One event on its way in.
pub(super) struct Incoming<'a> {
    pub(super) pdu: &'a Pdu,
    pub(super) event_nid: i64,
    pub(super) standing: Standing,
    /// The state before the event, as stored; `None` when it is the room's current one.
    pub(super) state_before: Option<i64>,
    /// Whether the event is already stored, without a place.
    pub(super) is_outlier: bool,
    /// Whether an event of the room follows it already, so that it is none of the newest.
    pub(super) is_followed: bool,
    /// The request that made the event, when it came from a local device.
    pub(super) transaction: Option<event_cache::Transaction>,
    /// The state after all extremities once the event is in, when that is not simply the current one with the event.
    pub(super) resolved: Option<RoomState>,
}

impl Batch {
    pub(super) fn new(hot: &Hot) -> Self {
        Self {
            expected_version: hot.position,
            expected_extremities: numbers(&hot.extremities),
            statements: Vec::new(),
            changes: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, statement: Stmt) {
        self.statements.push(statement);
    }

    pub(super) fn push_change(&mut self, change: Change) {
        self.changes.push(change);
    }

    /// The write; its guard moves the room on from where the batch began.
    pub(super) fn into_write(self, hot: &Hot) -> Write {
        Write { guard: Some(Guard::Room(self.swap(hot))), statements: self.statements, changes: self.changes }
    }

    /// The write of a room that is new; its guard makes the room's row.
    pub(super) fn into_first_write(mut self, hot: &Hot) -> Write {
        let swap = rooms::compare_and_swap(&self.swap(hot));
        self.statements.push(swap);
        let guard = Some(rooms::create(hot.room_nid, &hot.room_id, hot.room_version).into());
        Write { guard, statements: self.statements, changes: self.changes }
    }

    fn swap(&self, hot: &Hot) -> Swap {
        Swap {
            room_nid: hot.room_nid,
            expected_version: self.expected_version,
            expected_extremities: self.expected_extremities.clone(),
            new_version: hot.position,
            extremities: numbers(&hot.extremities),
            state_nid: hot.state.state_nid,
            is_resident: hot.is_resident,
            members: hot.members,
        }
    }
}

impl Rooms {
    /// Takes an event into the room in memory and its statements into the batch.
    pub(super) async fn take_in(
        &self,
        batch: &mut Batch,
        hot: &mut Hot,
        event: Incoming<'_>,
    ) -> Result<Place, DbError> {
        let pdu = event.pdu;
        hot.position += 1;
        let place = Place {
            event_nid: event.event_nid,
            room_nid: hot.room_nid,
            position: Some(hot.position),
            state_nid: Some(event.state_before.unwrap_or(hot.state.state_nid)),
            standing: event.standing,
        };
        if hot.room_version.event_id_is_in_event() {
            // The next event names this one's hash, maybe before it is committed.
            hot.pdus.insert(event.event_nid, pdu.clone());
        }
        batch.push(if event.is_outlier { events::place_outlier(pdu, place) } else { events::insert(pdu, place) });
        if event.standing == Standing::Accepted {
            // Before the commit, which wakes readers. Should it fail, nobody ever learns of the number.
            self.shared.parts.event_cache.put(CachedEvent {
                event_nid: event.event_nid,
                room_nid: hot.room_nid,
                position: place.position,
                state_nid: place.state_nid,
                redacted_by: None,
                transaction: event.transaction.clone(),
                pdu: pdu.clone(),
            });
            batch.push_change(Change::Event { room: hot.room_nid, event: event.event_nid, position: hot.position });
            self.take_in_relations(batch, hot, pdu, place).await?;
            hot.extremities.retain(|extremity| !pdu.prev_events().contains(&extremity.event_id));
            // A room always has a newest event, whatever rooms of versions 1 and 2, where ids are no hashes, may claim.
            if !event.is_followed || hot.extremities.is_empty() {
                hot.extremities.push(Extremity {
                    event_nid: event.event_nid,
                    event_id: pdu.event_id().to_owned(),
                    depth: pdu.depth(),
                });
            }
            self.take_in_state(batch, hot, &event).await?;
        }
        Ok(place)
    }

    async fn take_in_state(&self, batch: &mut Batch, hot: &mut Hot, event: &Incoming<'_>) -> Result<(), DbError> {
        let before = hot.state.clone();
        let entry = StateEntry { event_nid: event.event_nid, event_id: event.pdu.event_id().to_owned() };
        let (mut after, changes) = match (&event.resolved, event.pdu.state_key()) {
            (Some(resolved), _) => (resolved.clone(), resolved.changes_since(&before)),
            (None, Some(state_key)) => {
                let mut after = RoomState::clone(&before);
                after.set(event.pdu.event_type(), state_key, entry.clone());
                (after, vec![(event.pdu.event_type(), state_key, Some(&entry))])
            }
            (None, None) => return Ok(()),
        };
        if changes.is_empty() {
            return Ok(());
        }
        let mut members = Vec::new();
        for (event_type, state_key, entry) in changes {
            match entry {
                Some(entry) => {
                    batch.push(rooms::set_current_state(hot.room_nid, event_type, state_key, entry.event_nid));
                }
                None => batch.push(rooms::clear_current_state(hot.room_nid, event_type, state_key)),
            }
            if event_type == "m.room.member" {
                let event_nid = |entry: &StateEntry| entry.event_nid;
                members.push(MemberChange {
                    user_id: state_key,
                    before: before.get(event_type, state_key).map(event_nid),
                    after: entry.map(event_nid),
                });
            }
        }
        hot.pdus.insert(event.event_nid, event.pdu.clone());
        self.take_in_members(batch, hot, &members).await?;
        for statement in after.store(hot.room_nid, &self.shared.parts.nids).await? {
            batch.push(statement);
        }
        hot.state = Arc::new(after);
        Ok(())
    }

    /// Writes the memberships that the current state now has, and counts who is joined.
    async fn take_in_members(
        &self,
        batch: &mut Batch,
        hot: &mut Hot,
        members: &[MemberChange<'_>],
    ) -> Result<(), DbError> {
        let named = members.iter().flat_map(|change| [change.before, change.after]).flatten();
        let missing: Vec<i64> = named.filter(|event_nid| !hot.pdus.contains_key(event_nid)).collect();
        let fetched = events::get_by_nids(&self.shared.parts.db, &missing).await?;
        let users: Vec<&UserId> = members.iter().filter_map(|change| change.user_id.try_into().ok()).collect();
        self.shared.parts.names.nids(&users).await?;
        for change in members {
            let Ok(user_id) = <&UserId>::try_from(change.user_id) else { continue };
            let membership_of = |event_nid: Option<i64>| {
                let event_nid = event_nid?;
                let pdu = hot.pdus.get(&event_nid).or_else(|| fetched.get(&event_nid).map(|event| &event.pdu))?;
                Some((event_nid, Membership::of(pdu)?))
            };
            let (before, after) = (membership_of(change.before), membership_of(change.after));
            let is_local = self.is_local(user_id);
            let joined = if is_local { &mut hot.members.local } else { &mut hot.members.remote };
            let is_joined = |membership: Option<(i64, Membership)>| {
                i64::from(membership.is_some_and(|(_, membership)| membership == Membership::Join))
            };
            *joined += is_joined(after) - is_joined(before);
            let user_nid = self.shared.parts.names.nid(user_id).await?;
            batch.push(match after {
                Some((event_nid, membership)) => rooms::set_membership(&MembershipRow {
                    room_nid: hot.room_nid,
                    user_nid,
                    membership: membership.as_str(),
                    event_nid,
                    position: Some(hot.position),
                    is_local,
                    stripped_state: None,
                }),
                None => rooms::end_membership(hot.room_nid, user_nid, hot.position),
            });
            batch.push_change(Change::Membership { room: hot.room_nid, user: user_nid });
        }
        hot.is_resident = hot.members.local > 0 || hot.members.remote == 0;
        Ok(())
    }

    async fn take_in_relations(
        &self,
        batch: &mut Batch,
        hot: &mut Hot,
        pdu: &Pdu,
        place: Place,
    ) -> Result<(), DbError> {
        if *pdu.kind() == TimelineEventType::RoomRedaction
            && let Some(target) = pdu.redacts().filter(|target| is_indexable(target.as_str()))
        {
            batch.push(events::insert_relation(place, target.as_str(), "m.redaction"));
            let target = events::find(&self.shared.parts.db, target).await?;
            if let Some(target) = target.filter(|target| target.pdu.room_id() == pdu.room_id()) {
                self.apply_redaction(batch, hot, pdu, &target.pdu, target.event_nid).await?;
            }
            return Ok(());
        }
        if let Some((relates_to, rel_type)) = relation_of(pdu) {
            batch.push(events::insert_relation(place, &relates_to, &rel_type));
        }
        Ok(())
    }

    /// Takes the target's content away, if the redaction's sender may do that. The specification, rooms/v3, "Handling
    /// redactions".
    pub(super) async fn apply_redaction(
        &self,
        batch: &mut Batch,
        hot: &mut Hot,
        redaction: &Pdu,
        target: &Pdu,
        target_nid: i64,
    ) -> Result<(), DbError> {
        let Some(power) = self.power(hot).await? else { return Ok(()) };
        if !redaction::may_apply_redaction(redaction, target, &power) {
            return Ok(());
        }
        match redaction::redact(target) {
            Ok(redacted) => {
                batch.push(events::redact(target_nid, &redacted, redaction.event_id()));
                batch.push_change(Change::Redaction { event: target_nid });
                if let Some(kept) = hot.pdus.get_mut(&target_nid) {
                    *kept = redacted;
                }
            }
            Err(error) => tracing::warn!(%error, event.id = %target.event_id(), "an event cannot be redacted"),
        }
        Ok(())
    }

    /// The room's power levels; `None` for a room without a create event.
    pub(super) async fn power(&self, hot: &mut Hot) -> Result<Option<RoomPower>, DbError> {
        use ruma::events::StateEventType::{RoomCreate, RoomPowerLevels};
        let keys = [(RoomCreate, String::new()), (RoomPowerLevels, String::new())];
        let state = hot.state.clone();
        self.prefetch(&mut hot.pdus, &state, &keys).await?;
        let at = |kind: &str| state.get(kind, "").and_then(|entry| hot.pdus.get(&entry.event_nid));
        Ok(at("m.room.create").map(|create| RoomPower::new(create, at("m.room.power_levels"))))
    }
}

/// A user whose membership event in the current state is another one now.
struct MemberChange<'a> {
    user_id: &'a str,
    before: Option<i64>,
    after: Option<i64>,
}

/// The events' numbers in ascending order, so that the same set is always the same list.
fn numbers(extremities: &[Extremity]) -> Vec<i64> {
    let mut numbers: Vec<i64> = extremities.iter().map(|extremity| extremity.event_nid).collect();
    numbers.sort_unstable();
    numbers
}

/// What an event relates to, by its `m.relates_to`: the event and the kind of relation.
fn relation_of(pdu: &Pdu) -> Option<(String, String)> {
    #[derive(Deserialize)]
    struct Content {
        #[serde(rename = "m.relates_to")]
        relates_to: Option<Relation>,
    }
    #[derive(Deserialize)]
    struct Relation {
        rel_type: Option<String>,
        event_id: Option<String>,
    }
    if !pdu.content_json().contains("m.relates_to") {
        return None;
    }
    let relation = pdu.content_as::<Content>().ok()?.relates_to?;
    let (relates_to, rel_type) = (relation.event_id?, relation.rel_type?);
    (is_indexable(&relates_to) && is_indexable(&rel_type)).then_some((relates_to, rel_type))
}

/// Whether every engine takes the text into an index. Identifiers are shorter anyway.
fn is_indexable(text: &str) -> bool {
    const MAX_BYTES: usize = 255;
    text.len() <= MAX_BYTES && !text.contains('\0')
}
