//! The embedded engine: one writer thread and a pool of reader threads over one WAL file.

use std::{path::Path, sync::Arc};

use parking_lot::Mutex;
use rusqlite::{Connection, ErrorCode, OpenFlags, types::ValueRef};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::{DbError, Outcome, Row, Stmt, Value};

/// How long a connection waits for a lock that another process holds, such as `user create`.
const BUSY_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);
/// Statements that a connection keeps prepared.
const PREPARED: usize = 256;

#[derive(Clone)]
pub(super) struct Sqlite {
    writer: Pool,
    readers: Pool,
    /// Fewer than there are readers: who holds a snapshot may wait for a single read beside it, and single reads wait for
    /// nothing else, so that nobody waits in a circle.
    snapshots: Arc<Semaphore>,
}

impl Sqlite {
    pub(super) fn open(path: &Path, readers: usize) -> Result<Self, DbError> {
        // The writer comes first: it creates the file and switches it to WAL.
        let writer = Pool::open(path, 1, Role::Writer)?;
        let readers = readers.max(2);
        let snapshots = Arc::new(Semaphore::new(super::most_held(readers)));
        Ok(Self { writer, readers: Pool::open(path, readers, Role::Reader)?, snapshots })
    }

    pub(super) async fn read(&self, stmt: Stmt) -> Result<Vec<Row>, DbError> {
        let connection = self.readers.take().await?;
        connection.call(move |sqlite| run_one(sqlite, &stmt).map(|outcome| outcome.rows)).await?
    }

    pub(super) async fn begin(&self) -> Result<SqliteTx, DbError> {
        SqliteTx::begin(self.writer.take().await?, None, "BEGIN IMMEDIATE").await
    }

    pub(super) async fn snapshot(&self) -> Result<SqliteTx, DbError> {
        let permit = self.snapshots.clone().acquire_owned().await;
        let permit = permit.map_err(|error| DbError::Unavailable(error.into()))?;
        SqliteTx::begin(self.readers.take().await?, Some(permit), "BEGIN").await
    }

    pub(super) async fn script(&self, sql: String) -> Result<(), DbError> {
        let connection = self.writer.take().await?;
        connection.call(move |sqlite| sqlite.execute_batch(&sql).map_err(|error| classify(error, "script"))).await?
    }
}

pub(super) struct SqliteTx {
    /// `None` once committed.
    connection: Option<Checkout>,
    /// Of a snapshot, its place among those that may be held.
    _permit: Option<OwnedSemaphorePermit>,
}

impl SqliteTx {
    async fn begin(
        connection: Checkout,
        permit: Option<OwnedSemaphorePermit>,
        sql: &'static str,
    ) -> Result<Self, DbError> {
        // Owned before the statement runs, so that a caller who gives up meanwhile still rolls back.
        let tx = Self { connection: Some(connection), _permit: permit };
        tx.connection()?.call(move |sqlite| execute_plain(sqlite, sql)).await??;
        Ok(tx)
    }

    pub(super) async fn run(&mut self, stmts: Vec<Stmt>) -> Result<Vec<Outcome>, DbError> {
        self.connection()?.call(move |sqlite| stmts.iter().map(|stmt| run_one(sqlite, stmt)).collect()).await?
    }

    pub(super) async fn commit(self) -> Result<(), DbError> {
        self.run_and_commit(Vec::new()).await.map(|_| ())
    }

    pub(super) async fn run_and_commit(mut self, stmts: Vec<Stmt>) -> Result<Vec<Outcome>, DbError> {
        let outcomes = self
            .connection()?
            .call(move |sqlite| {
                let outcomes = stmts.iter().map(|stmt| run_one(sqlite, stmt)).collect::<Result<Vec<_>, _>>()?;
                execute_plain(sqlite, "COMMIT")?;
                Ok(outcomes)
            })
            .await??;
        self.connection = None;
        Ok(outcomes)
    }

    pub(super) async fn run_commit_and_read(
        mut self,
        stmts: Vec<Stmt>,
        read: Stmt,
    ) -> Result<(Vec<Outcome>, Vec<Row>), DbError> {
        let done = self
            .connection()?
            .call(move |sqlite| {
                let outcomes = stmts.iter().map(|stmt| run_one(sqlite, stmt)).collect::<Result<_, _>>()?;
                execute_plain(sqlite, "COMMIT")?;
                run_one(sqlite, &read).map(|outcome| (outcomes, outcome.rows))
            })
            .await??;
        self.connection = None;
        Ok(done)
    }

