//! The list of published rooms. The specification, client-server API, "Published room directory".

use std::{collections::HashMap, ops::Range};

use ruma::{
    OwnedMxcUri, OwnedRoomAliasId, OwnedRoomId, RoomId, UInt, UserId,
    directory::{Filter, PublicRoomsChunk, PublicRoomsChunkInit, RoomNetwork, RoomTypeFilter},
    room::{JoinRuleKind, RoomType},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use super::{Rooms, aliases::Authority};
use crate::storage::{
    DbError,
    directory::{self, PublishedRoom, SummaryState},
};

/// Rooms of a page at most, and when nobody says how many.
const MAX_PAGE: usize = 500;
const DEFAULT_PAGE: usize = 100;
/// Rooms whose state is read at a time while the list is searched.
const SEARCHED_AT_ONCE: usize = 500;
/// What a summary is made of, all with empty state keys.
const SUMMARY_TYPES: [&str; 8] = [
    "m.room.avatar",
    "m.room.canonical_alias",
    "m.room.create",
    "m.room.guest_access",
    "m.room.history_visibility",
    "m.room.join_rules",
    "m.room.name",
    "m.room.topic",
];

/// Why a room's place in the directory cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    #[error("this server does not know the room")]
    UnknownRoom,
    #[error("changing the directory needs the power to change the room's alias")]
    Forbidden,
    #[error(transparent)]
    Db(#[from] DbError),
}

/// Why there is no page of the directory.
#[derive(Debug, thiserror::Error)]
pub enum ListPublishedError {
    #[error("the pagination token is none of this server's")]
    BadToken,
    #[error(transparent)]
    Db(#[from] DbError),
}

/// A page of a directory, ours or another server's.
#[derive(Debug, Default)]
pub struct DirectoryPage {
    pub chunk: Vec<PublicRoomsChunk>,
    pub next_batch: Option<String>,
    pub prev_batch: Option<String>,
    /// How many rooms there are on all pages.
    pub total_room_count_estimate: Option<UInt>,
}

impl Rooms {
    /// Whether the room is published.
    ///
    /// # Errors
    /// [`PublishError::UnknownRoom`], and those of the database.
    pub async fn is_published(&self, room_id: &RoomId) -> Result<bool, PublishError> {
        let room = self.find(room_id).await?.ok_or(PublishError::UnknownRoom)?;
        Ok(directory::is_published(&self.shared.parts.db, room.room_nid).await?)
    }

    /// Publishes the room, or takes it off the list.
    ///
    /// # Errors
    /// See [`PublishError`].
    pub async fn set_published(
        &self,
        user_id: &UserId,
        authority: Authority,
        room_id: &RoomId,
        is_published: bool,
    ) -> Result<(), PublishError> {
        let room = self.find(room_id).await?.ok_or(PublishError::UnknownRoom)?;
        if authority == Authority::User && !self.may_change_directory(room_id, user_id).await? {
            return Err(PublishError::Forbidden);
        }
        Ok(directory::set_published(&self.shared.parts.db, room.room_nid, is_published).await?)
    }

    /// A page of the published rooms of `network` that pass `filter`, the largest first. `since` is a token of an earlier
    /// page.
    ///
    /// # Errors
    /// See [`ListPublishedError`].
    pub async fn list_published(
        &self,
        network: &RoomNetwork,
        filter: &Filter,
        limit: Option<UInt>,
        since: Option<&str>,
    ) -> Result<DirectoryPage, ListPublishedError> {
        // No network of another kind is bridged here.
        if matches!(network, RoomNetwork::ThirdParty(_)) {
            return Ok(DirectoryPage { total_room_count_estimate: Some(UInt::MIN), ..DirectoryPage::default() });
        }
        let since = since.map(|token| Since::parse(token).ok_or(ListPublishedError::BadToken)).transpose()?;
        let limit = limit.map_or(DEFAULT_PAGE, |limit| usize::try_from(limit).unwrap_or(MAX_PAGE)).clamp(1, MAX_PAGE);
        let published = directory::list_published(&self.shared.parts.db).await?;
        if filter.is_empty() {
            let window = Window::new(&published, since, limit);
            let rooms = self.summaries(published.get(window.range.clone()).unwrap_or_default()).await?;
            return Ok(window.page(rooms, published.len()));
        }
        let (mut found, mut summaries) = (Vec::new(), Vec::new());
        for some in published.chunks(SEARCHED_AT_ONCE) {
            for (room, summary) in some.iter().zip(self.summaries(some).await?) {
                if passes(filter, &summary) {
                    found.push(room.clone());
                    summaries.push(summary);
                }
            }
        }
        let window = Window::new(&found, since, limit);
        let rooms = summaries.drain(window.range.clone()).collect();
        Ok(window.page(rooms, found.len()))
    }

    /// The summaries of `rooms`, in their order.
    async fn summaries(&self, rooms: &[PublishedRoom]) -> Result<Vec<PublicRoomsChunk>, DbError> {
        let nids: Vec<i64> = rooms.iter().map(|room| room.room_nid).collect();
        let mut states: HashMap<i64, Vec<SummaryState>> = HashMap::new();
        for state in directory::summary_state(&self.shared.parts.db, &nids, &SUMMARY_TYPES).await? {
            states.entry(state.room_nid).or_default().push(state);
        }
        rooms.iter().map(|room| summarise(room, &states.remove(&room.room_nid).unwrap_or_default())).collect()
    }
}

/// Other servers may have put anything into the state: what is not understood is left out.
fn summarise(room: &PublishedRoom, state: &[SummaryState]) -> Result<PublicRoomsChunk, DbError> {
    #[derive(Default, Deserialize)]
    struct Name {
        name: Option<String>,
    }
    #[derive(Default, Deserialize)]
    struct Topic {
        topic: Option<String>,
    }
    #[derive(Default, Deserialize)]
    struct Avatar {
        url: Option<OwnedMxcUri>,
    }
    #[derive(Default, Deserialize)]
    struct CanonicalAlias {
        alias: Option<OwnedRoomAliasId>,
    }
    #[derive(Default, Deserialize)]
    struct Create {
        #[serde(rename = "type")]
        room_type: Option<RoomType>,
    }
    #[derive(Default, Deserialize)]
    struct Flags {
        guest_access: Option<String>,
        history_visibility: Option<String>,
        join_rule: Option<JoinRuleKind>,
    }
    let not_empty = |text: &String| !text.is_empty();
    let flags = |event_type| content::<Flags>(state, event_type);
    let room_id: OwnedRoomId =
        room.room_id.as_str().try_into().map_err(|error| DbError::Corrupt(format!("rooms.room_id: {error}")))?;
    let init = PublicRoomsChunkInit {
        num_joined_members: UInt::new_saturating(u64::try_from(room.joined).unwrap_or(0)),
        room_id,
        world_readable: flags("m.room.history_visibility").history_visibility.as_deref() == Some("world_readable"),
        guest_can_join: flags("m.room.guest_access").guest_access.as_deref() == Some("can_join"),
    };
    let mut summary = PublicRoomsChunk::from(init);
    summary.name = content::<Name>(state, "m.room.name").name.filter(not_empty);
    summary.topic = content::<Topic>(state, "m.room.topic").topic.filter(not_empty);
    summary.avatar_url = content::<Avatar>(state, "m.room.avatar").url.filter(|url| url.is_valid());
    summary.canonical_alias = content::<CanonicalAlias>(state, "m.room.canonical_alias").alias;
    summary.room_type = content::<Create>(state, "m.room.create").room_type;
    summary.join_rule = flags("m.room.join_rules").join_rule.unwrap_or(JoinRuleKind::Invite);
    Ok(summary)
}

fn content<T: Default + DeserializeOwned>(state: &[SummaryState], event_type: &str) -> T {
    #[derive(Deserialize)]
    struct Event<'a> {
        #[serde(borrow)]
        content: &'a RawValue,
    }
    let event = state.iter().find(|event| event.event_type == event_type);
    let content = event.and_then(|event| serde_json::from_str::<Event<'_>>(&event.json).ok());
    content.and_then(|event| serde_json::from_str(event.content.get()).ok()).unwrap_or_default()
}

fn passes(filter: &Filter, summary: &PublicRoomsChunk) -> bool {
    let room_type = RoomTypeFilter::from(summary.room_type.clone());
    let has_type = filter.room_types.is_empty() || filter.room_types.contains(&room_type);
    let has_term = filter.generic_search_term.as_deref().is_none_or(|term| {
        let term = term.to_lowercase();
        let alias = summary.canonical_alias.as_ref().map(|alias| alias.as_str());
        [summary.name.as_deref(), summary.topic.as_deref(), alias]
            .into_iter()
            .flatten()
            .any(|text| text.to_lowercase().contains(&term))
    });
    has_type && has_term
}

// --- pages

/// Where a page begins or ends: beside a room, by the order of the list. Rooms may come and go meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Since {
    After(Place),
    Before(Place),
}

/// A room's place in the list: more members come first, then the older room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    joined: std::cmp::Reverse<i64>,
    room_nid: i64,
}

