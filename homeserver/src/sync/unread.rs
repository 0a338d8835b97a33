//! Counts what a user has not read. Counts are kept in memory and moved on by each new event; a room that was not
//! looked at before is counted from its newest events, as far back as [`COLD_EVENTS`] allows.
//!
//! Specification: client-server API, "Receiving notifications" and "Threaded read receipts".

use std::collections::{BTreeMap, HashMap, HashSet};

use ruma::{UserId, push::Ruleset};
use serde::Deserialize;

use crate::{
    rules::{
        pdu::Pdu,
        power::RoomPower,
        push::{PreparedEvent, Reader, RoomContext, effective_rules},
    },
    storage::{DbError, Row, event_cache::CachedEvent, unread::OwnReceipt},
};

/// Events of one room that are looked at when its count is not known; what lies further back is not counted.
pub(super) const COLD_EVENTS: usize = 500;
/// The same for all rooms of one sync together.
pub(super) const COLD_EVENTS_IN_ALL: usize = 5_000;
/// New events of a room that are remembered for counting until somebody syncs; more than that, and it is counted anew.
const MAX_PENDING: usize = 500;
/// The thread that everything outside threads belongs to.
const MAIN: &str = "main";

/// Notifications and highlights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) notifications: u64,
    pub(super) highlights: u64,
}

/// What a user has not read in one room.
#[derive(Clone, Debug, Default)]
pub(super) struct Unread {
    /// The newest position that is counted.
    counted_upto: i64,
    read: ReadUpto,
    /// Newer events, by number and position, that are not counted yet.
    pending: Vec<(i64, i64)>,
    main: Count,
    threads: BTreeMap<String, Count>,
    display_name: Option<String>,
    /// A receipt may have moved since.
    pub(super) is_stale: bool,
}

/// How far a user has read each thread of a room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ReadUpto {
    everywhere: i64,
    threads: HashMap<String, i64>,
}

/// What a room contributes to the question whether an event notifies.
#[derive(Debug, Default)]
pub(super) struct RoomFacts {
    pub(super) member_count: u64,
    pub(super) power: Option<RoomPower>,
}

/// What a user contributes.
#[derive(Debug)]
pub(super) struct Personal {
    pub(super) rules: Ruleset,
    pub(super) ignored: HashSet<String>,
}

impl ReadUpto {
    /// From a user's receipts in one room; one who never read anything begins at `joined_at`.
    pub(super) fn new<'a>(receipts: impl IntoIterator<Item = &'a OwnReceipt>, joined_at: i64) -> Self {
        let mut read = Self { everywhere: i64::MIN, threads: HashMap::new() };
        for receipt in receipts {
            if receipt.thread_id.is_empty() {
                read.everywhere = read.everywhere.max(receipt.position);
            } else {
                let reached = read.threads.entry(receipt.thread_id.clone()).or_insert(i64::MIN);
                *reached = receipt.position.max(*reached);
            }
        }
        if read.everywhere == i64::MIN {
            read.everywhere = joined_at;
        }
        read
    }

    /// Everything up to here is read, in whatever thread.
    pub(super) fn everywhere(&self) -> i64 {
        self.everywhere
    }

    fn covers(&self, thread: &str, position: i64) -> bool {
        position <= self.everywhere || self.threads.get(thread).is_some_and(|reached| position <= *reached)
    }
}

impl Unread {
    /// A count that begins behind what is read.
    pub(super) fn begin(read: ReadUpto, display_name: Option<String>) -> Self {
        Self { counted_upto: read.everywhere, read, display_name, ..Self::default() }
    }

    /// The same count anew, behind what is read now.
    pub(super) fn restarted(&self, read: ReadUpto) -> Self {
        Self::begin(read, self.display_name.clone())
    }

    /// Whether nothing was counted yet.
    pub(super) fn is_new(&self) -> bool {
        self.counted_upto == self.read.everywhere
    }

    /// Notes an event that came; `false` when so much is waiting that the room should be counted anew.
    pub(super) fn note(&mut self, event_nid: i64, position: i64) -> bool {
        if position > self.counted_upto {
            // The log has events lane by lane: a room that two shards write to may have its later event first.
            let place = self.pending.partition_point(|(_, pending)| *pending < position);
            if self.pending.get(place).is_none_or(|(_, pending)| *pending != position) {
                self.pending.insert(place, (event_nid, position));
            }
        }
        self.pending.len() <= MAX_PENDING
    }

