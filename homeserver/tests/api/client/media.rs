use std::{io::Cursor, time::Duration};

use gatehouse_shared::contract::Verdict;
use image::{DynamicImage, ImageFormat, RgbImage};
use serde_json::json;

use crate::harness::{Call, Engine, SERVER_NAME, Server, User};

on_both_engines!(
    a_part_is_answered_and_a_known_content_is_not_sent_again,
    a_reserved_id_is_filled_once,
    bombs_and_broken_pictures_have_no_thumbnail,
    hostile_names_and_types_harm_nobody,
    the_old_endpoints_are_frozen_unless_configured,
    the_same_upload_at_one_time_is_kept_for_each,
    thumbnails_are_made_in_the_sizes_of_the_table,
    what_is_missing_is_not_found,
    what_is_too_large_is_refused,
    what_was_uploaded_comes_back,
);

const UPLOAD: &str = "/_matrix/media/v3/upload";
const MEDIA: &str = "/_matrix/client/v1/media";

fn upload(server: &Server, user: &User, content_type: &str, content: impl Into<axum::body::Body>) -> Call {
    server.post(UPLOAD).by(user).header("content-type", content_type).body(content)
}

/// Uploads and returns the media id.
async fn uploaded(server: &Server, user: &User, content_type: &str, content: &[u8]) -> String {
    let reply = upload(server, user, content_type, content.to_vec()).await.ok();
    let uri = reply["content_uri"].as_str().unwrap();
    uri.strip_prefix(&format!("mxc://{SERVER_NAME}/")).unwrap().to_owned()
}

fn download(server: &Server, user: &User, media_id: &str) -> Call {
    server.get(&format!("{MEDIA}/download/{SERVER_NAME}/{media_id}")).by(user)
}

fn thumbnail(server: &Server, user: &User, media_id: &str, query: &str) -> Call {
    server.get(&format!("{MEDIA}/thumbnail/{SERVER_NAME}/{media_id}?{query}")).by(user)
}

fn picture(width: u32, height: u32, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Vec::new();
    DynamicImage::from(RgbImage::new(width, height)).write_to(&mut Cursor::new(&mut bytes), format).unwrap();
    bytes
}

