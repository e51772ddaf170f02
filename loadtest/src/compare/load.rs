//! One run of a load: a process of this program, and its report.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use rustix::process::Pid;
use serde_json::Value;

use super::{
    measure::{Bench, Failure, Running, Sample, read_end, text_of},
    metric::Metric,
    process::{Folder, Launch, Process, show_status},
    show::plain,
    suite::Scenario,
    template::Unknown,
};

const THIS_PROGRAM: &str = "/proc/self/exe";
/// Between two looks at a load that runs: seldom, as this shares a processor with it.
const RUNNING: Duration = Duration::from_millis(50);

impl Bench<'_> {
    /// Runs the load as a process of this program.
    pub(super) fn load(
        &self,
        running: &mut Running<'_>,
        scenario: &Scenario,
        pids: &[Pid],
        upstream_port: Option<u16>,
    ) -> Result<Sample, Failure> {
        let names = self.names(running.port, upstream_port, running.folder.path());
        let server = running.server;
        // This very program, even where its file was replaced meanwhile.
        let mut words = vec![THIS_PROGRAM.to_owned()];
        words.extend(scenario.words.iter().cloned());
        words.extend(server.arguments.iter().map(|text| text_of(text, &names, Unknown::Refuse)));
        words.push(text_of(&server.url, &names, Unknown::Refuse));
        words.extend(["--quiet", "--json", "-"].map(str::to_owned));
        for pid in pids {
            words.extend(["--pid".to_owned(), pid.to_string()]);
        }
        let folder = Folder::new()?;
        let (report, complaints) = (folder.path().join("report.json"), folder.path().join("complaints"));
        let launch = Launch {
            words: &words,
            environment: &BTreeMap::new(),
            // Where its words were looked at: a path in them is that of the same file.
            folder: Path::new("."),
            stdout: File::create(&report)?,
            stderr: File::create(&complaints)?,
            pins: &self.suite.pins.generator,
        };
        let mut load = Process::start(launch, &self.affinity, &self.suite.pins.generator)?;
        let began = Instant::now();
        let status = loop {
            if let Some(status) = load.ended() {
                break status;
            }
            let is_late = began.elapsed() > scenario.run_timeout;
            let is_interrupted = self.interrupts.first().is_some();
            if is_late || is_interrupted || running.process.ended().is_some() {
                load.stop(self.interrupts);
                if is_interrupted {
                    return Err(Failure::Interrupted);
                }
                let limit = scenario.run_timeout;
                return Err(running.failed(format!("the load did not end within {limit:?}")));
            }
            thread::sleep(RUNNING);
        };
        // With --processes, it may have others.
        load.stop(self.interrupts);
        if !status.success() {
            let text = read_end(&complaints)?;
            let said = text.lines().last().unwrap_or("it said nothing");
            let said = plain(said.trim_start_matches("tidegate-loadtest: "));
            return Err(running.failed(format!("the load ended {}: {said}", show_status(status))));
        }
        let text = fs::read_to_string(&report)?;
        let report: Value = serde_json::from_str(&text)
            .map_err(|error| running.failed(format!("the load wrote no report: {error}")))?;
        if let Some(errors) = errors(&report).filter(|_| !scenario.allows_errors) {
            return Err(running.failed(format!("met errors: {errors}")));
        }
        let values = Metric::ALL.into_iter().filter_map(|metric| Some((metric, metric.of(&report)?)));
        let limit = report.pointer("/generator/was_the_limit").and_then(Value::as_bool);
        Ok(Sample {
            values: values.collect(),
            was_generator_the_limit: limit.unwrap_or(false),
            misses_threads: report.pointer("/server/ended_threads_cpu_s").is_some_and(Value::is_number),
            processes: pids.len(),
        })
    }
}

/// What kinds of errors a report has, if any. How sessions end comes behind what is measured, but in `churn`.
fn errors(report: &Value) -> Option<String> {
    let kinds = report.pointer("/errors/by_kind")?.as_object()?;
    let is_churn = report.get("scenario").is_some_and(|scenario| scenario == "churn");
    let comes_behind = |kind: &str| ["close_timeout", "close_cut"].contains(&kind);
    let kinds = kinds.iter().filter(|(kind, count)| **count != 0 && (is_churn || !comes_behind(kind)));
    let why = |kind: &str| report["errors"]["reasons"][kind].as_str().map(|why| format!(" ({why})"));
    let met: Vec<String> =
        kinds.map(|(kind, count)| format!("{kind} {count}{}", why(kind).unwrap_or_default())).collect();
    (!met.is_empty()).then(|| met.join(", "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn errors_fail_a_run_but_those_that_come_behind_it() {
        let of = |scenario: &str, kinds: Value| {
            errors(&json!({"scenario": scenario, "errors": {"by_kind": kinds}}))
        };
        assert_eq!(of("echo", json!({})), None);
        assert_eq!(of("echo", json!({"lost": 0, "garbage": 0})), None);
        assert_eq!(of("echo", json!({"close_timeout": 2, "close_cut": 1})), None);
        assert_eq!(of("churn", json!({"close_cut": 2})).as_deref(), Some("close_cut 2"));
        assert_eq!(of("churn", json!({"close_timeout": 2})).as_deref(), Some("close_timeout 2"));
        assert_eq!(of("echo", json!({"close_timeout": 2, "lost": 3})).as_deref(), Some("lost 3"));
    }
}
