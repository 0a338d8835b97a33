//! Notices that a certificate's files have changed.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::info;

use super::Shared;

/// A look costs a system call a file. Notifications of the kernel would be sooner and miss changes behind symbolic links
/// and network file systems.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What changes when a file is written or replaced; `None` while there is no file.
pub(super) type Stamp = Option<(u64, u64, i64, i64)>;

/// The stamp of the file that `path` leads to.
pub(super) fn stamp(path: &Path) -> Stamp {
    let about = fs::metadata(path).ok()?;
    Some((about.ino(), about.size(), about.ctime(), about.ctime_nsec()))
}

/// Looks at all files until `stop`.
pub(super) async fn watch(shared: Arc<Shared>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut look_once = async || {
        ticks.tick().await;
        let shared = shared.clone();
        // A file system that hangs holds no thread of the runtime.
        let _ = tokio::task::spawn_blocking(move || look(&shared)).await;
    };
    while stop.run_until_cancelled(look_once()).await.is_some() {}
}

fn look(shared: &Shared) {
    let mut current = shared.current.lock();
    for (address, authorities) in current.refresh_client_authorities() {
        shared.replace_client_authorities(address, authorities);
        info!(%address, "client_ca has changed and is in use");
    }
    if current.refresh_files() {
        let _ = shared.publish(&current);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_has_another_stamp() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a");
        assert_eq!(stamp(&file), None);
        fs::write(&file, "1").unwrap();
        let first = stamp(&file);
        assert_eq!(stamp(&file), first);
        let beside = folder.path().join("b");
        fs::write(&beside, "1").unwrap();
        fs::rename(&beside, &file).unwrap();
        assert_ne!(stamp(&file), first);
    }
}
