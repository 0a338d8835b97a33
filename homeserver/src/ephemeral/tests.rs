use std::{sync::Arc, time::Duration};

use gatehouse_shared::clock::SystemClock;
use ruma::{OwnedEventId, RoomId, UserId, presence::PresenceState, room_id, user_id};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Ephemeral, EphemeralParts, NewReceipt, PresenceError, ReceiptError, ReceiptKind, TypingError};
use crate::{
    params,
    storage::{
        Db, Stmt, UserNames, Value, account_data,
        nid::Nids,
        presence,
        receipts::{self, ReceiptRow},
        testing::{TestDb, on_both_engines},
        typing,
    },
    stream::{Lane, Stream, Write},
};

const ROOM: i64 = 1;

fn room() -> &'static RoomId {
    room_id!("!room:example.org")
}

fn alice() -> &'static UserId {
    user_id!("@alice:example.org")
}

fn bob() -> &'static UserId {
    user_id!("@bob:example.org")
}

fn carol() -> &'static UserId {
    user_id!("@carol:remote.example")
}

/// A shard without HTTP, with one room in which alice, bob and carol are.
struct World {
    ephemeral: Ephemeral,
    db: Db,
    names: UserNames,
    lane: Lane,
    stream: Stream,
    _stop: DropGuard,
}

impl World {
    async fn new(test: TestDb) -> Self {
        let db = test.db;
        let names = UserNames::new(db.clone(), Nids::new(db.clone()));
        let stream = Stream::open(db.clone()).await.unwrap();
        let stop = CancellationToken::new();
        let clock = Arc::new(SystemClock);
        let lane = stream.start(clock.clone(), stop.clone()).await.unwrap();
        let ephemeral =
            Ephemeral::new(EphemeralParts { db: db.clone(), names: names.clone(), lane: lane.clone(), clock });
        let world = Self { ephemeral, db, names, lane, stream, _stop: stop.drop_guard() };
        let sql = "INSERT INTO rooms (room_nid, room_id, room_version, version, oldest, lane, seq, extremities, \
                                      state_nid, is_resident) VALUES ($1, $2, '12', 0, 0, 1, 1, '[]', 0, TRUE)";
        world.db.execute(sql, params![ROOM, room().as_str()]).await.unwrap();
        for user_id in [alice(), bob(), carol()] {
            world.join(user_id).await;
        }
        world
    }

    async fn nid(&self, user_id: &UserId) -> i64 {
        self.names.nid(user_id).await.unwrap()
    }

    async fn join(&self, user_id: &UserId) {
        let sql = "INSERT INTO memberships \
                       (room_nid, user_nid, membership, event_nid, position, lane, seq, is_local, is_forgotten) \
                   VALUES ($1, $2, 'join', 0, 1, $3, $4, $5, FALSE)";
        let mut params = params![ROOM, self.nid(user_id).await];
        params.extend([Value::Lane, Value::Seq, Value::Bool(user_id.server_name() == "example.org")]);
        self.lane.commit(Write { statements: vec![Stmt::new(sql, params)], ..Write::default() }).await.unwrap();
    }

    /// An event at a position; `thread` is the root of its thread.
    async fn event(&self, position: i64, thread: Option<&str>) -> OwnedEventId {
        let event_id = OwnedEventId::try_from(format!("$event{position}")).unwrap();
        let sql = "INSERT INTO events (event_nid, room_nid, event_id, position, lane, seq, depth, event_type, sender, \
                                       origin_server_ts, standing, json) \
                   VALUES ($1, $2, $3, $1, 1, 1, 1, 'm.room.message', '', 0, 0, '{}')";
        self.db.execute(sql, params![position, ROOM, event_id.as_str()]).await.unwrap();
        if let Some(root) = thread {
            let sql = "INSERT INTO event_relations (event_nid, room_nid, relates_to, rel_type, position) \
                       VALUES ($1, $2, $3, 'm.thread', $1)";
            self.db.execute(sql, params![position, ROOM, root]).await.unwrap();
        }
        event_id
    }

