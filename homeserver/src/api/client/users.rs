//! "User directory".

use axum::{Router, extract::State};
use ruma::api::client::user_directory::search_users::v3 as search_users;

use crate::{
    api::{ApiError, ApiState, Ruma, RumaRouter as _, caller::Requester},
    rooms::Rooms,
};

pub(super) fn routes() -> Router<ApiState> {
    Router::new().endpoint::<search_users::Request, _, _>(search)
}

async fn search(
    State(rooms): State<Rooms>,
    requester: Requester,
    Ruma(request): Ruma<search_users::Request>,
) -> Result<Ruma<search_users::Response>, ApiError> {
    let limit = usize::try_from(request.limit).unwrap_or(usize::MAX);
    let found = rooms.search_users(requester.user_nid, &request.search_term, limit).await?;
    let users = found.users.into_iter().map(|user| {
        let mut shown = search_users::User::new(user.user_id);
        shown.display_name = user.display_name;
        shown.avatar_url = user.avatar_url;
        shown
    });
    Ok(Ruma(search_users::Response::new(users.collect(), found.is_limited)))
}
