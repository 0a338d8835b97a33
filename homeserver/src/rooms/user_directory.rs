//! Finds users for who looks for them: those in rooms of their own and in published rooms.

use std::collections::BTreeMap;

use ruma::{OwnedMxcUri, OwnedUserId};
use serde::Deserialize;

use super::Rooms;
use crate::storage::{DbError, directory};

/// Users of an answer at most.
const MAX_FOUND: usize = 50;
/// Membership events that are looked at for one search.
const LOOKED_AT: i64 = 2_000;

/// A user that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundUser {
    pub user_id: OwnedUserId,
    pub display_name: Option<String>,
    pub avatar_url: Option<OwnedMxcUri>,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct FoundUsers {
    /// The best first.
    pub users: Vec<FoundUser>,
    /// Whether there are more.
    pub is_limited: bool,
}

impl Rooms {
    /// Finds users whose id or display name contains `term`, in upper or lower case.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn search_users(&self, user_nid: i64, term: &str, limit: usize) -> Result<FoundUsers, DbError> {
        let term = term.trim().trim_start_matches('@').to_lowercase();
        if term.is_empty() || term.contains('\0') {
            return Ok(FoundUsers::default());
        }
        let rows = directory::visible_users(&self.shared.parts.db, user_nid, &like_pattern(&term), LOOKED_AT).await?;
        let mut found: BTreeMap<OwnedUserId, (u8, FoundUser)> = BTreeMap::new();
        for row in rows {
            let Some((rank, user)) = read(&row.user_id, &row.json, &term) else { continue };
            let known = found.entry(user.user_id.clone()).or_insert_with(|| (rank, user.clone()));
            if rank < known.0 {
                *known = (rank, user);
            }
        }
        let mut found: Vec<(u8, FoundUser)> = found.into_values().collect();
        found.sort_by_key(|(rank, user)| (*rank, user.user_id.clone()));
        let limit = limit.min(MAX_FOUND);
        let is_limited = found.len() > limit;
        Ok(FoundUsers { users: found.into_iter().take(limit).map(|(_, user)| user).collect(), is_limited })
    }
}

/// The user and how well it fits: 0 is best. `None` when it does not fit, because the database looks at more than names.
fn read(user_id: &str, member_event: &str, term: &str) -> Option<(u8, FoundUser)> {
    #[derive(Deserialize)]
    struct Event {
        #[serde(default)]
        content: Content,
    }
    #[derive(Default, Deserialize)]
    struct Content {
        #[serde(default)]
        displayname: serde_json::Value,
        #[serde(default)]
        avatar_url: serde_json::Value,
    }
    let user_id = OwnedUserId::try_from(user_id).ok()?;
    let Content { displayname, avatar_url } = serde_json::from_str::<Event>(member_event).ok()?.content;
    let display_name = displayname.as_str().filter(|name| !name.is_empty());
    let name = display_name.unwrap_or_default().to_lowercase();
    let (localpart, whole) = (user_id.localpart().to_lowercase(), user_id.as_str().trim_start_matches('@'));
    let rank = if localpart == term || name == term || whole == term {
        0
    } else if localpart.starts_with(term) || name.split_whitespace().any(|word| word.starts_with(term)) {
        1
    } else if name.contains(term) || whole.to_lowercase().contains(term) {
        2
    } else {
        return None;
    };
    let avatar_url = avatar_url.as_str().map(OwnedMxcUri::from).filter(|url| url.is_valid());
    let display_name = display_name.map(ToOwned::to_owned);
    Some((rank, FoundUser { user_id, display_name, avatar_url }))
}

/// `term` as it stands inside JSON, with what LIKE would take for wildcards escaped.
fn like_pattern(term: &str) -> String {
    // Quotation marks and backslashes are written with a backslash in canonical JSON.
    let in_json = term.replace('\\', "\\\\").replace('"', "\\\"");
    in_json.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_fits_better_comes_first_and_who_does_not_fit_not_at_all() {
        let event =
            r#"{"content":{"displayname":"Alice Liddell","avatar_url":7,"membership":"join"},"type":"m.room.member"}"#;
        let rank = |term: &str| read("@ally:example.org", event, term).map(|(rank, _)| rank);
        assert_eq!(rank("ally"), Some(0));
        assert_eq!(rank("ally:example.org"), Some(0));
        assert_eq!(rank("lidd"), Some(1));
        assert_eq!(rank("ice"), Some(2));
        assert_eq!(rank("example"), Some(2));
        assert_eq!(rank("member"), None);
    }

    #[test]
    fn nothing_in_a_term_is_a_wildcard() {
        assert_eq!(like_pattern("a%_b"), "a\\%\\_b");
        assert_eq!(like_pattern("\"\\"), "\\\\\"\\\\\\\\");
    }
}
