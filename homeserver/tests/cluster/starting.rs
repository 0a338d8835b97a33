//! Shards that start together on an empty database.

use std::time::Duration;

use gatehouse_test_support::client::Server;
use gatehouse_test_support::edge::{Database, Deployment, Options, REGISTRATION_SECRET};
use gatehouse_test_support::postgres;

/// One of them makes the schema; the others wait, and nobody complains.
#[tokio::test]
async fn shards_that_start_together_make_one_schema_without_a_warning() {
    const SHARDS: u16 = 4;
    let database = Database::Postgres(postgres::shared().create_database());
    let deployment = Deployment::start(&Options { shards: SHARDS, database, ..Options::default() });
    let server = Server::new(&deployment.base_url(), &deployment.ca());
    server.register("alice", REGISTRATION_SECRET).await;
    let lanes = |log: &str| log.matches("holding a lane").count();
    let all_started = async {
        while lanes(&deployment.log()) < usize::from(SHARDS) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), all_started).await.expect("all shards start");
    let log = deployment.log();
    let made = log.matches("the database schema moved on").count();
    let migrations = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations")).unwrap().count();
    assert_eq!(made, migrations, "each migration runs once:\n{log}");
    assert!(!log.contains("WARN") && !log.contains("ERROR") && !log.contains("NOTICE"), "{log}");
}
