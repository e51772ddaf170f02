//! A gateway with its admin listener, asked over that and by the command line.

use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;
use tidegate_config::Bind;
use tidegate_control::client::{Answer, Client as Asker};

use super::gateway::{Gateway, binary, config_file, run_to_end};

/// A gateway with its admin listener at a socket in a folder of its own.
pub(crate) struct Scene {
    pub(crate) gateway: Gateway,
    pub(crate) folder: TempDir,
    io: &'static str,
    config: String,
}

pub(crate) const ROUTES: &str =
    "[[route]]\npath = '/echo'\necho = {}\n[[route]]\nhost = 'gw.test'\npath = '/other/*'\necho = {}\n";

impl Scene {
    pub(crate) fn start(io: &'static str) -> Scene {
        Scene::with(io, "", ROUTES)
    }

    pub(crate) fn with(io: &'static str, settings: &str, routes: &str) -> Scene {
        Scene::on(io, 2, settings, routes)
    }

    /// The same on so many shards.
    pub(crate) fn on(io: &'static str, shards: usize, settings: &str, routes: &str) -> Scene {
        let shards = shards.to_string();
        Scene::started(io, settings, routes, |config| {
            Gateway::start_with(config, &["--io", io, "--shards", &shards])
        })
    }

    /// On one shard, with so many descriptors at most; some of them are taken from the beginning, and never given back.
    pub(crate) fn scarce(io: &'static str, most: u64, taken: usize, settings: &str, routes: &str) -> Scene {
        use rustix::fs::{Mode, OFlags, open};
        Scene::started(io, settings, routes, |config| {
            let file = config_file(config);
            let mut command = Command::new("prlimit");
            command
                .arg(format!("--nofile={most}:{most}"))
                .arg(binary())
                .arg("run")
                .arg("-c")
                .arg(file.path());
            command.args(["--log", "json", "--io", io, "--shards", "1"]);
            // What is not closed when a program is executed is the new one's, too.
            let open = |_| open("/dev/null", OFlags::RDONLY, Mode::empty()).expect("a descriptor");
            let _taken: Vec<_> = (0..taken).map(open).collect();
            Gateway::spawn(command, 1, Some(file))
        })
    }

    fn started(io: &'static str, settings: &str, routes: &str, start: impl FnOnce(&str) -> Gateway) -> Scene {
        let folder = TempDir::new().expect("a folder");
        let socket = folder.path().join("admin.sock");
        let config = format!(
            "version = 1\n{settings}\n[[listener]]\nbind = '127.0.0.1:0'\n[admin]\nbind = 'unix:{}'\n{routes}",
            socket.display()
        );
        let gateway = start(&config);
        Scene { gateway, folder, io, config }
    }

    /// The file that it was started with.
    pub(crate) fn config(&self) -> &str {
        &self.config
    }

    pub(crate) fn socket(&self) -> String {
        self.folder.path().join("admin.sock").display().to_string()
    }

    pub(crate) fn asker(&self) -> Asker {
        Asker { bind: Bind::Unix(self.folder.path().join("admin.sock")), token: None }
    }

    pub(crate) fn get(&self, path: &str) -> Value {
        self.asker().get(path, &[]).unwrap_or_else(|failure| panic!("{} {path}: {failure}", self.io))
    }

    pub(crate) fn status_of(&self, path: &str) -> u16 {
        self.ask("GET", path).status
    }

    pub(crate) fn ask(&self, method: &str, path: &str) -> Answer {
        self.asker().ask(method, path, None).unwrap_or_else(|failure| panic!("{} {path}: {failure}", self.io))
    }

    pub(crate) fn sessions(&self, query: &[(&str, &str)]) -> Vec<Value> {
        let page: Value = self.asker().get("/sessions", query).expect("sessions");
        page["sessions"].as_array().expect("a list").clone()
    }

    pub(crate) fn metrics(&self) -> Metrics {
        Metrics::parse(&String::from_utf8(self.ask("GET", "/metrics").body).expect("text"))
    }

    /// Runs the command line against it.
    pub(crate) fn run(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let admin = format!("unix:{}", self.socket());
        run_to_end(&[arguments, &["--admin", &admin]].concat())
    }
}

/// Metrics in the text format, parsed strictly.
pub(crate) struct Metrics {
    samples: Vec<(String, f64)>,
}

impl Metrics {
    /// Each family is described once, before its samples, which stand together; no sample comes twice.
    pub(crate) fn parse(text: &str) -> Metrics {
        let mut samples = Vec::<(String, f64)>::new();
        let mut described = Vec::<(String, String)>::new();
        let mut helped = None;
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, words) = help.split_once(' ').expect("a name and words");
                assert!(words.ends_with('.'), "{line}");
                helped = Some(name.to_owned());
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').expect("a name and a kind");
                assert_eq!(helped.take().as_deref(), Some(name), "HELP before TYPE");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert!(described.iter().all(|(other, _)| other != name), "{name} is described twice");
                described.push((name.to_owned(), kind.to_owned()));
            } else {
                let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line:?}"));
                let (family, kind) = described.last().expect("described before its samples");
                let bare = name.split('{').next().expect("a name");
                let endings: &[&str] =
                    if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
                assert!(
                    endings.iter().any(|ending| bare == format!("{family}{ending}")),
                    "{line} in {family}"
                );
                assert_eq!(kind == "counter", bare.ends_with("_total"), "{line}");
                assert!(samples.iter().all(|(other, _)| other != name), "{name} comes twice");
                samples.push((name.to_owned(), value.parse().unwrap_or_else(|_| panic!("{line}"))));
            }
        }
        assert!(samples.len() > 50, "{} samples", samples.len());
        Metrics { samples }
    }

    pub(crate) fn find(&self, name: &str) -> Option<f64> {
        self.samples.iter().find(|(own, _)| own == name).map(|(_, value)| *value)
    }

    pub(crate) fn value(&self, name: &str) -> f64 {
        self.find(name).unwrap_or_else(|| panic!("no {name} in {:#?}", self.samples))
    }
}
