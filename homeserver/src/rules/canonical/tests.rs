use super::*;

fn canonical(json: &str) -> String {
    to_text(&parse_object(json.as_bytes()).expect("the vector is canonical JSON"))
}

/// The examples of the specification's appendix "Canonical JSON".
#[test]
fn the_specifications_examples_come_out_to_the_letter() {
    assert_eq!(canonical("{}"), "{}");
    assert_eq!(canonical(r#"{"one": 1, "two": "Two"}"#), r#"{"one":1,"two":"Two"}"#);
    assert_eq!(canonical(r#"{"b": "2", "a": "1"}"#), r#"{"a":"1","b":"2"}"#);
    assert_eq!(canonical(r#"{"b":"2","a":"1"}"#), r#"{"a":"1","b":"2"}"#);
    assert_eq!(
        canonical(
            r#"{"auth": {"success": true, "mxid": "@john.doe:example.com", "profile": {"display_name": "John Doe",
                "three_pids": [{"medium": "email", "address": "john.doe@example.org"},
                {"medium": "msisdn", "address": "123456789"}]}}}"#
        ),
        r#"{"auth":{"mxid":"@john.doe:example.com","profile":{"display_name":"John Doe","three_pids":[{"address":"john.doe@example.org","medium":"email"},{"address":"123456789","medium":"msisdn"}]},"success":true}}"#
    );
    assert_eq!(canonical(r#"{"a": "日本語"}"#), r#"{"a":"日本語"}"#);
    assert_eq!(canonical(r#"{"本": 2, "日": 1}"#), r#"{"日":1,"本":2}"#);
    assert_eq!(canonical(r#"{"a": "\u65E5"}"#), r#"{"a":"日"}"#);
    assert_eq!(canonical(r#"{"a": null}"#), r#"{"a":null}"#);
}

#[test]
fn integers_keep_to_the_range_and_floats_are_refused() {
    assert_eq!(
        canonical(r#"{"a":9007199254740991,"b":-9007199254740991}"#),
        r#"{"a":9007199254740991,"b":-9007199254740991}"#
    );
    for bad in
        [r#"{"a":9007199254740992}"#, r#"{"a":-9007199254740992}"#, r#"{"a":1.5}"#, r#"{"a":1e3}"#, r#"{"a":-0}"#]
    {
        assert!(matches!(parse_object(bad.as_bytes()), Err(CanonicalError::NotCanonical(_))), "{bad}");
    }
}

#[test]
fn what_is_not_json_is_told_from_what_is_not_an_object() {
    for bad in [&b""[..], b"{", b"{]", b"nonsense", b"{\"a\":\"\xff\"}", b"{\"a\":\"\\ud800\"}", b"{}{}"] {
        assert!(matches!(parse_object(bad), Err(CanonicalError::NotJson(_))), "{bad:?}");
    }
    for bad in ["[]", "null", "3", "\"text\""] {
        assert!(matches!(parse_object(bad.as_bytes()), Err(CanonicalError::NotAnObject)), "{bad}");
    }
}

#[test]
fn deep_nesting_is_refused_without_exhausting_the_stack() {
    let nested = |levels: usize| format!("{}{{}}{}", "{\"a\":".repeat(levels), "}".repeat(levels));
    assert!(parse_object(nested(100).as_bytes()).is_ok());
    assert!(matches!(parse_object(nested(200).as_bytes()), Err(CanonicalError::NotJson(_))));
    assert!(matches!(parse_object(nested(1_000_000).as_bytes()), Err(CanonicalError::NotJson(_))));
}
