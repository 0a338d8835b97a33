-- Local users: who they are, how they prove it, their devices, and what they keep for their clients.

CREATE TABLE users (
    user_nid BIGINT PRIMARY KEY,
    -- A PHC string (Argon2id), or bcrypt of a user who moved here; NULL: no password logs this user in.
    password_hash TEXT,
    is_admin BOOLEAN NOT NULL,
    is_deactivated BOOLEAN NOT NULL,
    -- Asked to be forgotten when deactivated.
    is_erased BOOLEAN NOT NULL,
    created_ts BIGINT NOT NULL
);

CREATE TABLE profiles (
    user_nid BIGINT PRIMARY KEY,
    displayname TEXT,
    avatar_url TEXT,
    -- JSON object with all other fields.
    fields TEXT NOT NULL
);

CREATE TABLE devices (
    user_nid BIGINT NOT NULL,
    device_id TEXT NOT NULL,
    display_name TEXT,
    created_ts BIGINT NOT NULL,
    -- Written late and in batches.
    last_seen_ts BIGINT NOT NULL,
    last_seen_ip TEXT NOT NULL,
    PRIMARY KEY (user_nid, device_id)
);

-- An access token, and the refresh token that was given with it. Only digests (SHA-256) are kept.
CREATE TABLE access_tokens (
    token_digest BYTEA PRIMARY KEY,
    user_nid BIGINT NOT NULL,
    device_id TEXT NOT NULL,
    created_ts BIGINT NOT NULL,
    -- NULL: does not expire.
    expires_ts BIGINT,
    refresh_digest BYTEA UNIQUE,
    -- The access token that this one replaces; it and its refresh token end at the first use of this one.
    supersedes BYTEA
);
CREATE INDEX access_tokens_by_device ON access_tokens (user_nid, device_id);
CREATE INDEX access_tokens_by_superseded ON access_tokens (supersedes) WHERE supersedes IS NOT NULL;

-- User-interactive authentication that has begun, so that any shard can go on with it.
CREATE TABLE uia_sessions (
    session TEXT PRIMARY KEY,
    created_ts BIGINT NOT NULL,
    -- SHA-256 over who asks for what: another request cannot use the session.
    request_digest BYTEA NOT NULL,
    -- JSON array of the stages that are done.
    completed TEXT NOT NULL
);
CREATE INDEX uia_sessions_by_age ON uia_sessions (created_ts);

-- Nonces of the registration by shared secret that were given and not used.
CREATE TABLE registration_nonces (
    nonce TEXT PRIMARY KEY,
    created_ts BIGINT NOT NULL
);

-- Global account data (room_id is empty) and that of rooms, m.push_rules and m.tag included.
CREATE TABLE account_data (
    user_nid BIGINT NOT NULL,
    room_id TEXT NOT NULL,
    data_type TEXT NOT NULL,
    content TEXT NOT NULL,
    lane BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    PRIMARY KEY (user_nid, room_id, data_type)
);
CREATE INDEX account_data_by_position ON account_data (user_nid, lane, seq);

-- A filter's id is made from its content, so the same filter is kept once.
CREATE TABLE filters (
    user_nid BIGINT NOT NULL,
    filter_id TEXT NOT NULL,
    filter TEXT NOT NULL,
    PRIMARY KEY (user_nid, filter_id)
);

CREATE TABLE openid_tokens (
    token_digest BYTEA PRIMARY KEY,
    user_nid BIGINT NOT NULL,
    expires_ts BIGINT NOT NULL
);
CREATE INDEX openid_tokens_by_age ON openid_tokens (expires_ts);