impl Place {
    fn of(room: &PublishedRoom) -> Self {
        Self { joined: std::cmp::Reverse(room.joined), room_nid: room.room_nid }
    }

    fn token(self, direction: char) -> String {
        format!("{direction}{}.{}", self.joined.0, self.room_nid)
    }
}

impl Since {
    fn parse(token: &str) -> Option<Self> {
        let mut letters = token.chars();
        let direction = letters.next()?;
        let (joined, room_nid) = letters.as_str().split_once('.')?;
        let place = Place { joined: std::cmp::Reverse(joined.parse().ok()?), room_nid: room_nid.parse().ok()? };
        match direction {
            'n' => Some(Self::After(place)),
            'p' => Some(Self::Before(place)),
            _ => None,
        }
    }
}

/// The rooms of a page within the list, and the tokens of its neighbours.
#[derive(Debug)]
struct Window {
    range: Range<usize>,
    next_batch: Option<String>,
    prev_batch: Option<String>,
}

impl Window {
    fn new(rooms: &[PublishedRoom], since: Option<Since>, limit: usize) -> Self {
        let range = match since {
            None => 0..rooms.len().min(limit),
            Some(Since::After(place)) => {
                let start = rooms.partition_point(|room| Place::of(room) <= place);
                start..rooms.len().min(start.saturating_add(limit))
            }
            Some(Since::Before(place)) => {
                let end = rooms.partition_point(|room| Place::of(room) < place);
                end.saturating_sub(limit)..end
            }
        };
        let page = rooms.get(range.clone()).unwrap_or_default();
        let next = page.last().filter(|_| range.end < rooms.len());
        let previous = page.first().filter(|_| range.start > 0);
        Self {
            next_batch: next.map(|room| Place::of(room).token('n')),
            prev_batch: previous.map(|room| Place::of(room).token('p')),
            range,
        }
    }

