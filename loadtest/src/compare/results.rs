//! What was measured so far, and what it comes to.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    bar::{Bar, Basis, Judgement},
    measure::Sample,
    metric::Metric,
    statistics::Spread,
    suite::{ROUNDS, Scenario, Suite},
    verdict::{self, Pair},
};
use crate::machine::machine;

/// What came of one measurement.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    Measured(Sample),
    /// Why, with the server's last lines.
    Failed(String),
}

/// The samples of a comparison.
#[derive(Debug)]
pub(crate) struct Results<'a> {
    pub(crate) suite: &'a Suite,
    versions: BTreeMap<String, String>,
    skipped: BTreeMap<String, String>,
    /// For each scenario, by server, in the order of rounds.
    outcomes: Vec<BTreeMap<String, Vec<Outcome>>>,
    pub(crate) signal: Option<i32>,
}

/// What the samples come to.
#[derive(Debug)]
pub(crate) struct Table<'a> {
    pub(crate) suite: &'a Suite,
    pub(crate) machine: String,
    pub(crate) versions: Vec<(String, String)>,
    pub(crate) skipped: Vec<(String, String)>,
    pub(crate) scenarios: Vec<Part<'a>>,
    pub(crate) is_interrupted: bool,
}

/// One scenario.
#[derive(Debug)]
pub(crate) struct Part<'a> {
    pub(crate) scenario: &'a Scenario,
    /// Those that were measured.
    pub(crate) metrics: Vec<Metric>,
    pub(crate) rows: Vec<Row<'a>>,
    /// What is to be said about the servers.
    pub(crate) verdicts: Vec<String>,
    pub(crate) warnings: Vec<String>,
    pub(crate) bars: Vec<Judged<'a>>,
}

/// One server in one scenario.
#[derive(Debug)]
pub(crate) struct Row<'a> {
    pub(crate) server: &'a str,
    outcomes: &'a [Outcome],
    pub(crate) spreads: BTreeMap<Metric, Spread>,
    /// To the reference, of each round.
    pub(crate) ratios: BTreeMap<Metric, Spread>,
}

#[derive(Debug)]
pub(crate) struct Judged<'a> {
    pub(crate) bar: &'a Bar,
    pub(crate) judgement: Judgement,
}

impl<'a> Results<'a> {
    pub(crate) fn new(suite: &'a Suite) -> Self {
        Self {
            suite,
            versions: BTreeMap::new(),
            skipped: BTreeMap::new(),
            outcomes: suite.scenarios.iter().map(|_| BTreeMap::new()).collect(),
            signal: None,
        }
    }

    pub(crate) fn found(&mut self, server: &str, version: Option<String>) {
        if let Some(version) = version {
            self.versions.insert(server.to_owned(), version);
        }
    }

    pub(crate) fn skipped(&mut self, server: &str, why: String) {
        self.skipped.insert(server.to_owned(), why);
    }

    /// Whether a server is here, and runs this scenario.
    pub(crate) fn takes_part(&self, server: &str, scenario: &Scenario) -> bool {
        let wanted = scenario.servers.is_empty() || scenario.servers.iter().any(|name| name == server);
        wanted && !self.skipped.contains_key(server)
    }

    /// Whether a server failed too often in a row.
    pub(crate) fn fails(&self, scenario: usize, server: &str) -> bool {
        let outcomes = self.outcomes[scenario].get(server).map(Vec::as_slice).unwrap_or_default();
        let last = outcomes.iter().rev().take(super::MOST_FAILURES);
        last.filter(|outcome| matches!(outcome, Outcome::Failed(_))).count() == super::MOST_FAILURES
    }

    pub(crate) fn add(&mut self, scenario: usize, server: &str, outcome: Outcome) {
        self.outcomes[scenario].entry(server.to_owned()).or_default().push(outcome);
    }

    pub(crate) fn has_samples(&self) -> bool {
        let mut all = self.outcomes.iter().flat_map(BTreeMap::values).flatten();
        all.any(|outcome| matches!(outcome, Outcome::Measured(_)))
    }

    /// The values of a server, round by round; `None` where a round does not count.
    fn rounds(&self, scenario: usize, server: &str, metric: Metric) -> Vec<Option<f64>> {
        let outcomes = self.outcomes[scenario].get(server).map(Vec::as_slice).unwrap_or_default();
        let value = |outcome: &Outcome| match outcome {
            Outcome::Measured(sample) => sample.values.get(&metric).copied(),
            Outcome::Failed(_) => None,
        };
        outcomes.iter().map(value).collect()
    }

