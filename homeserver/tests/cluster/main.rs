//! Shards are killed and databases go away while clients send: nothing that was acknowledged may be lost, and nothing may
//! come twice.

mod database_away;
mod disk_full;
mod load;
mod starting;
mod traces;

use gatehouse_test_support::edge::{Database, Deployment, Options};
use gatehouse_test_support::postgres;

use crate::load::{Blow, Load};

#[tokio::test]
async fn every_acknowledged_message_reaches_every_member_once_and_in_order_while_shards_are_killed() {
    let database = Database::Postgres(postgres::shared().create_database());
    let deployment = Deployment::start(&Options { shards: 2, database, ..Options::default() });
    let load = Load {
        clients: 20,
        rooms: 20,
        members: 5,
        messages: 5_000,
        blows: vec![Blow::kill(1_500, 1), Blow::kill(3_500, 2)],
    };
    load.run(&deployment).await.check_order_and_completeness().await;
}

#[tokio::test]
async fn every_acknowledged_event_is_there_after_a_shard_on_sqlite_was_killed() {
    let mut deployment = Deployment::start(&Options::default());
    let load =
        Load { clients: 8, rooms: 8, members: 4, messages: 1_000, blows: vec![Blow::kill(300, 1), Blow::kill(700, 1)] };
    let outcome = load.run(&deployment).await;
    outcome.check_order_and_completeness().await;
    deployment.kill_shard(1).await;
    deployment.restart();
    outcome.check_order_and_completeness().await;
}
