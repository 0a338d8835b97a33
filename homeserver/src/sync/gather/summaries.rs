//! Summaries of rooms: how many members, and who stands for a room that has no name.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use serde::Deserialize;

use super::{Context, Kind, Reads, Room, places};
use crate::{
    storage::{
        event_cache::CachedEvent,
        memberships::{self, MemberCounts},
        timeline,
    },
    sync::{LazyLoading, ReadError},
};

/// The `summary` of a room.
#[derive(Clone, Debug, Default)]
pub(in crate::sync) struct Summary {
    /// `None` for a room with a name.
    pub(in crate::sync) heroes: Option<Vec<String>>,
    pub(in crate::sync) counts: MemberCounts,
}

impl Context<'_> {
    /// Reads summaries of the rooms in which they may have changed.
    pub(super) async fn read_summaries(&mut self, rooms: &mut [Room]) -> Result<(), ReadError> {
        let changes_summary = |event: &Arc<CachedEvent>| {
            matches!(event.pdu.event_type(), "m.room.member" | "m.room.name" | "m.room.canonical_alias")
        };
        let room_nids: Vec<i64> = rooms
            .iter()
            .filter(|room| room.kind == Kind::Joined)
            .filter(|room| {
                room.is_whole
                    || room.timeline.limited
                    || room.timeline.events.iter().chain(&room.state).any(changes_summary)
            })
            .map(|room| room.row.room_nid)
            .collect();
        if room_nids.is_empty() {
            return Ok(());
        }
        let mut reads = Reads::default();
        let counts = reads.add(memberships::counts(&room_nids));
        let names = reads.add(timeline::current_of_types(&room_nids, &["m.room.name", "m.room.canonical_alias"]));
        reads.run(&mut self.snapshot).await?;
        let counts = memberships::read_counts(reads.rows(counts))?;
        let named: HashSet<i64> = timeline::read_events(reads.rows(names))?
            .iter()
            .filter(|placed| gives_name(&placed.event))
            .map(|placed| placed.event.room_nid)
            .collect();
        let nameless: Vec<i64> = room_nids.iter().copied().filter(|room_nid| !named.contains(room_nid)).collect();
        let mut reads = Reads::default();
        let heroes = reads.add_if(!nameless.is_empty(), || memberships::heroes(&nameless, self.request.user_nid));
        reads.run(&mut self.snapshot).await?;
        let heroes = memberships::read_heroes(reads.rows(heroes))?;
        let told: HashSet<i64> = room_nids.into_iter().collect();
        for room in rooms.iter_mut().filter(|room| told.contains(&room.row.room_nid)) {
            let room_nid = room.row.room_nid;
            let names = heroes.get(&room_nid).map(|heroes| heroes.iter().map(|hero| hero.user_id.clone()).collect());
            room.summary = Some(Summary {
                heroes: (!named.contains(&room_nid)).then(|| names.unwrap_or_default()),
                counts: counts.get(&room_nid).copied().unwrap_or_default(),
            });
        }
        self.add_hero_members(rooms, &heroes).await
    }

    /// With lazy loading, those who stand for a room are told with the state.
    async fn add_hero_members(
        &mut self,
        rooms: &mut [Room],
        heroes: &HashMap<i64, Vec<memberships::Hero>>,
    ) -> Result<(), ReadError> {
        if self.request.filter.lazy == LazyLoading::Off || heroes.is_empty() {
            return Ok(());
        }
        let memory = self.sync.shared.memories.of(self.request.user_nid);
        let missing: Vec<i64> = {
            let memory = memory.lock();
            let known = memory.known_members.get(self.request.device_id);
            let knows = |room: &Room, user_id: &str| {
                !room.is_whole
                    && self
                        .since_positions()
                        .is_some_and(|since| known.is_some_and(|known| known.knows(room.row.room_nid, user_id, since)))
            };
            let is_told = |room: &Room, event_nid: i64| {
                room.state.iter().chain(&room.timeline.events).any(|event| event.event_nid == event_nid)
            };
            rooms
                .iter()
                .flat_map(|room| heroes.get(&room.row.room_nid).into_iter().flatten().map(move |hero| (room, hero)))
                .filter(|(room, hero)| !knows(room, &hero.user_id) && !is_told(room, hero.member_event_nid))
                .map(|(_, hero)| hero.member_event_nid)
                .collect()
        };
        if missing.is_empty() {
            return Ok(());
        }
        let mut reads = Reads::default();
        let place = reads.add(timeline::by_nids(&missing));
        reads.run(&mut self.snapshot).await?;
        let places = places(rooms);
        for placed in timeline::read_events(reads.rows(place))? {
            let room = places.get(&placed.event.room_nid).and_then(|place| rooms.get_mut(*place));
            if let Some(room) = room.filter(|_| self.request.filter.state.allows(&placed.event.pdu)) {
                room.state.push(placed.event);
            }
        }
        Ok(())
    }
}

/// Whether a name or alias event gives the room a name; it may be empty.
fn gives_name(event: &CachedEvent) -> bool {
    #[derive(Deserialize)]
    struct Content {
        name: Option<String>,
        alias: Option<String>,
    }
    let content = event.pdu.content_as::<Content>();
    content.is_ok_and(|content| content.name.or(content.alias).is_some_and(|name| !name.is_empty()))
}
