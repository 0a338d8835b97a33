use std::time::Instant;

use ruma::{
    OwnedUserId,
    push::{AnyPushRuleRef, NewConditionalPushRule, NewPatternedPushRule, NewPushRule, NewSimplePushRule, RuleKind},
};
use serde_json::json;

use super::*;
use crate::rules::{
    room_version::RoomVersion,
    testing::{ALICE, BOB, CREATOR, Room, user},
};

const MANY: RoomContext = RoomContext { member_count: 5, sender_can_notify_room: false };

fn event(event_type: &str, state_key: Option<&str>, content: Value) -> Pdu {
    Room::public(RoomVersion::V12).event(CREATOR, event_type, state_key, content)
}

fn message(body: &str) -> Pdu {
    event("m.room.message", None, json!({ "msgtype": "m.text", "body": body }))
}

fn rule_for(pdu: &Pdu, room: RoomContext, rules: &Ruleset) -> Option<String> {
    let reader = Reader { user_id: user(ALICE), display_name: Some("Alice") };
    PreparedEvent::new(pdu, room).matching_rule(rules, reader).map(|rule| rule.rule_id().to_owned())
}

fn default_rule_for(pdu: &Pdu, room: RoomContext) -> Option<String> {
    rule_for(pdu, room, &effective_rules(None, user(ALICE)))
}

fn keyword(id: &str, pattern: &str) -> NewPushRule {
    NewPushRule::Content(NewPatternedPushRule::new(id.to_owned(), pattern.to_owned(), vec![Action::Notify]))
}

fn with_keyword(pattern: &str) -> Ruleset {
    insert(None, user(ALICE), keyword("word", pattern), None, None).expect("a valid rule")
}

fn ids(rules: &Ruleset, kind: &RuleKind) -> Vec<String> {
    let of_kind = |rule: &AnyPushRuleRef<'_>| match rule {
        AnyPushRuleRef::Override(_) => *kind == RuleKind::Override,
        AnyPushRuleRef::Content(_) => *kind == RuleKind::Content,
        AnyPushRuleRef::Room(_) => *kind == RuleKind::Room,
        AnyPushRuleRef::Sender(_) => *kind == RuleKind::Sender,
        AnyPushRuleRef::Underride(_) => *kind == RuleKind::Underride,
        _ => false,
    };
    rules.iter().filter(of_kind).map(|rule| rule.rule_id().to_owned()).collect()
}

#[test]
fn the_default_rules_match_what_the_specification_says() {
    let two = RoomContext { member_count: 2, ..MANY };
    let may_notify = RoomContext { sender_can_notify_room: true, ..MANY };
    let mention = |mentions: Value| event("m.room.message", None, json!({ "body": "hi", "m.mentions": mentions }));
    let rule = |pdu: &Pdu, room| default_rule_for(pdu, room).unwrap_or_default();

    assert_eq!(rule(&message("hi"), MANY), ".m.rule.message");
    assert_eq!(rule(&message("hi"), two), ".m.rule.room_one_to_one");
    assert_eq!(rule(&event("m.room.encrypted", None, json!({})), MANY), ".m.rule.encrypted");
    assert_eq!(rule(&event("m.room.encrypted", None, json!({})), two), ".m.rule.encrypted_room_one_to_one");
    assert_eq!(
        rule(&event("m.room.message", None, json!({ "msgtype": "m.notice" })), MANY),
        ".m.rule.suppress_notices"
    );
    assert_eq!(rule(&event("m.call.invite", None, json!({})), MANY), ".m.rule.call");
    assert_eq!(rule(&event("m.reaction", None, json!({})), MANY), ".m.rule.reaction");
    assert_eq!(rule(&event("m.room.tombstone", Some(""), json!({})), MANY), ".m.rule.tombstone");
    assert_eq!(rule(&event("m.room.tombstone", Some("x"), json!({})), MANY), "");
    assert_eq!(rule(&event("m.room.server_acl", Some(""), json!({})), MANY), ".m.rule.room.server_acl");
    assert_eq!(rule(&event("m.room.topic", Some(""), json!({})), MANY), "");
    assert_eq!(rule(&mention(json!({ "user_ids": [BOB, ALICE] })), MANY), ".m.rule.is_user_mention");
    assert_eq!(rule(&mention(json!({ "user_ids": [BOB] })), MANY), ".m.rule.message");
    assert_eq!(rule(&mention(json!({ "user_ids": ALICE })), MANY), ".m.rule.message");
    assert_eq!(rule(&mention(json!({ "room": true })), may_notify), ".m.rule.is_room_mention");
    assert_eq!(rule(&mention(json!({ "room": true })), MANY), ".m.rule.message");
    assert_eq!(rule(&mention(json!({ "room": "true" })), may_notify), ".m.rule.message");
    let member = |who: &str, membership: &str| event("m.room.member", Some(who), json!({ "membership": membership }));
    assert_eq!(rule(&member(ALICE, "invite"), MANY), ".m.rule.invite_for_me");
    assert_eq!(rule(&member(BOB, "invite"), MANY), ".m.rule.member_event");
    assert_eq!(rule(&member(ALICE, "join"), MANY), ".m.rule.member_event");
    let edit = json!({ "body": "* hi", "m.relates_to": { "rel_type": "m.replace", "event_id": "$x" } });
    assert_eq!(rule(&event("m.room.message", None, edit), MANY), ".m.rule.suppress_edits");
}

