//! `PUT /_matrix/federation/v1/send/{txnId}`.

use axum::{
    Router,
    extract::{FromRef, State},
};
use ruma::api::federation::transactions::send_transaction_message::v1;

use tracing::Instrument;

use super::FederationOrigin;
use crate::{
    api::{ApiError, Ruma, RumaRouter},
    federation::Federation,
};

pub(super) fn routes<S>() -> Router<S>
where
    S: Clone + Send + Sync + 'static,
    Federation: FromRef<S>,
{
    Router::new().endpoint::<v1::Request, _, _>(send)
}

async fn send(
    State(federation): State<Federation>,
    FederationOrigin { origin, request }: FederationOrigin<v1::Request>,
) -> Result<Ruma<v1::Response>, ApiError> {
    if request.origin != origin {
        return Err(ApiError::forbidden("The transaction names another server than the one that signed it"));
    }
    // What was begun is finished, also when the other server hangs up: it sends the same again.
    let taking = async move {
        federation.receive_transaction(&origin, request.transaction_id.as_str(), &request.pdus, &request.edus).await
    };
    let outcomes = tokio::spawn(taking.in_current_span()).await.map_err(|_| ApiError::internal())??;
    let outcomes = outcomes.into_iter().map(|(event_id, outcome)| (event_id, outcome.error.map_or(Ok(()), Err)));
    Ok(Ruma(v1::Response::new(outcomes.collect())))
}
