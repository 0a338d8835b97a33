//! A shard that reads HTTP/1.1 to the letter and keeps what it read: whatever reaches it as a request is seen.

use std::path::Path;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

/// One request as the shard read it.
#[derive(Debug, Clone)]
pub(crate) struct Read {
    pub(crate) line: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Read {
    pub(crate) fn values(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(has, _)| has == name).map(|(_, value)| value.as_str()).collect()
    }
}

/// What was read so far, health checks left out.
#[derive(Debug, Clone, Default)]
pub(crate) struct RawShard(Arc<Mutex<Vec<Read>>>);

impl RawShard {
    pub(crate) fn start(path: &Path) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let shard = Self::default();
        let accepting = shard.clone();
        tokio::spawn(async move {
            loop {
                let stream = listener.accept().await.unwrap().0;
                let shard = accepting.clone();
                // A connection ends as it likes; what was read of it counts.
                tokio::spawn(async move { drop(shard.serve(stream).await) });
            }
        });
        shard
    }

    /// What was read since this was last asked.
    pub(crate) fn take(&self) -> Vec<Read> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    async fn serve(&self, stream: UnixStream) -> std::io::Result<()> {
        let (read, mut write) = stream.into_split();
        let mut read = BufReader::new(read);
        loop {
            let line = line(&mut read).await?;
            let mut headers = Vec::new();
            loop {
                let header = self::line(&mut read).await?;
                let Some((name, value)) = header.split_once(':') else { break };
                headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
            }
            let mut request = Read { line, headers, body: Vec::new() };
            if !request.line.contains("/_gatehouse/health") {
                self.0.lock().unwrap().push(request.clone());
            }
            body(&mut read, &mut request).await?;
            if let Some(kept) = self.0.lock().unwrap().last_mut() {
                kept.body = request.body;
            }
            write.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await?;
        }
    }
}

async fn line(read: &mut (impl AsyncBufReadExt + Unpin)) -> std::io::Result<String> {
    let mut line = Vec::new();
    if read.read_until(b'\n', &mut line).await? == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}

async fn body(read: &mut (impl AsyncBufReadExt + Unpin), request: &mut Read) -> std::io::Result<()> {
    if request.values("transfer-encoding").is_empty() {
        let length = request.values("content-length").first().and_then(|length| length.parse().ok()).unwrap_or(0);
        request.body = vec![0; length];
        return read.read_exact(&mut request.body).await.map(|_| ());
    }
    loop {
        let size = line(read).await?;
        let size = usize::from_str_radix(size.split(';').next().unwrap_or_default(), 16).unwrap_or(0);
        let mut chunk = vec![0; size];
        read.read_exact(&mut chunk).await?;
        request.body.extend(chunk);
        line(read).await?;
        if size == 0 {
            return Ok(());
        }
    }
}
