//! User-interactive authentication: a request that matters is confirmed by the person behind the client.

use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::{Accounts, LoginError, Requester, UserIdentifier, secret};
use crate::storage::{DbError, uia_sessions};

/// How long a session can be gone on with, in milliseconds.
pub(super) const SESSION_LIFETIME_MS: u64 = 60 * 60 * 1000;

/// A step of a flow that this server knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Password,
    Dummy,
    RegistrationToken,
}

impl Stage {
    fn as_str(self) -> &'static str {
        match self {
            Self::Password => "m.login.password",
            Self::Dummy => "m.login.dummy",
            Self::RegistrationToken => "m.login.registration_token",
        }
    }
}

/// The `auth` of a request.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct AuthAttempt {
    /// Left out by a client that says it finished a stage elsewhere.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    pub session: Option<String>,
    pub identifier: Option<UserIdentifier>,
    /// The old form of `identifier`.
    pub user: Option<String>,
    pub password: Option<String>,
    pub token: Option<String>,
}

/// A request that has to be confirmed: what it asks for, and what it brings along.
#[derive(Debug, Clone, Default)]
pub struct UiaRequest {
    pub method: String,
    pub path: String,
    /// The body without `auth`.
    pub body: Map<String, Value>,
    pub auth: Option<AuthAttempt>,
}

/// What the client has to do next, as the specification writes it.
#[derive(Debug, Clone)]
pub struct Challenge {
    pub session: String,
    pub flows: Vec<Vec<Stage>>,
    pub completed: Vec<String>,
    /// Why the attempt that came along did not count.
    pub failure: Option<(&'static str, &'static str)>,
}

impl Challenge {
    /// The body of the 401.
    pub fn to_json(&self) -> Map<String, Value> {
        let flows: Vec<Value> = self
            .flows
            .iter()
            .map(|flow| json!({ "stages": flow.iter().map(|stage| stage.as_str()).collect::<Vec<_>>() }))
            .collect();
        let mut body = Map::new();
        body.insert("session".to_owned(), self.session.as_str().into());
        body.insert("flows".to_owned(), flows.into());
        body.insert("params".to_owned(), json!({}));
        body.insert("completed".to_owned(), self.completed.clone().into());
        if let Some((errcode, error)) = self.failure {
            body.insert("errcode".to_owned(), errcode.into());
            body.insert("error".to_owned(), error.into());
        }
        body
    }
}

