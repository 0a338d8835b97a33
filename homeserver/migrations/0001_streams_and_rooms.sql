-- Lanes (one position for everything), interned names, rooms, events and state. docs/architecture.md tells how they
-- work together. IDENTITY is a key that the engine numbers by itself.

-- Blocks of row numbers, handed to shards: see storage/nid.rs.
CREATE TABLE nid_blocks (
    kind TEXT PRIMARY KEY,
    next_nid BIGINT NOT NULL
);

-- A lane is a shard's place in the order of commits. Every transaction that a reader must learn of takes the next
-- seq of its shard's lane, with the epoch in the WHERE: who lost its lease cannot commit.
CREATE TABLE lanes (
    lane BIGINT PRIMARY KEY,
    holder TEXT NOT NULL,
    epoch BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    leased_until BIGINT NOT NULL
);

-- What each position of a lane changed, for shards that follow it and for followers with cursors of their own.
CREATE TABLE lane_log (
    lane BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    written_ts BIGINT NOT NULL,
    changes TEXT NOT NULL,
    PRIMARY KEY (lane, seq)
);

-- How far a follower (federation sender, push, …) has read a lane.
CREATE TABLE follower_cursors (
    follower TEXT NOT NULL,
    lane BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    PRIMARY KEY (follower, lane)
);

-- Every user that was ever seen, local or remote.
CREATE TABLE user_names (
    user_nid BIGINT PRIMARY KEY,
    user_id TEXT NOT NULL UNIQUE,
    server_name TEXT NOT NULL
);

CREATE TABLE rooms (
    room_nid BIGINT PRIMARY KEY,
    room_id TEXT NOT NULL UNIQUE,
    room_version TEXT NOT NULL,
    -- Moves with every append, compared and swapped; also the position of the newest event of the room.
    version BIGINT NOT NULL,
    -- The position before the oldest backfilled event; 0 while nothing was backfilled.
    oldest BIGINT NOT NULL,
    -- Where the newest append stands in the order of commits.
    lane BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    -- JSON array of event_nid.
    extremities TEXT NOT NULL,
    -- The state after the newest event.
    state_nid BIGINT NOT NULL,
    -- Whether this server takes part in the room now, so that what it knows is up to date: a local user is joined, or
    -- nobody is.
    is_resident BOOLEAN NOT NULL,
    -- How many users are joined.
    local_members BIGINT NOT NULL DEFAULT 0,
    remote_members BIGINT NOT NULL DEFAULT 0
);

CREATE TABLE events (
    event_nid BIGINT PRIMARY KEY,
    room_nid BIGINT NOT NULL,
    event_id TEXT NOT NULL UNIQUE,
    -- The room's local order: the version that appended it, negative when backfilled, NULL for an outlier.
    position BIGINT,
    lane BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    depth BIGINT NOT NULL,
    event_type TEXT NOT NULL,
    state_key TEXT,
    sender TEXT NOT NULL,
    origin_server_ts BIGINT NOT NULL,
    -- 0 accepted, 1 soft-failed (stored, shown to nobody), 2 rejected.
    standing BIGINT NOT NULL,
    -- The state before the event; NULL while it is not known (outliers, and gaps).
    state_nid BIGINT,
    -- The event that redacted this one.
    redacted_by TEXT,
    -- The event as signed, without unsigned.
    json TEXT NOT NULL
);
CREATE UNIQUE INDEX events_by_position ON events (room_nid, position);

-- Who points at what, for events whose successors or predecessors matter: gaps and extremities of remote rooms.
CREATE TABLE backward_extremities (
    room_nid BIGINT NOT NULL,
    -- The event that is missing.
    event_id TEXT NOT NULL,
    -- The oldest position that names it.
    position BIGINT NOT NULL,
    PRIMARY KEY (room_nid, event_id)
);

-- A state is a list of blocks; a block is a list of state events. Unchanged blocks are shared between snapshots.
CREATE TABLE state_snapshots (
    state_nid BIGINT PRIMARY KEY,
    room_nid BIGINT NOT NULL,
    blocks BYTEA NOT NULL
);
CREATE TABLE state_blocks (
    block_nid BIGINT PRIMARY KEY,
    room_nid BIGINT NOT NULL,
    event_nids BYTEA NOT NULL
);

-- The state after the newest event, by key.
CREATE TABLE current_state (
    room_nid BIGINT NOT NULL,
    event_type TEXT NOT NULL,
    state_key TEXT NOT NULL,
    event_nid BIGINT NOT NULL,
    PRIMARY KEY (room_nid, event_type, state_key)
);

-- Each user's newest membership of a room, as the current state has it (or as an invite or knock told us).
CREATE TABLE memberships (
    room_nid BIGINT NOT NULL,
    user_nid BIGINT NOT NULL,
    -- join, invite, knock, leave, ban
    membership TEXT NOT NULL,
    event_nid BIGINT NOT NULL,
    -- The position of the membership event; NULL when the room is only known by an invite or knock.
    position BIGINT,
    lane BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    is_local BOOLEAN NOT NULL,
    is_forgotten BOOLEAN NOT NULL,
    -- For invites and knocks to rooms that we are not in: the stripped state that came along, a JSON array.
    stripped_state TEXT,
    PRIMARY KEY (room_nid, user_nid)
);
CREATE INDEX memberships_by_user ON memberships (user_nid, membership);

-- Which event a client's transaction made, so that a repeated request answers the same.
CREATE TABLE transaction_ids (
    user_nid BIGINT NOT NULL,
    device_id TEXT NOT NULL,
    scope TEXT NOT NULL,
    txn_id TEXT NOT NULL,
    event_id TEXT NOT NULL,
    created_ts BIGINT NOT NULL,
    PRIMARY KEY (user_nid, device_id, scope, txn_id)
);

-- Relations between events (m.relates_to), for aggregations and /relations.
CREATE TABLE event_relations (
    event_nid BIGINT PRIMARY KEY,
    room_nid BIGINT NOT NULL,
    relates_to TEXT NOT NULL,
    rel_type TEXT NOT NULL,
    position BIGINT NOT NULL
);
CREATE INDEX event_relations_by_target ON event_relations (relates_to, rel_type, position);

CREATE TABLE room_aliases (
    alias TEXT PRIMARY KEY,
    room_id TEXT NOT NULL,
    creator TEXT NOT NULL
);
CREATE INDEX room_aliases_by_room ON room_aliases (room_id);

CREATE TABLE published_rooms (
    room_nid BIGINT PRIMARY KEY
);
