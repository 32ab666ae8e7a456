//! The certificates of a chain, as far as anybody is told of them.

use rustls::pki_types::CertificateDer;
use x509_cert::{Certificate as Parsed, der::Decode};

use crate::path::outcome::Certificate;

/// Longer chains are cut: a public one has two to four.
const MAX_CHAIN: usize = 8;
/// Names longer than this are cut.
const MAX_NAME: usize = 200;

/// Reads what can be read; a certificate that is none is left out, and the verifier says so.
pub(super) fn read(own: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Vec<Certificate> {
    std::iter::once(own)
        .chain(others)
        .take(MAX_CHAIN)
        .filter_map(|der| one(der))
        .collect()
}

fn one(der: &[u8]) -> Option<Certificate> {
    let parsed = Parsed::from_der(der).ok()?.tbs_certificate;
    let end = parsed.validity.not_after;
    // The text comes from the network: no control characters, no end in sight.
    let name = |name: String| -> String {
        let kept = name.chars().take(MAX_NAME);
        kept.flat_map(char::escape_debug).collect()
    };
    Some(Certificate {
        subject: name(parsed.subject.to_string()),
        issuer: name(parsed.issuer.to_string()),
        not_after: end.to_date_time().to_string(),
        not_after_unix_seconds: end.to_unix_duration().as_secs(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_read_and_garbage_is_left_out() {
        let mut params = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2031, 2, 3);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let chain = read(certificate.der(), &[CertificateDer::from(vec![1, 2, 3])]);
        let [only] = chain.as_slice() else {
            panic!("{chain:?}");
        };
        assert_eq!(only.subject, only.issuer);
        assert_eq!(only.not_after, "2031-02-03T00:00:00Z");
        assert_eq!(only.not_after_unix_seconds, 1_927_843_200);
    }
}
