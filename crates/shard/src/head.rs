//! From a request to what answers it: a page, a refusal, a session here, or a session with an upstream.

use tidegate_config::{Action, Page};
use tidegate_hub::protocol::SUBPROTOCOL;
use tidegate_io::Backend;
use tidegate_registry::Key;
use tidegate_wire::{
    Role,
    budget::ControlBudget,
    deflate::Compression,
    extension::negotiate,
    handshake::{self, Accepted, Upgrade},
    http::{self, HeadScanner, Refusal, Request, Scan},
    message::Decoder,
};

use crate::{
    environment::Environment,
    identity::{Halt, drop_token_offers},
    leaving::Farewell,
    log::{Level, What},
    output::Content,
    pages,
    session::{Head, Open, Session, State},
    shard::Shard,
    stamp::Stamp,
};

/// The lookup found nothing.
const NOT_FOUND: Refusal =
    Refusal { status: 404, reason: "no route for this host and path", close: true, fields: &[] };

/// Somebody drains the route, or all of its upstreams.
pub(crate) const DRAINED: Refusal = Refusal {
    status: 503,
    reason: "this route takes no sessions for now",
    close: true,
    fields: &[("Retry-After", "30")],
};

/// RFC 6455 §10.2.
pub(crate) const FOREIGN_ORIGIN: Refusal =
    Refusal { status: 403, reason: "this origin may not open sessions here", close: true, fields: &[] };

/// A page's request has no use for a body.
const PAGE_BODY: Refusal =
    Refusal { status: 400, reason: "this request takes no body", close: true, fields: &[] };

/// A handshake of TLS (RFC 8446 §5.1), which may have no line for as long as its client waits.
const TLS_HERE: Refusal = Refusal::new(400, "this is TLS, and this listener has no `tls`");

/// From whom none is read: its own proxy's address is wrong in the file, or missing.
const PROXY_HEADER_HERE: Refusal =
    Refusal::new(400, "this is a PROXY header, and `proxy_protocol` does not name who sent it");

/// What is no request of HTTP, but something that is sent here by a mistake in somebody's configuration: that one is to be told.
fn other_protocol(bytes: &[u8]) -> Option<&'static Refusal> {
    match bytes {
        [0x16, 3, ..] => Some(&TLS_HERE),
        [b'P', b'R', rest @ ..] if rest.starts_with(b"OXY TCP") || rest.starts_with(b"OXY UNKNOWN") => {
            Some(&PROXY_HEADER_HERE)
        }
        [b'\r', rest @ ..] if rest.starts_with(b"\n\r\n\0\r\nQUIT\n") => Some(&PROXY_HEADER_HERE),
        _ => None,
    }
}

impl<B: Backend, E: Environment> Shard<B, E> {
    /// The state of a new connection, or of one kept alive behind a page.
    pub(crate) fn new_head(&self, now_ms: u64, kept_alive: bool) -> State {
        State::Head(Head {
            scanner: HeadScanner::default(),
            bytes: Vec::new(),
            deadline_ms: now_ms + self.head_timeout_ms(),
            kept_alive,
        })
    }

    /// How long a head may take, with the handshake of TLS before it. Where all sessions were told at once to end nobody is waited
    /// for longer than for the answer to a Close.
    pub(crate) fn head_timeout_ms(&self) -> u64 {
        let limits = self.plan.limits();
        match self.draining {
            Some(_) => limits.head_timeout_ms.min(limits.close_timeout_ms),
            None => limits.head_timeout_ms,
        }
    }

    /// Reads a request's head; gives how many of `bytes` were part of it.
    pub(crate) fn read_head(&mut self, key: Key, bytes: &[u8]) -> usize {
        let plan = std::sync::Arc::clone(&self.plan);
        let Some(session) = self.registry.get_mut(key) else { return bytes.len() };
        let State::Head(head) = &mut session.state else { return 0 };
        let (before, held) = (head.bytes.len(), head.bytes.capacity());
        if before > 0 {
            head.bytes.extend_from_slice(bytes);
        }
        let so_far = if before > 0 { &head.bytes[..] } else { bytes };
        let scanned = match other_protocol(so_far) {
            Some(refusal) => Err(*refusal),
            None => head.scanner.scan(so_far, plan.head_limits()),
        };
        match scanned {
            Ok(Scan::Complete(end)) => {
                let carried = std::mem::take(&mut head.bytes);
                self.recount(held, 0);
                let text = if before > 0 { &carried[..end] } else { &bytes[..end] };
                self.answer(key, text);
                end - before
            }
            Ok(Scan::Partial) => {
                if before == 0 {
                    head.bytes.extend_from_slice(bytes);
                }
                let holds = head.bytes.capacity();
                self.recount(held, holds);
                bytes.len()
            }
            Err(refusal) => {
                let holds = head.bytes.capacity();
                let head_only = http::asks_for_head(so_far);
                self.recount(held, holds);
                self.refuse(key, &refusal, head_only);
                bytes.len()
            }
        }
    }

