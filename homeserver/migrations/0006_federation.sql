-- Other servers: their keys and health, what they sent us, and what waits to be sent to them.

-- The newest document of keys that a server published, as it signed it, for those who ask us as a notary.
CREATE TABLE server_key_documents (
    server_name TEXT PRIMARY KEY,
    document TEXT NOT NULL,
    valid_until_ts BIGINT NOT NULL,
    fetched_ts BIGINT NOT NULL
);
-- Every key that a server ever had, because events stay signed with it.
CREATE TABLE server_keys (
    server_name TEXT NOT NULL,
    key_id TEXT NOT NULL,
    public_key TEXT NOT NULL,
    -- Events made later than this are not signed by this key, in milliseconds.
    valid_until_ts BIGINT NOT NULL,
    -- Whether the server still signs requests with it.
    is_current BOOLEAN NOT NULL,
    PRIMARY KEY (server_name, key_id)
);

-- Servers that failed, and when they are asked again.
CREATE TABLE destinations (
    server_name TEXT PRIMARY KEY,
    failing_since BIGINT NOT NULL,
    retry_after BIGINT NOT NULL,
    rest_ms BIGINT NOT NULL
);

-- Answers to transactions, so that one that is sent again is answered again and not taken again.
CREATE TABLE received_transactions (
    origin TEXT NOT NULL,
    txn_id TEXT NOT NULL,
    received_ts BIGINT NOT NULL,
    answer TEXT NOT NULL,
    PRIMARY KEY (origin, txn_id)
);
CREATE INDEX received_transactions_by_time ON received_transactions (received_ts);

-- What waits to be sent, in order of the queue position. Either event_nid or edu is set.
CREATE TABLE outbox (
    outbox_nid IDENTITY,
    destination TEXT NOT NULL,
    event_nid BIGINT,
    edu TEXT
);
CREATE INDEX outbox_by_destination ON outbox (destination, outbox_nid);

-- Memberships that were made through another server. Those of others' users that came in through us (send_join and the
-- like) are delivered by us as if they were ours; those of our users that went through others are delivered by them.
CREATE TABLE handshake_events (
    event_id TEXT PRIMARY KEY,
    is_delivered_by_us BOOLEAN NOT NULL
);

-- Work that must have one owner. Who lost the lease cannot write: the epoch is in every WHERE.
CREATE TABLE leases (
    name TEXT PRIMARY KEY,
    holder TEXT NOT NULL,
    epoch BIGINT NOT NULL,
    leased_until BIGINT NOT NULL
);
