//! Which file of a folder answers a request, and with which header: conditional, partial and precompressed as asked.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_TYPE, ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED, RANGE, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::byte_range::{ByteRange, Wanted};
use super::media_type;
use crate::routing::accept::{Coding, acceptable};
use crate::routing::routes::decoded;

/// A folder that is served.
#[derive(Debug, Clone)]
pub(crate) struct StaticFolder {
    pub(crate) root: PathBuf,
    /// The file that stands for a folder.
    pub(crate) index: String,
    /// The file that stands for pages that are none.
    pub(crate) fallback: Option<String>,
    /// How long files are kept that are neither pages nor named by their content, in seconds.
    pub(crate) cache_seconds: u64,
}

/// What answers a request.
#[derive(Debug)]
pub(crate) enum Found {
    /// A file, or the part of it that was asked for.
    File(FileAnswer),
    /// The path is a folder's and lacks its last slash.
    Folder,
    /// There is none.
    Nothing,
}

/// The header of an answer, and the file that its body comes from.
#[derive(Debug)]
pub(crate) struct FileAnswer {
    pub(crate) status: StatusCode,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// `None` when there is nothing to send, not even to a GET.
    pub(crate) body: Option<FileBody>,
}

/// What is left to read of a file.
#[derive(Debug)]
pub(crate) struct FileBody {
    file: File,
    left: u64,
}

/// A chunk is large enough that reading it is worth the change of threads.
const CHUNK_BYTES: u64 = 128 * 1024;

impl FileBody {
    pub(crate) fn is_read(&self) -> bool {
        self.left == 0
    }

    /// The next chunk; blocks.
    pub(crate) fn read_chunk(&mut self) -> io::Result<Bytes> {
        let mut chunk = Vec::with_capacity(usize::try_from(self.left.min(CHUNK_BYTES)).unwrap_or_default());
        let read = self.file.by_ref().take(self.left.min(CHUNK_BYTES)).read_to_end(&mut chunk)?;
        if read == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file shrank while it was sent"));
        }
        self.left -= read as u64;
        Ok(chunk.into())
    }
}

/// One file that was found.
struct Chosen {
    file: File,
    metadata: Metadata,
    coding: Option<Coding>,
    /// The name by which its type and its life in caches are told.
    name: String,
}

impl StaticFolder {
    /// Finds what answers a request for `rest`, the part of the path below the folder's own, as it is on the wire. Blocks.
    pub(crate) fn find(&self, rest: &str, headers: &HeaderMap) -> io::Result<Found> {
        let Some(relative) = relative(rest) else { return Ok(Found::Nothing) };
        let root = fs::canonicalize(&self.root)?;
        let of_folder = rest.is_empty() || rest.ends_with('/');
        let path = match within(&root, &root.join(&relative)) {
            Some(path) if path.is_dir() && !of_folder => return Ok(Found::Folder),
            Some(path) if path.is_dir() => within(&root, &path.join(&self.index)),
            Some(path) if !of_folder => Some(path),
            _ => None,
        };
        let path = path.filter(|path| path.is_file()).or_else(|| {
            let fallback = self.fallback.as_ref().filter(|_| wants_page(rest, headers))?;
            within(&root, &root.join(fallback))
        });
        let Some(path) = path else { return Ok(Found::Nothing) };
        let Some(chosen) = choose(&root, &path, headers)? else { return Ok(Found::Nothing) };
        self.answer(chosen, headers).map(Found::File)
    }

