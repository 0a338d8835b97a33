//! Keeps bans and the history of offenders in a folder: a snapshot, and a journal of what came after it.
//!
//! A thread of its own writes, so that no ban waits for a disk. A change is in the file within milliseconds, which a
//! killed process survives, and on the disk as soon as the disk says so. During an upgrade two edges append to one journal;
//! each is told of the other's changes, so that either may fold it.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};

use gatehouse_shared::clock::Clock;
use serde::{Deserialize, Serialize};
use tracing::{error, warn};

use super::Change;
use crate::admission::ban_table::Ban;
use crate::admission::jail::Past;
use crate::admission::offender::Offender;
use crate::private_file;

const SNAPSHOT: &str = "bans.json";
const JOURNAL: &str = "bans.journal";
/// After so many changes the journal is folded into the snapshot.
const MOST_LINES: usize = 10_000;

/// The way to the thread that writes.
#[derive(Debug)]
pub(crate) struct Journal(Sender<Change>);

/// Bans, and the history of offenders.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Kept {
    pub(crate) bans: Vec<Ban>,
    pub(crate) past: Vec<Past>,
}

impl Journal {
    /// Reads what `folder` holds, folds it into a new snapshot, and starts the thread.
    pub(crate) fn open(folder: &Path, clock: Arc<dyn Clock>) -> io::Result<(Self, Kept)> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let mut state = State::read(folder)?;
        let mut journal = private(OpenOptions::new().append(true), &folder.join(JOURNAL))?;
        state.fold(folder, &mut journal, clock.now_ms())?;
        let kept = state.kept();
        let (sender, changes) = mpsc::channel();
        let folder = folder.to_owned();
        std::thread::Builder::new()
            .name("ban journal".to_owned())
            .spawn(move || keep(&folder, journal, state, &changes, clock.as_ref()))?;
        Ok((Self(sender), kept))
    }

    /// Returns at once.
    pub(crate) fn write(&self, change: Change) {
        // The thread ends only after this sender.
        let _ = self.0.send(change);
    }
}

/// Writes until the last sender is gone.
fn keep(folder: &Path, mut journal: File, mut state: State, changes: &Receiver<Change>, clock: &dyn Clock) {
    let mut lines = 0;
    while let Ok(first) = changes.recv() {
        let mut text = Vec::new();
        for change in std::iter::once(first).chain(changes.try_iter()) {
            if let Err(error) = serde_json::to_writer(&mut text, &change) {
                error!(%error, "cannot write a ban down");
            }
            text.push(b'\n');
            state.apply(change);
            lines += 1;
        }
        if let Err(error) = journal.write_all(&text).and_then(|()| journal.sync_data()) {
            error!(%error, folder = %folder.display(), "cannot keep bans: a restart would forget them");
        }
        if lines > MOST_LINES {
            lines = 0;
            if let Err(error) = state.fold(folder, &mut journal, clock.now_ms()) {
                error!(%error, folder = %folder.display(), "cannot shorten the journal of bans");
            }
        }
    }
}

/// What the files come to.
#[derive(Debug, Default)]
struct State {
    bans: HashMap<Offender, Ban>,
    past: HashMap<(String, Offender), Past>,
}

impl State {
    fn read(folder: &Path) -> io::Result<Self> {
        let mut state = Self::default();
        let (snapshot, journal) = (folder.join(SNAPSHOT), folder.join(JOURNAL));
        if let Some(text) = read(&snapshot)? {
            let kept: Kept = serde_json::from_str(&text).map_err(|error| {
                let path = snapshot.display();
                io::Error::new(io::ErrorKind::InvalidData, format!("{path} is damaged ({error}); move it away"))
            })?;
            kept.bans.into_iter().for_each(|ban| state.apply(Change::Banned { ban, past: None }));
            kept.past.into_iter().for_each(|past| state.remember(past));
        }
        for line in read(&journal)?.unwrap_or_default().lines() {
            match serde_json::from_str(line) {
                Ok(change) => state.apply(change),
                // The last line of an edge whose machine lost power may be half of one.
                Err(error) => warn!(%error, file = %journal.display(), "left out a damaged line"),
            }
        }
        Ok(state)
    }

    fn apply(&mut self, change: Change) {
        match change {
            Change::Banned { ban, past } => {
                self.bans.insert(ban.offender.clone(), ban);
                past.into_iter().for_each(|past| self.remember(past));
            }
            Change::Lifted { offender, .. } => {
                self.bans.remove(&offender);
                self.past.retain(|(_, banned), _| *banned != offender);
            }
        }
    }