    /// The ratios of two servers' values, of the rounds in which both count.
    pub(crate) fn ratio(&self, scenario: usize, metric: Metric, a: &str, b: &str) -> Option<Spread> {
        let (a, b) = (self.rounds(scenario, a, metric), self.rounds(scenario, b, metric));
        Spread::of_ratios(a.into_iter().zip(b).filter_map(|(a, b)| Some((a?, b?))), metric.floor())
    }

    /// How much a server's values grow from one scenario to another, round by round; `None` where one of the two does not count.
    fn growth(&self, from: usize, to: usize, server: &str, metric: Metric) -> Vec<Option<f64>> {
        let (from, to) = (self.rounds(from, server, metric), self.rounds(to, server, metric));
        // From next to nothing all grows as much as chance will have it.
        if from.iter().flatten().any(|value| *value <= metric.floor().max(0.0)) {
            return Vec::new();
        }
        from.into_iter().zip(to).map(|(from, to)| Some(to? / from?)).collect()
    }

    /// The values that a bar is about: for each peer, or of its subject alone.
    fn values_of(&self, place: usize, subject: &str, bar: &Bar) -> Vec<Option<Spread>> {
        let Some(base) = &bar.base else {
            return if bar.peers.is_empty() {
                vec![self.spread(place, bar.metric, subject)]
            } else {
                bar.peers.iter().map(|peer| self.ratio(place, bar.metric, subject, peer)).collect()
            };
        };
        let base = self.place_of(base);
        let growth = |server: &str| self.growth(base, place, server, bar.metric);
        let own = growth(subject);
        if bar.peers.is_empty() {
            return vec![Spread::of(own.into_iter().flatten())];
        }
        let beside = |peer: &String| {
            let pairs = own.iter().zip(growth(peer)).filter_map(|(own, peer)| Some(((*own)?, peer?)));
            Spread::of_ratios(pairs, 0.0)
        };
        bar.peers.iter().map(beside).collect()
    }

    /// Where a scenario stands among all.
    fn place_of(&self, scenario: &str) -> usize {
        let place = self.suite.scenarios.iter().position(|other| other.name == scenario);
        place.expect("a suite's bars name scenarios that it has")
    }

    pub(crate) fn spread(&self, scenario: usize, metric: Metric, server: &str) -> Option<Spread> {
        Spread::of(self.rounds(scenario, server, metric).into_iter().flatten())
    }

