//! States beside timelines, and what is told with events: what they replaced, who redacted them, which request made them.
//!
//! A state is told whole, or as the difference to what the reader knows. With lazy loading, memberships are told of those
//! whose events are told, of those that changed in a gap, and of those who stand for a room without a name.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{Context, Kind, Reads, Room, Wanted, places};
use crate::{
    storage::{event_cache::CachedEvent, state_diff, timeline},
    sync::{LazyLoading, ReadError, extras as event_extras, write::Extras},
};

/// Which events make up the state of each room, by index of the room.
type Parts = HashMap<usize, Vec<i64>>;

impl Context<'_> {
    pub(super) async fn read_states(&mut self, rooms: &mut [Room], extras: &mut Extras) -> Result<(), ReadError> {
        let parts = self.state_parts(rooms).await?;
        let lazy = self.request.filter.lazy != LazyLoading::Off;
        let wanted = if lazy { self.wanted_members(rooms) } else { Wanted::new() };
        self.read_state_events(rooms, &parts, &wanted, lazy).await?;
        self.read_extras(rooms, extras).await
    }

    /// The event numbers of every state that has to be told.
    async fn state_parts(&mut self, rooms: &[Room]) -> Result<Parts, ReadError> {
        let mut whole = Vec::new();
        let mut changed = Vec::new();
        for (index, room) in rooms.iter().enumerate().filter(|(_, room)| room.sees_state) {
            let end = self.state_at_end(room).await?;
            let start = room.timeline.events.first().and_then(|event| event.state_nid).unwrap_or(end);
            let target = if self.request.use_state_after { end } else { start };
            match room.timeline.state_before_new {
                _ if room.is_whole => whole.push((index, target)),
                Some(known) if known != target => changed.push((index, (known, target))),
                _ => {}
            }
        }
        let state_nids: Vec<i64> = whole.iter().map(|(_, state_nid)| *state_nid).collect();
        let states = state_diff::whole_states(&mut self.snapshot, &state_nids).await?;
        let pairs: Vec<(i64, i64)> = changed.iter().map(|(_, pair)| *pair).collect();
        let differences = state_diff::differences(&mut self.snapshot, &pairs).await?;
        let mut parts = Parts::new();
        for (index, state_nid) in whole {
            parts.insert(index, states.get(&state_nid).cloned().unwrap_or_default());
        }
        for ((index, _), difference) in changed.into_iter().zip(differences) {
            parts.insert(index, difference.added);
        }
        Ok(parts)
    }

    /// The state at the end of a room's timeline: the current one, or the one in which a user left.
    async fn state_at_end(&mut self, room: &Room) -> Result<i64, ReadError> {
        let left_at =
            room.row.member_position.filter(|position| room.kind == Kind::Left && *position < room.row.version);
        let Some(position) = left_at else { return Ok(room.row.state_nid) };
        let mut reads = Reads::default();
        let place = reads.add(timeline::place_after(room.row.room_nid, position));
        reads.run(&mut self.snapshot).await?;
        let next = reads.rows(place).first().map(timeline::read_place).transpose()?;
        Ok(next.and_then(|place| place.state_nid).unwrap_or(room.row.state_nid))
    }

    /// Whose memberships lazily loaded states need: senders of what is told, unless the device knows them, and oneself.
    fn wanted_members(&self, rooms: &[Room]) -> Wanted {
        let memory = self.sync.shared.memories.of(self.request.user_nid);
        let memory = memory.lock();
        let known = memory.known_members.get(self.request.device_id);
        let knows = |room_nid: i64, user_id: &str| {
            self.request.filter.lazy == LazyLoading::New
                && self
                    .since_positions()
                    .is_some_and(|since| known.is_some_and(|known| known.knows(room_nid, user_id, since)))
        };
        let mut wanted = Wanted::new();
        for room in rooms.iter().filter(|room| room.sees_state) {
            let mut users = HashSet::new();
            for sender in room.timeline.events.iter().map(|event| event.pdu.sender().as_str()) {
                if room.is_whole || !knows(room.row.room_nid, sender) {
                    users.insert(sender.to_owned());
                }
            }
            if room.is_whole {
                users.insert(self.request.user_id.to_string());
            }
            wanted.insert(room.row.room_nid, users);
        }
        wanted
    }

    async fn read_state_events(
        &mut self,
        rooms: &mut [Room],
        parts: &Parts,
        wanted: &Wanted,
        lazy: bool,
    ) -> Result<(), ReadError> {
        let whole: Vec<i64> = parts
            .iter()
            .filter(|(index, _)| rooms.get(**index).is_some_and(|room| room.is_whole))
            .flat_map(|(_, events)| events.iter().copied())
            .collect();
        let changed: Vec<i64> = parts
            .iter()
            .filter(|(index, _)| rooms.get(**index).is_some_and(|room| !room.is_whole))
            .flat_map(|(_, events)| events.iter().copied())
            .collect();
        let members: HashSet<&str> = wanted.values().flatten().map(String::as_str).collect();
        let members: Vec<&str> = members.into_iter().collect();
        let continued: Vec<i64> = rooms
            .iter()
            .filter(|room| !room.is_whole && wanted.get(&room.row.room_nid).is_some_and(|users| !users.is_empty()))
            .map(|room| room.row.room_nid)
            .collect();
        let mut reads = Reads::default();
        let whole = reads.add_if(!whole.is_empty(), || {
            if lazy { timeline::by_nids_with_members(&whole, &members) } else { timeline::by_nids(&whole) }
        });
        let changed = reads.add_if(!changed.is_empty(), || timeline::by_nids(&changed));
        let senders = reads.add_if(!continued.is_empty(), || timeline::current_members(&continued, &members));
        reads.run(&mut self.snapshot).await?;

        let mut events: HashMap<i64, Arc<CachedEvent>> = HashMap::new();
        for place in [whole, changed].into_iter().flatten() {
            let read = timeline::read_events(reads.rows(place))?;
            events.extend(read.into_iter().map(|placed| (placed.event.event_nid, placed.event)));
        }
        let filter = &self.request.filter.state;
        for (index, room) in rooms.iter_mut().enumerate() {
            let allows_room = filter.allows_room(&room.row.room_id);
            let nobody = HashSet::new();
            let users = wanted.get(&room.row.room_nid).unwrap_or(&nobody);
            let is_wanted = |event: &CachedEvent| {
                let is_needed = !lazy
                    || !room.is_whole
                    || event.pdu.event_type() != "m.room.member"
                    || event.pdu.state_key().is_some_and(|user_id| users.contains(user_id));
                allows_room && is_needed && filter.allows(&event.pdu)
            };
            let part = parts.get(&index).map(Vec::as_slice).unwrap_or_default();
            room.state = part
                .iter()
                .filter_map(|event_nid| events.get(event_nid))
                .filter(|event| is_wanted(event))
                .cloned()
                .collect();
        }
        let senders = timeline::read_events(reads.rows(senders))?;
        let places = places(rooms);
        for placed in senders {
            let place = places.get(&placed.event.room_nid);
            let Some(room) = place.and_then(|place| rooms.get_mut(*place)) else { continue };
            let is_wanted = placed
                .event
                .pdu
                .state_key()
                .is_some_and(|user_id| wanted.get(&room.row.room_nid).is_some_and(|users| users.contains(user_id)));
            let is_there =
                |events: &[Arc<CachedEvent>]| events.iter().any(|event| event.event_nid == placed.event.event_nid);
            // Clients take memberships from the timeline too, unless states are told as of its end.
            let is_told = is_there(&room.state) || (!self.request.use_state_after && is_there(&room.timeline.events));
            if !room.is_whole && is_wanted && !is_told && filter.allows(&placed.event.pdu) {
                room.state.push(placed.event);
            }
        }
        Ok(())
    }

    /// What is told with events.
    async fn read_extras(&mut self, rooms: &[Room], extras: &mut Extras) -> Result<(), ReadError> {
        let timeline_events = || rooms.iter().flat_map(|room| room.timeline.events.iter());
        for room in rooms {
            let Some(history) = &room.timeline.history else { continue };
            for event in &room.timeline.events {
                let Some(position) = event.position else { continue };
                extras.note_membership(event.event_nid, history.membership_at(position));
            }
        }
        let mut own = Vec::new();
        for event in timeline_events() {
            if self.since.is_none() || event.pdu.is_state() || event.pdu.sender() != self.request.user_id {
                continue;
            }
            let event_id = event.pdu.event_id();
            match self.sync.shared.parts.events.get(event.event_nid).and_then(|cached| cached.transaction.clone()) {
                Some(made_by) if made_by.is_of(self.request.user_nid, self.request.device_id) => {
                    extras.transactions.insert(event_id.to_string(), made_by.txn_id.to_string());
                }
                Some(_) => {}
                // Another shard, or this one before it was restarted.
                None => own.push(event_id.as_str()),
            }
        }
        let mut reads = Reads::default();
        let transactions = reads
            .add_if(!own.is_empty(), || timeline::transactions(self.request.user_nid, self.request.device_id, &own));
        reads.run(&mut self.snapshot).await?;
        extras.transactions.extend(timeline::read_transactions(reads.rows(transactions))?);
        let all: Vec<&CachedEvent> =
            timeline_events().chain(rooms.iter().flat_map(|room| room.state.iter())).map(|event| &**event).collect();
        let states: Vec<i64> =
            timeline_events().filter(|event| event.pdu.is_state()).map(|event| event.event_nid).collect();
        event_extras::read_extras(&mut self.snapshot, &all, &states, extras).await?;
        let parents: Vec<&CachedEvent> = timeline_events().map(|event| &**event).collect();
        event_extras::read_bundles(&mut self.snapshot, &parents, self.request.user_id, extras).await
    }
}
