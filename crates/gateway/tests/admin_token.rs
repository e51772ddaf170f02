//! The token of the admin listener: who has it is answered, who has none keeps nobody from that, and a reload brings another one.

mod harness;

use rustix::process::Signal;

use crate::harness::{
    BACKENDS,
    client::Client,
    eventually,
    gateway::{Gateway, run_to_end},
    guarded::{Guarded, TOKEN},
    scene::ROUTES,
};

#[test]
fn over_tcp_a_token_is_asked_for_and_pages_are_refused() {
    let guarded = Guarded::start("epoll");
    // What is written of it by a fault says nothing of the token.
    let shown = format!("{:?}", guarded.asker(Some(TOKEN)));
    assert!(!shown.contains("0123456789"), "{shown}");
    assert_eq!(
        [None, Some("0123456789abcdeF"), Some(TOKEN)].map(|token| guarded.status(token)),
        [401, 401, 200]
    );
    let (code, out, _) = guarded.run(&["status", "--json"]);
    assert_eq!(code, Some(0), "{out}");
    let gateway = guarded.gateway;
    // RFC 9110 §11.1: the name of a scheme has no case.
    for (scheme, expected) in [("bearer ", 200), ("BEARER  ", 200), ("Bearer", 401), ("Basic ", 401)] {
        let mut client = Client::connect(gateway.admin());
        let field = format!("Authorization: {scheme}0123456789abcdef");
        client.send(format!("GET /livez HTTP/1.1\r\nHost: any.test\r\n{field}\r\n\r\n").as_bytes());
        assert_eq!(client.response().expect("an answer").status, expected, "{scheme}");
    }
    let mut page = Client::connect(gateway.admin());
    page.send(
        b"GET /sessions HTTP/1.1\r\nHost: localhost\r\nOrigin: https://evil.test\r\n\
          Authorization: Bearer 0123456789abcdef\r\n\r\n",
    );
    assert_eq!(page.response().expect("an answer").status, 403);
    gateway.stop();
    // Without a token a name that a page has made mean this address is no host of ours.
    let config =
        format!("version = 1\n[[listener]]\nbind = '127.0.0.1:0'\n[admin]\nbind = '127.0.0.1:0'\n{ROUTES}");
    let gateway = Gateway::start(&config, "epoll");
    for (host, expected) in
        [("127.0.0.1:9", 200), ("localhost", 200), ("LocalHost:9", 200), ("[::1]:9", 200), ("evil.test", 403)]
    {
        let mut client = Client::connect(gateway.admin());
        client.send(format!("GET /livez HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
        assert_eq!(client.response().expect("an answer").status, expected, "{host}");
    }
    // A token that nobody asked for makes it none either.
    let mut client = Client::connect(gateway.admin());
    client.send(b"GET /config HTTP/1.1\r\nHost: evil.test\r\nAuthorization: Bearer x\r\n\r\n");
    assert_eq!(client.response().expect("an answer").status, 403);
    gateway.stop();
}

#[test]
fn who_has_no_token_keeps_nobody_from_asking() {
    /// More than there are places of either kind.
    const MANY: usize = 200;
    for io in BACKENDS {
        let guarded = Guarded::start(io);
        let mut asking = guarded.begin();
        assert_eq!(asking.response().expect("the token was right").status, 100, "{io}");
        let stranger = || {
            let mut client = Client::connect(guarded.gateway.admin());
            // It may have had to go already.
            let _ = client.try_send(b"GET /livez HTTP/1.1\r\n");
            client
        };
        let mut strangers: Vec<Client> = (0..MANY).map(|_| stranger()).collect();
        for _ in 0..5 {
            assert_eq!(guarded.status(Some(TOKEN)), 200, "{io}");
            strangers.extend((0..10).map(|_| stranger()));
        }
        // Those that came first had to go, and not for their time: that would be the answer 408.
        for client in &mut strangers[..MANY / 2] {
            assert!(client.response().is_err(), "{io}");
        }
        asking.send(b"{}");
        assert_eq!(asking.response().expect("it has kept its place").status, 400, "{io}");
        guarded.gateway.stop();
    }
}

#[test]
fn requests_with_the_token_are_bounded_apart_from_others() {
    /// As docs/CONFIG.md has it.
    const AT_A_TIME: usize = 32;
    for io in BACKENDS {
        let guarded = Guarded::start(io);
        let mut asking: Vec<Client> = (0..AT_A_TIME).map(|_| guarded.begin()).collect();
        for client in &mut asking {
            assert_eq!(client.response().expect("it may ask").status, 100, "{io}");
        }
        assert_eq!([Some(TOKEN), None].map(|token| guarded.status(token)), [429, 401], "{io}");
        drop(asking.pop());
        eventually("its place", || (guarded.status(Some(TOKEN)) == 200).then_some(()));
        guarded.gateway.stop();
    }
}

#[test]
fn a_new_token_holds_from_a_reload_on() {
    const NEW: &str = "fedcba9876543210";
    for io in BACKENDS {
        let guarded = Guarded::start(io);
        let statuses = || [TOKEN, NEW].map(|token| guarded.status(Some(token)));
        let reload = || {
            let before = guarded.gateway.log_len();
            guarded.gateway.signal(Signal::HUP);
            let over = |line: &str| line.contains("taken over");
            let line = guarded.gateway.wait_for_log_behind(before, "the reload's end", over);
            (line, guarded.gateway.log()[before..].join("\n"))
        };
        std::fs::write(&guarded.file, NEW).expect("its file");
        assert_eq!(statuses(), [200, 401], "{io}");
        // Who asks with the new one is told what to do about it.
        let (code, _, error) = guarded.run(&["reload"]);
        assert_eq!(code, Some(1), "{io}");
        assert!(error.contains("(401)") && error.contains("HUP"), "{error}");
        let (line, all) = reload();
        assert!(line.contains("configuration taken over"), "{line}");
        assert!(all.contains("another token") && !all.contains(NEW) && !all.contains("restart"), "{all}");
        assert_eq!(statuses(), [401, 200], "{io}");
        // A file that holds none changes nothing.
        std::fs::write(&guarded.file, "short").expect("its file");
        let (line, all) = reload();
        assert!(line.contains("is not taken over") && !all.contains("another token"), "{all}");
        assert_eq!(statuses(), [401, 200], "{io}");
        // And one that is as it was is not told.
        std::fs::write(&guarded.file, NEW).expect("its file");
        let (code, out, error) = guarded.run(&["reload"]);
        assert_eq!(code, Some(0), "{error}");
        assert!(out.ends_with("nothing has changed\n"), "{out}");
        // While there is no doubt of who asks, its answer tells of the change.
        let rotated = guarded.file.with_extension("old");
        std::fs::copy(&guarded.file, &rotated).expect("its file");
        std::fs::write(&guarded.file, TOKEN).expect("its file");
        let admin = guarded.gateway.admin().to_string();
        let (code, out, error) =
            run_to_end(&["reload", "--admin", &admin, "--token-file", rotated.to_str().expect("a path")]);
        assert_eq!(code, Some(0), "{error}");
        assert!(out.contains("  changed: [admin] token_file\n"), "{out}");
        assert_eq!(statuses(), [200, 401], "{io}");
        guarded.gateway.stop();
    }
}
