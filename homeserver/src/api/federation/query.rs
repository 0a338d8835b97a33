//! What other servers ask about our users and aliases.

use axum::{Router, extract::State};
use ruma::api::federation::query::{get_profile_information, get_room_information};

use super::FederationOrigin;
use crate::{
    accounts::Accounts,
    api::{ApiError, ApiState, Ruma, RumaRouter},
    federation::Federation,
    membership::Membership,
};

pub(super) fn routes() -> Router<ApiState> {
    Router::new()
        .endpoint::<get_profile_information::v1::Request, _, _>(profile)
        .endpoint::<get_room_information::v1::Request, _, _>(directory)
}

async fn profile(
    State(accounts): State<Accounts>,
    FederationOrigin { request, .. }: FederationOrigin<get_profile_information::v1::Request>,
) -> Result<Ruma<get_profile_information::v1::Response>, ApiError> {
    let profile = accounts.profile(&request.user_id).await?;
    let wanted = |field: &str| request.field.as_ref().is_none_or(|wanted| wanted.as_str() == field);
    Ok(Ruma(profile.into_iter().filter(|(field, _)| wanted(field)).collect()))
}

async fn directory(
    State(federation): State<Federation>,
    State(membership): State<Membership>,
    FederationOrigin { request, .. }: FederationOrigin<get_room_information::v1::Request>,
) -> Result<Ruma<get_room_information::v1::Response>, ApiError> {
    let (room_id, mut servers) = membership.resolve_alias(&request.room_alias).await?;
    let own = federation.server_name().to_owned();
    if !servers.contains(&own) {
        servers.insert(0, own);
    }
    Ok(Ruma(get_room_information::v1::Response::new(room_id, servers)))
}
