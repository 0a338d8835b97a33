//! Asks each shard whether it takes requests, at its turn and whenever it is in doubt.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use gatehouse_shared::contract::HEALTH_PATH;
use gatehouse_shared::net::ListenAddr;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_util::sync::CancellationToken;

use super::pool::Pool;
use super::shard::Shard;

/// A shard that answers more slowly than this is busy, not dead.
const PROBE_WITHIN: Duration = Duration::from_secs(2);
/// So many slow answers in a row count as one refusal.
const SLOW_ANSWERS: u32 = 3;
/// A shard that is not healthy is asked again soon at first, then more slowly: requests are waiting for it.
const FIRST_RETRY: Duration = Duration::from_millis(20);
const LONGEST_RETRY: Duration = Duration::from_millis(250);

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Well,
    Slow,
    /// It ends soon, and takes no more requests.
    Draining,
    Refused(String),
}

/// Watches `shard` of `pool` until `stop`.
pub(crate) async fn watch(pool: Arc<Pool>, shard: Arc<Shard>, interval: Duration, stop: CancellationToken) {
    let mut slow = 0;
    let mut retry = FIRST_RETRY;
    loop {
        shard.check_begins();
        let answer = match tokio::time::timeout(PROBE_WITHIN, ask(&shard)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => Answer::Refused(error.to_string()),
            Err(_) => Answer::Slow,
        };
        match answer {
            Answer::Well => {
                pool.welcome(&shard);
                slow = 0;
            }
            Answer::Slow => {
                slow += 1;
                if slow >= SLOW_ANSWERS {
                    shard.mark_unhealthy(&"it does not answer its health check");
                }
            }
            Answer::Draining => shard.mark_draining(),
            Answer::Refused(reason) => shard.mark_unhealthy(&reason),
        }
        shard.check_ended();
        let pause = if shard.is_healthy() {
            retry = FIRST_RETRY;
            interval
        } else {
            retry = (retry * 2).min(LONGEST_RETRY);
            retry
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = shard.doubted() => retry = FIRST_RETRY,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn ask(shard: &Shard) -> io::Result<Answer> {
    match shard.address() {
        ListenAddr::Tcp(address) => match shard.tls() {
            Some(tls) => ask_over(tls.connect(address).await?).await,
            None => ask_over(TcpStream::connect(address).await?).await,
        },
        ListenAddr::Unix(path) => ask_over(UnixStream::connect(path).await?).await,
    }
}

async fn ask_over(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<Answer> {
    let request = format!("GET {HEALTH_PATH} HTTP/1.1\r\nhost: shard\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut head = [0; "HTTP/1.1 200".len()];
    stream.read_exact(&mut head).await?;
    Ok(match head.rsplit(|byte| *byte == b' ').next() {
        Some(b"200") => Answer::Well,
        Some(b"503") => Answer::Draining,
        _ => Answer::Refused(format!("its health check answers {}", head.escape_ascii())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn answer_to(reply: &'static [u8]) -> Answer {
        let (ours, mut theirs) = tokio::io::duplex(1024);
        let shard = tokio::spawn(async move {
            let mut request = [0; 8];
            theirs.read_exact(&mut request).await.unwrap();
            theirs.write_all(reply).await.unwrap();
        });
        let answer = ask_over(ours).await.unwrap();
        shard.await.unwrap();
        answer
    }

    #[tokio::test]
    async fn only_200_is_well_and_503_says_that_it_ends() {
        assert_eq!(answer_to(b"HTTP/1.1 200 OK\r\n\r\n").await, Answer::Well);
        assert_eq!(answer_to(b"HTTP/1.1 503 Draining\r\n\r\n").await, Answer::Draining);
        assert!(matches!(answer_to(b"HTTP/1.1 500 Oh\r\n\r\n").await, Answer::Refused(_)));
        assert!(matches!(answer_to(b"SSH-2.0-OpenSSH\r\n").await, Answer::Refused(_)));
    }
}
