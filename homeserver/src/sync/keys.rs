//! The part of every answer that tells a device how many of its keys are left.

use std::sync::Arc;

use super::{
    ReadError, SyncRequest, Syncer,
    write::{Object, push_list, push_string},
};
use crate::storage::{DbError, Row, Stmt, one_time_keys};

/// Adds the two statements, and says where their answers will be.
pub(super) fn add(stmts: &mut Vec<Stmt>, user_nid: i64, device_id: &str) -> (usize, usize) {
    let first = stmts.len();
    stmts.push(one_time_keys::counts(user_nid, device_id));
    stmts.push(one_time_keys::unused_fallback_types(user_nid, device_id));
    (first, first + 1)
}

/// The members of the answer, each with a comma before it.
pub(super) fn text(counts: &[Row], fallback_types: &[Row]) -> Result<Arc<str>, DbError> {
    let mut out = String::new();
    out.push_str(",\"device_one_time_keys_count\":");
    let mut object = Object::open(&mut out);
    for (algorithm, count) in one_time_keys::read_counts(counts)? {
        object.plain(&algorithm, count);
    }
    object.close();
    out.push_str(",\"device_unused_fallback_key_types\":");
    let types = one_time_keys::read_unused_fallback_types(fallback_types)?;
    push_list(&mut out, &types, |out, algorithm| push_string(out, algorithm));
    Ok(out.into())
}

impl Syncer {
    /// From memory, or read into it.
    pub(super) async fn key_counts(&self, request: &SyncRequest<'_>) -> Result<Arc<str>, ReadError> {
        let stream = &self.shared.parts.stream;
        let memory = self.shared.memories.of(request.user_nid);
        let began = {
            let mut memory = memory.lock();
            let began = memory.catch_up(stream, &self.shared.parts.events);
            if let Some(text) = memory.key_counts.get(request.device_id) {
                return Ok(text.clone());
            }
            began
        };
        let mut stmts = Vec::new();
        add(&mut stmts, request.user_nid, request.device_id);
        let answers = self.db().snapshot().await?.query_all(stmts).await?;
        let [counts, fallback_types] = answers.as_slice() else { return Err(DbError::NoRow.into()) };
        let text = text(counts, fallback_types)?;
        memory.lock().remember_key_counts(stream, &began, request.device_id, text.clone());
        Ok(text)
    }
}
