//! `tidegate check`: every mistake of a file at once, and nothing bound or started.

use std::time::SystemTime;

use tidegate_config::printable;

use crate::{Outcome, arguments::CheckArguments, logs, output::show, paths, secure};

/// Problems and warnings go to standard error; what is valid is said on standard output.
pub(crate) fn check(arguments: &CheckArguments) -> Outcome {
    let file = printable(&arguments.config.display().to_string());
    let loaded = tidegate_config::load(&arguments.config).and_then(|mut config| {
        let secured = secure::secure(&mut config, None, SystemTime::now());
        let mut problems = secured.err().unwrap_or_default();
        problems.extend(paths::problems(&mut config, Some(&arguments.config), None));
        problems.sort_by_key(|problem| (problem.line, problem.column));
        if problems.is_empty() { Ok(config) } else { Err(problems) }
    });
    match loaded {
        Ok(config) => {
            logs::print_warnings(&config.warnings);
            let count =
                |number: usize, what: &str| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
            let (listeners, routes) = (config.listeners.len(), config.routes.len());
            let counts = format!("{}, {}", count(listeners, "listener"), count(routes, "route"));
            show(&format!("{file} is valid: {counts}\n"))
        }
        Err(problems) => {
            logs::print_problems(&problems);
            Outcome::BadConfig
        }
    }
}
