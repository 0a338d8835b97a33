//! What must hold for a write to happen, and how the guards of a transaction's writes are run.

use std::collections::HashMap;

use super::Write;
use crate::storage::{
    Stmt,
    db::Outcome,
    rooms::{self, Swap},
};

/// What must hold for a write to happen.
#[derive(Clone, Debug)]
pub enum Guard {
    /// A statement that must touch or answer a row.
    Touches(Stmt),
    /// The step of a room from one version to the next.
    Room(Swap),
}

impl From<Stmt> for Guard {
    fn from(stmt: Stmt) -> Self {
        Self::Touches(stmt)
    }
}

/// The guards of a transaction's writes. Appends to one room that were built one upon the other are one step.
pub(super) struct Guards<'w> {
    steps: Vec<Step<'w>>,
    unguarded: Vec<bool>,
}

struct Step<'w> {
    guard: Joined<'w>,
    writes: Vec<usize>,
}

impl Step<'_> {
    /// `None` for those that are about no room.
    fn room_nid(&self) -> Option<i64> {
        match &self.guard {
            Joined::Touches(_) => None,
            Joined::Room(swap) => Some(swap.room_nid),
        }
    }
}

enum Joined<'w> {
    Touches(&'w Stmt),
    Room(Swap),
}

impl<'w> Guards<'w> {
    pub(super) fn of(writes: &'w [Write]) -> Self {
        let mut steps: Vec<Step<'w>> = Vec::new();
        let mut last_of_room: HashMap<i64, usize> = HashMap::new();
        for (index, write) in writes.iter().enumerate() {
            let guard = match &write.guard {
                None => continue,
                Some(Guard::Touches(stmt)) => Joined::Touches(stmt),
                Some(Guard::Room(swap)) => {
                    let last = last_of_room.get(&swap.room_nid).and_then(|place| steps.get_mut(*place));
                    if let Some(Step { guard: Joined::Room(first), writes }) = last
                        && first.join(swap)
                    {
                        writes.push(index);
                        continue;
                    }
                    last_of_room.insert(swap.room_nid, steps.len());
                    Joined::Room(swap.clone())
                }
            };
            steps.push(Step { guard, writes: vec![index] });
        }
        // Two shards that step on several rooms take them in the same order, so neither waits for the other forever.
        steps.sort_by_key(Step::room_nid);
        Self { steps, unguarded: writes.iter().map(|write| write.guard.is_none()).collect() }
    }

    pub(super) fn statements(&self) -> impl Iterator<Item = Stmt> + '_ {
        self.steps.iter().map(|step| match &step.guard {
            Joined::Touches(stmt) => Stmt::clone(stmt),
            Joined::Room(swap) => rooms::compare_and_swap(swap),
        })
    }

    /// Which writes may happen, by what the statements touched. A later append to a room fails by itself when an earlier
    /// one did, because its guard expects what the earlier one would have made.
    pub(super) fn held(self, outcomes: impl Iterator<Item = Outcome>) -> Vec<bool> {
        let mut held = self.unguarded;
        for (step, outcome) in self.steps.iter().zip(outcomes) {
            if outcome.affected > 0 {
                step.writes.iter().for_each(|write| held[*write] = true);
            }
        }
        held
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{params, storage::rooms::Members};

    /// A step of a room from one version to the next; without `joins` one that was not built upon the one before.
    fn step(room_nid: i64, version: i64, joins: bool) -> Write {
        let swap = Swap {
            room_nid,
            expected_version: version,
            expected_extremities: if joins { vec![version] } else { Vec::new() },
            new_version: version + 1,
            extremities: vec![version + 1],
            state_nid: 0,
            is_resident: true,
            members: Members::default(),
        };
        Write { guard: Some(Guard::Room(swap)), ..Write::default() }
    }

    #[test]
    fn rooms_are_stepped_on_in_their_order_and_each_write_has_its_own_outcome() {
        let touches = Write { guard: Some(Stmt::new("SELECT 1", params![]).into()), ..Write::default() };
        let writes = [
            step(3, 1, false),
            step(1, 5, false),
            touches,
            step(2, 1, false),
            step(1, 6, true),
            Write::default(),
            step(1, 7, false),
        ];
        let guards = Guards::of(&writes);
        let rooms: Vec<_> = guards.steps.iter().map(Step::room_nid).collect();
        assert_eq!(rooms, [None, Some(1), Some(1), Some(2), Some(3)]);
        assert_eq!(guards.statements().count(), 5);
        // The first step of room 1, which is two writes, and the one of room 3.
        let outcomes = [0, 1, 0, 0, 1].map(|affected| Outcome { affected, rows: Vec::new() });
        assert_eq!(guards.held(outcomes.into_iter()), [true, true, false, false, true, true, false]);
    }
}
