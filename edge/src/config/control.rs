//! `[control]`: where the operator's commands reach a running edge.

use std::path::{Path, PathBuf};

use gatehouse_shared::config::Checker;
use serde::{Deserialize, Serialize};

/// Where the operator's commands reach a running edge.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ControlConfig {
    /// The Unix socket; its folder is made with mode 0700. Left out: `/run/gatehouse/control.sock`, and an edge that
    /// cannot have it there runs without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket: Option<PathBuf>,
}

/// Where an edge listens for commands unless its configuration says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/gatehouse/control.sock";

/// The system's limit on the path of a Unix socket, without the zero at its end.
const LONGEST_SOCKET_PATH: usize = 107;

impl ControlConfig {
    /// The socket's path.
    pub fn socket(&self) -> &Path {
        self.socket.as_deref().unwrap_or(Path::new(DEFAULT_SOCKET))
    }

    pub(super) fn check(&self, checker: &mut Checker<'_>) {
        let Some(socket) = &self.socket else { return };
        if !socket.is_absolute() {
            checker.reject("control.socket", "must be an absolute path");
        }
        if socket.as_os_str().len() > LONGEST_SOCKET_PATH {
            let reason = format_args!("is longer than the {LONGEST_SOCKET_PATH} bytes that a socket's path may have");
            checker.reject("control.socket", reason);
        }
    }
}
