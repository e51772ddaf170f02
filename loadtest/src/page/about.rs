//! What a page tells besides the results: how the run was asked for, when, and on what machine.

use std::{env, time::SystemTime};

use crate::machine::machine;

/// Fields of the upgrade request whose values are nobody else's business: a page is made to be passed on.
const SECRET: [&str; 4] = ["authorization", "cookie", "proxy-authorization", "x-api-key"];

/// How, when and where.
#[derive(Clone, Debug, Default)]
pub(crate) struct About {
    /// The command line as given, but for secrets.
    pub(crate) command: String,
    /// When the run ended.
    pub(crate) ended: String,
    /// Kernel and processors.
    pub(crate) machine: String,
}

impl About {
    /// This process, now.
    pub(crate) fn now() -> Self {
        let arguments: Vec<String> =
            env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect();
        Self {
            command: command(&arguments),
            ended: httpdate::fmt_http_date(SystemTime::now()),
            machine: machine(),
        }
    }
}

/// The arguments as a shell takes them.
fn command(arguments: &[String]) -> String {
    let mut words = Vec::with_capacity(arguments.len());
    let mut is_header = false;
    for (place, argument) in arguments.iter().enumerate() {
        let name = argument.rsplit('/').next().unwrap_or(argument);
        let (flag, value) = match argument {
            _ if is_header => ("", &**argument),
            argument => {
                match ["--header=", "-H"].iter().find_map(|flag| Some((*flag, argument.strip_prefix(flag)?)))
                {
                    Some((flag, value)) if !value.is_empty() => (flag, value),
                    Some(_) | None => ("", ""),
                }
            }
        };
        words.push(match place {
            // Where it lies on some machine says nothing.
            0 => quote(name),
            _ if value.is_empty() => quote(argument),
            _ => quote(&format!("{flag}{}", without_secret(value))),
        });
        is_header = !is_header && ["-H", "--header"].contains(&&**argument);
    }
    words.join(" ")
}

fn without_secret(field: &str) -> String {
    match field.split_once(':') {
        Some((name, _))
            if SECRET.contains(&name.trim().trim_start_matches('=').to_ascii_lowercase().as_str()) =>
        {
            format!("{name}: (left out)")
        }
        Some(_) | None => field.to_owned(),
    }
}

fn quote(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(arguments: &[&str]) -> String {
        command(&arguments.iter().map(|argument| (*argument).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn the_command_can_be_given_to_a_shell_again() {
        let given =
            ["/opt/x/tidegate-loadtest", "echo", "ws://h/?a=1&b", "--assert", "p99<5ms", "-H", "A: it's", ""];
        assert_eq!(
            line(&given),
            r"tidegate-loadtest echo 'ws://h/?a=1&b' --assert 'p99<5ms' -H 'A: it'\''s' ''"
        );
    }

    #[test]
    fn secrets_stay_at_home() {
        for given in [
            &["-H", "Authorization: Bearer hunter2"][..],
            &["-Hcookie: hunter2"],
            &["-H=Cookie: hunter2"],
            &["--header", "COOKIE:hunter2"],
            &["--header=Proxy-Authorization: hunter2"],
            &["-H", "A: b", "-H", "cookie: hunter2"],
        ] {
            let shown = line(&[&["t", "echo"], given].concat());
            assert!(!shown.contains("hunter2") && shown.contains("(left out)"), "{shown}");
        }
        assert!(line(&["t", "-H", "X-A: hunter2"]).contains("X-A: hunter2"));
    }
}