/// Why a request is not confirmed.
#[derive(Debug, thiserror::Error)]
pub enum UiaError {
    #[error("more authentication is needed")]
    Needed(Box<Challenge>),
    /// A secret was wrong; the subject says whose.
    #[error("the authentication failed")]
    Failed { stage: Stage, subject: String, challenge: Box<Challenge> },
    #[error("the session was begun for another request")]
    OtherRequest,
    #[error(transparent)]
    Login(#[from] LoginError),
    #[error(transparent)]
    Db(#[from] DbError),
}

/// What a session can be used for.
enum Scope<'a> {
    /// This request of this user, with this body.
    Request(&'a Requester),
    /// A registration: nobody is authenticated yet, and clients ask for the flows before they know what to send.
    Registration,
}

/// What one stage came to.
enum Outcome {
    Done(Stage),
    Wrong(Stage, String),
    NotTried(Option<(&'static str, &'static str)>),
}

impl Accounts {
    /// Lets `request` pass when its sender confirms it with the account's password.
    ///
    /// # Errors
    /// [`UiaError::Needed`] with what the client has to do, [`UiaError::Failed`] for a wrong password, and
    /// [`UiaError::OtherRequest`] for a session that belongs to something else.
    pub async fn confirm(&self, requester: &Requester, request: &UiaRequest) -> Result<(), UiaError> {
        self.go_through(&[vec![Stage::Password]], request, Scope::Request(requester)).await
    }

    /// Lets a registration pass that completes one of `flows`.
    pub(super) async fn confirm_registration(
        &self,
        flows: &[Vec<Stage>],
        request: &UiaRequest,
    ) -> Result<(), UiaError> {
        self.go_through(flows, request, Scope::Registration).await
    }

    async fn go_through(&self, flows: &[Vec<Stage>], request: &UiaRequest, scope: Scope<'_>) -> Result<(), UiaError> {
        let digest = digest(request, &scope);
        let attempt = request.auth.clone().unwrap_or_default();
        let (session, mut completed) = match self.find_session(attempt.session.as_deref(), &digest).await? {
            Some(found) => found,
            None => (secret::opaque(), Vec::new()),
        };
        let outcome = self.try_stage(attempt, flows, &scope).await?;
        if let Outcome::Done(stage) = &outcome
            && !completed.iter().any(|done| done == stage.as_str())
        {
            completed.push(stage.as_str().to_owned());
        }
        let is_done = |flow: &Vec<Stage>| flow.iter().all(|stage| completed.iter().any(|done| done == stage.as_str()));
        if flows.iter().any(is_done) {
            self.inner.db.write(vec![uia_sessions::delete(&session)]).await?;
            return Ok(());
        }
        let list = Value::from(completed.clone()).to_string();
        let now = self.inner.clock.now_ms();
        self.inner.db.write(vec![uia_sessions::upsert(&session, &digest, &list, now)]).await?;
        let challenge = |failure| Box::new(Challenge { session, flows: flows.to_vec(), completed, failure });
        match outcome {
            Outcome::Wrong(stage, subject) => {
                let failure = Some(("M_FORBIDDEN", wrong(stage)));
                Err(UiaError::Failed { stage, subject, challenge: challenge(failure) })
            }
            Outcome::NotTried(failure) => Err(UiaError::Needed(challenge(failure))),
            Outcome::Done(_) => Err(UiaError::Needed(challenge(None))),
        }
    }

    /// A session that is still good, and the stages done in it. One that nobody knows (any more) starts anew.
    async fn find_session(
        &self,
        session: Option<&str>,
        digest: &[u8; 32],
    ) -> Result<Option<(String, Vec<String>)>, UiaError> {
        let Some(session) = session.filter(|session| !session.contains('\0')) else { return Ok(None) };
        let not_before = self.inner.clock.now_ms().saturating_sub(SESSION_LIFETIME_MS);
        let Some(row) = uia_sessions::find(&self.inner.db, session, not_before).await? else { return Ok(None) };
        if row.request_digest != digest {
            return Err(UiaError::OtherRequest);
        }
        let completed = serde_json::from_str(&row.completed)
            .map_err(|error| DbError::Corrupt(format!("uia_sessions.completed: {error}")))?;
        Ok(Some((session.to_owned(), completed)))
    }

    async fn try_stage(
        &self,
        attempt: AuthAttempt,
        flows: &[Vec<Stage>],
        scope: &Scope<'_>,
    ) -> Result<Outcome, UiaError> {
        let Some(kind) = attempt.kind.as_deref() else { return Ok(Outcome::NotTried(None)) };
        let Some(stage) = flows.iter().flatten().copied().find(|stage| stage.as_str() == kind) else {
            return Ok(Outcome::NotTried(Some(("M_UNRECOGNIZED", "This stage is in none of the flows"))));
        };
        match (stage, scope) {
            (Stage::Dummy, _) => Ok(Outcome::Done(stage)),
            (Stage::RegistrationToken, _) => match attempt.token {
                Some(token) if self.is_registration_token(&token) => Ok(Outcome::Done(stage)),
                Some(_) => Ok(Outcome::Wrong(stage, "token".to_owned())),
                None => Ok(Outcome::NotTried(Some(("M_MISSING_PARAM", "The registration token is missing")))),
            },
            (Stage::Password, Scope::Request(requester)) => self.try_password(attempt, requester).await,
            (Stage::Password, Scope::Registration) => Ok(Outcome::NotTried(None)),
        }
    }

    async fn try_password(&self, attempt: AuthAttempt, requester: &Requester) -> Result<Outcome, UiaError> {
        let Some(password) = attempt.password else {
            return Ok(Outcome::NotTried(Some(("M_MISSING_PARAM", "The password is missing"))));
        };
        // Who is named must be who asks; a client that names nobody means its own user.
        let named = attempt.identifier.and_then(|identifier| identifier.user).or(attempt.user);
        let is_own = named.is_none_or(|named| self.local_user(&named).is_some_and(|user| user == requester.user_id));
        if is_own && self.verify_password(requester.user_nid, password).await? {
            return Ok(Outcome::Done(Stage::Password));
        }
        Ok(Outcome::Wrong(Stage::Password, requester.user_id.to_string()))
    }
}

fn wrong(stage: Stage) -> &'static str {
    match stage {
        Stage::Password => "The password is wrong",
        Stage::Dummy => "The attempt failed",
        Stage::RegistrationToken => "The registration token is not valid",
    }
}

fn digest(request: &UiaRequest, scope: &Scope<'_>) -> [u8; 32] {
    let (user_nid, body) = match scope {
        Scope::Request(requester) => (requester.user_nid, Value::Object(request.body.clone()).to_string()),
        Scope::Registration => (0, String::new()),
    };
    let mut hasher = Sha256::new();
    for field in [request.method.as_str(), &request.path, &user_nid.to_string(), &body] {
        // Length before each field, so that no two requests feed the same bytes.
        hasher.update((field.len() as u64).to_le_bytes());
        hasher.update(field);
    }
    hasher.finalize().into()
}
