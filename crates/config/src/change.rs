//! What a running gateway takes over of another configuration, and what only a restart can change.

use crate::{Action, Admin, Config, IoChoice};

/// What a running gateway goes on with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Succession {
    /// The new configuration, with the values of before where only a restart can change them.
    pub config: Config,
    /// Keys whose new values wait for a restart, each told in a sentence.
    pub waiting: Vec<String>,
}

impl Config {
    /// `new` in the place of this one, while sessions go on.
    ///
    /// What is reserved at the start and can stay as it is, stays, and is told: a certificate's renewal should not fail for it. What
    /// would leave the gateway somewhere else than the file says (its listeners, its threads) is refused.
    ///
    /// # Errors
    /// What cannot change without a restart, each told in a sentence.
    pub fn succeeded_by(&self, new: Config) -> Result<Succession, Vec<String>> {
        let mut refused = Vec::new();
        let mut refuse = |key: &str, old: &str, new: &str| {
            if old != new {
                refused.push(format!(
                    "{key} cannot change without a restart: it is {old}, and the file says {new}"
                ));
            }
        };
        let shards =
            |config: &Config| config.shards.map_or("one per core".to_owned(), |count| count.to_string());
        refuse("shards", &shards(self), &shards(&new));
        refuse("io", io(self.io), io(new.io));
        let count = |config: &Config| config.listeners.len().to_string();
        refuse("the number of [[listener]]", &count(self), &count(&new));
        for (old, new) in self.listeners.iter().zip(&new.listeners) {
            refuse("[[listener]] bind", &old.bind.to_string(), &new.bind.to_string());
            let tls = |speaks: bool| if speaks { "there" } else { "not there" };
            let key = format!("tls of the listener on {}", old.bind);
            refuse(&key, tls(old.tls.is_some()), tls(new.tls.is_some()));
        }
        if !refused.is_empty() {
            return Err(refused);
        }
        let mut config = new;
        let mut waiting = Vec::new();
        let mut wait =
            |key: &str| waiting.push(format!("{key} has changed: the new value waits for a restart"));
        let (kept, limits) = (&self.limits, &mut config.limits);
        keep(&kept.max_sessions, &mut limits.max_sessions, || wait("max_sessions"));
        keep(&kept.receive_buffers, &mut limits.receive_buffers, || wait("receive_buffers"));
        keep(&kept.inflaters, &mut limits.inflaters, || wait("inflaters"));
        keep(&kept.deflaters, &mut limits.deflaters, || wait("deflaters"));
        keep(&kept.takeover_bytes, &mut limits.takeover_bytes, || wait("takeover_bytes"));
        keep(&kept.compression_level, &mut limits.compression_level, || wait("compression_level"));
        if !is_other_token(self.admin.as_ref(), config.admin.as_ref()) {
            keep(&self.admin, &mut config.admin, || wait("[admin]"));
        }
        keep(&self.log, &mut config.log, || wait("[log]"));
        for (old, new) in self.listeners.iter().zip(&mut config.listeners) {
            keep(&old.backlog, &mut new.backlog, || {
                wait(&format!("backlog of the listener on {}", old.bind));
            });
        }
        let is_proxied =
            |config: &Config| config.routes.iter().any(|route| matches!(route.action, Action::Proxy(_)));
        if is_proxied(&config) && !is_proxied(self) {
            waiting.push(
                "there was no proxied route before: until a restart the upstream legs of sessions count in max_sessions".to_owned(),
            );
        }
        Ok(Succession { config, waiting })
    }
}

impl Config {
    /// The sections in which another configuration is different, routes left out: each as the file has it.
    #[must_use]
    pub fn differences(&self, other: &Config) -> Vec<String> {
        let tls = |config: &Config| config.listeners.iter().map(|one| one.tls.clone()).collect::<Vec<_>>();
        let proxy_protocol = |config: &Config| {
            config.listeners.iter().map(|one| one.proxy_protocol.clone()).collect::<Vec<_>>()
        };
        let redirects = |config: &Config| {
            config.listeners.iter().map(|one| one.https_redirect.clone()).collect::<Vec<_>>()
        };
        let token = |config: &Config| config.admin.as_ref().and_then(|admin| admin.token.clone());
        let sections = [
            ("[limits]", self.limits != other.limits),
            ("[drain]", self.drain != other.drain),
            ("[listener.tls]", tls(self) != tls(other)),
            ("[[listener]] proxy_protocol", proxy_protocol(self) != proxy_protocol(other)),
            ("[[listener]] https_redirect", redirects(self) != redirects(other)),
            ("[topics] and [[topic]]", self.topics != other.topics),
            ("[[identity]]", self.identities != other.identities),
            ("trusted", self.trusted != other.trusted),
            ("[admin] token_file", token(self) != token(other)),
        ];
        sections.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name.to_owned()).collect()
    }
}

/// Whether there is another token and nothing else: it is only compared with, so it needs no other listener.
fn is_other_token(old: Option<&Admin>, new: Option<&Admin>) -> bool {
    let (Some(old), Some(new)) = (old, new) else { return false };
    old.token.is_some() && new.token.is_some() && Admin { token: new.token.clone(), ..old.clone() } == *new
}