    async fn receipts(&self, viewer: &UserId, since: &[i64]) -> Vec<ReceiptRow> {
        let upto = self.stream.positions().by_lane_number();
        let mut snapshot = self.db.snapshot().await.unwrap();
        receipts::receipts_since(&mut snapshot, &[ROOM], self.nid(viewer).await, since, &upto).await.unwrap()
    }

    async fn typing(&self, since: &[i64]) -> Vec<(i64, Vec<i64>)> {
        let upto = self.stream.positions().by_lane_number();
        let mut snapshot = self.db.snapshot().await.unwrap();
        let now_ms = gatehouse_shared::clock::Clock::now_ms(&SystemClock);
        typing::typing_since(&mut snapshot, &[ROOM], since, &upto, now_ms).await.unwrap()
    }

    fn now(&self) -> Vec<i64> {
        self.stream.positions().by_lane_number()
    }
}

fn receipt(kind: ReceiptKind, event_id: &OwnedEventId, thread_id: Option<&str>) -> NewReceipt {
    NewReceipt { kind, event_id: event_id.clone(), thread_id: thread_id.map(str::to_owned) }
}

#[tokio::test(flavor = "multi_thread")]
async fn typing_ends_by_itself_and_wakes_who_waits() {
    on_both_engines(|test| async move {
        let world = World::new(test).await;
        let (alice_nid, start) = (world.nid(alice()).await, world.now());
        let mut waiter = world.stream.waiter(world.nid(bob()).await);
        world.ephemeral.set_typing(alice_nid, room(), Some(Duration::from_millis(300))).await.unwrap();
        tokio::time::timeout(Duration::from_secs(5), waiter.woken()).await.unwrap();
        assert_eq!(world.typing(&start).await, [(ROOM, vec![alice_nid])]);
        let begun = world.now();
        // Saying so again moves the end and nothing that readers see.
        world.ephemeral.set_typing(alice_nid, room(), Some(Duration::from_millis(600))).await.unwrap();
        assert_eq!(world.now(), begun);
        let mut waiter = world.stream.waiter(world.nid(bob()).await);
        tokio::time::timeout(Duration::from_secs(10), waiter.woken()).await.unwrap();
        assert_eq!(world.typing(&begun).await, [(ROOM, vec![])]);
        assert_eq!(world.typing(&world.now()).await, []);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn typing_stops_when_told_and_only_members_type() {
    on_both_engines(|test| async move {
        let world = World::new(test).await;
        let alice_nid = world.nid(alice()).await;
        world.ephemeral.set_typing(alice_nid, room(), Some(Duration::from_secs(30))).await.unwrap();
        world.ephemeral.receive_typing(carol(), room(), true).await.unwrap();
        let both = world.now();
        assert_eq!(world.typing(&[]).await[0].1.len(), 2);
        world.ephemeral.set_typing(alice_nid, room(), None).await.unwrap();
        assert_eq!(world.typing(&both).await, [(ROOM, vec![world.nid(carol()).await])]);
        let ended = world.now();
        world.ephemeral.set_typing(alice_nid, room(), None).await.unwrap();
        assert_eq!(world.now(), ended, "who does not type cannot stop");
        let stranger = world.nid(user_id!("@dave:example.org")).await;
        let error = world.ephemeral.set_typing(stranger, room(), None).await.unwrap_err();
        assert!(matches!(error, TypingError::NotJoined));
        world.ephemeral.receive_typing(user_id!("@eve:remote.example"), room(), true).await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn typing_that_another_shard_left_behind_is_ended() {
    on_both_engines(|test| async move {
        let world = World::new(test).await;
        let row = typing::TypingRow { room_nid: ROOM, user_nid: world.nid(alice()).await, expires_ts: 5 };
        let write = Write { statements: vec![typing::start(row)], ..Write::default() };
        world.lane.commit(write).await.unwrap();
        let mut waiter = world.stream.waiter(world.nid(bob()).await);
        let stop = CancellationToken::new();
        tokio::spawn(world.ephemeral.clone().end_orphaned_typing(stop.clone()));
        tokio::time::timeout(Duration::from_secs(5), waiter.woken()).await.unwrap();
        stop.cancel();
        assert!(typing::list_unended(&world.db).await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_never_moves_back() {
    on_both_engines(|test| async move {
        let world = World::new(test).await;
        let nid = world.nid(alice()).await;
        let (first, second) = (world.event(1, None).await, world.event(2, None).await);
        let read = |event_id: &OwnedEventId| [receipt(ReceiptKind::Read, event_id, None)];
        world.ephemeral.set_receipts(nid, room(), &read(&second)).await.unwrap();
        let moved = world.now();
        for older in [&first, &second] {
            world.ephemeral.set_receipts(nid, room(), &read(older)).await.unwrap();
        }
        world.ephemeral.receive_receipt(alice(), room(), &[first], None, 0).await.unwrap();
        assert_eq!(world.now(), moved, "nothing is told that did not change");
        let seen = world.receipts(bob(), &[]).await;
        assert_eq!(seen.iter().map(|row| row.event_id.as_str()).collect::<Vec<_>>(), ["$event2"]);
        assert_eq!(receipts::read_upto(&world.db, ROOM, nid, "main").await.unwrap(), Some(2));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn private_receipts_and_markers_are_for_their_user_alone() {
    on_both_engines(|test| async move {
        let world = World::new(test).await;
        let nid = world.nid(alice()).await;
        let (first, second) = (world.event(1, None).await, world.event(2, None).await);
        let all = [
            receipt(ReceiptKind::FullyRead, &first, None),
            receipt(ReceiptKind::Read, &first, None),
            receipt(ReceiptKind::ReadPrivate, &second, None),
        ];
        world.ephemeral.set_receipts(nid, room(), &all).await.unwrap();
        let types = |rows: Vec<ReceiptRow>| rows.into_iter().map(|row| row.receipt_type).collect::<Vec<_>>();
        assert_eq!(types(world.receipts(bob(), &[]).await), ["m.read"]);
        assert_eq!(types(world.receipts(alice(), &[]).await), ["m.read", "m.read.private"]);
        assert_eq!(receipts::read_upto(&world.db, ROOM, nid, "main").await.unwrap(), Some(2));
        let marker = || account_data::find(&world.db, nid, room().as_str(), "m.fully_read");
        assert_eq!(marker().await.unwrap().as_deref(), Some(r#"{"event_id":"$event1"}"#));
        world.ephemeral.set_receipts(nid, room(), &[receipt(ReceiptKind::FullyRead, &second, None)]).await.unwrap();
        world.ephemeral.set_receipts(nid, room(), &[receipt(ReceiptKind::FullyRead, &first, None)]).await.unwrap();
        assert_eq!(marker().await.unwrap().as_deref(), Some(r#"{"event_id":"$event2"}"#));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_threaded_receipt_must_fit_its_thread() {
    on_both_engines(|test| async move {
        let world = World::new(test).await;
        let nid = world.nid(alice()).await;
        let root = world.event(1, None).await;
        let reply = world.event(2, Some(root.as_str())).await;
        let set = async |kind, event_id: &OwnedEventId, thread: &str| {
            world.ephemeral.set_receipts(nid, room(), &[receipt(kind, event_id, Some(thread))]).await
        };
        set(ReceiptKind::Read, &reply, root.as_str()).await.unwrap();
        set(ReceiptKind::Read, &root, "main").await.unwrap();
        set(ReceiptKind::ReadPrivate, &root, root.as_str()).await.unwrap();
        assert!(matches!(set(ReceiptKind::Read, &reply, "main").await, Err(ReceiptError::OtherThread)));
        assert!(matches!(set(ReceiptKind::Read, &reply, "$other").await, Err(ReceiptError::OtherThread)));
        assert!(matches!(set(ReceiptKind::Read, &reply, "").await, Err(ReceiptError::ThreadId)));
        assert!(matches!(set(ReceiptKind::Read, &reply, "nonsense").await, Err(ReceiptError::ThreadId)));
        assert!(matches!(set(ReceiptKind::FullyRead, &root, "main").await, Err(ReceiptError::ThreadedMarker)));
        for unknown in ["$unknown", "$\0", &format!("${}", "x".repeat(300))] {
            let unknown = OwnedEventId::try_from(unknown).unwrap();
            assert!(matches!(set(ReceiptKind::Read, &unknown, "main").await, Err(ReceiptError::NoSuchEvent)));
            world.ephemeral.receive_receipt(carol(), room(), &[root.clone(), unknown], None, 1).await.unwrap();
        }
        assert_eq!(world.receipts(bob(), &[]).await.len(), 3);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remote_receipt_for_an_event_that_has_not_come_gives_way_to_one_that_has() {
    on_both_engines(|test| async move {
        let world = World::new(test).await;
        let unknown = OwnedEventId::try_from("$unknown").unwrap();
        world.ephemeral.receive_receipt(carol(), room(), std::slice::from_ref(&unknown), None, 1_000).await.unwrap();
        let known = world.event(7, None).await;
        world.ephemeral.receive_receipt(carol(), room(), &[unknown, known], None, 2_000).await.unwrap();
        let seen = world.receipts(bob(), &[]).await;
        assert_eq!((seen.len(), seen[0].event_id.as_str(), seen[0].position), (1, "$event7", Some(7)));
        let stranger = user_id!("@eve:remote.example");
        world.ephemeral.receive_receipt(stranger, room(), &[world.event(8, None).await], None, 1).await.unwrap();
        assert_eq!(world.receipts(bob(), &[]).await.len(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn presence_is_shown_to_who_shares_a_room() {
    on_both_engines(|test| async move {
        let world = World::new(test).await;
        let (alice_nid, bob_nid, start) = (world.nid(alice()).await, world.nid(bob()).await, world.now());
        let shown = world.ephemeral.presence_of(bob_nid, alice()).await.unwrap();
        assert_eq!((shown.presence, shown.currently_active), (PresenceState::Offline, false));
        world.ephemeral.set_presence(alice_nid, &PresenceState::Online, Some("here")).await.unwrap();
        world.ephemeral.receive_presence(carol(), &PresenceState::Unavailable, None, Duration::MAX).await.unwrap();
        let shown = world.ephemeral.presence_of(bob_nid, alice()).await.unwrap();
        assert_eq!((shown.presence, shown.status_msg.as_deref()), (PresenceState::Online, Some("here")));
        assert!(shown.currently_active);
        let mut snapshot = world.db.snapshot().await.unwrap();
        let upto = world.now();
        assert_eq!(presence::presence_since(&mut snapshot, bob_nid, &start, &upto).await.unwrap().len(), 2);
        let stranger = world.nid(user_id!("@dave:example.org")).await;
        assert!(presence::presence_since(&mut snapshot, stranger, &start, &upto).await.unwrap().is_empty());
        drop(snapshot);
        let hidden = world.ephemeral.presence_of(stranger, alice()).await;
        assert!(matches!(hidden, Err(PresenceError::NotShared)));
        let long = "x".repeat(3000);
        let refused = world.ephemeral.set_presence(alice_nid, &PresenceState::Online, Some(&long)).await;
        assert!(matches!(refused, Err(PresenceError::StatusTooLong)));
        let refused = world.ephemeral.set_presence(alice_nid, &PresenceState::from("busy"), None).await;
        assert!(matches!(refused, Err(PresenceError::State)));
    })
    .await;
}
