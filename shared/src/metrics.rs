//! Serves `/metrics` and `/healthz` on a private address.

use std::io;
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

/// Answers one request a connection until `stop`: `/metrics` in the OpenMetrics text format, `/healthz` with 200 or
/// 503. Meant for an address that only the operator reaches.
pub async fn serve(listener: TcpListener, registry: Arc<Registry>, healthy: Healthy, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((connection, _)) => {
                let (registry, healthy) = (registry.clone(), healthy.clone());
                tokio::spawn(async move {
                    // Whoever asks too slowly or hangs up gets nothing; there is nobody to tell.
                    let _ = tokio::time::timeout(REQUEST_DEADLINE, answer(connection, &registry, &healthy)).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept on the metrics address");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

async fn answer(mut connection: TcpStream, registry: &Registry, healthy: &Healthy) -> io::Result<()> {
    let mut request = Vec::with_capacity(512);
    while !request.windows(4).any(|window| window == b"\r\n\r\n") {
        if request.len() > MAX_REQUEST_BYTES || connection.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let (status, content_type, body) = route(&request, registry, healthy);
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    connection.write_all(head.as_bytes()).await?;
    connection.write_all(body.as_bytes()).await?;
    connection.shutdown().await
}

fn route(request: &[u8], registry: &Registry, healthy: &Healthy) -> (&'static str, &'static str, String) {
    const TEXT: &str = "text/plain; charset=utf-8";
    let line = request.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let target = line.strip_prefix(b"GET ").and_then(|rest| rest.split(|byte| matches!(byte, b' ' | b'?')).next());
    match target {
        Some(b"/metrics") => {
            let mut text = String::new();
            match prometheus_client::encoding::text::encode(&mut text, registry) {
                Ok(()) => ("200 OK", "application/openmetrics-text; version=1.0.0; charset=utf-8", text),
                Err(_) => ("500 Internal Server Error", TEXT, "the metrics cannot be written\n".to_owned()),
            }
        }
        Some(b"/healthz") if healthy() => ("200 OK", TEXT, "ok\n".to_owned()),
        Some(b"/healthz") => ("503 Service Unavailable", TEXT, "not ready\n".to_owned()),
        Some(_) => ("404 Not Found", TEXT, "only /metrics and /healthz are here\n".to_owned()),
        None => ("405 Method Not Allowed", TEXT, "only GET is answered\n".to_owned()),
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
