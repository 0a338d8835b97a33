//! Shares bans with other edges through a table in PostgreSQL, and works on without it.
//!
//! Each ban and each lift is one row, the newest word on its offender, and a notification that carries it. What a
//! notification may have missed is found by reading the table from time to time. While the database is away this edge
//! decides alone; when it is back, each side learns what the other one has.

use std::sync::Arc;
use std::time::Duration;

use rustls_platform_verifier::ConfigVerifierExt;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::Instant;
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{AsyncMessage, Client, Config, Connection, NoTls, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{Bans, Change, Origin};
use crate::config::chain_of;

/// What is missed by notifications is found this often.
const POLL: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A database that hangs keeps its connections, so nothing is waited for longer than this.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A lift is remembered for so long, for edges that were away.
const REMEMBER_LIFT_MS: u64 = 30 * 24 * 3_600 * 1_000;
/// So many lifts wait for the database; the bans themselves are all told when it is back.
const MOST_WAITING: usize = 10_000;

/// Each is run once, in this order, by the first edge that is new enough.
const MIGRATIONS: [&str; 1] = ["CREATE TABLE gatehouse_edge_bans (
         offender text PRIMARY KEY,
         change text NOT NULL,
         at_ms bigint NOT NULL,
         expires_ms bigint
     )"];

/// The newest word on an offender stays; `$5` says that of two of one time it is this one.
const UPSERT: &str = "INSERT INTO gatehouse_edge_bans (offender, change, at_ms, expires_ms)
     SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[])
     ON CONFLICT (offender) DO UPDATE SET change = excluded.change, at_ms = excluded.at_ms, expires_ms = excluded.expires_ms
     WHERE gatehouse_edge_bans.at_ms < excluded.at_ms OR (gatehouse_edge_bans.at_ms = excluded.at_ms AND $5)";
/// So many bans go into one statement.
const BATCH: usize = 1_000;

