//! One line for each request, written by a thread of its own: no request ever waits for a disk.
//!
//! Lines wait in a bounded queue. When the disk cannot keep up, lines are dropped and counted, and requests go on.

mod line;
mod recorder;
mod redact;

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use tracing::{error, warn};

pub(crate) use line::Entry;
pub(crate) use recorder::{AccessRecorder, Answered};

use crate::config::AccessLogConfig;

/// Some megabytes at most, and seconds of a busy server.
const MAX_WAITING_LINES: usize = 16 * 1024;
const BUFFER_BYTES: usize = 64 * 1024;

/// The log's file cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to {} (access_log.file)", path.display())]
pub struct AccessLogError {
    path: PathBuf,
    source: io::Error,
}

/// Where lines go: opened, and not yet in use.
pub(crate) struct Destination(Option<Box<dyn Write + Send>>);

impl Destination {
    /// Opens what `config` says; without one, lines go nowhere.
    pub(crate) fn open(config: Option<&AccessLogConfig>) -> Result<Self, AccessLogError> {
        let Some(config) = config else { return Ok(Self(None)) };
        Ok(Self(Some(match &config.file {
            None => Box::new(io::stdout()),
            Some(path) => {
                let file = append_to(path);
                Box::new(file.map_err(|source| AccessLogError { path: path.clone(), source })?)
            }
        })))
    }
}

/// Addresses are nobody's business but the operator's.
fn append_to(path: &PathBuf) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

enum Message {
    Line(String),
    Replace(Destination),
}

/// Takes lines and never waits.
pub(crate) struct AccessLog {
    /// `None` once the log is closed.
    queue: Mutex<Option<SyncSender<Message>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    dropped: Counter,
}

impl AccessLog {
    /// Starts the writing thread. `dropped` counts lines that found the queue full or the disk broken.
    pub(crate) fn start(destination: Destination, dropped: Counter) -> io::Result<Self> {
        let (queue, lines) = sync_channel(MAX_WAITING_LINES);
        let lost = dropped.clone();
        let writer = std::thread::Builder::new().name("access-log".to_owned());
        let writer = writer.spawn(move || write(&lines, destination, &lost))?;
        Ok(Self { queue: Mutex::new(Some(queue)), writer: Mutex::new(Some(writer)), dropped })
    }

    /// Writes what `config` wants to be known of a request.
    pub(crate) fn record(&self, config: &AccessLogConfig, entry: &Entry<'_>) {
        let line = Message::Line(entry.written(config));
        let taken = self.queue.lock().as_ref().is_some_and(|queue| queue.try_send(line).is_ok());
        if !taken {
            self.dropped.inc();
        }
    }

    /// Lines that come from now on go to `destination`. Waits for the queue, so not to be called by a request.
    pub(crate) fn replace(&self, destination: Destination) {
        let queue = self.queue.lock().clone();
        if let Some(queue) = queue {
            // The thread ends only after the queue is closed.
            let _ = queue.send(Message::Replace(destination));
        }
    }

    /// Writes everything that waits, and takes no more.
    pub(crate) fn close(&self) {
        self.queue.lock().take();
        let writer = self.writer.lock().take();
        if writer.is_some_and(|writer| writer.join().is_err()) {
            warn!("the access log's thread ended badly");
        }
    }
}

fn write(lines: &Receiver<Message>, destination: Destination, lost: &Counter) {
    let mut log = Log::new(destination, lost.clone());
    while let Ok(message) = lines.recv() {
        log.take(message);
        // Everything that is there goes out together, and nothing is held back when there is no more.
        while let Ok(message) = lines.try_recv() {
            log.take(message);
        }
        log.flush();
    }
}

struct Log {
    out: Option<BufWriter<Box<dyn Write + Send>>>,
    lost: Counter,
    /// The error is told once, until a line is written again.
    is_broken: bool,
    unflushed: u64,
}

impl Log {
    fn new(destination: Destination, lost: Counter) -> Self {
        let out = destination.0.map(|out| BufWriter::with_capacity(BUFFER_BYTES, out));
        Self { out, lost, is_broken: false, unflushed: 0 }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Replace(destination) => {
                self.flush();
                *self = Self::new(destination, self.lost.clone());
            }
            Message::Line(line) => {
                let Some(out) = &mut self.out else { return };
                self.unflushed += 1;
                if let Err(error) = out.write_all(line.as_bytes()) {
                    self.fail(&error);
                }
            }
        }
    }

    fn flush(&mut self) {
        match self.out.as_mut().map(Write::flush) {
            Some(Err(error)) => self.fail(&error),
            Some(Ok(())) if self.unflushed > 0 => (self.is_broken, self.unflushed) = (false, 0),
            Some(Ok(())) | None => {}
        }
    }

    /// What is in the buffer is given up: a disk that is full would otherwise get half a line once it has room again.
    fn fail(&mut self, error: &io::Error) {
        if !self.is_broken {
            error!(%error, "cannot write the access log; its lines are lost until it can be written");
        }
        self.is_broken = true;
        self.lost.inc_by(self.unflushed);
        self.unflushed = 0;
        let out = self.out.take().map(|out| out.into_parts().0);
        self.out = out.map(|out| BufWriter::with_capacity(BUFFER_BYTES, out));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// Written to by the thread, read by the test; refuses while `full`.
    #[derive(Clone, Default)]
    struct Disk {
        text: Arc<Mutex<Vec<u8>>>,
        full: Arc<std::sync::atomic::AtomicBool>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.full.load(std::sync::atomic::Ordering::SeqCst) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.text.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn line(log: &mut Log, text: &str) {
        log.take(Message::Line(format!("{text}\n")));
        log.flush();
    }

    #[test]
    fn a_full_disk_loses_lines_and_counts_them() {
        let (disk, lost) = (Disk::default(), Counter::default());
        let mut log = Log::new(Destination(Some(Box::new(disk.clone()))), lost.clone());
        line(&mut log, "one");
        disk.full.store(true, std::sync::atomic::Ordering::SeqCst);
        line(&mut log, "two");
        line(&mut log, "three");
        assert_eq!(lost.get(), 2);
        disk.full.store(false, std::sync::atomic::Ordering::SeqCst);
        line(&mut log, "four");
        assert_eq!(lost.get(), 2);
        assert_eq!(String::from_utf8_lossy(&disk.text.lock()), "one\nfour\n");
    }

    #[test]
    fn lines_before_a_swap_go_to_the_old_place_and_later_ones_to_the_new() {
        let (old, new) = (Disk::default(), Disk::default());
        let mut log = Log::new(Destination(Some(Box::new(old.clone()))), Counter::default());
        log.take(Message::Line("one\n".to_owned()));
        log.take(Message::Replace(Destination(Some(Box::new(new.clone())))));
        line(&mut log, "two");
        assert_eq!(String::from_utf8_lossy(&old.text.lock()), "one\n");
        assert_eq!(String::from_utf8_lossy(&new.text.lock()), "two\n");
    }
}
