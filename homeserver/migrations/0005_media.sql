-- What was uploaded here and what was fetched from other servers. The bytes are blobs in the media folder, named by the
-- SHA-256 of their content; a row is written when its blob is durable.

CREATE TABLE media (
    -- The two parts of the mxc URI.
    server_name TEXT NOT NULL,
    media_id TEXT NOT NULL,
    -- The name of the blob; NULL while the id is reserved and nothing was uploaded to it.
    sha256 BYTEA,
    size BIGINT NOT NULL,
    content_type TEXT,
    file_name TEXT,
    -- Who uploaded it; NULL for media of other servers.
    uploader_nid BIGINT,
    created_ts BIGINT NOT NULL,
    -- Until when something may be uploaded to a reserved id.
    expires_ts BIGINT,
    PRIMARY KEY (server_name, media_id)
);
CREATE INDEX media_reserved ON media (uploader_nid) WHERE sha256 IS NULL;

-- Thumbnails belong to the content, not to the mxc URI: what was uploaded twice is scaled once.
CREATE TABLE media_thumbnails (
    source_sha256 BYTEA NOT NULL,
    width BIGINT NOT NULL,
    height BIGINT NOT NULL,
    -- crop or scale
    method TEXT NOT NULL,
    sha256 BYTEA NOT NULL,
    size BIGINT NOT NULL,
    content_type TEXT NOT NULL,
    PRIMARY KEY (source_sha256, width, height, method)
);
