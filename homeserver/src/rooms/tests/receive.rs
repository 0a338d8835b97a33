//! What another server's events do to a room.

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, OwnedEventId, OwnedRoomId, RoomId,
    api::client::room::create_room::v3::RoomPreset,
};
use serde_json::json;

use super::{
    ALICE, BOB, Draft, Shard, TestDb,
    afar::{Branch, CAROL, DAVE},
    membership, message, new_room, object, on_both_engines, shard, timeline, user,
};
use crate::{
    params,
    rooms::{AppendError, ReceiveError, Received, RoomState},
    rules::{pdu::Pdu, room_version::RoomVersion},
    storage::{Db, events::Standing, rooms, testing},
};

/// A public room of ours with Alice in power, and Carol and Dave of another server as moderators.
async fn shared_room(shard: &Shard, version: RoomVersion) -> (OwnedRoomId, Branch) {
    let mut new = new_room(version, RoomPreset::PublicChat);
    let users = if version >= RoomVersion::V12 { json!({}) } else { json!({ ALICE: 100 }) };
    let mut levels = json!({ "users": users });
    levels["users"][CAROL] = json!(50);
    levels["users"][DAVE] = json!(50);
    new.power_levels = object(levels);
    let room_id = shard.rooms.create(&new).await.unwrap();
    let mut branch = Branch::of(shard, &room_id).await;
    for member in [CAROL, DAVE] {
        let join = branch.membership(member, member, "join");
        assert_eq!(shard.rooms.receive(&join, None).await.unwrap(), Received::Accepted, "{version}");
    }
    (room_id, branch)
}

async fn receive(shard: &Shard, pdu: &Pdu) -> Received {
    shard.rooms.receive(pdu, None).await.unwrap()
}

async fn standing(shard: &Shard, pdu: &Pdu) -> Standing {
    shard.rooms.find_event(pdu.event_id()).await.unwrap().unwrap().standing
}

async fn is_stored(shard: &Shard, pdu: &Pdu) -> bool {
    shard.rooms.find_event(pdu.event_id()).await.unwrap().is_some()
}

async fn topic(shard: &Shard, room_id: &RoomId) -> Option<String> {
    let content: Option<serde_json::Value> = shard.rooms.state_content(room_id, "m.room.topic", "").await.unwrap();
    content.and_then(|content| content["topic"].as_str().map(ToOwned::to_owned))
}

/// What memory and the tables say of a room is the same: the state snapshot, the current state, the memberships, the
/// counts, the extremities.
pub(super) async fn assert_consistent(db: &Db, shard: &Shard, room_id: &RoomId) {
    let current = shard.rooms.find(room_id).await.unwrap().unwrap();
    let row = rooms::find(db, room_id).await.unwrap().unwrap();
    assert_eq!((current.position, current.is_resident), (row.version, row.is_resident));
    assert_eq!(current.state.state_nid, row.state_nid);
    let sorted = |state: &RoomState| {
        let mut entries: Vec<(String, String, i64)> =
            state.iter().map(|(kind, key, entry)| (kind.to_owned(), key.to_owned(), entry.event_nid)).collect();
        entries.sort();
        entries
    };
    let stored = sorted(&RoomState::load(db, row.state_nid).await.unwrap());
    assert_eq!(sorted(&current.state), stored);
    let rows = db
        .query("SELECT event_type, state_key, event_nid FROM current_state WHERE room_nid = $1", params![row.room_nid])
        .await
        .unwrap();
    let mut table: Vec<(String, String, i64)> =
        rows.iter().map(|row| (row.get(0).unwrap(), row.get(1).unwrap(), row.get(2).unwrap())).collect();
    table.sort();
    assert_eq!(table, stored);
    let sql = "SELECT COUNT(*) FROM memberships WHERE room_nid = $1 AND membership = 'join' AND is_local = $2";
    for (is_local, counted) in [(true, row.members.local), (false, row.members.remote)] {
        let joined: i64 = db.query_one(sql, params![row.room_nid, is_local]).await.unwrap().get(0).unwrap();
        assert_eq!(joined, counted, "joined, local: {is_local}");
    }
    let mut known: Vec<OwnedEventId> = shard.rooms.extremities(room_id).await.unwrap();
    let mut stored: Vec<OwnedEventId> = row.extremities.into_iter().map(|extremity| extremity.event_id).collect();
    known.sort();
    stored.sort();
    assert_eq!(known, stored);
}

