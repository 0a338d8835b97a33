use super::*;

const SECOND: u64 = 1_000;

fn policy(feed: Feed) -> JailPolicy {
    JailPolicy {
        feeds: vec![feed],
        counts: Counts::Address,
        distinct: false,
        maxretry: 3,
        findtime_seconds: 60,
        bantime_seconds: 100,
        increment_factor: 2.0,
        bantime_max_seconds: 350,
        remember_seconds: 1_000,
        ignore: Vec::new(),
    }
}

fn offence(feed: Feed, mark: Option<u64>) -> Offence {
    Offence { feed, client: "192.0.2.1".parse().unwrap(), server: None, mark }
}

/// Tries `count` logins, one each second from `start_ms` on.
fn fail(jails: &Jails, rules: &[Jail], start_ms: u64, count: u64) -> Vec<Sentence> {
    let hear = |second| {
        let prefix = Some("192.0.2.1/32".parse().unwrap());
        jails.hear(rules, &offence(Feed::LoginFailed, None), prefix, start_ms + second * SECOND)
    };
    (0..count).flat_map(hear).collect()
}

fn length_s(sentence: &Sentence) -> u64 {
    (sentence.ban.until_ms.unwrap() - sentence.ban.since_ms) / SECOND
}

#[test]
fn the_last_retry_within_the_time_bans() {
    let (jails, rules) = (Jails::default(), [Jail::new("login", &policy(Feed::LoginFailed))]);
    assert!(fail(&jails, &rules, 0, 2).is_empty());
    // The first of them is a minute old at 60 s and counts no more, the second one at 61 s.
    assert!(fail(&jails, &rules, 60 * SECOND, 1).is_empty());
    assert!(fail(&jails, &rules, 61 * SECOND, 1).is_empty());
    let sentences = fail(&jails, &rules, 62 * SECOND, 1);
    assert_eq!(sentences.len(), 1);
    assert_eq!(sentences[0].ban.offender.to_string(), "192.0.2.1");
    assert_eq!(length_s(&sentences[0]), 100);
    assert!(fail(&jails, &rules, 63 * SECOND, 2).is_empty(), "counting begins anew");
}

#[test]
fn another_process_goes_on_counting_but_for_what_it_could_not_tell_apart() {
    let rules = [Jail::new("login", &policy(Feed::LoginFailed))];
    let (old, new) = (Jails::default(), Jails::default());
    fail(&old, &rules, 0, 2);
    let marked = offence(Feed::LoginFailed, Some(7));
    old.hear(&rules, &marked, Some("192.0.2.2/32".parse().unwrap()), 0);
    let told = old.tallies();
    assert_eq!(told.len(), 1, "{told:?}");
    new.go_on_from(told);
    assert_eq!(new.counted(&rules[0], SECOND), [("192.0.2.1".parse().unwrap(), 2)]);
    let sentences = fail(&new, &rules, 2 * SECOND, 1);
    assert_eq!(sentences.len(), 1);
    old.settle("login", &sentences[0].ban.offender);
    assert_eq!(old.counted(&rules[0], SECOND).len(), 1, "the other one is still counted");
}

#[test]
fn each_ban_is_longer_up_to_the_longest_until_it_is_forgotten() {
    let (jails, rules) = (Jails::default(), [Jail::new("login", &policy(Feed::LoginFailed))]);
    let mut now = 0;
    for expected in [100, 200, 350, 350] {
        let sentences = fail(&jails, &rules, now, 3);
        assert_eq!(length_s(&sentences[0]), expected);
        now = sentences[0].ban.until_ms.unwrap();
    }
    now += 1_001 * SECOND;
    assert_eq!(length_s(&fail(&jails, &rules, now, 3)[0]), 100);
    let other = Jails::default();
    jails.past().into_iter().for_each(|past| other.remember(past));
    assert_eq!(length_s(&fail(&other, &rules, now, 3)[0]), 200, "a restart forgets nothing");
}

