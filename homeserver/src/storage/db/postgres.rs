//! The clustered engine: a pool of PostgreSQL connections with pipelined, prepared statements.

mod away;

use std::{
    collections::HashMap,
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use away::Away;
use bytes::BytesMut;
use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_postgres::{
    AsyncMessage, Client, Config, NoTls, Statement,
    config::SslMode,
    error::SqlState,
    types::{IsNull, ToSql, Type, to_sql_checked},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{DbError, Outcome, Row, Stmt, Value};

/// The channel on which shards tell each other that a lane moved.
const CHANNEL: &str = "gatehouse_lane";
/// How long a new connection may take, until it can be used.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the answer to one round trip may take before the server counts as away.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a connection that was given up may take to say goodbye.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// After what silence, and then how often, the system asks whether the server's machine is still there.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// How long a caller waits for a free connection before the answer is "not available".
const CHECKOUT_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause before the listening connection is tried again.
const LISTEN_RETRY: Duration = Duration::from_millis(500);

/// For every new connection. The server gives a statement up before we give the connection up, so that one that waits for
/// a lock ends with an error and not with a lost connection; and it frees what a shard held that vanished within a
/// transaction. Each statement here is written for an index and a nested loop. The planner knows neither how
/// long a list is nor, in a young table, how many rows there are, and would hash whole tables or sort whole rooms.
const SETTINGS: &str = "SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_bitmapscan = off; \
                        SET random_page_cost = 1.1; SET jit = off; SET client_min_messages = warning; \
                        SET default_transaction_isolation = 'read committed'; \
                        SET statement_timeout = '10s'; SET idle_in_transaction_session_timeout = '30s'";
/// Taken by whoever changes the schema, so that shards which start together do so one after the other.
const SCHEMA_LOCK: &str = "SET statement_timeout = 0; SELECT pg_advisory_lock(4747001)";

/// What SQLite has built in and PostgreSQL does not: one SQL text runs on both because of these. `json_each` is not
/// STRICT, because only then the planner writes it into the statement; called as a function it costs 0.1 ms each time.
const PRELUDE: &str = "
CREATE OR REPLACE FUNCTION json_each(document text) RETURNS TABLE(key bigint, value text)
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT place - 1, element FROM jsonb_array_elements_text(document::jsonb) WITH ORDINALITY AS list(element, place)
$$;
CREATE OR REPLACE FUNCTION json_extract(document text, path text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT document::jsonb #>> string_to_array(substr(path, 3), '.')
$$;
";

#[derive(Clone)]
pub(super) struct Postgres {
    shared: Arc<Shared>,
}

struct Shared {
    config: Config,
    tls: Option<tokio_postgres_rustls::MakeRustlsConnect>,
    away: Away,
    idle: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
    /// Fewer than there are connections: who holds a transaction may wait for a single read beside it, and single reads
    /// wait for nothing else, so that nobody waits in a circle.
    transactions: Arc<Semaphore>,
    wake_ups: Arc<Notify>,
    listening: AtomicBool,
    /// What our own notifications carry.
    tag: String,
}

impl Postgres {
    pub(super) async fn open(url: &str, connections: usize) -> Result<Self, DbError> {
        let mut config: Config = url.parse().map_err(unavailable)?;
        config.connect_timeout(CONNECT_TIMEOUT).application_name("gatehouse");
        config.keepalives_idle(KEEPALIVE).keepalives_interval(KEEPALIVE).keepalives_retries(2);
        let tls = match config.get_ssl_mode() {
            // "prefer", the default, protects from nobody: who wants TLS says `sslmode=require`.
            SslMode::Disable | SslMode::Prefer => None,
            _ => Some(tokio_postgres_rustls::MakeRustlsConnect::new(tls_config()?)),
        };
        if tls.is_none() {
            config.ssl_mode(SslMode::Disable);
        }
        let connections = connections.max(2);
        let shared = Shared {
            config,
            tls,
            away: Away::default(),
            idle: Mutex::new(Vec::new()),
            permits: Arc::new(Semaphore::new(connections)),
            transactions: Arc::new(Semaphore::new(super::most_held(connections))),
            wake_ups: Arc::new(Notify::new()),
            listening: AtomicBool::new(false),
            tag: format!("{:016x}", rand::random::<u64>()),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Waits for the turn to change the schema.
    pub(super) async fn schema_turn(&self) -> Result<SchemaTurn, DbError> {
        let turn = SchemaTurn { connection: self.take().await? };
        turn.script(SCHEMA_LOCK).await?;
        let present =
            "SELECT 1 FROM pg_proc WHERE proname = 'json_extract' AND pronamespace = current_schema()::regnamespace";
        if turn.connection.run_one(&Stmt::new(present, Vec::new())).await?.rows.is_empty() {
            turn.script(&format!("BEGIN; {PRELUDE} COMMIT;")).await?;
        }
        Ok(turn)
    }

    pub(super) async fn read(&self, stmt: Stmt) -> Result<Vec<Row>, DbError> {
        let connection = self.take().await?;
        let outcome = connection.in_time(connection.run_one(&stmt)).await?;
        connection.release();
        Ok(outcome.rows)
    }

    pub(super) async fn begin(&self, sql: &'static str) -> Result<PostgresTx, DbError> {
        let permit = acquire(&self.shared.transactions).await?;
        Ok(PostgresTx { connection: Some(self.take().await?), begin: Some(sql), _permit: permit })
    }

    /// Returns at the next notification of another shard, or when listening had to start anew (so that nothing that
    /// came meanwhile is missed).
    pub(super) async fn wait_for_wake_up(&self) {
        if !self.shared.listening.swap(true, Ordering::AcqRel) {
            tokio::spawn(listen(Arc::downgrade(&self.shared)));
        }
        self.shared.wake_ups.notified().await;
    }

    pub(super) fn wake_up_tag(&self) -> &str {
        &self.shared.tag
    }

    async fn take(&self) -> Result<Checkout, DbError> {
        self.shared.away.check()?;
        let permit = acquire(&self.shared.permits).await?;
        self.shared.away.check()?;
        let idle = {
            let mut idle = self.shared.idle.lock();
            idle.retain(|connection| !connection.client.is_closed());
            idle.pop()
        };
        let connection = match idle {
            Some(connection) => connection,
            None => self.shared.connect().await?,
        };
        Ok(Checkout { connection: Some(connection), shared: self.shared.clone(), _permit: permit })
    }
}

async fn acquire(permits: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, DbError> {
    tokio::time::timeout(CHECKOUT_TIMEOUT, permits.clone().acquire_owned())
        .await
        .map_err(|_| DbError::Unavailable("all database connections are busy".into()))?
        .map_err(unavailable)
}

impl Shared {
    /// A new connection, within its time: the library's own timeout ends when the socket is connected, and a server that
    /// hangs still lets the system take connections.
    async fn connect(self: &Arc<Self>) -> Result<Connection, DbError> {
        match tokio::time::timeout(CONNECT_TIMEOUT, self.connect_slowly()).await {
            Ok(connected) => connected,
            Err(_) => Err(self.does_not_answer()),
        }
    }

    async fn connect_slowly(&self) -> Result<Connection, DbError> {
        let given_up = CancellationToken::new();
        let client = match &self.tls {
            None => {
                let (client, connection) = self.config.connect(NoTls).await.map_err(unavailable)?;
                tokio::spawn(drive(connection, given_up.clone()));
                client
            }
            Some(tls) => {
                let (client, connection) = self.config.connect(tls.clone()).await.map_err(unavailable)?;
                tokio::spawn(drive(connection, given_up.clone()));
                client
            }
        };
        let connection = Connection {
            client,
            prepared: Mutex::default(),
            is_lost: AtomicBool::new(false),
            _given_up: given_up.drop_guard(),
        };
        connection.client.batch_execute(SETTINGS).await.map_err(unavailable)?;
        Ok(connection)
    }
}

/// Carries a connection's messages until it ends, or for a moment longer once it is given up: what was sent is answered
/// first, unless the server hangs.
async fn drive<S, T>(connection: tokio_postgres::Connection<S, T>, given_up: CancellationToken)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = given_up.cancelled() => match tokio::time::timeout(CLOSE_TIMEOUT, connection.as_mut()).await {
            Ok(ended) => ended,
            Err(_) => return,
        },
    };
    if let Err(error) = ended {
        tracing::warn!(%error, "a database connection ended");
    }
}

/// Keeps one connection listening for as long as the pool lives.
async fn listen(shared: std::sync::Weak<Shared>) {
    loop {
        let Some(pool) = shared.upgrade() else { return };
        let wake_ups = pool.wake_ups.clone();
        let listening = tokio::time::timeout(CONNECT_TIMEOUT, start_listening(&pool)).await;
        drop(pool);
        match listening {
            Ok(Ok((_client, driver))) => {
                wake_ups.notify_waiters();
                let _ = driver.await;
            }
            Ok(Err(error)) => tracing::debug!(%error, "cannot listen for wake-ups yet"),
            Err(_) => tracing::debug!("cannot listen for wake-ups yet: the database does not answer"),
        }
        tokio::time::sleep(LISTEN_RETRY).await;
    }
}

/// The connection stands for as long as the client is kept.
async fn start_listening(pool: &Shared) -> Result<(Client, tokio::task::JoinHandle<()>), tokio_postgres::Error> {
    let (wake_ups, own) = (pool.wake_ups.clone(), pool.tag.clone());
    let (client, driver) = match &pool.tls {
        None => {
            let (client, connection) = pool.config.connect(NoTls).await?;
            (client, tokio::spawn(forward(connection, wake_ups, own)))
        }
        Some(tls) => {
            let (client, connection) = pool.config.connect(tls.clone()).await?;
            (client, tokio::spawn(forward(connection, wake_ups, own)))
        }
    };
    client.batch_execute(&format!("LISTEN {CHANNEL}")).await?;
    Ok((client, driver))
}

async fn forward<S, T>(mut connection: tokio_postgres::Connection<S, T>, wake_ups: Arc<Notify>, own: String)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    loop {
        match std::future::poll_fn(|context| connection.poll_message(context)).await {
            Some(Ok(AsyncMessage::Notification(told))) if told.payload() != own => wake_ups.notify_one(),
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return,
        }
    }
}

/// Certificates are checked against what the operating system trusts.
fn tls_config() -> Result<rustls::ClientConfig, DbError> {
    use rustls_platform_verifier::ConfigVerifierExt;
    rustls::ClientConfig::with_platform_verifier().map_err(unavailable)
}

struct Connection {
    client: Client,
    prepared: Mutex<HashMap<&'static str, Statement>>,
    /// It was sent something that was not answered in time.
    is_lost: AtomicBool,
    /// Dropped last: tells the driver that nobody waits for answers any more.
    _given_up: DropGuard,
}

impl Connection {
    async fn prepare(&self, sql: &'static str) -> Result<Statement, DbError> {
        if let Some(statement) = self.prepared.lock().get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(sql).await.map_err(|error| classify(error, sql))?;
        self.prepared.lock().insert(sql, statement.clone());
        Ok(statement)
    }

    async fn run_one(&self, stmt: &Stmt) -> Result<Outcome, DbError> {
        let statement = self.prepare(stmt.sql).await?;
        self.run_prepared(&statement, stmt).await
    }

    /// One after the other in one round trip.
    async fn run_all(&self, stmts: &[Stmt]) -> Result<Vec<Outcome>, DbError> {
        // A statement is prepared before the pipeline starts: a round trip once per connection and text.
        let mut prepared = Vec::with_capacity(stmts.len());
        for stmt in stmts {
            prepared.push(self.prepare(stmt.sql).await?);
        }
        // Polled in order, so sent in order; the server answers each in turn. After a failure PostgreSQL refuses the
        // rest of the transaction itself, and COMMIT becomes a rollback.
        let answers =
            join_all(stmts.iter().zip(&prepared).map(|(stmt, statement)| self.run_prepared(statement, stmt))).await;
        answers.into_iter().collect()
    }

    async fn run_prepared(&self, statement: &Statement, stmt: &Stmt) -> Result<Outcome, DbError> {
        let params: Vec<&(dyn ToSql + Sync)> = stmt.params.iter().map(|value| value as &(dyn ToSql + Sync)).collect();
        let failed = |error| classify(error, stmt.sql);
        if statement.columns().is_empty() {
            let affected = self.client.execute(statement, &params).await.map_err(failed)?;
            return Ok(Outcome { affected, rows: Vec::new() });
        }
        let rows = self.client.query(statement, &params).await.map_err(failed)?;
        let rows = rows.iter().map(|row| read_row(row, stmt.sql)).collect::<Result<Vec<_>, _>>()?;
        Ok(Outcome { affected: rows.len() as u64, rows })
    }
}

struct Checkout {
    connection: Option<Connection>,
    shared: Arc<Shared>,
    _permit: OwnedSemaphorePermit,
}

/// The one connection that changes the schema, with no limit of time. Dropped it closes, which lets the next one have its
/// turn.
pub(super) struct SchemaTurn {
    connection: Checkout,
}

impl SchemaTurn {
    pub(super) async fn script(&self, sql: &str) -> Result<(), DbError> {
        self.connection.client.batch_execute(sql).await.map_err(|error| classify(error, "script"))
    }
}

impl std::ops::Deref for Checkout {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection.as_ref().expect("only `release` takes it, and that consumes the checkout")
    }
}

impl Checkout {
    /// Waits for an answer, but not forever. After an error of this kind the connection is not to be used again.
    async fn in_time<T>(&self, answer: impl Future<Output = Result<T, DbError>>) -> Result<T, DbError> {
        match tokio::time::timeout(ANSWER_TIMEOUT, answer).await {
            Ok(answer) => answer,
            Err(_) => {
                self.is_lost.store(true, Ordering::Relaxed);
                Err(self.shared.does_not_answer())
            }
        }
    }

    /// Gives the connection back. One that is dropped instead is in an unknown state and closes.
    fn release(mut self) {
        if let Some(connection) = self.connection.take() {
            self.shared.idle.lock().push(connection);
        }
    }
}

pub(super) struct PostgresTx {
    /// `None` once committed.
    connection: Option<Checkout>,
    /// The BEGIN that has not been sent yet: it travels with the first statements.
    begin: Option<&'static str>,
    _permit: OwnedSemaphorePermit,
}

impl PostgresTx {
    pub(super) async fn run(&mut self, stmts: Vec<Stmt>) -> Result<Vec<Outcome>, DbError> {
        self.pipeline(stmts, Vec::new()).await
    }

    pub(super) async fn commit(self) -> Result<(), DbError> {
        self.run_and_commit(Vec::new()).await.map(|_| ())
    }

    pub(super) async fn run_and_commit(mut self, stmts: Vec<Stmt>) -> Result<Vec<Outcome>, DbError> {
        let outcomes = self.pipeline(stmts, vec![commit()]).await?;
        if let Some(connection) = self.connection.take() {
            connection.release();
        }
        Ok(outcomes)
    }

    pub(super) async fn run_commit_and_read(
        mut self,
        stmts: Vec<Stmt>,
        read: Stmt,
    ) -> Result<(Vec<Outcome>, Vec<Row>), DbError> {
        let mut outcomes = self.pipeline(stmts, vec![commit(), read]).await?;
        if let Some(connection) = self.connection.take() {
            connection.release();
        }
        let rows = outcomes.pop().map(|outcome| outcome.rows).unwrap_or_default();
        Ok((outcomes, rows))
    }

    /// Sends the BEGIN if it is still due, then `stmts`, then `end`; the outcomes are those of the last two.
    async fn pipeline(&mut self, stmts: Vec<Stmt>, end: Vec<Stmt>) -> Result<Vec<Outcome>, DbError> {
        let connection =
            self.connection.as_ref().ok_or_else(|| DbError::Unavailable("the transaction has ended".into()))?;
        let begin = self.begin.take().map(|sql| Stmt::new(sql, Vec::new()));
        let skip = usize::from(begin.is_some());
        let all: Vec<Stmt> = begin.into_iter().chain(stmts).chain(end).collect();
        let outcomes = connection.in_time(connection.run_all(&all)).await?;
        Ok(outcomes.into_iter().skip(skip).collect())
    }
}

fn commit() -> Stmt {
    Stmt::new("COMMIT", Vec::new())
}

impl Drop for PostgresTx {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        if self.begin.is_some() {
            connection.release();
            return;
        }
        if connection.is_lost.load(Ordering::Relaxed) {
            return;
        }
        // What is still in the pipeline is answered first; the connection is used again once the rollback is.
        tokio::spawn(async move {
            let rollback = connection.client.batch_execute("ROLLBACK");
            if tokio::time::timeout(ANSWER_TIMEOUT, rollback).await.is_ok_and(|answer| answer.is_ok()) {
                connection.release();
            }
        });
    }
}

impl ToSql for Value {
    fn to_sql(&self, kind: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match self {
            Self::Null | Self::Lane | Self::Seq => Ok(IsNull::Yes),
            Self::Bool(flag) => match *kind {
                Type::BOOL => flag.to_sql(kind, out),
                _ => integer(i64::from(*flag), kind, out),
            },
            Self::Int(number) => integer(*number, kind, out),
            Self::Text(text) => text.as_str().to_sql(kind, out),
            Self::SharedText(text) => text.as_ref().to_sql(kind, out),
            Self::Blob(bytes) => bytes.as_slice().to_sql(kind, out),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

fn integer(number: i64, kind: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
    match *kind {
        Type::INT2 => i16::try_from(number)?.to_sql(kind, out),
        Type::INT4 => i32::try_from(number)?.to_sql(kind, out),
        Type::INT8 => number.to_sql(kind, out),
        Type::BOOL => (number != 0).to_sql(kind, out),
        Type::TEXT => number.to_string().as_str().to_sql(kind, out),
        _ => Err(format!("an integer does not fit into {kind}").into()),
    }
}

fn read_row(row: &tokio_postgres::Row, sql: &'static str) -> Result<Row, DbError> {
    let failed = |error| classify(error, sql);
    let mut values = Vec::with_capacity(row.len());
    for (index, column) in row.columns().iter().enumerate() {
        let value = match *column.type_() {
            Type::INT8 => row.try_get::<_, Option<i64>>(index).map_err(failed)?.map(Value::Int),
            Type::INT4 => row.try_get::<_, Option<i32>>(index).map_err(failed)?.map(Value::from),
            Type::INT2 => row.try_get::<_, Option<i16>>(index).map_err(failed)?.map(|number| Value::Int(number.into())),
            Type::BOOL => row.try_get::<_, Option<bool>>(index).map_err(failed)?.map(Value::Bool),
            Type::BYTEA => row.try_get::<_, Option<Vec<u8>>>(index).map_err(failed)?.map(Value::Blob),
            Type::VOID => None,
            _ => row.try_get::<_, Option<String>>(index).map_err(failed)?.map(Value::Text),
        };
        values.push(value.unwrap_or(Value::Null));
    }
    Ok(Row(values))
}

fn unavailable(error: impl Into<Box<dyn Error + Send + Sync>>) -> DbError {
    DbError::Unavailable(error.into())
}

fn classify(error: tokio_postgres::Error, sql: &'static str) -> DbError {
    let Some(code) = error.code() else {
        return if error.is_closed() || error.source().is_some_and(|source| source.is::<std::io::Error>()) {
            DbError::Unavailable(error.into())
        } else {
            DbError::Statement { sql, source: error.into() }
        };
    };
    match code.code().get(..2) {
        Some("23") => DbError::Constraint(error.into()),
        Some("40") => DbError::Serialization(error.into()),
        Some("08" | "57") => DbError::Unavailable(error.into()),
        Some("25") if *code == SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT => DbError::Unavailable(error.into()),
        Some("53") if *code == SqlState::DISK_FULL => DbError::DiskFull(error.into()),
        Some("53") => DbError::Unavailable(error.into()),
        _ => DbError::Statement { sql, source: error.into() },
    }
}
