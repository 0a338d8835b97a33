//! Pages through a room's history. Specification: client-server API, `GET /rooms/{roomId}/messages`.

use std::{pin::Pin, sync::Arc};

use ruma::RoomId;

use super::{Access, Reader, read};
use crate::{
    rules::pdu::ClientFormat,
    storage::{Snapshot, event_cache::CachedEvent, timeline},
    sync::{
        EventFilter, HistoryToken, LazyLoading, ReadError, Syncer,
        write::{Object, push_list},
    },
};

/// The most events of one page.
const MAX_LIMIT: usize = 1_000;
/// Events that are looked at for one page, when a filter or the room's visibility hides most of them.
const MAX_LOOKED_AT: usize = 5_000;

/// Which way to page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Backward,
    Forward,
}

/// What page is asked for.
#[derive(Clone, Debug)]
pub struct MessagesQuery {
    pub direction: Direction,
    /// Where to begin; `None` for the newest or the oldest event.
    pub from: Option<HistoryToken>,
    /// Where to end.
    pub to: Option<HistoryToken>,
    pub limit: usize,
    pub filter: EventFilter,
    pub lazy: LazyLoading,
}

/// Where the history of a room comes from when ours ends. Other servers have it; who asks them implements this.
pub trait HistorySource: Send + Sync {
    /// Fetches events that come before the oldest one that is stored. `true` when some came.
    fn fetch_before<'a>(&'a self, room_id: &'a RoomId, limit: usize)
    -> Pin<Box<dyn Future<Output = bool> + Send + 'a>>;
}

/// Some events in the order of reading, and where to go on.
pub(super) struct Page {
    pub(super) events: Vec<Arc<CachedEvent>>,
    /// The position behind which the next page begins; `None` when nothing is left.
    pub(super) next: Option<i64>,
}

impl Syncer {
    /// One page of a room's history as JSON.
    ///
    /// # Errors
    /// [`ReadError::NotInRoom`], and those of the database.
    pub async fn messages(
        &self,
        reader: Reader<'_>,
        room_id: &RoomId,
        query: &MessagesQuery,
    ) -> Result<String, ReadError> {
        let mut snapshot = self.db().snapshot().await?;
        let mut access = self.access(&mut snapshot, reader, room_id).await?;
        let limit = query.limit.clamp(1, MAX_LIMIT);
        let from = match &query.from {
            Some(token) => self.position(&mut snapshot, &access, token).await?,
            None if query.direction == Direction::Backward => access.newest,
            None => i64::MIN,
        };
        let to = match &query.to {
            Some(token) => Some(self.position(&mut snapshot, &access, token).await?),
            None => None,
        };
        let is_shown = |access: &Access, event: &CachedEvent| {
            query.filter.allows_room(room_id.as_str())
                && query.filter.allows(&event.pdu)
                && access.allows(event, reader.user_id)
        };
        let mut page = match query.direction {
            Direction::Backward => backward(&mut snapshot, &access, from, to, limit, is_shown).await?,
            Direction::Forward => forward(&mut snapshot, &access, from, to, limit, is_shown).await?,
        };
        if query.direction == Direction::Backward
            && page.next.is_none()
            && page.events.len() < limit
            && self.has_gap_before(&mut snapshot, &access).await?
            && let Some(source) = &self.shared.parts.history
        {
            // The snapshot ends: nothing is held while another server is asked.
            drop(snapshot);
            source.fetch_before(room_id, limit).await;
            snapshot = self.db().snapshot().await?;
            access = self.access(&mut snapshot, reader, room_id).await?;
            page = backward(&mut snapshot, &access, from, to, limit, is_shown).await?;
        }
        let events: Vec<&CachedEvent> = page.events.iter().map(|event| &**event).collect();
        let extras = self.extras(&mut snapshot, reader, &access, &events).await?;
        let members = self.senders(&mut snapshot, &access, query.lazy, &events).await?;
        let mut out = String::with_capacity(events.len() * 512 + 256);
        let mut object = Object::open(&mut out);
        let start = query.from.clone().unwrap_or(HistoryToken::Behind(from));
        object.string("start", &start.to_string());
        if let Some(next) = page.next {
            object.string("end", &HistoryToken::Behind(next).to_string());
        }
        push_list(object.key("chunk"), events, |out, event| extras.push_event(out, event, ClientFormat::Full));
        if !members.is_empty() {
            push_list(object.key("state"), &members, |out, event| {
                extras.push_state_event(out, event, ClientFormat::Full);
            });
        }
        object.close();
        Ok(out)
    }

