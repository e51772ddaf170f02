//! From TOML to a [`Config`]: every key read, checked and put into relation with the others, in one pass that does
//! not stop at the first mistake.

mod admin;
mod certificate;
mod claims;
mod drain;
mod feeds;
mod identity;
mod limits;
mod log;
mod proxy;
mod publish;
mod rates;
mod route;
mod tls;
mod topics;

use std::{
    io::{self, Read},
    ops::Range,
    path::Path,
};

use ipnet::IpNet;
use toml::de::DeTable;

use self::limits::ProcessLimits;
use crate::{
    Admin, Bind, Config, DEFAULT_BACKLOG, HostPattern, HttpsRedirect, Identity, IoChoice, Listener,
    MAX_LISTENERS, MAX_ROUTES, MAX_SHARDS, NamedPath, Problem, Route, Topics, address, file,
    name::Host,
    problem::{Place, Source},
    reach,
    report::{Mistake, Report},
    schema,
    secret::Exposure,
    section::Section,
    units::size_text,
};

/// Longest file that is read: far above any real one.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// What becomes of the files that a configuration names.
#[derive(Clone, Copy)]
enum Files {
    /// They are not opened.
    Closed,
    /// They are read. The configuration stands in a file itself, to which others have such access.
    Open(Exposure),
}

/// What a route is read with besides its own table.
struct Surroundings<'a> {
    limits: &'a ProcessLimits,
    topics: &'a Topics,
    /// As far as they can be read.
    identities: &'a [Identity],
    /// Whether some could not: a name that is not there may be one of theirs.
    lacks_identities: bool,
    /// Whether a listener asks clients for certificates.
    asks_for_certificates: bool,
    files: Files,
}

/// Reads a configuration from its text; `name` stands for the file in problems. Files that it names are not opened: a key
/// in one is what nobody can present, and those of certificates are empty.
///
/// # Errors
/// Every mistake that one pass can find, in the order of the file; at least one.
pub fn parse(text: &str, name: &str) -> Result<Config, Vec<Problem>> {
    read(text, name, Files::Closed)
}

fn read(text: &str, name: &str, files: Files) -> Result<Config, Vec<Problem>> {
    let mut report = Report::new(Source::new(text, name));
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        match error.span() {
            Some(span) => report.syntax(span, error.message()),
            None => report.syntax_somewhere(error.message()),
        }
    }
    let config = config(&mut report, document.get_ref(), files);
    if report.is_empty() {
        Ok(Config { warnings: report.into_warnings(), ..config })
    } else {
        Err(report.into_problems())
    }
}

/// Reads a configuration file, and those of keys and certificates that it names.
///
/// # Errors
/// As [`parse`]; one problem where the file cannot be read, without a line unless one of its bytes is the cause.
pub fn load(path: impl AsRef<Path>) -> Result<Config, Vec<Problem>> {
    let File { name, text, exposure } = contents(path.as_ref())?;
    read(&text, &name, Files::Open(exposure))
}

/// Reads `[admin]` of a configuration file, and its token's file, whatever is wrong with the rest: who asks a running gateway need
/// not have a file that it would start with. `None` where a file without mistakes has none.
///
/// # Errors
/// As [`load`], where `[admin]` itself has mistakes, or mistakes elsewhere may be why it is not found.
pub fn load_admin(path: impl AsRef<Path>) -> Result<Option<Admin>, Vec<Problem>> {
    let File { name, text, exposure } = contents(path.as_ref())?;
    admin::alone(&text, &name, Files::Open(exposure))
}

/// What a configuration is read from.
struct File {
    /// As problems name it.
    name: String,
    text: String,
    exposure: Exposure,
}

fn contents(path: &Path) -> Result<File, Vec<Problem>> {
    let name = path.display().to_string();
    let whole = |message: String| vec![Problem::whole_file(&name, message)];
    let unreadable = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => whole("there is no such file".to_owned()),
        _ => whole(format!("cannot be read: {error}")),
    };
    let Some(file) = file::open(path).map_err(unreadable)? else {
        return Err(whole("is not a regular file".to_owned()));
    };
    let exposure = Exposure::of(&file).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(whole(format!("is longer than {} MiB", MAX_FILE_BYTES >> 20)));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(File { name, text, exposure }),
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            Err(vec![not_utf8(error.as_bytes(), at, &name)])
        }
    }
}

