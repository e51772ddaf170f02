//! A suite: which servers are compared, how they are started, and by which loads. README.md tells its keys.

mod included;
mod raw;

use std::{
    collections::BTreeMap,
    env, fmt, fs,
    ops::Range,
    path::{Path, PathBuf},
    time::Duration,
};

use toml::Spanned;

use self::{
    included::{Included, Source},
    raw::{RawPins, RawScenario, RawServer, RawSuite, Words},
};
use super::{
    bar::Bar,
    template::{Names, Unknown, expand, is_name},
};
use crate::{arguments, units};

/// Rounds where nothing else is said, and the fewest of which a winner is called.
pub(crate) const ROUNDS: u32 = 5;
const READY_TIMEOUT: Duration = Duration::from_secs(10);
const RUN_TIMEOUT: Duration = Duration::from_secs(120);
/// Flags of a load that a comparison gives it.
const OWN_FLAGS: [&str; 5] = ["--pid", "--json", "--html", "--quiet", "--part"];
/// Names that have a value only when a server is started.
const AT_START: [&str; 3] = ["port", "upstream_port", "dir"];

/// A whole suite, checked.
#[derive(Debug)]
pub(crate) struct Suite {
    pub(crate) title: String,
    pub(crate) rounds: u32,
    /// By whose name ratios are.
    pub(crate) reference: String,
    pub(crate) interleave: Interleave,
    pub(crate) ready_timeout: Duration,
    pub(crate) pins: Pins,
    /// Each of these processors, with its place in the file, for people.
    pub(crate) pin_places: Vec<(usize, String)>,
    /// Those that do not depend on a start: folders and variables.
    pub(crate) names: Names,
    pub(crate) servers: Vec<Server>,
    pub(crate) upstreams: Vec<Server>,
    pub(crate) scenarios: Vec<Scenario>,
}

/// What takes turns in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interleave {
    /// The servers: all rounds of a scenario, then those of the next.
    Servers,
    /// The scenarios too: each round has all of them, so that what a server takes in one is compared with what it takes in
    /// another soon after.
    Scenarios,
}

/// Processors; empty: any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pins {
    pub(crate) server: Vec<usize>,
    pub(crate) upstream: Vec<usize>,
    pub(crate) generator: Vec<usize>,
}

/// When a server counts as started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ready {
    /// It takes connections.
    Connect,
    /// It answers an upgrade.
    Upgrade,
}

/// How a server is started. Its texts have placeholders.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) name: String,
    pub(crate) command: Vec<String>,
    pub(crate) version: Vec<String>,
    pub(crate) url: String,
    pub(crate) ready: Ready,
    pub(crate) requires: Vec<String>,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) files: BTreeMap<String, String>,
    pub(crate) upstream: Option<String>,
}

/// One load.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: String,
    pub(crate) title: String,
    /// As the suite has it,
    pub(crate) load: Vec<String>,
    /// and with the values of its names.
    pub(crate) words: Vec<String>,
    /// Which servers run it; empty: all.
    pub(crate) servers: Vec<String>,
    /// Whether a run that met errors counts.
    pub(crate) allows_errors: bool,
    pub(crate) run_timeout: Duration,
    pub(crate) bars: Vec<Bar>,
}

/// What is wrong with a suite, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mistake {
    message: String,
    span: Option<Range<usize>>,
    /// Where it is not in the suite's own file.
    source: Option<Box<Source>>,
}

/// A mistake in a file, for people.
#[derive(Debug)]
pub(crate) struct SuiteError(String);

impl fmt::Display for SuiteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SuiteError {}

impl Mistake {
    fn new(message: impl Into<String>, span: Range<usize>) -> Self {
        Self { message: message.into(), span: Some(span), source: None }
    }

    /// With file, line and column.
    fn at(&self, file: &str, text: &str) -> SuiteError {
        let own = self.source.as_deref().map(|source| (&*source.file, &*source.text));
        let (file, text) = own.unwrap_or((file, text));
        let place = self.span.as_ref().map(|span| place(text, span));
        SuiteError(format!("{file}{}: {}", place.unwrap_or_default(), self.message))
    }
}

