//! Two processes of one edge, side by side: until the old one has finished what it began, each hears of the other's bans.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::bans::{Bans, Change, Origin};

/// How long a process that ends waits for the other one to take its last words.
const FAREWELL: Duration = Duration::from_secs(2);

/// Tells `changes` and hears of the other's, line by line, until the other process ends or `stop`. The new process begins
/// with an empty line: it has then read the word before.
pub(super) async fn share_bans(
    stream: UnixStream,
    bans: Arc<Bans>,
    other: Origin,
    changes: UnboundedReceiver<Change>,
    stop: CancellationToken,
) {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let begun = async {
        match other {
            Origin::Predecessor => write.write_all(b"\n").await.is_ok(),
            _ => read.read_line(&mut String::new()).await.is_ok_and(|bytes| bytes > 0),
        }
    };
    if stop.run_until_cancelled(begun).await == Some(true) {
        let mut tells = std::pin::pin!(tell(write, changes));
        tokio::select! {
            () = hear(read, &bans, other) => {}
            () = &mut tells => {}
            () = stop.cancelled() => {
                bans.part_from(other);
                // Nothing is lost that the other one would have had to know: it has ended or hangs.
                let _ = tokio::time::timeout(FAREWELL, tells).await;
            }
        }
    }
    bans.part_from(other);
}

async fn hear(read: BufReader<OwnedReadHalf>, bans: &Bans, other: Origin) {
    let mut lines = read.lines();
    while let Ok(Some(line)) = lines.next_line().await {
        match serde_json::from_str(&line) {
            Ok(change) => bans.adopt(change, other),
            Err(error) => warn!(%error, "the other process says something that this version does not understand"),
        }
    }
}

async fn tell(mut write: OwnedWriteHalf, mut changes: UnboundedReceiver<Change>) {
    while let Some(change) = changes.recv().await {
        let Ok(mut line) = serde_json::to_vec(&change) else { continue };
        line.push(b'\n');
        if write.write_all(&line).await.is_err() {
            return;
        }
    }
}
