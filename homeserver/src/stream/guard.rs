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
pub(super) struct Guards {
    steps: Vec<Step>,
    unguarded: Vec<bool>,
}

struct Step {
    guard: Guard,
    writes: Vec<usize>,
}

impl Guards {
    pub(super) fn of(writes: &[Write]) -> Self {
        let mut steps: Vec<Step> = Vec::new();
        let mut last_of_room: HashMap<i64, usize> = HashMap::new();
        for (index, write) in writes.iter().enumerate() {
            let Some(mut guard) = write.guard.clone() else { continue };
            if let Guard::Room(swap) = guard {
                let room_nid = swap.room_nid;
                let last = last_of_room.get(&room_nid).and_then(|place| steps.get_mut(*place));
                guard = match last {
                    Some(Step { guard: Guard::Room(first), writes }) => match first.join(swap) {
                        Ok(()) => {
                            writes.push(index);
                            continue;
                        }
                        Err(swap) => Guard::Room(swap),
                    },
                    _ => Guard::Room(swap),
                };
                last_of_room.insert(room_nid, steps.len());
            }
            steps.push(Step { guard, writes: vec![index] });
        }
        Self { steps, unguarded: writes.iter().map(|write| write.guard.is_none()).collect() }
    }

    pub(super) fn statements(&self) -> impl Iterator<Item = Stmt> + '_ {
        self.steps.iter().map(|step| match &step.guard {
            Guard::Touches(stmt) => stmt.clone(),
            Guard::Room(swap) => rooms::compare_and_swap(swap),
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