    fn part(&'a self, place: usize, scenario: &'a Scenario) -> Part<'a> {
        let reference = self.suite.reference_of(scenario);
        let taking_part = self.suite.servers.iter().filter(|server| self.takes_part(&server.name, scenario));
        let rows: Vec<Row<'_>> = taking_part
            .map(|server| {
                let spread = |metric| Some((metric, self.spread(place, metric, &server.name)?));
                let ratio = |metric| Some((metric, self.ratio(place, metric, &server.name, reference)?));
                Row {
                    server: &server.name,
                    outcomes: self.outcomes[place].get(&server.name).map(Vec::as_slice).unwrap_or_default(),
                    spreads: Metric::ALL.into_iter().filter_map(spread).collect(),
                    ratios: Metric::ALL.into_iter().filter_map(ratio).collect(),
                }
            })
            .collect();
        let measured = |metric: &Metric| rows.iter().any(|row| row.spreads.contains_key(metric));
        let metrics = Metric::ALL.into_iter().filter(measured).collect();
        let bars = scenario.bars.iter().map(|bar| self.judge(place, reference, bar)).collect();
        let verdicts = self.verdicts(place, reference, &rows);
        Part { scenario, metrics, warnings: warnings(&rows), rows, verdicts, bars }
    }

    fn judge(&self, place: usize, reference: &str, bar: &'a Bar) -> Judged<'a> {
        let subject = bar.subject.as_deref().unwrap_or(reference);
        let spreads = self.values_of(place, subject, bar);
        let suffice = spreads.iter().flatten().all(|spread| spread.count >= ROUNDS as usize);
        let mut servers = std::iter::once(subject).chain(bar.peers.iter().map(String::as_str));
        let base = bar.base.as_ref().map(|base| self.place_of(base));
        let is_limited = |server: &str| {
            self.is_limited(place, server) || base.is_some_and(|base| self.is_limited(base, server))
        };
        let basis = match suffice {
            false => Basis::TooFewRounds,
            true if servers.any(is_limited) => Basis::LimitedByLoad,
            true => Basis::Sound,
        };
        let values: Vec<Option<f64>> = spreads.iter().map(|spread| Some(spread.as_ref()?.median)).collect();
        Judged { bar, judgement: bar.judge(&values, basis) }
    }

    /// Whether in most of a server's runs the load was the limit.
    fn is_limited(&self, scenario: usize, server: &str) -> bool {
        let outcomes = self.outcomes[scenario].get(server).map(Vec::as_slice).unwrap_or_default();
        let limits = outcomes.iter().filter_map(|outcome| match outcome {
            Outcome::Measured(sample) => Some(sample.was_generator_the_limit),
            Outcome::Failed(_) => None,
        });
        let limits: Vec<bool> = limits.collect();
        limits.iter().filter(|limit| **limit).count() * 2 > limits.len()
    }

    /// What is said of each server beside the reference, and of the cheapest.
    fn verdicts(&self, place: usize, reference: &str, rows: &[Row<'_>]) -> Vec<String> {
        let by = verdict::measure_of(rows.iter().flat_map(|row| row.spreads.keys().copied()));
        let Some(by) = by else { return Vec::new() };
        let pair = |a: &str, b: &str| {
            let ratio = |metric| self.ratio(place, metric, a, b);
            Some(Pair {
                a: a.to_owned(),
                b: b.to_owned(),
                by,
                spread_a: self.spread(place, by, a)?,
                spread_b: self.spread(place, by, b)?,
                ratio: ratio(by),
                throughput: ratio(Metric::Throughput),
                p99: ratio(Metric::P99),
                is_limited: self.is_limited(place, a) || self.is_limited(place, b),
            })
        };
        let others = rows.iter().filter(|row| row.server != reference);
        let pairs: Vec<Pair> = others.filter_map(|row| pair(reference, row.server)).collect();
        let mut lines = Vec::new();
        let fewest = pairs.iter().map(Pair::rounds).min();
        if rows.len() > 1 && fewest.is_some_and(|fewest| fewest < ROUNDS as usize) {
            lines.push("fewer than five rounds: no verdict".to_owned());
        }
        lines.extend(pairs.iter().filter(|pair| pair.rounds() >= ROUNDS as usize).map(Pair::verdict));
        if rows.len() > 2 {
            let mut spreads: Vec<(&str, Spread)> =
                rows.iter().filter_map(|row| Some((row.server, *row.spreads.get(&by)?))).collect();
            spreads.retain(|(_, spread)| spread.count >= ROUNDS as usize);
            lines.extend(verdict::cheapest(by, &spreads));
        }
        lines
    }
}

impl Row<'_> {
    pub(crate) fn counted(&self) -> usize {
        self.outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Measured(_))).count()
    }

    pub(crate) fn failures(&self) -> impl Iterator<Item = &str> {
        self.outcomes.iter().filter_map(|outcome| match outcome {
            Outcome::Failed(why) => Some(&**why),
            Outcome::Measured(_) => None,
        })
    }

    fn count(&self, is_so: fn(&Sample) -> bool) -> usize {
        let is_so = |outcome: &&Outcome| match outcome {
            Outcome::Measured(sample) => is_so(sample),
            Outcome::Failed(_) => false,
        };
        self.outcomes.iter().filter(is_so).count()
    }
}

