//! Collects what appending one or more events to a room writes, and moves the room in memory along.

use std::sync::Arc;

use ruma::{UserId, events::TimelineEventType};
use serde::Deserialize;

use super::{RoomState, Rooms, StateEntry, hot::Hot};
use crate::{
    rules::{pdu::Pdu, power::RoomPower, redaction},
    storage::{
        DbError, Stmt,
        event_cache::{self, CachedEvent},
        events::{self, Place, Standing},
        rooms::{self, Extremity, MembershipRow, Swap},
    },
    stream::{Change, Write},
};

/// Appends to one room that become one write.
pub(super) struct Batch {
    /// The room's version before the first append.
    expected_version: i64,
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
    /// The request that made the event, when it came from a local device.
    pub(super) transaction: Option<event_cache::Transaction>,
    /// The state after all extremities once the event is in, when that is not simply the current one with the event.
    pub(super) resolved: Option<RoomState>,
}

impl Batch {
    pub(super) fn new(hot: &Hot) -> Self {
        Self { expected_version: hot.position, statements: Vec::new(), changes: Vec::new() }
    }

    pub(super) fn push(&mut self, statement: Stmt) {
        self.statements.push(statement);
    }

    pub(super) fn push_change(&mut self, change: Change) {
        self.changes.push(change);
    }

    /// The write; its guard moves the room on from where the batch began.
    pub(super) fn into_write(self, hot: &Hot) -> Write {
        Write { guard: Some(self.swap(hot)), statements: self.statements, changes: self.changes }
    }

    /// The write of a room that is new; its guard makes the room's row.
    pub(super) fn into_first_write(mut self, hot: &Hot) -> Write {
        let swap = self.swap(hot);
        self.statements.push(swap);
        let guard = Some(rooms::create(hot.room_nid, &hot.room_id, hot.room_version));
        Write { guard, statements: self.statements, changes: self.changes }
    }

    fn swap(&self, hot: &Hot) -> Stmt {
        let extremities: Vec<i64> = hot.extremities.iter().map(|extremity| extremity.event_nid).collect();
        rooms::compare_and_swap(&Swap {
            room_nid: hot.room_nid,
            expected_version: self.expected_version,
            new_version: hot.position,
            extremities: &extremities,
            state_nid: hot.state.state_nid,
        })
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
        batch.push(if event.is_outlier { events::place_outlier(place) } else { events::insert(pdu, place) });
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
            hot.extremities.push(Extremity {
                event_nid: event.event_nid,
                event_id: pdu.event_id().to_owned(),
                depth: pdu.depth(),
            });
            self.take_in_state(batch, hot, &event).await?;
        }
        Ok(place)
    }

    async fn take_in_state(&self, batch: &mut Batch, hot: &mut Hot, event: &Incoming<'_>) -> Result<(), DbError> {
        let before = hot.state.clone();
        let mut after = match (&event.resolved, event.pdu.state_key()) {
            (Some(resolved), _) => resolved.clone(),
            (None, Some(state_key)) => {
                let mut after = RoomState::clone(&before);
                let entry = StateEntry { event_nid: event.event_nid, event_id: event.pdu.event_id().to_owned() };
                after.set(event.pdu.event_type(), state_key, entry);
                after
            }
            (None, None) => return Ok(()),
        };
        let changes = after.changes_since(&before);
        if changes.is_empty() {
            return Ok(());
        }
        let mut members = Vec::new();
        for (event_type, state_key, entry) in changes {
            match entry {
                Some(entry) => {
                    batch.push(rooms::set_current_state(hot.room_nid, event_type, state_key, entry.event_nid));
                    if event_type == "m.room.member" {
                        members.push((state_key.to_owned(), entry.event_nid));
                    }
                }
                None => batch.push(rooms::clear_current_state(hot.room_nid, event_type, state_key)),
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

    /// Writes the memberships that the current state now has.
    pub(super) async fn take_in_members(
        &self,
        batch: &mut Batch,
        hot: &mut Hot,
        members: &[(String, i64)],
    ) -> Result<(), DbError> {
        #[derive(Deserialize)]
        struct Content {
            membership: String,
        }
        let missing: Vec<i64> =
            members.iter().map(|(_, event_nid)| *event_nid).filter(|nid| !hot.pdus.contains_key(nid)).collect();
        let fetched = events::get_by_nids(&self.shared.parts.db, &missing).await?;
        let users: Vec<&UserId> =
            members.iter().filter_map(|(user_id, _)| <&UserId>::try_from(user_id.as_str()).ok()).collect();
        self.shared.parts.names.nids(&users).await?;
        for (user_id, event_nid) in members {
            let Ok(user_id) = <&UserId>::try_from(user_id.as_str()) else { continue };
            let pdu = hot.pdus.get(event_nid).or_else(|| fetched.get(event_nid).map(|event| &event.pdu));
            let Some(Ok(content)) = pdu.map(Pdu::content_as::<Content>) else { continue };
            let user_nid = self.shared.parts.names.nid(user_id).await?;
            batch.push(rooms::set_membership(&MembershipRow {
                room_nid: hot.room_nid,
                user_nid,
                membership: &content.membership,
                event_nid: *event_nid,
                position: Some(hot.position),
                is_local: self.is_local(user_id),
                stripped_state: None,
            }));
            batch.push_change(Change::Membership { room: hot.room_nid, user: user_nid });
        }
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
            && let Some(target) = pdu.redacts()
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
    (!relates_to.contains('\0') && !rel_type.contains('\0')).then_some((relates_to, rel_type))
}
