//! The tokens that clients hold: where a sync continues, and where in a room's history somebody reads.

use std::{fmt, str::FromStr};

use crate::stream::Positions;

/// `next_batch` of a sync: `l1.57_l3.9`, or `l1.57_l3.9~12` while to-device messages up to number 12 are delivered and
/// more are waiting.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SyncToken {
    /// How far every lane was read.
    pub positions: Positions,
    /// The last to-device message delivered, when the positions cover messages beyond it.
    pub to_device_upto: Option<i64>,
}

/// A place in one room's history: `t57`, the place behind position 57, or any token of a sync.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HistoryToken {
    Behind(i64),
    Sync(Positions),
}

/// The text is no token of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a token of this server")]
pub struct ParseTokenError;

impl fmt::Display for SyncToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.positions.fmt(formatter)?;
        self.to_device_upto.map_or(Ok(()), |upto| write!(formatter, "~{upto}"))
    }
}

impl FromStr for SyncToken {
    type Err = ParseTokenError;

    fn from_str(text: &str) -> Result<Self, ParseTokenError> {
        let (positions, upto) = match text.split_once('~') {
            Some((positions, upto)) => (positions, Some(upto.parse().map_err(|_| ParseTokenError)?)),
            None => (text, None),
        };
        Ok(Self { positions: positions.parse().map_err(|_| ParseTokenError)?, to_device_upto: upto })
    }
}

impl fmt::Display for HistoryToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Behind(position) => write!(formatter, "t{position}"),
            Self::Sync(positions) => positions.fmt(formatter),
        }
    }
}

impl FromStr for HistoryToken {
    type Err = ParseTokenError;

    fn from_str(text: &str) -> Result<Self, ParseTokenError> {
        match text.strip_prefix('t') {
            Some(position) => position.parse().map(Self::Behind).map_err(|_| ParseTokenError),
            None => text.parse::<SyncToken>().map(|token| Self::Sync(token.positions)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        for text in ["l", "l1.57_l3.9", "l1.57~12"] {
            assert_eq!(text.parse::<SyncToken>().map(|token| token.to_string()), Ok(text.to_owned()));
        }
        for text in ["t57", "t-3", "l1.57"] {
            assert_eq!(text.parse::<HistoryToken>().map(|token| token.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn strangers_texts_are_refused() {
        for text in ["", "s72594_4483_1934", "l1.57~", "l1.57~x", "~5", "t5"] {
            assert_eq!(text.parse::<SyncToken>(), Err(ParseTokenError), "{text}");
        }
        for text in ["t", "tx", "t99999999999999999999", "5"] {
            assert_eq!(text.parse::<HistoryToken>(), Err(ParseTokenError), "{text}");
        }
    }
}
