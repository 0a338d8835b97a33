//! What relates to an event: one handler for the three forms of the endpoint.

use axum::{Router, extract::State};
use ruma::{
    EventId, RoomId, UInt,
    api::client::relations::{
        get_relating_events::v1 as all, get_relating_events_with_rel_type::v1 as of_relation,
        get_relating_events_with_rel_type_and_event_type::v1 as of_type,
    },
};

use super::message_pagination::{direction, reader, token};
use crate::{
    api::{ApiError, ApiState, Ruma, RumaRouter, caller::Requester, json::RawJson},
    sync::{
        Syncer,
        room::{Recursion, RelationsQuery},
    },
};

/// Events of one page when the client asks for no number.
const DEFAULT_LIMIT: usize = 5;

pub(super) fn routes() -> Router<ApiState> {
    Router::new()
        .endpoint::<all::Request, _, _>(all)
        .endpoint::<of_relation::Request, _, _>(of_relation)
        .endpoint::<of_type::Request, _, _>(of_type)
}

async fn all(
    State(sync): State<Syncer>,
    requester: Requester,
    Ruma(request): Ruma<all::Request>,
) -> Result<RawJson, ApiError> {
    let page = Page {
        dir: request.dir,
        from: request.from.as_deref(),
        to: request.to.as_deref(),
        limit: request.limit,
        recurse: request.recurse,
    };
    answer(&sync, &requester, &request.room_id, &request.event_id, page.query(None, None)?).await
}

async fn of_relation(
    State(sync): State<Syncer>,
    requester: Requester,
    Ruma(request): Ruma<of_relation::Request>,
) -> Result<RawJson, ApiError> {
    let page = Page {
        dir: request.dir,
        from: request.from.as_deref(),
        to: request.to.as_deref(),
        limit: request.limit,
        recurse: request.recurse,
    };
    let rel_type = Some(request.rel_type.to_string());
    answer(&sync, &requester, &request.room_id, &request.event_id, page.query(rel_type, None)?).await
}

async fn of_type(
    State(sync): State<Syncer>,
    requester: Requester,
    Ruma(request): Ruma<of_type::Request>,
) -> Result<RawJson, ApiError> {
    let page = Page {
        dir: request.dir,
        from: request.from.as_deref(),
        to: request.to.as_deref(),
        limit: request.limit,
        recurse: request.recurse,
    };
    let (rel_type, event_type) = (Some(request.rel_type.to_string()), Some(request.event_type.to_string()));
    answer(&sync, &requester, &request.room_id, &request.event_id, page.query(rel_type, event_type)?).await
}

/// What the three forms have in common.
struct Page<'a> {
    dir: ruma::api::Direction,
    from: Option<&'a str>,
    to: Option<&'a str>,
    limit: Option<UInt>,
    recurse: bool,
}

impl Page<'_> {
    fn query(&self, rel_type: Option<String>, event_type: Option<String>) -> Result<RelationsQuery, ApiError> {
        let limit = self.limit.map(|limit| usize::try_from(u64::from(limit)).unwrap_or(usize::MAX));
        Ok(RelationsQuery {
            rel_type,
            event_type,
            direction: direction(self.dir),
            from: token(self.from)?,
            to: token(self.to)?,
            limit: limit.unwrap_or(DEFAULT_LIMIT),
            recursion: if self.recurse { Recursion::On } else { Recursion::Off },
        })
    }
}

async fn answer(
    sync: &Syncer,
    requester: &Requester,
    room_id: &RoomId,
    event_id: &EventId,
    query: RelationsQuery,
) -> Result<RawJson, ApiError> {
    Ok(RawJson(sync.relations(reader(requester), room_id, event_id, &query).await?))
}
