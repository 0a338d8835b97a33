//! Takes secrets out of a query before it is written down.

use percent_encoding::percent_decode_str;

/// What stands in the place of a secret.
const HIDDEN: &str = "hidden";

/// Copies `target` (path and perhaps query); the values of parameters that hold secrets are hidden. Every parameter whose
/// name speaks of a token or secret is one of them: `access_token`, `loginToken`, `client_secret`, and whatever comes.
pub(super) fn redact(target: &str) -> String {
    let Some((path, query)) = target.split_once('?') else { return target.to_owned() };
    let mut written = String::with_capacity(target.len());
    written.push_str(path);
    for (index, pair) in query.split('&').enumerate() {
        written.push(if index == 0 { '?' } else { '&' });
        match pair.split_once('=') {
            Some((name, _)) if is_secret(name) => {
                written.push_str(name);
                written.push('=');
                written.push_str(HIDDEN);
            }
            _ => written.push_str(pair),
        }
    }
    written
}

/// Percent-encoding is looked through, because whoever reads the query does so as well.
fn is_secret(name: &str) -> bool {
    let plain: String = percent_decode_str(name).map(|byte| char::from(byte.to_ascii_lowercase())).collect();
    plain.contains("token") || plain.contains("secret") || plain.contains("password") || plain == "code"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_hidden_however_their_name_is_written() {
        for (target, written) in [
            ("/a", "/a"),
            ("/a?since=s1&timeout=3", "/a?since=s1&timeout=3"),
            ("/a?access_token=x&b=c", "/a?access_token=hidden&b=c"),
            ("/a?b&access%5ftoken=x", "/a?b&access%5ftoken=hidden"),
            ("/a?%61ccess_token=x=y", "/a?%61ccess_token=hidden"),
            ("/a?loginToken=x&client_secret=y&code=z", "/a?loginToken=hidden&client_secret=hidden&code=hidden"),
            ("/a?b=%&%=c&?access_token=x", "/a?b=%&%=c&?access_token=hidden"),
        ] {
            assert_eq!(redact(target), written);
        }
    }
}
