//! Who is in a room: decides once whether a change of membership is made here or through another server.

mod afar;
mod error;
mod join;

use std::sync::Arc;

pub use error::MembershipError;
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId, RoomAliasId,
    RoomId, UserId,
};
use serde_json::json;

use crate::{
    federation::Federation,
    params,
    rooms::{Current, Draft, NewRoom, Profile, Rooms, object},
    rules::membership::Membership as State,
    storage::{Db, DbError, Stmt, UserNames, profiles},
    stream::{Change, Write},
};

/// Changes of membership. Clones share everything.
#[derive(Clone)]
pub struct Membership {
    shared: Arc<Shared>,
}

struct Shared {
    db: Db,
    names: UserNames,
    rooms: Rooms,
    federation: Federation,
}

impl Membership {
    pub fn new(db: Db, names: UserNames, rooms: Rooms, federation: Federation) -> Self {
        Self { shared: Arc::new(Shared { db, names, rooms, federation }) }
    }

    /// Makes a room and invites those who are asked for. Local users are invited in the same commit.
    ///
    /// # Errors
    /// As [`Rooms::create`]. An invite to a user of another server that cannot be delivered is logged; the room stands.
    pub async fn create_room(&self, mut room: NewRoom) -> Result<OwnedRoomId, MembershipError> {
        room.profile = self.profile(&room.creator).await?;
        let remote: Vec<OwnedUserId> = room.remote_invites.clone();
        let room_id = self.shared.rooms.create(&room).await?;
        for user_id in remote {
            if let Err(error) = self.invite(&room.creator, &room_id, &user_id, None, room.is_direct).await {
                tracing::warn!(%error, room.id = %room_id, user.id = %user_id, "an invite was not delivered");
            }
        }
        Ok(room_id)
    }

    /// Leaves a room, or refuses an invite, or takes a knock back.
    ///
    /// # Errors
    /// [`MembershipError::UnknownRoom`], [`MembershipError::NotInRoom`], and those of appending.
    pub async fn leave(&self, user_id: &UserId, room_id: &RoomId, reason: Option<&str>) -> Result<(), MembershipError> {
        let current = self.find(room_id).await?;
        if !current.is_resident {
            let content = with_reason(object(json!({ "membership": "leave" })), reason);
            return self.leave_afar(user_id, room_id, current.room_nid, content).await;
        }
        match self.state_of(room_id, user_id).await? {
            State::Join | State::Invite | State::Knock => {
                self.set(user_id, room_id, user_id, "leave", reason).await?;
                Ok(())
            }
            // Leaving twice is no mistake of the client's: the first answer may have got lost.
            State::Leave if self.was_ever_in(room_id, user_id).await? => Ok(()),
            _ => Err(MembershipError::NotInRoom),
        }
    }

    /// Invites a user.
    ///
    /// # Errors
    /// [`MembershipError::AlreadyJoined`], [`MembershipError::Banned`], and those of appending.
    pub async fn invite(
        &self,
        sender: &UserId,
        room_id: &RoomId,
        user_id: &UserId,
        reason: Option<&str>,
        is_direct: bool,
    ) -> Result<(), MembershipError> {
        self.find(room_id).await?;
        match self.state_of(room_id, user_id).await? {
            State::Join => return Err(MembershipError::AlreadyJoined),
            State::Ban => return Err(MembershipError::Banned),
            _ => {}
        }
        let mut content = self.profile_of_target(user_id).await?.membership("invite");
        if is_direct {
            content.insert("is_direct".to_owned(), true.into());
        }
        let content = with_reason(content, reason);
        if self.shared.rooms.is_local(user_id) {
            self.append(sender, room_id, user_id, content).await?;
        } else {
            self.shared.federation.invite(sender, room_id, user_id, content).await?;
        }
        Ok(())
    }

    /// Appends an `m.room.member` event whose content the client wrote.
    ///
    /// # Errors
    /// Those of appending, and of inviting a user of another server.
    pub async fn set_member_event(
        &self,
        sender: &UserId,
        room_id: &RoomId,
        user_id: &UserId,
        content: CanonicalJsonObject,
    ) -> Result<OwnedEventId, MembershipError> {
        let membership = content.get("membership").and_then(CanonicalJsonValue::as_str).and_then(State::parse);
        if membership == Some(State::Invite) && !self.shared.rooms.is_local(user_id) {
            // The other server signs it first.
            return Ok(self.shared.federation.invite(sender, room_id, user_id, content).await?);
        }
        self.append(sender, room_id, user_id, content).await
    }

