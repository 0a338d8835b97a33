//! The control socket: who may connect, and how lines become requests.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::desk::Desk;
use super::protocol::{Answer, Request};

/// The longest request; policies travel as files, not here.
const MAX_LINE_BYTES: u64 = 64 * 1024;
/// How long a connection may say nothing.
const IDLE: Duration = Duration::from_secs(60);

/// The control socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The folder or the socket cannot be made.
    #[error("cannot listen for commands on {} (control.socket)", path.display())]
    Bind {
        /// The socket.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Another edge has it.
    #[error("another edge listens on {} (control.socket)", .0.display())]
    Taken(PathBuf),
}

/// A socket that is bound and answers nobody yet.
#[derive(Debug)]
pub(crate) struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Who may connect beside root: the user who runs the edge.
    owner: u32,
}

impl ControlSocket {
    /// Binds `path` with mode 0600. What a dead edge left there is replaced, a living edge or another file is not.
    pub(crate) fn bind(path: &Path) -> Result<Self, ControlError> {
        let cannot = |source| ControlError::Bind { path: path.to_owned(), source };
        let folder = path.parent().unwrap_or(Path::new("/"));
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(cannot)?;
        let listener = match UnixListener::bind(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                if std::os::unix::net::UnixStream::connect(path).is_ok() {
                    return Err(ControlError::Taken(path.to_owned()));
                }
                // A mistaken path must not cost a file.
                if !fs::symlink_metadata(path).map_err(cannot)?.file_type().is_socket() {
                    return Err(cannot(error));
                }
                fs::remove_file(path).and_then(|()| UnixListener::bind(path))
            }
            bound => bound,
        };
        Self::of(listener.map_err(cannot)?, path).map_err(cannot)
    }

    /// Takes over the socket that another process has bound to `path`.
    pub(crate) fn inherited(socket: OwnedFd, path: &Path) -> Result<Self, ControlError> {
        let listener = std::os::unix::net::UnixListener::from(socket);
        let listener = listener.set_nonblocking(true).and_then(|()| UnixListener::from_std(listener));
        listener
            .and_then(|listener| Self::of(listener, path))
            .map_err(|source| ControlError::Bind { path: path.to_owned(), source })
    }

    /// Lets `keep` have a copy of the socket.
    pub(crate) fn remember(self, keep: impl FnOnce(&UnixListener) -> io::Result<()>) -> Result<Self, ControlError> {
        keep(&self.listener).map_err(|source| ControlError::Bind { path: self.path.clone(), source })?;
        Ok(self)
    }

    fn of(listener: UnixListener, path: &Path) -> io::Result<Self> {
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
        let owner = fs::metadata(path)?.uid();
        Ok(Self { listener, path: path.to_owned(), owner })
    }

    /// Answers until `stop`, and leaves no socket behind unless another process has it then.
    pub(crate) async fn serve(self, desk: Arc<Desk>, stop: CancellationToken, replaced: CancellationToken) {
        let conversations = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) if self.may_ask(&stream) => {
                    let (desk, stop) = (desk.clone(), stop.clone());
                    conversations.spawn(async move {
                        // A command that went away has nobody to tell.
                        let _ = converse(stream, &desk, stop).await;
                    });
                }
                Ok(_) => warn!("refused a command of another user"),
                Err(error) => {
                    warn!(%error, "cannot accept a command");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        if !replaced.is_cancelled() {
            // Somebody may have removed it before.
            let _ = fs::remove_file(&self.path);
        }
        conversations.close();
        conversations.wait().await;
    }

    /// The mode of the socket says the same; but its folder may be older than the edge, and wider.
    fn may_ask(&self, stream: &UnixStream) -> bool {
        stream.peer_cred().is_ok_and(|peer| peer.uid() == 0 || peer.uid() == self.owner)
    }
}

/// Answers line by line; what was asked before `stop` is still answered.
async fn converse(stream: UnixStream, desk: &Desk, stop: CancellationToken) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let mut line = String::new();
    loop {
        line.clear();
        let mut limited = (&mut read).take(MAX_LINE_BYTES);
        let arrived = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            arrived = tokio::time::timeout(IDLE, limited.read_line(&mut line)) => arrived,
        };
        if arrived.map_err(io::Error::other)?? == 0 {
            return Ok(());
        }
        let answer = match serde_json::from_str::<Request>(&line) {
            Ok(request) => desk.answer(request).await,
            Err(error) => Answer::refused(format!("this edge does not know the request: {error}")),
        };
        let mut answer = serde_json::to_vec(&answer).map_err(io::Error::other)?;
        answer.push(b'\n');
        write.write_all(&answer).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dead_socket_is_replaced_and_another_file_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(ControlSocket::bind(&path), Err(ControlError::Bind { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        fs::remove_file(&path).unwrap();
        drop(ControlSocket::bind(&path).unwrap());
        assert!(path.exists());
        ControlSocket::bind(&path).unwrap();
    }
}
