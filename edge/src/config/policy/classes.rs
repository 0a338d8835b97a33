//! `[classes]`: what each class of requests may cost.

use gatehouse_shared::config::Checker;
use serde::{Deserialize, Serialize};

/// A bucket that holds `burst` requests and regains `per_second` of them each second (GCRA).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// How many requests may come at once.
    pub burst: u32,
    /// How many more each second allows; may be a fraction.
    pub per_second: f64,
}

/// One class of requests. A class that a file holds is taken as it is there: a limit left out is no limit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClassPolicy {
    /// Further requests of this class, as `METHOD /path`: `*` is any method or one segment, `**` at the end any rest.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<String>,
    /// The limit of each client, by its prefix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<Limit>,
    /// The limit of each access token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<Limit>,
    /// The limit of each user at each client, all devices together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<Limit>,
    /// The limit of each other server at each client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<Limit>,
}

/// What each class of requests may cost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClassesPolicy {
    /// Logging in, and changing a password.
    pub login: ClassPolicy,
    /// Registration.
    pub registration: ClassPolicy,
    /// Events and messages to devices, upwards.
    pub send: ClassPolicy,
    /// Long polls of clients.
    pub sync: ClassPolicy,
    /// Media, downwards.
    pub media: ClassPolicy,
    /// Media, upwards.
    pub upload: ClassPolicy,
    /// Other servers, the key server included.
    pub federation: ClassPolicy,
    /// Keys of other devices: asking for them and claiming them.
    pub key_queries: ClassPolicy,
    /// Searches: rooms, users, aliases, messages.
    pub directory: ClassPolicy,
    /// The administration API.
    pub admin: ClassPolicy,
    /// Everything else of clients.
    pub client: ClassPolicy,
    /// Everything else.
    pub other: ClassPolicy,
}

impl Default for ClassesPolicy {
    fn default() -> Self {
        let limit = |burst, per_second| Some(Limit { burst, per_second });
        let client = |burst, per_second| ClassPolicy { client: limit(burst, per_second), ..ClassPolicy::default() };
        Self {
            login: client(50, 1.0),
            registration: client(30, 0.5),
            send: ClassPolicy { token: limit(200, 20.0), user: limit(400, 40.0), ..client(2_000, 400.0) },
            sync: ClassPolicy { token: limit(200, 50.0), ..client(2_000, 500.0) },
            media: ClassPolicy { token: limit(1_000, 100.0), ..client(4_000, 400.0) },
            upload: ClassPolicy { token: limit(100, 5.0), ..client(500, 50.0) },
            federation: ClassPolicy { origin: limit(1_000, 100.0), ..client(4_000, 400.0) },
            key_queries: ClassPolicy { token: limit(200, 20.0), ..client(2_000, 200.0) },
            directory: ClassPolicy { token: limit(50, 5.0), ..client(300, 30.0) },
            admin: client(500, 50.0),
            client: ClassPolicy { token: limit(1_000, 100.0), ..client(5_000, 500.0) },
            other: client(1_000, 100.0),
        }
    }
}

impl ClassesPolicy {
    /// Each class with the name of its section.
    pub fn named(&self) -> [(&'static str, &ClassPolicy); 12] {
        [
            ("login", &self.login),
            ("registration", &self.registration),
            ("send", &self.send),
            ("sync", &self.sync),
            ("media", &self.media),
            ("upload", &self.upload),
            ("federation", &self.federation),
            ("key_queries", &self.key_queries),
            ("directory", &self.directory),
            ("admin", &self.admin),
            ("client", &self.client),
            ("other", &self.other),
        ]
    }

    pub(super) fn check(&self, checker: &mut Checker<'_>) {
        for (name, class) in self.named() {
            for (kind, limit) in
                [("client", class.client), ("token", class.token), ("user", class.user), ("origin", class.origin)]
            {
                let Some(Limit { burst, per_second }) = limit else { continue };
                let key = format!("classes.{name}.{kind}");
                // Together these keep governor's arithmetic within 64 bits of nanoseconds.
                if !(1..=1_000_000).contains(&burst) {
                    checker.reject(&key, "burst must be between 1 and 1000000");
                }
                if !(0.001..=1_000_000.0).contains(&per_second) {
                    checker.reject(&key, "per_second must be between 0.001 and 1000000");
                }
            }
            for (index, pattern) in class.also.iter().enumerate() {
                let well_formed = pattern.split_once(' ').is_some_and(|(method, path)| {
                    let inner = path.strip_suffix("/**").unwrap_or(path);
                    let method_fits = method == "*" || method.bytes().all(|byte| byte.is_ascii_uppercase());
                    !method.is_empty() && method_fits && path.starts_with('/') && !inner.contains("**")
                });
                if !well_formed {
                    let key = format!("classes.{name}.also[{index}]");
                    checker.reject(&key, "is not `METHOD /path`, where `*` is any method or one segment");
                }
            }
        }
    }
}
