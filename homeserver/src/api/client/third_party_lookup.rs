//! "Third-party networks": none is bridged here, and clients that ask hear so.

use axum::Router;
use ruma::api::client::thirdparty::get_protocols::v3 as get_protocols;

use crate::api::{ApiState, Ruma, RumaRouter as _, caller::Requester};

pub(super) fn routes() -> Router<ApiState> {
    Router::new().endpoint::<get_protocols::Request, _, _>(protocols)
}

async fn protocols(_: Requester, _: Ruma<get_protocols::Request>) -> Ruma<get_protocols::Response> {
    Ruma(get_protocols::Response::new(Default::default()))
}
