//! One JSON line at a time between two processes, with open descriptors beside it.

use std::io::{self, IoSlice, IoSliceMut, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Linux takes no more with one message.
const MAX_DESCRIPTORS: usize = 253;
/// The last word holds every ban and what is remembered of offenders, some hundred bytes each.
const MAX_LINE_BYTES: usize = 1 << 27;

/// The two ends speak in turn, so a line never runs into the next.
#[derive(Debug)]
pub(super) struct Channel(UnixStream);

impl Channel {
    /// `within` bounds each wait for the other side.
    pub(super) fn new(stream: UnixStream, within: Duration) -> io::Result<Self> {
        stream.set_read_timeout(Some(within))?;
        stream.set_write_timeout(Some(within))?;
        Ok(Self(stream))
    }

    /// The way to the other side without turns, for when the last word is spoken.
    pub(super) fn stream(&self) -> io::Result<tokio::net::UnixStream> {
        let stream = self.0.try_clone()?;
        stream.set_nonblocking(true)?;
        tokio::net::UnixStream::from_std(stream)
    }

    pub(super) fn send(&self, message: &impl Serialize, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::Error::other(format!("{} descriptors are too many to hand over", descriptors.len())));
        }
        let sent = rustix::io::retry_on_intr(|| {
            sendmsg(&self.0, &[IoSlice::new(&line)], &mut ancillary, SendFlags::NOSIGNAL)
        })?;
        (&self.0).write_all(line.get(sent..).unwrap_or_default())
    }

    pub(super) fn receive<M: DeserializeOwned>(&self) -> io::Result<(M, Vec<OwnedFd>)> {
        let (mut line, mut descriptors) = (Vec::new(), Vec::new());
        let mut buffer = [0; 4096];
        while line.last() != Some(&b'\n') {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let received = rustix::io::retry_on_intr(|| {
                recvmsg(&self.0, &mut [IoSliceMut::new(&mut buffer)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
            })?;
            for message in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(received) = message {
                    descriptors.extend(received);
                }
            }
            line.extend_from_slice(buffer.get(..received.bytes).unwrap_or_default());
            if received.bytes == 0 || line.len() > MAX_LINE_BYTES {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok((serde_json::from_slice(&line)?, descriptors))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::fd::AsFd;

    use super::*;

    fn pair() -> (Channel, Channel) {
        let (one, other) = UnixStream::pair().unwrap();
        let within = Duration::from_secs(10);
        (Channel::new(one, within).unwrap(), Channel::new(other, within).unwrap())
    }

    #[test]
    fn descriptors_arrive_in_order_beside_a_line_of_any_length() {
        let (one, other) = pair();
        let (first, second) = (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
        let long = "x".repeat(100_000);
        std::thread::scope(|scope| {
            scope.spawn(|| one.send(&long, &[first.0.as_fd(), second.0.as_fd()]).unwrap());
            let (line, descriptors): (String, _) = other.receive().unwrap();
            assert_eq!(line, long);
            let mut streams = descriptors.into_iter().map(UnixStream::from);
            streams.next().unwrap().write_all(b"1").unwrap();
            streams.next().unwrap().write_all(b"2").unwrap();
            assert!(streams.next().is_none());
        });
        for (mut stream, expected) in [(first.1, b'1'), (second.1, b'2')] {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            assert_eq!(byte, [expected]);
        }
        other.send(&1, &[]).unwrap();
        assert_eq!(one.receive::<i32>().unwrap().0, 1);
    }

    #[test]
    fn an_end_that_is_gone_is_noticed() {
        let (one, other) = pair();
        drop(other);
        assert!(one.receive::<i32>().is_err());
        assert!(one.send(&1, &[]).is_err());
    }
}
