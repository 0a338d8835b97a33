//! What a client or another server hears when nothing more can be stored.
//!
//! The specification has `M_RESOURCE_LIMIT_EXCEEDED` for this, on "routes which attempt to modify state", with an
//! `admin_contact`. The status is 507: a 5xx is what other servers try again after (a 4xx would make them throw their
//! events away), and clients show the message as not sent and name the contact.

use std::time::Duration;

use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use ruma::ServerName;

use super::ApiError;

/// When it may be worth trying again.
const RETRY_AFTER: Duration = Duration::from_secs(30);

/// Marks an answer that has to name whom to turn to. Errors do not know the server's name; the gate does.
#[derive(Clone, Copy)]
pub(in crate::api) struct NeedsContact;

impl ApiError {
    /// Nothing more can be stored; reading goes on.
    pub fn no_space() -> Self {
        let mut error = Self::new(
            StatusCode::INSUFFICIENT_STORAGE,
            "M_RESOURCE_LIMIT_EXCEEDED",
            "The server's disk is full: nothing can be stored until its administrator makes room",
        );
        error.retry_after = Some(RETRY_AFTER);
        error.needs_contact = true;
        error
    }
}

/// Whom to turn to: the document in which the specification lets a server name its administrators.
pub(in crate::api) fn contact(server_name: &ServerName) -> String {
    format!("https://{server_name}/.well-known/matrix/support")
}

/// Names the contact where an answer needs it.
pub(in crate::api) fn complete(response: Response, contact: &str) -> Response {
    if response.extensions().get::<NeedsContact>().is_none() {
        return response;
    }
    let mut error = ApiError::no_space().with("admin_contact", contact);
    error.needs_contact = false;
    error.into_response()
}
