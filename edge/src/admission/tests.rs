use super::*;
use crate::config::policy::{Limit, Policy};
use gatehouse_shared::contract::mint_prefix;

const NOW: Duration = Duration::from_secs(1);

fn policy(change: impl FnOnce(&mut Policy)) -> Rules {
    let mut policy = Policy::default();
    change(&mut policy);
    Rules::new(&policy)
}

fn with(rules: Rules) -> (Admission, Rules) {
    (Admission::default(), rules)
}

fn asking<'r>(client: &str, token: Option<&'r str>, origin: Option<&'r str>) -> Asking<'r> {
    Asking { client: client.parse().unwrap(), class: RequestClass::Send, token, origin }
}

fn limit(burst: u32) -> Option<Limit> {
    Some(Limit { burst, per_second: 0.001 })
}

#[test]
fn each_bucket_limits_by_itself() {
    let (admission, rules) = with(policy(|policy| {
        policy.classes.send.client = limit(6);
        policy.classes.send.user = limit(4);
        policy.classes.send.token = limit(2);
    }));
    let token = |device: &str| format!("{}{device}", mint_prefix("@alice:example.org"));
    let passes = |client: &str, device: &str| {
        let token = token(device);
        (0..10).take_while(|_| admission.admit(&rules, asking(client, Some(&token), None), NOW, || 0).is_ok()).count()
    };
    assert_eq!(passes("192.0.2.1", "phone"), 2, "the token's");
    assert_eq!(passes("192.0.2.1", "laptop"), 2, "the token's, and the user's is empty");
    assert_eq!(passes("192.0.2.1", "tablet"), 0, "the user's");
    assert_eq!(passes("192.0.2.9", "tablet"), 2, "somebody elsewhere who claims to be her takes nothing from her");
    let anonymous =
        (0..10).take_while(|_| admission.admit(&rules, asking("192.0.2.1", None, None), NOW, || 0).is_ok()).count();
    assert_eq!(anonymous, 2, "the client's");
}

#[test]
fn addresses_of_one_ipv6_site_are_one_client() {
    let (admission, rules) = with(policy(|policy| {
        policy.classes.send = crate::config::policy::ClassPolicy { client: limit(1), ..Default::default() };
    }));
    assert!(admission.admit(&rules, asking("2001:db8::1", None, None), NOW, || 0).is_ok());
    assert!(admission.admit(&rules, asking("2001:db8::2", None, None), NOW, || 0).is_err());
    assert!(admission.admit(&rules, asking("2001:db8:0:1::1", None, None), NOW, || 0).is_ok());
}

#[test]
fn another_policy_keeps_buckets_and_bans() {
    let (admission, rules) = with(policy(|policy| policy.classes.send.client = limit(2)));
    let ask = |rules: &Rules| admission.admit(rules, asking("192.0.2.1", None, None), NOW, || 0);
    assert!(ask(&rules).is_ok() && ask(&rules).is_ok() && ask(&rules).is_err());
    let offender = "198.51.100.1".parse().unwrap();
    let ban = ban_table::Ban { offender, jail: "test".to_owned(), since_ms: 0, until_ms: None };
    admission.bans.insert(ban);
    let rules = policy(|policy| policy.classes.send.client = limit(3));
    assert!(ask(&rules).is_ok(), "the new burst has room for one more");
    assert!(ask(&rules).is_err(), "what was used before is still used");
    assert!(!admission.may_come(&rules, "198.51.100.1".parse().unwrap(), || 0));
}

#[test]
fn exempt_addresses_meet_no_limit_and_no_ban() {
    let (admission, rules) = with(policy(|policy| policy.classes.send.client = limit(1)));
    let offender = "127.0.0.1".parse().unwrap();
    admission.bans.insert(ban_table::Ban { offender, jail: "test".to_owned(), since_ms: 0, until_ms: None });
    assert!(admission.may_come(&rules, "127.0.0.1".parse().unwrap(), || 0));
    for _ in 0..10 {
        assert!(admission.admit(&rules, asking("127.0.0.1", None, None), NOW, || 0).is_ok());
    }
}

#[test]
fn denied_addresses_and_servers_are_refused_in_their_own_words() {
    let (admission, rules) = with(policy(|policy| {
        policy.addresses.deny = vec!["203.0.113.0/24".parse().unwrap()];
        policy.servers.deny = vec!["evil.example".to_owned()];
    }));
    assert!(!admission.may_come(&rules, "203.0.113.7".parse().unwrap(), || 0));
    assert_eq!(admission.admit(&rules, asking("203.0.113.7", None, None), NOW, || 0), Err(Refused::Banned));
    let evil = asking("192.0.2.1", None, Some("evil.example"));
    assert_eq!(admission.admit(&rules, evil, NOW, || 0), Err(Refused::ServerBanned));
}

#[test]
fn private_networks_are_never_counted() {
    let (admission, rules) = with(policy(|_| {}));
    for now_ms in 0..1_000 {
        let offence = |client: &str| Offence {
            feed: crate::config::policy::Feed::LoginFailed,
            client: client.parse().unwrap(),
            server: None,
            mark: None,
        };
        for client in ["127.0.0.1", "10.1.2.3", "fd00::1"] {
            assert!(admission.hear(&rules, &offence(client), now_ms).is_empty());
        }
    }
}

/// `cargo test --release -p gatehouse --lib price_of_a_decision -- --ignored --nocapture`
#[test]
#[ignore = "measures and asserts nothing"]
fn price_of_a_decision() {
    const REQUESTS: u32 = 1_000_000;
    const CLIENTS: u32 = 10_000;
    let policy = |exempt: &[&str]| {
        let exempt = exempt.iter().map(|prefix| prefix.parse().unwrap()).collect();
        policy(|policy| {
            policy.addresses.exempt = exempt;
            policy.classes.send.origin = policy.classes.send.user;
        })
    };
    let requests: Vec<(IpAddr, String)> = (0..CLIENTS)
        .map(|number| (IpAddr::from((0x0a00_0000 + number).to_be_bytes()), format!("gh_{number:08x}_token")))
        .collect();
    let measure = |what: &str, admission: &Admission, rules: &Rules, claims: bool| {
        let start = std::time::Instant::now();
        for number in 0..REQUESTS {
            let (client, token) = &requests[(number % CLIENTS) as usize];
            let asking = Asking {
                client: *client,
                class: RequestClass::Send,
                token: claims.then_some(token),
                origin: claims.then_some("example.org"),
            };
            // Each client asks once in a tenth of a second, so that every bucket is charged and none is empty.
            let now = Duration::from_micros(u64::from(number) * 10);
            assert!(admission.admit(rules, asking, now, || 1).is_ok());
        }
        println!("{what}: {} ns a request", start.elapsed().as_nanos() / u128::from(REQUESTS));
    };
    measure("an exempt client", &Admission::default(), &policy(&["10.0.0.0/8"]), true);
    measure("one bucket", &Admission::default(), &policy(&[]), false);
    measure("four buckets", &Admission::default(), &policy(&[]), true);
    let admission = Admission::default();
    for number in 0..CLIENTS {
        let offender = offender::Offender::Prefix(ipnet::IpNet::from(IpAddr::from(number.to_be_bytes())));
        admission.bans.insert(ban_table::Ban { offender, jail: "test".to_owned(), since_ms: 0, until_ms: None });
    }
    measure("four buckets beside ten thousand bans", &admission, &policy(&[]), true);
}
