//! The one thin layer that knows which engine runs: SQLite (embedded) or PostgreSQL.
//!
//! [`Db`] reads and begins, [`Tx`] is a transaction that leaves nothing when dropped, [`Snapshot`] is a set of reads
//! that see one moment. Both engines take the same SQL text.

mod inserts;
mod lock;
mod migrate;
mod postgres;
mod sqlite;
#[cfg(test)]
mod tests;
mod value;

use std::path::PathBuf;

use tracing::Instrument as _;

pub use lock::DbLock;
pub use value::{FromValue, Row, Stmt, Value, json_list};

/// Which database, and how much of it.
#[derive(Clone, Debug)]
pub enum DbConfig {
    /// A SQLite file, and the number of connections that read it.
    Sqlite { path: PathBuf, readers: usize },
    /// A PostgreSQL URL or key-value string, and the number of connections this shard may hold.
    Postgres { url: String, connections: usize },
}

/// What can go wrong between us and the database.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// The database cannot be reached, is shutting down or gave up on us; trying again later can work.
    #[error("the database is not available")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A unique or foreign key refused the row.
    #[error("a constraint refused the row")]
    Constraint(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Nothing more can be written; reads still work.
    #[error("the disk is full")]
    DiskFull(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Two transactions were in each other's way; the operation may be repeated as a whole.
    #[error("the transaction lost against another one")]
    Serialization(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The statement itself failed: a bug of ours.
    #[error("the statement failed: {sql}")]
    Statement { sql: &'static str, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("column {index} is not there or is no {wanted}")]
    Column { index: usize, wanted: &'static str },
    #[error("the query answered no row")]
    NoRow,
    #[error("another process holds {}: only one shard may run on a SQLite file; stop it, or use PostgreSQL for several shards", path.display())]
    Locked { path: PathBuf },
    #[error("cannot open {}", path.display())]
    Open { path: PathBuf, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("migration {name} failed")]
    Migration { name: &'static str, source: Box<DbError> },
    #[error(
        "the database was written by a newer Gatehouse (schema {found}, this one knows {known}); start that version"
    )]
    Newer { found: i64, known: i64 },
    /// What was stored cannot be understood: a bug of ours or a damaged database.
    #[error("stored data cannot be read: {0}")]
    Corrupt(String),
}

impl DbError {
    /// Whether the same call can succeed later without anybody mending anything in the code.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::DiskFull(_) | Self::Serialization(_))
    }
}

/// A database, cheap to clone.
#[derive(Clone)]
pub struct Db {
    engine: Engine,
}

#[derive(Clone)]
enum Engine {
    Sqlite(sqlite::Sqlite),
    Postgres(postgres::Postgres),
}

impl Db {
    /// Opens the database and brings its schema up to date.
    ///
    /// # Errors
    /// [`DbError::Open`], [`DbError::Unavailable`], [`DbError::Migration`] or [`DbError::Newer`].
    pub async fn open(config: &DbConfig) -> Result<Self, DbError> {
        let engine = match config {
            DbConfig::Sqlite { path, readers } => Engine::Sqlite(sqlite::Sqlite::open(path, *readers)?),
            DbConfig::Postgres { url, connections } => {
                Engine::Postgres(postgres::Postgres::open(url, *connections).await?)
            }
        };
        let db = Self { engine };
        migrate::run(&db).await?;
        Ok(db)
    }

    /// Whether this is the engine that several shards can share.
    pub fn is_shared(&self) -> bool {
        matches!(self.engine, Engine::Postgres(_))
    }

    /// Runs one reading statement and returns its rows.
    pub async fn query(&self, sql: &'static str, params: Vec<Value>) -> Result<Vec<Row>, DbError> {
        let stmt = Stmt::new(sql, params);
        let span = tracing::debug_span!("sql", db.statement = sql);
        match &self.engine {
            Engine::Sqlite(sqlite) => sqlite.read(stmt).instrument(span).await,
            Engine::Postgres(postgres) => postgres.read(stmt).instrument(span).await,
        }
    }

    /// The only row, or the first one, or none.
    pub async fn query_opt(&self, sql: &'static str, params: Vec<Value>) -> Result<Option<Row>, DbError> {
        Ok(self.query(sql, params).await?.into_iter().next())
    }

    /// The row that must be there.
    pub async fn query_one(&self, sql: &'static str, params: Vec<Value>) -> Result<Row, DbError> {
        self.query_opt(sql, params).await?.ok_or(DbError::NoRow)
    }

    /// Begins a writing transaction. SQLite has one writer, so there this waits for its turn.
    pub async fn begin(&self) -> Result<Tx, DbError> {
        let engine = match &self.engine {
            Engine::Sqlite(sqlite) => TxEngine::Sqlite(sqlite.begin().await?),
            Engine::Postgres(postgres) => TxEngine::Postgres(postgres.begin("BEGIN").await?),
        };
        Ok(Tx { engine })
    }

    /// Runs statements in one transaction of their own and returns each one's rows; durable when this returns.
    pub async fn write(&self, stmts: Vec<Stmt>) -> Result<Vec<Outcome>, DbError> {
        let mut tx = self.begin().await?;
        let outcomes = tx.run(stmts).await?;
        tx.commit().await?;
        Ok(outcomes)
    }

    /// Runs one writing statement in a transaction of its own; the number of rows it touched.
    pub async fn execute(&self, sql: &'static str, params: Vec<Value>) -> Result<u64, DbError> {
        let outcomes = self.write(vec![Stmt::new(sql, params)]).await?;
        Ok(outcomes.first().map_or(0, |outcome| outcome.affected))
    }

    /// Begins a set of reads that all see the same moment.
    pub async fn snapshot(&self) -> Result<Snapshot, DbError> {
        let engine = match &self.engine {
            Engine::Sqlite(sqlite) => TxEngine::Sqlite(sqlite.snapshot().await?),
            Engine::Postgres(postgres) => {
                TxEngine::Postgres(postgres.begin("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?)
            }
        };
        Ok(Snapshot { tx: Tx { engine } })
    }

    /// Waits for the next wake-up from another shard; never returns on SQLite, which has one shard.
    pub async fn wait_for_wake_up(&self) {
        match &self.engine {
            Engine::Sqlite(_) => std::future::pending().await,
            Engine::Postgres(postgres) => postgres.wait_for_wake_up().await,
        }
    }

    /// What this shard's notifications on the channel `gatehouse_lane` carry, so that it is not woken by them itself; `None`
    /// where there is one shard.
    pub fn wake_up_tag(&self) -> Option<&str> {
        match &self.engine {
            Engine::Sqlite(_) => None,
            Engine::Postgres(postgres) => Some(postgres.wake_up_tag()),
        }
    }

    /// Waits for the turn to change the schema.
    async fn schema_turn(&self) -> Result<SchemaTurn<'_>, DbError> {
        Ok(match &self.engine {
            Engine::Sqlite(sqlite) => SchemaTurn::Sqlite(sqlite),
            Engine::Postgres(postgres) => SchemaTurn::Postgres(Box::new(postgres.schema_turn().await?)),
        })
    }
}

/// The right to change the schema. A SQLite file lets one writer in at a time by itself.
enum SchemaTurn<'a> {
    Sqlite(&'a sqlite::Sqlite),
    Postgres(Box<postgres::SchemaTurn>),
}

impl SchemaTurn<'_> {
    async fn run(&self, sql: &str) -> Result<(), DbError> {
        match self {
            Self::Sqlite(sqlite) => sqlite.script(sql.to_owned()).await,
            Self::Postgres(turn) => turn.script(sql).await,
        }
    }
}

/// What one statement of a transaction did.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Rows inserted, changed or deleted; for a query the rows it answered.
    pub affected: u64,
    pub rows: Vec<Row>,
}

/// A transaction. Dropped without [`Tx::commit`] it leaves nothing.
pub struct Tx {
    engine: TxEngine,
}

/// How many of a pool's connections may be held for longer than one statement.
fn most_held(connections: usize) -> usize {
    connections.saturating_sub(connections.div_ceil(4)).max(1)
}

#[expect(clippy::large_enum_variant, reason = "lives for one transaction on the stack; a box would cost more")]
enum TxEngine {
    Sqlite(sqlite::SqliteTx),
    Postgres(postgres::PostgresTx),
}

impl Tx {
    pub async fn query(&mut self, sql: &'static str, params: Vec<Value>) -> Result<Vec<Row>, DbError> {
        let outcomes = self.run(vec![Stmt::new(sql, params)]).await?;
        Ok(outcomes.into_iter().next().map(|outcome| outcome.rows).unwrap_or_default())
    }

    pub async fn query_opt(&mut self, sql: &'static str, params: Vec<Value>) -> Result<Option<Row>, DbError> {
        Ok(self.query(sql, params).await?.into_iter().next())
    }

    pub async fn query_one(&mut self, sql: &'static str, params: Vec<Value>) -> Result<Row, DbError> {
        self.query_opt(sql, params).await?.ok_or(DbError::NoRow)
    }

    /// Runs one statement; the number of rows it touched.
    pub async fn execute(&mut self, sql: &'static str, params: Vec<Value>) -> Result<u64, DbError> {
        let outcomes = self.run(vec![Stmt::new(sql, params)]).await?;
        Ok(outcomes.first().map_or(0, |outcome| outcome.affected))
    }

    /// Runs statements in order in as few round trips as the engine allows. The first failure is the answer.
    pub async fn run(&mut self, stmts: Vec<Stmt>) -> Result<Vec<Outcome>, DbError> {
        let span = statements_span(&stmts);
        match &mut self.engine {
            TxEngine::Sqlite(tx) => tx.run(stmts).instrument(span).await,
            TxEngine::Postgres(tx) => tx.run(stmts).instrument(span).await,
        }
    }

    /// Makes everything durable.
    pub async fn commit(self) -> Result<(), DbError> {
        match self.engine {
            TxEngine::Sqlite(tx) => tx.commit().await,
            TxEngine::Postgres(tx) => tx.commit().await,
        }
    }

    /// Runs the last statements, commits, and then reads once more, after the commit and outside of it. One round trip
    /// where the engine can. The outcomes of the statements, and the rows that were read.
    pub async fn run_commit_and_read(self, stmts: Vec<Stmt>, read: Stmt) -> Result<(Vec<Outcome>, Vec<Row>), DbError> {
        let span = statements_span(&stmts);
        match self.engine {
            TxEngine::Sqlite(tx) => tx.run_commit_and_read(stmts, read).instrument(span).await,
            TxEngine::Postgres(tx) => tx.run_commit_and_read(stmts, read).instrument(span).await,
        }
    }

    /// Runs the last statements and commits, in one round trip where the engine can.
    pub async fn run_and_commit(self, stmts: Vec<Stmt>) -> Result<Vec<Outcome>, DbError> {
        let span = statements_span(&stmts);
        match self.engine {
            TxEngine::Sqlite(tx) => tx.run_and_commit(stmts).instrument(span).await,
            TxEngine::Postgres(tx) => tx.run_and_commit(stmts).instrument(span).await,
        }
    }
}

/// One span for a round trip; the texts of its statements hold no values.
fn statements_span(stmts: &[Stmt]) -> tracing::Span {
    let first = stmts.first().map_or("COMMIT", |stmt| stmt.sql);
    tracing::debug_span!("sql", db.statement = first, db.statements = stmts.len())
}

/// Reads that all see the same moment.
pub struct Snapshot {
    tx: Tx,
}

impl Snapshot {
    pub async fn query(&mut self, sql: &'static str, params: Vec<Value>) -> Result<Vec<Row>, DbError> {
        self.tx.query(sql, params).await
    }

    pub async fn query_opt(&mut self, sql: &'static str, params: Vec<Value>) -> Result<Option<Row>, DbError> {
        self.tx.query_opt(sql, params).await
    }

    pub async fn query_one(&mut self, sql: &'static str, params: Vec<Value>) -> Result<Row, DbError> {
        self.tx.query_one(sql, params).await
    }

    /// Several reads in one round trip; each one's rows in order.
    pub async fn query_all(&mut self, stmts: Vec<Stmt>) -> Result<Vec<Vec<Row>>, DbError> {
        Ok(self.tx.run(stmts).await?.into_iter().map(|outcome| outcome.rows).collect())
    }
}