impl Suite {
    /// Reads a file; `set` gives variables another value.
    ///
    /// # Errors
    /// The first mistake, with its line and column.
    pub(crate) fn read(path: &Path, set: &[(String, String)]) -> Result<Self, SuiteError> {
        let file = path.display().to_string();
        let text = fs::read_to_string(path).map_err(|error| SuiteError(format!("{file}: {error}")))?;
        let folder = path.canonicalize().ok().and_then(|path| path.parent().map(Path::to_path_buf));
        let folder = folder.unwrap_or_else(|| PathBuf::from("."));
        let mut suite = Self::parse(&text, &folder, set).map_err(|mistake| mistake.at(&file, &text))?;
        suite.pin_places.iter_mut().for_each(|(_, place)| place.insert_str(0, &file));
        Ok(suite)
    }

    /// By whose name a scenario's ratios are: where the suite's reference does not run it, its first server's.
    pub(crate) fn reference_of<'a>(&'a self, scenario: &'a Scenario) -> &'a str {
        let takes_part = scenario.servers.is_empty() || scenario.servers.contains(&self.reference);
        if takes_part { &self.reference } else { &scenario.servers[0] }
    }

    /// Leaves these servers alone in it, and of the bars those that are about them.
    pub(crate) fn leave(&mut self, only: &[String]) {
        let is_left = |name: &str| only.iter().any(|other| other == name);
        let references: Vec<String> =
            self.scenarios.iter().map(|scenario| self.reference_of(scenario).to_owned()).collect();
        for (scenario, reference) in self.scenarios.iter_mut().zip(&references) {
            scenario.bars.retain(|bar| {
                let subject = bar.subject.as_deref().unwrap_or(reference);
                is_left(subject) && bar.peers.iter().all(|peer| is_left(peer))
            });
        }
        // Where some servers are named and none is left, nobody runs it: none named would be all.
        self.scenarios.retain(|scenario| {
            scenario.servers.is_empty() || scenario.servers.iter().any(|name| is_left(name))
        });
        self.scenarios.iter_mut().for_each(|scenario| scenario.servers.retain(|name| is_left(name)));
        self.leave_bases();
        self.servers.retain(|server| is_left(&server.name));
        if let (false, Some(first)) = (is_left(&self.reference), self.servers.first()) {
            self.reference.clone_from(&first.name);
        }
    }

    /// Leaves these scenarios alone in it, and of the bars those that are about them.
    pub(crate) fn leave_scenarios(&mut self, only: &[String]) {
        self.scenarios.retain(|scenario| only.contains(&scenario.name));
        self.leave_bases();
    }

    /// A bar about growth from a scenario that is left out goes with it.
    fn leave_bases(&mut self) {
        let names: Vec<String> = self.scenarios.iter().map(|scenario| scenario.name.clone()).collect();
        for scenario in &mut self.scenarios {
            scenario.bars.retain(|bar| bar.base.as_ref().is_none_or(|base| names.contains(base)));
        }
    }

    /// Looks at what bars about growth rest on.
    fn check_growth(&self, raw: &[RawScenario]) -> Result<(), Mistake> {
        for (scenario, raw) in self.scenarios.iter().zip(raw) {
            for (bar, text) in scenario.bars.iter().zip(&raw.bars) {
                let Some(name) = &bar.base else { continue };
                let mistake = |message: String| Err(Mistake::new(message, text.span()));
                let Some(base) = self.scenarios.iter().find(|other| other.name == *name) else {
                    let known: Vec<&str> = self.scenarios.iter().map(|other| &*other.name).collect();
                    return mistake(format!("there is no scenario {name:?}: {}", known.join(", ")));
                };
                if base.name == scenario.name {
                    return mistake("it grows from another scenario to this one".to_owned());
                }
                if self.interleave != Interleave::Scenarios {
                    return mistake(
                        "what grows from one scenario to another is compared within rounds: interleave = \"scenarios\"".to_owned(),
                    );
                }
                let subject = bar.subject.as_deref().unwrap_or_else(|| self.reference_of(scenario));
                for server in std::iter::once(subject).chain(bar.peers.iter().map(String::as_str)) {
                    if !base.servers.is_empty() && !base.servers.iter().any(|name| name == server) {
                        return mistake(format!("{server:?} does not run {name:?}"));
                    }
                }
            }
        }
        Ok(())
    }

