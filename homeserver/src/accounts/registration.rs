//! Making accounts: over the network (open, closed, by token), by Synapse's shared secret, and by the operator.

use std::net::IpAddr;

use gatehouse_shared::config::Secret;
use hmac::{Hmac, KeyInit as _, Mac as _};
use ruma::OwnedUserId;
use sha1::Sha1;

use super::{
    Accounts, HashError, LoginError, NewSession, Passwords, Stage, UiaError, UiaRequest, UsernameError,
    login::{NewDevice, check_device},
    secret, username,
};
use crate::storage::{Db, DbError, Stmt, UserNames, profiles, uia_sessions, users};

/// How long a nonce of the registration by shared secret is good, in milliseconds.
const NONCE_LIFETIME_MS: u64 = 60 * 1000;
/// The longest password that is taken, in bytes.
const MAX_PASSWORD_BYTES: usize = 1024;

/// Who may make accounts over the network.
#[derive(Debug, Clone)]
pub enum RegistrationPolicy {
    Open { shared_secret: Option<Secret> },
    Closed { shared_secret: Option<Secret> },
    Token { tokens: Vec<Secret>, shared_secret: Option<Secret> },
}

impl RegistrationPolicy {
    fn shared_secret(&self) -> Option<&Secret> {
        match self {
            Self::Open { shared_secret } | Self::Closed { shared_secret } | Self::Token { shared_secret, .. } => {
                shared_secret.as_ref()
            }
        }
    }
}

/// A registration over the network.
#[derive(Debug, Default)]
pub struct RegisterRequest {
    pub username: Option<String>,
    pub password: Option<String>,
    pub device: NewDevice,
    /// Whether the new user is logged in at once.
    pub inhibit_login: bool,
}

/// A registration by Synapse's shared secret.
#[derive(Debug)]
pub struct SharedSecretRequest {
    pub nonce: String,
    pub username: String,
    pub password: String,
    pub displayname: Option<String>,
    pub is_admin: bool,
    pub user_type: Option<String>,
    /// Hexadecimal HMAC-SHA1.
    pub mac: String,
}

/// A user that was made.
#[derive(Debug)]
pub struct Registered {
    pub user_id: OwnedUserId,
    pub session: Option<NewSession>,
}

/// An account to make.
#[derive(Debug)]
pub struct NewUser {
    pub localpart: String,
    /// `None`: no password logs this user in.
    pub password: Option<String>,
    pub displayname: Option<String>,
    pub is_admin: bool,
}

