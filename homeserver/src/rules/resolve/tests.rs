use ruma::events::StateEventType;
use serde_json::{Value, json};

use super::*;
use crate::rules::testing::{ALICE, BOB, CAROL, CREATOR, Room};

/// A public room with a moderator and two users, all of different servers but one.
fn room(version: RoomVersion) -> Room {
    let mut room = Room::public(version);
    for member in [ALICE, BOB, CAROL] {
        room.join(member);
    }
    let mut users = json!({ ALICE: 50, BOB: 50 });
    if version < RoomVersion::V12 {
        users[CREATOR] = json!(100);
    }
    room.send(CREATOR, "m.room.power_levels", Some(""), json!({ "users": users }));
    room
}

fn all_events(rooms: &[&Room]) -> HashMap<OwnedEventId, Pdu> {
    rooms.iter().flat_map(|room| room.events.clone()).collect()
}

fn resolved(rooms: &[&Room]) -> StateMap {
    let states: Vec<StateMap> = rooms.iter().map(|room| room.state.clone()).collect();
    resolve(rooms[0].version, &states, &all_events(rooms)).expect("everything is given")
}

fn at<'a>(state: &'a StateMap, kind: &str, key: &str) -> Option<&'a EventId> {
    state.get(&(StateEventType::from(kind), key.to_owned())).map(|id| &**id)
}

#[test]
fn states_that_agree_need_nothing() {
    for version in RoomVersion::ALL {
        let room = room(version);
        let none = HashMap::new();
        let state = resolve(version, &[room.state.clone(), room.state.clone()], &none).expect("they agree");
        assert_eq!(state, room.state);
        assert!(resolve(version, &[], &none).expect("nothing").is_empty());
        assert_eq!(resolve(version, std::slice::from_ref(&room.state), &none).expect("one"), room.state);
    }
}

#[test]
fn what_only_one_fork_has_is_kept() {
    for version in RoomVersion::ALL {
        let (mut left, right) = (room(version), room(version));
        let topic = left.send(ALICE, "m.room.topic", Some(""), json!({ "topic": "x" }));
        let state = resolved(&[&left, &right]);
        assert_eq!(at(&state, "m.room.topic", ""), Some(topic.event_id()), "{version}");
        assert_eq!(state.len(), left.state.len());
    }
}

#[test]
fn a_ban_beats_what_the_banned_did_meanwhile() {
    for version in RoomVersion::ALL.into_iter().skip(1) {
        let (mut left, mut right) = (room(version), room(version));
        let ban = left.send(CREATOR, "m.room.member", Some(BOB), json!({ "membership": "ban" }));
        right.now += 10;
        right.send(BOB, "m.room.topic", Some(""), json!({ "topic": "mine" }));
        right.send(BOB, "m.room.member", Some(BOB), json!({ "membership": "join", "displayname": "still here" }));
        let state = resolved(&[&left, &right]);
        assert_eq!(at(&state, "m.room.member", BOB), Some(ban.event_id()), "{version}");
        assert_eq!(at(&state, "m.room.topic", ""), None, "{version}");
    }
}

#[test]
fn a_demotion_beats_what_the_demoted_did_with_their_power() {
    for version in RoomVersion::ALL.into_iter().skip(1) {
        let (mut left, mut right) = (room(version), room(version));
        let mut users = json!({ ALICE: 50 });
        if version < RoomVersion::V12 {
            users[CREATOR] = json!(100);
        }
        let demotion = left.send(CREATOR, "m.room.power_levels", Some(""), json!({ "users": users }));
        right.now += 10;
        right.send(BOB, "m.room.member", Some(CAROL), json!({ "membership": "ban" }));
        let state = resolved(&[&left, &right]);
        assert_eq!(at(&state, "m.room.power_levels", ""), Some(demotion.event_id()), "{version}");
        assert_eq!(at(&state, "m.room.member", CAROL), at(&left.state, "m.room.member", CAROL), "{version}");
    }
}

#[test]
fn of_two_topics_the_later_stands() {
    for version in RoomVersion::ALL.into_iter().skip(1) {
        let (mut left, mut right) = (room(version), room(version));
        left.send(ALICE, "m.room.topic", Some(""), json!({ "topic": "one" }));
        right.now += 10;
        let later = right.send(ALICE, "m.room.topic", Some(""), json!({ "topic": "two" }));
        for rooms in [[&left, &right], [&right, &left]] {
            assert_eq!(at(&resolved(&rooms), "m.room.topic", ""), Some(later.event_id()), "{version}");
        }
    }
}

