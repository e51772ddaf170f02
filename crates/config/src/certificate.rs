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

    /// Whether it lets all clients in that `other` does.
    #[must_use]
    pub fn admits_all_of(&self, other: &Self) -> bool {
        let has = |theirs: &CertificateName| self.names.iter().any(|mine| mine.covers(theirs));
        (other.required || !self.required)
            // Without a list any certificate will do.
            && (self.names.is_empty() || !other.names.is_empty() && other.names.iter().all(has))
    }
}

impl CertificateName {
    /// Whether every certificate that has `other` has this one: `other` may be a common name, below which there is nothing.
    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(mine), Self::Exact(theirs)) => mine.eq_ignore_ascii_case(theirs),
            (Self::Below(mine), Self::Below(theirs)) => mine.covers(theirs),
            (Self::Exact(_), Self::Below(_)) | (Self::Below(_), Self::Exact(_)) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(required: bool, names: &[&str]) -> ClientCertificate {
        let name = |name: &&str| match name.strip_prefix("*.") {
            Some(parent) => CertificateName::Below(HostPattern::Below(parent.to_owned())),
            None => CertificateName::Exact((*name).to_owned()),
        };
        ClientCertificate { required, names: names.iter().map(name).collect(), header: None }
    }

    #[test]
    fn what_asks_for_less_admits_all_of_what_asks_for_more() {
        for (old, new, wider, narrower) in [
            (&["a.test"][..], &["b.test", "a.test"][..], true, false),
            (&["a.test", "b.test"], &["b.test", "A.TEST"], true, true),
            (&["a.test"], &[], true, false),
            (&["*.a.test"], &["*.test"], true, false),
            // A common name is no name of DNS.
            (&["x.a.test"], &["*.a.test"], false, false),
            (&["a.test"], &["b.test"], false, false),
        ] {
            let [less, more] = [old, new].map(|names| certificate(true, names));
            assert_eq!(more.admits_all_of(&less), wider, "{old:?} {new:?}");
            assert_eq!(less.admits_all_of(&more), narrower, "{new:?} {old:?}");
        }
        let [required, optional] = [true, false].map(|required| certificate(required, &["a.test"]));
        assert!(optional.admits_all_of(&required) && !required.admits_all_of(&optional));
        assert!(!certificate(true, &[]).admits_all_of(&optional), "who has shown none");
    }
}
