use super::*;
use crate::{
    params,
    storage::testing::{TestDb, on_both_engines},
};

async fn numbers(db: &Db) -> Vec<i64> {
    let rows = db.query("SELECT seq FROM follower_cursors ORDER BY seq", params![]).await.unwrap();
    rows.iter().map(|row| row.get(0).unwrap()).collect()
}

fn insert(number: i64) -> Stmt {
    Stmt::new("INSERT INTO follower_cursors (follower, lane, seq) VALUES ($1, $2, $2)", params!["test", number])
}

#[tokio::test]
async fn a_dropped_transaction_leaves_nothing() {
    on_both_engines(|TestDb { db, .. }| async move {
        let mut tx = db.begin().await.unwrap();
        tx.run(vec![insert(1), insert(2)]).await.unwrap();
        drop(tx);
        db.write(vec![insert(3)]).await.unwrap();
        assert_eq!(numbers(&db).await, [3]);
    })
    .await;
}

#[tokio::test]
async fn a_failed_statement_takes_its_whole_transaction_with_it() {
    on_both_engines(|TestDb { db, .. }| async move {
        let error = db.write(vec![insert(1), insert(1), insert(2)]).await.unwrap_err();
        assert!(matches!(error, DbError::Constraint(_)), "{error:?}");
        assert_eq!(numbers(&db).await, [0_i64; 0]);
        db.write(vec![insert(4)]).await.unwrap();
        assert_eq!(numbers(&db).await, [4]);
    })
    .await;
}

#[tokio::test]
async fn a_snapshot_sees_one_moment() {
    on_both_engines(|TestDb { db, .. }| async move {
        db.write(vec![insert(1)]).await.unwrap();
        let mut snapshot = db.snapshot().await.unwrap();
        let count = "SELECT COUNT(*) FROM follower_cursors";
        assert_eq!(snapshot.query_one(count, params![]).await.unwrap().get::<i64>(0).unwrap(), 1);
        db.write(vec![insert(2)]).await.unwrap();
        assert_eq!(snapshot.query_one(count, params![]).await.unwrap().get::<i64>(0).unwrap(), 1);
        drop(snapshot);
        assert_eq!(numbers(&db).await, [1, 2]);
    })
    .await;
}

#[tokio::test]
async fn values_come_back_as_they_went() {
    on_both_engines(|TestDb { db, .. }| async move {
        let text = "ünïcødé \u{1F980} ' \" \\u0000";
        db.execute(
            "INSERT INTO memberships (room_nid, user_nid, membership, event_nid, position, lane, seq, is_local, is_forgotten, stripped_state) \
             VALUES ($1, $2, $3, $4, $5, 0, 0, $6, FALSE, $7)",
            params![i64::MAX, -1_i64, text, 0_i64, None::<i64>, true, None::<String>],
        )
        .await
        .unwrap();
        let sql = "SELECT room_nid, user_nid, membership, position, is_local, is_forgotten, stripped_state FROM memberships";
        let row = db.query_one(sql, params![]).await.unwrap();
        assert_eq!(row.get::<i64>(0).unwrap(), i64::MAX);
        assert_eq!(row.get::<i64>(1).unwrap(), -1);
        assert_eq!(row.get::<String>(2).unwrap(), text);
        assert_eq!(row.get::<Option<i64>>(3).unwrap(), None);
        assert!(row.get::<bool>(4).unwrap() && !row.get::<bool>(5).unwrap());
        assert_eq!(row.get::<Option<String>>(6).unwrap(), None);
        assert!(row.get::<i64>(2).is_err() && row.get::<i64>(7).is_err());
    })
    .await;
}

#[tokio::test]
async fn lists_travel_as_one_parameter() {
    on_both_engines(|TestDb { db, .. }| async move {
        db.write((1..=5).map(insert).collect()).await.unwrap();
        let sql = "SELECT COUNT(*) FROM follower_cursors \
                   WHERE seq IN (SELECT CAST(value AS BIGINT) FROM json_each(CAST($1 AS TEXT)))";
        let row = db.query_one(sql, params![json_list([2_i64, 4, 9])]).await.unwrap();
        assert_eq!(row.get::<i64>(0).unwrap(), 2);
        let sql = "SELECT value FROM json_each(CAST($1 AS TEXT)) ORDER BY key";
        let rows = db.query(sql, params![json_list(["b", "a\"'"])]).await.unwrap();
        let texts: Vec<String> = rows.iter().map(|row| row.get(0).unwrap()).collect();
        assert_eq!(texts, ["b", "a\"'"]);
    })
    .await;
}

#[tokio::test]
async fn opening_again_changes_nothing() {
    on_both_engines(|TestDb { db, config, .. }| async move {
        db.write(vec![insert(1)]).await.unwrap();
        let again = Db::open(&config).await.unwrap();
        assert_eq!(numbers(&again).await, [1]);
    })
    .await;
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    on_both_engines(|TestDb { db, config, .. }| async move {
        db.execute("INSERT INTO schema_migrations (number, name) VALUES (9999, 'of tomorrow')", params![])
            .await
            .unwrap();
        assert!(matches!(Db::open(&config).await, Err(DbError::Newer { found: 9999, .. })));
    })
    .await;
}

#[tokio::test]
async fn holders_of_snapshots_can_read_beside_them_however_many_there_are() {
    on_both_engines(|TestDb { db, .. }| async move {
        let reads_beside = || async {
            let mut snapshot = db.snapshot().await.unwrap();
            snapshot.query("SELECT 1", params![]).await.unwrap();
            tokio::task::yield_now().await;
            db.query("SELECT 1", params![]).await.unwrap();
        };
        futures_util::future::join_all((0..50).map(|_| reads_beside())).await;
    })
    .await;
}