#[test]
fn what_is_missing_is_named() {
    for version in RoomVersion::ALL {
        let (mut left, right) = (room(version), room(version));
        left.send(ALICE, "m.room.topic", Some(""), json!({ "topic": "x" }));
        let states = [left.state.clone(), right.state.clone()];
        let mut events = HashMap::new();
        assert!(matches!(resolve(version, &states, &events), Err(ResolveError::Missing(_))));
        let everything = all_events(&[&left, &right]);
        let mut rounds = 0;
        loop {
            let missing = missing_events(version, &states, &events);
            if missing.is_empty() {
                break;
            }
            for event_id in missing {
                let event = everything.get(&event_id).expect("only events of the room are asked for").clone();
                assert!(events.insert(event_id, event).is_none(), "asked for once");
            }
            rounds += 1;
        }
        assert!((1..5).contains(&rounds), "{rounds}");
        resolve(version, &states, &events).expect("nothing is missing");
    }
}

/// A small generator, so that the forks are the same in every run.
struct Chance(u64);

impl Chance {
    fn pick<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        of[usize::try_from(self.0 >> 33).unwrap_or(0) % of.len()]
    }

    /// Someone does something, if they may.
    fn act(&mut self, room: &mut Room) {
        let everyone = [CREATOR, ALICE, BOB, CAROL];
        let sender = self.pick(&everyone);
        let target = self.pick(&everyone);
        let levels = |alice: i64, bob: i64| {
            let mut users = json!({ ALICE: alice, BOB: bob });
            if room.version < RoomVersion::V12 {
                users[CREATOR] = json!(100);
            }
            json!({ "users": users })
        };
        let (kind, key, content): (&str, &str, Value) = match self.pick(&["t", "n", "j", "p", "q", "l", "k", "b", "r"])
        {
            "t" => ("m.room.topic", "", json!({ "topic": sender })),
            "n" => ("m.room.name", "", json!({ "name": target })),
            "j" => ("m.room.join_rules", "", json!({ "join_rule": self.pick(&["public", "invite"]) })),
            "p" => ("m.room.power_levels", "", levels(0, 50)),
            "q" => ("m.room.power_levels", "", levels(50, 0)),
            "l" => ("m.room.member", sender, json!({ "membership": "leave" })),
            "k" => ("m.room.member", target, json!({ "membership": "leave" })),
            "b" => ("m.room.member", target, json!({ "membership": "ban" })),
            _ => ("m.room.member", sender, json!({ "membership": "join", "displayname": target })),
        };
        room.now += 1;
        let event = room.event(sender, kind, Some(key), content);
        if room.check(&event).is_ok() {
            room.add(event);
        }
    }
}

#[test]
fn the_order_of_the_states_does_not_matter() {
    let mut chance = Chance(3);
    for version in RoomVersion::ALL {
        for _ in 0..5 {
            let base = room(version);
            let mut forks = [base.clone(), base.clone(), base.clone()];
            for fork in &mut forks {
                for _ in 0..6 {
                    chance.act(fork);
                }
            }
            let [a, b, c] = &forks;
            let expected = resolved(&[a, b, c]);
            for order in [[a, c, b], [b, a, c], [b, c, a], [c, a, b], [c, b, a]] {
                assert_eq!(resolved(&order), expected, "{version}");
            }
            // What all agree on stands, and nothing comes from nowhere.
            let events = all_events(&[a, b, c]);
            for (key, event_id) in &expected {
                assert!(events.get(event_id).is_some_and(|event| {
                    event.event_type() == key.0.to_string() && event.state_key() == Some(&key.1)
                }));
            }
            for (key, event_id) in &a.state {
                if b.state.get(key) == Some(event_id) && c.state.get(key) == Some(event_id) {
                    assert_eq!(expected.get(key), Some(event_id), "{version}");
                }
            }
        }
    }
}

#[test]
fn version_1_takes_the_deepest_and_then_the_lowest_sha1() {
    let (mut left, mut right) = (room(RoomVersion::V1), room(RoomVersion::V1));
    left.send(ALICE, "m.room.topic", Some(""), json!({ "topic": "shallow" }));
    right.send(ALICE, "m.room.message", None, json!({}));
    let deep = right.send(ALICE, "m.room.topic", Some(""), json!({ "topic": "deep" }));
    assert_eq!(at(&resolved(&[&left, &right]), "m.room.topic", ""), Some(deep.event_id()));

    use sha1::Digest as _;
    let (mut left, mut right) = (room(RoomVersion::V1), room(RoomVersion::V1));
    let one = left.send(ALICE, "m.room.topic", Some(""), json!({ "topic": "one" }));
    let two = right.send(ALICE, "m.room.topic", Some(""), json!({ "topic": "two" }));
    let lowest = [&one, &two].into_iter().min_by_key(|pdu| sha1::Sha1::digest(pdu.event_id().as_bytes()).to_vec());
    let lowest = lowest.map(|pdu| pdu.event_id().to_owned());
    assert_eq!(at(&resolved(&[&left, &right]), "m.room.topic", ""), lowest.as_deref());
}

