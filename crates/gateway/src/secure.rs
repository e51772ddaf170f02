//! The files of a configuration: what its listeners and its upstreams need for TLS, and the keys of tokens.

use std::time::SystemTime;

use tidegate_config::{Action, CertificateFiles, Config, Problem, Proxy, Tls, TlsVersion};
use tidegate_control::Certificate;
use tidegate_tls::{Authorities, ClientConfig, Clients, Identity, Lowest, Part, ServerConfig, ServerOptions};

/// The one protocol that is spoken (RFC 7301 §6).
const ALPN: &[u8] = b"http/1.1";

/// What the listeners of the configuration before have.
#[derive(Clone, Copy)]
pub(crate) struct Before<'a> {
    pub(crate) config: &'a Config,
    pub(crate) servers: &'a [Option<ServerConfig>],
}

impl<'a> Before<'a> {
    /// A listener's TLS, where the new one's is of the same trust domain: clients are let in by the same authorities, by the same
    /// versions of the protocol.
    fn of(self, place: usize, new: &Tls) -> Option<&'a ServerConfig> {
        let old = self.config.listeners.get(place)?.tls.as_ref()?;
        let authorities = |tls: &'_ Tls| tls.client_ca.as_ref().map(|file| file.bytes().to_vec());
        let is_same = authorities(old) == authorities(new)
            && old.min_version == new.min_version
            && old.client_certificate_optional == new.client_certificate_optional;
        self.servers.get(place)?.as_ref().filter(|_| is_same)
    }
}

/// For each listener of a configuration what its TLS needs; `None` for plain ones. `before`: what they have now; clients of a trust
/// domain that stays the same can still resume their sessions.
///
/// # Errors
/// What is wrong with the files, each told where the configuration names it.
fn servers(
    config: &Config,
    before: Option<Before<'_>>,
    now: SystemTime,
) -> Result<Vec<Option<ServerConfig>>, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut servers = Vec::with_capacity(config.listeners.len());
    for (place, listener) in config.listeners.iter().enumerate() {
        servers.push(listener.tls.as_ref().and_then(|tls| {
            let before = before.and_then(|before| before.of(place, tls));
            server(tls, before, now, &mut problems)
        }));
    }
    if problems.is_empty() { Ok(servers) } else { Err(problems) }
}

/// For each route of a configuration what TLS with its upstreams needs; `None` where none of them speaks it.
///
/// # Errors
/// What is wrong with the files, each told where the configuration names it, or with the system's store.
fn clients(config: &Config, now: SystemTime) -> Result<Vec<Option<ClientConfig>>, Vec<Problem>> {
    let mut problems = Vec::new();
    // Read once, and only where somebody wants it.
    let mut system = None;
    let clients = config.routes.iter().map(|route| match &route.action {
        Action::Proxy(proxy) if proxy.upstreams.iter().any(|upstream| upstream.tls) => {
            client(proxy, &mut system, now, &mut problems)
        }
        _ => None,
    });
    let clients = clients.collect();
    if problems.is_empty() { Ok(clients) } else { Err(problems) }
}

/// What TLS with a route's upstreams needs; `None` where there is a problem.
fn client(
    proxy: &Proxy,
    system: &mut Option<Authorities>,
    now: SystemTime,
    problems: &mut Vec<Problem>,
) -> Option<ClientConfig> {
    let tls = &proxy.tls;
    let own = tls.certificate.as_ref().map(|files| identity(files, now, problems));
    let first = proxy.upstreams.iter().find(|upstream| upstream.tls).map_or("wss://", |first| &first.text);
    let authorities = match (&tls.ca, &*system) {
        (Some(file), _) => {
            Authorities::from_pem(file.bytes()).map_err(|error| file.problem(&error.to_string()))
        }
        (None, Some(known)) => Ok(known.clone()),
        (None, None) => Authorities::of_system()
            .inspect(|found| *system = Some(found.clone()))
            .map_err(|error| Problem::without_place(first, format!("it has no `ca_file`, and {error}"))),
    };
    let authorities = authorities.map_err(|problem| problems.push(problem)).ok()?;
    let own = match own {
        Some(own) => Some(own?),
        None => None,
    };
    ClientConfig::trusting(&authorities, own.as_ref(), lowest(tls.min_version), vec![ALPN.to_vec()])
        .map_err(|error| problems.push(Problem::without_place(first, error.to_string())))
        .ok()
}

