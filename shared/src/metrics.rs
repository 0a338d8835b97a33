//! Serves `/metrics` and `/healthz` on a private address.

use std::borrow::Cow;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// Whether the process is fit to take requests, asked anew for each `/healthz`.
pub type Healthy = Arc<dyn Fn() -> bool + Send + Sync>;

const MAX_REQUEST_BYTES: usize = 8 * 1024;
const REQUEST_DEADLINE: Duration = Duration::from_secs(5);

/// Something else that a process shows on its private address.
#[derive(Debug)]
pub struct Page {
    /// Its `content-type`.
    pub content_type: &'static str,
    /// Further headers.
    pub headers: Vec<(&'static str, &'static str)>,
    /// What it says.
    pub body: Cow<'static, str>,
}

/// Finds the page at a path, asked anew for each request.
pub type Pages = Arc<dyn Fn(String) -> PageFuture + Send + Sync>;

/// A page that is being made.
pub type PageFuture = Pin<Box<dyn Future<Output = Option<Page>> + Send>>;

/// Answers one request a connection until `stop`: `/metrics` in the OpenMetrics text format, `/healthz` with 200 or
/// 503. Meant for an address that only the operator reaches.
pub async fn serve(listener: TcpListener, registry: Arc<Registry>, healthy: Healthy, stop: CancellationToken) {
    serve_with(listener, registry, healthy, Arc::new(|_| Box::pin(async { None })), stop).await;
}

/// Like [`serve`], with `pages` beside.
pub async fn serve_with(
    listener: TcpListener,
    registry: Arc<Registry>,
    healthy: Healthy,
    pages: Pages,
    stop: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((connection, _)) => {
                let (registry, healthy, pages) = (registry.clone(), healthy.clone(), pages.clone());
                tokio::spawn(async move {
                    // Whoever asks too slowly or hangs up gets nothing; there is nobody to tell.
                    let _ =
                        tokio::time::timeout(REQUEST_DEADLINE, answer(connection, &registry, &healthy, &pages)).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept on the metrics address");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

async fn answer(mut connection: TcpStream, registry: &Registry, healthy: &Healthy, pages: &Pages) -> io::Result<()> {
    let mut request = Vec::with_capacity(512);
    while !request.windows(4).any(|window| window == b"\r\n\r\n") {
        if request.len() > MAX_REQUEST_BYTES || connection.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let (status, Page { content_type, headers, body }) = route(&request, registry, healthy, pages).await;
    let mut head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\nconnection: close\r\n",
        body.len()
    );
    for (name, value) in headers {
        head.extend([name, ": ", value, "\r\n"]);
    }
    head.push_str("\r\n");
    connection.write_all(head.as_bytes()).await?;
    connection.write_all(body.as_bytes()).await?;
    connection.shutdown().await
}

async fn route(request: &[u8], registry: &Registry, healthy: &Healthy, pages: &Pages) -> (&'static str, Page) {
    let text = |body: &'static str| Page {
        content_type: "text/plain; charset=utf-8",
        headers: Vec::new(),
        body: Cow::Borrowed(body),
    };
    let line = request.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let target = line.strip_prefix(b"GET ").and_then(|rest| rest.split(|byte| matches!(byte, b' ' | b'?')).next());
    match target.map(|target| str::from_utf8(target).unwrap_or_default()) {
        Some("/metrics") => {
            let mut written = String::new();
            match prometheus_client::encoding::text::encode(&mut written, registry) {
                Ok(()) => {
                    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                    ("200 OK", Page { content_type, headers: Vec::new(), body: Cow::Owned(written) })
                }
                Err(_) => ("500 Internal Server Error", text("the metrics cannot be written\n")),
            }
        }
        Some("/healthz") if healthy() => ("200 OK", text("ok\n")),
        Some("/healthz") => ("503 Service Unavailable", text("not ready\n")),
        Some(path) => match pages(path.to_owned()).await {
            Some(page) => ("200 OK", page),
            None => ("404 Not Found", text("nothing is here; /metrics and /healthz are\n")),
        },
        None => ("405 Method Not Allowed", text("only GET is answered\n")),
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    async fn ask(address: std::net::SocketAddr, line: &str) -> String {
        let mut connection = TcpStream::connect(address).await.unwrap();
        connection.write_all(format!("{line}\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn metrics_and_health_are_answered() {
        let mut registry = Registry::default();
        let counter: Counter = Counter::default();
        registry.register("doors_opened", "Doors opened", counter.clone());
        counter.inc();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let served = tokio::spawn(serve(listener, Arc::new(registry), Arc::new(|| true), stop.clone()));
        assert!(ask(address, "GET /metrics HTTP/1.1").await.contains("doors_opened_total 1\n"));
        assert!(ask(address, "GET /healthz HTTP/1.1").await.starts_with("HTTP/1.1 200 "));
        assert!(ask(address, "GET /other HTTP/1.1").await.starts_with("HTTP/1.1 404 "));
        assert!(ask(address, "POST /metrics HTTP/1.1").await.starts_with("HTTP/1.1 405 "));
        stop.cancel();
        served.await.unwrap();
    }
}
