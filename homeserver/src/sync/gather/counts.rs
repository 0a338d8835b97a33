//! Unread counts for the rooms of an answer: moved on from memory, or counted anew.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{Context, Kind, Reads, Room, by_room};
use crate::{
    rules::{membership::MemberContent, power::RoomPower},
    storage::{
        event_cache::CachedEvent,
        memberships,
        timeline::{self, Placed},
        unread,
    },
    sync::{
        ReadError,
        unread::{COLD_EVENTS, COLD_EVENTS_IN_ALL, Personal, ReadUpto, RoomFacts, Unread},
    },
};

impl Context<'_> {
    pub(super) async fn read_counts(&mut self, rooms: &mut [Room], personal: &Personal) -> Result<(), ReadError> {
        let room_nids: Vec<i64> =
            rooms.iter().filter(|room| room.kind == Kind::Joined).map(|room| room.row.room_nid).collect();
        if room_nids.is_empty() {
            return Ok(());
        }
        let mut known = self.known_counts(&room_nids);
        let parts = &self.sync.shared.parts;
        let (mut facts, facts_began) =
            self.sync.shared.facts.of(room_nids.iter().copied(), &parts.stream, &parts.events);
        let unsure: Vec<i64> =
            room_nids.iter().copied().filter(|room| known.get(room).is_none_or(|unread| unread.is_stale)).collect();
        let strange: Vec<i64> = room_nids.iter().copied().filter(|room| !facts.contains_key(room)).collect();
        let cold: HashSet<i64> = unsure.iter().copied().filter(|room| !known.contains_key(room)).collect();
        let own_members: Vec<i64> = rooms
            .iter()
            .filter(|room| cold.contains(&room.row.room_nid))
            .map(|room| room.row.member_event_nid)
            .collect();
        let pending: Vec<i64> = self.pending_events(rooms, &known);

        let mut reads = Reads::default();
        let receipts = reads.add_if(!unsure.is_empty(), || unread::own_receipts(self.request.user_nid, &unsure));
        let counts = reads.add_if(!strange.is_empty(), || memberships::counts(&strange));
        let powers = reads.add_if(!strange.is_empty(), || {
            timeline::current_of_types(&strange, &["m.room.create", "m.room.power_levels"])
        });
        let own_members = reads.add_if(!own_members.is_empty(), || timeline::by_nids(&own_members));
        let pending = reads.add_if(!pending.is_empty(), || timeline::by_nids(&pending));
        reads.run(&mut self.snapshot).await?;

        let counts = memberships::read_counts(reads.rows(counts))?;
        let powers = by_room(timeline::read_events(reads.rows(powers))?, |placed| placed.event.room_nid);
        let read_facts: HashMap<i64, Arc<RoomFacts>> = strange
            .iter()
            .map(|room| (*room, Arc::new(facts_of(counts.get(room), powers.get(room).map_or(&[], Vec::as_slice)))))
            .collect();
        self.sync.shared.facts.remember(&parts.stream, &facts_began, &read_facts);
        facts.extend(read_facts);

        let receipts = by_room(unread::read_own_receipts(reads.rows(receipts))?, |receipt| receipt.room_nid);
        let own_members: HashMap<i64, Option<String>> = timeline::read_events(reads.rows(own_members))?
            .into_iter()
            .map(|placed| (placed.event.room_nid, MemberContent::of(&placed.event.pdu).displayname))
            .collect();
        let unsure: HashSet<i64> = unsure.into_iter().collect();
        for room in rooms.iter().filter(|room| unsure.contains(&room.row.room_nid)) {
            let room_nid = room.row.room_nid;
            let receipts = receipts.get(&room_nid).map_or(&[][..], Vec::as_slice);
            let read = ReadUpto::new(receipts, room.row.member_position.unwrap_or(0));
            match known.get_mut(&room_nid) {
                Some(unread) if *unread.read() == read => unread.is_stale = false,
                Some(unread) => {
                    let restarted = unread.restarted(read);
                    known.insert(room_nid, restarted);
                }
                None => {
                    let display_name = own_members.get(&room_nid).cloned().flatten();
                    known.insert(room_nid, Unread::begin(read, display_name));
                }
            }
        }
        let pending = timeline::read_events(reads.rows(pending))?;
        self.count_all(rooms, known, &facts, pending, personal).await
    }

    /// What memory knows of these rooms.
    fn known_counts(&self, room_nids: &[i64]) -> HashMap<i64, Unread> {
        let memory = self.sync.shared.memories.of(self.request.user_nid);
        let memory = memory.lock();
        room_nids.iter().filter_map(|room| Some((*room, memory.unread.get(room)?.clone()))).collect()
    }

    /// Events that wait to be counted and were not read with the timelines.
    fn pending_events(&self, rooms: &[Room], known: &HashMap<i64, Unread>) -> Vec<i64> {
        let mut missing = Vec::new();
        for room in rooms {
            let Some(unread) = known.get(&room.row.room_nid) else { continue };
            let read: HashSet<i64> = room.timeline.read.iter().map(|placed| placed.event.event_nid).collect();
            missing.extend(unread.pending().filter(|event_nid| !read.contains(event_nid)));
        }
        missing
    }

    async fn count_all(
        &mut self,
        rooms: &mut [Room],
        mut known: HashMap<i64, Unread>,
        facts: &HashMap<i64, Arc<RoomFacts>>,
        pending: Vec<Placed>,
        personal: &Personal,
    ) -> Result<(), ReadError> {
        let mut further = self.read_further(rooms, &known).await?;
        let mut pending = by_room(pending, |placed| placed.event.room_nid);
        let memory = self.sync.shared.memories.of(self.request.user_nid);
        for room in rooms.iter_mut().filter(|room| room.kind == Kind::Joined) {
            let room_nid = room.row.room_nid;
            let (Some(mut unread), Some(facts)) = (known.remove(&room_nid), facts.get(&room_nid)) else { continue };
            let is_new = unread.is_new();
            let waiting: HashSet<i64> = unread.pending().collect();
            // A count that goes on takes what memory has seen come, and nothing beyond: there may be more in between.
            let mut events: Vec<Arc<CachedEvent>> = room
                .timeline
                .read
                .iter()
                .chain(&further.remove(&room_nid).unwrap_or_default())
                .chain(&pending.remove(&room_nid).unwrap_or_default())
                .filter(|placed| is_new || waiting.contains(&placed.event.event_nid))
                .filter(|placed| self.upto.covers(placed.lane, placed.seq))
                .map(|placed| placed.event.clone())
                .collect();
            events.sort_unstable_by_key(|event| event.position);
            for event in &events {
                unread.count(event, facts, personal, self.request.user_id);
            }
            room.unread = Some(unread.clone());
            memory.lock().remember_unread(&self.sync.shared.parts.stream, &self.began, room_nid, unread);
        }
        Ok(())
    }

    /// Reads unread events that lie further back than the timelines, within bounds.
    async fn read_further(
        &mut self,
        rooms: &[Room],
        known: &HashMap<i64, Unread>,
    ) -> Result<HashMap<i64, Vec<Placed>>, ReadError> {
        let reaches_back = |room: &&Room| {
            let unread = known.get(&room.row.room_nid);
            // Only a count that begins anew looks back; one that goes on knows what it has not counted.
            unread.filter(|unread| unread.is_new()).is_some_and(|unread| {
                let floor = if room.timeline.read.is_empty() { room.row.version } else { room.timeline.floor };
                unread.read().everywhere() < floor
            })
        };
        let wanted: Vec<&Room> = rooms.iter().filter(|room| room.kind == Kind::Joined).filter(reaches_back).collect();
        if wanted.is_empty() {
            return Ok(HashMap::new());
        }
        let each = (COLD_EVENTS_IN_ALL / wanted.len()).min(COLD_EVENTS);
        let mut reads = Reads::default();
        let mut places = Vec::new();
        for room in wanted {
            let Some(unread) = known.get(&room.row.room_nid) else { continue };
            let from = if room.timeline.read.is_empty() { room.row.version } else { room.timeline.floor };
            let span = usize::try_from(from.saturating_sub(unread.read().everywhere())).unwrap_or(each);
            let count = i64::try_from(span.min(each.saturating_sub(room.timeline.read.len()))).unwrap_or(0);
            if count > 0 {
                let stmt = timeline::at_or_before(room.row.room_nid, from, count);
                places.push((room.row.room_nid, reads.add(stmt)));
            }
        }
        reads.run(&mut self.snapshot).await?;
        places.into_iter().map(|(room_nid, place)| Ok((room_nid, timeline::read_events(reads.rows(place))?))).collect()
    }
}

fn facts_of(counts: Option<&memberships::MemberCounts>, events: &[Placed]) -> RoomFacts {
    let at =
        |event_type: &str| events.iter().map(|placed| &placed.event.pdu).find(|pdu| pdu.event_type() == event_type);
    RoomFacts {
        member_count: counts.map_or(0, |counts| u64::try_from(counts.joined).unwrap_or(0)),
        power: at("m.room.create").map(|create| RoomPower::new(create, at("m.room.power_levels"))),
    }
}