/// The certificates that a configuration's listeners serve, and those that are shown to upstreams: their files, and until when they
/// are valid. They were judged before.
pub(crate) fn certificates(config: &Config, now: SystemTime) -> Vec<Certificate> {
    let served = config
        .listeners
        .iter()
        .filter_map(|listener| listener.tls.as_ref())
        .flat_map(|tls| &tls.certificates);
    let shown = config.routes.iter().filter_map(|route| match &route.action {
        Action::Proxy(proxy) => proxy.tls.certificate.as_ref(),
        _ => None,
    });
    let mut certificates = Vec::<Certificate>::new();
    for files in served.chain(shown) {
        let file = files.certificate.path().display().to_string();
        if certificates.iter().any(|known| known.file == file) {
            continue;
        }
        if let Ok(identity) = Identity::from_pem(files.certificate.bytes(), files.key.bytes(), now) {
            certificates.push(Certificate { file, not_after: identity.not_after() });
        }
    }
    certificates
}

/// What a configuration's files make.
pub(crate) struct Secured {
    /// For each listener what its TLS needs; `None` for plain ones.
    pub(crate) servers: Vec<Option<ServerConfig>>,
    /// For each route what TLS with its upstreams needs.
    pub(crate) clients: Vec<Option<ClientConfig>>,
}

/// All that the files of a configuration are for; what is hardly meant in them is added to its warnings. `before`: what listeners
/// have now.
///
/// # Errors
/// What is wrong with them, all of it.
pub(crate) fn secure(
    config: &mut Config,
    before: Option<Before<'_>>,
    now: SystemTime,
) -> Result<Secured, Vec<Problem>> {
    let (servers, clients) = (servers(config, before, now), clients(config, now));
    let tokens = judge_tokens(config);
    match (servers, clients, tokens) {
        (Ok(servers), Ok(clients), Ok(())) => Ok(Secured { servers, clients }),
        (servers, clients, tokens) => {
            Err([servers.err(), clients.err(), tokens.err()].into_iter().flatten().flatten().collect())
        }
    }
}

/// Judges the keys of tokens, and adds what is hardly meant in their files to the warnings.
///
/// # Errors
/// What is wrong with the files, each told where the configuration names it.
fn judge_tokens(config: &mut Config) -> Result<(), Vec<Problem>> {
    let identities = tidegate_identity::identities(config)?;
    config.warnings.extend(tidegate_identity::warnings(&identities));
    Ok(())
}

/// What a listener's TLS needs; `None` where there is a problem.
fn server(
    tls: &Tls,
    before: Option<&ServerConfig>,
    now: SystemTime,
    problems: &mut Vec<Problem>,
) -> Option<ServerConfig> {
    let told = problems.len();
    let mut identities = Vec::with_capacity(tls.certificates.len());
    identities.extend(tls.certificates.iter().filter_map(|files| identity(files, now, problems)));
    let clients = match &tls.client_ca {
        None => Clients::Anyone,
        Some(file) => match Authorities::from_pem(file.bytes()) {
            Ok(authorities) if tls.client_certificate_optional => Clients::SignedByOrNone(authorities),
            Ok(authorities) => Clients::SignedBy(authorities),
            Err(error) => {
                problems.push(file.problem(&error.to_string()));
                return None;
            }
        },
    };
    if problems.len() > told {
        return None;
    }
    let options = ServerOptions { alpn: vec![ALPN.to_vec()], lowest: lowest(tls.min_version), clients };
    let first = tls.certificates.first()?;
    let made = match before {
        Some(before) => before.succeeded_by(&options, identities),
        None => ServerConfig::new(&options, identities),
    };
    made.map_err(|error| problems.push(first.certificate.problem(&error.to_string()))).ok()
}

/// What two files make; `None` where there is a problem.
fn identity(files: &CertificateFiles, now: SystemTime, problems: &mut Vec<Problem>) -> Option<Identity> {
    let told = |bad: tidegate_tls::BadIdentity| {
        let file = match bad.part() {
            Part::Chain => &files.certificate,
            Part::Key => &files.key,
        };
        problems.push(file.problem(&bad.to_string()));
    };
    Identity::from_pem(files.certificate.bytes(), files.key.bytes(), now).map_err(told).ok()
}

fn lowest(version: TlsVersion) -> Lowest {
    match version {
        TlsVersion::Tls12 => Lowest::Tls12,
        TlsVersion::Tls13 => Lowest::Tls13,
    }
}
