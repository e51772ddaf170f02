//! A suite as its file has it, before it is checked.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSuite {
    pub(super) title: Option<String>,
    pub(super) rounds: Option<Spanned<u32>>,
    pub(super) reference: Option<Spanned<String>>,
    pub(super) interleave: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) include: Vec<Spanned<String>>,
    pub(super) servers: Option<Vec<Spanned<String>>>,
    pub(super) ready_timeout: Option<Spanned<String>>,
    pub(super) run_timeout: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) pin: RawPins,
    #[serde(default)]
    pub(super) variables: BTreeMap<String, Spanned<String>>,
    #[serde(default)]
    pub(super) server: Vec<RawServer>,
    #[serde(default)]
    pub(super) upstream: Vec<RawServer>,
    #[serde(default)]
    pub(super) scenario: Vec<RawScenario>,
}

/// What suites share.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawIncluded {
    #[serde(default)]
    pub(super) variables: BTreeMap<String, Spanned<String>>,
    #[serde(default)]
    pub(super) server: Vec<RawServer>,
    #[serde(default)]
    pub(super) upstream: Vec<RawServer>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawPins {
    pub(super) server: Vec<Spanned<usize>>,
    pub(super) upstream: Vec<Spanned<usize>>,
    pub(super) generator: Vec<Spanned<usize>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawServer {
    pub(super) name: Spanned<String>,
    pub(super) command: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) version: Vec<Spanned<String>>,
    pub(super) url: Option<Spanned<String>>,
    pub(super) ready: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) requires: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) arguments: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) environment: BTreeMap<String, Spanned<String>>,
    #[serde(default)]
    pub(super) files: BTreeMap<String, Spanned<String>>,
    pub(super) upstream: Option<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawScenario {
    pub(super) name: Spanned<String>,
    pub(super) title: Option<String>,
    pub(super) load: Spanned<Words>,
    #[serde(default)]
    pub(super) servers: Vec<Spanned<String>>,
    pub(super) errors: Option<Spanned<String>>,
    pub(super) run_timeout: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) bars: Vec<Spanned<String>>,
}

/// The words of a command line.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Words {
    /// Apart at blanks.
    Line(String),
    List(Vec<String>),
}