/// What else the reader must know.
fn warnings(rows: &[Row<'_>]) -> Vec<String> {
    let mut lines = Vec::new();
    for row in rows {
        let (limited, counted) = (row.count(|sample| sample.was_generator_the_limit), row.counted());
        if limited > 0 {
            lines.push(format!(
                "{}: the load, not the server, was the limit in {limited} of {counted} runs: its throughput and \
                 latency are the load's",
                row.server
            ));
        }
        let missed = row.count(|sample| sample.misses_threads);
        if missed > 0 {
            lines.push(format!(
                "{}: in {missed} of {counted} runs threads of it ended, whose CPU time is not counted",
                row.server
            ));
        }
    }
    for row in rows {
        let mut failures: Vec<(usize, &str)> = Vec::new();
        for why in row.failures() {
            match failures.iter_mut().find(|(_, other)| *other == why) {
                Some((count, _)) => *count += 1,
                None => failures.push((1, why)),
            }
        }
        for (count, why) in failures {
            let runs = match count {
                1 => "a run failed and does not count".to_owned(),
                count => format!("{count} runs failed and do not count"),
            };
            lines.push(format!("{}: {runs}: {why}", row.server));
        }
    }
    lines
}

impl<'a> Table<'a> {
    pub(crate) fn of(results: &'a Results<'a>) -> Self {
        let suite = results.suite;
        let places = suite.scenarios.iter().enumerate();
        let known = |names: &BTreeMap<String, String>| {
            let servers = suite.servers.iter();
            servers
                .filter_map(|server| Some((server.name.clone(), names.get(&server.name)?.clone())))
                .collect()
        };
        Self {
            suite,
            machine: machine(),
            versions: known(&results.versions),
            skipped: known(&results.skipped),
            scenarios: places.map(|(place, scenario)| results.part(place, scenario)).collect(),
            is_interrupted: results.signal.is_some(),
        }
    }

    /// Whether each bar was measured and holds.
    pub(crate) fn all_bars_hold(&self) -> bool {
        let mut bars = self.scenarios.iter().flat_map(|part| &part.bars);
        bars.all(|judged| matches!(judged.judgement, Judgement::Holds(_)))
    }

    /// For machines.
    pub(crate) fn json(&self) -> Value {
        let spread = |spread: &Spread| json!({"min": spread.least, "median": spread.median, "max": spread.most, "rounds": spread.count});
        let spreads = |spreads: &BTreeMap<Metric, Spread>| -> serde_json::Map<String, Value> {
            spreads.iter().map(|(metric, value)| (metric.name().to_owned(), spread(value))).collect()
        };
        let runs = |row: &Row<'_>| -> Vec<Value> { row.outcomes.iter().map(run_json).collect() };
        let row = |row: &Row<'_>| {
            json!({
                "server": row.server, "runs": runs(row), "values": spreads(&row.spreads), "ratios": spreads(&row.ratios),
            })
        };
        let part = |part: &Part<'_>| {
            json!({
                "reference": self.suite.reference_of(part.scenario), "name": part.scenario.name, "title": part.scenario.title, "load": part.scenario.load,
                "servers": part.rows.iter().map(row).collect::<Vec<_>>(),
                "verdicts": part.verdicts, "warnings": part.warnings,
                "bars": part.bars.iter().map(Judged::json).collect::<Vec<_>>(),
            })
        };
        let names = |names: &[(String, String)]| -> serde_json::Map<String, Value> {
            names.iter().map(|(name, value)| (name.clone(), json!(value))).collect()
        };
        json!({
            "format": 1,
            "tool": "tidegate-loadtest compare",
            "version": env!("CARGO_PKG_VERSION"),
            "title": self.suite.title,
            "machine": self.machine,
            "interrupted": self.is_interrupted,
            "rounds": self.suite.rounds,
            "reference": self.suite.reference,
            "versions": names(&self.versions),
            "skipped": names(&self.skipped),
            "scenarios": self.scenarios.iter().map(part).collect::<Vec<_>>(),
        })
    }
}

fn run_json(outcome: &Outcome) -> Value {
    match outcome {
        Outcome::Measured(sample) => {
            let values = sample.values.iter().map(|(metric, value)| (metric.name().to_owned(), json!(value)));
            json!({
                "values": values.collect::<serde_json::Map<_, _>>(), "processes": sample.processes,
                "generator_was_the_limit": sample.was_generator_the_limit, "misses_threads": sample.misses_threads,
            })
        }
        Outcome::Failed(why) => json!({"failed": why}),
    }
}