async fn what_was_uploaded_comes_back(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let content: Vec<u8> = (0..200_000_u32).map(|number| (number % 251) as u8).collect();
    let call = server.post(&format!("{UPLOAD}?filename=holi%20day.png")).by(&alice);
    let reply = call.header("content-type", "image/png").body(content.clone()).await.ok();
    let media_id = reply["content_uri"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    let server = server.restart().await;
    let reply = download(&server, &bob, &media_id).await;
    assert_eq!((reply.status.as_u16(), reply.bytes == content), (200, true));
    for (name, value) in [
        ("content-type", "image/png"),
        ("content-length", "200000"),
        ("content-disposition", "inline; filename=\"holi day.png\""),
        ("cross-origin-resource-policy", "cross-origin"),
        ("x-content-type-options", "nosniff"),
    ] {
        assert_eq!(reply.headers[name], value, "{name}");
    }
    assert!(reply.headers["content-security-policy"].to_str().unwrap().starts_with("sandbox; default-src 'none';"));
    let named = server.get(&format!("{MEDIA}/download/{SERVER_NAME}/{media_id}/%F0%9F%92%88.png")).by(&bob).await;
    assert_eq!(named.headers["content-disposition"], "inline; filename*=utf-8''%F0%9F%92%88.png");
    let config = server.get(&format!("{MEDIA}/config")).by(&bob).await.ok();
    assert_eq!(config, json!({ "m.upload.size": 50 * 1024 * 1024 }));
    server.get(&format!("{MEDIA}/download/{SERVER_NAME}/{media_id}")).await.error(401, "M_MISSING_TOKEN");
    server.post(UPLOAD).body("x").await.error(401, "M_MISSING_TOKEN");
}

async fn what_is_too_large_is_refused(engine: Engine) {
    let server = Server::start_with(engine, |config| config.media.max_upload_bytes = 1000).await;
    let alice = server.register("alice").await;
    upload(&server, &alice, "text/plain", vec![b'x'; 1000]).await.ok();
    upload(&server, &alice, "text/plain", vec![b'x'; 1001]).await.error(413, "M_TOO_LARGE");
    // Without a length that says so beforehand.
    let chunks = (0..20).map(|_| Ok::<_, std::io::Error>(bytes::Bytes::from_static(&[b'x'; 100])));
    let body = axum::body::Body::from_stream(futures_util::stream::iter(chunks));
    upload(&server, &alice, "text/plain", body).await.error(413, "M_TOO_LARGE");
    let broken = [Ok(bytes::Bytes::from_static(b"half")), Err(std::io::Error::other("gone"))];
    let body = axum::body::Body::from_stream(futures_util::stream::iter(broken));
    assert_eq!(upload(&server, &alice, "text/plain", body).await.status, 400);
}

async fn what_is_missing_is_not_found(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    for media_id in ["nothing", "..%2F..%2Fetc%2Fpasswd", "%01", "a%20b", &"x".repeat(300)] {
        download(&server, &alice, media_id).await.error(404, "M_NOT_FOUND");
        thumbnail(&server, &alice, media_id, "width=32&height=32").await.error(404, "M_NOT_FOUND");
    }
    for media_id in ["%ff", "%00"] {
        download(&server, &alice, media_id).await.error(400, "M_INVALID_PARAM");
    }
    server.get(&format!("{MEDIA}/download/not%20a%20name/x")).by(&alice).await.error(400, "M_INVALID_PARAM");
    server.get(&format!("{MEDIA}/preview_url?url=http://127.0.0.1/")).by(&alice).await.error(404, "M_UNRECOGNIZED");
}

async fn hostile_names_and_types_harm_nobody(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let page = uploaded(&server, &alice, "text/html", b"<script>alert(1)</script>").await;
    let reply = download(&server, &alice, &page).await;
    assert_eq!(
        (&reply.headers["content-type"], &reply.headers["content-disposition"]),
        (&"text/html".parse().unwrap(), &"attachment".parse().unwrap())
    );
    let nonsense = uploaded(&server, &alice, "no type at all", b"x").await;
    let reply = download(&server, &alice, &nonsense).await;
    assert_eq!(reply.headers["content-type"], "application/octet-stream");
    for (name, kept) in [
        ("..%2F..%2Fetc%2Fpasswd", "attachment; filename=.._.._etc_passwd"),
        ("a%0D%0AX-Evil:%201", "attachment; filename=\"aX-Evil: 1\""),
        ("%22;%20x=%22", "attachment; filename=\"\\\"; x=\\\"\""),
        ("%01%02", "attachment"),
    ] {
        let call = server.post(&format!("{UPLOAD}?filename={name}")).by(&alice).body("x");
        let uri = call.await.ok()["content_uri"].as_str().unwrap().to_owned();
        let reply = download(&server, &alice, uri.rsplit('/').next().unwrap()).await;
        assert_eq!(reply.headers["content-disposition"], kept, "{name}");
        assert!(!reply.headers.contains_key("x-evil"));
    }
}

async fn a_part_is_answered_and_a_known_content_is_not_sent_again(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let media_id = uploaded(&server, &alice, "text/plain", b"0123456789").await;
    let part = download(&server, &alice, &media_id).header("range", "bytes=2-4").await;
    assert_eq!((part.status.as_u16(), part.bytes.as_slice()), (206, &b"234"[..]));
    assert_eq!(part.headers["content-range"], "bytes 2-4/10");
    let beyond = download(&server, &alice, &media_id).header("range", "bytes=10-").await;
    assert_eq!((beyond.status.as_u16(), &beyond.headers["content-range"]), (416, &"bytes */10".parse().unwrap()));
    let etag = part.headers["etag"].to_str().unwrap();
    let known = download(&server, &alice, &media_id).header("if-none-match", etag).await;
    assert_eq!((known.status.as_u16(), known.bytes.len()), (304, 0));
}

async fn a_reserved_id_is_filled_once(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let reserved = server.post("/_matrix/media/v1/create").by(&alice).json(json!({})).await.ok();
    let expires = reserved["unused_expires_at"].as_u64().unwrap();
    assert_eq!(expires, crate::harness::BEGINNING + 24 * 60 * 60 * 1000);
    let media_id = reserved["content_uri"].as_str().unwrap().rsplit('/').next().unwrap();
    let target = format!("{UPLOAD}/{SERVER_NAME}/{media_id}");
    let now = format!("{MEDIA}/download/{SERVER_NAME}/{media_id}?timeout_ms=0");
    server.get(&now).by(&bob).await.error(504, "M_NOT_YET_UPLOADED");
    server.put(&target).by(&bob).body("x").await.error(403, "M_FORBIDDEN");
    let waiting = download(&server, &bob, media_id);
    let (waited, filled) = tokio::join!(async { waiting.await }, async {
        tokio::time::sleep(Duration::from_millis(30)).await;
        server.put(&target).by(&alice).body("late").await
    });
    assert_eq!(filled.ok(), json!({}));
    assert_eq!(waited.bytes, b"late");
    server.put(&target).by(&alice).body("again").await.error(409, "M_CANNOT_OVERWRITE_MEDIA");
    server.put(&format!("{UPLOAD}/{SERVER_NAME}/never")).by(&alice).body("x").await.error(404, "M_NOT_FOUND");
    server.put(&format!("{UPLOAD}/other.example/{media_id}")).by(&alice).body("x").await.error(404, "M_NOT_FOUND");
    for _ in 0..16 {
        server.post("/_matrix/media/v1/create").by(&alice).await.ok();
    }
    let refused = server.post("/_matrix/media/v1/create").by(&alice).await;
    assert_eq!(refused.verdict(), Some(Verdict::RateLimited("media-reservations".to_owned())));
    refused.error(429, "M_LIMIT_EXCEEDED");
    server.clock.advance(Duration::from_secs(24 * 60 * 60));
    server.post("/_matrix/media/v1/create").by(&alice).await.ok();
}

async fn the_same_upload_at_one_time_is_kept_for_each(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let uploads = (0..8).map(|_| uploaded(&server, &alice, "text/plain", &[7; 100_000]));
    let ids = futures_util::future::join_all(uploads).await;
    assert_eq!(ids.iter().collect::<std::collections::HashSet<_>>().len(), 8);
    for media_id in &ids {
        assert_eq!(download(&server, &alice, media_id).await.bytes, [7; 100_000]);
    }
}

async fn thumbnails_are_made_in_the_sizes_of_the_table(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Gif, ImageFormat::WebP] {
        let media_id = uploaded(&server, &alice, "application/octet-stream", &picture(400, 200, format)).await;
        for (query, size) in [
            ("width=30&height=30&method=crop", (32, 32)),
            ("width=320&height=200", (320, 160)),
            ("width=4000&height=4000&method=scale&animated=false", (400, 200)),
        ] {
            let reply = thumbnail(&server, &alice, &media_id, query).await;
            assert_eq!((reply.status.as_u16(), &reply.headers["content-type"]), (200, &"image/jpeg".parse().unwrap()));
            assert_eq!(reply.headers["content-disposition"], "inline; filename=thumbnail.jpg");
            let small = image::load_from_memory(&reply.bytes).unwrap();
            assert_eq!((small.width(), small.height()), size, "{format:?} {query}");
        }
    }
}

