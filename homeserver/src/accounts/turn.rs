//! Gives users passwords for the operator's TURN server, good for a while.
//!
//! The password is an HMAC over the time of its end and the user, so that the TURN server can check it knowing nothing
//! but the shared secret (coturn's `use-auth-secret`).

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use gatehouse_shared::{clock::Clock, config::Secret};
use hmac::{Hmac, KeyInit as _, Mac as _};
use ruma::UserId;
use sha1::Sha1;

/// Where the TURN server is, and what it shares with us.
#[derive(Clone, Debug)]
pub struct TurnOptions {
    pub uris: Vec<String>,
    pub shared_secret: Secret,
    /// How long a password is good.
    pub lifetime: Duration,
}

/// The operator's TURN server, if there is one. Clones share everything.
#[derive(Clone)]
pub struct Turn {
    clock: Arc<dyn Clock>,
    options: Option<Arc<TurnOptions>>,
}

/// What a client needs to use the TURN server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TurnPass {
    pub username: String,
    pub password: String,
    pub uris: Vec<String>,
    pub lifetime: Duration,
}

impl Turn {
    pub fn new(clock: Arc<dyn Clock>, options: Option<TurnOptions>) -> Self {
        Self { clock, options: options.map(Arc::new) }
    }

    /// A password for `user_id`; `None` without a TURN server.
    pub fn pass(&self, user_id: &UserId) -> Option<TurnPass> {
        let options = self.options.as_ref()?;
        let ends = (self.clock.now_ms() / 1000).saturating_add(options.lifetime.as_secs());
        let username = format!("{ends}:{user_id}");
        let mut mac = Hmac::<Sha1>::new_from_slice(options.shared_secret.expose().as_bytes()).ok()?;
        mac.update(username.as_bytes());
        let password = STANDARD.encode(mac.finalize().into_bytes());
        Some(TurnPass { username, password, uris: options.uris.clone(), lifetime: options.lifetime })
    }
}

#[cfg(test)]
mod tests {
    use gatehouse_shared::clock::TurnedClock;
    use ruma::user_id;

    use super::*;

    #[test]
    fn a_password_is_what_the_turn_server_computes() {
        let options = TurnOptions {
            uris: vec!["turn:turn.example.org".to_owned()],
            shared_secret: Secret::new("north"),
            lifetime: Duration::from_secs(3600),
        };
        let turn = Turn::new(Arc::new(TurnedClock::at_ms(1_000_000)), Some(options));
        let pass = turn.pass(user_id!("@alice:example.org")).unwrap();
        assert_eq!(pass.username, "4600:@alice:example.org");
        // printf 4600:@alice:example.org | openssl dgst -sha1 -hmac north -binary | base64
        assert_eq!(pass.password, "fe3RN/E++jtw4Lw7nmGD88oLh8c=");
        assert_eq!(Turn::new(Arc::new(TurnedClock::at_ms(0)), None).pass(user_id!("@alice:example.org")), None);
    }
}
