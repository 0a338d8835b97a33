//! Decides which keys another server signs with: fetched from it or from trusted notaries, kept, and asked for again
//! when they may be out of date.
//!
//! Specification: server-server API, "Retrieving server keys".

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use gatehouse_shared::clock::Clock;
use parking_lot::Mutex;
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, OwnedServerName, ServerName,
    api::federation::discovery::{ServerSigningKeys, get_remote_server_keys_batch, get_server_keys},
    serde::{Base64, Raw},
};

use super::{
    client::{FederationClient, RequestError},
    signing_key::SigningKey,
};
use crate::{
    rules::{
        canonical,
        signatures::{PublicKeyMap, PublicKeySet, RequiredSignature, verify_object_signatures},
    },
    storage::{
        Db, DbError,
        server_keys::{self as table, StoredDocument, StoredKey},
    },
};

/// No document is believed for longer than this after it was fetched: seven days.
const LONGEST_VALIDITY_MS: u64 = 7 * 24 * 60 * 60 * 1000;
/// How often one server's keys are fetched at most, whatever came of it.
const FETCH_INTERVAL_MS: u64 = 60_000;
/// Keys of one document that are taken.
const KEYS_TAKEN: usize = 100;
/// Servers whose keys are in memory.
const REMEMBERED: usize = 5_000;

/// Why a key cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Neither the server nor a notary answered with keys that can be believed.
    #[error("the server's keys cannot be fetched")]
    Fetch(#[source] Arc<FetchError>),
    /// It was tried a moment ago, in vain.
    #[error("the server's keys could not be fetched a moment ago")]
    TriedBefore,
    /// The server published its keys, and this is none of them.
    #[error("the server has no such key")]
    UnknownKey,
    #[error(transparent)]
    Db(#[from] DbError),
}

/// Why one fetch of keys failed.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error("the document of keys is of another server")]
    OtherServer,
    #[error("the document of keys is not signed by the server itself")]
    NotSigned,
    #[error("the document of keys is not signed by the notary")]
    NotSignedByNotary,
    #[error("the document of keys cannot be understood")]
    Nonsense,
    #[error("no notary knows the server")]
    UnknownToNotaries,
}

/// The keys of other servers. Clones share them.
#[derive(Clone)]
pub struct KeyRing {
    shared: Arc<Shared>,
}

struct Shared {
    db: Db,
    client: FederationClient,
    own: SigningKey,
    notaries: Vec<OwnedServerName>,
    clock: Arc<dyn Clock>,
    known: Mutex<HashMap<OwnedServerName, Arc<Known>>>,
    fetches: Mutex<HashMap<OwnedServerName, Arc<tokio::sync::Mutex<LastFetch>>>>,
}

/// What is stored of a server.
struct Known {
    document: StoredDocument,
    keys: Vec<StoredKey>,
}

/// When a server's keys were last fetched. Held while they are, so that many who need them wait for one fetch.
#[derive(Default)]
struct LastFetch {
    at_ms: u64,
}

impl KeyRing {
    pub fn new(
        db: Db,
        client: FederationClient,
        own: SigningKey,
        notaries: Vec<OwnedServerName>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let (known, fetches) = (Mutex::default(), Mutex::default());
        Self { shared: Arc::new(Shared { db, client, own, notaries, clock, known, fetches }) }
    }

    /// The keys with which `server` signs requests now, among them `key_id`.
    ///
    /// # Errors
    /// When the key is none of the server's, or its keys cannot be had.
    pub async fn current(&self, server: &ServerName, key_id: &str) -> Result<PublicKeySet, KeyError> {
        let now = self.shared.clock.now_ms();
        let good = |key: &StoredKey| key.is_current && key.valid_until_ts > now;
        let known = self.with_key(server, |keys| keys.iter().any(|key| key.key_id == key_id && good(key))).await?;
        Ok(known.keys.iter().filter(|key| good(key)).filter_map(public_key).collect())
    }

    /// The keys for the signatures that events require. A server whose keys cannot be had is absent, so that the
    /// verification fails by itself.
    ///
    /// # Errors
    /// Those of the database only.
    pub async fn for_events(&self, required: &[RequiredSignature]) -> Result<PublicKeyMap, DbError> {
        let mut map = PublicKeyMap::new();
        for signature in required {
            let server = &*signature.server_name;
            if server == self.shared.own.server_name() {
                map.insert(server.to_string(), self.own_keys());
                continue;
            }
            let fits = |key: &StoredKey| {
                signature.key_ids.contains(&key.key_id)
                    && signature.valid_at.is_none_or(|at| u64::from(at.get()) <= key.valid_until_ts)
            };
            let keys = match self.with_key(server, |keys| keys.iter().any(fits)).await {
                Ok(known) => known.keys.iter().filter(|key| fits(key)).filter_map(public_key).collect(),
                Err(KeyError::Db(error)) => return Err(error),
                Err(error) => {
                    tracing::debug!(error = &error as &dyn std::error::Error, %server, "no key for an event");
                    PublicKeySet::new()
                }
            };
            // Several events of one batch may need different keys of one server.
            map.entry(server.to_string()).or_default().extend(keys);
        }
        Ok(map)
    }

