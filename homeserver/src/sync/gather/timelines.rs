//! Timelines: from the newest event of a room back to the first one that the reader has, or to the limit.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{Context, Kind, Reads, Room, by_room};
use crate::{
    rules::membership::Membership,
    storage::{
        event_cache::CachedEvent,
        timeline::{self, Placed},
    },
    stream::Positions,
    sync::{ReadError, scope::Scope, unread::Personal, visibility::History},
};

/// Positions that are read beyond the limit at first: some hold nothing that is shown.
const SLACK: usize = 4;
/// How much further a second look goes.
const SECOND_LOOK: usize = 16;
/// Where a second look ends.
const MAX_WINDOW: usize = 2_000;
/// Places that are read at a time to find where a long gap began.
const PLACES: i64 = 1_000;

/// A part of a room's timeline, oldest event first.
#[derive(Default)]
pub(in crate::sync) struct Timeline {
    pub(in crate::sync) events: Vec<Arc<CachedEvent>>,
    /// There is something between the reader's position and the first event.
    pub(in crate::sync) limited: bool,
    /// The position behind which earlier events are found.
    pub(in crate::sync) prev_batch: Option<i64>,
    /// Whether the room has events that the reader's position does not cover, shown or not.
    pub(super) has_new: bool,
    /// The state before the first of them: what the reader knows.
    pub(super) state_before_new: Option<i64>,
    /// Everything that was read, newest first, for counting.
    pub(super) read: Vec<Placed>,
    /// All events behind this position were read.
    pub(super) floor: i64,
    /// How the reader's view of the room changed, where that matters.
    pub(super) history: Option<History>,
}

/// What a look at the newest events gave.
struct Cut {
    timeline: Timeline,
    /// It did not reach far enough back.
    needs_more: bool,
    /// There is a gap, and where it begins was not seen: it is before this position.
    gap_before: Option<i64>,
}