    fn remember(&mut self, past: Past) {
        self.past.insert((past.jail.clone(), past.offender.clone()), past);
    }

    fn kept(&self) -> Kept {
        Kept { bans: self.bans.values().cloned().collect(), past: self.past.values().cloned().collect() }
    }

    /// Writes a new snapshot in the place of the old one, then empties the journal: a crash in between applies changes
    /// twice, which changes nothing.
    fn fold(&mut self, folder: &Path, journal: &mut File, now_ms: u64) -> io::Result<()> {
        /// Longer than any jail is likely to remember.
        const YEAR_MS: u64 = 365 * 24 * 3_600 * 1_000;
        self.bans.retain(|_, ban| ban.holds(now_ms));
        self.past.retain(|_, past| past.until_ms.saturating_add(YEAR_MS) > now_ms);
        private_file::write(&folder.join(SNAPSHOT), &serde_json::to_vec(&self.kept())?)?;
        journal.set_len(0)
    }
}

fn private(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    options.create(true).mode(0o600).open(path)
}

fn read(path: &Path) -> io::Result<Option<String>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::{Duration, Instant};

    use gatehouse_shared::clock::TurnedClock;

    use super::*;

    fn banned(offender: &str, until_ms: Option<u64>) -> Change {
        let offender: Offender = offender.parse().unwrap();
        let past = Past { offender: offender.clone(), jail: "login".to_owned(), bans: 1, until_ms: 1_000 };
        let ban = Ban { offender, jail: "login".to_owned(), since_ms: 0, until_ms };
        Change::Banned { ban, past: Some(past) }
    }

    fn open(folder: &Path, now_ms: u64) -> (Journal, Vec<String>, usize) {
        let (journal, kept) = Journal::open(folder, Arc::new(TurnedClock::at_ms(now_ms))).unwrap();
        let mut bans: Vec<String> = kept.bans.iter().map(|ban| ban.offender.to_string()).collect();
        bans.sort();
        (journal, bans, kept.past.len())
    }

    /// The journal's thread has a pace of its own.
    fn wait_for_lines(folder: &Path, count: usize) {
        let start = Instant::now();
        while fs::read_to_string(folder.join(JOURNAL)).unwrap().lines().count() < count {
            assert!(start.elapsed() < Duration::from_secs(20), "nothing is written");
            std::thread::yield_now();
        }
    }

    #[test]
    fn what_was_written_is_there_after_a_crash_and_ends_in_its_time() {
        let folder = tempfile::tempdir().unwrap();
        let folder = &folder.path().join("state");
        let (journal, bans, _) = open(folder, 0);
        assert!(bans.is_empty());
        journal.write(banned("192.0.2.1", Some(1_000)));
        journal.write(banned("192.0.2.0/24", None));
        journal.write(banned("evil.example", Some(5_000)));
        journal.write(Change::Lifted { offender: "evil.example".parse().unwrap(), at_ms: 1 });
        wait_for_lines(folder, 4);
        // No goodbye: the first one is still there, as after a SIGKILL.
        assert_eq!(open(folder, 999).1, ["192.0.2.0/24", "192.0.2.1"]);
        assert_eq!(open(folder, 1_000).1, ["192.0.2.0/24"]);
        assert_eq!(open(folder, 1_000).2, 2, "the history outlasts the ban");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(folder), mode(&folder.join(SNAPSHOT)), mode(&folder.join(JOURNAL))), (0o700, 0o600, 0o600));
    }

    #[test]
    fn half_a_line_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let (journal, ..) = open(folder.path(), 0);
        journal.write(banned("192.0.2.1", None));
        wait_for_lines(folder.path(), 1);
        let mut file = OpenOptions::new().append(true).open(folder.path().join(JOURNAL)).unwrap();
        file.write_all(b"{\"banned\":{\"ban\":{\"offen").unwrap();
        assert_eq!(open(folder.path(), 0).1, ["192.0.2.1"]);
    }

    #[test]
    fn a_damaged_snapshot_is_told_and_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(SNAPSHOT), "no JSON").unwrap();
        let error = Journal::open(folder.path(), Arc::new(TurnedClock::at_ms(0))).unwrap_err();
        assert!(error.to_string().contains("bans.json is damaged"), "{error}");
        assert_eq!(fs::read_to_string(folder.path().join(SNAPSHOT)).unwrap(), "no JSON");
    }
}