    fn parse(text: &str, folder: &Path, set: &[(String, String)]) -> Result<Self, Mistake> {
        let raw: RawSuite = toml::from_str(text).map_err(|error| Mistake {
            message: error.message().to_owned(),
            span: error.span(),
            source: None,
        })?;
        let included = Included::read_all(&raw, folder)?;
        let names = names(&raw, &included, folder, set)?;
        check_upstreams(&raw.upstream)?;
        let mut upstreams = servers(&raw.upstream, &names, &[])?;
        for file in &included {
            add_others(&mut upstreams, file.upstreams(&names)?);
        }
        let own = servers(&raw.server, &names, &upstreams)?;
        let servers = match &raw.servers {
            None => own,
            Some(wanted) => {
                let mut all = own;
                for file in &included {
                    add_others(&mut all, file.servers(&names, &upstreams)?);
                }
                chosen(wanted, &all)?
            }
        };
        if servers.is_empty() || raw.scenario.is_empty() {
            return Err(Mistake::new("a suite has a [[server]] and a [[scenario]] at least", 0..0));
        }
        let reference = match &raw.reference {
            Some(name) => known(name, &servers)?,
            None => servers[0].name.clone(),
        };
        let rounds = match &raw.rounds {
            Some(rounds) if *rounds.get_ref() == 0 => {
                return Err(Mistake::new("at least one round", rounds.span()));
            }
            Some(rounds) => *rounds.get_ref(),
            None => ROUNDS,
        };
        let interleave = match raw.interleave.as_ref().map(|word| (word.get_ref().as_str(), word.span())) {
            None | Some(("servers", _)) => Interleave::Servers,
            Some(("scenarios", _)) => Interleave::Scenarios,
            Some((_, span)) => {
                return Err(Mistake::new("interleave is \"servers\" or \"scenarios\"", span));
            }
        };
        let run_timeout = duration(raw.run_timeout.as_ref(), RUN_TIMEOUT)?;
        let mut scenarios: Vec<Scenario> = Vec::new();
        for scenario in &raw.scenario {
            if scenarios.iter().any(|other| other.name == *scenario.name.get_ref()) {
                return Err(Mistake::new("there is another scenario of this name", scenario.name.span()));
            }
            scenarios.push(Scenario::new(scenario, &servers, &names, run_timeout)?);
        }
        let RawPins { server, upstream, generator } = &raw.pin;
        let pinned = [server, upstream, generator].into_iter().flatten();
        let pin_places = pinned.map(|cpu| (*cpu.get_ref(), place(text, &cpu.span()))).collect();
        let list = |cpus: &[Spanned<usize>]| cpus.iter().map(|cpu| *cpu.get_ref()).collect();
        let pins = Pins { server: list(server), upstream: list(upstream), generator: list(generator) };
        let ready_timeout = duration(raw.ready_timeout.as_ref(), READY_TIMEOUT)?;
        let title = raw.title.unwrap_or_default();
        let suite = Self {
            title,
            rounds,
            reference,
            interleave,
            ready_timeout,
            pins,
            pin_places,
            names,
            servers,
            upstreams,
            scenarios,
        };
        suite.check_growth(&raw.scenario)?;
        Ok(suite)
    }
}

impl Scenario {
    fn new(
        raw: &RawScenario,
        servers: &[Server],
        names: &Names,
        run_timeout: Duration,
    ) -> Result<Self, Mistake> {
        let load: Vec<String> = match raw.load.get_ref() {
            Words::Line(line) => line.split_whitespace().map(str::to_owned).collect(),
            Words::List(words) => words.clone(),
        };
        // A value may have blanks: it is put in after the words are apart.
        let words = load.iter().map(|word| expand(word, names, Unknown::Refuse));
        let words: Vec<String> = words
            .collect::<Result<_, _>>()
            .map_err(|word| Mistake::new(format!("there is no {{{word}}} here"), raw.load.span()))?;
        no_own_flag(&words).map_err(|message| Mistake::new(message, raw.load.span()))?;
        // With some URL, as all servers' are alike to it.
        let whole = words.iter().map(String::as_str).chain(["ws://127.0.0.1:9/"]);
        arguments::accepts(whole).map_err(|message| Mistake::new(message, raw.load.span()))?;
        let runs_on = raw.servers.iter().map(|name| known(name, servers)).collect::<Result<_, _>>()?;
        let mut bars = Vec::new();
        for text in &raw.bars {
            let bar = Bar::parse(text.get_ref()).map_err(|message| Mistake::new(message, text.span()))?;
            for name in bar.subject.iter().chain(&bar.peers) {
                if !servers.iter().any(|server| server.name == *name) {
                    return Err(unknown_server(name, servers, text.span()));
                }
            }
            bars.push(bar);
        }
        let allows_errors = match &raw.errors {
            Some(word) if word.get_ref() == "allow" => true,
            Some(word) if word.get_ref() == "fail" => false,
            None => false,
            Some(word) => return Err(Mistake::new("errors is \"fail\" or \"allow\"", word.span())),
        };
        Ok(Self {
            name: raw.name.get_ref().clone(),
            title: raw.title.clone().unwrap_or_else(|| raw.name.get_ref().clone()),
            load,
            words,
            servers: runs_on,
            allows_errors,
            run_timeout: duration(raw.run_timeout.as_ref(), run_timeout)?,
            bars,
        })
    }
}