    /// The events that have to be counted, by number, in order.
    pub(super) fn pending(&self) -> impl Iterator<Item = i64> + '_ {
        self.pending.iter().map(|(event_nid, _)| *event_nid)
    }

    pub(super) fn read(&self) -> &ReadUpto {
        &self.read
    }

    /// Counts an event. Events come in order; one that was counted before changes nothing.
    pub(super) fn count(&mut self, event: &CachedEvent, facts: &RoomFacts, personal: &Personal, user_id: &UserId) {
        let Some(position) = event.position.filter(|position| *position > self.counted_upto) else { return };
        self.counted_upto = position;
        self.pending.retain(|(_, pending)| *pending > position);
        if event.redacted_by.is_some() || event.pdu.sender() == user_id || personal.hides(&event.pdu) {
            return;
        }
        let thread = thread_of(&event.pdu);
        let thread = thread.as_deref().unwrap_or(MAIN);
        if self.read.covers(thread, position) {
            return;
        }
        let sender_can_notify_room =
            facts.power.as_ref().is_some_and(|power| power.can_notify_room(event.pdu.sender()));
        let context = RoomContext { member_count: facts.member_count, sender_can_notify_room };
        let reader = Reader { user_id, display_name: self.display_name.as_deref() };
        let verdict = PreparedEvent::new(&event.pdu, context).verdict(&personal.rules, reader);
        if !verdict.notify {
            return;
        }
        let count = if thread == MAIN { &mut self.main } else { self.threads.entry(thread.to_owned()).or_default() };
        count.notifications += 1;
        count.highlights += u64::from(verdict.highlight);
    }

    /// What is unread outside threads.
    pub(super) fn main(&self) -> Count {
        self.main
    }

    /// What is unread in each thread.
    pub(super) fn threads(&self) -> impl Iterator<Item = (&str, Count)> {
        self.threads.iter().map(|(thread, count)| (thread.as_str(), *count))
    }

    /// What is unread in all.
    pub(super) fn total(&self) -> Count {
        self.threads.values().fold(self.main, |sum, count| Count {
            notifications: sum.notifications + count.notifications,
            highlights: sum.highlights + count.highlights,
        })
    }
}

impl Personal {
    /// From the rows of [`crate::storage::unread::personal`].
    ///
    /// # Errors
    /// [`DbError::Column`].
    pub(super) fn read(rows: &[Row], user_id: &UserId) -> Result<Self, DbError> {
        let mut personal = Self { rules: effective_rules(None, user_id), ignored: HashSet::new() };
        for row in rows {
            let content: String = row.get(1)?;
            match row.get::<String>(0)?.as_str() {
                "m.push_rules" => personal.rules = effective_rules(stored_rules(&content), user_id),
                _ => personal.ignored = ignored_users(&content),
            }
        }
        Ok(personal)
    }

    /// Whether the user does not want to see an event. States are always shown: hiding them would break the room.
    pub(super) fn hides(&self, event: &Pdu) -> bool {
        !event.is_state() && self.ignored.contains(event.sender().as_str())
    }
}

fn stored_rules(content: &str) -> Option<Ruleset> {
    #[derive(Deserialize)]
    struct Content {
        global: Ruleset,
    }
    serde_json::from_str::<Content>(content).ok().map(|content| content.global)
}

fn ignored_users(content: &str) -> HashSet<String> {
    #[derive(Deserialize)]
    struct Content {
        ignored_users: HashMap<String, serde::de::IgnoredAny>,
    }
    serde_json::from_str::<Content>(content)
        .map(|content| content.ignored_users.into_keys().collect())
        .unwrap_or_default()
}

/// The root of the thread that an event says it belongs to.
pub(super) fn thread_of(event: &Pdu) -> Option<String> {
    #[derive(Deserialize)]
    struct Content {
        #[serde(rename = "m.relates_to")]
        relates_to: Relation,
    }
    #[derive(Deserialize)]
    struct Relation {
        rel_type: String,
        event_id: String,
    }
    if !event.content_json().contains("m.thread") {
        return None;
    }
    let relation = event.content_as::<Content>().ok()?.relates_to;
    (relation.rel_type == "m.thread").then_some(relation.event_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipt(thread_id: &str, position: i64) -> OwnReceipt {
        OwnReceipt { room_nid: 1, thread_id: thread_id.to_owned(), position }
    }

    #[test]
    fn the_receipt_that_is_ahead_counts() {
        let read = ReadUpto::new(&[receipt("", 5), receipt("", 7), receipt("main", 9), receipt("$root", 6)], 2);
        assert!(read.covers("main", 9) && !read.covers("main", 10));
        assert!(read.covers("$root", 7) && !read.covers("$root", 8));
        assert_eq!(ReadUpto::new(&[receipt("main", 9)], 2).everywhere(), 2);
    }

    #[test]
    fn events_wait_in_order_and_once() {
        let mut unread = Unread::begin(ReadUpto::new(&[receipt("", 5)], 0), None);
        for (event_nid, position) in [(4, 4), (6, 6), (8, 8), (7, 7), (6, 6)] {
            assert!(unread.note(event_nid, position));
        }
        assert_eq!(unread.pending().collect::<Vec<_>>(), [6, 7, 8]);
    }
}
