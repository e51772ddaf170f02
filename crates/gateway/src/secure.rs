//! The files of a configuration: what its listeners need for TLS, and the keys of tokens.

use std::time::SystemTime;

use tidegate_config::{Config, Problem, Tls, TlsVersion};
use tidegate_tls::{Authorities, Clients, Identity, Lowest, Part, ServerConfig, ServerOptions};

/// The one protocol that is spoken (RFC 7301 §6).
const ALPN: &[u8] = b"http/1.1";

/// For each listener of a configuration what its TLS needs; `None` for plain ones.
///
/// # Errors
/// What is wrong with the files, each told where the configuration names it.
pub(crate) fn servers(config: &Config, now: SystemTime) -> Result<Vec<Option<ServerConfig>>, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut servers = Vec::with_capacity(config.listeners.len());
    for listener in &config.listeners {
        servers.push(listener.tls.as_ref().and_then(|tls| server(tls, now, &mut problems)));
    }
    if problems.is_empty() { Ok(servers) } else { Err(problems) }
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
fn server(tls: &Tls, now: SystemTime, problems: &mut Vec<Problem>) -> Option<ServerConfig> {
    let before = problems.len();
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
    if problems.len() > before {
        return None;
    }
    let lowest = match tls.min_version {
        TlsVersion::Tls12 => Lowest::Tls12,
        TlsVersion::Tls13 => Lowest::Tls13,
    };
    let options = ServerOptions { alpn: vec![ALPN.to_vec()], lowest, clients };
    let first = tls.certificates.first()?;
    ServerConfig::new(&options, identities)
        .map_err(|error| problems.push(first.certificate.problem(&error.to_string())))
        .ok()
}