    /// The document of keys of `server` as it signed it, at least valid until `minimum_valid_until_ts` where it can be
    /// had; for those who ask us as a notary.
    ///
    /// # Errors
    /// Those of the database only.
    pub async fn document(
        &self,
        server: &ServerName,
        minimum_valid_until_ts: Option<u64>,
    ) -> Result<Option<CanonicalJsonObject>, DbError> {
        if server == self.shared.own.server_name() {
            return Ok(Some(self.shared.own.published(self.shared.clock.now_ms())));
        }
        let wanted = minimum_valid_until_ts.unwrap_or_else(|| self.shared.clock.now_ms());
        let known = match self.with(server, |known| known.document.valid_until_ts >= wanted).await {
            Ok(known) => Some(known),
            Err(KeyError::Db(error)) => return Err(error),
            // What we hold may be old, which is better than nothing for somebody who verifies old events.
            Err(_) => self.known(server).await?,
        };
        Ok(known.and_then(|known| canonical::parse_object(known.document.document.as_bytes()).ok()))
    }

    fn own_keys(&self) -> PublicKeySet {
        let own = &self.shared.own;
        PublicKeySet::from([(own.key_id(), Base64::new(own.public_key().to_vec()))])
    }

    async fn with_key(&self, server: &ServerName, good: impl Fn(&[StoredKey]) -> bool) -> Result<Arc<Known>, KeyError> {
        self.with(server, |known| good(&known.keys)).await
    }

    /// What is known of `server` if that is `enough`, else what it says now.
    async fn with(&self, server: &ServerName, enough: impl Fn(&Known) -> bool) -> Result<Arc<Known>, KeyError> {
        if let Some(known) = self.known(server).await?
            && enough(&known)
        {
            return Ok(known);
        }
        let turn = self.shared.fetches.lock().entry(server.to_owned()).or_default().clone();
        let mut last_fetch = turn.lock().await;
        // Whoever was first may have brought what we need.
        let known = self.known(server).await?;
        if let Some(known) = known.as_ref().filter(|known| enough(known)) {
            return Ok(known.clone());
        }
        let now = self.shared.clock.now_ms();
        let fetched_ts = known.as_ref().map_or(0, |known| known.document.fetched_ts);
        if now.saturating_sub(last_fetch.at_ms.max(fetched_ts)) < FETCH_INTERVAL_MS {
            return Err(if known.is_some() { KeyError::UnknownKey } else { KeyError::TriedBefore });
        }
        last_fetch.at_ms = now;
        let known = self.fetch(server).await?;
        if enough(&known) { Ok(known) } else { Err(KeyError::UnknownKey) }
    }

    async fn known(&self, server: &ServerName) -> Result<Option<Arc<Known>>, DbError> {
        if let Some(known) = self.shared.known.lock().get(server) {
            return Ok(Some(known.clone()));
        }
        let Some(document) = table::find_document(&self.shared.db, server).await? else { return Ok(None) };
        let keys = table::list_keys(&self.shared.db, server).await?;
        Ok(Some(self.remember(server, Known { document, keys })))
    }

    fn remember(&self, server: &ServerName, known: Known) -> Arc<Known> {
        let known = Arc::new(known);
        let mut all = self.shared.known.lock();
        if all.len() >= REMEMBERED {
            all.clear();
            self.shared.fetches.lock().retain(|_, turn| Arc::strong_count(turn) > 1);
        }
        all.insert(server.to_owned(), known.clone());
        known
    }

    /// Asks the server itself, then the notaries, and stores what can be believed.
    async fn fetch(&self, server: &ServerName) -> Result<Arc<Known>, KeyError> {
        let (document, parsed) = match self.fetch_directly(server).await {
            Ok(fetched) => fetched,
            Err(error) => match self.fetch_from_notaries(server).await {
                Some(fetched) => fetched,
                None => return Err(KeyError::Fetch(Arc::new(error))),
            },
        };
        let now = self.shared.clock.now_ms();
        let (document, keys) = stored_form(document, &parsed, now);
        table::store(&self.shared.db, server, &document, &keys).await?;
        // Keys of earlier documents are in the table only.
        let keys = table::list_keys(&self.shared.db, server).await?;
        Ok(self.remember(server, Known { document, keys }))
    }

