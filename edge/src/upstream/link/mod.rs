//! A connection to a shard that carries one request at a time, in HTTP/1.1.
//!
//! Requests to shards do not take the way that Pingora's proxy goes with its upstreams: it copies each header map, edits
//! the copy, and joins two tasks by channels, which costs more than all the rest that the edge does for a request. Here the
//! head is written from where it was read, and the answer is read by whoever writes it to the client. What needs more
//! (a WebSocket, `Expect: 100-continue`) still goes through Pingora.

mod local;
mod reader;
mod writer;

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use gatehouse_shared::net::ListenAddr;
use pingora_error::{Error, ErrorType, Result};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::shard_tls::ShardTls;

pub(crate) use reader::Reader;
pub(crate) use writer::{Head, Length, Writer, WrongLength};

/// One connection to a shard.
pub(crate) struct Link {
    pub(crate) reader: Reader,
    pub(crate) writer: Writer,
    /// Whether it has carried a request before this one.
    pub(crate) is_reused: bool,
    /// Which process of the shard it leads to.
    pub(super) generation: u64,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("is_reused", &self.is_reused).finish_non_exhaustive()
    }
}

impl Link {
    /// `resets_tell` says that the kernel resets the connection for one reason alone: the shard closed it, or died, and had
    /// not read all that was sent.
    fn new(
        read: impl AsyncRead + Send + Unpin + 'static,
        write: impl AsyncWrite + Send + Unpin + 'static,
        resets_tell: bool,
    ) -> Self {
        Self {
            reader: Reader::new(Box::new(read), resets_tell),
            writer: Writer::new(Box::new(write)),
            is_reused: false,
            generation: 0,
        }
    }

    /// Over a stream whose other end somebody has who answers as a shard does.
    pub(crate) fn over(stream: impl AsyncRead + AsyncWrite + Send + 'static) -> Self {
        let (read, write) = tokio::io::split(stream);
        Self::new(read, write, false)
    }

    /// A new connection. The error's type tells a shard that is not there from one that takes too long.
    pub(super) async fn connect(address: &ListenAddr, tls: Option<&ShardTls>, within: Duration) -> Result<Self> {
        let connected = match tokio::time::timeout(within, Self::open(address, tls)).await {
            Ok(connected) => connected,
            Err(_) => return Err(Error::explain(ErrorType::ConnectTimedout, "connecting to a shard").into_up()),
        };
        connected.map_err(|error| {
            let kind = match error.kind() {
                io::ErrorKind::ConnectionRefused => ErrorType::ConnectRefused,
                _ => ErrorType::ConnectError,
            };
            Error::because(kind, "connecting to a shard", error).into_up()
        })
    }

    async fn open(address: &ListenAddr, tls: Option<&ShardTls>) -> io::Result<Self> {
        match (address, tls) {
            (ListenAddr::Unix(path), _) => {
                let (read, write) = local::connect(path).await?;
                Ok(Self::new(read, write, true))
            }
            (ListenAddr::Tcp(address), None) => {
                let tcp = TcpStream::connect(address).await?;
                tcp.set_nodelay(true)?;
                let (read, write) = tcp.into_split();
                Ok(Self::new(read, write, false))
            }
            (ListenAddr::Tcp(address), Some(tls)) => {
                let (read, write) = tokio::io::split(tls.connect(address).await?);
                Ok(Self::new(read, write, false))
            }
        }
    }

    /// Whether the last request and its answer went through whole, so that another may follow.
    pub(crate) fn is_reusable(&self) -> bool {
        self.writer.is_complete() && self.reader.has_answered(self.writer.requests())
    }

    /// Whether nothing was heard from the shard since: neither its end nor words that nobody asked for. Costs no system
    /// call while the kernel has announced nothing.
    pub(super) async fn is_silent(&mut self) -> bool {
        poll_fn(|context| {
            let mut byte = [0];
            let mut heard = ReadBuf::new(&mut byte);
            Poll::Ready(Pin::new(self.reader.io()).poll_read(context, &mut heard).is_pending())
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::net::UnixStream;

    use super::*;

    fn linked() -> (Link, DuplexStream) {
        let (ours, theirs) = duplex(64 * 1024);
        let (read, write) = tokio::io::split(ours);
        (Link::new(read, write, false), theirs)
    }

    #[tokio::test]
    async fn a_link_that_heard_something_is_not_used_again() {
        let (mut link, mut shard) = linked();
        assert!(link.is_silent().await);
        shard.write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n").await.unwrap();
        assert!(!link.is_silent().await);
        let (mut link, shard) = linked();
        drop(shard);
        assert!(!link.is_silent().await);
    }

    #[tokio::test]
    async fn a_local_shard_that_dies_over_a_request_it_had_not_read_says_so() {
        for (is_read, kind) in [(false, ErrorType::WriteError), (true, ErrorType::ConnectionClosed)] {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let (read, write) = local::halves(ours.into_std().unwrap()).unwrap();
            let mut link = Link::new(read, write, true);
            let headers = http::HeaderMap::new();
            link.writer.begin(
                &Head { method: "POST", target: "/x", host: "h", headers: &headers, vouched: "" },
                Length::Known(2),
            );
            link.writer.body(b"{}").unwrap();
            link.writer.end().unwrap();
            link.writer.send_some().await.unwrap();
            let mut request = [0; "POST /x HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\n{}".len()];
            let unread = usize::from(!is_read);
            theirs.read_exact(&mut request[unread..]).await.unwrap();
            drop(theirs);
            assert_eq!(*link.reader.head(false).await.unwrap_err().etype(), kind);
        }
    }

    #[tokio::test]
    async fn one_request_follows_another() {
        let (mut link, mut shard) = linked();
        for _ in 0..2 {
            let headers = http::HeaderMap::new();
            let head = Head { method: "PUT", target: "/x", host: "h", headers: &headers, vouched: "" };
            link.writer.begin(&head, Length::Known(2));
            link.writer.body(b"{}").unwrap();
            link.writer.end().unwrap();
            while link.writer.has_pending() {
                link.writer.send_some().await.unwrap();
            }
            let mut request = [0; "PUT /x HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\n{}".len()];
            shard.read_exact(&mut request).await.unwrap();
            assert!(request.ends_with(b"\r\n\r\n{}"));
            shard.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nyes").await.unwrap();
            assert!(!link.is_reusable());
            assert_eq!(link.reader.head(false).await.unwrap().status, 200);
            assert_eq!(link.reader.body().await.unwrap().unwrap(), "yes");
            assert!(link.is_reusable() && link.is_silent().await);
        }
    }
}