/// Why no account was made.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    #[error("this server does not take registrations")]
    Closed,
    #[error("the user name is taken")]
    InUse,
    #[error(transparent)]
    Username(#[from] UsernameError),
    #[error("a password is needed")]
    NoPassword,
    #[error("the password is empty or longer than {MAX_PASSWORD_BYTES} bytes")]
    WeakPassword,
    #[error("the nonce is not known, was used, or is too old")]
    UnknownNonce,
    #[error("the MAC is wrong")]
    WrongMac,
    #[error(transparent)]
    Uia(#[from] UiaError),
    #[error(transparent)]
    Session(#[from] LoginError),
    #[error(transparent)]
    Hash(#[from] HashError),
    #[error(transparent)]
    Db(#[from] DbError),
}

impl Accounts {
    /// Makes an account for who asks over the network, when the policy allows it.
    ///
    /// # Errors
    /// [`RegisterError::Uia`] with what the client has to do first.
    pub async fn register(
        &self,
        request: RegisterRequest,
        uia: &UiaRequest,
        client: IpAddr,
    ) -> Result<Registered, RegisterError> {
        let flows = match &self.inner.policy {
            RegistrationPolicy::Closed { .. } => return Err(RegisterError::Closed),
            RegistrationPolicy::Open { .. } => vec![vec![Stage::Dummy]],
            RegistrationPolicy::Token { .. } => vec![vec![Stage::RegistrationToken]],
        };
        check_device(&request.device)?;
        // A name that cannot be had is told before the client goes through the stages.
        let localpart = match request.username {
            Some(username) => {
                self.username_available(&username).await?;
                username
            }
            None => secret::localpart(),
        };
        self.confirm_registration(&flows, uia).await?;
        let password = Some(request.password.ok_or(RegisterError::NoPassword)?);
        let user = NewUser { localpart, password, displayname: None, is_admin: false };
        let (user_nid, user_id) = self.create(user).await?;
        let session = if request.inhibit_login {
            None
        } else {
            Some(self.begin_session(user_nid, user_id.clone(), request.device, client).await?)
        };
        Ok(Registered { user_id, session })
    }

    /// Whether a new user could have this name.
    ///
    /// # Errors
    /// [`RegisterError::InUse`] or [`RegisterError::Username`] when not.
    pub async fn username_available(&self, localpart: &str) -> Result<(), RegisterError> {
        let user_id = username::parse_new(localpart, self.server_name())?;
        match self.find_local(&user_id).await? {
            Some(_) => Err(RegisterError::InUse),
            None => Ok(()),
        }
    }

    /// Whether strangers can ask for a name at all.
    pub fn takes_registrations(&self) -> bool {
        !matches!(self.inner.policy, RegistrationPolicy::Closed { .. })
    }

    /// Whether this token lets somebody register.
    pub fn is_registration_token(&self, token: &str) -> bool {
        match &self.inner.policy {
            RegistrationPolicy::Token { tokens, .. } => tokens
                .iter()
                .fold(false, |found, known| secret::equal(known.expose().as_bytes(), token.as_bytes()) | found),
            _ => false,
        }
    }

    /// A nonce for a registration by shared secret, good for one minute and one use.
    ///
    /// # Errors
    /// [`RegisterError::Closed`] when no shared secret is configured.
    pub async fn registration_nonce(&self) -> Result<String, RegisterError> {
        self.inner.policy.shared_secret().ok_or(RegisterError::Closed)?;
        let nonce = secret::opaque();
        let now = self.inner.clock.now_ms();
        self.inner.db.write(vec![uia_sessions::insert_nonce(&nonce, now)]).await?;
        Ok(nonce)
    }

    /// Makes an account for who knows the shared secret, and logs it in.
    ///
    /// # Errors
    /// [`RegisterError::UnknownNonce`], [`RegisterError::WrongMac`], and those of every account.
    pub async fn register_with_shared_secret(
        &self,
        request: SharedSecretRequest,
        client: IpAddr,
    ) -> Result<NewSession, RegisterError> {
        let secret = self.inner.policy.shared_secret().ok_or(RegisterError::Closed)?;
        let not_before = self.inner.clock.now_ms().saturating_sub(NONCE_LIFETIME_MS);
        let nonce = request.nonce.replace('\0', "");
        let taken = self.inner.db.write(vec![uia_sessions::take_nonce(&nonce, not_before)]).await?;
        if taken.first().is_none_or(|outcome| outcome.affected == 0) {
            return Err(RegisterError::UnknownNonce);
        }
        if !mac_is_right(secret, &request) {
            return Err(RegisterError::WrongMac);
        }
        let SharedSecretRequest { username, password, displayname, is_admin, .. } = request;
        let user = NewUser { localpart: username, password: Some(password), displayname, is_admin };
        let (user_nid, user_id) = self.create(user).await?;
        Ok(self.begin_session(user_nid, user_id, NewDevice::default(), client).await?)
    }

    async fn create(&self, user: NewUser) -> Result<(i64, OwnedUserId), RegisterError> {
        let Self { inner } = self;
        create_user(&inner.db, &inner.names, &inner.passwords, &inner.server_name, inner.clock.now_ms(), user).await
    }
}

/// Makes an account; the operator's command line calls this beside a running shard.
///
/// # Errors
/// [`RegisterError::InUse`], [`RegisterError::Username`], [`RegisterError::WeakPassword`], and those of the database.
pub async fn create_user(
    db: &Db,
    names: &UserNames,
    passwords: &Passwords,
    server_name: &ruma::ServerName,
    now_ms: u64,
    user: NewUser,
) -> Result<(i64, OwnedUserId), RegisterError> {
    let user_id = username::parse_new(&user.localpart, server_name)?;
    let hash = match user.password {
        Some(password) => {
            check_password(&password)?;
            Some(passwords.hash(password).await?)
        }
        None => None,
    };
    let user_nid = names.nid(&user_id).await?;
    let mut tx = db.begin().await?;
    let created = tx.run(vec![users::insert(user_nid, hash.as_deref(), user.is_admin, now_ms)]).await?;
    if created.first().is_none_or(|outcome| outcome.affected == 0) {
        return Err(RegisterError::InUse);
    }
    let displayname = user.displayname.map(|name| name.replace('\0', ""));
    let profile = profiles::ProfileRow { displayname, avatar_url: None, fields: "{}".to_owned() };
    let rest: Vec<Stmt> =
        profile.displayname.is_some().then(|| profiles::upsert(user_nid, &profile)).into_iter().collect();
    tx.run_and_commit(rest).await?;
    Ok((user_nid, user_id))
}

/// Whether a password can be taken at all.
pub(super) fn check_password(password: &str) -> Result<(), RegisterError> {
    if password.is_empty() || password.len() > MAX_PASSWORD_BYTES { Err(RegisterError::WeakPassword) } else { Ok(()) }
}

/// HMAC-SHA1 over nonce, user name, password and role with zero bytes between, as Synapse's script makes it.
fn mac_is_right(secret: &Secret, request: &SharedSecretRequest) -> bool {
    let Some(mac) = decode_hex(&request.mac) else { return false };
    let Ok(mut hmac) = Hmac::<Sha1>::new_from_slice(secret.expose().as_bytes()) else { return false };
    let role = if request.is_admin { "admin" } else { "notadmin" };
    let fields = [request.nonce.as_str(), &request.username, &request.password, role];
    for (index, field) in fields.into_iter().chain(request.user_type.as_deref()).enumerate() {
        if index > 0 {
            hmac.update(b"\0");
        }
        hmac.update(field.as_bytes());
    }
    hmac.verify_slice(&mac).is_ok()
}

fn decode_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.chars().map(|digit| digit.to_digit(16)).collect::<Option<Vec<u32>>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().filter_map(|[high, low]| u8::try_from(high << 4 | low).ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mac_of_synapses_script_is_taken() {
        // hmac.new(b"shared", b"abcd\0alice\0secret\0notadmin", hashlib.sha1).hexdigest()
        let mut request = SharedSecretRequest {
            nonce: "abcd".to_owned(),
            username: "alice".to_owned(),
            password: "secret".to_owned(),
            displayname: None,
            is_admin: false,
            user_type: None,
            mac: "58c0383c69c361c4162db4e3e2f086d5a4cd937b".to_owned(),
        };
        assert!(mac_is_right(&Secret::new("shared"), &request));
        assert!(!mac_is_right(&Secret::new("Shared"), &request));
        request.is_admin = true;
        assert!(!mac_is_right(&Secret::new("shared"), &request));
        request.mac = "zz".to_owned();
        assert!(!mac_is_right(&Secret::new("shared"), &request));
    }
}