    async fn fetch_directly(
        &self,
        server: &ServerName,
    ) -> Result<(CanonicalJsonObject, ServerSigningKeys), FetchError> {
        let answer = self.shared.client.send_unsigned(server, get_server_keys::v2::Request::new()).await?;
        verified(server, &answer.server_key)
    }

    async fn fetch_from_notaries(&self, server: &ServerName) -> Option<(CanonicalJsonObject, ServerSigningKeys)> {
        for notary in self.shared.notaries.iter().filter(|notary| &***notary != server) {
            match self.fetch_from_notary(server, notary).await {
                Ok(fetched) => return Some(fetched),
                Err(error) => {
                    tracing::debug!(error = &error as &dyn std::error::Error, %server, %notary, "a notary did not help");
                }
            }
        }
        None
    }

    async fn fetch_from_notary(
        &self,
        server: &ServerName,
        notary: &ServerName,
    ) -> Result<(CanonicalJsonObject, ServerSigningKeys), FetchError> {
        // The notary answers with all keys when none is named.
        let query = BTreeMap::from([(server.to_owned(), BTreeMap::new())]);
        let request = get_remote_server_keys_batch::v2::Request::new(query);
        let answer = self.shared.client.send_unsigned(notary, request).await?;
        // Boxed, because the notary's own keys come through the same door; they are fetched from it alone.
        let (_, notary_keys) = Box::pin(self.fetch_directly(notary)).await?;
        for raw in answer.server_keys.iter().take(KEYS_TAKEN) {
            let Ok((document, parsed)) = verified(server, raw) else { continue };
            verify_by(&document, notary, &notary_keys).ok_or(FetchError::NotSignedByNotary)?;
            return Ok((document, parsed));
        }
        Err(FetchError::UnknownToNotaries)
    }
}

/// The document, if it is of `server` and signed by it.
fn verified(
    server: &ServerName,
    raw: &Raw<ServerSigningKeys>,
) -> Result<(CanonicalJsonObject, ServerSigningKeys), FetchError> {
    let document = canonical::parse_object(raw.json().get().as_bytes()).map_err(|_| FetchError::Nonsense)?;
    let parsed = raw.deserialize().map_err(|_| FetchError::Nonsense)?;
    if parsed.server_name != server {
        return Err(FetchError::OtherServer);
    }
    verify_by(&document, server, &parsed).ok_or(FetchError::NotSigned)?;
    Ok((document, parsed))
}

/// Whether `signer`, whose keys are `keys`, signed the document. What others signed is not looked at.
fn verify_by(document: &CanonicalJsonObject, signer: &ServerName, keys: &ServerSigningKeys) -> Option<()> {
    let signatures = document.get("signatures")?.as_object()?.get(signer.as_str())?;
    let mut document = document.clone();
    let only = CanonicalJsonObject::from([(signer.to_string(), signatures.clone())]);
    document.insert("signatures".to_owned(), CanonicalJsonValue::Object(only));
    let set: PublicKeySet =
        keys.verify_keys.iter().take(KEYS_TAKEN).map(|(id, key)| (id.to_string(), key.key.clone())).collect();
    verify_object_signatures(&document, &PublicKeyMap::from([(signer.to_string(), set)])).ok()
}

fn stored_form(
    document: CanonicalJsonObject,
    parsed: &ServerSigningKeys,
    now: u64,
) -> (StoredDocument, Vec<StoredKey>) {
    let valid_until_ts = u64::from(parsed.valid_until_ts.get()).min(now.saturating_add(LONGEST_VALIDITY_MS));
    let current = parsed.verify_keys.iter().take(KEYS_TAKEN).map(|(id, key)| StoredKey {
        key_id: id.to_string(),
        public_key: key.key.encode(),
        valid_until_ts,
        is_current: true,
    });
    let old = parsed.old_verify_keys.iter().take(KEYS_TAKEN).map(|(id, key)| StoredKey {
        key_id: id.to_string(),
        public_key: key.key.encode(),
        valid_until_ts: key.expired_ts.get().into(),
        is_current: false,
    });
    // A key that is named as both is current: the later one of two equal rows wins.
    let keys = old.chain(current).collect();
    (StoredDocument { document: canonical::to_text(&document), valid_until_ts, fetched_ts: now }, keys)
}

fn public_key(key: &StoredKey) -> Option<(String, Base64)> {
    Some((key.key_id.clone(), Base64::parse(&key.public_key).ok()?))
}

#[cfg(test)]
mod tests;
