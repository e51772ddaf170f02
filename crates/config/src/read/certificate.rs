//! `client_certificate = { … }` of a route.

use super::{Surroundings, identity::field_name};
use crate::{
    CertificateName, ClientCertificate, HostPattern,
    report::{At, Mistake, Report},
    schema,
    section::{Section, shown},
};

/// Most names of a route.
const MAX_NAMES: usize = 1024;

/// What a route wants of its clients' certificates.
pub(super) fn read(
    report: &mut Report<'_>,
    route: &Section<'_>,
    around: &Surroundings<'_>,
) -> Option<ClientCertificate> {
    let section = route.table(report, "client_certificate", schema::CLIENT_CERTIFICATE)?;
    if !around.asks_for_certificates {
        let message = "no listener asks for certificates: set `client_ca_file` in the `tls` of one";
        report.relation(section.span.clone(), message);
    }
    let required = section.boolean(report, "required").is_none_or(|required| required.value);
    let mut names = Vec::new();
    for text in section.texts(report, "names").into_iter().flat_map(|texts| texts.value) {
        let Some(name) = report.check(&text.span, name(text.value)) else { continue };
        if names.contains(&name) {
            report.wrong(text.span, Mistake::new(format!("{} is in the list already", shown(text.value))));
        } else if names.len() == MAX_NAMES {
            report.relation(text.span, format!("there are more than {MAX_NAMES} names"));
            break;
        } else {
            names.push(name);
        }
    }
    if section.lists_nothing("names") {
        let message = "`names` lists none: leave it out to take every certificate that was verified";
        report.relation(section.key_span("names").unwrap_or(0..0), message);
    }
    let header = section.text(report, "header").and_then(|At { value, span }| {
        let checked = field_name(value).map(|()| value.to_owned());
        report.check(&span, checked)
    });
    if let Some(span) = section.key_span("header")
        && !route.has("proxy")
    {
        report.relation(span, "`header` is for upstreams: it means something only beside `proxy`");
    }
    Some(ClientCertificate { required, names, header })
}

fn name(text: &str) -> Result<CertificateName, Mistake> {
    if text.starts_with("*.") {
        return HostPattern::parse(text).map(CertificateName::Below);
    }
    if text.is_empty() || text.contains('*') {
        let message = format!(
            "{} is not a name in a certificate: a whole one, or *.example.com for DNS names",
            shown(text)
        );
        return Err(Mistake::new(message));
    }
    Ok(CertificateName::Exact(text.to_owned()))
}