#[tokio::test]
async fn messages_go_both_ways_in_rooms_of_every_version() {
    on_both_engines(|TestDb { db, .. }| async move {
        let shard = shard(&db).await;
        for version in RoomVersion::ALL {
            let (room_id, mut branch) = shared_room(&shard, version).await;
            for round in 0..3 {
                assert_eq!(receive(&shard, &branch.message(CAROL, &format!("in {round}"))).await, Received::Accepted);
                let event_id =
                    shard.rooms.append(&room_id, message(&user(ALICE), &format!("out {round}"))).await.unwrap();
                let ours = shard.rooms.find_event(&event_id).await.unwrap().unwrap().pdu;
                assert_eq!(ours.prev_events(), branch.heads, "{version}");
                if version.event_id_is_in_event() {
                    let hash = branch.events[&branch.heads[0]].reference_hash();
                    assert!(ours.json().contains(&hash), "{}", ours.json());
                }
                branch.add(&ours);
            }
            let bodies: Vec<String> = timeline(&db, &room_id).await.into_iter().map(|event| event.2).collect();
            assert_eq!(bodies[bodies.len() - 6..], ["in 0", "out 0", "in 1", "out 1", "in 2", "out 2"]);
            assert_consistent(&db, &shard, &room_id).await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_event_that_comes_twice_is_one() {
    on_both_engines(|TestDb { db, .. }| async move {
        let shard = shard(&db).await;
        let (room_id, mut branch) = shared_room(&shard, RoomVersion::V12).await;
        let before = timeline(&db, &room_id).await.len();
        let pdu = branch.message(CAROL, "once");
        let answers = futures_util::future::join_all((0..4).map(|_| shard.rooms.receive(&pdu, None))).await;
        let mut answers: Vec<Received> = answers.into_iter().map(Result::unwrap).collect();
        answers.retain(|answer| *answer != Received::Known);
        assert_eq!(answers, [Received::Accepted]);
        assert_eq!(timeline(&db, &room_id).await.len(), before + 1);
    })
    .await;
}

#[tokio::test]
async fn a_fork_of_messages_is_closed_by_the_next_event() {
    on_both_engines(|TestDb { db, .. }| async move {
        let shard = shard(&db).await;
        let (room_id, branch) = shared_room(&shard, RoomVersion::V11).await;
        let (mut one, mut other) = (branch.clone(), branch);
        for pdu in [one.message(CAROL, "one"), other.message(DAVE, "other")] {
            assert_eq!(receive(&shard, &pdu).await, Received::Accepted);
        }
        assert_eq!(shard.rooms.extremities(&room_id).await.unwrap().len(), 2);
        let event_id = shard.rooms.append(&room_id, message(&user(ALICE), "both")).await.unwrap();
        let pdu = shard.rooms.find_event(&event_id).await.unwrap().unwrap().pdu;
        assert_eq!(pdu.prev_events().len(), 2);
        assert_eq!(shard.rooms.extremities(&room_id).await.unwrap(), [event_id]);
        assert_consistent(&db, &shard, &room_id).await;
    })
    .await;
}

#[tokio::test]
async fn a_fork_of_state_is_the_same_whatever_came_first() {
    on_both_engines(|TestDb { db, .. }| async move {
        let here = shard(&db).await;
        let folder = tempfile::tempdir().unwrap();
        let there_db = testing::sqlite_in(folder.path()).await.db;
        let there = shard(&there_db).await;
        for version in RoomVersion::ALL {
            let mut branch = Branch::new(version);
            let joined = branch.join_of(BOB);
            for shard in [&here, &there] {
                shard.rooms.join_remotely(&joined).await.unwrap();
            }
            let levels = |level: i64| {
                let users = if version >= RoomVersion::V12 {
                    json!({ DAVE: 100, BOB: level })
                } else {
                    json!({ CAROL: 100, DAVE: 100, BOB: level })
                };
                json!({ "users": users, "users_default": level })
            };
            let (mut one, mut other) = (branch.clone(), branch);
            let one = [
                one.send(CAROL, "m.room.power_levels", Some(""), levels(10)),
                one.topic(CAROL, "one"),
                one.send(CAROL, "m.room.name", Some(""), json!({ "name": "one" })),
            ];
            let other = [
                other.send(DAVE, "m.room.power_levels", Some(""), levels(20)),
                other.topic(DAVE, "other"),
                other.membership(DAVE, "@eve:afar.test", "invite"),
            ];
            for (shard, events) in [(&here, one.iter().chain(&other)), (&there, other.iter().chain(&one))] {
                for pdu in events {
                    let received = receive(shard, pdu).await;
                    assert!(matches!(received, Received::Accepted), "{version}: {pdu:?} {received:?}");
                }
            }
            let room_id = &joined.room_id;
            let ids = |state: &RoomState| {
                let mut ids: Vec<OwnedEventId> = state.iter().map(|(_, _, entry)| entry.event_id.clone()).collect();
                ids.sort();
                ids
            };
            let (ours, theirs) =
                (here.rooms.find(room_id).await.unwrap().unwrap(), there.rooms.find(room_id).await.unwrap().unwrap());
            assert_eq!(ids(&ours.state), ids(&theirs.state), "{version}");
            for (db, shard) in [(&db, &here), (&there_db, &there)] {
                assert_consistent(db, shard, room_id).await;
                shard.rooms.append(room_id, message(&user(BOB), "closed")).await.unwrap();
                assert_eq!(shard.rooms.extremities(room_id).await.unwrap().len(), 1);
                assert_consistent(db, shard, room_id).await;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_demotion_wins_over_what_its_object_did_meanwhile() {
    on_both_engines(|TestDb { db, .. }| async move {
        let shard = shard(&db).await;
        let (room_id, mut branch) = shared_room(&shard, RoomVersion::V11).await;
        let levels = object(json!({ "users": { ALICE: 100, DAVE: 50 } }));
        let alice = user(ALICE);
        shard.rooms.append(&room_id, Draft::state(&alice, "m.room.power_levels", "", levels)).await.unwrap();
        // Carol's server has not heard of it.
        let late = branch.topic(CAROL, "mine");
        assert!(matches!(receive(&shard, &late).await, Received::SoftFailed(_)));
        assert_eq!(topic(&shard, &room_id).await.as_deref(), Some("Topic"));
        assert_eq!(shard.rooms.extremities(&room_id).await.unwrap().len(), 1);
        assert_consistent(&db, &shard, &room_id).await;
    })
    .await;
}

#[tokio::test]
async fn what_a_banned_user_sends_on_an_old_branch_is_stored_and_shown_to_nobody() {
    on_both_engines(|TestDb { db, .. }| async move {
        let shard = shard(&db).await;
        let (room_id, mut branch) = shared_room(&shard, RoomVersion::V12).await;
        let alice = user(ALICE);
        let ban = Draft::state(&alice, "m.room.member", CAROL, object(json!({ "membership": "ban" })));
        let ban = shard.rooms.append(&room_id, ban).await.unwrap();
        let late = branch.message(CAROL, "but");
        assert!(matches!(receive(&shard, &late).await, Received::SoftFailed(_)));
        assert_eq!(standing(&shard, &late).await, Standing::SoftFailed);
        assert_eq!(shard.rooms.extremities(&room_id).await.unwrap(), std::slice::from_ref(&ban));
        // What others say after it counts.
        assert_eq!(receive(&shard, &branch.message(DAVE, "well")).await, Received::Accepted);
        assert_eq!(shard.rooms.membership(&room_id, CAROL.try_into().unwrap()).await.unwrap().as_deref(), Some("ban"));
        assert_consistent(&db, &shard, &room_id).await;
    })
    .await;
}

#[tokio::test]
async fn a_rejected_event_changes_nothing_and_may_be_followed() {
    on_both_engines(|TestDb { db, .. }| async move {
        let shard = shard(&db).await;
        let (room_id, mut branch) = shared_room(&shard, RoomVersion::V12).await;
        let rejected = branch.send(CAROL, "m.room.power_levels", Some(""), json!({ "users": { CAROL: 100 } }));
        assert!(matches!(receive(&shard, &rejected).await, Received::Rejected(_)));
        assert_eq!(standing(&shard, &rejected).await, Standing::Rejected);
        // Its server names it among the auth events of what comes next, which is therefore rejected as well.
        assert!(matches!(receive(&shard, &branch.clone().message(CAROL, "after")).await, Received::Rejected(_)));
        let mut honest = Branch::of(&shard, &room_id).await;
        honest.heads = vec![rejected.event_id().to_owned()];
        assert_eq!(receive(&shard, &honest.message(DAVE, "onwards")).await, Received::Accepted);
        assert_consistent(&db, &shard, &room_id).await;
    })
    .await;
}

#[tokio::test]
async fn what_rests_on_unknown_events_waits_and_what_cannot_be_is_refused() {
    on_both_engines(|TestDb { db, .. }| async move {
        let shard = shard(&db).await;
        let (room_id, branch) = shared_room(&shard, RoomVersion::V12).await;
        let before = timeline(&db, &room_id).await.len();
        let mut gap = branch.clone();
        let lost = gap.message(CAROL, "lost");
        let after = gap.message(CAROL, "after");
        let missing = shard.rooms.receive(&after, None).await;
        assert!(matches!(&missing, Err(ReceiveError::MissingPrev(id)) if id == lost.event_id()), "{missing:?}");
        assert!(!is_stored(&shard, &after).await);

        let mut unknown_auth = branch.clone();
        let rename = unknown_auth.membership(CAROL, CAROL, "join");
        unknown_auth.heads = branch.heads.clone();
        let missing = shard.rooms.receive(&unknown_auth.message(CAROL, "who"), None).await;
        assert!(matches!(&missing, Err(ReceiveError::MissingPrev(id)) if id == rename.event_id()), "{missing:?}");

        let mut rootless = branch.clone();
        rootless.heads.clear();
        let refused = shard.rooms.receive(&rootless.message(CAROL, "from nowhere"), None).await;
        assert!(matches!(refused, Err(ReceiveError::Refused(_))), "{refused:?}");

        let (_, elsewhere) = shared_room(&shard, RoomVersion::V12).await;
        let mut crossed = branch.clone();
        crossed.heads = elsewhere.heads.clone();
        let refused = shard.rooms.receive(&crossed.message(CAROL, "from elsewhere"), None).await;
        assert!(matches!(refused, Err(ReceiveError::Refused(_))), "{refused:?}");
        let refused = shard.rooms.receive(&after, Some(&elsewhere.state_ids())).await;
        assert!(matches!(refused, Err(ReceiveError::Refused(_))), "{refused:?}");

        assert_eq!(timeline(&db, &room_id).await.len(), before);
        assert_consistent(&db, &shard, &room_id).await;
    })
    .await;
}

#[tokio::test]
async fn beyond_a_gap_an_event_comes_with_its_state_and_the_gap_can_close_later() {
    on_both_engines(|TestDb { db, .. }| async move {
        let shard = shard(&db).await;
        let (room_id, mut branch) = shared_room(&shard, RoomVersion::V12).await;
        let lost = branch.message(CAROL, "lost");
        let state = branch.state_ids();
        let after = branch.message(CAROL, "after");
        assert_eq!(shard.rooms.receive(&after, Some(&state)).await.unwrap(), Received::Accepted);
        let gaps = "SELECT event_id FROM backward_extremities";
        let named: Vec<String> =
            db.query(gaps, params![]).await.unwrap().iter().map(|row| row.get(0).unwrap()).collect();
        assert_eq!(named, [lost.event_id().as_str()]);
        assert_eq!(receive(&shard, &lost).await, Received::Accepted);
        assert!(db.query(gaps, params![]).await.unwrap().is_empty());
        // What follows it was there already, so it is none of the newest.
        assert_eq!(shard.rooms.extremities(&room_id).await.unwrap(), [after.event_id().to_owned()]);
        assert_consistent(&db, &shard, &room_id).await;
    })
    .await;
}

#[tokio::test]
async fn a_redaction_may_come_before_what_it_redacts() {
    on_both_engines(|TestDb { db, .. }| async move {
        let shard = shard(&db).await;
        for version in [RoomVersion::V1, RoomVersion::V10, RoomVersion::V12] {
            let (room_id, mut branch) = shared_room(&shard, version).await;
            let mut fork = branch.clone();
            let secret = fork.message(DAVE, "secret");
            let redaction = branch.make_redaction(CAROL, secret.event_id());
            branch.add(&redaction);
            assert_eq!(receive(&shard, &redaction).await, Received::Accepted, "{version}");
            assert_eq!(receive(&shard, &secret).await, Received::Accepted);
            let stored = shard.rooms.find_event(secret.event_id()).await.unwrap().unwrap();
            assert!(!stored.pdu.json().contains("secret"), "{version}: {}", stored.pdu.json());
            assert_eq!(stored.redacted_by.as_deref(), Some(redaction.event_id()));
            assert_consistent(&db, &shard, &room_id).await;
        }
    })
    .await;
}

#[tokio::test]
async fn nobody_redacts_for_another_server_without_power() {
    on_both_engines(|TestDb { db, .. }| async move {
        let shard = shard(&db).await;
        let (room_id, mut branch) = shared_room(&shard, RoomVersion::V11).await;
        let frank = "@frank:afar.test";
        assert_eq!(receive(&shard, &branch.membership(frank, frank, "join")).await, Received::Accepted);
        let ours = shard.rooms.append(&room_id, message(&user(ALICE), "ours")).await.unwrap();
        let redaction = branch.make_redaction(frank, &ours);
        branch.add(&redaction);
        assert_eq!(receive(&shard, &redaction).await, Received::Accepted);
        let stored = shard.rooms.find_event(&ours).await.unwrap().unwrap();
        assert!(stored.pdu.json().contains("ours"));
        assert_eq!(stored.redacted_by, None);
    })
    .await;
}

#[tokio::test]
async fn a_room_is_taken_over_on_joining_left_alone_and_taken_over_again() {
    on_both_engines(|TestDb { db, .. }| async move {
        let shard = shard(&db).await;
        let bob = user(BOB);
        let mut branch = Branch::new(RoomVersion::V11);
        branch.topic(CAROL, "first");
        let joined = branch.join_of(BOB);
        shard.rooms.join_remotely(&joined).await.unwrap();
        // A repeated answer changes nothing.
        shard.rooms.join_remotely(&joined).await.unwrap();
        let room_id = &joined.room_id;
        assert_eq!(topic(&shard, room_id).await.as_deref(), Some("first"));
        assert_eq!(receive(&shard, &branch.message(CAROL, "hello")).await, Received::Accepted);
        let ours = shard.rooms.append(room_id, message(&bob, "hello too")).await.unwrap();
        branch.add(&shard.rooms.find_event(&ours).await.unwrap().unwrap().pdu);
        assert_consistent(&db, &shard, room_id).await;

        let left = shard.rooms.append(room_id, membership(&bob, "leave")).await.unwrap();
        branch.add(&shard.rooms.find_event(&left).await.unwrap().unwrap().pdu);
        assert!(!shard.rooms.find(room_id).await.unwrap().unwrap().is_resident);
        let refused = shard.rooms.append(room_id, message(&bob, "?")).await;
        assert!(matches!(refused, Err(AppendError::Forbidden(_))), "{refused:?}");
        let refused = shard.rooms.receive(&branch.topic(CAROL, "second"), None).await;
        assert!(matches!(refused, Err(ReceiveError::UnknownRoom)), "{refused:?}");

        shard.rooms.join_remotely(&branch.join_of(BOB)).await.unwrap();
        let current = shard.rooms.find(room_id).await.unwrap().unwrap();
        assert!(current.is_resident);
        assert_eq!(topic(&shard, room_id).await.as_deref(), Some("second"));
        assert_eq!(shard.rooms.extremities(room_id).await.unwrap().len(), 1);
        shard.rooms.append(room_id, message(&bob, "back")).await.unwrap();
        assert_consistent(&db, &shard, room_id).await;
    })
    .await;
}

#[tokio::test]
async fn an_answer_to_a_join_that_does_not_allow_the_join_is_refused() {
    on_both_engines(|TestDb { db, .. }| async move {
        let shard = shard(&db).await;
        let mut branch = Branch::new(RoomVersion::V11);
        branch.membership(CAROL, BOB, "ban");
        let refused = shard.rooms.join_remotely(&branch.join_of(BOB)).await;
        assert!(matches!(refused, Err(ReceiveError::Refused(_))), "{refused:?}");
        // The events of other rooms are not taken in.
        let mut branch = Branch::new(RoomVersion::V12);
        let mut joined = branch.join_of(BOB);
        let elsewhere = Branch::new(RoomVersion::V11).message(CAROL, "elsewhere");
        joined.auth_chain.push(elsewhere.clone());
        shard.rooms.join_remotely(&joined).await.unwrap();
        assert!(!is_stored(&shard, &elsewhere).await);
    })
    .await;
}

#[tokio::test]
async fn an_outlier_becomes_an_event_when_it_comes_by_itself() {
    on_both_engines(|TestDb { db, .. }| async move {
        let shard = shard(&db).await;
        let (room_id, mut branch) = shared_room(&shard, RoomVersion::V12).await;
        let topic_event = branch.topic(CAROL, "from afar");
        shard.rooms.store_outliers(&room_id, RoomVersion::V12, std::slice::from_ref(&topic_event)).await.unwrap();
        assert_eq!(topic(&shard, &room_id).await.as_deref(), Some("Topic"));
        assert_eq!(receive(&shard, &topic_event).await, Received::Accepted);
        assert_eq!(topic(&shard, &room_id).await.as_deref(), Some("from afar"));
        // An outlier whose auth events nobody knows is not stored: it could only be judged wrongly.
        let mut unknown = branch.clone();
        unknown.membership(CAROL, CAROL, "join");
        let message = unknown.message(CAROL, "?");
        shard.rooms.store_outliers(&room_id, RoomVersion::V12, std::slice::from_ref(&message)).await.unwrap();
        assert!(!is_stored(&shard, &message).await);
        assert_consistent(&db, &shard, &room_id).await;
    })
    .await;
}

#[tokio::test]
async fn one_change_in_a_room_of_ten_thousand_writes_one_block() {
    let folder = tempfile::tempdir().unwrap();
    let db = testing::sqlite_in(folder.path()).await.db;
    let shard = shard(&db).await;
    let mut branch = Branch::new(RoomVersion::V11);
    let template = member_template(&branch);
    for number in 0..10_000 {
        branch.add(&unsigned_member(&template, &format!("@member{number}:afar.test")));
    }
    let joined = branch.join_of(BOB);
    shard.rooms.join_remotely(&joined).await.unwrap();
    let room_id = &joined.room_id;
    let count = async |table: &'static str| -> i64 { db.query_one(table, params![]).await.unwrap().get(0).unwrap() };
    let (blocks, snapshots) = ("SELECT COUNT(*) FROM state_blocks", "SELECT COUNT(*) FROM state_snapshots");
    let before = (count(blocks).await, count(snapshots).await);
    shard.rooms.append(room_id, message(&user(BOB), "hello")).await.unwrap();
    assert_eq!((count(blocks).await, count(snapshots).await), before, "a message writes no state");
    let bob = user(BOB);
    let rename =
        Draft::state(&bob, "m.room.member", BOB, object(json!({ "membership": "join", "displayname": "Bob" })));
    shard.rooms.append(room_id, rename).await.unwrap();
    assert_eq!((count(blocks).await, count(snapshots).await), (before.0 + 1, before.1 + 1));
    assert_eq!(receive(&shard, &branch.membership(DAVE, DAVE, "leave")).await, Received::Accepted);
    let after = (count(blocks).await, count(snapshots).await);
    assert!(after.0 <= before.0 + 4, "a fork writes what differs: {before:?} {after:?}");
    let row = rooms::find(&db, room_id).await.unwrap().unwrap();
    assert_eq!((row.members.local, row.members.remote), (1, 10_001));
    assert_consistent(&db, &shard, room_id).await;
}

/// What a join needs that nobody signs, which is enough for ten thousand of them.
fn member_template(branch: &Branch) -> CanonicalJsonObject {
    let mut event = branch.make(DAVE, "m.room.member", Some(DAVE), json!({ "membership": "join" })).to_object();
    let auth_events = branch
        .events
        .values()
        .filter(|pdu| ["m.room.create", "m.room.power_levels", "m.room.join_rules"].contains(&pdu.event_type()))
        .map(|pdu| pdu.event_id().as_str().into())
        .collect();
    event.insert("auth_events".to_owned(), CanonicalJsonValue::Array(auth_events));
    event
}

fn unsigned_member(template: &CanonicalJsonObject, member: &str) -> Pdu {
    let mut event = template.clone();
    for field in ["sender", "state_key"] {
        event.insert(field.to_owned(), member.into());
    }
    Pdu::from_json(RoomVersion::V11, event).unwrap()
}
