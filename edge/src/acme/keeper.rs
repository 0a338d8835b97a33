//! Keeps one certificate: orders it when there is none, renews it when it is due, and tries again when that fails.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gatehouse_shared::clock::Clock;
use instant_acme::CertificateIdentifier;
use prometheus_client::metrics::counter::Counter;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::account::account;
use super::attempts::{Attempts, Blame};
use super::challenge::Challenges;
use super::http_client::RetryAfter;
use super::order::{Issued, OrderError, Wanted, order};
use super::renewal::{self, Window};
use super::store::{Record, Store, moment, seconds};
use crate::chance::Chance;
use crate::config::{AcmeConfig, AuthorityConfig, CertificateFiles, chain_of};
use crate::listener::certificates::Certificate;

/// An order takes seconds; one that takes this long will not end.
const ORDER_WITHIN: Duration = Duration::from_secs(15 * 60);
/// How long to wait for another process, or another certificate of this one, that orders into the same folder.
const BUSY_PAUSE: Duration = Duration::from_secs(1);
/// The clock may be set, and machines sleep: no wait is longer than this without a look at it.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// One certificate and what is needed to keep it.
pub(crate) struct Keeper {
    pub(crate) config: AcmeConfig,
    /// At least one.
    pub(crate) names: Vec<String>,
    pub(crate) store: Store,
    pub(crate) challenges: Challenges,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) chance: Arc<Chance>,
    pub(crate) orders: Counter,
    pub(crate) failures: Counter,
    /// Puts a certificate into use.
    pub(crate) deliver: Box<dyn Fn(Certificate) + Send + Sync>,
}

/// When the certificate is due, and until when that is believed.
#[derive(Debug, Clone, Copy)]
struct Due {
    at: SystemTime,
    suggested: bool,
    look_again: SystemTime,
}

/// What came of an attempt that did not fail.
enum Attempt {
    Issued(Certificate),
    /// Another process did it.
    Found(Certificate),
    Busy,
}