impl Judged<'_> {
    fn json(&self) -> Value {
        let (judgement, value) = match self.judgement {
            Judgement::Holds(value) => ("holds", Some(value)),
            Judgement::Broken(value) => ("does not hold", Some(value)),
            Judgement::TooFew(value) => ("too few rounds", Some(value)),
            Judgement::LoadLimited(value) => ("the load was the limit", Some(value)),
            Judgement::NotMeasured => ("not measured", None),
        };
        json!({"bar": self.bar.text, "judgement": judgement, "value": value})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A suite in which two servers run a small and a large scenario, the latter with this bar.
    fn suite(bar: &str) -> Suite {
        let text = format!(
            "interleave = \"scenarios\"\n[[server]]\nname = \"a\"\ncommand = [\"a\"]\n[[server]]\nname = \"b\"\n\
             command = [\"b\"]\n[[scenario]]\nname = \"small\"\nload = \"echo\"\n[[scenario]]\nname = \"large\"\n\
             load = \"echo\"\nbars = [\"{bar}\"]\n"
        );
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("suite.toml");
        std::fs::write(&file, text).unwrap();
        Suite::read(&file, &[]).unwrap()
    }

    fn sample(metric: Metric, value: f64) -> Sample {
        Sample { values: BTreeMap::from([(metric, value)]), ..Sample::default() }
    }

    /// What becomes of a bar about CPU time, where `cpu` tells each round's: of `a` in the small and the large scenario, then of
    /// `b`. 0: the run failed.
    fn judge(bar: &str, cpu: &[[f64; 4]]) -> Judgement {
        let suite = suite(bar);
        let mut results = Results::new(&suite);
        for round in cpu {
            for (place, (server, scenario)) in
                [("a", 0), ("a", 1), ("b", 0), ("b", 1)].into_iter().enumerate()
            {
                let outcome = match round[place] {
                    0.0 => Outcome::Failed("it died".to_owned()),
                    value => Outcome::Measured(sample(Metric::Cpu, value)),
                };
                results.add(scenario, server, outcome);
            }
        }
        Table::of(&results).scenarios[1].bars[0].judgement
    }

    #[test]
    fn growth_is_of_rounds_before_it_is_a_median() {
        // A machine that becomes twice as slow, and once more: neither growth sees it.
        let rounds: Vec<[f64; 4]> = [1.0, 2.0, 4.0, 4.0, 4.0]
            .iter()
            .map(|slow| [100.0, 150.0, 200.0, 600.0].map(|ns| ns * slow))
            .collect();
        assert_eq!(judge("cpu / small <= 1.5", &rounds), Judgement::Holds(1.5));
        assert_eq!(judge("cpu / small < 1.5", &rounds), Judgement::Broken(1.5));
        assert_eq!(judge("b: cpu / small <= 1.5", &rounds), Judgement::Broken(3.0));
        // 1.5 beside 3.
        assert_eq!(judge("cpu / small <= 1.0 of b", &rounds), Judgement::Holds(0.5));
        assert_eq!(judge("b: cpu / small <= 1.0 of a", &rounds), Judgement::Broken(2.0));
        assert_eq!(judge("cpu / small <= 1.0 of b", &rounds[..4]), Judgement::TooFew(0.5));
    }

    #[test]
    fn a_round_counts_for_growth_where_both_of_its_runs_do() {
        let good = [100.0, 150.0, 200.0, 600.0];
        let mut rounds = vec![good; 5];
        rounds.push([0.0, 900.0, 200.0, 600.0]);
        rounds.push([100.0, 900.0, 200.0, 0.0]);
        assert_eq!(judge("cpu / small <= 1.0 of b", &rounds), Judgement::Holds(0.5));
        rounds[0] = [100.0, 0.0, 200.0, 600.0];
        assert_eq!(judge("cpu / small <= 1.0 of b", &rounds), Judgement::TooFew(0.5));
        assert_eq!(judge("cpu / small <= 1.2", &[[0.0; 4]; 5]), Judgement::NotMeasured);
    }

    #[test]
    fn where_the_load_was_the_limit_in_either_scenario_growth_of_speed_is_not_judged() {
        let suite = suite("p99 / small <= 1.3 of b");
        for limited in [None, Some((0, "a")), Some((1, "a")), Some((0, "b")), Some((1, "b"))] {
            let mut results = Results::new(&suite);
            for _ in 0..5 {
                for (scenario, server) in [(0, "a"), (1, "a"), (0, "b"), (1, "b")] {
                    let was_generator_the_limit = limited == Some((scenario, server));
                    let sample = Sample { was_generator_the_limit, ..sample(Metric::P99, 100.0) };
                    results.add(scenario, server, Outcome::Measured(sample));
                }
            }
            let judgement = Table::of(&results).scenarios[1].bars[0].judgement;
            let expected =
                if limited.is_some() { Judgement::LoadLimited(1.0) } else { Judgement::Holds(1.0) };
            assert_eq!(judgement, expected, "{limited:?}");
        }
    }
}
