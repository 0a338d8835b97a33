use std::collections::{BTreeMap, BTreeSet};

use ruma::{UserId, events::AnyToDeviceEventContent, to_device::DeviceIdOrAllDevices};
use serde_json::{Value as JsonValue, json};

use super::{World, alice, bob, carol, raw};
use crate::{
    e2ee::{OwnDevice, SendToDeviceError, ToDeviceMessages},
    storage::{
        testing::{on_both_engines, sqlite_in},
        to_device::{self, Delivered},
    },
};

type Messages = ToDeviceMessages<AnyToDeviceEventContent>;

fn message(user_id: &UserId, device_id: &str, number: usize) -> Messages {
    let device = DeviceIdOrAllDevices::try_from(device_id).unwrap();
    let devices = BTreeMap::from([(device, raw(json!({ "number": number })))]);
    Messages::from([(user_id.to_owned(), devices)])
}

async fn send(world: &World, sender: OwnDevice<'_>, txn_id: &str, messages: &Messages) {
    world.e2ee.send_to_device(sender, "m.test", txn_id, messages).await.unwrap();
}

/// What a sync gives to a device that continues from `delivered`, and from where it continues then.
async fn sync(
    world: &World,
    nid: i64,
    device_id: &str,
    delivered: &Delivered,
    limit: usize,
) -> (Vec<usize>, Delivered) {
    let upto = world.now().by_lane_number();
    let mut snapshot = world.db.snapshot().await.unwrap();
    let page = to_device::to_device_since(&mut snapshot, nid, device_id, delivered, &upto, limit).await.unwrap();
    drop(snapshot);
    if page.has_acknowledged {
        to_device::acknowledge(&world.db, nid, device_id, delivered).await.unwrap();
    }
    let number = |event: &String| {
        let event: JsonValue = serde_json::from_str(event).unwrap();
        assert_eq!((event["type"].as_str(), event["sender"].as_str()), (Some("m.test"), Some(alice().as_str())));
        usize::try_from(event["content"]["number"].as_u64().unwrap()).unwrap()
    };
    (page.events.iter().map(number).collect(), Delivered { since: upto, watermark: page.watermark })
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_come_until_they_are_acknowledged_and_never_after() {
    on_both_engines(|test| async move {
        let world = World::new(test).await;
        let phone = world.device(alice(), "PHONE").await;
        let desk = world.device(bob(), "DESK").await;
        let nid = desk.user_nid;
        send(&world, phone, "1", &message(bob(), "DESK", 1)).await;
        send(&world, phone, "1", &message(bob(), "DESK", 1)).await;
        send(&world, phone, "2", &message(bob(), "DESK", 2)).await;
        let start = Delivered::default();
        let (first, after_first) = sync(&world, nid, "DESK", &start, 10).await;
        assert_eq!(first, [1, 2], "a repeated transaction sends nothing");
        send(&world, phone, "3", &message(bob(), "DESK", 3)).await;
        assert_eq!(sync(&world, nid, "DESK", &start, 10).await.0, [1, 2, 3], "the first answer may have been lost");
        let (second, _) = sync(&world, nid, "DESK", &after_first, 10).await;
        assert_eq!(second, [3]);
        assert_eq!(sync(&world, nid, "DESK", &start, 10).await.0, [3], "what was acknowledged is gone");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wildcard_reaches_the_devices_that_are_there_and_unknown_devices_get_nothing() {
    on_both_engines(|test| async move {
        let world = World::new(test).await;
        let phone = world.device(alice(), "PHONE").await;
        let desk = world.device(bob(), "DESK").await;
        world.device(bob(), "TABLET").await;
        send(&world, phone, "1", &message(bob(), "*", 7)).await;
        send(&world, phone, "2", &message(bob(), "NONE", 8)).await;
        world.device(bob(), "NONE").await;
        for (device, expected) in [("DESK", vec![7]), ("TABLET", vec![7]), ("NONE", vec![])] {
            assert_eq!(sync(&world, desk.user_nid, device, &Delivered::default(), 10).await.0, expected, "{device}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_for_other_servers_wait_in_the_outbox_of_their_server() {
    on_both_engines(|test| async move {
        let world = World::new(test).await;
        let phone = world.device(alice(), "PHONE").await;
        send(&world, phone, "1", &message(carol(), "*", 1)).await;
        send(&world, phone, "1", &message(carol(), "*", 1)).await;
        assert_eq!(to_device::list_destinations(&world.db).await.unwrap(), ["remote.example"]);
        let waiting = to_device::list_outgoing(&world.db, "remote.example", 10).await.unwrap();
        assert_eq!(waiting.len(), 1);
        let edu: JsonValue = serde_json::from_str(&waiting[0].content).unwrap();
        assert_eq!(edu["messages"], json!({ (carol().as_str()): { "*": { "number": 1 } } }));
        assert_eq!((&edu["sender"], &edu["type"]), (&json!(alice()), &json!("m.test")));
        world.db.write(vec![to_device::delete_outgoing("remote.example", &[waiting[0].edu_nid])]).await.unwrap();
        assert!(to_device::list_destinations(&world.db).await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_message_of_another_server_is_taken_once() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::new(sqlite_in(folder.path()).await).await;
    let desk = world.device(bob(), "DESK").await;
    for _ in 0..2 {
        world.e2ee.receive_to_device(carol(), "m.test", "id", &message(bob(), "DESK", 1)).await.unwrap();
    }
    let mut snapshot = world.db.snapshot().await.unwrap();
    let upto = world.now().by_lane_number();
    let start = Delivered::default();
    let page = to_device::to_device_since(&mut snapshot, desk.user_nid, "DESK", &start, &upto, 10).await.unwrap();
    assert_eq!(page.events.len(), 1);
}

#[tokio::test]
async fn what_is_too_large_or_cannot_be_kept_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::new(sqlite_in(folder.path()).await).await;
    let phone = world.device(alice(), "PHONE").await;
    let device = DeviceIdOrAllDevices::AllDevices;
    let large = raw(json!({ "text": "x".repeat(65_536) }));
    let large = Messages::from([(alice().to_owned(), BTreeMap::from([(device, large)]))]);
    let error = world.e2ee.send_to_device(phone, "m.test", "1", &large).await.unwrap_err();
    assert!(matches!(error, SendToDeviceError::TooLarge));
    let small = message(alice(), "PHONE", 1);
    for (event_type, txn_id) in [("m.\0", "1"), ("m.test", "\0"), ("m.test", "x".repeat(300).as_str())] {
        let error = world.e2ee.send_to_device(phone, event_type, txn_id, &small).await.unwrap_err();
        assert!(matches!(error, SendToDeviceError::Name));
    }
    let error = world.e2ee.send_to_device(phone, "m.test", "2", &message(alice(), "A\0", 1)).await.unwrap_err();
    assert!(matches!(error, SendToDeviceError::Name));
}

/// Two senders on two shards, a reader that takes few messages at a time and loses some of its answers: every message
/// comes at least once, and none after its acknowledgement.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whatever_is_lost_each_message_comes_until_acknowledged() {
    const MESSAGES: usize = 60;
    on_both_engines(|test| async move {
        let world = World::new(test).await;
        let other = if world.db.is_shared() { Some(world.another().await) } else { None };
        let (phone, tablet) = (world.device(alice(), "PHONE").await, world.device(alice(), "TABLET").await);
        let desk = world.device(bob(), "DESK").await;
        let send_all = |e2ee: crate::e2ee::E2ee, sender: OwnDevice<'static>, first: usize| {
            tokio::spawn(async move {
                for number in first..first + MESSAGES {
                    let messages = message(bob(), "DESK", number);
                    e2ee.send_to_device(sender, "m.test", &number.to_string(), &messages).await.unwrap();
                }
            })
        };
        let senders = [
            send_all(world.e2ee.clone(), phone, 0),
            send_all(other.as_ref().unwrap_or(&world).e2ee.clone(), tablet, MESSAGES),
        ];
        let mut dice = 7_u64;
        let mut roll = move |sides: u64| {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (dice >> 33) % sides
        };
        let (mut confirmed, mut seen, mut acknowledged) = (Delivered::default(), BTreeSet::new(), BTreeSet::new());
        let mut unconfirmed: BTreeSet<usize> = BTreeSet::new();
        let mut quiet = 0;
        while quiet < 3 {
            if senders.iter().all(tokio::task::JoinHandle::is_finished) {
                quiet += 1;
            }
            world.stream.refresh().await.unwrap();
            acknowledged.append(&mut unconfirmed);
            let limit = usize::try_from(roll(4)).unwrap() + 1;
            let (events, next) = sync(&world, desk.user_nid, "DESK", &confirmed, limit).await;
            for number in &events {
                assert!(!acknowledged.contains(number), "message {number} came after its acknowledgement");
                seen.insert(*number);
                quiet = 0;
            }
            // One answer in three never arrives.
            if roll(3) > 0 {
                confirmed = next;
                unconfirmed.extend(events);
            }
        }
        for sender in senders {
            sender.await.unwrap();
        }
        assert_eq!(seen.len(), 2 * MESSAGES);
    })
    .await;
}
