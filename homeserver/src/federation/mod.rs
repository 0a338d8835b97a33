//! What other servers send us and ask of us, and what we ask of them about rooms.
//!
//! [`receive_pdu`] is numbered as the specification's "Checks performed on receipt of a PDU". [`transaction`] takes in
//! `/send`, [`serve`] answers questions about rooms that we are in, [`resident`] lets others join, leave and knock
//! through us, [`handshake`] does the same through others for our users, [`sender`] delivers our events.

mod coalesced;
mod edu;
mod ended_afar;
mod error;
mod fetch;
mod handshake;
mod history;
mod invite;
mod query;
mod receive_pdu;
mod resident;
pub mod sender;
mod serve;
mod transaction;
mod verify;

#[cfg(test)]
mod tests;

use std::{collections::HashMap, sync::Arc};

use gatehouse_shared::clock::Clock;
use parking_lot::Mutex;
use ruma::{CanonicalJsonObject, OwnedRoomId, OwnedServerName, RoomId, ServerName};

use self::coalesced::Coalesced;
pub use self::{
    error::{HandshakeError, InviteError, QueryError, ReceivePduError, ServeError},
    handshake::{Handshake, RemoteJoin, stripped_text},
    resident::{SentJoin, Template},
    serve::{EventWithOrigin, EventsWithOrigin, StateIds},
    transaction::{MAX_EDUS, MAX_PDUS, PduOutcome, TransactionError},
};
use crate::{
    e2ee::E2ee,
    ephemeral::Ephemeral,
    remote::{FederationClient, KeyRing, RequestAuth, RequestAuthError, SigningKey},
    rooms::Rooms,
    rules::server_acl::ServerAcl,
    storage::{Db, DbError, UserNames, nid::Nids, servers},
};

/// What federation is built on.
pub struct FederationParts {
    pub db: Db,
    pub nids: Nids,
    pub names: UserNames,
    pub rooms: Rooms,
    pub key: SigningKey,
    pub key_ring: KeyRing,
    pub client: FederationClient,
    pub request_auth: RequestAuth,
    pub e2ee: E2ee,
    pub ephemeral: Ephemeral,
    pub clock: Arc<dyn Clock>,
}

/// Federation of rooms. Clones share everything.
#[derive(Clone)]
pub struct Federation {
    parts: Arc<FederationParts>,
    /// Held while an event of the room is taken in, so that events of one room come in one after the other.
    room_turns: Turns<OwnedRoomId>,
    /// Held while a transaction of the server is taken in, so that one that is sent twice is taken once.
    origin_turns: Turns<OwnedServerName>,
    /// Who asks for the ids of the same state, by its number, at the same time gets the same answer.
    state_ids: Coalesced<i64, Arc<StateIds>>,
}

impl Federation {
    pub fn new(parts: FederationParts) -> Self {
        Self {
            parts: Arc::new(parts),
            room_turns: Turns::default(),
            origin_turns: Turns::default(),
            state_ids: Coalesced::default(),
        }
    }

    /// The server that signed a request, which must be exactly as it came over the wire.
    ///
    /// # Errors
    /// See [`RequestAuthError`].
    pub async fn authenticate(
        &self,
        request: &http::Request<bytes::Bytes>,
    ) -> Result<OwnedServerName, RequestAuthError> {
        if !self.parts.client.is_enabled() {
            return Err(RequestAuthError::Disabled);
        }
        let origin = self.parts.request_auth.verify(request).await?;
        // Who speaks to us is worth speaking to.
        self.parts.client.destinations().heard_from(&origin).await;
        Ok(origin)
    }

    /// The signed answer to `GET /_matrix/key/v2/server`.
    pub fn published_keys(&self) -> CanonicalJsonObject {
        self.parts.key.published(self.now_ms())
    }

    /// Another server's document of keys, signed by it and, as its notary, by us.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn notarised_keys(
        &self,
        server: &ServerName,
        minimum_valid_until_ts: Option<u64>,
    ) -> Result<Option<CanonicalJsonObject>, DbError> {
        let Some(mut document) = self.parts.key_ring.document(server, minimum_valid_until_ts).await? else {
            return Ok(None);
        };
        if server != self.server_name() && self.parts.key.sign(&mut document).is_err() {
            return Ok(None);
        }
        Ok(Some(document))
    }

    /// This server's name.
    pub fn server_name(&self) -> &ServerName {
        self.parts.key.server_name()
    }

    fn now_ms(&self) -> u64 {
        self.parts.clock.now_ms()
    }

    /// Whether the room's access list lets a server take part. Specification: "Server Access Control Lists (ACLs)".
    async fn is_admitted(&self, room_id: &RoomId, server: &ServerName) -> Result<bool, DbError> {
        let event = self.parts.rooms.state_event(room_id, "m.room.server_acl", "").await?;
        Ok(ServerAcl::new(event.as_ref()).allows(server))
    }

    /// Whether this server takes part in the room through a joined user.
    async fn are_we_joined(&self, room_nid: i64) -> Result<bool, DbError> {
        servers::is_joined(&self.parts.db, room_nid, self.server_name()).await
    }
}

/// One turn at a time for each key. Clones share the turns.
struct Turns<K> {
    turns: Arc<Mutex<HashMap<K, Arc<tokio::sync::Mutex<()>>>>>,
}

/// Keys whose turns are remembered before unused ones are dropped.
const TURNS_REMEMBERED: usize = 1_000;

impl<K: Eq + std::hash::Hash> Turns<K> {
    async fn take(&self, key: K) -> tokio::sync::OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.turns.lock();
            if turns.len() >= TURNS_REMEMBERED {
                turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            }
            turns.entry(key).or_default().clone()
        };
        turn.lock_owned().await
    }
}

impl<K> Clone for Turns<K> {
    fn clone(&self) -> Self {
        Self { turns: self.turns.clone() }
    }
}

impl<K> Default for Turns<K> {
    fn default() -> Self {
        Self { turns: Arc::default() }
    }
}
