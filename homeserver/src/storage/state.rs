//! Statements for room states: snapshots that share blocks.
//!
//! A state is divided into buckets by a hash of type and key. A *block* is one bucket's events, a *snapshot* the list of
//! its blocks. A new state writes only the blocks that differ from its predecessor's. Both are kept as packed
//! little-endian 64-bit row numbers.

use std::collections::HashMap;

use super::{Db, DbError, Row, Stmt, db::json_list};
use crate::params;

/// Events that a block holds on average before a state is divided into more of them.
const BLOCK_EVENTS: usize = 32;
/// The number of buckets ends here.
const MAX_BUCKETS: usize = 4096;

/// One block: its row number, and its events in ascending order. `None` until it is numbered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    pub block_nid: Option<i64>,
    pub event_nids: Vec<i64>,
}

/// How a state is divided, bucket by bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blocks {
    buckets: Vec<Block>,
    events: usize,
}

impl Blocks {
    /// Divides a state anew, taking over every block of `base` that is the same.
    pub fn divide<'a>(state: impl Iterator<Item = (&'a str, &'a str, i64)>, base: &Self) -> Self {
        let entries: Vec<(u64, i64)> =
            state.map(|(event_type, state_key, event_nid)| (hash(event_type, state_key), event_nid)).collect();
        let count = bucket_count(entries.len(), base.buckets.len());
        let mut lists = vec![Vec::new(); count];
        for (hash, event_nid) in &entries {
            lists[bucket_of(*hash, count)].push(*event_nid);
        }
        let reusable = base.buckets.len() == count;
        let buckets = lists.into_iter().enumerate().map(|(index, mut event_nids)| {
            event_nids.sort_unstable();
            match base.buckets.get(index).filter(|_| reusable) {
                Some(block) if block.event_nids == event_nids => block.clone(),
                _ => Block { block_nid: None, event_nids },
            }
        });
        Self { buckets: buckets.collect(), events: entries.len() }
    }

    /// Puts one event at a key, in place of `old`. Only that bucket's block becomes new. `false` when the state has
    /// grown so much that it should be divided anew ([`Self::divide`]); nothing has changed then.
    pub fn replace(&mut self, event_type: &str, state_key: &str, old: Option<i64>, new: i64) -> bool {
        let count = self.buckets.len();
        let grown = self.events + usize::from(old.is_none());
        if count == 0 || bucket_count(grown, count) != count {
            return false;
        }
        let block = &mut self.buckets[bucket_of(hash(event_type, state_key), count)];
        block.event_nids.retain(|event_nid| Some(*event_nid) != old);
        let place = block.event_nids.partition_point(|event_nid| *event_nid < new);
        block.event_nids.insert(place, new);
        block.block_nid = None;
        self.events = grown;
        true
    }

    /// How many blocks have no number yet.
    pub fn unnumbered(&self) -> usize {
        self.buckets.iter().filter(|block| block.block_nid.is_none()).count()
    }

    /// Numbers the new blocks from `block_nids` on, and gives the statements that write them and the snapshot.
    pub fn write(&mut self, room_nid: i64, state_nid: i64, mut block_nids: std::ops::Range<i64>) -> Vec<Stmt> {
        let mut statements = Vec::new();
        for block in self.buckets.iter_mut().filter(|block| block.block_nid.is_none()) {
            let Some(block_nid) = block_nids.next() else { break };
            block.block_nid = Some(block_nid);
            statements.push(Stmt::new(
                "INSERT INTO state_blocks (block_nid, room_nid, event_nids) VALUES ($1, $2, $3)",
                params![block_nid, room_nid, pack(block.event_nids.iter().copied())],
            ));
        }
        statements.push(Stmt::new(
            "INSERT INTO state_snapshots (state_nid, room_nid, blocks) VALUES ($1, $2, $3)",
            params![state_nid, room_nid, pack(self.buckets.iter().filter_map(|block| block.block_nid))],
        ));
        statements
    }

    /// All events of the state.
    pub fn event_nids(&self) -> impl Iterator<Item = i64> + '_ {
        self.buckets.iter().flat_map(|block| block.event_nids.iter().copied())
    }
}

/// Powers of two that leave room to grow, so that a state which hovers at a border is not divided again and again.
fn bucket_count(events: usize, now: usize) -> usize {
    let wanted = (events / BLOCK_EVENTS).max(1).next_power_of_two().min(MAX_BUCKETS);
    if wanted * 4 <= now { wanted } else { wanted.max(now) }
}

fn bucket_of(hash: u64, count: usize) -> usize {
    // `count` is a power of two, and the remainder is below it.
    usize::try_from(hash & (count as u64 - 1)).unwrap_or(0)
}

