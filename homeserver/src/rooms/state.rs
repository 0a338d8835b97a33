//! A room's state at one point: which event stands at each type and key, and how it is stored.

use std::collections::{BTreeMap, HashMap};

use ruma::{OwnedEventId, events::StateEventType};

use crate::{
    rules::resolve::StateMap,
    storage::{
        Db, DbError, Stmt, events,
        nid::{NidKind, Nids},
        state::{self, Blocks},
    },
};

/// An event as part of a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateEntry {
    pub event_nid: i64,
    pub event_id: OwnedEventId,
}

/// A state. `state_nid` names the stored snapshot; 0 is the empty state before a room's first event.
#[derive(Clone, Debug, Default)]
pub struct RoomState {
    pub state_nid: i64,
    entries: HashMap<String, BTreeMap<String, StateEntry>>,
    blocks: Blocks,
}

impl RoomState {
    /// Reads a stored state.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn load(db: &Db, state_nid: i64) -> Result<Self, DbError> {
        if state_nid == 0 {
            return Ok(Self::default());
        }
        let blocks = state::blocks(db, state_nid).await?;
        let event_nids: Vec<i64> = blocks.event_nids().collect();
        let mut entries: HashMap<String, BTreeMap<String, StateEntry>> = HashMap::new();
        for row in events::state_rows(db, &event_nids).await? {
            let entry = StateEntry { event_nid: row.event_nid, event_id: row.event_id };
            entries.entry(row.event_type).or_default().insert(row.state_key, entry);
        }
        Ok(Self { state_nid, entries, blocks })
    }

    /// A state out of resolved event ids; `known` tells the number of each.
    ///
    /// # Errors
    /// [`DbError::Corrupt`] when an event has no number.
    pub fn from_map(map: &StateMap, known: &HashMap<OwnedEventId, i64>, base: &Self) -> Result<Self, DbError> {
        let mut entries: HashMap<String, BTreeMap<String, StateEntry>> = HashMap::new();
        for ((kind, state_key), event_id) in map {
            let event_nid = *known
                .get(event_id)
                .ok_or_else(|| DbError::Corrupt(format!("state event {event_id} is not stored")))?;
            let entry = StateEntry { event_nid, event_id: event_id.clone() };
            entries.entry(kind.to_string()).or_default().insert(state_key.clone(), entry);
        }
        let mut state = Self { state_nid: base.state_nid, entries, blocks: Blocks::default() };
        state.blocks = Blocks::divide(state.numbers(), &base.blocks);
        Ok(state)
    }

    /// What stands at a key.
    pub fn get(&self, event_type: &str, state_key: &str) -> Option<&StateEntry> {
        self.entries.get(event_type)?.get(state_key)
    }

    /// All state keys of a type with what stands there.
    pub fn of_type(&self, event_type: &str) -> impl Iterator<Item = (&str, &StateEntry)> {
        self.entries.get(event_type).into_iter().flatten().map(|(key, entry)| (key.as_str(), entry))
    }

    /// Everything: type, key, event.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, &StateEntry)> {
        self.entries
            .iter()
            .flat_map(|(kind, keys)| keys.iter().map(|(key, entry)| (kind.as_str(), key.as_str(), entry)))
    }

    /// The state as state resolution takes it.
    pub fn to_map(&self) -> StateMap {
        self.iter()
            .map(|(kind, key, entry)| ((StateEventType::from(kind), key.to_owned()), entry.event_id.clone()))
            .collect()
    }

    /// Puts an event at its key; the state is then a new one, to be [stored](Self::store).
    pub fn set(&mut self, event_type: &str, state_key: &str, entry: StateEntry) {
        let new = entry.event_nid;
        let old = self.entries.entry(event_type.to_owned()).or_default().insert(state_key.to_owned(), entry);
        if !self.blocks.replace(event_type, state_key, old.map(|old| old.event_nid), new) {
            self.blocks = Blocks::divide(self.numbers(), &self.blocks);
        }
    }

    /// Numbers the state and gives the statements that store it.
    ///
    /// # Errors
    /// Those of the database, when row numbers have to be taken.
    pub async fn store(&mut self, room_nid: i64, nids: &Nids) -> Result<Vec<Stmt>, DbError> {
        let block_nids = nids.take(NidKind::StateBlock, self.blocks.unnumbered()).await?;
        self.state_nid = nids.next(NidKind::StateSnapshot).await?;
        Ok(self.blocks.write(room_nid, self.state_nid, block_nids))
    }

    /// The keys whose event differs between `before` and here: key, and the event that stands there now.
    pub fn changes_since<'a>(&'a self, before: &'a Self) -> Vec<(&'a str, &'a str, Option<&'a StateEntry>)> {
        let changed = self
            .iter()
            .filter(|(kind, key, entry)| before.get(kind, key).is_none_or(|old| old.event_nid != entry.event_nid));
        let gone = before.iter().filter(|(kind, key, _)| self.get(kind, key).is_none());
        changed
            .map(|(kind, key, entry)| (kind, key, Some(entry)))
            .chain(gone.map(|(kind, key, _)| (kind, key, None)))
            .collect()
    }

    fn numbers(&self) -> impl Iterator<Item = (&str, &str, i64)> {
        self.iter().map(|(kind, key, entry)| (kind, key, entry.event_nid))
    }
}
