//! Databases for tests: each test runs on both engines.

use std::path::Path;

use super::{Db, DbConfig};

/// A database of a test, and what keeps it there.
pub(crate) struct TestDb {
    pub(crate) config: DbConfig,
    pub(crate) db: Db,
    _folder: Option<tempfile::TempDir>,
}

/// Runs `test` on SQLite and then on PostgreSQL.
pub(crate) async fn on_both_engines<F>(test: impl Fn(TestDb) -> F)
where
    F: Future<Output = ()>,
{
    test(sqlite().await).await;
    test(postgres().await).await;
}

pub(crate) async fn sqlite() -> TestDb {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let config = sqlite_in(folder.path());
    let db = Db::open(&config).await.expect("a new SQLite file opens");
    TestDb { config, db, _folder: Some(folder) }
}

pub(crate) async fn postgres() -> TestDb {
    let url = tokio::task::spawn_blocking(|| gatehouse_test_support::postgres::shared().create_database())
        .await
        .expect("PostgreSQL starts");
    let config = DbConfig::Postgres { url, connections: 8 };
    let db = Db::open(&config).await.expect("a new PostgreSQL database opens");
    TestDb { config, db, _folder: None }
}

fn sqlite_in(folder: &Path) -> DbConfig {
    DbConfig::Sqlite { path: folder.join("test.db"), readers: 2 }
}
