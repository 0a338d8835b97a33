//! Server-side key backups.
//!
//! Bodies are read and written as they are: what clients encrypt passes through untouched.

use std::collections::BTreeMap;

use axum::{Json, Router, extract::State};
use ruma::{
    api::client::backup::{
        add_backup_keys, add_backup_keys_for_room, add_backup_keys_for_session, create_backup_version,
        delete_backup_keys, delete_backup_keys_for_room, delete_backup_keys_for_session, delete_backup_version,
        get_backup_info, get_backup_keys, get_backup_keys_for_room, get_backup_keys_for_session,
        get_latest_backup_info, update_backup_version,
    },
    serde::Raw,
};
use serde_json::{Value, json, value::RawValue};

use crate::{
    api::{ApiError, ApiState, Ruma, RumaRouter, caller::Requester},
    e2ee::{BackupInfo, BackupState, BackupWrite, E2ee, Sessions, SessionsOfRooms},
};

pub(super) fn routes() -> Router<ApiState> {
    Router::new()
        .endpoint::<add_backup_keys::v3::Request, _, _>(put_all)
        .endpoint::<add_backup_keys_for_room::v3::Request, _, _>(put_room)
        .endpoint::<add_backup_keys_for_session::v3::Request, _, _>(put_session)
        .endpoint::<create_backup_version::v3::Request, _, _>(create_version)
        .endpoint::<delete_backup_keys::v3::Request, _, _>(delete_all)
        .endpoint::<delete_backup_keys_for_room::v3::Request, _, _>(delete_room)
        .endpoint::<delete_backup_keys_for_session::v3::Request, _, _>(delete_session)
        .endpoint::<delete_backup_version::v3::Request, _, _>(delete_version)
        .endpoint::<get_backup_info::v3::Request, _, _>(get_version)
        .endpoint::<get_backup_keys::v3::Request, _, _>(get_all)
        .endpoint::<get_backup_keys_for_room::v3::Request, _, _>(get_room)
        .endpoint::<get_backup_keys_for_session::v3::Request, _, _>(get_session)
        .endpoint::<get_latest_backup_info::v3::Request, _, _>(get_latest_version)
        .endpoint::<update_backup_version::v3::Request, _, _>(update_version)
}

// --- versions

async fn create_version(
    State(e2ee): State<E2ee>,
    requester: Requester,
    Ruma(request): Ruma<create_backup_version::v3::Request>,
) -> Result<Ruma<create_backup_version::v3::Response>, ApiError> {
    let version = e2ee.create_backup(requester.user_nid, &backup_write(&request.algorithm)?).await?;
    Ok(Ruma(create_backup_version::v3::Response::new(version.to_string())))
}

async fn get_version(
    State(e2ee): State<E2ee>,
    requester: Requester,
    Ruma(request): Ruma<get_backup_info::v3::Request>,
) -> Result<Json<Value>, ApiError> {
    info(&e2ee.backup_info(requester.user_nid, Some(&request.version)).await?)
}

async fn get_latest_version(
    State(e2ee): State<E2ee>,
    requester: Requester,
    _: Ruma<get_latest_backup_info::v3::Request>,
) -> Result<Json<Value>, ApiError> {
    info(&e2ee.backup_info(requester.user_nid, None).await?)
}

async fn update_version(
    State(e2ee): State<E2ee>,
    requester: Requester,
    Ruma(request): Ruma<update_backup_version::v3::Request>,
) -> Result<Ruma<update_backup_version::v3::Response>, ApiError> {
    let backup = backup_write(&request.algorithm)?;
    e2ee.update_backup(requester.user_nid, &request.version, &backup).await?;
    Ok(Ruma(update_backup_version::v3::Response::new()))
}

async fn delete_version(
    State(e2ee): State<E2ee>,
    requester: Requester,
    Ruma(request): Ruma<delete_backup_version::v3::Request>,
) -> Result<Ruma<delete_backup_version::v3::Response>, ApiError> {
    e2ee.delete_backup(requester.user_nid, &request.version).await?;
    Ok(Ruma(delete_backup_version::v3::Response::new()))
}

// --- storing sessions

async fn put_all(
    State(e2ee): State<E2ee>,
    requester: Requester,
    Ruma(request): Ruma<add_backup_keys::v3::Request>,
) -> Result<Json<Value>, ApiError> {
    let rooms = request.rooms.into_iter().map(|(room_id, room)| (room_id.to_string(), into_json(room.sessions)));
    state(e2ee.store_sessions(requester.user_nid, &request.version, rooms.collect()).await?)
}

