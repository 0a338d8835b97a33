//! Fully read markers.

use axum::{Router, extract::State};
use ruma::api::client::read_marker::set_read_marker;

use crate::{
    api::{ApiError, ApiState, Ruma, RumaRouter, caller::Requester},
    ephemeral::{Ephemeral, NewReceipt, ReceiptKind},
};

pub(super) fn routes() -> Router<ApiState> {
    Router::new().endpoint::<set_read_marker::v3::Request, _, _>(set)
}

async fn set(
    State(ephemeral): State<Ephemeral>,
    requester: Requester,
    Ruma(request): Ruma<set_read_marker::v3::Request>,
) -> Result<Ruma<set_read_marker::v3::Response>, ApiError> {
    let markers = [
        (ReceiptKind::FullyRead, request.fully_read),
        (ReceiptKind::Read, request.read_receipt),
        (ReceiptKind::ReadPrivate, request.private_read_receipt),
    ];
    let receipts: Vec<NewReceipt> = markers
        .into_iter()
        .filter_map(|(kind, event_id)| Some(NewReceipt { kind, event_id: event_id?, thread_id: None }))
        .collect();
    ephemeral.set_receipts(requester.user_nid, &request.room_id, &receipts).await?;
    Ok(Ruma(set_read_marker::v3::Response::new()))
}
