//! Who a peer is, as its certificate says.

use std::fmt::Write;

use x509_parser::{
    certificate::X509Certificate,
    der_parser::{
        asn1_rs::{Any, Oid},
        oid,
    },
    extensions::GeneralName,
    prelude::FromDer,
    x509::{AttributeTypeAndValue, RelativeDistinguishedName, X509Name},
};

/// The subject of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    distinguished_name: String,
    dns_names: Vec<String>,
    other_names: Vec<String>,
}

impl Subject {
    /// Of a certificate in DER; nothing where it cannot be read.
    pub(crate) fn of(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let (mut dns_names, mut other_names) = (Vec::new(), Vec::new());
        let alternative = certificate.subject_alternative_name().ok()?;
        for name in alternative.iter().flat_map(|names| &names.value.general_names) {
            match name {
                GeneralName::DNSName(name) => dns_names.push(name.to_ascii_lowercase()),
                GeneralName::RFC822Name(name) | GeneralName::URI(name) => {
                    other_names.push((*name).to_owned());
                }
                _ => {}
            }
        }
        let common = certificate.subject().iter_common_name();
        other_names.extend(common.filter_map(|name| name.as_str().ok()).map(str::to_owned));
        Some(Self { distinguished_name: distinguished_name(certificate.subject()), dns_names, other_names })
    }

    /// Its distinguished name as RFC 4514 writes it, like `CN=device 7,O=Example\, Inc.`: printable ASCII, with everything else
    /// escaped byte by byte. Empty where it has none.
    #[must_use]
    pub fn distinguished_name(&self) -> &str {
        &self.distinguished_name
    }

    /// The DNS names in it, in lower case.
    #[must_use]
    pub fn dns_names(&self) -> &[String] {
        &self.dns_names
    }

    /// The addresses of mail, the URIs and the common names in it.
    #[must_use]
    pub fn other_names(&self) -> &[String] {
        &self.other_names
    }
}

/// RFC 4514 §2.1: the last part comes first.
fn distinguished_name(name: &X509Name<'_>) -> String {
    let parts: Vec<&RelativeDistinguishedName<'_>> = name.iter_rdn().collect();
    let parts = parts.into_iter().rev().map(|part| part.iter().map(attribute).collect::<Vec<_>>().join("+"));
    parts.collect::<Vec<_>>().join(",")
}

/// The types with a short name: those of RFC 4514 §3, and behind them the others of RFC 4519 that stand in subjects.
static SHORT_NAMES: [(Oid<'static>, &str); 19] = [
    (oid!(2.5.4.3), "CN"),
    (oid!(2.5.4.7), "L"),
    (oid!(2.5.4.8), "ST"),
    (oid!(2.5.4.10), "O"),
    (oid!(2.5.4.11), "OU"),
    (oid!(2.5.4.6), "C"),
    (oid!(2.5.4.9), "STREET"),
    (oid!(0.9.2342.19200300.100.1.25), "DC"),
    (oid!(0.9.2342.19200300.100.1.1), "UID"),
    (oid!(2.5.4.4), "sn"),
    (oid!(2.5.4.5), "serialNumber"),
    (oid!(2.5.4.12), "title"),
    (oid!(2.5.4.13), "description"),
    (oid!(2.5.4.15), "businessCategory"),
    (oid!(2.5.4.17), "postalCode"),
    (oid!(2.5.4.42), "givenName"),
    (oid!(2.5.4.43), "initials"),
    (oid!(2.5.4.44), "generationQualifier"),
    (oid!(2.5.4.46), "dnQualifier"),
];

/// RFC 4514 §2.3: the type's short name where one is registered, or its number with the value as it is encoded.
fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let short = SHORT_NAMES.iter().find(|(number, _)| number == attribute.attr_type());
    match (short, attribute.as_str()) {
        (Some((_, short)), Ok(value)) => format!("{short}={}", escaped(value)),
        (short, _) => {
            let number = attribute.attr_type().to_id_string();
            let kind = short.map_or(&*number, |(_, short)| short);
            format!("{kind}=#{}", encoded(attribute.attr_value()))
        }
    }
}

/// RFC 4514 §2.4; what is not printable ASCII as its bytes.
fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let last = value.len().saturating_sub(1);
    for (at, byte) in value.bytes().enumerate() {
        match byte {
            b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\' | b'=' => text.extend(['\\', char::from(byte)]),
            b'#' if at == 0 => text.push_str("\\#"),
            b' ' if at == 0 || at == last => text.push_str("\\ "),
            b' '..=b'~' => text.push(char::from(byte)),
            _ => push_hex(&mut text, "\\", byte),
        }
    }
    text
}

/// The bytes of a value in DER, in hexadecimal digits.
fn encoded(value: &Any<'_>) -> String {
    let mut text = String::new();
    let mut push = |byte: usize| push_hex(&mut text, "", byte as u8);
    push(value.tag().0 as usize & 0x1f | usize::from(value.header.constructed()) << 5);
    match value.data.len() {
        len @ 0..=0x7f => push(len),
        // A certificate of a handshake is shorter than that.
        len => [0x83, len >> 16, len >> 8, len].into_iter().for_each(&mut push),
    }
    value.data.iter().for_each(|byte| push(usize::from(*byte)));
    text
}