    /// Removes another user, or takes back an invite.
    ///
    /// # Errors
    /// [`MembershipError::TargetNotInRoom`] when there is nobody to remove, and those of appending.
    pub async fn kick(
        &self,
        sender: &UserId,
        room_id: &RoomId,
        user_id: &UserId,
        reason: Option<&str>,
    ) -> Result<(), MembershipError> {
        self.find(room_id).await?;
        match self.state_of(room_id, user_id).await? {
            State::Join | State::Invite | State::Knock => {
                self.set(sender, room_id, user_id, "leave", reason).await?;
                Ok(())
            }
            _ => Err(MembershipError::TargetNotInRoom),
        }
    }

    /// Bans a user, who need not be in the room.
    ///
    /// # Errors
    /// Those of appending.
    pub async fn ban(
        &self,
        sender: &UserId,
        room_id: &RoomId,
        user_id: &UserId,
        reason: Option<&str>,
    ) -> Result<(), MembershipError> {
        self.find(room_id).await?;
        self.set(sender, room_id, user_id, "ban", reason).await?;
        Ok(())
    }

    /// Takes a ban back.
    ///
    /// # Errors
    /// [`MembershipError::NotBanned`], and those of appending.
    pub async fn unban(
        &self,
        sender: &UserId,
        room_id: &RoomId,
        user_id: &UserId,
        reason: Option<&str>,
    ) -> Result<(), MembershipError> {
        self.find(room_id).await?;
        if self.state_of(room_id, user_id).await? != State::Ban {
            return Err(MembershipError::NotBanned);
        }
        self.set(sender, room_id, user_id, "leave", reason).await?;
        Ok(())
    }

    /// Forgets a room that the user has left: it is in no list any more.
    ///
    /// # Errors
    /// [`MembershipError::StillInRoom`], [`MembershipError::UnknownRoom`].
    pub async fn forget(&self, user_id: &UserId, room_id: &RoomId) -> Result<(), MembershipError> {
        let current = self.find(room_id).await?;
        let user_nid = self.shared.names.nid(user_id).await?;
        match self.own_row(current.room_nid, user_nid).await?.as_deref() {
            Some("leave" | "ban") => {}
            Some(_) => return Err(MembershipError::StillInRoom),
            None => return Err(MembershipError::UnknownRoom),
        }
        let forget = Stmt::new(
            "UPDATE memberships SET is_forgotten = TRUE WHERE room_nid = $1 AND user_nid = $2 \
             AND membership IN ('leave', 'ban')",
            params![current.room_nid, user_nid],
        );
        let changes = vec![Change::User { user: user_nid }];
        self.shared.rooms.commit(Write { guard: None, statements: vec![forget], changes }).await?;
        Ok(())
    }

    /// The room behind an alias, and servers through which it can be reached.
    ///
    /// # Errors
    /// [`MembershipError::UnknownAlias`], and those of the database.
    pub async fn resolve_alias(
        &self,
        alias: &RoomAliasId,
    ) -> Result<(OwnedRoomId, Vec<OwnedServerName>), MembershipError> {
        let row = self
            .shared
            .db
            .query_opt("SELECT room_id FROM room_aliases WHERE alias = $1", params![alias.as_str()])
            .await?;
        let room_id = row.map(|row| row.get::<String>(0)).transpose()?.and_then(|room_id| room_id.try_into().ok());
        Ok((room_id.ok_or(MembershipError::UnknownAlias)?, Vec::new()))
    }

    /// Takes the user out of every room, invites and knocks included, as when the account is given up.
    ///
    /// # Errors
    /// Those of the database. A room that cannot be left is logged and left as it is.
    pub async fn leave_everything(&self, user_id: &UserId) -> Result<(), MembershipError> {
        let Some(user_nid) = self.shared.names.find(user_id).await? else { return Ok(()) };
        let sql = "SELECT r.room_id FROM memberships m JOIN rooms r ON r.room_nid = m.room_nid \
                   WHERE m.user_nid = $1 AND m.membership IN ('join', 'invite', 'knock')";
        for row in self.shared.db.query(sql, params![user_nid]).await? {
            let room_id: String = row.get(0)?;
            let Ok(room_id) = <&RoomId>::try_from(room_id.as_str()) else { continue };
            if let Err(error) = self.leave(user_id, room_id, None).await {
                tracing::warn!(%error, room.id = %room_id, user.id = %user_id, "a room could not be left");
            }
        }
        Ok(())
    }

