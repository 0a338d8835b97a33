//! Local users: who they are, how they prove it, their devices, and what they keep for their clients.

mod account_data;
mod deactivate;
mod devices;
mod filters;
mod login;
mod openid;
mod password;
mod profile;
mod push_rules;
mod registration;
mod secret;
mod sessions;
mod turn;
mod uia;
mod upkeep;
mod username;

use std::sync::Arc;

use gatehouse_shared::clock::Clock;
use ruma::OwnedServerName;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::{
    account_data::AccountDataError,
    deactivate::{Erasure, OtherSessions, PasswordError},
    devices::{DeviceError, LogOutError},
    filters::FilterError,
    login::{LoginError, LoginRequest, NewDevice, NewSession, UserIdentifier},
    openid::OpenIdToken,
    password::{HashError, Passwords},
    profile::{Profile, ProfileError},
    push_rules::PushRuleError,
    registration::{
        NewUser, RegisterError, RegisterRequest, Registered, RegistrationPolicy, SharedSecretRequest, create_user,
    },
    sessions::{Identity, Requester, TokenError},
    turn::{Turn, TurnOptions, TurnPass},
    uia::{AuthAttempt, Challenge, Stage, UiaError, UiaRequest},
    username::UsernameError,
};
pub use crate::storage::devices::DeviceRow;
use crate::{
    membership::Membership,
    storage::{Db, UserNames},
    stream::{Lane, Stream},
};

/// The accounts of this server. Clones share everything.
#[derive(Clone)]
pub struct Accounts {
    inner: Arc<Inner>,
}

struct Inner {
    server_name: OwnedServerName,
    db: Db,
    names: UserNames,
    lane: Lane,
    membership: Membership,
    clock: Arc<dyn Clock>,
    policy: RegistrationPolicy,
    passwords: Passwords,
    sessions: sessions::Sessions,
}

/// What accounts are built from.
pub struct Parts {
    pub server_name: OwnedServerName,
    pub db: Db,
    pub names: UserNames,
    pub stream: Stream,
    pub lane: Lane,
    pub membership: Membership,
    pub clock: Arc<dyn Clock>,
    pub policy: RegistrationPolicy,
    pub passwords: Passwords,
}

impl Accounts {
    /// Starts the room; its tasks in `tasks` end at `stop`, after writing what is still to be written.
    pub fn start(parts: Parts, tasks: &TaskTracker, stop: &CancellationToken) -> Self {
        let Parts { server_name, db, names, stream, lane, membership, clock, policy, passwords } = parts;
        let sessions = sessions::Sessions::new(db.clone(), lane.clone(), clock.clone());
        let inner = Inner { server_name, db, names, lane, membership, clock, policy, passwords, sessions };
        let accounts = Self { inner: Arc::new(inner) };
        tasks.spawn(accounts.inner.sessions.clone().follow(stream, stop.clone()));
        tasks.spawn(accounts.clone().keep_up(stop.clone()));
        accounts
    }

    /// The server's name: what stands after the colon in its users' ids.
    pub fn server_name(&self) -> &ruma::ServerName {
        &self.inner.server_name
    }
}
