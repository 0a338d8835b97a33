//! Which certificates there are, for the status: read from the files that are in use.

use std::path::Path;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::extensions::GeneralName;

use super::CertificateStatus;
use crate::config::EdgeConfig;

/// Those of the configuration, in the order in which they are offered to clients.
pub(super) fn list(config: &EdgeConfig) -> Vec<CertificateStatus> {
    let files = config.tls.certificates.iter().map(|files| read(&files.chain, "file"));
    let development = config.tls.development_ca.as_ref();
    files.chain(development.map(|ca| read(&ca.folder.join("localhost.pem"), "development"))).collect()
}

fn read(chain: &Path, source: &str) -> CertificateStatus {
    let source = source.to_owned();
    match CertificateDer::from_pem_file(chain).map_err(|error| error.to_string()).and_then(|leaf| facts(&leaf)) {
        Ok((names, expires)) => CertificateStatus { names, source, expires: Some(expires), problem: None },
        Err(problem) => {
            let problem = Some(format!("{}: {problem}", chain.display()));
            CertificateStatus { names: Vec::new(), source, expires: None, problem }
        }
    }
}

/// The DNS names, and the end in seconds since the Unix epoch.
fn facts(leaf: &CertificateDer<'_>) -> Result<(Vec<String>, u64), String> {
    let (_, certificate) = x509_parser::parse_x509_certificate(leaf).map_err(|error| error.to_string())?;
    let alternative = certificate.subject_alternative_name().ok().flatten();
    let names = alternative.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
    let dns = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    };
    let expires = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or_default();
    Ok((names.iter().filter_map(dns).collect(), expires))
}
