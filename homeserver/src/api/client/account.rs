//! The account itself: who am I, password, deactivation, addresses.

use axum::{Router, extract::State};
use ruma::api::client::account::{ThirdPartyIdRemovalStatus, change_password, deactivate, get_3pids, whoami};

use crate::{
    accounts::{Accounts, Erasure, OtherSessions},
    api::{ApiError, ApiState, Ruma, RumaRouter, caller::Requester, interactive::Interactive},
};

pub(super) fn routes() -> Router<ApiState> {
    Router::new()
        .endpoint::<change_password::v3::Request, _, _>(set_password)
        .endpoint::<deactivate::v3::Request, _, _>(deactivate)
        .endpoint::<get_3pids::v3::Request, _, _>(third_party_ids)
        .endpoint::<whoami::v3::Request, _, _>(who_am_i)
}

async fn who_am_i(requester: Requester, _: Ruma<whoami::v3::Request>) -> Ruma<whoami::v3::Response> {
    let mut response = whoami::v3::Response::new(requester.user_id.clone(), false);
    response.device_id = Some(requester.device_id.clone());
    Ruma(response)
}

async fn set_password(
    State(accounts): State<Accounts>,
    requester: Requester,
    Interactive { request, uia }: Interactive<change_password::v3::Request>,
) -> Result<Ruma<change_password::v3::Response>, ApiError> {
    accounts.confirm(&requester, &uia).await?;
    let others = if request.logout_devices { OtherSessions::End } else { OtherSessions::Keep };
    accounts.change_password(&requester, request.new_password, others).await?;
    Ok(Ruma(change_password::v3::Response::new()))
}

async fn deactivate(
    State(accounts): State<Accounts>,
    requester: Requester,
    Interactive { request, uia }: Interactive<deactivate::v3::Request>,
) -> Result<Ruma<deactivate::v3::Response>, ApiError> {
    accounts.confirm(&requester, &uia).await?;
    let erasure = if request.erase { Erasure::Erase } else { Erasure::Keep };
    accounts.deactivate(&requester, erasure).await?;
    // No identity server was ever told of an address, so there is nothing to unbind.
    Ok(Ruma(deactivate::v3::Response::new(ThirdPartyIdRemovalStatus::Success)))
}

/// No address can be added here, so nobody has any.
async fn third_party_ids(_: Requester, _: Ruma<get_3pids::v3::Request>) -> Ruma<get_3pids::v3::Response> {
    Ruma(get_3pids::v3::Response::new(Vec::new()))
}
