//! `tidegate reload` and `tidegate drain`: having a running gateway do something, over its admin listener.

use std::io::{self, Write as _};

use tidegate_control::{
    api::{DrainRequest, Drained, Leaving, NotReloaded, Reloaded},
    client::{Answer, read},
};

use crate::{
    Outcome,
    admin::{Fault, client, json, outcome, printed},
    arguments::{AdminArguments, DrainArguments},
    output::show,
};

/// The status of a configuration that is not taken over.
const NOT_TAKEN: u16 = 422;

/// Has the configuration read again.
pub(crate) fn reload(arguments: &AdminArguments) -> Outcome {
    outcome(client(arguments).and_then(|client| {
        let answer = client.ask("POST", "/reload", Some(b""))?;
        if answer.status == NOT_TAKEN {
            return refused(&answer, arguments.json);
        }
        let reloaded: Reloaded = read(answer)?;
        Ok(match arguments.json {
            true => json(&reloaded),
            false => {
                complain(reloaded.warnings.iter().map(|warning| format!("warning: {}", warning.text)));
                show(&reloaded_text(&reloaded))
            }
        })
    }))
}

/// Drains a route or an upstream, or ends that.
pub(crate) fn drain(arguments: &DrainArguments) -> Outcome {
    outcome(client(&arguments.gateway).and_then(|client| {
        let DrainArguments { what, keep, undo, .. } = arguments.clone();
        let drained: Drained = client.post("/drain", &DrainRequest { what, keep, undo })?;
        Ok(match arguments.gateway.json {
            true => json(&drained),
            false => show(&drained_text(&drained)),
        })
    }))
}

fn refused(answer: &Answer, as_json: bool) -> Result<Outcome, Fault> {
    let refused: NotReloaded = read(Answer { status: 200, body: answer.body.clone() })?;
    if as_json {
        json(&refused);
        return Ok(Outcome::Fault);
    }
    complain(refused.problems.iter().map(|problem| problem.text.clone()));
    let why = match refused.problems.len() {
        0 => refused.error,
        1 => "a mistake".to_owned(),
        many => format!("{many} mistakes"),
    };
    complain([format!("tidegate: not taken over, number {} stays: {why}", refused.generation)].into_iter());
    Ok(Outcome::Fault)
}

/// Tells on standard error. A line in question stands under its problem, so lines are kept.
fn complain(texts: impl Iterator<Item = String>) {
    let text: String = texts.map(|text| printed(&text)).collect();
    // Where standard error is gone, there is nobody to tell.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

fn reloaded_text(reloaded: &Reloaded) -> String {
    let mut text = String::new();
    let mut line = |line: String| text.push_str(&printed(&line));
    let late = if reloaded.adopted { "" } else { ", but not all shards have said that they have it" };
    line(format!("configuration number {} is in force{late}", reloaded.generation));
    for route in &reloaded.routes {
        line(format!("  route {}: {}", route.route, route.change));
    }
    if !reloaded.settings.is_empty() {
        line(format!("  changed: {}", reloaded.settings.join(", ")));
    }
    if reloaded.routes.is_empty() && reloaded.settings.is_empty() {
        line("  nothing has changed".to_owned());
    }
    for leaving in &reloaded.draining {
        line(format!("  asked to go: {}", sessions(leaving)));
    }
    for waiting in &reloaded.waiting {
        line(format!("  {waiting}"));
    }
    text
}

fn drained_text(drained: &Drained) -> String {
    let says = match (drained.drained, drained.keep) {
        (false, _) => "takes sessions again",
        (true, true) => "takes no new sessions",
        (true, false) => "takes no new sessions, and asks those to go that it has",
    };
    let mut text = String::new();
    let mut line = |line: String| text.push_str(&printed(&line));
    for place in &drained.places {
        line(format!("{says}: {}", sessions(place)));
    }
    for place in &drained.withheld {
        let why = match place.upstream {
            Some(_) => "its route is drained",
            None => "all of its upstreams are drained",
        };
        line(format!("takes no new sessions yet, as {why}: {}", sessions(place)));
    }
    text
}

fn sessions(Leaving { route, upstream, sessions }: &Leaving) -> String {
    let of = upstream.as_ref().map_or_else(|| route.clone(), |upstream| format!("{upstream} of {route}"));
    let s = if *sessions == 1 { "" } else { "s" };
    format!("{of} ({sessions} session{s})")
}
