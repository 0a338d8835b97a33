//! Decides which room versions this server speaks.

use std::fmt;

use ruma::{RoomVersionId, room_version_rules::RoomVersionRules};

/// A room version that this server supports.
///
/// A [`RoomVersionId`] can name anything; a value of this type is known to have rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RoomVersion {
    /// Room version 1.
    V1 = 1,
    /// Room version 2: state resolution version 2.
    V2,
    /// Room version 3: event ids are hashes.
    V3,
    /// Room version 4: event ids are URL-safe.
    V4,
    /// Room version 5: signing keys must have been valid.
    V5,
    /// Room version 6: strict canonical JSON.
    V6,
    /// Room version 7: knocking.
    V7,
    /// Room version 8: restricted join rules.
    V8,
    /// Room version 9: restricted joins survive redaction.
    V9,
    /// Room version 10: `knock_restricted` and integer power levels.
    V10,
    /// Room version 11: the redaction algorithm cleaned up.
    V11,
    /// Room version 12: the room id is the create event's hash, creators have infinite power.
    V12,
}

impl RoomVersion {
    /// All supported room versions, oldest first.
    pub const ALL: [Self; 12] = [
        Self::V1,
        Self::V2,
        Self::V3,
        Self::V4,
        Self::V5,
        Self::V6,
        Self::V7,
        Self::V8,
        Self::V9,
        Self::V10,
        Self::V11,
        Self::V12,
    ];

    /// The version of a new room when its creator names none.
    pub const DEFAULT: Self = Self::V12;

    /// The supported version with this identifier.
    ///
    /// # Errors
    ///
    /// When this server does not support it (`M_UNSUPPORTED_ROOM_VERSION`, or `M_INCOMPATIBLE_ROOM_VERSION` on joins).
    pub fn parse(id: &str) -> Result<Self, UnsupportedRoomVersion> {
        Self::ALL
            .into_iter()
            .find(|version| version.as_str() == id)
            .ok_or_else(|| UnsupportedRoomVersion(id.to_owned()))
    }

    /// The supported version with this number, which is how storage keeps it.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.number() == number)
    }

    /// The version's number, 1 to 12.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The version's identifier as it stands in `m.room.create`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "1",
            Self::V2 => "2",
            Self::V3 => "3",
            Self::V4 => "4",
            Self::V5 => "5",
            Self::V6 => "6",
            Self::V7 => "7",
            Self::V8 => "8",
            Self::V9 => "9",
            Self::V10 => "10",
            Self::V11 => "11",
            Self::V12 => "12",
        }
    }

    /// The version as ruma's identifier.
    pub fn id(self) -> RoomVersionId {
        match self {
            Self::V1 => RoomVersionId::V1,
            Self::V2 => RoomVersionId::V2,
            Self::V3 => RoomVersionId::V3,
            Self::V4 => RoomVersionId::V4,
            Self::V5 => RoomVersionId::V5,
            Self::V6 => RoomVersionId::V6,
            Self::V7 => RoomVersionId::V7,
            Self::V8 => RoomVersionId::V8,
            Self::V9 => RoomVersionId::V9,
            Self::V10 => RoomVersionId::V10,
            Self::V11 => RoomVersionId::V11,
            Self::V12 => RoomVersionId::V12,
        }
    }

    /// The rules of this version.
    pub fn rules(self) -> &'static RoomVersionRules {
        match self {
            Self::V1 => &RoomVersionRules::V1,
            Self::V2 => &RoomVersionRules::V2,
            Self::V3 => &RoomVersionRules::V3,
            Self::V4 => &RoomVersionRules::V4,
            Self::V5 => &RoomVersionRules::V5,
            Self::V6 => &RoomVersionRules::V6,
            Self::V7 => &RoomVersionRules::V7,
            Self::V8 => &RoomVersionRules::V8,
            Self::V9 => &RoomVersionRules::V9,
            Self::V10 => &RoomVersionRules::V10,
            Self::V11 => &RoomVersionRules::V11,
            Self::V12 => &RoomVersionRules::V12,
        }
    }

    /// Whether event ids are chosen by the sender and stand in the event (room versions 1 and 2).
    pub fn event_id_is_in_event(self) -> bool {
        self.rules().event_format.require_event_id
    }

    /// Whether the room id is the hash of the create event, which then carries no `room_id` (room version 12).
    pub fn room_id_is_create_event_id(self) -> bool {
        self.rules().authorization.room_create_event_id_as_room_id
    }
}

impl TryFrom<&RoomVersionId> for RoomVersion {
    type Error = UnsupportedRoomVersion;

    fn try_from(id: &RoomVersionId) -> Result<Self, Self::Error> {
        Self::parse(id.as_str())
    }
}

impl fmt::Display for RoomVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A room version that this server does not support.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("room version {0:?} is not supported")]
pub struct UnsupportedRoomVersion(pub String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_is_found_by_its_identifier_and_by_its_number() {
        for version in RoomVersion::ALL {
            assert_eq!(RoomVersion::parse(version.as_str()), Ok(version));
            assert_eq!(RoomVersion::from_number(version.number()), Some(version));
            assert_eq!(RoomVersion::try_from(&version.id()), Ok(version));
        }
        assert_eq!(RoomVersion::from_number(0), None);
        assert_eq!(RoomVersion::from_number(13), None);
        assert!(RoomVersion::parse("org.example.nonsense").is_err());
        assert!(RoomVersion::parse("01").is_err());
    }

    #[test]
    fn the_rules_change_where_the_specification_says_so() {
        assert!(RoomVersion::V2.event_id_is_in_event());
        assert!(!RoomVersion::V3.event_id_is_in_event());
        assert!(!RoomVersion::V11.room_id_is_create_event_id());
        assert!(RoomVersion::V12.room_id_is_create_event_id());
        assert!(!RoomVersion::V9.rules().authorization.integer_power_levels);
        assert!(RoomVersion::V10.rules().authorization.integer_power_levels);
    }
}
