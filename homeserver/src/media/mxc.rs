//! Names media: the parts of an `mxc://` URI, checked once.

use ruma::{OwnedMxcUri, OwnedServerName, ServerName};

/// Letters of a media id that this server makes: 24 of 62 letters are 142 bits of chance.
const MADE_LENGTH: usize = 24;
/// The longest id of another server that is taken, in bytes.
const MAX_LENGTH: usize = 255;

/// A media id: letters, digits, `_` and `-` only, as "Security considerations" of the content repository asks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MediaId(String);

impl MediaId {
    /// The id when it is one.
    pub fn parse(text: &str) -> Option<Self> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        let is_valid = (1..=MAX_LENGTH).contains(&text.len()) && text.bytes().all(is_allowed);
        is_valid.then(|| Self(text.to_owned()))
    }

    /// A new id that nobody can guess.
    pub(super) fn random() -> Self {
        use rand::RngExt as _;
        let letters = rand::rng().sample_iter(rand::distr::Alphanumeric).take(MADE_LENGTH);
        Self(letters.map(char::from).collect())
    }

    /// The id as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What an `mxc://` URI names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mxc {
    pub server_name: OwnedServerName,
    pub media_id: MediaId,
}

impl Mxc {
    /// The parts when both are valid.
    pub fn parse(server_name: &ServerName, media_id: &str) -> Option<Self> {
        Some(Self { server_name: server_name.to_owned(), media_id: MediaId::parse(media_id)? })
    }

    /// The URI.
    pub fn uri(&self) -> OwnedMxcUri {
        format!("mxc://{}/{}", self.server_name, self.media_id.as_str()).into()
    }

    /// The primary key of its row.
    pub(super) fn key(&self) -> (&str, &str) {
        (self.server_name.as_str(), self.media_id.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_could_mean_something_elsewhere_is_none() {
        let long = "a".repeat(256);
        for id in ["", "..", "a/b", "a\\b", "a%2Fb", "a\0", "ä", "a b", "a.b", long.as_str()] {
            assert_eq!(MediaId::parse(id), None, "{id:?}");
        }
        assert!(MediaId::parse("Az09_-").is_some());
        assert!(MediaId::parse(MediaId::random().as_str()).is_some());
    }
}