    /// Tells every room that the user is joined to of a new display name or avatar.
    ///
    /// # Errors
    /// Those of the database. A room that does not take it is logged and left as it is.
    pub async fn propagate_profile(&self, user_id: &UserId) -> Result<(), MembershipError> {
        let content = self.profile(user_id).await?.membership("join");
        let user_nid = self.shared.names.nid(user_id).await?;
        let sql = "SELECT r.room_id FROM memberships m JOIN rooms r ON r.room_nid = m.room_nid \
                   WHERE m.user_nid = $1 AND m.membership = 'join'";
        for row in self.shared.db.query(sql, params![user_nid]).await? {
            let room_id: String = row.get(0)?;
            let Ok(room_id) = <&RoomId>::try_from(room_id.as_str()) else { continue };
            if let Err(error) = self.append(user_id, room_id, user_id, content.clone()).await {
                tracing::warn!(%error, room.id = %room_id, user.id = %user_id, "a room did not take the new profile");
            }
        }
        Ok(())
    }

    async fn find(&self, room_id: &RoomId) -> Result<Current, MembershipError> {
        self.shared.rooms.find(room_id).await?.ok_or(MembershipError::UnknownRoom)
    }

    async fn state_of(&self, room_id: &RoomId, user_id: &UserId) -> Result<State, MembershipError> {
        let event = self.shared.rooms.state_event(room_id, "m.room.member", user_id.as_str()).await?;
        Ok(State::after(event.as_ref()))
    }

    async fn was_ever_in(&self, room_id: &RoomId, user_id: &UserId) -> Result<bool, MembershipError> {
        Ok(self.shared.rooms.state_event(room_id, "m.room.member", user_id.as_str()).await?.is_some())
    }

    async fn set(
        &self,
        sender: &UserId,
        room_id: &RoomId,
        user_id: &UserId,
        membership: &str,
        reason: Option<&str>,
    ) -> Result<OwnedEventId, MembershipError> {
        let content = with_reason(object(json!({ "membership": membership })), reason);
        self.append(sender, room_id, user_id, content).await
    }

    async fn append(
        &self,
        sender: &UserId,
        room_id: &RoomId,
        user_id: &UserId,
        content: CanonicalJsonObject,
    ) -> Result<OwnedEventId, MembershipError> {
        let draft = Draft::state(sender, "m.room.member", user_id.as_str(), content);
        Ok(self.shared.rooms.append(room_id, draft).await?)
    }

    /// The membership as the user's own list of rooms has it.
    async fn own_row(&self, room_nid: i64, user_nid: i64) -> Result<Option<String>, DbError> {
        let sql = "SELECT membership FROM memberships WHERE room_nid = $1 AND user_nid = $2";
        self.shared.db.query_opt(sql, params![room_nid, user_nid]).await?.map(|row| row.get(0)).transpose()
    }

    async fn profile(&self, user_id: &UserId) -> Result<Profile, DbError> {
        let user_nid = self.shared.names.nid(user_id).await?;
        let row = profiles::find(&self.shared.db, user_nid).await?;
        Ok(row
            .map_or_else(Profile::default, |row| Profile { displayname: row.displayname, avatar_url: row.avatar_url }))
    }

    /// Only our own users' profiles are at hand.
    async fn profile_of_target(&self, user_id: &UserId) -> Result<Profile, DbError> {
        if self.shared.rooms.is_local(user_id) { self.profile(user_id).await } else { Ok(Profile::default()) }
    }
}

fn with_reason(mut content: CanonicalJsonObject, reason: Option<&str>) -> CanonicalJsonObject {
    if let Some(reason) = reason {
        content.insert("reason".to_owned(), reason.into());
    }
    content
}

/// The servers through which a room can be reached when the client names none: that of the room's id, where it has one.
fn servers_of(room_id: &RoomId, named: &[OwnedServerName], own: &ruma::ServerName) -> Vec<OwnedServerName> {
    let implied = room_id.server_name().map(ToOwned::to_owned);
    let mut servers: Vec<OwnedServerName> = Vec::new();
    for server in named.iter().cloned().chain(implied) {
        if server != own && !servers.contains(&server) {
            servers.push(server);
        }
    }
    servers
}
