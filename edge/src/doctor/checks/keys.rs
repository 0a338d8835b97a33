//! Whether the document of keys is of this server, alive, and signed by the keys that it names.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use rustls_pki_types::alg_id;
use serde_json::{Map, Value};

use super::super::canonical_json;
use super::super::finding::{Finding, Mend, Severity, Verdict};
use super::super::observed::{Answer, Endpoint, Observed};

const CHECK: &str = "keys";
const HOUR_MS: i64 = 60 * 60 * 1000;
const WHY: &str = "other servers cannot verify what this server signs, and refuse all of it";

pub(super) fn judge(observed: &Observed) -> Verdict {
    let mut findings: Vec<Finding> = Vec::new();
    let mut sets = BTreeSet::new();
    for endpoint in &observed.endpoints {
        let Ok(answer) = &endpoint.keys else { continue };
        let (keys, new) = judge_one(observed, endpoint, answer);
        sets.extend(keys);
        let new: Vec<Finding> = new
            .into_iter()
            .filter(|new| !findings.iter().any(|old| old.id == new.id && old.seen == new.seen))
            .collect();
        findings.extend(new);
    }
    if sets.len() > 1 {
        findings.push(Finding {
            id: "keys-differ",
            severity: Severity::Error,
            at: observed.name.to_string(),
            seen: "its addresses show different keys".to_owned(),
            why: "what one shard signs is refused by those who asked another one for the keys",
            mend: Mend::homeserver("data_folder = …   # all shards need the same signing.key in it"),
        });
    }
    let summary = sets.iter().next().map_or_else(|| "no keys that can be used".to_owned(), |set| set.clone());
    Verdict::new(CHECK, summary, findings)
}

fn judge_one(observed: &Observed, endpoint: &Endpoint, answer: &Answer) -> (Option<String>, Vec<Finding>) {
    let at = format!("/_matrix/key/v2/server at {}", endpoint.address);
    let error =
        |id, seen: String, mend| vec![Finding { id, severity: Severity::Error, at: at.clone(), seen, why: WHY, mend }];
    let upstream =
        || Mend::edge("[upstream] shards = […]   # a shard that runs; `gatehouse-homeserver` answers this path");
    if answer.status != 200 {
        return (None, error("keys-status", format!("the status is {}", answer.status), upstream()));
    }
    let object = match answer.object() {
        Ok(object) if !answer.is_cut => object,
        Ok(_) => return (None, error("keys-json", "it is larger than 64 KiB".to_owned(), upstream())),
        Err(why) => {
            return (None, error("keys-json", format!("it is no JSON object: {}", super::quoted(&why)), upstream()));
        }
    };
    let mut findings = Vec::new();
    let name = object.get("server_name").and_then(Value::as_str).unwrap_or_default();
    if name != observed.name.as_str() {
        let seen = format!("it is of \"{}\", not of {}", super::quoted(name), observed.name);
        findings.extend(error(
            "keys-wrong-name",
            seen,
            Mend::homeserver(format!("server_name = \"{}\"", observed.name)),
        ));
    }
    findings.extend(validity(observed, &at, &object));
    let keys = object.get("verify_keys").and_then(Value::as_object).filter(|keys| !keys.is_empty());
    let Some(keys) = keys else {
        findings.extend(error("keys-none", "it has no verify_keys".to_owned(), upstream()));
        return (None, findings);
    };
    let mend = || {
        Mend::system(
            "# whatever answers in front must not change bodies; else restore the shards' signing.key from the backup",
        )
    };
    for (key_id, seen) in signatures(observed, &object, keys) {
        findings.extend(error("keys-signature", format!("{}: {seen}", super::quoted(&key_id)), mend()));
    }
    let names: Vec<&str> = keys.keys().map(String::as_str).collect();
    (Some(super::quoted(&names.join(", "))), findings)
}

fn validity(observed: &Observed, at: &str, object: &Map<String, Value>) -> Option<Finding> {
    let now_ms = super::super::observed::unix_seconds(observed.now).saturating_mul(1000);
    let finding = |id, severity, seen, why| {
        let mend = Mend::system(
            "# set the clocks of the shards' machines (`timedatectl set-ntp true`), and let nothing in front cache this path",
        );
        Some(Finding { id, severity, at: at.to_owned(), seen, why, mend })
    };
    let Some(until) = object.get("valid_until_ts").and_then(Value::as_i64) else {
        return finding("keys-validity", Severity::Error, "it has no valid_until_ts".to_owned(), WHY);
    };
    if until <= now_ms {
        let seen = format!("it was valid until {} minutes ago", now_ms.saturating_sub(until) / 60_000);
        return finding("keys-expired", Severity::Error, seen, WHY);
    }
    if until.saturating_sub(now_ms) < HOUR_MS {
        let seen = format!("it is valid for {} minutes more", until.saturating_sub(now_ms) / 60_000);
        return finding("keys-expire-soon", Severity::Warning, seen, "other servers come for the keys again and again");
    }
    None
}