fn push_hex(text: &mut String, before: &str, byte: u8) {
    write!(text, "{before}{byte:02X}").expect("a text takes all");
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair, SanType};

    use super::*;

    fn subject(parts: Vec<(DnType, DnValue)>, names: Vec<SanType>) -> Subject {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        parts.into_iter().for_each(|(kind, value)| params.distinguished_name.push(kind, value));
        params.subject_alt_names = names;
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        Subject::of(certificate.der()).unwrap()
    }

    fn text(value: &str) -> DnValue {
        DnValue::Utf8String(value.to_owned())
    }

    #[test]
    fn rfc4514_a_name_cannot_be_taken_for_another_one() {
        let name = |value: &str| {
            subject(vec![(DnType::CommonName, text(value))], Vec::new()).distinguished_name().to_owned()
        };
        for (value, expected) in [
            ("device 7", "CN=device 7"),
            ("a,O=Admins", "CN=a\\,O\\=Admins"),
            ("a+b", "CN=a\\+b"),
            ("#1 \"b\" <c>; \\ ", "CN=\\#1 \\\"b\\\" \\<c\\>\\; \\\\\\ "),
            (" ", "CN=\\ "),
            ("a\r\nX-Admin: 1", "CN=a\\0D\\0AX-Admin: 1"),
            ("Zoë", "CN=Zo\\C3\\AB"),
            ("a\u{0}b\u{7f}", "CN=a\\00b\\7F"),
            ("", "CN="),
        ] {
            assert_eq!(name(value), expected);
        }
        let several = vec![
            (DnType::CountryName, text("NL")),
            (DnType::OrganizationName, text("Example, Inc.")),
            (DnType::CommonName, text("a")),
        ];
        assert_eq!(subject(several, Vec::new()).distinguished_name(), "CN=a,O=Example\\, Inc.,C=NL");
        // A type without a short name, and a value that is no plain text.
        let odd = vec![(DnType::CustomDnType(vec![1, 3, 9999, 1]), text("x"))];
        assert_eq!(subject(odd, Vec::new()).distinguished_name(), "1.3.9999.1=#0C0178");
        assert_eq!(subject(Vec::new(), Vec::new()).distinguished_name(), "");
    }

    #[test]
    fn rfc4514_2_3_types_have_their_registered_short_names_or_else_their_numbers() {
        for (number, expected) in [
            (&[2, 5, 4, 3][..], "CN=x"),
            (&[2, 5, 4, 7], "L=x"),
            (&[2, 5, 4, 8], "ST=x"),
            (&[2, 5, 4, 10], "O=x"),
            (&[2, 5, 4, 11], "OU=x"),
            (&[2, 5, 4, 6], "C=x"),
            (&[2, 5, 4, 9], "STREET=x"),
            (&[0, 9, 2342, 19_200_300, 100, 1, 25], "DC=x"),
            (&[0, 9, 2342, 19_200_300, 100, 1, 1], "UID=x"),
            // RFC 4519.
            (&[2, 5, 4, 4], "sn=x"),
            (&[2, 5, 4, 5], "serialNumber=x"),
            (&[2, 5, 4, 42], "givenName=x"),
            // An address of mail (RFC 2985), a jurisdiction's country, an extension and an algorithm are no types of LDAP.
            (&[1, 2, 840, 113_549, 1, 9, 1], "1.2.840.113549.1.9.1=#0C0178"),
            (&[1, 3, 6, 1, 4, 1, 311, 60, 2, 1, 3], "1.3.6.1.4.1.311.60.2.1.3=#0C0178"),
            (&[2, 5, 29, 17], "2.5.29.17=#0C0178"),
            (&[1, 2, 840, 10040, 4, 1], "1.2.840.10040.4.1=#0C0178"),
        ] {
            let subject = subject(vec![(DnType::CustomDnType(number.to_vec()), text("x"))], Vec::new());
            assert_eq!(subject.distinguished_name(), expected);
        }
        let country = DnType::CountryName;
        let subject = subject(vec![(country, DnValue::BmpString("NL".try_into().unwrap()))], Vec::new());
        assert_eq!(subject.distinguished_name(), "C=#1E04004E004C");
    }

    #[test]
    fn the_names_are_those_of_the_subject_and_beside_it() {
        let names = vec![
            SanType::DnsName("Device-7.Example.com".try_into().unwrap()),
            SanType::Rfc822Name("seven@example.com".try_into().unwrap()),
            SanType::URI("spiffe://example.com/seven".try_into().unwrap()),
        ];
        let subject = subject(vec![(DnType::CommonName, text("seven"))], names);
        assert_eq!(subject.dns_names(), ["device-7.example.com"]);
        assert_eq!(subject.other_names(), ["seven@example.com", "spiffe://example.com/seven", "seven"]);
    }

    #[test]
    fn what_is_no_certificate_has_no_subject() {
        assert_eq!(Subject::of(b""), None);
        assert_eq!(Subject::of(&[0x30, 0x82, 0xff, 0xff, 0]), None);
    }
}
