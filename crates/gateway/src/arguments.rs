//! The command line. A flag beats its environment variable, which beats the file, which beats the default.

use std::{
    env,
    path::{Path, PathBuf},
};

use clap::{
    Arg, ArgGroup, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum, builder::Resettable,
    error::ErrorKind,
};
use tidegate_config::{
    Bind, Config, DEFAULT_BACKLOG, IoChoice, Listener, MAX_LISTENERS, MAX_SHARDS, Problem,
};

/// A WebSocket edge gateway on io_uring.
///
/// Without arguments it runs an echo and topics on 127.0.0.1:9001, with pages to try them from a browser.
#[derive(Debug, Parser)]
#[command(
    name = "tidegate",
    version,
    args_conflicts_with_subcommands = true,
    after_help = "Exit codes: 0; 1 a fault at run time; 2 usage; 78 a bad configuration."
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArguments,
    /// Check the configuration and end: as `tidegate check`
    #[arg(short = 't', long)]
    test: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the gateway (also without any command)
    Run(RunArguments),
    /// Find every mistake in a configuration file; binds nothing
    Check(CheckArguments),
    /// Show kernel, io_uring, limits, and what they allow
    Doctor(ConfigArguments),
    /// List the sessions of a running gateway, or end some of them
    Sessions(SessionsArguments),
    /// Show what a running gateway does
    Status(AdminArguments),
    /// Have a running gateway read its configuration again, and show what has changed or what is wrong
    Reload(AdminArguments),
    /// Have a route or an upstream of a running gateway take no new sessions, and ask those that it has to go
    Drain(DrainArguments),
    /// Print what lets a shell complete this program's arguments
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the man pages of this program into a folder
    Man {
        /// The folder, such as /usr/local/share/man/man1
        folder: PathBuf,
    },
}

#[derive(Args, Clone, Debug)]
pub(crate) struct RunArguments {
    #[command(flatten)]
    pub(crate) config: ConfigArguments,
    #[command(flatten)]
    pub(crate) log: LogArguments,
}

