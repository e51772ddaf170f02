//! `[admin]`.

use toml::de::DeTable;

use super::Files;
use crate::{
    Admin, Bind, Listener, NamedPath, Problem, Secret, address,
    problem::Source,
    report::{At, Mistake, Report},
    schema,
    secret::Exposure,
    section::Section,
};

/// The admin listener, where there is one.
pub(super) fn read(
    report: &mut Report<'_>,
    top: &Section<'_>,
    listeners: &[Listener],
    files: Files,
) -> Option<Admin> {
    let section = top.table(report, "admin", schema::ADMIN)?;
    let text = section.text(report, "bind");
    let bind = match &text {
        Some(text) => report.check(&text.span, address::bind(text.value))?,
        None => Admin::default_bind(),
    };
    let place = text.map_or(section.span.clone(), |text| text.span);
    if let Some(listener) = listeners.iter().find(|listener| listener.bind.overlaps(&bind)) {
        let message =
            format!("a listener ({}) has this address: the admin listener needs its own", listener.bind);
        report.relation(place.clone(), message);
    }
    let socket = match &bind {
        Bind::Unix(path) => Some(NamedPath::new(path, report.place(&place))),
        Bind::Tcp(_) => None,
    };
    let token = token(report, &section, files);
    if let Bind::Tcp(address) = &bind {
        if !address.ip().is_loopback() && section.lacks("token_file") {
            let message = format!(
                "{address} can be reached from other machines: the admin listener needs `token_file` there"
            );
            report.relation(place, message);
        }
        if let Some(span) = section.key_span("allow_uids") {
            report.relation(span, "`allow_uids` is for a unix socket: TCP does not say whose process asks");
        }
    }
    let uids = section.integers(report, "allow_uids", 0..=u64::from(u32::MAX));
    let allow_uids = uids.into_iter().map(|uid| u32::try_from(uid).expect("in range")).collect();
    Some(Admin { bind, token, socket, allow_uids })
}

/// The admin listener of a file whose other sections are not judged. Where there is none, or the file is torn there, all mistakes are
/// told: one of them may be why.
pub(super) fn alone(text: &str, name: &str, files: Files) -> Result<Option<Admin>, Vec<Problem>> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut of_others = Report::new(Source::new(text, name));
    let top = Section::new(&mut of_others, schema::TOP, document.get_ref(), 0..0);
    let mut report = Report::new(Source::new(text, name));
    let admin = read(&mut report, &top, &[], files);
    let torn = errors.iter().any(|error| error.span().is_none_or(|span| is_in_section(text, span.start)));
    match admin {
        _ if errors.is_empty() && !report.is_empty() => Err(report.into_problems()),
        Some(admin) if !torn && report.is_empty() => Ok(Some(admin)),
        // Where there are no mistakes, there is no section.
        _ => super::read(text, name, Files::Closed).map(|config| config.admin),
    }
}

/// Whether the line of a place belongs to `[admin]`, as far as lines tell that: where a file is no TOML, nothing else does.
fn is_in_section(text: &str, place: usize) -> bool {
    let before = text.bytes().take(place).filter(|byte| *byte == b'\n').count();
    let (mut inside, mut is_top) = (false, true);
    for line in text.lines().take(before + 1).map(str::trim_start) {
        let is_header = line.starts_with('[');
        is_top &= !is_header;
        if is_header || is_top {
            inside = line.trim_start_matches(['[', ' ', '"', '\'']).starts_with("admin");
        }
    }
    inside
}

fn token(report: &mut Report<'_>, section: &Section<'_>, files: Files) -> Option<Secret> {
    let At { value: path, span } = section.text(report, "token_file")?;
    if !path.starts_with('/') || path.contains('\0') {
        let message = "the path of a token's file begins with /, like /etc/tidegate/admin.token";
        report.wrong(span, Mistake::new(message));
        return None;
    }
    match files {
        Files::Closed => Some(Secret::unread(path)),
        Files::Open(_) => {
            let (secret, exposure) = report.check(&span, Secret::read(path))?;
            if let Exposure::Open(mode) = exposure {
                let message = format!(
                    "the token's file has mode {mode:04o}, which lets others read or change it: chmod 640"
                );
                report.warn(span, message);
            }
            Some(secret)
        }
    }
}
