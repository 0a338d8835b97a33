//! Which versions of the specification are spoken.

use std::collections::BTreeMap;

use axum::Router;
use ruma::api::client::discovery::get_supported_versions;

use crate::api::{ApiState, Ruma, RumaRouter, caller::MaybeRequester};

pub(super) fn routes() -> Router<ApiState> {
    Router::new().endpoint::<get_supported_versions::Request, _, _>(versions)
}

/// The newest minor version of the specification's version 1.
const NEWEST_MINOR: u32 = 19;

/// Features that clients ask for by an old name although the versions above have them.
const UNSTABLE_FEATURES: &[&str] = &[
    "m.lazy_load_members",
    "org.matrix.e2e_cross_signing",
    "org.matrix.msc2285.stable",
    "org.matrix.msc3916.stable",
    "uk.tcpip.msc4133.stable",
];

async fn versions(
    _: MaybeRequester,
    _: Ruma<get_supported_versions::Request>,
) -> Ruma<get_supported_versions::Response> {
    let mut response =
        get_supported_versions::Response::new((1..=NEWEST_MINOR).map(|minor| format!("v1.{minor}")).collect());
    response.unstable_features =
        UNSTABLE_FEATURES.iter().map(|feature| ((*feature).to_owned(), true)).collect::<BTreeMap<_, _>>();
    Ruma(response)
}
