//! Reads who is in a room. Specification: client-server API, `GET /rooms/{roomId}/members` and
//! `GET /rooms/{roomId}/joined_members`.

use ruma::RoomId;

use super::{Reader, read, state::state_events};
use crate::{
    rules::{
        membership::{MemberContent, Membership},
        pdu::ClientFormat,
    },
    storage::timeline::{self, Placed},
    sync::{
        HistoryToken, ReadError, Syncer,
        write::{Extras, Object, push_list},
    },
};

/// Which members are asked for.
#[derive(Clone, Debug, Default)]
pub struct MembersQuery {
    /// As of when; `None` for now, or for when the user left.
    pub at: Option<HistoryToken>,
    /// With both, one of the two conditions has to hold.
    pub membership: Option<Membership>,
    pub not_membership: Option<Membership>,
}

impl Syncer {
    /// The membership events of a room as JSON.
    ///
    /// # Errors
    /// [`ReadError::NotInRoom`], and those of the database.
    pub async fn members(
        &self,
        reader: Reader<'_>,
        room_id: &RoomId,
        query: &MembersQuery,
    ) -> Result<String, ReadError> {
        let mut snapshot = self.db().snapshot().await?;
        let mut access = self.access(&mut snapshot, reader, room_id).await?;
        if let Some(at) = &query.at {
            let position = self.position(&mut snapshot, &access, at).await?;
            if position < access.newest {
                access.state_nid = self.state_after(&mut snapshot, access.room_nid, position, access.state_nid).await?;
                access.is_current = false;
            }
        }
        let events = if access.is_current {
            read(&mut snapshot, timeline::current_members_of(access.room_nid)).await?
        } else {
            state_events(&mut snapshot, &access).await?
        };
        let is_asked_for = |placed: &&Placed| {
            if placed.event.pdu.event_type() != "m.room.member" {
                return false;
            }
            let membership = Membership::of(&placed.event.pdu);
            match (query.membership, query.not_membership) {
                (None, None) => true,
                (Some(wanted), None) => membership == Some(wanted),
                (None, Some(unwanted)) => membership != Some(unwanted),
                (Some(wanted), Some(unwanted)) => membership == Some(wanted) || membership != Some(unwanted),
            }
        };
        let extras = Extras::at(self.now_ms());
        let mut out = String::with_capacity(events.len() * 512);
        let mut object = Object::open(&mut out);
        push_list(object.key("chunk"), events.iter().filter(is_asked_for), |out, placed| {
            extras.push_state_event(out, &placed.event, ClientFormat::Full);
        });
        object.close();
        Ok(out)
    }

    /// The joined users of a room with their profiles as JSON. Only for those who are in the room.
    ///
    /// # Errors
    /// [`ReadError::NotInRoom`], and those of the database.
    pub async fn joined_members(&self, reader: Reader<'_>, room_id: &RoomId) -> Result<String, ReadError> {
        let mut snapshot = self.db().snapshot().await?;
        let access = self.access(&mut snapshot, reader, room_id).await?;
        if !access.is_joined {
            return Err(ReadError::NotInRoom);
        }
        let events = read(&mut snapshot, timeline::current_members_of(access.room_nid)).await?;
        let mut out = String::with_capacity(events.len() * 128);
        let mut object = Object::open(&mut out);
        let mut joined = Object::open(object.key("joined"));
        for placed in &events {
            let (content, user_id) = (MemberContent::of(&placed.event.pdu), placed.event.pdu.state_key());
            let Some(user_id) = user_id.filter(|_| content.membership == Some(Membership::Join)) else { continue };
            let mut member = Object::open(joined.key(user_id));
            if let Some(avatar_url) = &content.avatar_url {
                member.string("avatar_url", avatar_url);
            }
            if let Some(displayname) = &content.displayname {
                member.string("display_name", displayname);
            }
            member.close();
        }
        joined.close();
        object.close();
        Ok(out)
    }

    /// The ids of the rooms that a user is joined to.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn joined_rooms(&self, user_nid: i64) -> Result<Vec<std::sync::Arc<str>>, ReadError> {
        let stmt = crate::storage::memberships::joined(user_nid);
        let rows = self.db().query(stmt.sql, stmt.params).await?;
        Ok(crate::storage::memberships::read_joined(&rows)?.into_iter().map(|(_, room_id)| room_id).collect())
    }
}
