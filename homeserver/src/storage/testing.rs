//! Databases for tests: each test runs on both engines.

use std::path::Path;

use super::{Db, DbConfig};

/// A database of a test.
pub(crate) struct TestDb {
    pub(crate) config: DbConfig,
    pub(crate) db: Db,
}

/// Runs `test` on SQLite and then on PostgreSQL.
pub(crate) async fn on_both_engines<F>(test: impl Fn(TestDb) -> F)
where
    F: Future<Output = ()>,
{
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    test(sqlite_in(folder.path()).await).await;
    test(postgres().await).await;
}

/// A new SQLite file in a folder that the caller keeps.
pub(crate) async fn sqlite_in(folder: &Path) -> TestDb {
    let config = DbConfig::Sqlite { path: folder.join("test.db"), readers: 4 };
    let db = Db::open(&config).await.expect("a new SQLite file opens");
    TestDb { config, db }
}

/// A new database on the test run's own PostgreSQL.
pub(crate) async fn postgres() -> TestDb {
    let url = tokio::task::spawn_blocking(|| gatehouse_test_support::postgres::shared().create_database())
        .await
        .expect("PostgreSQL starts");
    let config = DbConfig::Postgres { url, connections: 8 };
    let db = Db::open(&config).await.expect("a new PostgreSQL database opens");
    TestDb { config, db }
}
