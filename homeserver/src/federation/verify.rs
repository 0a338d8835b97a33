//! Checks 1 to 3 of the specification's "Checks performed on receipt of a PDU", for one event or many.

use std::collections::BTreeMap;

use futures_util::{StreamExt, stream};
use ruma::RoomId;
use serde_json::value::RawValue;

use super::{Federation, ReceivePduError};
use crate::{
    rules::{
        pdu::Pdu,
        room_version::RoomVersion,
        signatures::{self, PublicKeyMap},
    },
    storage::DbError,
};

/// Servers whose keys are fetched at the same time.
const FETCHES: usize = 16;

impl Federation {
    /// The event in the form that may be used.
    pub(super) async fn verify(
        &self,
        room_id: &RoomId,
        version: RoomVersion,
        raw: &RawValue,
    ) -> Result<Pdu, ReceivePduError> {
        let pdu = parse(room_id, version, raw)?;
        let required =
            signatures::required_signatures(&pdu).map_err(|error| ReceivePduError::Malformed(error.into()))?;
        let keys = self.parts.key_ring.for_events(&required).await?;
        check_signatures(&pdu, &keys)
    }

    /// Those of many events that pass, in their order; the others are left out. Duplicates are left out too.
    pub(super) async fn verify_all(
        &self,
        room_id: &RoomId,
        version: RoomVersion,
        raws: &[&RawValue],
    ) -> Result<Vec<Pdu>, DbError> {
        let mut seen = std::collections::HashSet::new();
        let parsed = raws.iter().filter_map(|raw| match parse(room_id, version, raw) {
            Ok(pdu) => seen.insert(pdu.event_id().to_owned()).then_some(pdu),
            Err(error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, room.id = %room_id, "left out an event");
                None
            }
        });
        let parsed: Vec<(Pdu, Vec<signatures::RequiredSignature>)> = parsed
            .filter_map(|pdu| signatures::required_signatures(&pdu).ok().map(|required| (pdu, required)))
            .collect();
        self.prefetch_keys(parsed.iter().flat_map(|(_, required)| required.iter().cloned()).collect()).await?;
        let mut keyed = Vec::with_capacity(parsed.len());
        for (pdu, required) in parsed {
            let keys = self.parts.key_ring.for_events(&required).await?;
            keyed.push((pdu, keys));
        }
        // Thousands of signatures take seconds of pure computation.
        let checked = tokio::task::spawn_blocking(move || {
            let check = |(pdu, keys): (Pdu, PublicKeyMap)| match check_signatures(&pdu, &keys) {
                Ok(pdu) => Some(pdu),
                Err(error) => {
                    tracing::debug!(error = &error as &dyn std::error::Error, event.id = %pdu.event_id(), "left out an event");
                    None
                }
            };
            keyed.into_iter().filter_map(check).collect()
        });
        checked.await.map_err(|error| DbError::Unavailable(Box::new(error)))
    }

    /// Fetches the keys of many servers at the same time, so that the loop over events finds them all.
    async fn prefetch_keys(&self, required: Vec<signatures::RequiredSignature>) -> Result<(), DbError> {
        let mut by_server = BTreeMap::new();
        for signature in required {
            by_server.entry((signature.server_name.clone(), signature.key_ids.clone())).or_insert(signature);
        }
        let fetches = by_server.into_values().map(|signature| {
            let ring = self.parts.key_ring.clone();
            async move { ring.for_events(&[signature]).await.map(drop) }
        });
        let results: Vec<Result<(), DbError>> = stream::iter(fetches).buffer_unordered(FETCHES).collect().await;
        results.into_iter().collect()
    }
}

/// Check 1: a valid event, of the room that it is expected to be of.
fn parse(room_id: &RoomId, version: RoomVersion, raw: &RawValue) -> Result<Pdu, ReceivePduError> {
    let pdu = Pdu::from_json_text(version, raw.get())?;
    if pdu.room_id() != room_id {
        return Err(ReceivePduError::OtherRoom);
    }
    Ok(pdu)
}

/// Checks 2 and 3: signed by those who have to; redacted when the content is not what they signed.
fn check_signatures(pdu: &Pdu, keys: &PublicKeyMap) -> Result<Pdu, ReceivePduError> {
    match signatures::verify(pdu, keys) {
        Ok(verified) => Ok(verified.into_pdu()),
        Err(error) => Err(ReceivePduError::Signatures(error.into())),
    }
}
