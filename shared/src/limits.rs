//! The limits that both sides need, each written down once.
//!
//! The edge refuses what is larger before it reaches a shard; the shard refuses again, because it may be reached
//! through another proxy.

/// Largest body of a media upload when the configuration names no other: 50 MiB, the default of the field
/// (`m.upload.size` of `GET /_matrix/media/v3/config`).
pub const DEFAULT_MAX_UPLOAD_BYTES: u64 = 50 * 1024 * 1024;

/// Largest JSON body of a client request: 1 MiB. An event is at most 64 KiB; the largest bodies that clients send are
/// batches of key backups, and those stay below 200 KiB.
pub const MAX_CLIENT_JSON_BYTES: u64 = 1024 * 1024;

/// Largest body of a request from another server: 10 MiB. A transaction holds at most 50 PDUs of 64 KiB and 100 EDUs
/// (server-server API, "Transactions"), which is 9.4 MiB when each is as large as it may be.
pub const MAX_FEDERATION_JSON_BYTES: u64 = 10 * 1024 * 1024;

/// Largest event in canonical JSON: 65,536 bytes (client-server API, "Size limits").
pub const MAX_EVENT_BYTES: usize = 65_536;

/// Largest header of a request, names and values together: 32 KiB. The longest that is needed is a cookie or a token.
pub const MAX_REQUEST_HEADER_BYTES: usize = 32 * 1024;

/// Longest request target (path and query) that is taken: 16 KiB. Filters and identifiers in queries stay far below.
pub const MAX_REQUEST_TARGET_BYTES: usize = 16 * 1024;
