//! What is right and what is wrong, judged from what the probes brought home. No I/O; one file for each check.

use super::finding::Verdict;
use super::observed::Observed;

mod addresses;
mod cdn;
mod certificate;
mod client_document;
mod clock_skew;
mod keys;
mod loops;
pub(crate) mod name;
mod protocols;
mod reachability;
mod server_document;
mod services;
#[cfg(any(test, fuzzing))]
pub(super) mod testing;
mod version;

pub(crate) use client_document::base_url as client_base_url;
pub(crate) use server_document::delegated;

/// All checks, in the order in which another server would stumble.
pub(crate) fn all(observed: &Observed) -> Vec<Verdict> {
    let checks = [
        name::judge,
        addresses::judge,
        services::judge,
        server_document::judge,
        reachability::judge,
        certificate::judge,
        protocols::judge,
        keys::judge,
        version::judge,
        clock_skew::judge,
        client_document::judge,
        loops::judge,
        cdn::judge,
    ];
    checks.into_iter().map(|judge| judge(observed)).collect()
}

/// Some of many, in words.
fn listed<T: ToString>(items: &[T]) -> String {
    const SHOWN: usize = 4;
    let mut text = items.iter().take(SHOWN).map(T::to_string).collect::<Vec<_>>().join(", ");
    if items.len() > SHOWN {
        text.push_str(&format!(" and {} more", items.len() - SHOWN));
    }
    text
}

/// Text of somebody else's making, short enough for a line and without control characters.
fn quoted(text: &str) -> String {
    const LONGEST: usize = 160;
    let mut short: String =
        text.chars().take(LONGEST).map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    if text.chars().count() > LONGEST {
        short.push('…');
    }
    short
}
