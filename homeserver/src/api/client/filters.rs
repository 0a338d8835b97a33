//! Filters.

use axum::{Router, extract::State};
use ruma::api::client::filter::{create_filter, get_filter};

use crate::{
    accounts::Accounts,
    api::{ApiError, ApiState, Ruma, RumaRouter, caller::Requester},
};

pub(super) fn routes() -> Router<ApiState> {
    Router::new().endpoint::<create_filter::v3::Request, _, _>(create).endpoint::<get_filter::v3::Request, _, _>(get)
}

async fn create(
    State(accounts): State<Accounts>,
    requester: Requester,
    Ruma(request): Ruma<create_filter::v3::Request>,
) -> Result<Ruma<create_filter::v3::Response>, ApiError> {
    requester.must_be(&request.user_id)?;
    let filter_id = accounts.create_filter(&requester, &request.filter).await?;
    Ok(Ruma(create_filter::v3::Response::new(filter_id)))
}

async fn get(
    State(accounts): State<Accounts>,
    requester: Requester,
    Ruma(request): Ruma<get_filter::v3::Request>,
) -> Result<Ruma<get_filter::v3::Response>, ApiError> {
    requester.must_be(&request.user_id)?;
    let filter = accounts.filter(requester.user_nid, &request.filter_id).await?;
    Ok(Ruma(get_filter::v3::Response::new(filter)))
}
