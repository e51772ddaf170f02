//! What this runs on.

use std::fs;

/// Kernel and processors.
pub(crate) fn machine() -> String {
    let uname = rustix::system::uname();
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let model = model.map(|(_, model)| model.trim()).unwrap_or_default();
    let cores = text.lines().filter(|line| line.starts_with("processor")).count();
    let system = format!("{} {}", uname.sysname().to_string_lossy(), uname.release().to_string_lossy());
    format!("{system}, {cores} processors, {} {model}", uname.machine().to_string_lossy())
        .trim_end()
        .to_owned()
}
