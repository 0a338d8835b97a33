//! Receipts.

use axum::{Router, extract::State};
use ruma::api::client::receipt::create_receipt::{self, v3::ReceiptType};

use crate::{
    api::{ApiError, ApiState, Ruma, RumaRouter, caller::Requester},
    ephemeral::{Ephemeral, NewReceipt, ReceiptKind},
};

pub(super) fn routes() -> Router<ApiState> {
    Router::new().endpoint::<create_receipt::v3::Request, _, _>(create)
}

async fn create(
    State(ephemeral): State<Ephemeral>,
    requester: Requester,
    Ruma(request): Ruma<create_receipt::v3::Request>,
) -> Result<Ruma<create_receipt::v3::Response>, ApiError> {
    let kind = match request.receipt_type {
        ReceiptType::Read => ReceiptKind::Read,
        ReceiptType::ReadPrivate => ReceiptKind::ReadPrivate,
        ReceiptType::FullyRead => ReceiptKind::FullyRead,
        _ => return Err(ApiError::invalid_param("There is no such type of receipt")),
    };
    let thread_id = request.thread.as_str().map(str::to_owned);
    let receipt = NewReceipt { kind, event_id: request.event_id, thread_id };
    ephemeral.set_receipts(requester.user_nid, &request.room_id, &[receipt]).await?;
    Ok(Ruma(create_receipt::v3::Response::new()))
}
