//! Listeners that serve nothing: whoever asks is sent to the same target over TLS.

use tidegate_config::{HttpsRedirect, bare_host};
use tidegate_io::Backend;
use tidegate_registry::Key;
use tidegate_wire::http::{self, Refusal, Request, Version};

use crate::{environment::Environment, output::Content, plan::Plan, session::Fact, shard::Shard};

/// HTTP/1.0 has requests without a host, and then there is nothing to send them to.
const NO_HOST: Refusal = Refusal::new(400, "the Host field is missing");

/// RFC 9110 §15.5.20.
const FOREIGN_HOST: Refusal = Refusal::new(421, "this host is not served here");

impl<B: Backend, E: Environment> Shard<B, E> {
    /// Where the listener of a new connection sends all requests, if it does.
    #[inline]
    pub(crate) fn redirect_of<'p>(&self, key: Key, plan: &'p Plan) -> Option<&'p HttpsRedirect> {
        self.registry.get(key).filter(|session| session.marks.facts.has(Fact::Redirects))?;
        // They all redirect alike: a session has no room for its listener's number.
        plan.config().listeners.iter().find_map(|listener| listener.https_redirect.as_ref())
    }

    /// Answers with where to ask instead, and ends the connection: what is behind the head was plain, too.
    ///
    /// # Errors
    /// Where the request's host is none, or not one of those that are served.
    pub(crate) fn redirect(
        &mut self,
        key: Key,
        request: &Request<'_>,
        redirect: &HttpsRedirect,
    ) -> Result<(), Refusal> {
        let (status, location) = location(request, redirect)?;
        let date = http::http_date(self.environment.unix_seconds());
        let fields = [("Date", &*date), ("Location", &*location)];
        let head_only = request.is_head();
        let response =
            http::page_response(status, "text/plain; charset=utf-8", b"", head_only, false, &fields);
        self.counters.redirected += 1;
        let source = self.turn.keep(response, 0);
        self.emit(key, source, Content::Opening);
        self.linger(key);
        Ok(())
    }
}

/// The status, and where the request is sent. Authority and target were checked when the request was parsed: nothing in them
/// could end a line, and the authority is a host alone.
fn location(request: &Request<'_>, redirect: &HttpsRedirect) -> Result<(u16, String), Refusal> {
    let asked = bare_host(request.host);
    if !redirect.hosts.is_empty() && !redirect.hosts.iter().any(|host| host.matches(asked)) {
        return Err(if asked.is_empty() { NO_HOST } else { FOREIGN_HOST });
    }
    let host = match &redirect.host {
        Some(host) => host.as_str(),
        None if request.host_name().is_empty() => return Err(NO_HOST),
        None => request.host_name(),
    };
    // RFC 6455 §4.1: a client may follow, and those that do want a URL for it.
    let scheme = if request.is_upgrade() { "wss" } else { "https" };
    let port = match redirect.port {
        443 => String::new(),
        port => format!(":{port}"),
    };
    // RFC 9110 §15.4.9: the method stays. Clients of HTTP/1.0 do not know that status.
    let status = if request.version == Version::Http10 { 301 } else { 308 };
    Ok((status, format!("{scheme}://{host}{port}{}", request.target)))
}

#[cfg(test)]
mod tests {
    use tidegate_wire::http::HeadLimits;

    use super::*;

    fn sent(head: &str, setting: &str) -> Result<(u16, String), u16> {
        let text = format!(
            "version = 1\n[[listener]]\nbind = '127.0.0.1:0'\nhttps_redirect = {{ {setting} }}\n\
             [[route]]\npath = '/'\necho = {{}}\n"
        );
        let config =
            tidegate_config::parse(&text, "t.toml").unwrap_or_else(|problems| panic!("{problems:?}"));
        let redirect = config.listeners[0].https_redirect.as_ref().expect("it is there");
        let request = Request::parse(head.as_bytes(), &HeadLimits::default(), false);
        request.and_then(|request| location(&request, redirect)).map_err(|refusal| refusal.status)
    }

    fn get(target: &str, host: &str) -> String {
        format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")
    }

    #[test]
    fn the_host_that_was_asked_for_stays_with_another_port() {
        for (host, setting, expected) in [
            ("a.test", "", "https://a.test/x?y=1"),
            ("A.test:8080", "", "https://A.test/x?y=1"),
            ("a.test:80", "port = 8443", "https://a.test:8443/x?y=1"),
            ("[::1]:80", "", "https://[::1]/x?y=1"),
            ("a.test", "host = 'www.b.test'", "https://www.b.test/x?y=1"),
            ("a.test", "host = '[::1]', port = 444", "https://[::1]:444/x?y=1"),
            ("www.a.test", "hosts = ['a.test', '*.a.test']", "https://www.a.test/x?y=1"),
        ] {
            assert_eq!(
                sent(&get("/x?y=1", host), setting),
                Ok((308, expected.to_owned())),
                "{host} {setting}"
            );
        }
        let upgrade = "GET /ws HTTP/1.1\r\nHost: a.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
        assert_eq!(sent(upgrade, ""), Ok((308, "wss://a.test/ws".to_owned())));
        let old = "GET / HTTP/1.0\r\nHost: a.test\r\n\r\n";
        assert_eq!(sent(old, ""), Ok((301, "https://a.test/".to_owned())));
        // An authority in the target counts (RFC 9112 §3.2.2).
        assert_eq!(sent(&get("http://b.test/z", "a.test"), ""), Ok((308, "https://b.test/z".to_owned())));
    }

    #[test]
    fn nobody_is_sent_where_the_listener_does_not_serve() {
        let listed = "hosts = ['a.test']";
        for (head, setting, status) in [
            (get("/", "evil.test"), listed, 421),
            (get("http://evil.test/", "a.test"), listed, 421),
            (get("/", "a.test@evil.test"), "", 400),
            (get("/", "a.test/evil"), "", 400),
            (get("/", "a.test\\@evil.test"), "", 400),
            (get("//evil.test/", "a.test"), "", 400),
            (get("/", ""), "", 400),
            ("GET / HTTP/1.1\r\n\r\n".to_owned(), "", 400),
            ("GET / HTTP/1.0\r\n\r\n".to_owned(), "", 400),
            ("GET / HTTP/1.0\r\n\r\n".to_owned(), listed, 400),
            ("GET / HTTP/2.0\r\n\r\n".to_owned(), "", 505),
            (get("/\u{1}", "a.test"), "", 400),
        ] {
            assert_eq!(sent(&head, setting), Err(status), "{head} {setting}");
        }
        // Without a host of its own it needs none where one is configured.
        let old = "GET /a HTTP/1.0\r\n\r\n";
        assert_eq!(sent(old, "host = 'a.test'"), Ok((301, "https://a.test/a".to_owned())));
    }
}