/// The first byte that is no part of a character, shown in its line.
fn not_utf8(bytes: &[u8], at: usize, name: &str) -> Problem {
    // What is before it stays as it is, and it becomes one visible character.
    let text = String::from_utf8_lossy(bytes);
    let in_line = 1 + bytes[..at].iter().rev().take_while(|byte| **byte != b'\n').count();
    let message = format!(
        "the file is UTF-8, and the byte {:#04x} here is not (byte {in_line} of the line)",
        bytes[at]
    );
    let span = at..at + char::REPLACEMENT_CHARACTER.len_utf8();
    Source::new(&text, name).problem(&mut Place::default(), &span, message, None)
}

/// The whole document. Where something is wrong, the report says so and the result is of no use.
fn config(report: &mut Report<'_>, document: &DeTable<'_>, files: Files) -> Config {
    let top = Section::new(report, schema::TOP, document, 0..0);
    let version = version(report, &top);
    let shards = top.integer(report, "shards", 1..=MAX_SHARDS as u64);
    let words = [("auto", IoChoice::Auto), ("uring", IoChoice::Uring), ("epoll", IoChoice::Epoll)];
    let io = top.word(report, "io", &words).map_or(IoChoice::Auto, |io| io.value);

    let trusted = networks(report, &top, "trusted");

    let limits_section = top.table(report, "limits", schema::LIMITS);
    let limits =
        ProcessLimits::read(report, limits_section.as_ref(), shards.as_ref().map(|shards| shards.value));
    if let (Some(shards), Some(most)) = (&shards, limits.limits.max_sessions)
        && most < shards.value as usize
    {
        report
            .relation(shards.span.clone(), format!("each shard needs a session, and max_sessions is {most}"));
    }

    let drain = drain::read(report, &top);
    let listeners = listeners(report, &top, files);
    let admin = admin::read(report, &top, &listeners, files);
    let log = log::read(report, &top);
    let topics = topics::read(report, &top);
    if let Some(memory) = limits.limits.memory_bytes.filter(|memory| *memory < topics.memory_bytes) {
        let span = limits_section.as_ref().and_then(|section| section.key_span("memory")).unwrap_or(0..0);
        let (memory, topics) = (size_text(memory as u64), size_text(topics.memory_bytes as u64));
        let message =
            format!("memory ({memory}) is less than what topics may take (memory = {topics} of [topics])");
        report.relation(span, message);
    }
    let (identities, lacks_identities) = identity::read(report, &top, files);
    let around = Surroundings {
        limits: &limits,
        topics: &topics,
        identities: &identities,
        lacks_identities,
        asks_for_certificates: top.lists_within("listener", ("tls", schema::TLS), "client_ca_file"),
        files,
    };
    let routes = routes(report, &top, &around);
    let shards = shards.map(|shards| shards.value as usize);
    let warnings = Vec::new();
    Config {
        version,
        shards,
        io,
        limits: limits.limits,
        drain,
        listeners,
        topics,
        identities,
        routes,
        admin,
        log,
        trusted,
        warnings,
    }
}

/// A list of networks and addresses.
fn networks(report: &mut Report<'_>, section: &Section<'_>, key: &str) -> Vec<IpNet> {
    let texts = section.texts(report, key).into_iter().flat_map(|texts| texts.value);
    texts.filter_map(|text| report.check(&text.span, address::network(text.value))).collect()
}

fn version(report: &mut Report<'_>, top: &Section<'_>) -> u32 {
    if top.lacks("version") {
        report.relation(0..0, "the version of the schema is missing: begin with `version = 1`");
    }
    if let Some(version) = top.integer(report, "version", 0..=u64::from(u32::MAX))
        && version.value != 1
    {
        let message = format!("this gateway reads version 1 of the schema, not {}", version.value);
        report.wrong(version.span, Mistake::new(message));
    }
    1
}

