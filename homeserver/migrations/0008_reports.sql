-- What users reported to the operator.
CREATE TABLE reports (
    report_nid IDENTITY,
    reporter_nid BIGINT NOT NULL,
    received_ts BIGINT NOT NULL,
    -- What the report is about: an event of a room, a room, or a user.
    room_id TEXT,
    event_id TEXT,
    user_id TEXT,
    reason TEXT NOT NULL
);