impl Context<'_> {
    pub(super) async fn read_timelines(&mut self, rooms: &mut [Room], personal: &Personal) -> Result<(), ReadError> {
        self.read_histories(rooms).await?;
        let limit = self.request.filter.timeline.limit();
        let mut window = limit + SLACK;
        let mut wanted: Vec<usize> =
            (0..rooms.len()).filter(|index| rooms.get(*index).is_some_and(|room| self.has_new_events(room))).collect();
        let mut gaps = Vec::new();
        for is_last in [false, true] {
            let windows = self.read_windows(rooms, &wanted, window).await?;
            let mut again = Vec::new();
            for (index, (floor, events)) in windows {
                let Some(room) = rooms.get_mut(index) else { continue };
                let cut = self.cut(room, events, floor, limit, personal);
                if cut.needs_more && !is_last {
                    again.push(index);
                    continue;
                }
                if let Some(position) = cut.gap_before {
                    gaps.push((index, position));
                }
                let history = room.timeline.history.take();
                room.timeline = Timeline { history, ..cut.timeline };
            }
            if again.is_empty() {
                break;
            }
            wanted = again;
            window = (window * SECOND_LOOK).min(MAX_WINDOW.max(window));
        }
        for (index, position) in gaps {
            if let Some(room) = rooms.get_mut(index).filter(|room| room.is_continued) {
                room.timeline.state_before_new = self.state_before_gap(room.row.room_nid, position).await?;
            }
        }
        Ok(())
    }

    fn has_new_events(&self, room: &Room) -> bool {
        let is_touched = match self.scope {
            Scope::Everything => self.is_new(room.row.lane, room.row.seq),
            Scope::Touched(touched) => {
                touched.rooms.get(&room.row.room_nid).is_some_and(|touch| !touch.events.is_empty())
            }
        };
        // A room that only an invite told us of has no events.
        room.row.version > 0 && room.row.member_position.is_some() && (is_touched || !room.is_continued)
    }

    /// Reads what decides about visibility, for rooms that the reader may not have been in all the time, and finds the
    /// rooms that are new to the reader.
    async fn read_histories(&mut self, rooms: &mut [Room]) -> Result<(), ReadError> {
        let needs_history = |room: &Room| {
            !room.is_continued || room.kind == Kind::Left || self.is_new(room.row.member_lane, room.row.member_seq)
        };
        let room_nids: Vec<i64> =
            rooms.iter().filter(|room| needs_history(room)).map(|room| room.row.room_nid).collect();
        if room_nids.is_empty() {
            return Ok(());
        }
        let mut reads = Reads::default();
        let place = reads.add(timeline::visibility_history(&room_nids, self.request.user_id.as_str()));
        reads.run(&mut self.snapshot).await?;
        let mut events = by_room(timeline::read_events(reads.rows(place))?, |placed| placed.event.room_nid);
        let asked: HashSet<i64> = room_nids.into_iter().collect();
        for room in rooms.iter_mut().filter(|room| asked.contains(&room.row.room_nid)) {
            let events = events.remove(&room.row.room_nid).unwrap_or_default();
            let history = History::of(&events);
            if let Some(since) = self.since_positions()
                && !was_joined(&events, since)
            {
                // New to the reader: told as in a first sync.
                room.is_continued = false;
                room.is_whole = true;
            }
            // Whoever was only invited, or knocked, and left again has seen no state and does not see it now.
            room.sees_state = room.kind == Kind::Joined || history.ever_joined();
            room.timeline.history = Some(history);
        }
        Ok(())
    }

    /// The newest events of rooms, by index of the room, newest first, with the position behind which all are there.
    async fn read_windows(
        &mut self,
        rooms: &[Room],
        wanted: &[usize],
        window: usize,
    ) -> Result<HashMap<usize, (i64, Vec<Placed>)>, ReadError> {
        let count = i64::try_from(window).unwrap_or(i64::MAX);
        let mut reads = Reads::default();
        let mut joined = HashMap::new();
        let mut left = Vec::new();
        for (index, room) in wanted.iter().filter_map(|index| Some((*index, rooms.get(*index)?))) {
            match room.row.member_position.filter(|_| room.kind == Kind::Left) {
                Some(position) => {
                    left.push((index, reads.add(timeline::at_or_before(room.row.room_nid, position, count))));
                }
                None => drop(joined.insert(room.row.room_nid, index)),
            }
        }
        let room_nids: Vec<i64> = joined.keys().copied().collect();
        let place = reads.add_if(!room_nids.is_empty(), || timeline::newest(&room_nids, count));
        reads.run(&mut self.snapshot).await?;
        let mut windows = HashMap::new();
        let mut by_room = by_room(timeline::read_events(reads.rows(place))?, |placed| placed.event.room_nid);
        for (room_nid, index) in joined {
            let mut events = by_room.remove(&room_nid).unwrap_or_default();
            events.sort_unstable_by_key(|placed| std::cmp::Reverse(placed.event.position));
            let version = rooms.get(index).map_or(0, |room| room.row.version);
            windows.insert(index, (version.saturating_sub(count), events));
        }
        for (index, place) in left {
            let events = timeline::read_events(reads.rows(place))?;
            let floor = match events.last().and_then(|placed| placed.event.position) {
                Some(position) if events.len() >= window => position - 1,
                _ => 0,
            };
            windows.insert(index, (floor, events));
        }
        Ok(windows)
    }

    /// Takes a room's timeline out of its newest events.
    fn cut(&self, room: &Room, events: Vec<Placed>, floor: i64, limit: usize, personal: &Personal) -> Cut {
        let filter = &self.request.filter.timeline;
        let since = self.since_positions().filter(|_| room.is_continued);
        let allows_room = filter.allows_room(&room.row.room_id);
        let is_shown = |event: &CachedEvent| {
            // That they left is told to everybody who did.
            if room.kind == Kind::Left && event.event_nid == room.row.member_event_nid {
                return true;
            }
            allows_room
                && filter.allows(&event.pdu)
                && !personal.hides(&event.pdu)
                && room.timeline.history.as_ref().is_none_or(|history| history.allows(event, self.request.user_id))
        };
        let mut timeline = Timeline { floor, ..Timeline::default() };
        // Positions begin at 1; what was fetched from elsewhere later stands before.
        let mut is_complete = floor <= 0;
        let mut oldest_seen = None;
        for placed in events.iter().filter(|placed| self.upto.covers(placed.lane, placed.seq)) {
            if since.is_some_and(|since| since.covers(placed.lane, placed.seq)) {
                is_complete = true;
                break;
            }
            timeline.has_new = true;
            timeline.state_before_new = placed.event.state_nid;
            oldest_seen = placed.event.position;
            if timeline.events.len() >= limit {
                timeline.limited = true;
                if since.is_none() {
                    break;
                }
            } else if is_shown(&placed.event) {
                timeline.events.push(placed.event.clone());
            }
        }
        if since.is_none() && !timeline.limited && oldest_seen.is_some() {
            // In rooms of other servers there may be more than we hold.
            timeline.limited = !events.iter().any(|placed| placed.event.pdu.event_type() == "m.room.create");
        }
        let has_all = is_complete || timeline.events.len() >= limit;
        if !is_complete {
            timeline.limited = true;
        }
        timeline.events.reverse();
        let first = timeline.events.first().and_then(|event| event.position);
        timeline.prev_batch = match first {
            Some(position) => Some(position - 1),
            None => Some(room.row.member_position.filter(|_| room.kind == Kind::Left).unwrap_or(room.row.version)),
        };
        let gap_before = oldest_seen.filter(|_| !is_complete && since.is_some());
        timeline.read = events;
        Cut { timeline, needs_more: !has_all, gap_before }
    }

    /// The state before the first event that the reader does not have, somewhere before `position`.
    async fn state_before_gap(&mut self, room_nid: i64, position: i64) -> Result<Option<i64>, ReadError> {
        let mut state_nid = None;
        let mut below = position;
        loop {
            let mut reads = Reads::default();
            let place = reads.add(timeline::places_at_or_before(room_nid, below, PLACES));
            reads.run(&mut self.snapshot).await?;
            let places = reads.rows(place).iter().map(timeline::read_place).collect::<Result<Vec<_>, _>>()?;
            for place in &places {
                if self.since_positions().is_some_and(|since| since.covers(place.lane, place.seq)) {
                    return Ok(state_nid);
                }
                state_nid = place.state_nid.or(state_nid);
            }
            match places.last() {
                Some(last) if i64::try_from(places.len()) == Ok(PLACES) => below = last.position - 1,
                _ => return Ok(state_nid),
            }
        }
    }
}

/// Whether the reader was joined at a position, by the memberships among `events`.
fn was_joined(events: &[Placed], since: &Positions) -> bool {
    let newest = events
        .iter()
        .filter(|placed| placed.event.pdu.event_type() == "m.room.member" && since.covers(placed.lane, placed.seq))
        .max_by_key(|placed| placed.event.position);
    newest.and_then(|placed| Membership::of(&placed.event.pdu)) == Some(Membership::Join)
}