async fn put_room(
    State(e2ee): State<E2ee>,
    requester: Requester,
    Ruma(request): Ruma<add_backup_keys_for_room::v3::Request>,
) -> Result<Json<Value>, ApiError> {
    let rooms = SessionsOfRooms::from([(request.room_id.to_string(), into_json(request.sessions))]);
    state(e2ee.store_sessions(requester.user_nid, &request.version, rooms).await?)
}

async fn put_session(
    State(e2ee): State<E2ee>,
    requester: Requester,
    Ruma(request): Ruma<add_backup_keys_for_session::v3::Request>,
) -> Result<Json<Value>, ApiError> {
    let session = BTreeMap::from([(request.session_id, request.session_data.into_json())]);
    let rooms = SessionsOfRooms::from([(request.room_id.to_string(), session)]);
    state(e2ee.store_sessions(requester.user_nid, &request.version, rooms).await?)
}

// --- reading sessions

async fn get_all(
    State(e2ee): State<E2ee>,
    requester: Requester,
    Ruma(request): Ruma<get_backup_keys::v3::Request>,
) -> Result<Json<Value>, ApiError> {
    let rooms = e2ee.list_sessions(requester.user_nid, &request.version, Sessions::All).await?;
    let rooms: BTreeMap<String, Value> =
        rooms.into_iter().map(|(room_id, sessions)| (room_id, json!({ "sessions": sessions }))).collect();
    Ok(Json(json!({ "rooms": rooms })))
}

async fn get_room(
    State(e2ee): State<E2ee>,
    requester: Requester,
    Ruma(request): Ruma<get_backup_keys_for_room::v3::Request>,
) -> Result<Json<Value>, ApiError> {
    let sessions = Sessions::OfRoom(request.room_id.as_str());
    let rooms = e2ee.list_sessions(requester.user_nid, &request.version, sessions).await?;
    let sessions: BTreeMap<String, Box<RawValue>> = rooms.into_values().flatten().collect();
    Ok(Json(json!({ "sessions": sessions })))
}

async fn get_session(
    State(e2ee): State<E2ee>,
    requester: Requester,
    Ruma(request): Ruma<get_backup_keys_for_session::v3::Request>,
) -> Result<Json<Box<RawValue>>, ApiError> {
    let session = Sessions::One { room_id: request.room_id.as_str(), session_id: &request.session_id };
    let rooms = e2ee.list_sessions(requester.user_nid, &request.version, session).await?;
    let session = rooms.into_values().flat_map(BTreeMap::into_values).next();
    session.map(Json).ok_or_else(|| ApiError::not_found("This session is not in the backup"))
}

// --- deleting sessions

async fn delete_all(
    State(e2ee): State<E2ee>,
    requester: Requester,
    Ruma(request): Ruma<delete_backup_keys::v3::Request>,
) -> Result<Json<Value>, ApiError> {
    state(e2ee.delete_sessions(requester.user_nid, &request.version, Sessions::All).await?)
}

async fn delete_room(
    State(e2ee): State<E2ee>,
    requester: Requester,
    Ruma(request): Ruma<delete_backup_keys_for_room::v3::Request>,
) -> Result<Json<Value>, ApiError> {
    let sessions = Sessions::OfRoom(request.room_id.as_str());
    state(e2ee.delete_sessions(requester.user_nid, &request.version, sessions).await?)
}

async fn delete_session(
    State(e2ee): State<E2ee>,
    requester: Requester,
    Ruma(request): Ruma<delete_backup_keys_for_session::v3::Request>,
) -> Result<Json<Value>, ApiError> {
    let session = Sessions::One { room_id: request.room_id.as_str(), session_id: &request.session_id };
    state(e2ee.delete_sessions(requester.user_nid, &request.version, session).await?)
}

// --- bodies

fn backup_write<T>(body: &Raw<T>) -> Result<BackupWrite, ApiError> {
    serde_json::from_str(body.json().get())
        .map_err(|error| ApiError::bad_json(format!("The body has the wrong shape: {error}")))
}

fn info(info: &BackupInfo) -> Result<Json<Value>, ApiError> {
    let auth_data: Value = serde_json::from_str(&info.auth_data).map_err(|error| {
        tracing::error!(%error, "the auth_data of a key backup cannot be read");
        ApiError::internal()
    })?;
    Ok(Json(json!({
        "algorithm": info.algorithm,
        "auth_data": auth_data,
        "count": info.state.count,
        "etag": info.state.etag.to_string(),
        "version": info.version.to_string(),
    })))
}

fn state(state: BackupState) -> Result<Json<Value>, ApiError> {
    Ok(Json(json!({ "count": state.count, "etag": state.etag.to_string() })))
}

fn into_json<T>(sessions: BTreeMap<String, Raw<T>>) -> BTreeMap<String, Box<RawValue>> {
    sessions.into_iter().map(|(session_id, data)| (session_id, data.into_json())).collect()
}
