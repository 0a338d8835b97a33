//! The account itself: who am I, password, deactivation, addresses.

use axum::{Json, Router, extract::State, routing::post};
use http::StatusCode;
use ruma::api::client::account::{ThirdPartyIdRemovalStatus, change_password, deactivate, get_3pids, whoami};
use serde_json::{Value, json};

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
        .merge(addresses())
}

/// Nobody's e-mail address or telephone number is kept here, and the capabilities say so. Who asks all the same is told
/// in the words of the specification.
fn addresses() -> Router<ApiState> {
    let mut router = Router::new();
    for path in [
        "account/3pid/email/requestToken",
        "account/3pid/msisdn/requestToken",
        "account/password/email/requestToken",
        "account/password/msisdn/requestToken",
        "register/email/requestToken",
        "register/msisdn/requestToken",
    ] {
        for version in ["r0", "v3"] {
            router = router.route(&format!("/_matrix/client/{version}/{path}"), post(refuse_address));
        }
    }
    for path in ["account/3pid/add", "account/3pid/bind"] {
        router = router.route(&format!("/_matrix/client/v3/{path}"), post(refuse_to_add));
    }
    for path in ["account/3pid/delete", "account/3pid/unbind"] {
        router = router.route(&format!("/_matrix/client/v3/{path}"), post(nothing_to_delete));
    }
    router.route("/_matrix/client/v3/account/3pid", post(refuse_to_add))
}

async fn refuse_address() -> ApiError {
    ApiError::new(
        StatusCode::FORBIDDEN,
        "M_THREEPID_DENIED",
        "E-mail addresses and telephone numbers are not used on this server",
    )
}

async fn refuse_to_add(_: Requester) -> ApiError {
    refuse_address().await
}

async fn nothing_to_delete(_: Requester) -> Json<Value> {
    Json(json!({ "id_server_unbind_result": "no-support" }))
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
async fn third_party_ids(_: Requester, _: Ruma<get_3pids::v3::Request>) -> Json<Value> {
    // Ruma's type leaves an empty list out, which clients do not expect.
    Json(json!({ "threepids": [] }))
}
