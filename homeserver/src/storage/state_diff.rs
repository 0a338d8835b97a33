//! Reads stored states: whole ones, and what one has that another has not. States share blocks, so a difference costs
//! as much as what changed, however large the rooms are.

use std::collections::{HashMap, HashSet};

use super::{DbError, Snapshot, db::json_list, state::unpack};
use crate::params;

/// What changed from one state to another, as event numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// In the later state only.
    pub added: Vec<i64>,
    /// In the earlier state only.
    pub removed: Vec<i64>,
}

/// All event numbers of each of these states, by state. State 0 is the empty one.
///
/// # Errors
/// Those of the database; [`DbError::Corrupt`] when a state is not there.
pub async fn whole_states(snapshot: &mut Snapshot, state_nids: &[i64]) -> Result<HashMap<i64, Vec<i64>>, DbError> {
    let lists = block_lists(snapshot, state_nids.iter().copied()).await?;
    let wanted: HashSet<i64> = lists.values().flatten().copied().collect();
    let blocks = read_blocks(snapshot, &wanted).await?;
    lists
        .into_iter()
        .map(|(state_nid, list)| {
            let mut events = Vec::new();
            for block_nid in list {
                events.extend_from_slice(block(&blocks, block_nid)?);
            }
            Ok((state_nid, events))
        })
        .collect()
}

/// What changed between the two states of each pair, in the order of the pairs.
///
/// # Errors
/// As [`whole_states`].
pub async fn differences(snapshot: &mut Snapshot, pairs: &[(i64, i64)]) -> Result<Vec<Difference>, DbError> {
    if pairs.iter().all(|(before, after)| before == after) {
        return Ok(vec![Difference::default(); pairs.len()]);
    }
    let named = pairs.iter().filter(|(before, after)| before != after).flat_map(|(before, after)| [*before, *after]);
    let lists = block_lists(snapshot, named).await?;
    let none = Vec::new();
    let list_of = |state_nid: i64| lists.get(&state_nid).unwrap_or(&none);
    let mut wanted = HashSet::new();
    for (before, after) in pairs.iter().filter(|(before, after)| before != after) {
        let (before, after): (HashSet<i64>, HashSet<i64>) =
            (list_of(*before).iter().copied().collect(), list_of(*after).iter().copied().collect());
        wanted.extend(before.symmetric_difference(&after));
    }
    let blocks = read_blocks(snapshot, &wanted).await?;
    // A block that both states have is not among those that were read.
    let events_of = |state_nid: i64| -> HashSet<i64> {
        list_of(state_nid).iter().filter_map(|block_nid| blocks.get(block_nid)).flatten().copied().collect()
    };
    Ok(pairs
        .iter()
        .map(|(before, after)| {
            if before == after {
                return Difference::default();
            }
            let (before, after) = (events_of(*before), events_of(*after));
            Difference {
                added: after.difference(&before).copied().collect(),
                removed: before.difference(&after).copied().collect(),
            }
        })
        .collect())
}

async fn block_lists(
    snapshot: &mut Snapshot,
    state_nids: impl Iterator<Item = i64>,
) -> Result<HashMap<i64, Vec<i64>>, DbError> {
    let mut lists = HashMap::new();
    let mut wanted: Vec<i64> = state_nids.collect();
    wanted.sort_unstable();
    wanted.dedup();
    if wanted.first() == Some(&0) {
        lists.insert(0, Vec::new());
        wanted.remove(0);
    }
    if wanted.is_empty() {
        return Ok(lists);
    }
    let sql = "SELECT s.state_nid, s.blocks FROM json_each(CAST($1 AS TEXT)) wanted \
               JOIN state_snapshots s ON s.state_nid = CAST(wanted.value AS BIGINT)";
    for row in snapshot.query(sql, params![json_list(&wanted)]).await? {
        lists.insert(row.get(0)?, unpack(&row.get::<Vec<u8>>(1)?)?);
    }
    match wanted.iter().find(|state_nid| !lists.contains_key(state_nid)) {
        None => Ok(lists),
        Some(missing) => Err(DbError::Corrupt(format!("state snapshot {missing} is missing"))),
    }
}

async fn read_blocks(snapshot: &mut Snapshot, block_nids: &HashSet<i64>) -> Result<HashMap<i64, Vec<i64>>, DbError> {
    if block_nids.is_empty() {
        return Ok(HashMap::new());
    }
    let sql = "SELECT b.block_nid, b.event_nids FROM json_each(CAST($1 AS TEXT)) wanted \
               JOIN state_blocks b ON b.block_nid = CAST(wanted.value AS BIGINT)";
    let mut blocks = HashMap::with_capacity(block_nids.len());
    for row in snapshot.query(sql, params![json_list(block_nids)]).await? {
        blocks.insert(row.get(0)?, unpack(&row.get::<Vec<u8>>(1)?)?);
    }
    Ok(blocks)
}

fn block(blocks: &HashMap<i64, Vec<i64>>, block_nid: i64) -> Result<&[i64], DbError> {
    let events = blocks.get(&block_nid).map(Vec::as_slice);
    events.ok_or_else(|| DbError::Corrupt(format!("state block {block_nid} is missing")))
}