impl Keeper {
    /// Keeps the certificate until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        stop.run_until_cancelled(self.keep()).await;
    }

    async fn keep(&self) {
        let record = self.store.find_record(self.name());
        let limit = |authority: &AuthorityConfig| record.limited_until.get(&authority.directory).copied().map(moment);
        let mut attempts = Attempts::new(self.config.authorities.iter().map(limit));
        let mut current = self.stored();
        let mut due: Option<Due> = None;
        loop {
            let now = self.clock.now();
            let is_believed = |due: &Due| now < due.look_again || due.at <= now;
            let renewal = match due.filter(is_believed) {
                Some(due) => due,
                None => self.due(current.as_ref(), now).await,
            };
            due = Some(renewal);
            let next = attempts.next(now);
            let at = next.not_before.map_or(renewal.at, |not_before| not_before.max(renewal.at));
            self.note(|record| {
                record.renew_at = current.as_ref().map(|_| seconds(renewal.at));
                record.suggested = renewal.suggested;
            });
            if at > now {
                self.sleep_until(if renewal.at > now { at.min(renewal.look_again) } else { at }).await;
                continue;
            }
            let Some(authority) = self.config.authorities.get(next.authority) else { return };
            let retry_after = RetryAfter::default();
            match self.attempt(authority, current.as_ref(), &retry_after).await {
                Ok(Attempt::Busy) => tokio::time::sleep(BUSY_PAUSE).await,
                Ok(Attempt::Issued(certificate) | Attempt::Found(certificate)) => {
                    attempts.succeeded();
                    current = Some(certificate);
                    due = None;
                }
                Err(error) => {
                    let asked = *retry_after.lock();
                    let spread = self.spread();
                    let now = self.clock.now();
                    let again = attempts.failed(next.authority, error.blame(), asked, now, spread);
                    self.tell(authority, &error, &attempts, again, now);
                }
            }
        }
    }

    /// The certificate's name in the state folder, logs and metrics.
    fn name(&self) -> &str {
        self.names.first().map_or("", String::as_str)
    }

    fn stored(&self) -> Option<Certificate> {
        // Whoever started the keeper has told what is wrong with a stored certificate; here it is as good as none.
        self.store.find_certificate(self.name()).ok().flatten()
    }

    fn spread(&self) -> f64 {
        // The upper 32 bits of a number, as a fraction.
        renewal::spread_of(&self.chance.number().to_be_bytes())
    }

    async fn due(&self, current: Option<&Certificate>, now: SystemTime) -> Due {
        let at_once = Due { at: now, suggested: false, look_again: now + renewal::LOOK_AGAIN };
        let Some(certificate) = current else { return at_once };
        if !certificate.holds_all(&self.names) {
            return at_once;
        }
        let spread = renewal::spread_of(&Sha256::digest(certificate.leaf()));
        if let Some((window, again)) = self.window(certificate).await
            && let Some(at) = renewal::by_window(window, spread)
        {
            return Due { at, suggested: true, look_again: now + renewal::look_again(again) };
        }
        let at = renewal::by_lifetime(certificate.not_before(), certificate.not_after(), spread);
        Due { at, ..at_once }
    }

    /// When the authority that issued the certificate suggests renewing it, if it suggests anything.
    async fn window(&self, certificate: &Certificate) -> Option<(Window, Duration)> {
        let directory = self.store.find_record(self.name()).directory?;
        let authority = self.config.authorities.iter().find(|authority| authority.directory == directory)?;
        let id = CertificateIdentifier::try_from(certificate.leaf()).ok()?;
        // Without an account there is no certificate of this authority's either.
        drop(self.store.find_account(authority)?);
        let asked = async {
            let account = account(&self.store, &self.config, authority, &self.clock, &RetryAfter::default()).await?;
            Ok::<_, OrderError>(account.renewal_info(&id).await?)
        };
        match asked.await {
            Ok((info, again)) => {
                let window = info.suggested_window;
                Some((Window { start: window.start.into(), end: window.end.into() }, again))
            }
            Err(error) => {
                debug!(certificate = self.name(), directory, error = chain_of(&error), "no suggestion when to renew");
                None
            }
        }
    }

    async fn attempt(
        &self,
        authority: &AuthorityConfig,
        current: Option<&Certificate>,
        retry_after: &RetryAfter,
    ) -> Result<Attempt, OrderError> {
        let Some(_lock) = self.store.lock()? else { return Ok(Attempt::Busy) };
        if let Some(found) = self.stored()
            && current.is_none_or(|current| current.leaf() != found.leaf())
            && found.holds_all(&self.names)
        {
            (self.deliver)(found.clone());
            return Ok(Attempt::Found(found));
        }
        info!(
            certificate = self.name(),
            authority = authority.directory,
            challenge = self.config.challenge.as_str(),
            "ordering a certificate"
        );
        let ordered = tokio::time::timeout(ORDER_WITHIN, self.order(authority, current, retry_after)).await;
        let issued = ordered.unwrap_or(Err(OrderError::TooLong(ORDER_WITHIN)))?;
        let files = CertificateFiles { chain: "(issued)".into(), key: "(issued)".into() };
        let certificate = Certificate::from_pem(issued.chain.as_bytes(), issued.key.as_bytes(), &files)?;
        if !certificate.holds_all(&self.names) {
            return Err(OrderError::OtherNames(certificate.identities().join(", ")));
        }
        self.orders.inc();
        (self.deliver)(certificate.clone());
        info!(
            certificate = self.name(),
            issuer = certificate.issuer(),
            expires = httpdate::fmt_http_date(certificate.not_after()),
            "a certificate was issued and is in use"
        );
        // It serves, stored or not; not stored it is ordered again at the next start.
        if let Err(error) = self.store.keep_certificate(self.name(), &issued.chain, &issued.key) {
            warn!(certificate = self.name(), error = chain_of(&error), "the certificate is not stored");
        }
        self.note(|record| {
            *record = Record {
                directory: Some(authority.directory.clone()),
                limited_until: std::mem::take(&mut record.limited_until),
                ..Record::default()
            };
        });
        Ok(Attempt::Issued(certificate))
    }

    async fn order(
        &self,
        authority: &AuthorityConfig,
        current: Option<&Certificate>,
        retry_after: &RetryAfter,
    ) -> Result<Issued, OrderError> {
        let is_from_here = self.store.find_record(self.name()).directory.as_ref() == Some(&authority.directory);
        let replaced = current.filter(|current| is_from_here && current.holds_all(&self.names));
        let replaces = replaced.and_then(|current| CertificateIdentifier::try_from(current.leaf()).ok());
        let mut wanted = Wanted {
            names: &self.names,
            challenge: self.config.challenge,
            profile: authority.profile.as_deref(),
            replaces,
        };
        let mut account = account(&self.store, &self.config, authority, &self.clock, retry_after).await?;
        if let Some(id) = &wanted.replaces
            && account.renewal_info(id).await.is_err()
        {
            wanted.replaces = None;
        }
        match order(&account, &wanted, &self.challenges).await {
            Err(error) if error.is_about_the_account() => {
                info!(authority = authority.directory, "the authority has forgotten the account");
                self.store.delete_account(authority)?;
                account = self::account(&self.store, &self.config, authority, &self.clock, retry_after).await?;
                order(&account, &wanted, &self.challenges).await
            }
            done => done,
        }
    }

    fn tell(
        &self,
        authority: &AuthorityConfig,
        error: &OrderError,
        attempts: &Attempts,
        again: SystemTime,
        now: SystemTime,
    ) {
        self.failures.inc();
        let next = attempts.next(now);
        let at = next.not_before.map_or(now, |at| at.max(now));
        let directory = self.config.authorities.get(next.authority).map_or("", |next| next.directory.as_str());
        warn!(
            certificate = self.name(),
            authority = authority.directory,
            error = chain_of(error),
            next_authority = directory,
            next_attempt = httpdate::fmt_http_date(at),
            "no certificate was issued; the one in use stays"
        );
        self.note(|record| {
            record.failure = Some(format!("{}: {}", authority.directory, chain_of(error)));
            record.next_attempt = Some(seconds(at));
            if error.blame() == Blame::Limited {
                record.limited_until.insert(authority.directory.clone(), seconds(again));
            }
        });
    }

    fn note(&self, change: impl FnOnce(&mut Record)) {
        let mut record = self.store.find_record(self.name());
        change(&mut record);
        if let Err(error) = self.store.keep_record(self.name(), &record) {
            warn!(certificate = self.name(), error = chain_of(&error), "how the orders stand is not stored");
        }
    }

    async fn sleep_until(&self, at: SystemTime) {
        while let Ok(left) = at.duration_since(self.clock.now()) {
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left.min(LONGEST_SLEEP)).await;
        }
    }
}
