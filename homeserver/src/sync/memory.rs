//! What is remembered between the syncs of a user: joined rooms, push rules, counts, which memberships a device knows.
//!
//! Each memory says up to which position it is right and is moved on by the log of changes, without a gap. What was
//! read from the database enters only if nothing that concerns it changed since the reading began.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use parking_lot::Mutex;

use super::unread::{Personal, RoomFacts, Unread};
use crate::{
    storage::event_cache::EventCache,
    stream::{Change, Positions, SinceLog, Stream},
};

/// Users that are remembered.
const USERS: usize = 20_000;
/// Rooms whose facts are remembered.
const ROOMS: usize = 20_000;
/// Memberships that a device is remembered to know; beyond that it is sent some again.
const KNOWN_MEMBERS: usize = 20_000;

/// The rooms that a user is joined to: number and id.
pub(super) type Joined = HashMap<i64, Arc<str>>;

/// The memories of all users.
#[derive(Default)]
pub(super) struct Memories {
    users: Mutex<HashMap<i64, Arc<Mutex<Memory>>>>,
}

impl Memories {
    pub(super) fn of(&self, user_nid: i64) -> Arc<Mutex<Memory>> {
        let mut users = self.users.lock();
        if users.len() >= USERS && !users.contains_key(&user_nid) {
            // Who syncs right now holds a second reference.
            users.retain(|_, memory| Arc::strong_count(memory) > 1);
        }
        users.entry(user_nid).or_insert_with(|| Arc::new(Mutex::new(Memory::new(user_nid)))).clone()
    }
}

/// What is remembered of one user.
pub(super) struct Memory {
    user_nid: i64,
    as_of: Positions,
    pub(super) joined: Option<Arc<Joined>>,
    pub(super) personal: Option<Arc<Personal>>,
    /// By device: the part of an answer that tells how many keys are left, as text.
    pub(super) key_counts: HashMap<String, Arc<str>>,
    pub(super) unread: HashMap<i64, Unread>,
    pub(super) known_members: HashMap<String, KnownMembers>,
}

impl Memory {
    fn new(user_nid: i64) -> Self {
        Self {
            user_nid,
            as_of: Positions::default(),
            joined: None,
            personal: None,
            key_counts: HashMap::new(),
            unread: HashMap::new(),
            known_members: HashMap::new(),
        }
    }

    /// Moves on to what is known now, and says where that is.
    pub(super) fn catch_up(&mut self, stream: &Stream, events: &EventCache) -> Positions {
        // Read first: what is forgotten below was right up to some later position at most.
        let now = stream.positions();
        match stream.changes_since(&self.as_of) {
            SinceLog::Known { upto, entries } => {
                for change in entries.iter().flat_map(|entry| entry.changes.iter()) {
                    self.take(change, events);
                }
                self.as_of = upto;
            }
            SinceLog::Unknown => {
                let known_members = std::mem::take(&mut self.known_members);
                *self = Self { as_of: now, known_members, ..Self::new(self.user_nid) };
            }
        }
        self.as_of.clone()
    }

    fn take(&mut self, change: &Change, events: &EventCache) {
        match change {
            Change::Event { room, event, position }
                if self.unread.get_mut(room).is_some_and(|unread| !unread.note(*event, *position)) =>
            {
                self.unread.remove(room);
            }
            Change::Membership { room, user } if *user == self.user_nid => {
                self.joined = None;
                self.unread.remove(room);
            }
            Change::Room { room } => {
                if let Some(unread) = self.unread.get_mut(room) {
                    unread.is_stale = true;
                }
            }
            Change::User { user } if *user == self.user_nid => {
                self.personal = None;
                self.key_counts.clear();
            }
            Change::Redaction { event } => events.forget(*event),
            _ => {}
        }
    }

    /// Remembers counts that were made from a reading that began at `began`.
    pub(super) fn remember_unread(&mut self, stream: &Stream, began: &Positions, room_nid: i64, mut unread: Unread) {
        let SinceLog::Known { entries, .. } = stream.changes_since(began) else { return };
        for change in entries.iter().flat_map(|entry| entry.changes.iter()) {
            let is_void = match change {
                Change::Event { room, event, position } if *room == room_nid => !unread.note(*event, *position),
                Change::Membership { room, user } => *room == room_nid && *user == self.user_nid,
                Change::Room { room } => *room == room_nid,
                Change::User { user } => *user == self.user_nid,
                _ => false,
            };
            if is_void {
                return;
            }
        }
        self.unread.insert(room_nid, unread);
    }

    /// Remembers the joined rooms, from a reading that began at `began`.
    pub(super) fn remember_joined(&mut self, stream: &Stream, began: &Positions, joined: Arc<Joined>) {
        let user_nid = self.user_nid;
        if nothing_since(stream, began, |change| matches!(change, Change::Membership { user, .. } if *user == user_nid))
        {
            self.joined = Some(joined);
        }
    }

