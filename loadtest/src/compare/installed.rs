//! Which servers are here, and in what version.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use super::{
    measure::{Bench, read_end},
    process::{Folder, Launch, Process, find_program},
    ready::STARTING,
    show::plain,
    suite::Server,
    template::{Unknown, expand},
};

/// The longest that a server may take to tell its version.
const VERSION: Duration = Duration::from_secs(5);

impl Bench<'_> {
    /// Why a server cannot be compared here, or its version.
    ///
    /// # Errors
    /// What is missing.
    pub(crate) fn look_at(&self, server: &Server) -> Result<Option<String>, String> {
        let mut names = self.suite.names.clone();
        names.extend(["port", "upstream_port", "dir"].map(|name| (name.to_owned(), String::new())));
        let text = |text: &String| expand(text, &names, Unknown::Keep).unwrap_or_default();
        for file in server.requires.iter().map(text) {
            if !Path::new(&file).exists() {
                return Err(format!("{file} is not there"));
            }
        }
        let program = server.command.first().map(text).unwrap_or_default();
        if find_program(&program).is_none() {
            return Err(format!("{program} is not installed"));
        }
        let words: Vec<String> = server.version.iter().map(text).collect();
        if words.is_empty() {
            return Ok(None);
        }
        let environment =
            server.environment.iter().map(|(name, value)| (name.clone(), text(value))).collect();
        Ok(self
            .version(&words, &environment)
            .unwrap_or_else(|error| Some(format!("version not known: {error}"))))
    }

    fn version(
        &self,
        words: &[String],
        environment: &BTreeMap<String, String>,
    ) -> io::Result<Option<String>> {
        let folder = Folder::new()?;
        let path = folder.path().join("version");
        let file = File::create(&path)?;
        let launch = Launch {
            words,
            environment,
            folder: folder.path(),
            stdout: file.try_clone()?,
            stderr: file,
            pins: &self.suite.pins.server,
        };
        let mut process = Process::start(launch, &self.affinity, &self.suite.pins.generator)?;
        let began = Instant::now();
        while process.ended().is_none() && began.elapsed() < VERSION && self.interrupts.first().is_none() {
            thread::sleep(STARTING);
        }
        process.stop(self.interrupts);
        let text = read_end(&path)?;
        Ok(text.lines().map(str::trim).find(|line| !line.is_empty()).map(plain))
    }
}
