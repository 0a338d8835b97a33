//! `GET /_matrix/federation/v1/version`.

use axum::{Router, extract::FromRef};
use ruma::api::federation::discovery::get_server_version::v1;

use crate::{
    api::{Ruma, RumaRouter},
    federation::Federation,
};

pub(super) fn routes<S>() -> Router<S>
where
    S: Clone + Send + Sync + 'static,
    Federation: FromRef<S>,
{
    Router::new().endpoint::<v1::Request, _, _>(version)
}

async fn version(_: Ruma<v1::Request>) -> Ruma<v1::Response> {
    let mut server = v1::Server::new();
    server.name = Some("Gatehouse".to_owned());
    server.version = Some(env!("CARGO_PKG_VERSION").to_owned());
    let mut response = v1::Response::new();
    response.server = Some(server);
    Ruma(response)
}
