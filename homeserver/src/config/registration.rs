//! `[registration]`: who may make accounts.

use gatehouse_shared::config::{Checker, Secret};
use serde::{Deserialize, Serialize};

/// Who may make accounts.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RegistrationConfig {
    /// `closed`: nobody over the network; `token`: who has one of `tokens`; `open`: everybody.
    pub mode: RegistrationMode,
    /// The tokens that `mode = "token"` takes; letters, digits, `.`, `_`, `~` and `-`, at most 64.
    pub tokens: Vec<Secret>,
    /// The secret for Synapse's `register_new_matrix_user`. Left out: that way is closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared_secret: Option<Secret>,
}

/// Who may make accounts over the network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RegistrationMode {
    /// Everybody.
    Open,
    /// Nobody; accounts come from the command line.
    #[default]
    Closed,
    /// Who has a registration token.
    Token,
}

/// The grammar of registration tokens (client-server API, "Token-authenticated registration").
const MAX_TOKEN_LENGTH: usize = 64;

impl RegistrationConfig {
    pub(super) fn check(&self, checker: &mut Checker<'_>) {
        if self.mode == RegistrationMode::Token && self.tokens.is_empty() {
            checker.reject("registration.tokens", "`mode = \"token\"` needs at least one token");
        }
        for (index, token) in self.tokens.iter().enumerate() {
            let token = token.expose();
            let opaque = token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte));
            if !opaque || token.len() > MAX_TOKEN_LENGTH {
                checker.reject(
                    &format!("registration.tokens[{index}]"),
                    "may only have letters, digits, `.`, `_`, `~` and `-`, at most 64 of them",
                );
            }
        }
    }
}