#[test]
fn nobody_is_notified_of_their_own_events() {
    let message = message("hi");
    let prepared = PreparedEvent::new(&message, MANY);
    assert_eq!(prepared.verdict_by_defaults(user(CREATOR)), Verdict::default());
    let rules = effective_rules(None, user(CREATOR));
    assert!(prepared.matching_rule(&rules, Reader { user_id: user(CREATOR), display_name: None }).is_none());
}

#[test]
fn the_short_way_for_default_rules_gives_the_same_verdicts() {
    let contents = [
        json!({}),
        json!({ "body": "x" }),
        json!({ "msgtype": "m.notice" }),
        json!({ "m.mentions": { "user_ids": [ALICE] } }),
        json!({ "m.mentions": { "room": true } }),
        json!({ "membership": "invite" }),
        json!({ "membership": "join" }),
    ];
    for event_type in ["m.room.message", "m.room.member", "m.room.encrypted", "m.room.tombstone", "m.room.name"] {
        for state_key in [None, Some(""), Some(ALICE), Some(BOB)] {
            for content in &contents {
                for member_count in [2, 3] {
                    for sender_can_notify_room in [false, true] {
                        let pdu = event(event_type, state_key, content.clone());
                        let prepared = PreparedEvent::new(&pdu, RoomContext { member_count, sender_can_notify_room });
                        for id in [BOB, ALICE, CREATOR, BOB] {
                            let reader = Reader { user_id: user(id), display_name: None };
                            let expected = prepared.verdict(&effective_rules(None, user(id)), reader);
                            assert_eq!(prepared.verdict_by_defaults(user(id)), expected, "{event_type} {content} {id}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn mentions_highlight_and_messages_only_notify() {
    let mention = event("m.room.message", None, json!({ "body": "hi", "m.mentions": { "user_ids": [ALICE] } }));
    let prepared = PreparedEvent::new(&mention, MANY);
    assert_eq!(prepared.verdict_by_defaults(user(ALICE)), Verdict { notify: true, highlight: true });
    assert_eq!(prepared.verdict_by_defaults(user(BOB)), Verdict { notify: true, highlight: false });
}

#[test]
fn keywords_match_whole_words_and_ignore_case() {
    let matches =
        |pattern: &str, body: &str| rule_for(&message(body), MANY, &with_keyword(pattern)).as_deref() == Some("word");
    assert!(matches("cake", "I like CAKE!"));
    assert!(matches("cake", "cake"));
    assert!(matches("cake", "cakes cake"));
    assert!(!matches("cake", "cakes"));
    assert!(!matches("cake", "pan_cake"));
    assert!(matches("cake*lie", "the cake is a lie."));
    assert!(!matches("cake*lie", "the cake is a lien"));
    assert!(matches("c?ke", "a cöke"));
    assert!(!matches("c?ke", "a ccoke"));
    assert!(matches("*", ""));
    assert!(!matches("", "anything"));
    assert!(matches("ÄÖ", "sagt äö und"));
    assert!(matches("a.b", "x a.b y"));
    assert!(!matches("a.b", "x acb y"));
    assert!(matches("@room", "hey @room!"));
}

#[test]
fn a_hostile_message_meets_a_hostile_pattern_in_good_time() {
    // Deep recursion, a regular expression per word, or backtracking would not come back from these.
    let bodies = ["ba ".repeat(20_000), "a".repeat(60_000), "a ".repeat(30_000)];
    let patterns =
        ["a".to_owned(), "?".repeat(MAX_PATTERN_BYTES), "a*".repeat(MAX_PATTERN_BYTES / 2), "*b?a*c".to_owned()];
    for body in &bodies {
        let pdu = message(body);
        for pattern in &patterns {
            let _ = rule_for(&pdu, MANY, &with_keyword(pattern));
        }
    }
}

#[test]
fn conditions_look_into_the_event_by_path() {
    let pdu = event(
        "m.room.message",
        None,
        json!({ "body": "hi", "a.b": { "c\\d": "deep", "n": 3, "z": null, "list": [1, "x", true] } }),
    );
    let matches = |condition: Value| {
        let conditions = vec![serde_json::from_value(condition).expect("a condition")];
        let rule =
            NewPushRule::Override(NewConditionalPushRule::new("mine".to_owned(), conditions, vec![Action::Notify]));
        let rules = insert(None, user(ALICE), rule, None, None).expect("a valid rule");
        rule_for(&pdu, MANY, &rules).as_deref() == Some("mine")
    };
    assert!(matches(json!({ "kind": "event_match", "key": r"content.a\.b.c\\d", "pattern": "d?e*" })));
    assert!(!matches(json!({ "kind": "event_match", "key": "content.a.b.c", "pattern": "*" })));
    assert!(!matches(json!({ "kind": "event_match", "key": r"content.a\.b.n", "pattern": "3" })));
    assert!(matches(json!({ "kind": "event_property_is", "key": r"content.a\.b.n", "value": 3 })));
    assert!(matches(json!({ "kind": "event_property_is", "key": r"content.a\.b.z", "value": null })));
    assert!(!matches(json!({ "kind": "event_property_is", "key": r"content.a\.b.missing", "value": null })));
    assert!(matches(json!({ "kind": "event_property_contains", "key": r"content.a\.b.list", "value": "x" })));
    assert!(matches(json!({ "kind": "event_property_contains", "key": r"content.a\.b.list", "value": true })));
    assert!(!matches(json!({ "kind": "event_property_contains", "key": r"content.a\.b.list", "value": 2 })));
    assert!(matches(json!({ "kind": "event_property_is", "key": "sender", "value": CREATOR })));
    assert!(matches(json!({ "kind": "event_match", "key": "room_id", "pattern": pdu.room_id() })));
    assert!(matches(json!({ "kind": "room_member_count", "is": ">=5" })));
    assert!(matches(json!({ "kind": "room_member_count", "is": "<6" })));
    assert!(!matches(json!({ "kind": "room_member_count", "is": ">5" })));
    assert!(!matches(json!({ "kind": "org.example.unknown", "key": "x" })));
    for odd in ["", ".", "..", "\\", "content", "content.", "content..", "type.x", "\\\\.\\"] {
        assert!(!matches(json!({ "kind": "event_match", "key": odd, "pattern": "*" })), "{odd}");
    }
}

#[test]
fn display_names_are_taken_literally() {
    let condition = serde_json::from_value(json!({ "kind": "contains_display_name" })).expect("a condition");
    let rule = NewPushRule::Override(NewConditionalPushRule::new("name".to_owned(), vec![condition], vec![]));
    let rules = insert(None, user(ALICE), rule, None, None).expect("a valid rule");
    let matches = |name: Option<&str>, body: &str| {
        let pdu = message(body);
        let reader = Reader { user_id: user(ALICE), display_name: name };
        PreparedEvent::new(&pdu, MANY).matching_rule(&rules, reader).is_some_and(|rule| rule.rule_id() == "name")
    };
    assert!(matches(Some("Alice"), "hi alice!"));
    assert!(!matches(Some("Alice"), "hi malice"));
    assert!(!matches(Some("*"), "hi"));
    assert!(!matches(Some(""), "hi"));
    assert!(!matches(None, "hi"));
}

#[test]
fn rules_of_rooms_and_senders_match_theirs() {
    let pdu = message("hi");
    let sender = |id: &str| {
        let id: OwnedUserId = user(id).to_owned();
        insert(None, user(ALICE), NewPushRule::Sender(NewSimplePushRule::new(id, vec![])), None, None).expect("valid")
    };
    assert_eq!(rule_for(&pdu, MANY, &sender(CREATOR)).as_deref(), Some(CREATOR));
    assert_eq!(rule_for(&pdu, MANY, &sender(BOB)).as_deref(), Some(".m.rule.message"));
    let room = NewPushRule::Room(NewSimplePushRule::new(pdu.room_id().to_owned(), vec![]));
    let rules = insert(None, user(ALICE), room, None, None).expect("valid");
    assert_eq!(rule_for(&pdu, MANY, &rules).as_deref(), Some(pdu.room_id().as_str()));
    let disabled =
        set_enabled(Some(rules), user(ALICE), RuleKind::Room, pdu.room_id().as_str(), false).expect("exists");
    assert_eq!(rule_for(&pdu, MANY, &disabled).as_deref(), Some(".m.rule.message"));
}

#[test]
fn new_rules_land_where_they_are_asked_to() {
    let put = |rules: &Ruleset, id: &str, before: Option<&str>, after: Option<&str>| {
        insert(Some(rules.clone()), user(ALICE), keyword(id, "x"), before, after)
    };
    let rules = effective_rules(None, user(ALICE));
    let rules = put(&rules, "a", None, None).expect("valid");
    let rules = put(&rules, "b", None, None).expect("valid");
    assert_eq!(ids(&rules, &RuleKind::Content), ["b", "a"]);
    let rules = put(&rules, "c", None, Some("a")).expect("valid");
    assert_eq!(ids(&rules, &RuleKind::Content), ["b", "a", "c"]);
    let rules = put(&rules, "b", None, Some("c")).expect("valid");
    assert_eq!(ids(&rules, &RuleKind::Content), ["a", "c", "b"]);
    let rules = put(&rules, "b", Some("a"), None).expect("valid");
    assert_eq!(ids(&rules, &RuleKind::Content), ["b", "a", "c"]);
    let rules = put(&rules, "d", Some("c"), Some("b")).expect("valid");
    assert_eq!(ids(&rules, &RuleKind::Content), ["b", "a", "d", "c"]);
    assert_eq!(ids(&put(&rules, "a", None, None).expect("valid"), &RuleKind::Content), ["b", "a", "d", "c"]);
    assert_eq!(put(&rules, "e", Some("b"), Some("c")).err(), Some(RuleError::Contradiction));
    assert_eq!(put(&rules, "e", Some("nowhere"), None).err(), Some(RuleError::UnknownNeighbour));
    assert_eq!(put(&rules, "e", None, Some(".m.rule.master")).err(), Some(RuleError::RelativeToDefault));
}

#[test]
fn the_masters_place_is_the_first_and_rules_of_users_come_before_the_servers() {
    let rule = |id: &str| NewPushRule::Override(NewConditionalPushRule::new(id.to_owned(), vec![], vec![]));
    let rules = insert(None, user(ALICE), rule("mine"), None, None).expect("valid");
    let order = ids(&rules, &RuleKind::Override);
    assert_eq!(order.first().map(String::as_str), Some(".m.rule.master"));
    assert_eq!(order.get(1).map(String::as_str), Some("mine"));
    // Rules that were stored without any of the server's still find their place.
    let bare: Ruleset = serde_json::from_value(json!({})).expect("an empty ruleset");
    let rules = insert(Some(bare), user(ALICE), rule("mine"), None, None).expect("valid");
    assert_eq!(ids(&rules, &RuleKind::Override), order);
}

#[test]
fn what_is_not_allowed_is_refused() {
    let put = |id: &str, pattern: &str| insert(None, user(ALICE), keyword(id, pattern), None, None).err();
    assert_eq!(put(".mine", "x"), Some(RuleError::Reserved));
    assert_eq!(put("a/b", "x"), Some(RuleError::InvalidId));
    assert_eq!(put("a\\b", "x"), Some(RuleError::InvalidId));
    assert_eq!(put("", "x"), Some(RuleError::InvalidId));
    assert_eq!(put("a", &"x".repeat(MAX_PATTERN_BYTES + 1)), Some(RuleError::PatternTooLong));

    let rules = Some(with_keyword("x"));
    assert_eq!(
        remove(rules.clone(), user(ALICE), RuleKind::Override, ".m.rule.master").err(),
        Some(RuleError::Undeletable)
    );
    assert_eq!(remove(rules.clone(), user(ALICE), RuleKind::Content, "none").err(), Some(RuleError::NotFound));
    assert_eq!(remove(rules.clone(), user(ALICE), RuleKind::from("odd"), "none").err(), Some(RuleError::NotFound));
    assert!(
        ids(&remove(rules, user(ALICE), RuleKind::Content, "word").expect("exists"), &RuleKind::Content).is_empty()
    );
    assert_eq!(set_enabled(None, user(ALICE), RuleKind::Sender, "@x:y", true).err(), Some(RuleError::NotFound));
    assert_eq!(set_actions(None, user(ALICE), RuleKind::Room, "!x:y", vec![]).err(), Some(RuleError::NotFound));

    let mut rules = effective_rules(None, user(ALICE));
    for index in 0..MAX_USER_RULES {
        rules.content.extend(with_keyword("x").content.into_iter().map(|mut rule| {
            rule.rule_id = format!("word{index}");
            rule
        }));
    }
    let full = Some(rules);
    assert_eq!(insert(full.clone(), user(ALICE), keyword("more", "x"), None, None).err(), Some(RuleError::TooMany));
    assert!(insert(full, user(ALICE), keyword("word0", "y"), None, None).is_ok());
}

#[test]
fn changes_of_default_rules_survive_storage() {
    let rules = set_enabled(None, user(ALICE), RuleKind::Underride, ".m.rule.message", false).expect("exists");
    let rules = set_actions(Some(rules), user(ALICE), RuleKind::Underride, ".m.rule.call", vec![]).expect("exists");
    let rules = insert(Some(rules), user(ALICE), keyword("word", "cake"), None, None).expect("valid");
    let stored = serde_json::to_string(&rules).expect("rules serialize");
    let back = effective_rules(Some(serde_json::from_str(&stored).expect("rules deserialize")), user(ALICE));
    assert_eq!(rule_for(&message("hi"), MANY, &back), None);
    assert_eq!(rule_for(&message("cake"), MANY, &back).as_deref(), Some("word"));
    let call = event("m.call.invite", None, json!({}));
    let reader = Reader { user_id: user(ALICE), display_name: None };
    assert_eq!(PreparedEvent::new(&call, MANY).verdict(&back, reader), Verdict::default());
    // Replacing a disabled rule leaves it disabled.
    let rules = set_enabled(Some(back), user(ALICE), RuleKind::Content, "word", false).expect("exists");
    let rules = insert(Some(rules), user(ALICE), keyword("word", "pie"), None, None).expect("valid");
    assert_eq!(rule_for(&message("pie"), MANY, &rules), None);
}

/// Prints what the hot paths cost. Asserts nothing, since machines differ.
#[test]
fn the_cost_of_a_verdict_is_printed() {
    const ROUNDS: u32 = 1_000;
    let pdu = message("the quick brown fox jumps over the lazy dog");
    let rules = with_keyword("cake");
    let timed = |name: &str, work: &mut dyn FnMut()| {
        let start = Instant::now();
        for _ in 0..ROUNDS {
            work();
        }
        println!("{name}: {:.2} µs", start.elapsed().as_secs_f64() * 1e6 / f64::from(ROUNDS));
    };
    timed("prepare", &mut || drop(PreparedEvent::new(&pdu, MANY)));
    let prepared = PreparedEvent::new(&pdu, MANY);
    let reader = Reader { user_id: user(ALICE), display_name: None };
    timed("verdict", &mut || assert!(prepared.verdict(&rules, reader).notify));
    timed("verdict_by_defaults", &mut || assert!(prepared.verdict_by_defaults(user(ALICE)).notify));
}