/// A file, and what is put over it.
#[derive(Args, Clone, Debug)]
pub(crate) struct ConfigArguments {
    /// Configuration file [default: an echo and topics on 127.0.0.1:9001]
    #[arg(short, long, value_name = "FILE", env = "TIDEGATE_CONFIG")]
    config: Option<PathBuf>,
    /// How to talk to the kernel [default: the file's, else auto]
    #[arg(long, value_name = "BACKEND", env = "TIDEGATE_IO")]
    io: Option<Io>,
    /// How many shards [default: the file's, else one for each core]
    #[arg(long, value_name = "N", env = "TIDEGATE_SHARDS", value_parser = shards)]
    shards: Option<usize>,
    /// Where to listen, instead of the file's listeners: `0.0.0.0:8080`, `[::]:8080` or `unix:/path`; repeatable
    #[arg(long, value_name = "ADDRESS", env = "TIDEGATE_BIND", value_delimiter = ',', value_parser = Bind::parse)]
    bind: Vec<Bind>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct LogArguments {
    /// How to write logs [default: the file's, else text on a terminal and json elsewhere]
    #[arg(long = "log", value_name = "FORMAT", env = "TIDEGATE_LOG")]
    pub(crate) format: Option<LogFormat>,
    /// How much to write [default: the file's, else info]
    #[arg(long = "log-level", value_name = "LEVEL", env = "TIDEGATE_LOG_LEVEL")]
    pub(crate) level: Option<LogLevel>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct CheckArguments {
    /// Configuration file
    #[arg(short, long, value_name = "FILE", env = "TIDEGATE_CONFIG")]
    pub(crate) config: PathBuf,
}

/// Which running gateway is asked.
#[derive(Args, Clone, Debug)]
pub(crate) struct AdminArguments {
    /// Its admin listener [default: the file's, else unix:/run/tidegate/admin.sock]
    #[arg(long, value_name = "ADDRESS", env = "TIDEGATE_ADMIN", value_parser = Bind::parse)]
    pub(crate) admin: Option<Bind>,
    /// Its configuration file, whose `[admin]` says where and with which token to ask
    #[arg(short, long, value_name = "FILE", env = "TIDEGATE_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// The file of the admin listener's token
    #[arg(long, value_name = "FILE", env = "TIDEGATE_TOKEN_FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Write what the gateway answers, as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct SessionsArguments {
    #[command(subcommand)]
    pub(crate) command: SessionsCommand,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum SessionsCommand {
    /// List sessions
    List(ListArguments),
    /// End sessions: by id, or those of a route, upstream, address or user
    Kill(KillArguments),
}

/// Sessions of a route, upstream, address or user.
#[derive(Args, Clone, Debug)]
pub(crate) struct WhichArguments {
    /// Those of this route: its host and path, as `tidegate status` shows them
    #[arg(long, value_name = "ROUTE")]
    pub(crate) route: Option<String>,
    /// Those of this upstream, as `tidegate status` shows it, of whichever route
    #[arg(long, value_name = "UPSTREAM")]
    pub(crate) upstream: Option<String>,
    /// Those from this address or network, like 192.0.2.7 or 10.0.0.0/8
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) address: Option<String>,
    /// Those of this user, as their tokens name it
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Option<String>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct ListArguments {
    #[command(flatten)]
    pub(crate) gateway: AdminArguments,
    #[command(flatten)]
    pub(crate) which: WhichArguments,
    /// Those that are so far: handshake, deciding, waiting, open, request or closing
    #[arg(long, value_name = "STATE")]
    pub(crate) state: Option<String>,
    /// Most sessions to list
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) limit: usize,
}

#[derive(Args, Clone, Debug)]
#[command(group = ArgGroup::new("whose").args(["ids", "route", "upstream", "address", "user"]).required(true).multiple(true))]
pub(crate) struct KillArguments {
    #[command(flatten)]
    pub(crate) gateway: AdminArguments,
    #[command(flatten)]
    pub(crate) which: WhichArguments,
    /// Their ids, as `tidegate sessions list` shows them; without any, one of --route, --upstream, --address and --user is needed
    #[arg(value_name = "ID", conflicts_with_all = ["route", "upstream", "address", "user"])]
    pub(crate) ids: Vec<String>,
    /// The code of their Close [default: 1001]
    #[arg(long, value_name = "CODE")]
    pub(crate) code: Option<u16>,
    /// How many are ended in a second [default: 200]
    #[arg(long, value_name = "N")]
    pub(crate) per_second: Option<u32>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct DrainArguments {
    #[command(flatten)]
    pub(crate) gateway: AdminArguments,
    /// The route or upstream, as `tidegate status` shows it
    #[arg(value_name = "ROUTE|UPSTREAM")]
    pub(crate) what: String,
    /// Ask nobody to go: sessions stay until they end by themselves
    #[arg(long)]
    pub(crate) keep: bool,
    /// Take sessions again; those that were not asked to go yet stay
    #[arg(long, conflicts_with = "keep")]
    pub(crate) undo: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Io {
    /// io_uring where it works, else epoll
    Auto,
    /// io_uring or not at all
    Uring,
    /// epoll
    Epoll,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people
    Text,
    /// One object a line
    Json,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl From<tidegate_config::LogFormat> for LogFormat {
    fn from(format: tidegate_config::LogFormat) -> Self {
        match format {
            tidegate_config::LogFormat::Text => Self::Text,
            tidegate_config::LogFormat::Json => Self::Json,
        }
    }
}

impl From<tidegate_config::LogLevel> for LogLevel {
    fn from(level: tidegate_config::LogLevel) -> Self {
        match level {
            tidegate_config::LogLevel::Error => Self::Error,
            tidegate_config::LogLevel::Warn => Self::Warn,
            tidegate_config::LogLevel::Info => Self::Info,
            tidegate_config::LogLevel::Debug => Self::Debug,
            tidegate_config::LogLevel::Trace => Self::Trace,
        }
    }
}

/// Why there is no configuration to run.
#[derive(Debug)]
pub(crate) enum NoConfig {
    /// The file has these problems.
    Invalid(Vec<Problem>),
    /// The arguments contradict the file or each other.
    Usage(clap::Error),
}

impl Arguments {
    /// Those of this process.
    ///
    /// # Errors
    /// Where they are not known, or ask for help.
    pub(crate) fn read() -> Result<Self, clap::Error> {
        Self::from_arg_matches(&without_empty_variables(Self::definition()).try_get_matches()?)
    }

    /// What to do.
    ///
    /// # Errors
    /// A usage error that clap cannot see by itself.
    pub(crate) fn command(self) -> Result<Command, clap::Error> {
        match (self.command, self.test) {
            (Some(command), _) => Ok(command),
            (None, false) => Ok(Command::Run(self.run)),
            (None, true) => match self.run.config.config {
                Some(config) => Ok(Command::Check(CheckArguments { config })),
                None => Err(usage("-t needs a configuration file: -c FILE")),
            },
        }
    }
}

impl ConfigArguments {
    /// The file's configuration, or the embedded one, with what the flags and the environment put over it.
    pub(crate) fn config(&self) -> Result<Config, NoConfig> {
        let mut config = match &self.config {
            Some(path) => tidegate_config::load(path).map_err(NoConfig::Invalid)?,
            None if self.bind.iter().all(Bind::is_local) => tidegate_config::embedded(),
            None => tidegate_config::embedded_for_others(),
        };
        self.apply(&mut config).map_err(|message| NoConfig::Usage(usage(&message)))?;
        Ok(config)
    }

    /// The file to read, where there is one.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    fn apply(&self, config: &mut Config) -> Result<(), String> {
        if let Some(io) = self.io {
            config.io = match io {
                Io::Auto => IoChoice::Auto,
                Io::Uring => IoChoice::Uring,
                Io::Epoll => IoChoice::Epoll,
            };
        }
        if let Some(shards) = self.shards {
            if let Some(most) = config.limits.max_sessions.filter(|most| *most < shards) {
                return Err(format!(
                    "--shards {shards}: each shard needs a session, and max_sessions is {most}"
                ));
            }
            config.shards = Some(shards);
        }
        if self.bind.len() > MAX_LISTENERS {
            return Err(format!("--bind: more than {MAX_LISTENERS} listeners"));
        }
        for (index, bind) in self.bind.iter().enumerate() {
            if let Some(earlier) = self.bind[..index].iter().find(|earlier| earlier.overlaps(bind)) {
                return Err(format!("--bind {bind} overlaps with --bind {earlier}"));
            }
        }
        if !self.bind.is_empty() {
            let listener = |bind: &Bind| Listener {
                bind: bind.clone(),
                backlog: DEFAULT_BACKLOG,
                tls: None,
                proxy_protocol: Vec::new(),
                https_redirect: None,
                socket: None,
            };
            config.listeners = self.bind.iter().map(listener).collect();
        }
        Ok(())
    }
}

/// A variable that is empty counts as one that is not set.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    let heed = |arg: Arg| match arg.get_env().and_then(env::var_os) {
        Some(value) if value.is_empty() => arg.env(Resettable::Reset),
        _ => arg,
    };
    command.mut_args(heed).mut_subcommands(without_empty_variables)
}

fn shards(text: &str) -> Result<usize, String> {
    let shards = text.parse::<usize>().ok().filter(|shards| (1..=MAX_SHARDS).contains(shards));
    shards.ok_or_else(|| format!("not a number of shards: 1 to {MAX_SHARDS}"))
}

/// An error like clap's own.
fn usage(message: &str) -> clap::Error {
    Arguments::definition().error(ErrorKind::ValueValidation, message)
}

impl Arguments {
    /// What clap knows of this program.
    pub(crate) fn definition() -> clap::Command {
        <Self as CommandFactory>::command()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Arguments::definition().debug_assert();
    }

    fn run(arguments: &[&str]) -> ConfigArguments {
        let parsed = Arguments::try_parse_from([&["tidegate"], arguments].concat()).unwrap();
        match parsed.command().unwrap() {
            Command::Run(run) => run.config,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flags_beat_the_file() {
        let config =
            run(&["run", "--io", "epoll", "--shards", "2", "--bind", "[::1]:0", "--bind", "unix:/a"])
                .config();
        let config = config.unwrap();
        assert_eq!((config.io, config.shards), (IoChoice::Epoll, Some(2)));
        let binds: Vec<String> = config.listeners.iter().map(|listener| listener.bind.to_string()).collect();
        assert_eq!(binds, ["[::1]:0", "unix:/a"]);
        assert_eq!(config.routes, tidegate_config::embedded().routes);
    }

    #[test]
    fn without_a_file_topics_are_for_this_machine_alone() {
        let routes = |bind: &str| -> Vec<String> {
            let config = run(&["--bind", bind]).config().unwrap();
            assert_eq!(config.warnings.len(), usize::from(config.routes.len() < 5), "{bind}");
            config.routes.iter().map(|route| route.path.to_string()).collect()
        };
        for local in ["127.0.0.1:0", "127.8.8.8:0", "[::1]:0", "unix:/a"] {
            assert_eq!(routes(local).len(), tidegate_config::embedded().routes.len(), "{local}");
        }
        for open in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "127.0.0.1:0,0.0.0.0:1"] {
            assert_eq!(routes(open), ["/", "/echo"], "{open}");
        }
    }

    #[test]
    fn without_a_command_it_runs() {
        assert_eq!(run(&["--bind", "127.0.0.1:1,127.0.0.1:2"]).config().unwrap().listeners.len(), 2);
        assert_eq!(run(&[]).config().unwrap(), tidegate_config::embedded());
    }

    #[test]
    fn what_contradicts_is_a_matter_of_usage() {
        for (arguments, message) in [
            (&["--bind", "0.0.0.0:80", "--bind", "127.0.0.1:80"][..], "overlaps with --bind 0.0.0.0:80"),
            (&["--bind", "unix:/a", "--bind", "unix:/a"], "overlaps"),
        ] {
            let Err(NoConfig::Usage(error)) = run(arguments).config() else { panic!("{arguments:?}") };
            assert!(error.to_string().contains(message), "{error}");
        }
        for arguments in [
            &["--shards", "0"][..],
            &["--shards", "1025"],
            &["--io", "ring"],
            &["--bind", "localhost"],
            &["--log", "xml"],
            &["check"],
            &["-c", ""],
            &["run", "-t"],
            &["serve"],
            &["-t", "check", "-c", "x"],
        ] {
            assert!(Arguments::try_parse_from([&["tidegate"], arguments].concat()).is_err(), "{arguments:?}");
        }
        let test = Arguments::try_parse_from(["tidegate", "-t"]).unwrap();
        assert!(test.command().unwrap_err().to_string().contains("-c FILE"));
    }
}
