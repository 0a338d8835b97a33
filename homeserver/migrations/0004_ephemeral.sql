-- What passes: typing, receipts, presence.

CREATE TABLE typing (
    room_nid BIGINT NOT NULL,
    user_nid BIGINT NOT NULL,
    -- When the user stops typing by itself; 0 once it stopped.
    expires_ts BIGINT NOT NULL,
    -- When what readers see changed last; a mere extension does not move it.
    lane BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    PRIMARY KEY (room_nid, user_nid)
);
CREATE INDEX typing_by_expiry ON typing (expires_ts);

-- The newest receipt of each kind. m.fully_read is kept here too, for its position alone: what clients read of it is
-- the room's account data.
CREATE TABLE receipts (
    room_nid BIGINT NOT NULL,
    user_nid BIGINT NOT NULL,
    receipt_type TEXT NOT NULL,
    -- '' unthreaded, 'main', or the root of the thread.
    thread_id TEXT NOT NULL,
    event_id TEXT NOT NULL,
    -- The event's position in the room; NULL while we do not have the event.
    position BIGINT,
    receipt_ts BIGINT NOT NULL,
    lane BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    PRIMARY KEY (room_nid, user_nid, receipt_type, thread_id)
);
CREATE INDEX receipts_by_position ON receipts (room_nid, lane, seq);

CREATE TABLE presence (
    user_nid BIGINT PRIMARY KEY,
    -- online, unavailable, offline
    presence TEXT NOT NULL,
    status_msg TEXT,
    last_active_ts BIGINT NOT NULL,
    lane BIGINT NOT NULL,
    seq BIGINT NOT NULL
);
CREATE INDEX presence_by_position ON presence (lane, seq);