    /// Remembers push rules and ignored users.
    pub(super) fn remember_personal(&mut self, stream: &Stream, began: &Positions, personal: Arc<Personal>) {
        if self.nothing_of_own_since(stream, began) {
            self.personal = Some(personal);
        }
    }

    /// Remembers how many keys a device has left.
    pub(super) fn remember_key_counts(&mut self, stream: &Stream, began: &Positions, device_id: &str, text: Arc<str>) {
        if self.nothing_of_own_since(stream, began) {
            self.key_counts.insert(device_id.to_owned(), text);
        }
    }

    fn nothing_of_own_since(&self, stream: &Stream, began: &Positions) -> bool {
        nothing_since(stream, began, |change| matches!(change, Change::User { user } if *user == self.user_nid))
    }
}

/// Which memberships a device has been sent, for lazy loading.
#[derive(Default)]
pub(super) struct KnownMembers {
    /// By room and user, with the position of the answer that carried it: only a client that continues from there has
    /// surely received it.
    sent: HashMap<(i64, String), Arc<Positions>>,
}

impl KnownMembers {
    pub(super) fn knows(&self, room_nid: i64, user_id: &str, since: &Positions) -> bool {
        // The tuple's owned key costs an allocation; it is one per sender and answer.
        self.sent.get(&(room_nid, user_id.to_owned())).is_some_and(|sent| since.includes(sent))
    }

    pub(super) fn note(&mut self, room_nid: i64, user_id: &str, upto: &Arc<Positions>) {
        if self.sent.len() >= KNOWN_MEMBERS {
            self.sent.clear();
        }
        self.sent.insert((room_nid, user_id.to_owned()), upto.clone());
    }
}

/// Facts about rooms that make events notify, for all users.
#[derive(Default)]
pub(super) struct FactsMemory {
    kept: Mutex<Facts>,
}

#[derive(Default)]
struct Facts {
    as_of: Positions,
    rooms: HashMap<i64, Arc<RoomFacts>>,
}

impl FactsMemory {
    /// The facts of those rooms that are known, and the position that a reading of the others begins at.
    pub(super) fn of(
        &self,
        room_nids: impl IntoIterator<Item = i64>,
        stream: &Stream,
        events: &EventCache,
    ) -> (HashMap<i64, Arc<RoomFacts>>, Positions) {
        let mut kept = self.kept.lock();
        kept.catch_up(stream, events);
        let found = room_nids.into_iter().filter_map(|room| Some((room, kept.rooms.get(&room)?.clone()))).collect();
        (found, kept.as_of.clone())
    }

    pub(super) fn remember(&self, stream: &Stream, began: &Positions, facts: &HashMap<i64, Arc<RoomFacts>>) {
        let SinceLog::Known { entries, .. } = stream.changes_since(began) else { return };
        let touched: HashSet<i64> = entries
            .iter()
            .flat_map(|entry| entry.changes.iter())
            .filter_map(|change| match change {
                Change::Event { room, .. } | Change::Membership { room, .. } => Some(*room),
                _ => None,
            })
            .collect();
        let mut kept = self.kept.lock();
        if kept.rooms.len() + facts.len() > ROOMS {
            kept.rooms.clear();
        }
        let untouched = facts.iter().filter(|(room, _)| !touched.contains(room));
        kept.rooms.extend(untouched.map(|(room, facts)| (*room, facts.clone())));
    }
}

impl Facts {
    fn catch_up(&mut self, stream: &Stream, events: &EventCache) {
        let now = stream.positions();
        match stream.changes_since(&self.as_of) {
            SinceLog::Known { upto, entries } => {
                for change in entries.iter().flat_map(|entry| entry.changes.iter()) {
                    match change {
                        Change::Membership { room, .. } => drop(self.rooms.remove(room)),
                        // What is no state changes no facts; what is not at hand may be state.
                        Change::Event { room, event, .. }
                            if self.rooms.contains_key(room)
                                && events.get(*event).is_none_or(|event| event.pdu.is_state()) =>
                        {
                            self.rooms.remove(room);
                        }
                        _ => {}
                    }
                }
                self.as_of = upto;
            }
            SinceLog::Unknown => *self = Self { as_of: now, rooms: HashMap::new() },
        }
    }
}

fn nothing_since(stream: &Stream, began: &Positions, concerns: impl Fn(&Change) -> bool) -> bool {
    match stream.changes_since(began) {
        SinceLog::Known { entries, .. } => !entries.iter().flat_map(|entry| entry.changes.iter()).any(concerns),
        SinceLog::Unknown => false,
    }
}
