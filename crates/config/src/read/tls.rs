//! `tls = { … }` of a listener, and of a route's upstreams.

use super::Files;
use crate::{
    CertificateFiles, PemFile, Tls, TlsVersion, UpstreamTls,
    name::Host,
    report::{At, Mistake, Report},
    schema,
    secret::Exposure,
    section::Section,
};

/// Most certificates of a listener.
const MAX_CERTIFICATES: usize = 1024;

/// What a file is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Anyone may read it.
    Certificates,
    /// Nobody else may.
    Key,
}

/// The TLS of a listener; `None` where it has none, or something is wrong with it.
pub(super) fn read(report: &mut Report<'_>, listener: &Section<'_>, files: Files) -> Option<Tls> {
    let section = listener.table(report, "tls", schema::TLS)?;
    let min_version = min_version(report, &section);
    let client_ca = file(report, &section, "client_ca_file", Kind::Certificates, files);
    let words = [("required", false), ("optional", true)];
    let optional = section.word(report, "client_certificate", &words);
    if let Some(span) = section.key_span("client_certificate")
        && section.lacks("client_ca_file")
    {
        let message =
            "`client_certificate` means nothing without `client_ca_file`: clients are not asked for one";
        report.relation(span, message);
    }
    let client_certificate_optional = optional.is_some_and(|optional| optional.value);
    let certificates = certificates(report, &section, files);
    (!certificates.is_empty()).then_some(Tls {
        certificates,
        min_version,
        client_ca,
        client_certificate_optional,
    })
}

/// TLS towards the upstreams of a route, of which some speak it or none.
pub(super) fn read_upstream(
    report: &mut Report<'_>,
    proxy: &Section<'_>,
    some_speak_it: bool,
    files: Files,
) -> UpstreamTls {
    let Some(section) = proxy.table(report, "tls", schema::UPSTREAM_TLS) else {
        return UpstreamTls::default();
    };
    if !some_speak_it {
        let message = "`tls` means something only for upstreams like wss://app.internal, and there is none";
        report.relation(section.span.clone(), message);
    }
    let server_name = section.text(report, "server_name").and_then(|text| {
        let host = report.check(&text.span, Host::parse(text.value))?;
        Some(match host {
            Host::Address(address) => address.to_string(),
            Host::Name(name) => name,
        })
    });
    let has_own = section.has("certificate_file") || section.has("key_file");
    UpstreamTls {
        ca: file(report, &section, "ca_file", Kind::Certificates, files),
        server_name,
        certificate: if has_own { pair(report, &section, files) } else { None },
        min_version: min_version(report, &section),
    }
}

fn min_version(report: &mut Report<'_>, section: &Section<'_>) -> TlsVersion {
    let words = [("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)];
    section.word(report, "min_version", &words).map(|version| version.value).unwrap_or_default()
}

/// The one that stands in the table itself, or those that are listed.
fn certificates(report: &mut Report<'_>, section: &Section<'_>, files: Files) -> Vec<CertificateFiles> {
    if !section.has("certificates") {
        if section.lacks("certificate_file") && section.lacks("key_file") && section.lacks("certificates") {
            let message =
                "TLS needs a certificate: `certificate_file` and `key_file`, or several in `certificates`";
            report.relation(section.span.clone(), message);
            return Vec::new();
        }
        return pair(report, section, files).into_iter().collect();
    }
    for key in ["certificate_file", "key_file"] {
        if let Some(span) = section.key_span(key) {
            let message = format!("`{key}` stands here or in `certificates`, not in both");
            report.relation(span, message);
        }
    }
    let sections = section.tables(report, "certificates", schema::CERTIFICATE);
    if section.lists_nothing("certificates") {
        report.relation(section.span.clone(), "TLS needs a certificate: `certificates` lists none");
    }
    if let Some(beyond) = sections.get(MAX_CERTIFICATES) {
        report.relation(beyond.span.clone(), format!("there are more than {MAX_CERTIFICATES} certificates"));
        return Vec::new();
    }
    sections.iter().filter_map(|section| pair(report, section, files)).collect()
}

fn pair(report: &mut Report<'_>, section: &Section<'_>, files: Files) -> Option<CertificateFiles> {
    for (key, what) in [
        ("certificate_file", "a certificate needs `certificate_file`, with its chain in PEM"),
        ("key_file", "a certificate needs `key_file`, with its private key in PEM"),
    ] {
        if section.lacks(key) {
            report.relation(section.span.clone(), what);
        }
    }
    let certificate = file(report, section, "certificate_file", Kind::Certificates, files);
    let key = file(report, section, "key_file", Kind::Key, files);
    Some(CertificateFiles { certificate: certificate?, key: key? })
}

fn file(
    report: &mut Report<'_>,
    section: &Section<'_>,
    key: &str,
    kind: Kind,
    files: Files,
) -> Option<PemFile> {
    let At { value: path, span } = section.text(report, key)?;
    if !path.starts_with('/') || path.contains('\0') {
        let message = format!("the path in `{key}` begins with /, like /etc/tidegate/example.com.pem");
        report.wrong(span, Mistake::new(message));
        return None;
    }
    let place = report.place(&span);
    let (file, exposure) = match files {
        Files::Closed => return Some(PemFile::unread(path, place)),
        Files::Open(_) => report.check(&span, PemFile::read(path, place))?,
    };
    if let Exposure::Open(mode) = exposure
        && kind == Kind::Key
    {
        let message =
            format!("the key file's mode {mode:04o} lets others read or change it: chmod 600, or 640");
        report.warn(span, message);
    }
    Some(file)
}