    fn answer(&self, chosen: Chosen, headers: &HeaderMap) -> io::Result<FileAnswer> {
        let Chosen { mut file, metadata, coding, name } = chosen;
        let length = metadata.len();
        let modified = metadata.modified().ok();
        let tag = entity_tag(modified, length, coding);
        let content_type = media_type::of_file(&name);
        let mut answer = vec![
            (CONTENT_TYPE, HeaderValue::from_static(content_type)),
            (CACHE_CONTROL, self.cache_control(&name, content_type)),
        ];
        answer.extend(HeaderValue::from_str(&tag).ok().map(|tag| (ETAG, tag)));
        let last_modified = modified.map(httpdate::fmt_http_date);
        let value = last_modified.as_deref().and_then(|date| HeaderValue::from_str(date).ok());
        answer.extend(value.map(|value| (LAST_MODIFIED, value)));
        if media_type::is_compressible(content_type) {
            answer.push((VARY, HeaderValue::from_static("accept-encoding")));
        }
        if is_unchanged(headers, &tag, modified) {
            return Ok(FileAnswer { status: StatusCode::NOT_MODIFIED, headers: answer, body: None });
        }
        if let Some(coding) = coding {
            answer.push((CONTENT_ENCODING, HeaderValue::from_static(coding.as_str())));
        } else {
            answer.push((ACCEPT_RANGES, HeaderValue::from_static("bytes")));
        }
        let wanted = range_applies(headers, &tag, last_modified.as_deref()).then(|| headers.get(RANGE)).flatten();
        let wanted = wanted.filter(|_| coding.is_none()).and_then(|range| range.to_str().ok());
        let (status, range) = match wanted.map_or(Wanted::Whole, |range| ByteRange::parse(range, length)) {
            Wanted::Whole => (StatusCode::OK, ByteRange::whole(length)),
            Wanted::Part(range) => {
                answer.extend(content_range(&range.to_string(), length));
                (StatusCode::PARTIAL_CONTENT, range)
            }
            Wanted::Beyond => {
                answer.retain(|(name, _)| *name != CONTENT_TYPE);
                answer.extend(content_range("*", length));
                answer.push((CONTENT_LENGTH, HeaderValue::from(0)));
                return Ok(FileAnswer { status: StatusCode::RANGE_NOT_SATISFIABLE, headers: answer, body: None });
            }
        };
        file.seek(SeekFrom::Start(range.first()))?;
        answer.push((CONTENT_LENGTH, HeaderValue::from(range.len())));
        Ok(FileAnswer { status, headers: answer, body: Some(FileBody { file, left: range.len() }) })
    }

    fn cache_control(&self, name: &str, content_type: &str) -> HeaderValue {
        if content_type.starts_with("text/html") || name.ends_with(".json") {
            // A page or a configuration names the other files: an old one would ask for files that are gone.
            return HeaderValue::from_static("no-cache");
        }
        if is_named_by_content(name) {
            return HeaderValue::from_static("public, max-age=31536000, immutable");
        }
        let value = format!("public, max-age={}", self.cache_seconds);
        HeaderValue::from_str(&value).unwrap_or(HeaderValue::from_static("no-cache"))
    }
}

/// The path below the folder that a path of a URL names; `None` for one that no honest link holds. Hidden files are not
/// served, but for `.well-known`.
fn relative(rest: &str) -> Option<PathBuf> {
    let mut relative = PathBuf::new();
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.is_empty() {
        return Some(relative);
    }
    for segment in rest.split('/') {
        let segment = String::from_utf8(decoded(segment)).ok()?;
        let hidden = segment.starts_with('.') && segment != ".well-known";
        if segment.is_empty() || hidden || segment.contains(['/', '\\']) || segment.chars().any(char::is_control) {
            return None;
        }
        relative.push(segment);
    }
    Some(relative)
}

/// The true place of `path`, if it lies within `root`: symbolic links do not lead out.
fn within(root: &Path, path: &Path) -> Option<PathBuf> {
    fs::canonicalize(path).ok().filter(|path| path.starts_with(root))
}

/// Whether a page may stand for a path that has no file. A missing script must stay missing: a page in its place would be
/// run, and kept.
fn wants_page(rest: &str, headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let last = rest.rsplit('/').next().unwrap_or_default();
    accept.contains("text/html") || !last.contains('.')
}