fn listeners(report: &mut Report<'_>, top: &Section<'_>, files: Files) -> Vec<Listener> {
    let sections = top.tables(report, "listener", schema::LISTENER);
    if top.lacks("listener") {
        report.relation(0..0, "there is no listener: add a [[listener]] with `bind = \"127.0.0.1:9001\"`");
    }
    if let Some(beyond) = sections.get(MAX_LISTENERS) {
        report.relation(beyond.span.clone(), format!("there are more than {MAX_LISTENERS} listeners"));
        return Vec::new();
    }
    let mut listeners = Vec::<(Listener, Range<usize>)>::new();
    for section in &sections {
        if section.lacks("bind") {
            report
                .relation(section.span.clone(), "a listener needs `bind`, an address like \"0.0.0.0:8080\"");
        }
        let backlog = section.integer(report, "backlog", 1..=65_535);
        let backlog = backlog.map_or(DEFAULT_BACKLOG, |backlog| backlog.value as u32);
        let tls = tls::read(report, section, files);
        let proxy_protocol = networks(report, section, "proxy_protocol");
        let https_redirect = https_redirect(report, section);
        if let (Some(_), Some(span)) = (&https_redirect, section.key_span("tls")) {
            let message = "what only redirects to https:// is plain: leave out `tls`, or `https_redirect`";
            report.relation(span, message);
        }
        if let (Some(own), Some(span)) = (&https_redirect, section.key_span("https_redirect"))
            && listeners
                .iter()
                .any(|(earlier, _)| earlier.https_redirect.as_ref().is_some_and(|other| other != own))
        {
            report.relation(
                span,
                "all listeners that redirect do so alike, and an earlier one does it otherwise",
            );
        }
        let Some(text) = section.text(report, "bind") else { continue };
        let Some(bind) = report.check(&text.span, address::bind(text.value)) else { continue };
        if let Some((earlier, at)) = listeners.iter().find(|(earlier, _)| earlier.bind.overlaps(&bind)) {
            let line = report.line(at);
            let message = if earlier.bind == bind {
                format!("the listener at line {line} has this address already")
            } else {
                format!("the listener at line {line} ({}) overlaps with this address", earlier.bind)
            };
            report.relation(text.span.clone(), message);
        }
        if let (Bind::Unix(_), Some(span)) = (&bind, section.key_span("proxy_protocol")) {
            let message =
                "`proxy_protocol` lists networks, and who connects to a unix socket comes from none of them";
            report.relation(span, message);
        }
        let socket = match &bind {
            Bind::Unix(path) => Some(NamedPath::new(path, report.place(&text.span))),
            Bind::Tcp(_) => None,
        };
        let listener = Listener { bind, backlog, tls, proxy_protocol, https_redirect, socket };
        listeners.push((listener, text.span));
    }
    listeners.into_iter().map(|(listener, _)| listener).collect()
}

/// Where a plain listener sends all requests.
fn https_redirect(report: &mut Report<'_>, listener: &Section<'_>) -> Option<HttpsRedirect> {
    let section = listener.table(report, "https_redirect", schema::HTTPS_REDIRECT)?;
    let host = section.text(report, "host").and_then(|text| {
        let host = report.check(&text.span, Host::parse(text.value))?;
        Some(host.to_string())
    });
    let texts = section.texts(report, "hosts").into_iter().flat_map(|texts| texts.value);
    let hosts = texts.filter_map(|text| report.check(&text.span, HostPattern::parse(text.value))).collect();
    let port = section.integer(report, "port", 1..=u64::from(u16::MAX));
    Some(HttpsRedirect { host, hosts, port: port.map_or(443, |port| port.value as u16) })
}

fn routes(report: &mut Report<'_>, top: &Section<'_>, around: &Surroundings<'_>) -> Vec<Route> {
    let sections = top.tables(report, "route", schema::ROUTE);
    if top.lacks("route") {
        report.relation(0..0, "there is no route: add a [[route]] with `path = \"/echo\"` and `echo = {}`");
    }
    if let Some(beyond) = sections.get(MAX_ROUTES) {
        report.relation(beyond.span.clone(), format!("there are more than {MAX_ROUTES} routes"));
        return Vec::new();
    }
    let mut places = Vec::new();
    let mut routes = Vec::new();
    for section in &sections {
        if let Some((route, place)) = route::read(report, section, around) {
            routes.push(route);
            places.push(place);
        }
    }
    for (place, hiding) in places.iter().zip(reach::hiding(&routes)) {
        let Some(hiding) = hiding else { continue };
        let name = |earlier: &usize| {
            let (line, route) = (report.line(&places[*earlier]), &routes[*earlier]);
            format!("line {line} ({})", reach::pattern_text(route))
        };
        let earlier = reach::few(hiding.iter().map(name), " and ");
        let message = match hiding.len() {
            1 => format!("this route is never reached: the one at {earlier} takes all its requests first"),
            _ => format!("this route is never reached: those at {earlier} take all its requests first"),
        };
        report.relation(place.clone(), message);
    }
    routes
}
