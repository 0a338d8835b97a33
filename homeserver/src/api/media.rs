//! What both APIs share about media: the arguments, and the answer with the whole, a part of it, or none of it.

use axum::{body::Body, response::Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use ruma::{ServerName, UInt, media::Method as RumaMethod};

use super::ApiError;
use crate::media::{Content, Media, Method, Mxc, Wanted};

/// What a browser must not do with what people upload ("Content repository", security considerations).
const CONTENT_SECURITY_POLICY: &str = "sandbox; default-src 'none'; script-src 'none'; plugin-types application/pdf; \
                                       style-src 'unsafe-inline'; object-src 'self';";
/// The content of an mxc URI never changes; a day, so that what is removed goes from caches too.
const CACHE_CONTROL: &str = "private, max-age=86400, immutable";

/// The answer to a download of `content`.
///
/// # Errors
/// Those of opening it, and 416 for a part that is not there.
pub(super) async fn respond(media: &Media, content: &Content, request: &HeaderMap) -> Result<Response, ApiError> {
    let etag = format!("\"{}\"", content.blob.hex());
    if matches(request, header::IF_NONE_MATCH, &etag) {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        describe(response.headers_mut(), content, &etag)?;
        return Ok(response);
    }
    let part = match part(request, &etag, content.size) {
        Ok(part) => part,
        Err(Unsatisfiable) => return unsatisfiable(content.size),
    };
    let range = part.clone().unwrap_or(0..content.size);
    let length = range.end - range.start;
    let body = media.body(content, range.clone()).await?;
    let mut response = Response::new(Body::from_stream(body));
    let headers = response.headers_mut();
    describe(headers, content, &etag)?;
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    if part.is_some() {
        let value = format!("bytes {}-{}/{}", range.start, range.end - 1, content.size);
        headers.insert(header::CONTENT_RANGE, value_of(&value)?);
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(response)
}

fn describe(headers: &mut HeaderMap, content: &Content, etag: &str) -> Result<(), ApiError> {
    headers.insert(header::CONTENT_TYPE, value_of(&content.content_type)?);
    headers.insert(header::CONTENT_DISPOSITION, value_of(&content.disposition().to_string())?);
    headers.insert(header::ETAG, value_of(etag)?);
    for (name, value) in [
        (header::ACCEPT_RANGES, "bytes"),
        (header::CACHE_CONTROL, CACHE_CONTROL),
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (HeaderName::from_static("cross-origin-resource-policy"), "cross-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    Ok(())
}

/// What is stored was made fit for a header when it was uploaded.
pub(super) fn value_of(text: &str) -> Result<HeaderValue, ApiError> {
    HeaderValue::from_str(text).map_err(|_| {
        tracing::error!("what is stored of a medium is no header's value");
        ApiError::internal()
    })
}

#[derive(Debug, PartialEq, Eq)]
struct Unsatisfiable;

/// The part that the client asks for; `None` for the whole, which is also the answer to what is not understood, and to
/// several parts at once.
fn part(request: &HeaderMap, etag: &str, size: u64) -> Result<Option<std::ops::Range<u64>>, Unsatisfiable> {
    if request.contains_key(header::IF_RANGE) && !matches(request, header::IF_RANGE, etag) {
        return Ok(None);
    }
    let value = request.get(header::RANGE).and_then(|value| value.to_str().ok());
    let Some((first, last)) = value.and_then(|value| value.strip_prefix("bytes=")?.split_once('-')) else {
        return Ok(None);
    };
    let range = match (first.trim().parse::<u64>(), last.trim().parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last => first..size.min(last.saturating_add(1)),
        (Ok(first), Err(_)) if last.trim().is_empty() => first..size,
        (Err(_), Ok(count)) if first.trim().is_empty() => size.saturating_sub(count)..size,
        _ => return Ok(None),
    };
    if range.is_empty() { Err(Unsatisfiable) } else { Ok(Some(range)) }
}

fn unsatisfiable(size: u64) -> Result<Response, ApiError> {
    use axum::response::IntoResponse as _;
    let error = ApiError::new(StatusCode::RANGE_NOT_SATISFIABLE, "M_INVALID_PARAM", "The content has no such part");
    let mut response = error.into_response();
    response.headers_mut().insert(header::CONTENT_RANGE, value_of(&format!("bytes */{size}"))?);
    Ok(response)
}

fn matches(request: &HeaderMap, name: HeaderName, etag: &str) -> bool {
    let values = request.get_all(name);
    values.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).any(|candidate| {
        let candidate = candidate.trim();
        candidate == "*" || candidate.strip_prefix("W/").unwrap_or(candidate) == etag
    })
}

/// What the path names.
///
/// # Errors
/// 404 for what cannot be anything's name.
pub(super) fn mxc(server_name: &ServerName, media_id: &str) -> Result<Mxc, ApiError> {
    Mxc::parse(server_name, media_id).ok_or_else(|| ApiError::not_found("This is no media id"))
}

/// What the query asks for.
///
/// # Errors
/// 400 for a method that is none.
pub(super) fn wanted(width: UInt, height: UInt, method: Option<&RumaMethod>) -> Result<Wanted, ApiError> {
    let method = match method {
        None | Some(RumaMethod::Scale) => Method::Scale,
        Some(RumaMethod::Crop) => Method::Crop,
        Some(_) => return Err(ApiError::invalid_param("`method` is `crop` or `scale`")),
    };
    Ok(Wanted { width: width.into(), height: height.into(), method })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(range: &str) -> Result<Option<std::ops::Range<u64>>, Unsatisfiable> {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, HeaderValue::from_str(range).unwrap());
        part(&headers, "\"tag\"", 10)
    }

    #[test]
    fn one_part_is_understood_and_everything_else_is_the_whole() {
        for (range, expected) in [
            ("bytes=0-0", Ok(Some(0..1))),
            ("bytes=2-4", Ok(Some(2..5))),
            ("bytes=7-", Ok(Some(7..10))),
            ("bytes=-3", Ok(Some(7..10))),
            ("bytes=-30", Ok(Some(0..10))),
            ("bytes=0-18446744073709551615", Ok(Some(0..10))),
            ("bytes=10-", Err(Unsatisfiable)),
            ("bytes=18446744073709551615-", Err(Unsatisfiable)),
            ("bytes=-0", Err(Unsatisfiable)),
            ("bytes=5-2", Ok(None)),
            ("bytes=0-1,3-4", Ok(None)),
            ("bytes=-", Ok(None)),
            ("lines=1-2", Ok(None)),
            ("bytes=99999999999999999999-", Ok(None)),
        ] {
            assert_eq!(ask(range), expected, "{range}");
        }
    }

    #[test]
    fn a_part_of_something_else_is_not_given() {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, HeaderValue::from_static("bytes=1-2"));
        headers.insert(header::IF_RANGE, HeaderValue::from_static("\"other\""));
        assert_eq!(part(&headers, "\"tag\"", 10), Ok(None));
        headers.insert(header::IF_RANGE, HeaderValue::from_static("\"tag\""));
        assert_eq!(part(&headers, "\"tag\"", 10), Ok(Some(1..3)));
    }
}