    /// Answers a request, or has somebody asked whether it may come in.
    pub(crate) fn answer(&mut self, key: Key, head: &[u8]) {
        let plan = std::sync::Arc::clone(&self.plan);
        let head_only = http::asks_for_head(head);
        let by_tls = self.came_by_tls(key);
        let redirect = self.redirect_of(key, &plan);
        let parsed = Request::parse(head, plan.head_limits(), by_tls).map_err(Halt::from);
        let outcome = parsed.and_then(|request| match redirect {
            Some(redirect) => self.redirect(key, &request, redirect).map_err(Halt::from),
            None => {
                self.look_at_certificate(key)?;
                self.dispatch(key, &request)
            }
        });
        match outcome {
            Ok(()) => {}
            Err(Halt::Refused(refusal)) => self.refuse(key, &refusal, head_only),
            Err(Halt::Asked(asked)) => self.await_decision(key, asked, head),
        }
        self.judged = None;
    }

    fn dispatch(&mut self, key: Key, request: &Request<'_>) -> Result<(), Halt> {
        let plan = std::sync::Arc::clone(&self.plan);
        // Who has asked before on this connection need not be who asks now.
        self.callers.forget(key);
        let found_before = self.registry.get_mut(key).and_then(Session::leave_route);
        let protocols = request.fields.list("sec-websocket-protocol");
        let (id, route) =
            plan.routes().lookup(request.host, request.target.path, protocols).ok_or(NOT_FOUND)?;
        self.judged = Some((key, id));
        if found_before == Some(id) && !matches!(route.action, Action::Page(_)) {
            // It has waited for its hook. Another one, or none, may have its path now.
            self.set_route(key, id);
        }
        let below = route.path.below(request.target.path);
        let is_request = match &route.action {
            Action::Topics(_) => below.is_some() && !request.is_upgrade(),
            Action::Events(_) | Action::Poll(_) | Action::Publish(_) => true,
            Action::Page(_) | Action::Echo(_) | Action::Proxy(_) => false,
        };
        if is_request {
            // From here on a refusal is told in the topics' own terms.
            self.set_route(key, id);
            return self.begin_request(key, id, request);
        }
        if !self.upstreams.takes(id) {
            return Err(DRAINED.into());
        }
        match &route.action {
            Action::Page(page) => Ok(self.answer_page(key, request, *page)?),
            Action::Echo(echo) => {
                let upgrade = self.upgrade(key, id, request)?;
                self.enter_route(key, id)?;
                self.open(key, &upgrade, echo.context_takeover, false);
                Ok(())
            }
            Action::Topics(topics) => {
                let upgrade = self.upgrade(key, id, request)?;
                let way = self.topics_way(key, topics, below)?;
                self.enter_route(key, id)?;
                self.open(key, &upgrade, false, below.is_none());
                self.enter_topics(key, topics, way);
                Ok(())
            }
            Action::Events(_) | Action::Poll(_) | Action::Publish(_) => Ok(()),
            Action::Proxy(_) => {
                let upgrade = self.upgrade(key, id, request)?;
                self.enter_route(key, id)?;
                Ok(self.begin_proxy(key, request, &upgrade)?)
            }
        }
    }

    pub(crate) fn set_route(&mut self, key: Key, id: tidegate_hub::RouteId) {
        if let Some(session) = self.registry.get_mut(key) {
            session.enter_route(id);
            if let Some(accounts) = &mut self.accounts {
                accounts.placed(key, id);
            }
        }
    }

