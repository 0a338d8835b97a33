//! Decides which names and types of uploaded files are kept. Pure.

/// The longest file name that is kept, in characters.
const MAX_NAME: usize = 255;
/// The longest content type that is kept, in bytes.
const MAX_CONTENT_TYPE: usize = 255;

/// The name to keep for what a client called `name`: without control characters, and without what moves the reading
/// direction (a name that shows as `exe.png` must not be `gnp.exe`) or separates folders. `None` when nothing is left.
pub(super) fn kept_file_name(name: &str) -> Option<String> {
    let kept: String = name
        .chars()
        .filter(|letter| !letter.is_control() && !is_direction_mark(*letter))
        .map(|letter| if matches!(letter, '/' | '\\') { '_' } else { letter })
        .take(MAX_NAME)
        .collect();
    let kept = kept.trim();
    // "." and ".." are folders, not names.
    if kept.chars().all(|letter| letter == '.') { None } else { Some(kept.to_owned()) }
}

/// The content type to keep: `type/subtype` of visible letters with optional parameters, or `None`.
pub(super) fn kept_content_type(content_type: &str) -> Option<String> {
    let content_type = content_type.trim();
    let is_visible = content_type.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    if !is_visible || content_type.len() > MAX_CONTENT_TYPE {
        return None;
    }
    let (kind, subtype) = essence(content_type).split_once('/')?;
    (is_token(kind) && is_token(subtype)).then(|| content_type.to_owned())
}

/// The type without its parameters.
pub(super) fn essence(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default().trim()
}

/// A token of HTTP (RFC 9110, section 5.6.2).
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

fn is_direction_mark(letter: char) -> bool {
    matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_name_becomes_a_harmless_one() {
        for (name, kept) in [
            ("holiday.png", Some("holiday.png")),
            ("../../etc/passwd", Some(".._.._etc_passwd")),
            ("C:\\boot.ini", Some("C:_boot.ini")),
            ("a\r\nSet-Cookie: b", Some("aSet-Cookie: b")),
            ("photo\u{202e}gnp.exe", Some("photognp.exe")),
            ("nul\0", Some("nul")),
            ("Ünïcødé 💈", Some("Ünïcødé 💈")),
            (" \t ", None),
            ("..", None),
            ("", None),
        ] {
            assert_eq!(kept_file_name(name).as_deref(), kept, "{name:?}");
        }
        assert_eq!(kept_file_name(&"ä".repeat(1000)).unwrap().chars().count(), 255);
    }

    #[test]
    fn a_type_that_is_none_is_not_kept() {
        for bad in ["", "text", "text/", "/html", "text/html\r\nx: y", "text/ht ml", "te\u{7f}xt/html", "ä/b"] {
            assert_eq!(kept_content_type(bad), None, "{bad:?}");
        }
        assert_eq!(kept_content_type(" text/html; charset=utf-8").as_deref(), Some("text/html; charset=utf-8"));
        assert_eq!(essence("text/plain ;charset=x"), "text/plain");
    }
}