/// Line and column of what begins there, behind the file's name.
fn place(text: &str, span: &Range<usize>) -> String {
    let before = &text.as_bytes()[..span.start.min(text.len())];
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let column = String::from_utf8_lossy(&before[start..]).chars().count() + 1;
    format!(":{line}:{column}")
}

/// Sees that the words of a load leave to a comparison what is its own.
fn no_own_flag(words: &[String]) -> Result<(), String> {
    let flags = words.iter().map(|word| word.split_once('=').map_or(&**word, |(flag, _)| flag));
    match flags.into_iter().find(|flag| OWN_FLAGS.contains(flag)) {
        None => Ok(()),
        Some(flag) => Err(format!("{flag} is given by the comparison: leave it out")),
    }
}

/// Folders and variables. Those of the suite itself come before those that it includes.
fn names(
    raw: &RawSuite,
    included: &[Included],
    folder: &Path,
    set: &[(String, String)],
) -> Result<Names, Mistake> {
    let bin =
        env::current_exe().ok().and_then(|path| path.parent().map(Path::to_path_buf)).unwrap_or_default();
    let folders = Names::from([
        ("suite".to_owned(), folder.display().to_string()),
        ("bin".to_owned(), bin.display().to_string()),
    ]);
    let mut variables = Names::new();
    for file in included {
        variables.extend(values(&file.raw.variables, &folders).map_err(|mistake| file.own(mistake))?);
    }
    variables.extend(values(&raw.variables, &folders)?);
    for (name, value) in set {
        if !variables.contains_key(name) {
            let known: Vec<&str> = variables.keys().map(String::as_str).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            let message = format!("--set {name}: its variables are: {known}");
            return Err(Mistake { message, span: None, source: None });
        }
        variables.insert(name.clone(), value.clone());
    }
    variables.extend(folders);
    Ok(variables)
}

/// The values of variables, in which folders may stand.
fn values(variables: &BTreeMap<String, Spanned<String>>, folders: &Names) -> Result<Names, Mistake> {
    let mut values = Names::new();
    for (name, value) in variables {
        let own = AT_START.contains(&&**name) || folders.contains_key(name);
        if !is_name(name) || own {
            let message = format!(
                "{name:?} is no name for a variable: lower case, digits and _, and none of {{suite}}, \
                                   {{bin}}, {{port}}, {{upstream_port}}, {{dir}}"
            );
            return Err(Mistake::new(message, value.span()));
        }
        let expanded = expand(value.get_ref(), folders, Unknown::Refuse).map_err(|word| {
            Mistake::new(format!("there is no {{{word}}}: {{suite}} or {{bin}}"), value.span())
        })?;
        values.insert(name.clone(), expanded);
    }
    Ok(values)
}

fn check_upstreams(raw: &[RawServer]) -> Result<(), Mistake> {
    match raw.iter().find(|raw| !raw.arguments.is_empty() || raw.upstream.is_some()) {
        None => Ok(()),
        Some(wrong) => Err(Mistake::new(
            "an upstream has neither arguments nor an upstream of its own",
            wrong.name.span(),
        )),
    }
}

/// Adds those of whose names there is none yet.
fn add_others(servers: &mut Vec<Server>, others: Vec<Server>) {
    for other in others {
        if servers.iter().all(|server| server.name != other.name) {
            servers.push(other);
        }
    }
}

/// The servers that a suite wants, in its order.
fn chosen(wanted: &[Spanned<String>], all: &[Server]) -> Result<Vec<Server>, Mistake> {
    let mut chosen: Vec<Server> = Vec::new();
    for name in wanted {
        if chosen.iter().any(|server| server.name == *name.get_ref()) {
            return Err(Mistake::new("it is named twice", name.span()));
        }
        let server = all.iter().find(|server| server.name == *name.get_ref());
        chosen.push(server.ok_or_else(|| unknown_server(name.get_ref(), all, name.span()))?.clone());
    }
    Ok(chosen)
}

