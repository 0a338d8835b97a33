//! A connection over a Unix socket, of which nobody wants to hear that it can be written again.
//!
//! The kernel says so whenever the shard has read something, and tokio's own stream listens: its thread would wake once more
//! for each request, for nothing. Here it wakes for what can be read, and for room to write only while it waits for some.
//! tokio's ends of pipes listen to one direction alone, and a socket is read and written as a pipe is.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use rustix::io::Errno;
use rustix::net::{SendFlags, Shutdown, send, shutdown};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::pipe;

/// Connects to the socket at `path`.
pub(super) async fn connect(path: &Path) -> io::Result<(ReadHalf, WriteHalf)> {
    halves(tokio::net::UnixStream::connect(path).await?.into_std()?)
}

/// The halves of a stream that does not block.
pub(super) fn halves(stream: UnixStream) -> io::Result<(ReadHalf, WriteHalf)> {
    let socket = Arc::new(Mutex::new(pipe::Receiver::from_owned_fd_unchecked(stream.into())?));
    Ok((ReadHalf(socket.clone()), WriteHalf { socket, awaited: None }))
}

/// The half that reads.
pub(super) struct ReadHalf(Arc<Mutex<pipe::Receiver>>);

/// The half that writes.
pub(super) struct WriteHalf {
    socket: Arc<Mutex<pipe::Receiver>>,
    /// There while it waits for room: another descriptor of the socket, since each is listened to once.
    awaited: Option<pipe::Sender>,
}

impl AsyncRead for ReadHalf {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.lock()).poll_read(context, into)
    }
}

impl AsyncWrite for WriteHalf {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.awaited.is_none() {
            let socket = this.socket.lock();
            match send(&*socket, bytes, SendFlags::NOSIGNAL) {
                Err(Errno::AGAIN) => {}
                sent => return Poll::Ready(sent.map_err(io::Error::from)),
            }
            this.awaited = Some(pipe::Sender::from_owned_fd_unchecked(socket.as_fd().try_clone_to_owned()?)?);
        }
        let Some(awaited) = &mut this.awaited else { return Poll::Pending };
        let written = ready!(Pin::new(awaited).poll_write(context, bytes));
        this.awaited = None;
        Poll::Ready(written)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(shutdown(&*self.socket.lock(), Shutdown::Write).map_err(io::Error::from))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_large_request_passes_in_pieces_and_so_does_its_answer() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        let mut theirs = tokio::net::UnixStream::from_std(theirs).unwrap();
        let (mut read, mut write) = halves(ours).unwrap();
        let sent: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
        let echo = async {
            let mut request = vec![0; sent.len()];
            theirs.read_exact(&mut request).await.unwrap();
            theirs.write_all(&request).await.unwrap();
            drop(theirs);
        };
        let ask = async {
            write.write_all(&sent).await.unwrap();
            assert!(write.awaited.is_none(), "nothing is listened to that is not awaited");
            let mut answer = Vec::new();
            read.read_to_end(&mut answer).await.unwrap();
            assert!(answer == sent);
            assert!(write.write_all(b"x").await.is_err());
        };
        tokio::join!(echo, ask);
    }
}
