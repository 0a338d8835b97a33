//! Paging through a room's history.

use axum::{Router, extract::State};
use ruma::api::client::message::get_message_events::v3 as get_messages;

use crate::{
    api::{ApiError, ApiState, Ruma, RumaRouter, caller::Requester, json::RawJson},
    sync::{
        EventFilter, LazyLoading, Syncer,
        room::{Direction, MessagesQuery},
    },
};

pub(super) fn routes() -> Router<ApiState> {
    Router::new().endpoint::<get_messages::Request, _, _>(messages)
}

async fn messages(
    State(sync): State<Syncer>,
    requester: Requester,
    Ruma(request): Ruma<get_messages::Request>,
) -> Result<RawJson, ApiError> {
    let query = MessagesQuery {
        direction: direction(request.dir),
        from: token(request.from.as_deref())?,
        to: token(request.to.as_deref())?,
        limit: usize::try_from(u64::from(request.limit)).unwrap_or(usize::MAX),
        filter: EventFilter::from(&request.filter),
        lazy: LazyLoading::from(&request.filter.lazy_load_options),
    };
    Ok(RawJson(sync.messages(reader(&requester), &request.room_id, &query).await?))
}

pub(super) fn direction(direction: ruma::api::Direction) -> Direction {
    match direction {
        ruma::api::Direction::Backward => Direction::Backward,
        ruma::api::Direction::Forward => Direction::Forward,
    }
}

/// A token of the query, if there is one.
pub(super) fn token(text: Option<&str>) -> Result<Option<crate::sync::HistoryToken>, ApiError> {
    Ok(text.filter(|text| !text.is_empty()).map(str::parse).transpose()?)
}

/// Who reads a room.
pub(super) fn reader(requester: &Requester) -> crate::sync::room::Reader<'_> {
    crate::sync::room::Reader {
        user_id: &requester.user_id,
        user_nid: requester.user_nid,
        device_id: requester.device_id.as_str(),
    }
}
