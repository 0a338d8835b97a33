//! Decides which servers a room lets take part.
//!
//! Specification: client-server API, "Server Access Control Lists (ACLs) for rooms"; server-server API, "Server Access
//! Control Lists (ACLs)", which lists the endpoints that ask.

use ruma::{ServerName, events::room::server_acl::RoomServerAclEventContent};
use serde_json::Value;

use super::pdu::Pdu;

#[cfg(test)]
mod tests;

/// The access list of a room; a room without one lets everyone in.
#[derive(Clone, Debug, Default)]
pub struct ServerAcl(Option<RoomServerAclEventContent>);

impl ServerAcl {
    /// Reads the room's `m.room.server_acl` event, if it has one. Fields of the wrong type count as absent, and a list
    /// keeps those of its entries that are text.
    pub fn new(event: Option<&Pdu>) -> Self {
        let Some(event) = event else { return Self(None) };
        let fields: serde_json::Map<String, Value> = event.content_as().unwrap_or_default();
        let list = |name: &str| -> Vec<String> {
            let entries = fields.get(name).and_then(Value::as_array);
            entries.into_iter().flatten().filter_map(Value::as_str).map(ToOwned::to_owned).collect()
        };
        let allow_ip_literals = fields.get("allow_ip_literals").and_then(Value::as_bool).unwrap_or(true);
        Self(Some(RoomServerAclEventContent::new(allow_ip_literals, list("allow"), list("deny"))))
    }

    /// Whether the server may take part.
    pub fn allows(&self, server_name: &ServerName) -> bool {
        self.0.as_ref().is_none_or(|acl| acl.is_allowed(server_name))
    }
}