    fn connection(&self) -> Result<&Checkout, DbError> {
        self.connection.as_ref().ok_or_else(|| DbError::Unavailable("the transaction has ended".into()))
    }
}

impl Drop for SqliteTx {
    fn drop(&mut self) {
        if let Some(connection) = &self.connection {
            connection.send(|sqlite| {
                if !sqlite.is_autocommit()
                    && let Err(error) = sqlite.execute_batch("ROLLBACK")
                {
                    tracing::error!(%error, "a transaction could not be rolled back");
                }
            });
        }
    }
}

// --- connections, each on a thread of its own

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

#[derive(Clone)]
struct Pool {
    idle: Arc<Mutex<Vec<mpsc::UnboundedSender<Job>>>>,
    permits: Arc<Semaphore>,
}

impl Pool {
    fn open(path: &Path, size: usize, role: Role) -> Result<Self, DbError> {
        let mut idle = Vec::with_capacity(size);
        for number in 0..size {
            let mut connection = connect(path, role)?;
            let (jobs, mut queue) = mpsc::unbounded_channel::<Job>();
            std::thread::Builder::new()
                .name(format!("sqlite-{}-{number}", role.name()))
                .spawn(move || {
                    while let Some(job) = queue.blocking_recv() {
                        job(&mut connection);
                    }
                })
                .map_err(|error| DbError::Open { path: path.to_owned(), source: error.into() })?;
            idle.push(jobs);
        }
        Ok(Self { idle: Arc::new(Mutex::new(idle)), permits: Arc::new(Semaphore::new(size)) })
    }

    async fn take(&self) -> Result<Checkout, DbError> {
        let permit = self.permits.clone().acquire_owned().await.map_err(|error| DbError::Unavailable(error.into()))?;
        let jobs = self
            .idle
            .lock()
            .pop()
            .ok_or_else(|| DbError::Unavailable("a connection is missing from its pool".into()))?;
        Ok(Checkout { jobs, pool: self.clone(), _permit: permit })
    }
}

/// A connection that goes back to its pool when dropped. Jobs already sent to it still run first, in order.
struct Checkout {
    jobs: mpsc::UnboundedSender<Job>,
    pool: Pool,
    _permit: OwnedSemaphorePermit,
}

impl Checkout {
    async fn call<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Connection) -> T + Send + 'static,
    ) -> Result<T, DbError> {
        let (answer, answered) = oneshot::channel();
        self.send(move |sqlite| {
            // The caller may be gone; its work is done all the same.
            let _ = answer.send(job(sqlite));
        });
        answered.await.map_err(|error| DbError::Unavailable(error.into()))
    }

    fn send(&self, job: impl FnOnce(&mut Connection) + Send + 'static) {
        if self.jobs.send(Box::new(job)).is_err() {
            tracing::error!("a database thread has ended");
        }
    }
}

impl Drop for Checkout {
    fn drop(&mut self) {
        self.pool.idle.lock().push(self.jobs.clone());
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Role {
    Writer,
    Reader,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Writer => "writer",
            Self::Reader => "reader",
        }
    }
}

fn connect(path: &Path, role: Role) -> Result<Connection, DbError> {
    let open_error = |error: rusqlite::Error| DbError::Open { path: path.to_owned(), source: error.into() };
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    if role == Role::Writer {
        flags |= OpenFlags::SQLITE_OPEN_CREATE;
    }
    let connection = Connection::open_with_flags(path, flags).map_err(open_error)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(open_error)?;
    connection.set_prepared_statement_cache_capacity(PREPARED);
    let settings = match role {
        Role::Writer => {
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;
             PRAGMA temp_store = MEMORY; PRAGMA cache_size = -16384; PRAGMA wal_autocheckpoint = 2000;
             PRAGMA journal_size_limit = 67108864;"
        }
        Role::Reader => "PRAGMA query_only = ON; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -4096;",
    };
    connection.execute_batch(settings).map_err(open_error)?;
    Ok(connection)
}

// --- statements

