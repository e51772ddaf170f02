//! Who callers are: the keys that their tokens are signed with, what a token must say, and what follows from it.

use crate::{HttpUrl, PemFile, Secret};

/// One `[[identity]]`: tokens (JWT, RFC 7519) that are believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// What routes call it.
    pub name: String,
    /// What signatures are checked with.
    pub keys: TokenKeys,
    /// The algorithms that are believed; at least one, and either all of them with a shared secret or none. None where a hook is
    /// asked.
    pub algorithms: Vec<Algorithm>,
    /// Issuers of which a token must name one (`iss`); empty: any, or none.
    pub issuers: Vec<String>,
    /// Audiences of which a token must name one (`aud`); empty: it must name none.
    pub audiences: Vec<String>,
    /// How much the clocks of issuers may differ from this machine's, in milliseconds; whole seconds.
    pub leeway_ms: u64,
    /// Whether a token, or a hook's answer, must say when it expires (`exp`).
    pub requires_expiry: bool,
    /// The code of the Close that a session gets when its token has expired: 1008 or 3000 to 4999.
    pub expired_code: u16,
    /// Where a token is looked for, in this order; at least one. Where a hook is asked, what upstreams do not hear of; perhaps none.
    pub sources: Vec<TokenSource>,
    /// Whether upstreams get tokens of the query and of the list of subprotocols, too.
    pub forward_token: bool,
    /// The claim that names the user.
    pub user: String,
    /// Fields that upstreams get, and the claims that are in them. No two names are alike to a server that cannot tell
    /// `-` from `_`.
    pub headers: Vec<(String, String)>,
    /// The claims that say what may be done with topics; `None`: all that the route allows.
    pub permissions: Option<PermissionClaims>,
}

/// What signatures are checked with, or who is asked in the place of that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenKeys {
    /// A JSON Web Key Set (RFC 7517 §5).
    Set(PemFile),
    /// A public key in PEM.
    Public(PemFile),
    /// A secret that issuers have, too.
    Secret(Secret),
    /// A JSON Web Key Set that is fetched.
    Url(KeySetUrl),
    /// None: this hook says who callers are.
    Hook(Box<Hook>),
}

/// Where a key set is fetched, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySetUrl {
    /// Where.
    pub url: HttpUrl,
    /// How often, in milliseconds.
    pub interval_ms: u64,
    /// How long an answer may take, in milliseconds.
    pub timeout_ms: u64,
}

/// Somebody who is asked by HTTP whether a request may come in, and for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Where.
    pub url: HttpUrl,
    /// How long an answer may take, in milliseconds.
    pub timeout_ms: u64,
    /// Most requests of the process that wait for it at a time.
    pub max_in_flight: usize,
    /// The fields of a request that it is told, in lower case.
    pub fields: Vec<String>,
    /// By which it knows the gateway.
    pub secret: Option<Secret>,
}

impl Identity {
    /// The hook that is asked, where there is one.
    #[must_use]
    pub fn hook(&self) -> Option<&Hook> {
        match &self.keys {
            TokenKeys::Hook(hook) => Some(hook),
            TokenKeys::Set(_) | TokenKeys::Public(_) | TokenKeys::Secret(_) | TokenKeys::Url(_) => None,
        }
    }
}

/// An algorithm of signatures (RFC 7518 §3.1, RFC 8037 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// HMAC with SHA-256.
    Hs256,
    /// HMAC with SHA-384.
    Hs384,
    /// HMAC with SHA-512.
    Hs512,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    Rs512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PSS with SHA-384.
    Ps384,
    /// RSASSA-PSS with SHA-512.
    Ps512,
    /// ECDSA over P-256 with SHA-256.
    Es256,
    /// ECDSA over P-384 with SHA-384.
    Es384,
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Hs256,
        Self::Hs384,
        Self::Hs512,
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
        Self::EdDsa,
    ];

    /// The name in a token's `alg`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Hs384 => "HS384",
            Self::Hs512 => "HS512",
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
        }
    }

    /// The one of this name, which is compared with regard to case.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    /// RFC 7518 §3.2: the least length of a shared secret, in bytes; `None` where the key is a public one.
    #[must_use]
    pub const fn least_secret_bytes(self) -> Option<usize> {
        match self {
            Self::Hs256 => Some(32),
            Self::Hs384 => Some(48),
            Self::Hs512 => Some(64),
            _ => None,
        }
    }
}

/// Where a token may stand in a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TokenSource {
    /// `Authorization: Bearer TOKEN` (RFC 6750 §2.1).
    Authorization,
    /// A cookie of this name.
    Cookie(String),
    /// A parameter of the query of this name.
    Query(String),
    /// An element of `Sec-WebSocket-Protocol`, behind this prefix.
    Subprotocol(String),
}

/// Claims that list patterns of topics; what no claim is named for is as the route has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PermissionClaims {
    /// What may be subscribed to.
    pub subscribe: Option<String>,
    /// What may be published to.
    pub publish: Option<String>,
    /// Where presence may be seen and taken part in.
    pub presence: Option<String>,
}

/// Most identities of a configuration.
pub const MAX_IDENTITIES: usize = 64;
