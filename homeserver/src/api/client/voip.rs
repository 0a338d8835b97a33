//! "Voice over IP": the operator's TURN server.

use axum::{
    Router,
    extract::State,
    response::{IntoResponse as _, Response},
};
use ruma::api::client::voip::get_turn_server_info::v3 as get_turn_server_info;

use crate::{
    accounts::Turn,
    api::{ApiState, Ruma, RumaRouter as _, caller::Requester, json::RawJson},
};

pub(super) fn routes() -> Router<ApiState> {
    Router::new().endpoint::<get_turn_server_info::Request, _, _>(turn_server)
}

/// Without a TURN server an empty object, which clients take for none.
async fn turn_server(
    State(turn): State<Turn>,
    requester: Requester,
    _: Ruma<get_turn_server_info::Request>,
) -> Response {
    let Some(pass) = turn.pass(&requester.user_id) else { return RawJson("{}".to_owned()).into_response() };
    let response = get_turn_server_info::Response::new(pass.username, pass.password, pass.uris, pass.lifetime);
    Ruma(response).into_response()
}