/// What is wrong with the signature of each key.
fn signatures(
    observed: &Observed,
    object: &Map<String, Value>,
    keys: &Map<String, Value>,
) -> Vec<(String, &'static str)> {
    let bytes = canonical_json::signed_bytes(object);
    let signed = object.get("signatures").and_then(|all| all.get(observed.name.as_str())).and_then(Value::as_object);
    let fault = |key_id: &String, key: &Value| -> Option<&'static str> {
        if !key_id.starts_with("ed25519:") {
            return None;
        }
        let Some(key) = key.get("key").and_then(Value::as_str).and_then(decoded) else {
            return Some("the key is no unpadded base64");
        };
        if key.len() != 32 {
            return Some("the key is not 32 bytes long");
        }
        let Some(bytes) = &bytes else { return Some("the document has no canonical form, so it cannot be signed") };
        let Some(signature) = signed.and_then(|signed| signed.get(key_id)).and_then(Value::as_str) else {
            return Some("the document is not signed by this key");
        };
        match decoded(signature) {
            Some(signature) if verifies(&key, bytes, &signature) => None,
            Some(_) => Some("the signature does not verify"),
            None => Some("the signature is no unpadded base64"),
        }
    };
    let mut faults: Vec<_> =
        keys.iter().filter_map(|(key_id, key)| fault(key_id, key).map(|fault| (key_id.clone(), fault))).collect();
    if !keys.keys().any(|key_id| key_id.starts_with("ed25519:")) {
        faults.push(("verify_keys".to_owned(), "there is no ed25519 key"));
    }
    faults
}

fn decoded(text: &str) -> Option<Vec<u8>> {
    STANDARD_NO_PAD.decode(text.trim_end_matches('=')).ok()
}

/// TLS's own provider verifies Ed25519, which spares a second implementation.
fn verifies(key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let algorithms = provider.signature_verification_algorithms.all;
    let ed25519 = algorithms.iter().find(|algorithm| algorithm.public_key_alg_id() == alg_id::ED25519);
    ed25519.is_some_and(|ed25519| ed25519.verify_signature(key, message, signature).is_ok())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{NOW, answer, ids, key_document, observed};
    use super::*;

    fn judged(change: impl FnOnce(&mut Value)) -> Vec<&'static str> {
        let mut seen = observed();
        let mut document = key_document("example.org", NOW * 1000 + 24 * HOUR_MS);
        change(&mut document);
        for endpoint in &mut seen.endpoints {
            endpoint.keys = Ok(answer(200, &document.to_string()));
        }
        ids(&judge(&seen))
    }

    #[test]
    fn a_document_that_signs_itself_is_right() {
        assert!(judged(|_| {}).is_empty());
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(
            judged(|document| *document = key_document("other.example", NOW * 1000 + 24 * HOUR_MS)),
            ["keys-wrong-name", "keys-signature"]
        );
        assert_eq!(judged(|document| *document = key_document("example.org", NOW * 1000 - 1)), ["keys-expired"]);
        assert_eq!(
            judged(|document| *document = key_document("example.org", NOW * 1000 + HOUR_MS / 2)),
            ["keys-expire-soon"]
        );
        assert_eq!(judged(|document| document["valid_until_ts"] = i64::MIN.into()), ["keys-expired", "keys-signature"]);
        assert_eq!(judged(|document| document["old_verify_keys"]["x"] = "changed".into()), ["keys-signature"]);
        assert_eq!(judged(|document| document["verify_keys"] = serde_json::json!({})), ["keys-none"]);
        assert_eq!(judged(|document| document["verify_keys"]["ed25519:a"]["key"] = "AAAA".into()), ["keys-signature"]);
        assert_eq!(judged(|document| *document = serde_json::json!([])), ["keys-json"]);
    }

    #[test]
    fn answers_that_are_no_document_and_shards_that_disagree_are_found() {
        let mut seen = observed();
        seen.endpoints[0].keys = Ok(answer(502, ""));
        assert_eq!(ids(&judge(&seen)), ["keys-status"]);
        let mut seen = observed();
        let mut other = key_document("example.org", NOW * 1000 + 24 * HOUR_MS);
        let key = other["verify_keys"]["ed25519:a"].clone();
        other["verify_keys"] = serde_json::json!({ "ed25519:b": key });
        seen.endpoints[0].keys = Ok(answer(200, &other.to_string()));
        assert_eq!(ids(&judge(&seen)), ["keys-signature", "keys-differ"]);
    }
}
