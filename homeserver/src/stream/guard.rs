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
