//! The newest part of all lanes' logs, in memory: answers "what changed since" without the database.

use std::{collections::VecDeque, sync::Arc};

use super::{Change, Positions};

/// Entries kept; a few megabytes at most, minutes of a busy server.
const KEPT: usize = 20_000;

/// One position of one lane, and what it changed.
#[derive(Clone, Debug)]
pub struct LogEntry {
    pub lane: i64,
    pub seq: i64,
    pub changes: Arc<[Change]>,
}

/// What [`super::Stream::changes_since`] can say.
#[derive(Debug)]
pub enum SinceLog {
    /// Everything that was committed after the asked position, up to `upto`, oldest first.
    Known { upto: Positions, entries: Vec<LogEntry> },
    /// The position is older than what memory holds (or from the future): ask the database.
    Unknown,
}

pub(super) struct Log {
    /// Everything up to here has left memory.
    floor: Positions,
    upto: Positions,
    entries: VecDeque<LogEntry>,
}

impl Log {
    pub(super) fn starting_at(positions: Positions) -> Self {
        Self { floor: positions.clone(), upto: positions, entries: VecDeque::new() }
    }

    pub(super) fn append(&mut self, positions: &Positions, entries: &[LogEntry]) {
        let expected = positions.distance_from(&self.upto);
        self.upto = positions.clone();
        if usize::try_from(expected) != Ok(entries.len()) {
            // A part of some lane's log was pruned before we read it: memory starts anew.
            self.floor = positions.clone();
            self.entries.clear();
            return;
        }
        self.entries.extend(entries.iter().cloned());
        while self.entries.len() > KEPT {
            if let Some(oldest) = self.entries.pop_front() {
                self.floor.raise(oldest.lane, oldest.seq);
            }
        }
    }

    pub(super) fn since(&self, since: &Positions) -> SinceLog {
        if !since.includes(&self.floor) || !self.upto.includes(since) {
            return SinceLog::Unknown;
        }
        let mut missing = self.upto.distance_from(since);
        let mut entries = Vec::new();
        for entry in self.entries.iter().rev() {
            if missing <= 0 {
                break;
            }
            if !since.covers(entry.lane, entry.seq) {
                entries.push(entry.clone());
                missing -= 1;
            }
        }
        entries.reverse();
        SinceLog::Known { upto: self.upto.clone(), entries }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(lane: i64, seq: i64) -> LogEntry {
        LogEntry { lane, seq, changes: Arc::from([Change::Room { room: seq }]) }
    }

    fn positions(lanes: &[(i64, i64)]) -> Positions {
        lanes.iter().copied().collect()
    }

    fn known(log: &Log, since: &[(i64, i64)]) -> Option<Vec<(i64, i64)>> {
        match log.since(&positions(since)) {
            SinceLog::Known { entries, .. } => Some(entries.iter().map(|entry| (entry.lane, entry.seq)).collect()),
            SinceLog::Unknown => None,
        }
    }

    #[test]
    fn each_lane_is_cut_at_its_own_position() {
        let mut log = Log::starting_at(positions(&[(1, 10)]));
        log.append(&positions(&[(1, 11)]), &[entry(1, 11)]);
        log.append(&positions(&[(1, 11), (2, 1)]), &[entry(2, 1)]);
        log.append(&positions(&[(1, 12), (2, 1)]), &[entry(1, 12)]);
        assert_eq!(known(&log, &[(1, 10)]), Some(vec![(1, 11), (2, 1), (1, 12)]));
        assert_eq!(known(&log, &[(1, 10), (2, 1)]), Some(vec![(1, 11), (1, 12)]));
        assert_eq!(known(&log, &[(1, 12), (2, 1)]), Some(vec![]));
    }

    #[test]
    fn what_left_memory_or_has_not_come_is_unknown() {
        let mut log = Log::starting_at(positions(&[(1, 10)]));
        assert_eq!(known(&log, &[(1, 9)]), None);
        assert_eq!(known(&log, &[(1, 11)]), None);
        // Lane 1 moved by two, but only one entry was still there to read.
        log.append(&positions(&[(1, 12)]), &[entry(1, 12)]);
        assert_eq!(known(&log, &[(1, 10)]), None);
        assert_eq!(known(&log, &[(1, 12)]), Some(vec![]));
    }
}
