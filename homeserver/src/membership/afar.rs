//! Changes of membership that are made through other servers.

use ruma::{CanonicalJsonObject, OwnedServerName, RoomId, UserId};

use super::{Membership, MembershipError, servers_of};
use crate::{federation::RemoteJoin, params, rules::membership::Membership as State, storage::DbError};

impl Membership {
    /// Joins a room through other servers. `content` is that of the membership event.
    pub(super) async fn join_afar(
        &self,
        user_id: &UserId,
        room_id: &RoomId,
        servers: &[OwnedServerName],
        content: CanonicalJsonObject,
    ) -> Result<(), MembershipError> {
        let servers = self.servers_at_hand(user_id, room_id, servers).await?;
        let join = self.shared.federation.join_remotely(user_id, room_id, &servers, content.clone());
        match join.await? {
            RemoteJoin::Joined => Ok(()),
            RemoteJoin::WeAreInTheRoom => {
                let current = self.find(room_id).await?;
                self.join_here(user_id, room_id, &current, content).await
            }
        }
    }

    /// Knocks on a room through other servers.
    pub(super) async fn knock_afar(
        &self,
        user_id: &UserId,
        room_id: &RoomId,
        servers: &[OwnedServerName],
        content: CanonicalJsonObject,
    ) -> Result<(), MembershipError> {
        let servers = self.servers_at_hand(user_id, room_id, servers).await?;
        Ok(self.shared.federation.knock_remotely(user_id, room_id, &servers, content).await?)
    }

    /// Refuses an invite, or takes a knock back, of a room that this server takes no part in.
    pub(super) async fn leave_afar(
        &self,
        user_id: &UserId,
        room_id: &RoomId,
        room_nid: i64,
        content: CanonicalJsonObject,
    ) -> Result<(), MembershipError> {
        let user_nid = self.shared.names.nid(user_id).await?;
        let own = self.own_row(room_nid, user_nid).await?;
        match own.as_deref().and_then(State::parse) {
            Some(State::Invite | State::Knock) => {}
            Some(State::Leave) => return Ok(()),
            _ => return Err(MembershipError::NotInRoom),
        }
        let servers = self.servers_at_hand(user_id, room_id, &[]).await?;
        Ok(self.shared.federation.leave_remotely(user_id, room_id, &servers, content).await?)
    }

    /// The servers through which a room can be reached: those that the client names, that of whoever invited the user,
    /// and that of the room's id, where it has one.
    async fn servers_at_hand(
        &self,
        user_id: &UserId,
        room_id: &RoomId,
        named: &[OwnedServerName],
    ) -> Result<Vec<OwnedServerName>, MembershipError> {
        let mut servers = named.to_vec();
        servers.extend(self.inviter_server(user_id, room_id).await?);
        Ok(servers_of(room_id, &servers, self.shared.rooms.server_name()))
    }

    async fn inviter_server(&self, user_id: &UserId, room_id: &RoomId) -> Result<Option<OwnedServerName>, DbError> {
        let sql = "SELECT e.sender FROM memberships m JOIN rooms r ON r.room_nid = m.room_nid \
                   JOIN user_names u ON u.user_nid = m.user_nid JOIN events e ON e.event_nid = m.event_nid \
                   WHERE r.room_id = $1 AND u.user_id = $2 AND m.membership = 'invite'";
        let row = self.shared.db.query_opt(sql, params![room_id.as_str(), user_id.as_str()]).await?;
        let sender = row.map(|row| row.get::<String>(0)).transpose()?;
        Ok(sender
            .and_then(|sender| <&UserId>::try_from(sender.as_str()).ok().map(|user| user.server_name().to_owned())))
    }
}