fn run_one(sqlite: &Connection, stmt: &Stmt) -> Result<Outcome, DbError> {
    let failed = |error| classify(error, stmt.sql);
    let mut prepared = sqlite.prepare_cached(stmt.sql).map_err(failed)?;
    for (index, value) in stmt.params.iter().enumerate() {
        if let Some(place) = parameter_place(&prepared, index).map_err(failed)? {
            prepared.raw_bind_parameter(place, Bound(value)).map_err(failed)?;
        }
    }
    let columns = prepared.column_count();
    if columns == 0 {
        let affected = prepared.raw_execute().map_err(failed)?;
        return Ok(Outcome { affected: affected as u64, rows: Vec::new() });
    }
    let mut rows = Vec::new();
    let mut cursor = prepared.raw_query();
    while let Some(row) = cursor.next().map_err(failed)? {
        let mut values = Vec::with_capacity(columns);
        for index in 0..columns {
            values.push(match row.get_ref(index).map_err(failed)? {
                ValueRef::Null => Value::Null,
                ValueRef::Integer(number) => Value::Int(number),
                ValueRef::Real(number) => Value::Int(number as i64),
                ValueRef::Text(text) => Value::Text(String::from_utf8_lossy(text).into_owned()),
                ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
            });
        }
        rows.push(Row(values));
    }
    Ok(Outcome { affected: rows.len() as u64, rows })
}

/// Where SQLite wants parameter `$1`, `$2`…: to it these are names, which it numbers in the order of their appearance.
fn parameter_place(prepared: &rusqlite::Statement<'_>, index: usize) -> rusqlite::Result<Option<usize>> {
    const NAMES: [&str; 16] =
        ["$1", "$2", "$3", "$4", "$5", "$6", "$7", "$8", "$9", "$10", "$11", "$12", "$13", "$14", "$15", "$16"];
    match NAMES.get(index) {
        Some(name) => prepared.parameter_index(name),
        None => prepared.parameter_index(&format!("${}", index + 1)),
    }
}

fn execute_plain(sqlite: &Connection, sql: &'static str) -> Result<(), DbError> {
    sqlite.prepare_cached(sql).and_then(|mut prepared| prepared.execute([])).map_err(|error| classify(error, sql))?;
    Ok(())
}

struct Bound<'a>(&'a Value);

impl rusqlite::ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        use rusqlite::types::ToSqlOutput::Borrowed;
        Ok(Borrowed(match self.0 {
            Value::Null | Value::Lane | Value::Seq => ValueRef::Null,
            Value::Bool(flag) => ValueRef::Integer((*flag).into()),
            Value::Int(number) => ValueRef::Integer(*number),
            Value::Text(text) => ValueRef::Text(text.as_bytes()),
            Value::SharedText(text) => ValueRef::Text(text.as_bytes()),
            Value::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

fn classify(error: rusqlite::Error, sql: &'static str) -> DbError {
    /// The index of the WAL cannot grow, which SQLite calls a failure of the disk: what it lacks is room.
    const NO_ROOM_FOR_INDEX: i32 = rusqlite::ffi::SQLITE_IOERR_SHMSIZE;
    if error.sqlite_error().is_some_and(|error| error.extended_code == NO_ROOM_FOR_INDEX) {
        return DbError::DiskFull(error.into());
    }
    match error.sqlite_error_code() {
        Some(ErrorCode::ConstraintViolation) => DbError::Constraint(error.into()),
        Some(ErrorCode::DiskFull) => DbError::DiskFull(error.into()),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => DbError::Serialization(error.into()),
        Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen | ErrorCode::ReadOnly) => {
            DbError::Unavailable(error.into())
        }
        _ => DbError::Statement { sql, source: error.into() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params;

    #[tokio::test]
    async fn parameters_are_numbered_whatever_order_they_appear_in() {
        let folder = tempfile::tempdir().unwrap();
        let sqlite = Sqlite::open(&folder.path().join("order.db"), 1).unwrap();
        let rows = sqlite.read(Stmt::new("SELECT $2, $1, $2", params!["one", "two"])).await.unwrap();
        let values: Vec<String> = (0..3).map(|column| rows[0].get(column).unwrap()).collect();
        assert_eq!(values, ["two", "one", "two"]);
    }
}