    fn page(self, chunk: Vec<PublicRoomsChunk>, total: usize) -> DirectoryPage {
        let total_room_count_estimate = Some(UInt::new_saturating(total as u64));
        DirectoryPage { chunk, next_batch: self.next_batch, prev_batch: self.prev_batch, total_room_count_estimate }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list() -> Vec<PublishedRoom> {
        let room = |(room_nid, joined): (i64, i64)| PublishedRoom { room_nid, room_id: String::new(), joined };
        [(7, 9), (1, 5), (2, 5), (9, 5), (3, 0)].map(room).into()
    }

    #[test]
    fn pages_go_there_and_back() {
        let rooms = list();
        let page = |since: Option<&str>| Window::new(&rooms, since.map(|token| Since::parse(token).unwrap()), 2);
        let first = page(None);
        assert_eq!((first.range.clone(), first.prev_batch), (0..2, None));
        let second = page(first.next_batch.as_deref());
        assert_eq!(second.range, 2..4);
        let third = page(second.next_batch.as_deref());
        assert_eq!((third.range.clone(), third.next_batch), (4..5, None));
        assert_eq!(page(third.prev_batch.as_deref()).range, 2..4);
        assert_eq!(page(second.prev_batch.as_deref()).range, 0..2);
    }

    #[test]
    fn a_room_that_goes_moves_no_page() {
        let mut rooms = list();
        let token = Window::new(&rooms, None, 2).next_batch.unwrap();
        rooms.remove(0);
        assert_eq!(Window::new(&rooms, Since::parse(&token), 2).range, 1..3);
        rooms.clear();
        assert_eq!(Window::new(&rooms, Since::parse(&token), 2).range, 0..0);
    }

    #[test]
    fn a_token_that_is_none_is_refused() {
        for token in ["", "n", "n1", "x1.2", "n1.x", "n99999999999999999999.1", "ä1.2", "n.1"] {
            assert_eq!(Since::parse(token), None, "{token:?}");
        }
    }

    #[test]
    fn nonsense_in_the_state_is_left_out() {
        let state = |event_type: &str, json: &str| SummaryState {
            room_nid: 1,
            event_type: event_type.to_owned(),
            json: json.to_owned(),
        };
        let room = PublishedRoom { room_nid: 1, room_id: "!r:example.org".to_owned(), joined: 3 };
        let summary = summarise(
            &room,
            &[
                state("m.room.name", r#"{"content":{"name":7}}"#),
                state("m.room.topic", r#"{"content":{"topic":"Tea"}}"#),
                state("m.room.avatar", r#"{"content":{"url":"https://example.org/x.png"}}"#),
                state("m.room.canonical_alias", r#"{"content":{"alias":"no alias"}}"#),
                state("m.room.join_rules", r#"{"content":{"join_rule":"public"}}"#),
                state("m.room.create", r#"{"content":{"type":"m.space"}}"#),
            ],
        )
        .unwrap();
        assert_eq!((summary.name.as_deref(), summary.topic.as_deref()), (None, Some("Tea")));
        assert_eq!((summary.avatar_url.as_ref(), summary.canonical_alias.as_ref()), (None, None));
        assert_eq!((&summary.join_rule, &summary.room_type), (&JoinRuleKind::Public, &Some(RoomType::Space)));
        let mut filter = Filter::new();
        filter.room_types = vec![RoomTypeFilter::Space];
        filter.generic_search_term = Some("TEA".to_owned());
        assert!(passes(&filter, &summary));
        filter.room_types = vec![RoomTypeFilter::Default];
        assert!(!passes(&filter, &summary));
    }
}
