//! Which `Content-Type` a file has by its name, and which types are worth compressing.

/// The type of a file; bytes of no known kind are just that.
pub(crate) fn of_file(name: &str) -> &'static str {
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension).to_ascii_lowercase();
    match extension.as_str() {
        "html" | "htm" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "json" | "map" => "application/json",
        "webmanifest" => "application/manifest+json",
        "wasm" => "application/wasm",
        "txt" => "text/plain; charset=utf-8",
        "md" => "text/markdown; charset=utf-8",
        "xml" => "application/xml",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "avif" => "image/avif",
        "ico" => "image/x-icon",
        "woff" => "font/woff",
        "woff2" => "font/woff2",
        "ttf" => "font/ttf",
        "otf" => "font/otf",
        "mp3" => "audio/mpeg",
        "ogg" | "oga" | "opus" => "audio/ogg",
        "wav" => "audio/wav",
        "mp4" => "video/mp4",
        "webm" => "video/webm",
        "pdf" => "application/pdf",
        _ => "application/octet-stream",
    }
}

/// Whether answers of a type shrink. A stream of events must leave as it comes, and is not touched.
pub(crate) fn is_compressible(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    let is = |other: &str| essence.eq_ignore_ascii_case(other);
    if is("text/event-stream") {
        return false;
    }
    let begins = |start: &str| essence.get(..start.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(start));
    let ends = |end: &str| essence.to_ascii_lowercase().ends_with(end);
    begins("text/")
        || ["application/json", "application/javascript", "application/xml", "application/wasm"].into_iter().any(is)
        || ["image/svg+xml", "image/x-icon", "font/ttf", "font/otf"].into_iter().any(is)
        || ends("+json")
        || ends("+xml")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_shrinks_and_streams_and_images_do_not() {
        for name in ["index.html", "a.JS", "a.b.css", "manifest.webmanifest", "x.svg", "a.wasm", "config.json"] {
            assert!(is_compressible(of_file(name)), "{name}");
        }
        for content_type in ["text/event-stream", "image/png", "application/octet-stream", "font/woff2", ""] {
            assert!(!is_compressible(content_type), "{content_type}");
        }
        assert_eq!(of_file("README"), "application/octet-stream");
    }
}
