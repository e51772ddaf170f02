//! The files of a configuration: what its listeners need for TLS, and the keys of tokens.

use std::time::SystemTime;

use tidegate_config::{Config, Problem, Tls, TlsVersion};
use tidegate_control::Certificate;
use tidegate_tls::{Authorities, Clients, Identity, Lowest, Part, ServerConfig, ServerOptions};

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
        let is_same = authorities(old) == authorities(new) && old.min_version == new.min_version;
        self.servers.get(place)?.as_ref().filter(|_| is_same)
    }
}

/// For each listener of a configuration what its TLS needs; `None` for plain ones. `before`: what they have now; clients of a trust
/// domain that stays the same can still resume their sessions.
///
/// # Errors
/// What is wrong with the files, each told where the configuration names it.
pub(crate) fn servers(
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

/// The certificates that a configuration's listeners serve: their files, and until when they are valid. They were judged before.
pub(crate) fn certificates(config: &Config, now: SystemTime) -> Vec<Certificate> {
    let files = config
        .listeners
        .iter()
        .filter_map(|listener| listener.tls.as_ref())
        .flat_map(|tls| &tls.certificates);
    let mut certificates = Vec::<Certificate>::new();
    for files in files {
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

/// Judges the keys of tokens, and adds what is hardly meant in their files to the warnings.
///
/// # Errors
/// What is wrong with the files, each told where the configuration names it.
pub(crate) fn judge_tokens(config: &mut Config) -> Result<(), Vec<Problem>> {
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
    for files in &tls.certificates {
        match Identity::from_pem(files.certificate.bytes(), files.key.bytes(), now) {
            Ok(identity) => identities.push(identity),
            Err(bad) => {
                let file = match bad.part() {
                    Part::Chain => &files.certificate,
                    Part::Key => &files.key,
                };
                problems.push(file.problem(&bad.to_string()));
            }
        }
    }
    let clients = match &tls.client_ca {
        None => Clients::Anyone,
        Some(file) => match Authorities::from_pem(file.bytes()) {
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
    let lowest = match tls.min_version {
        TlsVersion::Tls12 => Lowest::Tls12,
        TlsVersion::Tls13 => Lowest::Tls13,
    };
    let options = ServerOptions { alpn: vec![ALPN.to_vec()], lowest, clients };
    let first = tls.certificates.first()?;
    let made = match before {
        Some(before) => before.succeeded_by(&options, identities),
        None => ServerConfig::new(&options, identities),
    };
    made.map_err(|error| problems.push(first.certificate.problem(&error.to_string()))).ok()
}
