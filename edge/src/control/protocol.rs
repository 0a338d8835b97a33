//! What can be asked of a running edge. Each subject adds one variant here and one line to the desk.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// One line from a command to the edge, such as `{"ask":"reload"}` or `{"ask":"restart_shards","with":{"only":null}}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", content = "with", rename_all = "snake_case")]
pub(crate) enum Request {
    /// What the edge is doing. Answered by [`crate::status::Status`].
    Status,
    /// Reads the configuration again. Answered by [`crate::reload::Reloaded`].
    Reload,
    /// Which shards there are. Answered by a list of [`ShardReport`].
    Shards,
    /// Restarts the supervised shards one by one, or one of them. Answered by a list of [`ShardReport`].
    RestartShards {
        /// The address of the only one to restart.
        only: Option<String>,
    },
    /// Replaces the process by a new one of its program. Answered by [`crate::upgrade::successor::Upgraded`].
    Upgrade,
}

/// One line from the edge to a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    /// It was done; what there is to tell, in the form that the request names.
    Done(serde_json::Value),
    /// It was not done, and nothing was changed.
    Refused(Refusal),
}

/// Why the edge did not do what it was asked to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refusal {
    /// For a person: what is wrong and where, perhaps in several lines.
    pub(crate) message: String,
    /// For programs, where there is more to tell.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub(crate) details: serde_json::Value,
}

impl Answer {
    pub(crate) fn done(told: &impl Serialize) -> Self {
        match serde_json::to_value(told) {
            Ok(told) => Self::Done(told),
            Err(error) => Self::refused(format!("the answer cannot be written: {error}")),
        }
    }

    pub(crate) fn refused(message: impl Into<String>) -> Self {
        Self::Refused(Refusal { message: message.into(), details: serde_json::Value::Null })
    }

    /// What was told, as the type that the request names.
    pub(crate) fn into_told<T: DeserializeOwned>(self) -> Result<serde_json::Result<T>, Refusal> {
        match self {
            Self::Done(told) => Ok(serde_json::from_value(told)),
            Self::Refused(refusal) => Err(refusal),
        }
    }
}

/// One shard, as the edge sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ShardReport {
    /// Its address.
    pub(crate) shard: String,
    /// Whether it takes requests.
    pub(crate) healthy: bool,
    /// Requests that it has and has not answered.
    pub(crate) in_flight: usize,
    /// Whether this edge starts it.
    pub(crate) supervised: bool,
    /// How often this edge has started it.
    pub(crate) starts: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_answers_are_lines_of_json() {
        let written = serde_json::to_string(&Request::Reload).unwrap();
        assert_eq!(written, r#"{"ask":"reload"}"#);
        assert_eq!(serde_json::from_str::<Request>(&written).unwrap(), Request::Reload);
        assert_eq!(serde_json::to_string(&Answer::done(&[1, 2])).unwrap(), r#"{"done":[1,2]}"#);
        let refused = serde_json::to_string(&Answer::refused("a\nb")).unwrap();
        assert_eq!(refused, r#"{"refused":{"message":"a\nb"}}"#);
        assert!(serde_json::from_str::<Request>(r#"{"ask":"destroy"}"#).is_err());
    }
}
