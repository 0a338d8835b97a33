//! One order: names in, certificate out. Every challenge that it sets up it also takes down.

use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeType, Error, Identifier, NewOrder, Order,
    OrderStatus, Problem, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};

use super::attempts::Blame;
use super::challenge::{Answer, ChallengeError, Challenges};
use super::store::StoreError;
use crate::config::ChallengeKind;
use crate::listener::certificates::CertificateError;

/// How long an authority may take to verify, and then to issue.
const POLL: RetryPolicy =
    RetryPolicy::new().initial_delay(Duration::from_millis(250)).backoff(1.5).timeout(Duration::from_secs(180));

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OrderError {
    /// The authority cannot be reached, or what answers is no ACME server.
    #[error("the authority cannot be spoken to")]
    Unreachable(#[source] Error),
    /// The authority refuses.
    #[error("the authority refuses: {}", told(.0))]
    Refused(Problem),
    /// The authority asked for the challenge and did not like the answer.
    #[error("the authority could not verify {name} by {challenge}: {told}")]
    Unverified {
        /// The name.
        name: String,
        /// The kind of challenge.
        challenge: &'static str,
        /// What the authority says.
        told: String,
    },
    /// The authority offers other challenges.
    #[error("the authority does not offer {challenge} for {name}")]
    NotOffered {
        /// The name.
        name: String,
        /// The kind of challenge.
        challenge: &'static str,
    },
    /// The order ended without a reason.
    #[error("the authority declared the order invalid")]
    Invalid,
    /// The challenge cannot be set up.
    #[error("cannot set up {challenge} for {name}")]
    Challenge {
        /// The name.
        name: String,
        /// The kind of challenge.
        challenge: &'static str,
        /// The reason.
        source: ChallengeError,
    },
    /// The request cannot be made.
    #[error("cannot make a request for these names")]
    Request(#[from] rcgen::Error),
    /// What the authority issued cannot be used.
    #[error("what the authority issued cannot be used")]
    Unusable(#[from] CertificateError),
    /// What the authority issued is for other names.
    #[error("the authority issued a certificate for {0} instead")]
    OtherNames(String),
    /// The state folder cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It took too long.
    #[error("the order took longer than {} minutes", .0.as_secs() / 60)]
    TooLong(Duration),
}

/// Said three times in a row: the authority is in trouble, not the order.
const BAD_NONCE: &str = "urn:ietf:params:acme:error:badNonce";
const RATE_LIMITED: &str = "urn:ietf:params:acme:error:rateLimited";
const ACCOUNT_DOES_NOT_EXIST: &str = "urn:ietf:params:acme:error:accountDoesNotExist";
const ALREADY_REPLACED: &str = "urn:ietf:params:acme:error:alreadyReplaced";

impl From<Error> for OrderError {
    fn from(error: Error) -> Self {
        match error {
            Error::Api(problem) => Self::Refused(problem),
            other => Self::Unreachable(other),
        }
    }
}

impl OrderError {
    /// Whose fault it is.
    pub(super) fn blame(&self) -> Blame {
        match self {
            Self::Refused(problem) if problem.r#type.as_deref() == Some(BAD_NONCE) => Blame::Unreachable,
            Self::Refused(problem) if problem.r#type.as_deref() == Some(RATE_LIMITED) => Blame::Limited,
            Self::Refused(problem) if problem.status.is_some_and(|status| status >= 500) => Blame::Unreachable,
            Self::Unreachable(_) | Self::TooLong(_) => Blame::Unreachable,
            Self::Refused(_)
            | Self::Unverified { .. }
            | Self::NotOffered { .. }
            | Self::Invalid
            | Self::Unusable(_)
            | Self::OtherNames(_) => Blame::Refused,
            Self::Challenge { .. } | Self::Request(_) | Self::Store(_) => Blame::Ours,
        }
    }

    /// Whether the authority has forgotten the account.
    pub(super) fn is_about_the_account(&self) -> bool {
        matches!(self, Self::Refused(problem) if problem.r#type.as_deref() == Some(ACCOUNT_DOES_NOT_EXIST))
    }
}

/// What a problem says, with each name it is about.
fn told(problem: &Problem) -> String {
    let mut text = problem.detail.clone().or_else(|| problem.r#type.clone()).unwrap_or_else(|| "no reason".to_owned());
    for part in &problem.subproblems {
        text.push_str("; ");
        text.push_str(&part.to_string());
    }
    text
}

/// What is wanted.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    pub(super) names: &'a [String],
    pub(super) challenge: ChallengeKind,
    pub(super) profile: Option<&'a str>,
    /// The certificate that this one replaces, for authorities that give renewals their place (ARI).
    pub(super) replaces: Option<CertificateIdentifier<'a>>,
}

/// What was issued, in PEM.
pub(super) struct Issued {
    pub(super) chain: String,
    pub(super) key: String,
}

/// Orders a certificate.
pub(super) async fn order(
    account: &Account,
    wanted: &Wanted<'_>,
    challenges: &Challenges,
) -> Result<Issued, OrderError> {
    // 1. The order, with an authorization for each name.
    let mut order = begin(account, wanted).await?;
    // 2. Answers to all challenges stand before the authority is told to look at any: records take time to be seen.
    let mut answers = Vec::new();
    let verified = verify(&mut order, wanted, challenges, &mut answers).await;
    // 3. Whatever came of it, nothing of it stays.
    for answer in answers {
        answer.take_down().await;
    }
    verified?;
    // 4. The request, with a key that no certificate had before.
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(wanted.names)?;
    params.distinguished_name = DistinguishedName::new();
    order.finalize_csr(params.serialize_request(&key)?.der()).await?;
    // 5. The certificate.
    let chain = order.poll_certificate(&POLL).await?;
    Ok(Issued { chain, key: key.serialize_pem() })
}

async fn begin(account: &Account, wanted: &Wanted<'_>) -> Result<Order, OrderError> {
    let identifiers: Vec<Identifier> = wanted
        .names
        .iter()
        .map(|name| name.parse().map_or_else(|_| Identifier::Dns(name.clone()), Identifier::Ip))
        .collect();
    let plain = || {
        let new = NewOrder::new(&identifiers);
        wanted.profile.into_iter().fold(new, NewOrder::profile)
    };
    let Some(replaced) = wanted.replaces.clone() else { return Ok(account.new_order(&plain()).await?) };
    match account.new_order(&plain().replaces(replaced)).await {
        // Somebody renewed it already, with the same account: then this is one more.
        Err(Error::Api(problem)) if problem.r#type.as_deref() == Some(ALREADY_REPLACED) => {
            Ok(account.new_order(&plain()).await?)
        }
        begun => Ok(begun?),
    }
}

async fn verify(
    order: &mut Order,
    wanted: &Wanted<'_>,
    challenges: &Challenges,
    answers: &mut Vec<Answer>,
) -> Result<(), OrderError> {
    let challenge = wanted.challenge.as_str();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        let name = authorization.identifier().identifier.clone();
        let name = host(&name);
        let gone = match authorization.status {
            AuthorizationStatus::Pending => None,
            AuthorizationStatus::Valid => continue,
            AuthorizationStatus::Invalid => Some("invalid"),
            AuthorizationStatus::Revoked => Some("revoked"),
            AuthorizationStatus::Expired => Some("expired"),
            AuthorizationStatus::Deactivated => Some("deactivated"),
        };
        if let Some(gone) = gone {
            return Err(OrderError::Unverified { name, challenge, told: format!("its authorization is {gone}") });
        }
        let offered = authorization.challenge(kind(wanted.challenge));
        let asked = offered.ok_or_else(|| OrderError::NotOffered { name: name.clone(), challenge })?;
        let answer = challenges.answer(wanted.challenge, &name, &asked.token, &asked.key_authorization()).await;
        answers.push(answer.map_err(|source| OrderError::Challenge { name, challenge, source })?);
    }
    if answers.is_empty() && order.state().status == OrderStatus::Ready {
        return Ok(());
    }
    for answer in answers.iter() {
        answer.seen().await.map_err(|source| OrderError::Challenge {
            name: answer.name().to_owned(),
            challenge,
            source,
        })?;
    }
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status == AuthorizationStatus::Pending
            && let Some(mut asked) = authorization.challenge(kind(wanted.challenge))
        {
            asked.set_ready().await?;
        }
    }
    match order.poll_ready(&POLL).await {
        Ok(OrderStatus::Ready | OrderStatus::Valid | OrderStatus::Processing) => Ok(()),
        Ok(_) => Err(why_invalid(order, challenge).await.unwrap_or(OrderError::Invalid)),
        Err(error) => Err(why_invalid(order, challenge).await.unwrap_or_else(|| error.into())),
    }
}

/// An order only says that it failed; the reason stands at the challenge.
async fn why_invalid(order: &mut Order, challenge: &'static str) -> Option<OrderError> {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let state = authorization.refresh().await.ok()?;
        if state.status == AuthorizationStatus::Invalid {
            let name = host(state.identifier().identifier);
            let problem = state.challenges.iter().find_map(|asked| asked.error.as_ref());
            let told = problem.map_or_else(|| "no reason".to_owned(), told);
            return Some(OrderError::Unverified { name, challenge, told });
        }
    }
    None
}

fn kind(challenge: ChallengeKind) -> ChallengeType {
    match challenge {
        ChallengeKind::Http01 => ChallengeType::Http01,
        ChallengeKind::TlsAlpn01 => ChallengeType::TlsAlpn01,
        ChallengeKind::Dns01 => ChallengeType::Dns01,
    }
}

/// The name without its wildcard, which authorities leave out here.
fn host(identifier: &Identifier) -> String {
    identifier.authorized(false).to_string()
}
