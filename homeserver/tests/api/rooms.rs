//! What tests do with rooms.

use serde_json::{Value, json};

use crate::harness::{Call, Server, User};

impl Server {
    /// Makes a room and answers its id.
    pub(crate) async fn create_room(&self, creator: &User, body: Value) -> String {
        let answer = self.post("/_matrix/client/v3/createRoom").by(creator).json(body).await.ok();
        answer["room_id"].as_str().unwrap().to_owned()
    }

    /// A public room with these members.
    pub(crate) async fn public_room(&self, creator: &User, members: &[&User]) -> String {
        let room_id = self.create_room(creator, json!({ "preset": "public_chat" })).await;
        for member in members {
            self.membership(member, &room_id, "join", json!({})).await.ok();
        }
        room_id
    }

    /// One of the requests below a room that change a membership: `join`, `leave`, `invite`, `kick`, `ban`, `unban`,
    /// `forget`.
    pub(crate) fn membership(&self, user: &User, room_id: &str, what: &str, body: Value) -> Call {
        self.post(&format!("/_matrix/client/v3/rooms/{room_id}/{what}")).by(user).json(body)
    }

    /// The content of the current state at a key.
    pub(crate) fn state(&self, user: &User, room_id: &str, event_type: &str, state_key: &str) -> Call {
        self.get(&format!("/_matrix/client/v3/rooms/{room_id}/state/{event_type}/{state_key}")).by(user)
    }

    pub(crate) fn put_state(
        &self,
        user: &User,
        room_id: &str,
        event_type: &str,
        state_key: &str,
        content: Value,
    ) -> Call {
        self.put(&format!("/_matrix/client/v3/rooms/{room_id}/state/{event_type}/{state_key}")).by(user).json(content)
    }

    pub(crate) fn send(&self, user: &User, room_id: &str, event_type: &str, txn_id: &str, content: Value) -> Call {
        self.put(&format!("/_matrix/client/v3/rooms/{room_id}/send/{event_type}/{txn_id}")).by(user).json(content)
    }

    /// Sends a text and answers its event id.
    pub(crate) async fn say(&self, user: &User, room_id: &str, text: &str) -> String {
        let content = json!({ "msgtype": "m.text", "body": text });
        let answer = self.send(user, room_id, "m.room.message", text, content).await.ok();
        answer["event_id"].as_str().unwrap().to_owned()
    }

    /// The event as a client gets it.
    pub(crate) fn event(&self, user: &User, room_id: &str, event_id: &str) -> Call {
        self.get(&format!("/_matrix/client/v3/rooms/{room_id}/event/{event_id}")).by(user)
    }
}
