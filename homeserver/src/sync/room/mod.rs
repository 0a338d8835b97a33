//! Reads one room for one user: its history, its members, its state.
//!
//! Who is in the room reads it as it is now. Who left reads it as it was then. Who never was in it reads it only if it is
//! open to everybody.

mod context;
mod members;
mod messages;
mod relations;
mod state;

use std::{collections::HashSet, sync::Arc};

pub use members::MembersQuery;
pub use messages::{Direction, HistorySource, MessagesQuery};
use ruma::{RoomId, UserId};

pub use self::{
    relations::{Recursion, RelationsQuery},
    state::StateFormat,
};
use super::{LazyLoading, ReadError, Syncer, visibility::History, write::Extras};
use crate::{
    params,
    storage::{
        Snapshot, Stmt,
        event_cache::CachedEvent,
        memberships,
        timeline::{self, Placed},
    },
    stream::Positions,
};

/// Who reads.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    pub user_id: &'a UserId,
    pub user_nid: i64,
    pub device_id: &'a str,
}

/// What a user may read of a room.
struct Access {
    room_nid: i64,
    /// The newest position that the user may see.
    newest: i64,
    /// The state that the user sees.
    state_nid: i64,
    /// Whether that is the current state.
    is_current: bool,
    is_joined: bool,
    history: History,
}

impl Syncer {
    /// Decides whether a user may read a room, and up to where.
    async fn access(&self, snapshot: &mut Snapshot, reader: Reader<'_>, room_id: &RoomId) -> Result<Access, ReadError> {
        let known = "SELECT room_nid, version, state_nid FROM rooms WHERE room_id = $1";
        let stmts = vec![
            Stmt::new(known, params![room_id.as_str()]),
            memberships::of_user_in_room(reader.user_nid, room_id.as_str()),
        ];
        let answers = snapshot.query_all(stmts).await?;
        let [room, membership] = answers.as_slice() else { return Err(ReadError::NotInRoom) };
        let room = room.first().ok_or(ReadError::NotInRoom)?;
        let (room_nid, version): (i64, i64) = (room.get(0)?, room.get(1)?);
        let mut access = Access {
            room_nid,
            newest: version,
            state_nid: room.get(2)?,
            is_current: true,
            is_joined: false,
            history: self.history(snapshot, room_nid, reader.user_id).await?,
        };
        let membership = memberships::read_user_rooms(membership)?.into_iter().next();
        match membership {
            Some(row) if row.membership == "join" => access.is_joined = true,
            Some(row) if access.history.ever_joined() && matches!(row.membership.as_str(), "leave" | "ban") => {
                let left_at = row.member_position.unwrap_or(version);
                if left_at < version {
                    access.newest = left_at;
                    access.is_current = false;
                    access.state_nid = self.state_after(snapshot, room_nid, left_at, access.state_nid).await?;
                }
            }
            _ if access.history.is_world_readable() => {}
            _ => return Err(ReadError::NotInRoom),
        }
        Ok(access)
    }

    async fn history(&self, snapshot: &mut Snapshot, room_nid: i64, user_id: &UserId) -> Result<History, ReadError> {
        let events = read(snapshot, timeline::visibility_history(&[room_nid], user_id.as_str())).await?;
        Ok(History::of(&events))
    }

    /// The state right after a position.
    async fn state_after(
        &self,
        snapshot: &mut Snapshot,
        room_nid: i64,
        position: i64,
        current: i64,
    ) -> Result<i64, ReadError> {
        let Stmt { sql, params, .. } = timeline::place_after(room_nid, position);
        let next = snapshot.query_opt(sql, params).await?.as_ref().map(timeline::read_place).transpose()?;
        Ok(next.and_then(|place| place.state_nid).unwrap_or(current))
    }

    /// The newest position of a room that a sync's position covers.
    async fn covered(&self, snapshot: &mut Snapshot, access: &Access, positions: &Positions) -> Result<i64, ReadError> {
        const PLACES: i64 = 1_000;
        let mut below = access.newest;
        loop {
            let Stmt { sql, params, .. } = timeline::places_at_or_before(access.room_nid, below, PLACES);
            let rows = snapshot.query(sql, params).await?;
            for row in &rows {
                let place = timeline::read_place(row)?;
                if positions.covers(place.lane, place.seq) {
                    return Ok(place.position);
                }
                below = place.position - 1;
            }
            if i64::try_from(rows.len()).unwrap_or(0) < PLACES {
                return Ok(below);
            }
        }
    }

    /// Reads what is told beside events.
    async fn extras(
        &self,
        snapshot: &mut Snapshot,
        reader: Reader<'_>,
        access: &Access,
        events: &[&CachedEvent],
    ) -> Result<Extras, ReadError> {
        let mut extras = Extras::at(self.now_ms());
        let states: Vec<i64> =
            events.iter().filter(|event| event.pdu.is_state()).map(|event| event.event_nid).collect();
        super::extras::read_extras(snapshot, events, &states, &mut extras).await?;
        super::extras::read_bundles(snapshot, events, reader.user_id, &mut extras).await?;
        for event in events {
            if let Some(position) = event.position {
                let membership = access.history.membership_at(position);
                extras.note_membership(event.event_nid, membership);
            }
            if event.pdu.sender() == reader.user_id
                && let Some(cached) = self.shared.parts.events.get(event.event_nid)
                && let Some(transaction) = &cached.transaction
                && transaction.is_of(reader.user_nid, reader.device_id)
            {
                extras.transactions.insert(event.pdu.event_id().to_string(), transaction.txn_id.to_string());
            }
        }
        Ok(extras)
    }

    /// The memberships of those who sent `events`, for clients that load them lazily.
    async fn senders(
        &self,
        snapshot: &mut Snapshot,
        access: &Access,
        lazy: LazyLoading,
        events: &[&CachedEvent],
    ) -> Result<Vec<Arc<CachedEvent>>, ReadError> {
        if lazy == LazyLoading::Off || events.is_empty() {
            return Ok(Vec::new());
        }
        let senders: HashSet<&str> = events.iter().map(|event| event.pdu.sender().as_str()).collect();
        let senders: Vec<&str> = senders.into_iter().collect();
        let members = read(snapshot, timeline::current_members(&[access.room_nid], &senders)).await?;
        Ok(members.into_iter().map(|placed| placed.event).collect())
    }
}

impl Access {
    /// Whether the user may see an event of the room.
    fn allows(&self, event: &CachedEvent, user_id: &UserId) -> bool {
        event.position.is_none_or(|position| position <= self.newest) && self.history.allows(event, user_id)
    }
}

async fn read(snapshot: &mut Snapshot, stmt: Stmt) -> Result<Vec<Placed>, ReadError> {
    Ok(timeline::read_events(&snapshot.query(stmt.sql, stmt.params).await?)?)
}
