//! `client_certificate = { … }` of a route: who may come, by the certificate that a listener has verified.

use crate::HostPattern;

/// What a route wants of its clients' certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// Whether nobody comes without one.
    pub required: bool,
    /// Names of which a certificate must have one; empty means any certificate that was verified.
    pub names: Vec<CertificateName>,
    /// The field in which an upstream gets the subject.
    pub header: Option<String>,
}

/// A name in a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateName {
    /// This one: a DNS name, an address of mail, a URI or the common name, compared without regard to the case of ASCII.
    Exact(String),
    /// `*.example.com`: every DNS name below this one.
    Below(HostPattern),
}

impl ClientCertificate {
    /// Whether a certificate with these names will do.
    #[must_use]
    pub fn takes(&self, dns_names: &[String], other_names: &[String]) -> bool {
        let has = |wanted: &CertificateName| match wanted {
            CertificateName::Exact(wanted) => {
                dns_names.iter().chain(other_names).any(|name| name.eq_ignore_ascii_case(wanted))
            }
            CertificateName::Below(pattern) => dns_names.iter().any(|name| pattern.matches(name)),
        };
        self.names.is_empty() || self.names.iter().any(has)
    }

    /// Whether it lets the same clients in as another one.
    #[must_use]
    pub fn admits_as(&self, other: &Self) -> bool {
        (self.required, &self.names) == (other.required, &other.names)
    }
}