/// Servers or upstreams, checked.
fn servers(raw: &[RawServer], names: &Names, upstreams: &[Server]) -> Result<Vec<Server>, Mistake> {
    let mut servers: Vec<Server> = Vec::new();
    for raw in raw {
        let name = raw.name.get_ref();
        if name.is_empty() || name.contains([',', ':']) || name.trim() != name {
            return Err(Mistake::new(
                "a name has neither `,` nor `:`, nor blanks at its ends",
                raw.name.span(),
            ));
        }
        if servers.iter().any(|other| other.name == *name) {
            return Err(Mistake::new("there is another server of this name", raw.name.span()));
        }
        if raw.command.is_empty() {
            return Err(Mistake::new("its command is empty", raw.name.span()));
        }
        // What has a value at the start has one here, to see that the others do.
        let mut all = names.clone();
        all.extend(["port", "dir"].map(|name| (name.to_owned(), String::new())));
        if raw.upstream.is_some() {
            all.insert("upstream_port".to_owned(), String::new());
        }
        for text in &raw.arguments {
            no_own_flag(&[text.get_ref().clone()]).map_err(|message| Mistake::new(message, text.span()))?;
        }
        let environment = raw.environment.values();
        let texts = [&raw.command, &raw.version, &raw.requires, &raw.arguments].into_iter().flatten();
        for text in texts.chain(&raw.url).chain(environment) {
            expand(text.get_ref(), &all, Unknown::Refuse)
                .map_err(|word| Mistake::new(format!("there is no {{{word}}} here"), text.span()))?;
        }
        if let Some((file, text)) = raw.files.iter().find(|(file, _)| !is_plain(file)) {
            return Err(Mistake::new(format!("{file:?} is no name of a file without a folder"), text.span()));
        }
        let upstream = raw.upstream.as_ref().map(|name| known(name, upstreams)).transpose()?;
        let url = raw.url.as_ref().map_or("ws://127.0.0.1:{port}/", |url| url.get_ref());
        let ready = match raw.ready.as_ref().map(|ready| (ready.get_ref().as_str(), ready.span())) {
            Some(("connect", _)) => Ready::Connect,
            Some(("upgrade", span)) if url.starts_with("wss:") => {
                return Err(Mistake::new("a server for wss:// is ready on \"connect\"", span));
            }
            Some(("upgrade", _)) => Ready::Upgrade,
            Some((_, span)) => return Err(Mistake::new("ready is \"connect\" or \"upgrade\"", span)),
            None if url.starts_with("wss:") => Ready::Connect,
            None => Ready::Upgrade,
        };
        let owned = |texts: &[Spanned<String>]| texts.iter().map(|text| text.get_ref().clone()).collect();
        let map = |texts: &BTreeMap<String, Spanned<String>>| {
            texts.iter().map(|(name, text)| (name.clone(), text.get_ref().clone())).collect()
        };
        servers.push(Server {
            name: name.clone(),
            command: owned(&raw.command),
            version: owned(&raw.version),
            url: url.to_owned(),
            ready,
            requires: owned(&raw.requires),
            arguments: owned(&raw.arguments),
            environment: map(&raw.environment),
            files: map(&raw.files),
            upstream,
        });
    }
    Ok(servers)
}

/// Whether a file of this name lies in the folder itself.
fn is_plain(file: &str) -> bool {
    !file.is_empty() && !file.contains('/') && file != "." && file != ".."
}

fn known(name: &Spanned<String>, servers: &[Server]) -> Result<String, Mistake> {
    if servers.iter().any(|server| server.name == *name.get_ref()) {
        return Ok(name.get_ref().clone());
    }
    Err(unknown_server(name.get_ref(), servers, name.span()))
}

fn unknown_server(name: &str, servers: &[Server], span: Range<usize>) -> Mistake {
    let known: Vec<&str> = servers.iter().map(|server| &*server.name).collect();
    let known = if known.is_empty() { "there is none".to_owned() } else { known.join(", ") };
    Mistake::new(format!("there is no server {name:?}: {known}"), span)
}

fn duration(text: Option<&Spanned<String>>, default: Duration) -> Result<Duration, Mistake> {
    let Some(text) = text else { return Ok(default) };
    match units::duration(text.get_ref()) {
        Ok(Duration::ZERO) => Err(Mistake::new("it must be more than 0", text.span())),
        Ok(duration) => Ok(duration),
        Err(message) => Err(Mistake::new(message, text.span())),
    }
}

#[cfg(test)]
mod tests;
