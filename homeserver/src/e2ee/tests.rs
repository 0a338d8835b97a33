//! One fixture for all tests of this room; the tests are by subject.

mod cross_signing;
mod device_lists;
mod key_backup;
mod keys;
mod to_device;

use std::{collections::BTreeMap, sync::Arc};

use gatehouse_shared::clock::SystemClock;
use ruma::{
    CanonicalJsonObject, DeviceId, OwnedUserId, UserId,
    serde::{Base64, Raw},
    server_name,
    signatures::{Ed25519KeyPair, sign_json},
    user_id,
};
use serde_json::{Value as JsonValue, json};
use tokio_util::sync::CancellationToken;

use super::{E2ee, E2eeParts, KeyUpload, OwnDevice};
use crate::{
    params,
    storage::{Db, Stmt, UserNames, Value, nid::Nids, testing::TestDb},
    stream::{Lane, Positions, Stream, Write},
};

pub(super) fn alice() -> &'static UserId {
    user_id!("@alice:example.org")
}

pub(super) fn bob() -> &'static UserId {
    user_id!("@bob:example.org")
}

pub(super) fn carol() -> &'static UserId {
    user_id!("@carol:remote.example")
}

/// A shard without HTTP.
pub(super) struct World {
    pub(super) e2ee: E2ee,
    pub(super) db: Db,
    pub(super) names: UserNames,
    pub(super) lane: Lane,
    pub(super) stream: Stream,
    /// Ends the lane's tasks with the test.
    _stop: tokio_util::sync::DropGuard,
}

impl World {
    pub(super) async fn new(test: TestDb) -> Self {
        Self::shard_on(test.db).await
    }

    /// Another shard on the same database.
    pub(super) async fn another(&self) -> Self {
        Self::shard_on(self.db.clone()).await
    }

    async fn shard_on(db: Db) -> Self {
        let names = UserNames::new(db.clone(), Nids::new(db.clone()));
        let stream = Stream::open(db.clone()).await.unwrap();
        let stop = CancellationToken::new();
        let clock = Arc::new(SystemClock);
        let lane = stream.start(clock.clone(), stop.clone()).await.unwrap();
        let e2ee = E2ee::new(E2eeParts {
            db: db.clone(),
            names: names.clone(),
            lane: lane.clone(),
            stream: stream.clone(),
            server_name: server_name!("example.org").to_owned(),
            clock,
        });
        Self { e2ee, db, names, lane, stream, _stop: stop.drop_guard() }
    }

    pub(super) async fn nid(&self, user_id: &UserId) -> i64 {
        self.names.nid(user_id).await.unwrap()
    }

    /// Logs a device in.
    pub(super) async fn device<'a>(&self, user_id: &'a UserId, device_id: &'a str) -> OwnDevice<'a> {
        let user_nid = self.nid(user_id).await;
        let sql = "INSERT INTO devices (user_nid, device_id, display_name, created_ts, last_seen_ts, last_seen_ip) \
                   VALUES ($1, $2, 'A phone', 0, 0, '')";
        self.db.execute(sql, params![user_nid, device_id]).await.unwrap();
        OwnDevice { user_id, user_nid, device_id: <&DeviceId>::from(device_id) }
    }

    pub(super) async fn set_membership(&self, room_nid: i64, user_id: &UserId, membership: &str) {
        let sql = "INSERT INTO memberships \
                       (room_nid, user_nid, membership, event_nid, position, lane, seq, is_local, is_forgotten) \
                   VALUES ($1, $2, $3, 0, 1, $4, $5, $6, FALSE) ON CONFLICT (room_nid, user_nid) \
                   DO UPDATE SET membership = excluded.membership, lane = excluded.lane, seq = excluded.seq";
        let is_local = user_id.server_name() == "example.org";
        let mut params = params![room_nid, self.nid(user_id).await, membership];
        params.extend([Value::Lane, Value::Seq, Value::Bool(is_local)]);
        let write = Write { statements: vec![Stmt::new(sql, params)], ..Write::default() };
        self.lane.commit(write).await.unwrap();
    }

    pub(super) fn now(&self) -> Positions {
        self.stream.positions()
    }
}

/// A key that signs, and its public half.
pub(super) struct Signer {
    pair: Ed25519KeyPair,
    pub(super) public_key: String,
}

impl Signer {
    /// A key that is named by `version`: a device's id, or nothing for a cross-signing key, which is named by itself.
    pub(super) fn new(device_id: Option<&str>) -> Self {
        let document = Ed25519KeyPair::generate();
        let pair = Ed25519KeyPair::from_der(&document, "1".to_owned()).unwrap();
        let public_key = Base64::<ruma::serde::base64::Standard, _>::new(pair.public_key().to_vec()).encode();
        let name = device_id.unwrap_or(&public_key).to_owned();
        Self { pair: Ed25519KeyPair::from_der(&document, name).unwrap(), public_key }
    }

    pub(super) fn sign(&self, user_id: &UserId, object: JsonValue) -> JsonValue {
        let mut object: CanonicalJsonObject = serde_json::from_value(object).unwrap();
        sign_json(user_id.as_str(), &self.pair, &mut object).unwrap();
        serde_json::to_value(object).unwrap()
    }
}

pub(super) fn raw<T>(value: JsonValue) -> Raw<T> {
    Raw::from_json_string(value.to_string()).unwrap()
}

pub(super) fn identity_keys(device: OwnDevice<'_>, signer: &Signer) -> JsonValue {
    let keys = json!({
        "user_id": device.user_id,
        "device_id": device.device_id,
        "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
        "keys": {
            format!("curve25519:{}", device.device_id): "wjLpTLRqbqBzLs63aYaEv2Boi6cFEbbM/sSRQ2oAKk4",
            format!("ed25519:{}", device.device_id): signer.public_key,
        },
    });
    signer.sign(device.user_id, keys)
}

pub(super) async fn upload_identity(world: &World, device: OwnDevice<'_>) -> Signer {
    let signer = Signer::new(Some(device.device_id.as_str()));
    let upload = KeyUpload { device_keys: Some(raw(identity_keys(device, &signer))), ..KeyUpload::default() };
    world.e2ee.upload_keys(device, upload).await.unwrap();
    signer
}

pub(super) fn all_devices_of(users: &[&UserId]) -> BTreeMap<OwnedUserId, Vec<ruma::OwnedDeviceId>> {
    users.iter().map(|user_id| ((*user_id).to_owned(), Vec::new())).collect()
}

pub(super) fn device(device_id: &str) -> &DeviceId {
    device_id.into()
}