async fn bombs_and_broken_pictures_have_no_thumbnail(engine: Engine) {
    let server = Server::start_with(engine, |config| config.media.max_image_pixels = 100_000).await;
    let alice = server.register("alice").await;
    let bomb = picture(1000, 1000, ImageFormat::Png);
    let large = uploaded(&server, &alice, "image/png", &bomb).await;
    thumbnail(&server, &alice, &large, "width=32&height=32").await.error(413, "M_TOO_LARGE");
    let small = picture(200, 200, ImageFormat::Png);
    for content in [&small[..small.len() / 2], b"", b"no picture", b"<svg xmlns='http://www.w3.org/2000/svg'/>"] {
        let media_id = uploaded(&server, &alice, "image/png", content).await;
        thumbnail(&server, &alice, &media_id, "width=32&height=32").await.error(400, "M_UNKNOWN");
    }
    let media_id = uploaded(&server, &alice, "image/png", &small).await;
    for query in ["", "width=0&height=0", "width=-1&height=1", "width=x&height=1", "width=32&height=32&method=stretch"]
    {
        assert_eq!(thumbnail(&server, &alice, &media_id, query).await.status, 400, "{query}");
    }
}

async fn the_old_endpoints_are_frozen_unless_configured(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let media_id = uploaded(&server, &alice, "image/png", &picture(64, 64, ImageFormat::Png)).await;
    let old = format!("/_matrix/media/v3/download/{SERVER_NAME}/{media_id}");
    let old_thumbnail = format!("/_matrix/media/v3/thumbnail/{SERVER_NAME}/{media_id}?width=32&height=32");
    server.get(&old).await.error(404, "M_NOT_FOUND");
    server.get(&old_thumbnail).await.error(404, "M_NOT_FOUND");
    server.get("/_matrix/media/v3/config").by(&alice).await.ok();
    let server = Server::start_with(engine, |config| config.media.serve_unauthenticated = true).await;
    let alice = server.register("alice").await;
    let media_id = uploaded(&server, &alice, "image/png", &picture(64, 64, ImageFormat::Png)).await;
    let old = format!("/_matrix/media/v3/download/{SERVER_NAME}/{media_id}");
    assert_eq!(server.get(&old).await.status, 200);
    assert_eq!(server.get(&format!("{old}/name.png")).await.status, 200);
    let old_thumbnail = format!("/_matrix/media/v3/thumbnail/{SERVER_NAME}/{media_id}?width=32&height=32");
    assert_eq!(server.get(&old_thumbnail).await.status, 200);
}