/// The file itself, or a compressed one beside it that the client takes.
fn choose(root: &Path, path: &Path, headers: &HeaderMap) -> io::Result<Option<Chosen>> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    let accept = headers.get(ACCEPT_ENCODING).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    // A part is a part of the file as it is.
    if media_type::is_compressible(media_type::of_file(&name)) && !headers.contains_key(RANGE) {
        for coding in acceptable(accept, &[Coding::Brotli, Coding::Zstd, Coding::Gzip]) {
            let sibling = path.with_file_name(format!("{name}.{}", extension(coding)));
            let Some(sibling) = within(root, &sibling) else { continue };
            if let Some((file, metadata)) = open(&sibling)? {
                return Ok(Some(Chosen { file, metadata, coding: Some(coding), name }));
            }
        }
    }
    Ok(open(path)?.map(|(file, metadata)| Chosen { file, metadata, coding: None, name }))
}

fn extension(coding: Coding) -> &'static str {
    match coding {
        Coding::Zstd => "zst",
        Coding::Brotli => "br",
        Coding::Gzip => "gz",
    }
}

/// Opens a file; what is no file (any more) is `None`.
fn open(path: &Path) -> io::Result<Option<(File, Metadata)>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let metadata = file.metadata()?;
    Ok(metadata.is_file().then_some((file, metadata)))
}

fn entity_tag(modified: Option<SystemTime>, length: u64, coding: Option<Coding>) -> String {
    let nanos = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).map_or(0, |since| since.as_nanos());
    match coding {
        Some(coding) => format!("\"{nanos:x}-{length:x}-{}\"", coding.as_str()),
        None => format!("\"{nanos:x}-{length:x}\""),
    }
}

/// RFC 9110, section 13.2.2: `If-None-Match` is heard first, and alone where it is there.
fn is_unchanged(headers: &HeaderMap, tag: &str, modified: Option<SystemTime>) -> bool {
    if let Some(known) = headers.get(IF_NONE_MATCH) {
        let known = known.to_str().unwrap_or_default();
        let same = |known: &str| known.trim().trim_start_matches("W/") == tag;
        return known.trim() == "*" || known.split(',').any(same);
    }
    let since = headers.get(IF_MODIFIED_SINCE).and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
    let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    since.zip(modified).is_some_and(|(since, modified)| seconds(modified) <= seconds(since))
}

/// `If-Range`: a part is sent only of the very file that the client holds another part of.
fn range_applies(headers: &HeaderMap, tag: &str, last_modified: Option<&str>) -> bool {
    let Some(condition) = headers.get(IF_RANGE) else { return true };
    condition.to_str().is_ok_and(|condition| condition == tag || Some(condition) == last_modified)
}

fn content_range(part: &str, length: u64) -> Option<(HeaderName, HeaderValue)> {
    HeaderValue::from_str(&format!("bytes {part}/{length}")).ok().map(|value| (CONTENT_RANGE, value))
}

/// Whether the name holds a hash, as build tools write it: at least eight hex digits, one of them a digit, as a part of
/// their own or as a folder-less file name.
fn is_named_by_content(name: &str) -> bool {
    name.split(['.', '-', '_']).any(|part| {
        part.len() >= 8
            && part.bytes().all(|byte| byte.is_ascii_hexdigit())
            && part.bytes().any(|byte| byte.is_ascii_digit())
            && part.bytes().any(|byte| byte.is_ascii_alphabetic())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_no_link_holds_name_nothing() {
        for rest in
            ["a//b", "../a", "a/..", "%2e%2e/a", "a%2fb", "a\\b", "a%5cb", ".git/config", "%2egit", "a%00", "%ff"]
        {
            assert_eq!(relative(rest), None, "{rest}");
        }
        for (rest, path) in
            [("", ""), ("a/b.js", "a/b.js"), ("a/", "a"), (".well-known/x", ".well-known/x"), ("%61", "a")]
        {
            assert_eq!(relative(rest), Some(PathBuf::from(path)), "{rest}");
        }
    }

    #[test]
    fn names_with_a_hash_are_kept_for_ever() {
        for name in ["bundle.0a1b2c3d4e.js", "4f6d1e0bcafe.woff2", "main-deadbee5.css"] {
            assert!(is_named_by_content(name), "{name}");
        }
        for name in ["index.html", "bundle.js", "deadbeef.js", "20240101.js", "icon-512.png"] {
            assert!(!is_named_by_content(name), "{name}");
        }
    }
}