/// Puts the value of before into the new one's place, and tells where they differ.
fn keep<T: Clone + PartialEq>(old: &T, new: &mut T, differs: impl FnOnce()) {
    if old != new {
        new.clone_from(old);
        differs();
    }
}

fn io(choice: IoChoice) -> &'static str {
    match choice {
        IoChoice::Auto => "auto",
        IoChoice::Uring => "uring",
        IoChoice::Epoll => "epoll",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;

    fn config(top: &str, limits: &str, listener: &str) -> Config {
        let text = format!(
            "version = 1\n{top}\n[limits]\n{limits}\n[[listener]]\n{listener}\n[[route]]\npath = '/'\necho = {{}}\n"
        );
        parse(&text, "t.toml").unwrap_or_else(|problems| panic!("{text}\n{problems:#?}"))
    }

    const BIND: &str = "bind = '127.0.0.1:1'";

    #[test]
    fn what_only_a_restart_can_change_is_named() {
        let old = config("", "", BIND);
        let two = format!("{BIND}\n[[listener]]\nbind = '127.0.0.1:2'");
        let sealed = format!("{BIND}\ntls = {{ certificate_file = '/c', key_file = '/k' }}");
        for (top, listener, key) in [
            ("shards = 3", BIND, "shards "),
            ("io = 'epoll'", BIND, "io "),
            ("", "bind = '127.0.0.1:3'", "[[listener]] bind "),
            ("", &two, "the number of [[listener]] "),
            ("", &sealed, "tls of the listener on 127.0.0.1:1 "),
        ] {
            let refused = old.succeeded_by(config(top, "", listener)).unwrap_err();
            assert_eq!(refused.len(), 1, "{refused:?}");
            assert!(refused[0].starts_with(key), "{refused:?}");
        }
    }

    #[test]
    fn what_was_reserved_stays_until_a_restart() {
        let old = config("", "", BIND);
        let new = config("", "max_sessions = 7\nmessage_bytes = 9", &format!("{BIND}\nbacklog = 9"));
        let Succession { config, waiting } = old.succeeded_by(new).unwrap();
        assert_eq!((config.limits.max_sessions, config.limits.message_bytes), (None, 9));
        assert_eq!(config.listeners[0].backlog, old.listeners[0].backlog);
        assert_eq!(waiting.len(), 2);
        assert!(waiting[0].starts_with("max_sessions ") && waiting[1].starts_with("backlog "), "{waiting:?}");
        let same = old.succeeded_by(old.clone()).unwrap();
        assert_eq!((same.config, same.waiting), (old, Vec::new()));
    }

    #[test]
    fn another_token_waits_for_nothing_unless_something_else_of_its_section_does() {
        let with = |admin: &str| config("", "", &format!("{BIND}\n[admin]\n{admin}"));
        let old = with("token_file = '/a'");
        let new = with("token_file = '/b'");
        assert_eq!(old.succeeded_by(new.clone()), Ok(Succession { config: new, waiting: Vec::new() }));
        for other in ["", "token_file = '/b'\nbind = 'unix:/c'", "token_file = '/b'\nallow_uids = [1]"] {
            let succession = old.succeeded_by(with(other)).unwrap();
            assert_eq!(succession.config.admin, old.admin, "{other}");
            assert_eq!(succession.waiting.len(), 1, "{succession:?}");
            assert!(succession.waiting[0].starts_with("[admin] "), "{succession:?}");
        }
        // Whether one is wanted at all, on the other hand, waits.
        assert_eq!(with("").succeeded_by(old).unwrap().config, with(""));
    }

    #[test]
    fn each_section_that_differs_is_named() {
        let old = config("", "", BIND);
        let new = |top: &str, limits: &str, more: &str| config(top, limits, &format!("{BIND}\n{more}"));
        for (new, name) in [
            (new("", "message_bytes = 9", ""), "[limits]"),
            (new("", "", "[drain]\nwindow = '1s'"), "[drain]"),
            (new("", "", "tls = { certificate_file = '/c', key_file = '/k' }"), "[listener.tls]"),
            (new("", "", "proxy_protocol = ['10.0.0.0/8']"), "[[listener]] proxy_protocol"),
            (new("", "", "https_redirect = { hosts = ['a.test'] }"), "[[listener]] https_redirect"),
            (new("", "", "[topics]\nmemory = '128MiB'"), "[topics] and [[topic]]"),
            (new("", "", "[[topic]]\nname = 'a'"), "[topics] and [[topic]]"),
            (new("", "", "[[identity]]\nname = 'i'\nhook = { url = 'http://127.0.0.1/' }"), "[[identity]]"),
            (new("trusted = ['10.0.0.0/8']", "", ""), "trusted"),
            (new("", "", "[admin]\ntoken_file = '/a'"), "[admin] token_file"),
        ] {
            assert_eq!(new.differences(&old), [name]);
            assert_eq!(old.differences(&new), [name]);
        }
        assert_eq!(old.differences(&old), Vec::<String>::new());
    }
}