#[test]
fn one_expired_token_bans_no_household() {
    let policy = JailPolicy { distinct: true, ..policy(Feed::BadToken) };
    let (jails, rules) = (Jails::default(), [Jail::new("token", &policy)]);
    let prefix = Some("192.0.2.1/32".parse().unwrap());
    let hear = |mark: u64, now_ms| jails.hear(&rules, &offence(Feed::BadToken, Some(mark)), prefix, now_ms);
    for try_ in 0..10_000 {
        assert!(hear(try_ % 2, try_).is_empty(), "two phones with old tokens were banned");
    }
    assert_eq!(hear(2, 10_000).len(), 1, "a third token is one too many");
}

#[test]
fn repeat_offenders_go_to_a_jail_of_their_own() {
    let repeat = JailPolicy { maxretry: 2, findtime_seconds: 10_000, bantime_seconds: 9_000, ..policy(Feed::Banned) };
    let repeat = JailPolicy { bantime_max_seconds: 9_000, ..repeat };
    let rules = [Jail::new("login", &policy(Feed::LoginFailed)), Jail::new("repeat", &repeat)];
    let jails = Jails::default();
    assert_eq!(fail(&jails, &rules, 0, 3).len(), 1);
    let sentences = fail(&jails, &rules, 500 * SECOND, 3);
    let imposed: Vec<(&str, u64)> =
        sentences.iter().map(|sentence| (sentence.ban.jail.as_str(), length_s(sentence))).collect();
    assert_eq!(imposed, [("repeat", 9_000), ("login", 200)]);
}

#[test]
fn a_jail_of_servers_counts_the_server_and_never_an_address() {
    let policy = JailPolicy { counts: Counts::Server, ..policy(Feed::RateLimited) };
    let (jails, rules) = (Jails::default(), [Jail::new("server", &policy)]);
    let prefix = Some("192.0.2.1/32".parse().unwrap());
    let mut signed = offence(Feed::RateLimited, None);
    for now_ms in 0..10 {
        assert!(jails.hear(&rules, &signed, prefix, now_ms).is_empty(), "nobody signed that");
    }
    signed.server = Some("Evil.Example".to_owned());
    let sentences: Vec<_> = (0..3).flat_map(|now_ms| jails.hear(&rules, &signed, prefix, now_ms)).collect();
    assert_eq!(sentences[0].ban.offender, Offender::Server("evil.example".to_owned()));
}

#[test]
fn ignored_prefixes_and_other_feeds_are_not_counted() {
    let policy = JailPolicy { ignore: vec!["192.0.2.0/24".parse().unwrap()], ..policy(Feed::LoginFailed) };
    let (jails, rules) = (Jails::default(), [Jail::new("login", &policy)]);
    assert!(fail(&jails, &rules, 0, 10).is_empty());
    let rules = [Jail::new("other", &super::tests::policy(Feed::BadSignature))];
    assert!(fail(&jails, &rules, 0, 10).is_empty());
}

#[test]
fn who_is_counted_can_be_seen_forgiven_and_forgotten() {
    let (jails, rules) = (Jails::default(), [Jail::new("login", &policy(Feed::LoginFailed))]);
    fail(&jails, &rules, 0, 2);
    let offender: Offender = "192.0.2.1".parse().unwrap();
    assert_eq!(jails.counted(&rules[0], 2 * SECOND), [(offender.clone(), 2)]);
    jails.forgive(&offender);
    assert!(jails.counted(&rules[0], 2 * SECOND).is_empty());
    fail(&jails, &rules, 0, 2);
    jails.prune(&rules, 3_600 * SECOND);
    assert!(jails.0.lock().tallies.is_empty());
}

#[test]
fn a_flood_of_addresses_is_bounded() {
    let (jails, rules) = (Jails::default(), [Jail::new("login", &policy(Feed::LoginFailed))]);
    for number in 0..150_000_u32 {
        let client = IpAddr::from(number.to_be_bytes());
        let offence = Offence { client, ..offence(Feed::LoginFailed, None) };
        jails.hear(&rules, &offence, Some(ipnet::IpNet::from(client)), 1);
    }
    assert!(jails.0.lock().tallies.len() <= MOST);
}
