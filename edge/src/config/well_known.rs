//! What `[server]` adds to the documents below `/.well-known/matrix`.

use gatehouse_shared::config::Checker;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// `[server.support]`, published in `/.well-known/matrix/support`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SupportConfig {
    /// A page that helps users of this server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub support_page: Option<String>,
    /// Whom to ask.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub contacts: Vec<ContactConfig>,
}

/// One entry of `[[server.support.contacts]]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContactConfig {
    /// What the contact is for: `m.role.admin`, `m.role.security`, or another name with a namespace.
    pub role: String,
    /// A mail address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email_address: Option<String>,
    /// A Matrix user; best one of another server, which can be asked when this one is down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub matrix_id: Option<String>,
}

/// One entry of `[[server.rtc_foci]]`: where calls meet (MSC4143).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RtcFocusConfig {
    /// The kind of the focus, such as `livekit`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What the kind needs, such as `livekit_service_url`.
    #[serde(flatten)]
    pub properties: Map<String, Value>,
}

/// `[server.policy_server]`, published in `/.well-known/matrix/policy_server`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyServerConfig {
    /// The policy server's public ed25519 key, in unpadded base64.
    pub ed25519: String,
}

/// Keys of the client document that the edge writes itself.
const OWN_KEYS: [&str; 3] = ["m.homeserver", "m.identity_server", "org.matrix.msc4143.rtc_foci"];

impl SupportConfig {
    pub(super) fn check(&self, checker: &mut Checker<'_>) {
        if self.support_page.is_none() && self.contacts.is_empty() {
            checker.reject("server.support", "needs a `support_page` or at least one of `contacts`");
        }
        if self.support_page.as_deref().is_some_and(|page| !is_web_url(page)) {
            checker.reject("server.support.support_page", "is not an http or https URL");
        }
        for (index, contact) in self.contacts.iter().enumerate() {
            let key = format!("server.support.contacts[{index}]");
            if contact.email_address.is_none() && contact.matrix_id.is_none() {
                checker.reject(&key, "needs an `email_address` or a `matrix_id`");
            }
            if !contact.role.contains('.') {
                checker.reject(
                    &format!("{key}.role"),
                    "must be m.role.admin, m.role.security or a name like com.example.role",
                );
            }
            if contact.matrix_id.as_ref().is_some_and(|id| !(id.starts_with('@') && id.contains(':'))) {
                checker.reject(&format!("{key}.matrix_id"), "is no Matrix user id, such as @admin:example.org");
            }
        }
    }
}

impl PolicyServerConfig {
    pub(super) fn check(&self, checker: &mut Checker<'_>) {
        use base64::Engine;
        let key = base64::engine::general_purpose::STANDARD_NO_PAD.decode(&self.ed25519);
        if key.is_ok_and(|key| key.len() == 32) {
            return;
        }
        checker
            .reject("server.policy_server.ed25519", "is not an ed25519 public key in unpadded base64 (43 characters)");
    }
}

pub(super) fn check_extra(extra: &Map<String, Value>, checker: &mut Checker<'_>) {
    for key in extra.keys() {
        if OWN_KEYS.contains(&key.as_str()) {
            checker.reject("server.client_extra", format_args!("{key} has a setting of its own"));
        } else if !key.contains('.') {
            checker.reject("server.client_extra", format_args!("{key} needs a namespace, as in com.example.{key}"));
        }
    }
}

pub(super) fn is_web_url(text: &str) -> bool {
    url::Url::parse(text).is_ok_and(|url| url.has_host() && matches!(url.scheme(), "https" | "http"))
}
