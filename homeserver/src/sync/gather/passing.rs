//! What passes in rooms: receipts and typing; and what the user keeps for rooms.

use std::collections::{BTreeMap, HashMap};

use super::{Context, Gathered, Kind, Reads, Room, by_room, lanes};
use crate::{
    storage::{
        receipts::{self, ReceiptRow},
        typing, unread,
    },
    sync::{ReadError, scope::Scope},
};

/// Receipts and typing of one room.
#[derive(Default)]
pub(in crate::sync) struct Passing {
    /// In order of events and kinds.
    pub(in crate::sync) receipts: Vec<ReceiptRow>,
    /// Who types, if that changed.
    pub(in crate::sync) typing: Option<Vec<i64>>,
}

impl Passing {
    pub(super) fn is_empty(&self) -> bool {
        self.receipts.is_empty() && self.typing.is_none()
    }
}

impl Context<'_> {
    pub(super) async fn read_passing(&mut self, rooms: &mut [Room], gathered: &mut Gathered) -> Result<(), ReadError> {
        let filter = self.request.filter.clone();
        let is_touched = |room: &Room| match self.scope {
            Scope::Everything => true,
            Scope::Touched(touched) => touched.rooms.get(&room.row.room_nid).is_some_and(|touch| touch.passing),
        };
        let joined = |is_continued: bool| -> Vec<i64> {
            rooms
                .iter()
                .filter(|room| room.kind == Kind::Joined && room.is_continued == is_continued && is_touched(room))
                .filter(|room| filter.ephemeral.allows_room(&room.row.room_id))
                .map(|room| room.row.room_nid)
                .collect()
        };
        let (continued, fresh) = (joined(true), joined(false));
        let (since, upto) = (self.since_lanes(), lanes(&self.upto));
        let user_nid = self.request.user_nid;
        let wants_receipts = filter.ephemeral.allows_type("m.receipt");
        let wants_typing = filter.ephemeral.allows_type("m.typing");
        let mut reads = Reads::default();
        let mut receipt_places = Vec::new();
        let mut typing_places = Vec::new();
        for (room_nids, since) in [(continued, since), (fresh, Vec::new())] {
            if room_nids.is_empty() {
                continue;
            }
            if wants_receipts {
                receipt_places.push(reads.add(receipts::moved(&room_nids, user_nid, &since, &upto)));
            }
            if wants_typing {
                let stmt = typing::typing_changes(&room_nids, &since, &upto, self.sync.now_ms());
                typing_places.push((reads.add(stmt), since.is_empty()));
            }
        }
        let fresh_ids: Vec<&str> =
            rooms.iter().filter(|room| !room.is_continued).map(|room| &*room.row.room_id).collect();
        // A first sync has read all account data already.
        let kept = reads.add_if(self.since.is_some() && !fresh_ids.is_empty(), || {
            unread::account_data_of_rooms(user_nid, &fresh_ids)
        });
        reads.run(&mut self.snapshot).await?;

        let mut moved = Vec::new();
        for place in receipt_places {
            moved.extend(receipts::read_moved(reads.rows(place))?);
        }
        let mut typing_users = Vec::new();
        for (place, is_fresh) in typing_places {
            let changed = typing::read_typing_changes(reads.rows(place))?;
            // That nobody types needs no telling to who was told nothing.
            typing_users.extend(changed.into_iter().filter(|(_, users)| !is_fresh || !users.is_empty()));
        }
        let mut receipts = by_room(moved, |receipt| receipt.room_nid);
        let mut typing_users: HashMap<i64, Vec<i64>> = typing_users.into_iter().collect();
        let mut account_data = by_room_id(unread::read_account_data(reads.rows(kept))?);
        let is_of_room = |data: &unread::AccountData| !data.room_id.is_empty();
        let (of_rooms, global) = std::mem::take(&mut gathered.account_data).into_iter().partition(is_of_room);
        gathered.account_data = global;
        let mut changed_data = by_room_id(of_rooms);
        for room in rooms.iter_mut() {
            let oldest = room.timeline.events.first().and_then(|event| event.position);
            let is_told = |receipt: &ReceiptRow| {
                // A fresh room's older receipts belong to events that are not told.
                room.is_continued
                    || receipt.user_nid == user_nid
                    || receipt.position.is_none_or(|position| oldest.is_none_or(|oldest| position >= oldest))
            };
            room.passing.receipts =
                receipts.remove(&room.row.room_nid).unwrap_or_default().into_iter().filter(is_told).collect();
            room.passing.typing = typing_users.remove(&room.row.room_nid);
            let changed = changed_data.remove(&*room.row.room_id).unwrap_or_default();
            let kept = account_data.remove(&*room.row.room_id);
            room.account_data = kept.unwrap_or(changed);
            let filter = &filter.room_account_data;
            let allows_room = filter.allows_room(&room.row.room_id);
            let (is_fresh, room_data) = (!room.is_continued, &mut room.account_data);
            // What was deleted is an empty object; who was told nothing needs not be told of that.
            room_data.retain(|data| {
                allows_room && filter.allows_type(&data.data_type) && !(is_fresh && data.content == "{}")
            });
        }
        Ok(())
    }
}

fn by_room_id(items: Vec<unread::AccountData>) -> BTreeMap<String, Vec<unread::AccountData>> {
    let mut rooms: BTreeMap<String, Vec<unread::AccountData>> = BTreeMap::new();
    for item in items {
        rooms.entry(item.room_id.clone()).or_default().push(item);
    }
    rooms
}