    /// The upgrade that a request asks for, from an origin and a caller that may.
    fn upgrade<'b>(
        &mut self,
        key: Key,
        id: tidegate_hub::RouteId,
        request: &Request<'b>,
    ) -> Result<Upgrade<'b>, Halt> {
        let mut upgrade = handshake::upgrade(request)?;
        if !self.allows_origin(key, id, request, upgrade.origin) {
            return Err(FOREIGN_ORIGIN.into());
        }
        self.admit(key, id, request)?;
        drop_token_offers(self.plan.route(id).identity.as_ref(), &mut upgrade.protocols);
        Ok(upgrade)
    }

    /// Whether pages of this origin may come here.
    pub(crate) fn allows_origin(
        &self,
        key: Key,
        id: tidegate_hub::RouteId,
        request: &Request<'_>,
        origin: Option<&str>,
    ) -> bool {
        let route = self.plan.route(id);
        let peer = self.registry.get(key).and_then(|session| session.peer.address());
        let trusted = peer.is_some_and(|peer| self.plan.trusts(peer.ip()));
        let by_tls = self.came_by_tls(key);
        let secure = if trusted { claims_tls(request).unwrap_or(by_tls) } else { by_tls };
        // Last, as it is read out of the certificate.
        let shows_certificate =
            || self.registry.get(key).is_some_and(|session| session.transport.subject().is_some());
        if route.route.takes_own_origin_alone()
            || (route.route.origins.is_empty() && origin.is_some() && shows_certificate())
        {
            // A browser sends its user's cookies and certificate along, whichever page asks: such a page is listed, or the gateway's
            // own.
            return origin.is_none_or(|origin| handshake::same_origin(origin, request.host, secure));
        }
        handshake::origin_allowed(&route.origins, origin, request.host, secure)
    }

    fn came_by_tls(&self, key: Key) -> bool {
        self.registry.get(key).is_some_and(|session| session.transport.is_tls())
    }

    fn answer_page(&mut self, key: Key, request: &Request<'_>, page: Page) -> Result<(), Refusal> {
        request.check_page_method()?;
        if request.content_length()?.is_some_and(|length| length > 0) {
            return Err(PAGE_BODY);
        }
        let head_only = request.is_head();
        let keep_alive = request.keep_alive() && !self.is_ending();
        let (content_type, page) = pages::content(page);
        let date = http::http_date(self.environment.unix_seconds());
        let response = http::page_response(
            200,
            content_type,
            page,
            head_only,
            keep_alive,
            &[("Date", &date), ("Cache-Control", "no-cache"), ("X-Content-Type-Options", "nosniff")],
        );
        self.counters.pages += 1;
        let source = self.turn.keep(response, 0);
        self.emit(key, source, Content::WHOLE);
        if keep_alive {
            let head = self.new_head(self.now_ms, true);
            if let Some(session) = self.registry.get_mut(key) {
                session.state = head;
            }
            self.ensure_deadline(key, self.now_ms + self.head_timeout_ms());
        } else {
            self.linger(key);
        }
        Ok(())
    }

    /// Opens a session that is answered here.
    fn open(&mut self, key: Key, upgrade: &Upgrade<'_>, takeover: bool, speaks: bool) {
        let plan = std::sync::Arc::clone(&self.plan);
        let Some(session) = self.registry.get(key) else { return };
        let route = plan.route(session.route);
        let own = |offered: &&str| route.subprotocols.iter().any(|own| own == offered);
        let protocol = upgrade.protocols.iter().copied().find(own).or_else(|| {
            // Who offers the topics' own protocol hears that it is spoken.
            let spoken = speaks && route.subprotocols.is_empty();
            upgrade.protocols.iter().copied().find(|offered| spoken && *offered == SUBPROTOCOL)
        });
        let agreed = match &route.deflate {
            Some(policy) => {
                let mut policy = *policy;
                policy.context_takeover = takeover && self.codecs.takeover_available();
                negotiate(&upgrade.offers, &policy)
            }
            None => None,
        };
        let mut response = Vec::with_capacity(256);
        let accepted = Accepted { key: upgrade.key, protocol, extension: agreed.as_ref() };
        handshake::switching_protocols(&mut response, &accepted);
        let compression = agreed.map(|params| Compression::new(params, Role::Server, &mut self.codecs));
        let source = self.turn.keep(response, 0);
        self.emit(key, source, Content::Opening);
        let state = State::Open(Open {
            decoder: Decoder::new(Role::Server),
            compression,
            budget: ControlBudget::default(),
            close_deadline_ms: 0,
        });
        self.counters.opened += 1;
        self.opened(key, state);
    }

    /// A handshake has ended in a session: its deadlines begin.
    pub(crate) fn opened(&mut self, key: Key, state: State) {
        let now_ms = self.now_ms;
        let Some(session) = self.registry.get_mut(key) else { return };
        session.state = state;
        session.seen = Stamp::at(now_ms);
        session.spoke = session.seen;
        if let Some(accounts) = &mut self.accounts {
            accounts.opened(key, session, &self.upstreams);
        }
        if self.plan.route(session.route).rates.is_some() {
            self.meters.begin(key);
        }
        // The head's deadline must not stay: it would only find out that it has no meaning any more.
        self.wheel.cancel(key.index());
        self.look_again(key);
        match self.draining {
            Some(code) => self.drain_session(key, Farewell::now(code)),
            None => self.join_departure(key),
        }
    }

    /// Answers a request whose head has not come whole, if any of it has.
    pub(crate) fn refuse_early(&mut self, key: Key, refusal: &Refusal) {
        let state = self.registry.get(key).map(|session| &session.state);
        let head_only = matches!(state, Some(State::Head(head)) if http::asks_for_head(&head.bytes));
        self.refuse(key, refusal, head_only);
    }

    /// Answers with a refusal and ends the connection behind it.
    pub(crate) fn refuse(&mut self, key: Key, refusal: &Refusal, head_only: bool) {
        self.count_refused(refusal.status);
        self.log(Level::Info, Some(key), What::Refused { status: refusal.status, reason: refusal.reason });
        let date = http::http_date(self.environment.unix_seconds());
        let response = Refusal { close: true, ..*refusal }.dated_response(&date, head_only);
        let source = self.turn.keep(response, 0);
        self.emit(key, source, Content::Opening);
        self.linger(key);
    }
}

/// Whether the trusted proxy in front says that the client came by TLS, where it says how: the word of the nearest one counts.
fn claims_tls(request: &Request<'_>) -> Option<bool> {
    let nearest = request.fields.all("x-forwarded-proto").last()?;
    let nearest = nearest.rsplit(|byte| *byte == b',').next().unwrap_or_default().trim_ascii();
    Some(nearest.eq_ignore_ascii_case(b"https") || nearest.eq_ignore_ascii_case(b"wss"))
}
