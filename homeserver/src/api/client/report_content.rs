//! "Reporting content".

use axum::{Router, extract::State};
use ruma::api::client::{
    reporting::report_user::v3 as report_user,
    room::{report_content::v3 as report_content, report_room::v3 as report_room},
};

use crate::{
    api::{ApiError, ApiState, Ruma, RumaRouter as _, caller::Requester, json::RawJson},
    moderation::{Moderation, Reported},
};

pub(super) fn routes() -> Router<ApiState> {
    Router::new()
        .endpoint::<report_content::Request, _, _>(event)
        .endpoint::<report_room::Request, _, _>(room)
        .endpoint::<report_user::Request, _, _>(user)
}

async fn event(
    State(moderation): State<Moderation>,
    requester: Requester,
    Ruma(request): Ruma<report_content::Request>,
) -> Result<RawJson, ApiError> {
    let reported = Reported::Event { room_id: &request.room_id, event_id: &request.event_id };
    report(&moderation, &requester, reported, request.reason.as_deref().unwrap_or_default()).await
}

async fn room(
    State(moderation): State<Moderation>,
    requester: Requester,
    Ruma(request): Ruma<report_room::Request>,
) -> Result<RawJson, ApiError> {
    report(&moderation, &requester, Reported::Room { room_id: &request.room_id }, &request.reason).await
}

async fn user(
    State(moderation): State<Moderation>,
    requester: Requester,
    Ruma(request): Ruma<report_user::Request>,
) -> Result<RawJson, ApiError> {
    report(&moderation, &requester, Reported::User { user_id: &request.user_id }, &request.reason).await
}

async fn report(
    moderation: &Moderation,
    requester: &Requester,
    reported: Reported<'_>,
    reason: &str,
) -> Result<RawJson, ApiError> {
    moderation.report((&requester.user_id, requester.user_nid), reported, reason).await?;
    Ok(RawJson("{}".to_owned()))
}
