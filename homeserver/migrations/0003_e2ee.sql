-- End-to-end encryption: device keys, one-time keys, cross-signing, device lists, to-device messages, key backup.
-- The devices themselves belong to the accounts.

-- The identity keys of local devices, as uploaded, in canonical form and without `unsigned`.
CREATE TABLE device_keys (
    user_nid BIGINT NOT NULL,
    device_id TEXT NOT NULL,
    json TEXT NOT NULL,
    PRIMARY KEY (user_nid, device_id)
);

-- Each is given out once, in the order of `place`.
CREATE TABLE one_time_keys (
    user_nid BIGINT NOT NULL,
    device_id TEXT NOT NULL,
    algorithm TEXT NOT NULL,
    key_id TEXT NOT NULL,
    place BIGINT NOT NULL,
    json TEXT NOT NULL,
    PRIMARY KEY (user_nid, device_id, algorithm, key_id)
);
CREATE INDEX one_time_keys_by_place ON one_time_keys (user_nid, device_id, algorithm, place);

-- Given out again and again once the one-time keys have run out.
CREATE TABLE fallback_keys (
    user_nid BIGINT NOT NULL,
    device_id TEXT NOT NULL,
    algorithm TEXT NOT NULL,
    key_id TEXT NOT NULL,
    json TEXT NOT NULL,
    is_used BOOLEAN NOT NULL,
    PRIMARY KEY (user_nid, device_id, algorithm)
);

-- Of local users, and of remote ones as their servers told us.
CREATE TABLE cross_signing_keys (
    user_nid BIGINT NOT NULL,
    -- master, self_signing, user_signing
    key_usage TEXT NOT NULL,
    -- Unpadded base64, as in the key's id.
    public_key TEXT NOT NULL,
    json TEXT NOT NULL,
    PRIMARY KEY (user_nid, key_usage)
);

-- Signatures that came after the key they sign.
CREATE TABLE key_signatures (
    target_nid BIGINT NOT NULL,
    -- A device id, or the public key of a master key.
    target_key TEXT NOT NULL,
    signer_nid BIGINT NOT NULL,
    -- With its algorithm.
    key_id TEXT NOT NULL,
    signature TEXT NOT NULL,
    PRIMARY KEY (target_nid, target_key, signer_nid, key_id)
);

-- Whom a user signed: only that user's own devices learn of it.
CREATE TABLE user_signature_changes (
    signer_nid BIGINT NOT NULL,
    target_nid BIGINT NOT NULL,
    lane BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    PRIMARY KEY (signer_nid, target_nid)
);

-- When each user's devices or cross-signing keys changed last, and how often they did.
CREATE TABLE device_list_changes (
    user_nid BIGINT PRIMARY KEY,
    -- Counts the changes; a local user's `stream_id` towards other servers.
    version BIGINT NOT NULL,
    lane BIGINT NOT NULL,
    seq BIGINT NOT NULL
);
CREATE INDEX device_list_changes_by_position ON device_list_changes (lane, seq);

-- At which version of its user's list a device changed last, or went away.
CREATE TABLE device_changes (
    user_nid BIGINT NOT NULL,
    device_id TEXT NOT NULL,
    version BIGINT NOT NULL,
    PRIMARY KEY (user_nid, device_id)
);

-- Who joined or left where since a position: whose devices become interesting, and whose cease to be.
CREATE INDEX memberships_by_position ON memberships (lane, seq);

-- The devices of remote users whom local users share a room with.
CREATE TABLE remote_device_lists (
    user_nid BIGINT PRIMARY KEY,
    stream_id BIGINT NOT NULL,
    -- Whether no update was missed since the list was fetched, as far as updates came.
    is_current BOOLEAN NOT NULL,
    -- Where the lanes stood when the list was asked for, a JSON array with the seq of lane n at place n. Updates come
    -- for as long as a room is shared since then.
    asked_at TEXT NOT NULL
);
CREATE TABLE remote_devices (
    user_nid BIGINT NOT NULL,
    device_id TEXT NOT NULL,
    display_name TEXT,
    json TEXT,
    PRIMARY KEY (user_nid, device_id)
);

-- Messages that wait for their device to acknowledge them.
CREATE TABLE to_device_messages (
    message_nid IDENTITY,
    user_nid BIGINT NOT NULL,
    device_id TEXT NOT NULL,
    lane BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    json TEXT NOT NULL
);
CREATE INDEX to_device_messages_by_device ON to_device_messages (user_nid, device_id, message_nid);

-- Which messages came in before: of a local device by its transaction, of a remote user (device_id '') by message_id.
CREATE TABLE to_device_transactions (
    user_nid BIGINT NOT NULL,
    device_id TEXT NOT NULL,
    event_type TEXT NOT NULL,
    txn_id TEXT NOT NULL,
    created_ts BIGINT NOT NULL,
    PRIMARY KEY (user_nid, device_id, event_type, txn_id)
);
CREATE INDEX to_device_transactions_by_age ON to_device_transactions (created_ts);

-- To-device messages for other servers, until the federation's sender has delivered them.
CREATE TABLE to_device_outbox (
    edu_nid IDENTITY,
    destination TEXT NOT NULL,
    -- The content of an m.direct_to_device EDU.
    content TEXT NOT NULL
);
CREATE INDEX to_device_outbox_by_destination ON to_device_outbox (destination, edu_nid);

CREATE TABLE key_backup_versions (
    user_nid BIGINT NOT NULL,
    version BIGINT NOT NULL,
    algorithm TEXT NOT NULL,
    auth_data TEXT NOT NULL,
    -- Counts what changed the stored keys.
    etag BIGINT NOT NULL,
    -- A deleted version keeps its number.
    is_deleted BOOLEAN NOT NULL,
    PRIMARY KEY (user_nid, version)
);
CREATE TABLE key_backup_sessions (
    user_nid BIGINT NOT NULL,
    version BIGINT NOT NULL,
    room_id TEXT NOT NULL,
    session_id TEXT NOT NULL,
    first_message_index BIGINT NOT NULL,
    forwarded_count BIGINT NOT NULL,
    is_verified BOOLEAN NOT NULL,
    session_data TEXT NOT NULL,
    PRIMARY KEY (user_nid, version, room_id, session_id)
);