/// FNV-1a: stored states depend on it, so it never changes.
fn hash(event_type: &str, state_key: &str) -> u64 {
    let bytes = event_type.bytes().chain([0]).chain(state_key.bytes());
    let hash = bytes
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    hash ^ (hash >> 32)
}

fn pack(numbers: impl Iterator<Item = i64>) -> Vec<u8> {
    numbers.flat_map(i64::to_le_bytes).collect()
}

/// Reads a packed list of row numbers.
///
/// # Errors
/// [`DbError::Corrupt`] when the bytes are no whole numbers.
pub fn unpack(bytes: &[u8]) -> Result<Vec<i64>, DbError> {
    let (numbers, rest) = bytes.as_chunks::<8>();
    if !rest.is_empty() {
        return Err(DbError::Corrupt("a packed list of a state".to_owned()));
    }
    Ok(numbers.iter().map(|number| i64::from_le_bytes(*number)).collect())
}

const BLOCKS_OF: &str = "SELECT block_nid, event_nids FROM state_blocks \
    WHERE block_nid IN (SELECT CAST(value AS BIGINT) FROM json_each(CAST($1 AS TEXT)))";

/// The division of a stored state.
///
/// # Errors
/// Those of the database; [`DbError::Corrupt`] when the snapshot or one of its blocks is not there.
pub async fn blocks(db: &Db, state_nid: i64) -> Result<Blocks, DbError> {
    let snapshot = db
        .query_opt("SELECT blocks FROM state_snapshots WHERE state_nid = $1", params![state_nid])
        .await?
        .ok_or_else(|| DbError::Corrupt(format!("state snapshot {state_nid} is missing")))?;
    let block_nids = unpack(&snapshot.get::<Vec<u8>>(0)?)?;
    let rows = db.query(BLOCKS_OF, params![json_list(&block_nids)]).await?;
    let found = rows.iter().map(read_block).collect::<Result<HashMap<_, _>, _>>()?;
    let buckets = block_nids
        .iter()
        .map(|block_nid| {
            let event_nids = found.get(block_nid).cloned();
            let event_nids =
                event_nids.ok_or_else(|| DbError::Corrupt(format!("state block {block_nid} is missing")))?;
            Ok(Block { block_nid: Some(*block_nid), event_nids })
        })
        .collect::<Result<Vec<_>, DbError>>()?;
    let events = buckets.iter().map(|block| block.event_nids.len()).sum();
    Ok(Blocks { buckets, events })
}

fn read_block(row: &Row) -> Result<(i64, Vec<i64>), DbError> {
    Ok((row.get(0)?, unpack(&row.get::<Vec<u8>>(1)?)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(count: i64) -> Vec<(String, i64)> {
        (0..count).map(|number| (format!("@user{number}:example.org"), number + 1)).collect()
    }

    fn divided(entries: &[(String, i64)], base: &Blocks) -> Blocks {
        Blocks::divide(entries.iter().map(|(key, nid)| ("m.room.member", key.as_str(), *nid)), base)
    }

    fn numbered(mut blocks: Blocks) -> Blocks {
        blocks.write(1, 1, 1..10_000);
        blocks
    }

    #[test]
    fn one_change_makes_one_new_block() {
        let mut list = entries(1000);
        let mut blocks = numbered(divided(&list, &Blocks::default()));
        assert!(blocks.replace("m.room.member", &list[500].0, Some(501), 5000));
        assert_eq!(blocks.unnumbered(), 1);
        list[500].1 = 5000;
        let again = divided(&list, &numbered(divided(&entries(1000), &Blocks::default())));
        assert_eq!(again.unnumbered(), 1, "dividing anew reuses what is the same");
        let mut events: Vec<i64> = again.event_nids().collect();
        let mut same: Vec<i64> = blocks.event_nids().collect();
        events.sort_unstable();
        same.sort_unstable();
        assert_eq!(events, same);
    }

    #[test]
    fn a_state_that_grows_is_divided_into_more_blocks() {
        let mut blocks = divided(&entries(1), &Blocks::default());
        let mut divisions = 0;
        for (number, (key, nid)) in entries(3000).iter().enumerate().skip(1) {
            if !blocks.replace("m.room.member", key, None, *nid) {
                blocks = numbered(divided(&entries(3000)[..=number], &blocks));
                divisions += 1;
            }
        }
        assert_eq!(blocks.event_nids().count(), 3000);
        assert!(divisions < 10, "divided anew {divisions} times");
    }

    #[test]
    fn packed_numbers_come_back() {
        let numbers = vec![1, -5, i64::MAX];
        assert_eq!(unpack(&pack(numbers.iter().copied())).ok(), Some(numbers));
        assert!(unpack(&[1, 2, 3]).is_err());
    }
}
