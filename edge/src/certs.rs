//! `gatehouse certs`: which certificates a configuration has, read from its files and its state folder.

use std::fmt;
use std::time::{Duration, SystemTime};

use gatehouse_shared::clock::Clock;
use serde::Serialize;

use crate::acme::store::{Record, Store, moment, seconds};
use crate::certificate_metrics::Source;
use crate::config::{AcmeConfig, EdgeConfig, chain_of};
use crate::listener::certificates::{Certificate, CertificateError};
use crate::listener::development_ca;
use crate::status::CertificateStatus;

/// One certificate. Times are seconds since the Unix epoch.
#[derive(Debug, Serialize)]
pub(crate) struct Listed {
    /// The names on it; of one that is not there, the names that were configured.
    pub(crate) names: Vec<String>,
    /// `file`, `acme`, `development` or `self-signed`.
    pub(crate) source: &'static str,
    /// How an authority verifies the names.
    #[serde(skip_serializing_if = "Option::is_none")]
    challenge: Option<&'static str>,
    /// The directory of the authority.
    #[serde(skip_serializing_if = "Option::is_none")]
    authority: Option<String>,
    issuer: Option<String>,
    not_before: Option<u64>,
    pub(crate) not_after: Option<u64>,
    /// When it is to be renewed; known once the edge has run.
    #[serde(skip_serializing_if = "Option::is_none")]
    renew_at: Option<u64>,
    /// Whether the authority suggested that.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    renewal_is_suggested: bool,
    /// Why it is not there or the last order failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) problem: Option<String>,
    /// When the next order is tried after one that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_attempt: Option<u64>,
    /// Whether clients take it now.
    is_valid: bool,
    #[serde(skip)]
    now: SystemTime,
}

/// All certificates of a configuration, in the order in which they are offered to clients.
pub(crate) fn list(config: &EdgeConfig, clock: &dyn Clock) -> Vec<Listed> {
    let now = clock.now();
    let mut all = Vec::new();
    for files in &config.tls.certificates {
        all.push(Listed::read(Source::File, Certificate::load(files), Vec::new(), now));
    }
    if let Some(folder) = &config.tls.state_folder {
        let store = Store::at(folder);
        all.extend(config.tls.acme.iter().map(|acme| list_ordered(&store, acme, config, now)));
    }
    if let Some(development) = &config.tls.development_ca {
        let files = development_ca::leaf(&development.folder);
        all.push(Listed::read(Source::Development, Certificate::load(&files), development.names.clone(), now));
    }
    all
}

fn list_ordered(store: &Store, acme: &AcmeConfig, config: &EdgeConfig, now: SystemTime) -> Listed {
    let names = acme.names_for(&config.server);
    let first = names.first().map_or("", String::as_str);
    let Record { directory, renew_at, suggested, failure, next_attempt, .. } = store.find_record(first);
    let mut listed = match store.find_certificate(first).transpose() {
        Some(read) => Listed::read(Source::Acme, read, names, now),
        None => {
            let problem = Some("not issued yet; a self-signed certificate stands in for it".to_owned());
            Listed { problem, ..Listed::missing(Source::SelfSigned, names, now) }
        }
    };
    listed.challenge = Some(acme.challenge.as_str());
    listed.authority = directory;
    listed.renew_at = renew_at;
    listed.renewal_is_suggested = suggested;
    listed.problem = failure.or(listed.problem);
    listed.next_attempt = next_attempt;
    listed
}

impl Listed {
    fn missing(source: Source, names: Vec<String>, now: SystemTime) -> Self {
        Self {
            names,
            source: source.as_str(),
            challenge: None,
            authority: None,
            issuer: None,
            not_before: None,
            not_after: None,
            renew_at: None,
            renewal_is_suggested: false,
            problem: None,
            next_attempt: None,
            is_valid: false,
            now,
        }
    }

    fn read(
        source: Source,
        read: Result<Certificate, CertificateError>,
        configured: Vec<String>,
        now: SystemTime,
    ) -> Self {
        match read {
            Ok(certificate) => Self {
                names: certificate.identities(),
                issuer: Some(certificate.issuer().to_owned()),
                not_before: Some(seconds(certificate.not_before())),
                not_after: Some(seconds(certificate.not_after())),
                is_valid: (certificate.not_before()..certificate.not_after()).contains(&now),
                ..Self::missing(source, Vec::new(), now)
            },
            Err(error) => Self { problem: Some(chain_of(&error)), ..Self::missing(source, configured, now) },
        }
    }

    /// What the status page shows of it.
    pub(crate) fn status(&self) -> CertificateStatus {
        CertificateStatus {
            names: self.names.clone(),
            source: self.source.to_owned(),
            expires: self.not_after,
            problem: self.problem.clone(),
        }
    }

    /// Whether clients take it now.
    pub(crate) fn is_valid(&self) -> bool {
        self.is_valid
    }
}

impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.names.join(", "))?;
        write!(f, "  source   {}", self.source)?;
        if let Some(challenge) = self.challenge {
            write!(f, ", ordered by {challenge}")?;
        }
        if let Some(authority) = &self.authority {
            write!(f, " from {authority}")?;
        }
        writeln!(f)?;
        if let Some(issuer) = &self.issuer {
            writeln!(f, "  issuer   {issuer}")?;
        }
        if let Some(at) = self.not_after {
            let expired = if self.is_valid { "" } else { ", not valid now" };
            writeln!(f, "  expires  {}{expired}", told(at, self.now))?;
        }
        if let Some(at) = self.renew_at {
            let by = if self.renewal_is_suggested { ", suggested by the authority" } else { "" };
            writeln!(f, "  renewal  {}{by}", told(at, self.now))?;
        }
        if let Some(problem) = &self.problem {
            writeln!(f, "  problem  {problem}")?;
        }
        if let Some(at) = self.next_attempt {
            writeln!(f, "  next try {}", told(at, self.now))?;
        }
        Ok(())
    }
}

/// A moment, and how far it is.
fn told(at: u64, now: SystemTime) -> String {
    let at = moment(at);
    let distance = match at.duration_since(now) {
        Ok(ahead) => format!("in {}", length(ahead)),
        Err(behind) => format!("{} ago", length(behind.duration())),
    };
    format!("{} ({distance})", httpdate::fmt_http_date(at))
}

fn length(time: Duration) -> String {
    let seconds = time.as_secs();
    match (seconds / 86_400, seconds / 3_600, seconds / 60) {
        (2.., ..) => format!("{} days", seconds / 86_400),
        (_, 2.., _) => format!("{} hours", seconds / 3_600),
        (.., 2..) => format!("{} minutes", seconds / 60),
        _ => format!("{seconds} seconds"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_told_with_its_distance() {
        let now = moment(784_111_777);
        assert_eq!(told(784_111_777 + 86_400 * 3, now), "Wed, 09 Nov 1994 08:49:37 GMT (in 3 days)");
        assert_eq!(told(784_111_777 - 7_200, now), "Sun, 06 Nov 1994 06:49:37 GMT (2 hours ago)");
        assert_eq!(length(Duration::from_secs(121)), "2 minutes");
        assert_eq!(length(Duration::from_secs(119)), "119 seconds");
    }
}