/// Why the table cannot be used at this moment.
#[derive(Debug, thiserror::Error)]
enum ShareError {
    #[error("the database refuses or is away")]
    Database(#[from] tokio_postgres::Error),
    #[error("the database does not answer")]
    Hangs(#[from] tokio::time::error::Elapsed),
    #[error("TLS to the database cannot be set up")]
    Tls(#[from] rustls::Error),
    #[error("a ban cannot be written")]
    Write(#[from] serde_json::Error),
}

/// Shares until `stop`.
pub(super) async fn share(
    config: Config,
    bans: Arc<Bans>,
    mut changes: UnboundedReceiver<Change>,
    stop: CancellationToken,
) {
    let mut waiting = Vec::new();
    let mut pause = FIRST_PAUSE;
    loop {
        let connected = Instant::now();
        let shared = tokio::select! {
            () = stop.cancelled() => return,
            Err(error) = link(&config, &bans, &mut changes, &mut waiting) => error,
        };
        if connected.elapsed() > LONGEST_PAUSE {
            pause = FIRST_PAUSE;
        }
        if pause == FIRST_PAUSE {
            warn!(error = chain_of(&shared), "shares no bans with other edges until the database is back");
        }
        let until = Instant::now() + pause;
        pause = (pause * 2).min(LONGEST_PAUSE);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep_until(until) => break,
                // Only what cannot be seen in the table of bans has to wait.
                change = changes.recv() => match change {
                    Some(lift @ Change::Lifted { .. }) if waiting.len() < MOST_WAITING => waiting.push(lift),
                    Some(_) => {}
                    None => return,
                },
            }
        }
    }
}

/// Connects, tells and hears everything, and goes on with that until something fails.
async fn link(
    config: &Config,
    bans: &Bans,
    changes: &mut UnboundedReceiver<Change>,
    waiting: &mut Vec<Change>,
) -> Result<std::convert::Infallible, ShareError> {
    let (heard, mut hears) = unbounded_channel();
    let client = within(connect(config, heard)).await?;
    within(migrate(&client)).await?;
    within(async { Ok(client.batch_execute("LISTEN gatehouse_edge_bans").await?) }).await?;
    let mut standing = bans.list();
    // Two edges that tell the same bans in one order do not wait for each other in a circle.
    standing.sort_by(|one, other| one.offender.cmp(&other.offender));
    let standing: Vec<Change> = standing.into_iter().map(|ban| Change::Banned { ban, past: None }).collect();
    for batch in standing.chunks(BATCH) {
        // Told again, a ban does not replace its own row, which knows what was before it.
        within(write(&client, batch, false)).await?;
    }
    while let Some(lift) = waiting.last() {
        within(tell(&client, lift)).await?;
        waiting.pop();
    }
    within(hear_all(&client, bans)).await?;
    info!("shares bans with other edges");
    let mut poll = tokio::time::interval_at(Instant::now() + POLL, POLL);
    loop {
        tokio::select! {
            Some(change) = changes.recv() => {
                if let Err(error) = within(tell(&client, &change)).await {
                    waiting.extend(Some(change).filter(|change| matches!(change, Change::Lifted { .. })));
                    return Err(error);
                }
            }
            Some(text) = hears.recv() => hear(bans, &text),
            _ = poll.tick() => {
                within(forget_expired(&client, bans)).await?;
                within(hear_all(&client, bans)).await?;
            }
        }
    }
}

/// Waits for the database, but not for ever.
async fn within<T>(asked: impl Future<Output = Result<T, ShareError>>) -> Result<T, ShareError> {
    tokio::time::timeout(ANSWER_TIMEOUT, asked).await?
}

async fn forget_expired(client: &Client, bans: &Bans) -> Result<(), ShareError> {
    client.execute("DELETE FROM gatehouse_edge_bans WHERE expires_ms <= $1", &[&bigint(bans.now_ms())]).await?;
    Ok(())
}

async fn connect(config: &Config, heard: UnboundedSender<String>) -> Result<Client, ShareError> {
    let mut config = config.clone();
    config.connect_timeout(CONNECT_TIMEOUT).application_name("gatehouse edge").keepalives_idle(POLL);
    match config.get_ssl_mode() {
        // "prefer", the default, protects from nobody: who wants TLS says `sslmode=require`.
        SslMode::Disable | SslMode::Prefer => {
            config.ssl_mode(SslMode::Disable);
            connect_with(&config, NoTls, heard).await
        }
        _ => {
            let tls = MakeRustlsConnect::new(rustls::ClientConfig::with_platform_verifier()?);
            connect_with(&config, tls, heard).await
        }
    }
}

async fn connect_with<T>(config: &Config, tls: T, heard: UnboundedSender<String>) -> Result<Client, ShareError>
where
    T: MakeTlsConnect<Socket>,
    T::Stream: Send + 'static,
    T::TlsConnect: Send,
    <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
{
    let (client, connection) = config.connect(tls).await?;
    tokio::spawn(drive(connection, heard));
    Ok(client)
}

/// Moves the connection's bytes until it ends, and passes on what other edges notify of.
async fn drive<S, T>(mut connection: Connection<S, T>, heard: UnboundedSender<String>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    while let Some(message) = std::future::poll_fn(|context| connection.poll_message(context)).await {
        match message {
            Ok(AsyncMessage::Notification(notification)) if heard.send(notification.payload().to_owned()).is_ok() => {}
            // The client is gone, or will hear of this error itself.
            Ok(AsyncMessage::Notification(_)) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

/// Several edges may start at once, so one waits for the other.
async fn migrate(client: &Client) -> Result<(), ShareError> {
    client
        .batch_execute(
            "BEGIN;
             SELECT pg_advisory_xact_lock(4747002);
             CREATE TABLE IF NOT EXISTS gatehouse_edge_migrations (number int PRIMARY KEY);",
        )
        .await?;
    for (number, migration) in (1_i32..).zip(MIGRATIONS) {
        let new = "INSERT INTO gatehouse_edge_migrations (number) VALUES ($1) ON CONFLICT DO NOTHING";
        if client.execute(new, &[&number]).await? == 1 {
            client.batch_execute(migration).await?;
        }
    }
    client.batch_execute("COMMIT").await?;
    Ok(())
}

/// Writes a change down and notifies other edges of it.
async fn tell(client: &Client, change: &Change) -> Result<(), ShareError> {
    write(client, std::slice::from_ref(change), true).await?;
    let text = serde_json::to_string(change)?;
    client.execute("SELECT pg_notify('gatehouse_edge_bans', $1)", &[&text]).await?;
    Ok(())
}

/// Writes down what is newer than what is there, and with `is_news` also what is as old. Each offender has one change.
async fn write(client: &Client, changes: &[Change], is_news: bool) -> Result<(), ShareError> {
    let (mut offenders, mut texts, mut at, mut expires) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for change in changes {
        let (offender, at_ms, expires_ms) = match change {
            Change::Banned { ban, .. } => (&ban.offender, ban.since_ms, ban.until_ms),
            Change::Lifted { offender, at_ms } => (offender, *at_ms, Some(at_ms.saturating_add(REMEMBER_LIFT_MS))),
        };
        offenders.push(offender.to_string());
        texts.push(serde_json::to_string(change)?);
        at.push(bigint(at_ms));
        expires.push(expires_ms.map(bigint));
    }
    client.execute(UPSERT, &[&offenders, &texts, &at, &expires, &is_news]).await?;
    Ok(())
}

async fn hear_all(client: &Client, bans: &Bans) -> Result<(), ShareError> {
    let held = "SELECT change FROM gatehouse_edge_bans WHERE expires_ms IS NULL OR expires_ms > $1";
    for row in client.query(held, &[&bigint(bans.now_ms())]).await? {
        hear(bans, row.try_get(0)?);
    }
    Ok(())
}

/// What this edge said itself comes back too, and changes nothing.
fn hear(bans: &Bans, text: &str) {
    match serde_json::from_str(text) {
        Ok(change) => bans.adopt(change, Origin::AnotherEdge),
        Err(error) => debug!(%error, "another edge says something that this version does not understand"),
    }
}

fn bigint(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}