    /// The position that a token stands for in a room.
    pub(super) async fn position(
        &self,
        snapshot: &mut Snapshot,
        access: &Access,
        token: &HistoryToken,
    ) -> Result<i64, ReadError> {
        match token {
            HistoryToken::Behind(position) => Ok(*position),
            HistoryToken::Sync(positions) => self.covered(snapshot, access, positions).await,
        }
    }

    /// Whether the room has history that is not stored here.
    async fn has_gap_before(&self, snapshot: &mut Snapshot, access: &Access) -> Result<bool, ReadError> {
        let sql = "SELECT 1 FROM backward_extremities WHERE room_nid = $1 LIMIT 1";
        Ok(snapshot.query_opt(sql, crate::params![access.room_nid]).await?.is_some())
    }
}

/// The events at or before `from`, newest first.
pub(super) async fn backward(
    snapshot: &mut Snapshot,
    access: &Access,
    from: i64,
    to: Option<i64>,
    limit: usize,
    is_shown: impl Fn(&Access, &CachedEvent) -> bool,
) -> Result<Page, ReadError> {
    let mut events = Vec::new();
    let mut below = from.min(access.newest);
    let mut looked_at = 0;
    loop {
        // One more than wanted tells whether there is more.
        let count = limit.saturating_sub(events.len()).saturating_add(1).max(50);
        let stmt = timeline::at_or_before(access.room_nid, below, i64::try_from(count).unwrap_or(i64::MAX));
        let read = read(snapshot, stmt).await?;
        let is_last = read.len() < count;
        for placed in read {
            let Some(position) = placed.event.position else { continue };
            if to.is_some_and(|to| position <= to) {
                return Ok(Page { events, next: None });
            }
            if events.len() >= limit {
                return Ok(Page { events, next: Some(position) });
            }
            below = position - 1;
            looked_at += 1;
            if is_shown(access, &placed.event) {
                events.push(placed.event);
            }
        }
        if is_last {
            return Ok(Page { events, next: None });
        }
        if looked_at >= MAX_LOOKED_AT {
            return Ok(Page { events, next: Some(below) });
        }
    }
}

/// The events after `from`, oldest first.
pub(super) async fn forward(
    snapshot: &mut Snapshot,
    access: &Access,
    from: i64,
    to: Option<i64>,
    limit: usize,
    is_shown: impl Fn(&Access, &CachedEvent) -> bool,
) -> Result<Page, ReadError> {
    let mut events: Vec<Arc<CachedEvent>> = Vec::new();
    let mut behind = from;
    let mut looked_at = 0;
    let end = to.map_or(access.newest, |to| to.min(access.newest));
    loop {
        let count = limit.saturating_sub(events.len()).saturating_add(1).max(50);
        let stmt = timeline::after(access.room_nid, behind, i64::try_from(count).unwrap_or(i64::MAX));
        let read = read(snapshot, stmt).await?;
        let is_last = read.len() < count;
        for placed in read {
            let Some(position) = placed.event.position else { continue };
            if position > end {
                return Ok(Page { events, next: None });
            }
            if events.len() >= limit {
                return Ok(Page { events, next: Some(behind) });
            }
            behind = position;
            looked_at += 1;
            if is_shown(access, &placed.event) {
                events.push(placed.event);
            }
        }
        if is_last {
            return Ok(Page { events, next: None });
        }
        if looked_at >= MAX_LOOKED_AT {
            return Ok(Page { events, next: Some(behind) });
        }
    }
}