#[test]
fn version_1_follows_power_levels_as_far_as_each_allows_the_next() {
    let (mut left, mut right) = (room(RoomVersion::V1), room(RoomVersion::V1));
    // The deeper change is by someone whom the shallower one stripped of power: it stops there.
    let users = json!({ CREATOR: 100, ALICE: 50 });
    let demotion = left.send(CREATOR, "m.room.power_levels", Some(""), json!({ "users": users }));
    right.send(BOB, "m.room.message", None, json!({}));
    right.send(
        BOB,
        "m.room.power_levels",
        Some(""),
        json!({ "users": { CREATOR: 100, ALICE: 50, BOB: 50 }, "events": { "m.room.topic": 50 } }),
    );
    assert_eq!(at(&resolved(&[&left, &right]), "m.room.power_levels", ""), Some(demotion.event_id()));
}

#[test]
fn the_conflicted_subgraph_is_what_lies_between_conflicted_events() {
    // Each event rests on the one before: join rules, then a ban, then levels, as far as auth events say.
    let mut room = room(RoomVersion::V12);
    let first = room.at(&StateEventType::RoomPowerLevels, "").expect("set");
    let second = room.send(CREATOR, "m.room.power_levels", Some(""), json!({ "users": { ALICE: 60, BOB: 50 } }));
    let third = room.send(ALICE, "m.room.power_levels", Some(""), json!({ "users": { ALICE: 55, BOB: 50 } }));
    let topic = room.send(ALICE, "m.room.topic", Some(""), json!({ "topic": "x" }));

    let between = |ids: &[&Pdu]| {
        let ids: Vec<OwnedEventId> = ids.iter().map(|pdu| pdu.event_id().to_owned()).collect();
        conflicted_subgraph(ids.iter(), &room.events)
    };
    let path = between(&[&first, &topic]);
    for event in [&first, &second, &third, &topic] {
        assert!(path.contains(event.event_id()), "{event:?}");
    }
    // The creator's membership is below them all, and not conflicted.
    let creator = room.at(&StateEventType::RoomMember, CREATOR).expect("joined");
    assert!(!path.contains(creator.event_id()));
    assert_eq!(between(&[&topic]).len(), 1);
    // Between them lie the levels that the room began with.
    assert_eq!(between(&[&first, &creator]).len(), 3);
}

#[test]
fn events_that_allow_each_other_are_refused_instead_of_followed() {
    // Only where ids are no hashes can an event name one that names it.
    for version in [RoomVersion::V1, RoomVersion::V2] {
        let (mut left, right) = (room(version), room(version));
        let levels = left.send(CREATOR, "m.room.power_levels", Some(""), json!({ "users": { CREATOR: 100 } }));
        let mut object = levels.to_object();
        let own = json!([[levels.event_id(), {}]]);
        object.insert("auth_events".to_owned(), serde_json::from_value(own).expect("a list"));
        left.add(Pdu::from_json(version, object).expect("well-formed"));
        let states = [left.state.clone(), right.state.clone()];
        let outcome = resolve(version, &states, &all_events(&[&left, &right]));
        assert!(matches!(outcome, Err(ResolveError::Cycle(id)) if id == levels.event_id()), "{version}");
    }
}

/// Prints what resolving a fork of a large room costs. Asserts nothing, since machines differ.
#[test]
fn the_cost_of_a_fork_is_printed() {
    let base = {
        let mut base = room(RoomVersion::V12);
        for index in 0..500 {
            let member = format!("@user{index}:two.example");
            base.add(base.event(&member, "m.room.member", Some(&member), json!({ "membership": "join" })));
        }
        base
    };
    let (mut left, mut right) = (base.clone(), base.clone());
    left.send(ALICE, "m.room.topic", Some(""), json!({ "topic": "one" }));
    right.send(CREATOR, "m.room.member", Some(BOB), json!({ "membership": "ban" }));
    let start = std::time::Instant::now();
    let state = resolved(&[&left, &right]);
    println!("a fork over {} state events: {:.1} ms", state.len(), start.elapsed().as_secs_f64() * 1e3);
}
