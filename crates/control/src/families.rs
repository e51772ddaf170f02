//! The families of metrics: what each is called, and which numbers it is made of.

use std::{
    collections::BTreeSet,
    time::{SystemTime, UNIX_EPOCH},
};

use tidegate_shard::{
    Counters, RouteId, Slow, Whom,
    report::{Flow, Histogram, Report, RouteCounts, UpstreamState},
};

use crate::{
    gateway::{Gateway, counts_of_route, open, sessions_of_upstream, states_of_upstream},
    metrics::{Format, Kind, Samples, Writer},
    names::{Named, NamedUpstream},
    process::Process,
};

/// A family's name, what it tells, and its number.
type Described<T> = (&'static str, &'static str, fn(&T) -> u64);

/// A reason's name, and how often it was one.
type Reason = (&'static str, fn(&Counters) -> u64);

/// All of it as text.
pub(crate) fn write(gateway: &Gateway, reports: &[Report], format: Format) -> String {
    let mut out = Writer::new(format);
    process(&mut out, gateway);
    sessions(&mut out, gateway, reports);
    flows(&mut out, gateway, reports);
    identities(&mut out, gateway, reports);
    trouble(&mut out, gateway, reports);
    topics(&mut out, gateway, reports);
    upstreams(&mut out, gateway, reports);
    shards(&mut out, gateway, reports);
    out.finish()
}

fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

fn process(out: &mut Writer, gateway: &Gateway) {
    out.family(Kind::Gauge, "tidegate_build_info", "The program, always 1.", |samples| {
        samples.add(&[("version", gateway.version), ("backend", &gateway.backend)], 1);
    });
    let help = "The number of the configuration in force; the first is 1.";
    out.single(Kind::Gauge, "tidegate_config_generation", help, gateway.generation());
    let ready = u8::from(gateway.is_started() && !gateway.is_draining() && !gateway.is_drained());
    out.single(Kind::Gauge, "tidegate_ready", "Whether new connections are welcome.", ready);
    let help = "Lines of the log that were left out, or could not be written.";
    out.single(Kind::Counter, "tidegate_log_lines_lost", help, gateway.lost_lines());
    let help =
        "Until when a certificate that is served, or shown to upstreams, is valid, in seconds since 1970.";
    out.family(Kind::Gauge, "tidegate_certificate_expiry_timestamp_seconds", help, |samples| {
        for certificate in gateway.certificates().iter() {
            samples.add(&[("file", &certificate.file)], seconds(certificate.not_after));
        }
    });
    let process = Process::look();
    let help = "When the process started, in seconds since 1970.";
    out.single(Kind::Gauge, "process_start_time_seconds", help, seconds(gateway.started));
    if let Some(cpu) = process.cpu_seconds {
        out.single(Kind::Counter, "process_cpu_seconds", "Processor time, user and system.", cpu);
    }
    if let Some(bytes) = process.resident_bytes {
        out.single(Kind::Gauge, "process_resident_memory_bytes", "Resident memory.", bytes);
    }
    if let Some(count) = process.open_fds {
        out.single(Kind::Gauge, "process_open_fds", "Open descriptors.", count);
    }
    if let Some(most) = process.max_fds {
        out.single(Kind::Gauge, "process_max_fds", "Most descriptors.", most);
    }
}

/// The sum of what shards have.
fn sum(reports: &[Report], number: impl Fn(&Report) -> u64) -> u64 {
    reports.iter().map(number).sum()
}

/// What all shards have of a route.
fn of_route(reports: &[Report], route: &Named, number: impl Fn(&RouteCounts) -> u64) -> u64 {
    counts_of_route(reports, route).map(|counts| number(&counts)).sum()
}

/// The routes of the configuration, and those that are gone while they have sessions: nothing is told for ever, and no alert goes on
/// about what nobody has configured.
fn told(gateway: &Gateway, reports: &[Report]) -> Vec<Named> {
    let present = gateway.names.present();
    let is_told = |route: &Named| present.contains(route) || of_route(reports, route, open) > 0;
    gateway.names.all().into_iter().filter(is_told).collect()
}

fn sessions(out: &mut Writer, gateway: &Gateway, reports: &[Report]) {
    let help = "Connections of clients now, those in their handshake included.";
    out.single(Kind::Gauge, "tidegate_connections", help, sum(reports, |report| report.connections));
    let accepted = sum(reports, |report| report.counters.accepted);
    out.single(Kind::Counter, "tidegate_connections_accepted", "Connections accepted.", accepted);
    let help = "Connections that were turned away for a limit or a PROXY header, or as the gateway ends, by the reason, \
                whether they were told (then tidegate_handshakes_total has them, too) or not.";
    let reasons: [Reason; 7] = [
        ("sessions", |counters| counters.refused_full),
        ("address_sessions", |counters| counters.refused_address_full),
        ("address_rate", |counters| counters.refused_address_rate),
        ("route_sessions", |counters| counters.refused_route_full),
        ("memory", |counters| counters.refused_memory),
        ("proxy_header", |counters| counters.proxy_headers_refused),
        ("draining", |counters| counters.refused_draining),
    ];
    out.family(Kind::Counter, "tidegate_connections_refused", help, |samples| {
        for (reason, count) in reasons {
            samples.add(&[("reason", reason)], sum(reports, |report| count(&report.counters)));
        }
    });
    let routes = told(gateway, reports);
    out.family(Kind::Gauge, "tidegate_sessions", "Sessions now.", |samples| {
        for route in &routes {
            samples.add(&[("route", &route.name)], of_route(reports, route, open));
        }
    });
    out.family(Kind::Counter, "tidegate_sessions_opened", "Sessions that were opened.", |samples| {
        for route in &routes {
            samples.add(&[("route", &route.name)], of_route(reports, route, |counts| counts.opened));
        }
    });
    let plan = gateway.plan();
    out.family(
        Kind::Gauge,
        "tidegate_route_drained",
        "Whether somebody has drained a route, or all its upstreams.",
        |samples| {
            for route in gateway.names.present() {
                let drained = plan.is_drained(Whom::Route(RouteId(route.number)));
                samples.add(&[("route", &route.name)], u8::from(drained));
            }
        },
    );
    let help = "Requests for a session by what became of them: opened, or refused with a status.";
    out.family(Kind::Counter, "tidegate_handshakes", help, |samples| {
        samples
            .add(&[("result", "opened"), ("status", "101")], sum(reports, |report| report.counters.opened));
        let mut statuses: Vec<u16> =
            reports.iter().flat_map(|report| report.refusals.iter().map(|(status, _)| *status)).collect();
        statuses.sort_unstable();
        statuses.dedup();
        for status in statuses {
            let count = sum(reports, |report| {
                report.refusals.iter().filter(|(own, _)| *own == status).map(|(_, count)| count).sum()
            });
            samples.add(&[("result", "refused"), ("status", &status.to_string())], count);
        }
    });
    let handshakes = |samples: &mut Samples<'_>, counts: fn(&Counters) -> [u64; 3]| {
        let [opened, resumed, failed] =
            [0, 1, 2].map(|at| sum(reports, |report| counts(&report.counters)[at]));
        for (result, count) in [("full", opened - resumed), ("resumed", resumed), ("failed", failed)] {
            samples.add(&[("result", result)], count);
        }
    };
    out.family(Kind::Counter, "tidegate_tls_handshakes", "Handshakes of TLS by their result.", |samples| {
        handshakes(samples, |counters| [counters.tls_opened, counters.tls_resumed, counters.tls_failed]);
    });
    let help = "Handshakes of TLS with upstreams by their result.";
    out.family(Kind::Counter, "tidegate_upstream_tls_handshakes", help, |samples| {
        handshakes(samples, |counters| {
            [counters.upstream_tls_opened, counters.upstream_tls_resumed, counters.upstream_tls_failed]
        });
    });
    out.family(Kind::Counter, "tidegate_redirects", "Requests that were sent to https.", |samples| {
        samples.add(&[], sum(reports, |report| report.counters.redirected));
    });
    let help = "Sessions that have ended, by the leg where the cause was, the Close's code and the cause.";
    out.family(Kind::Counter, "tidegate_closes", help, |samples| {
        let mut causes: Vec<(String, u16, &str, u64)> = Vec::new();
        for close in reports.iter().flat_map(|report| &report.closes) {
            let side = close.leg.to_string();
            match causes.iter_mut().find(|(leg, code, reason, _)| {
                (leg.as_str(), *code, *reason) == (side.as_str(), close.code, close.reason)
            }) {
                Some((.., count)) => *count += close.count,
                None => causes.push((side, close.code, close.reason, close.count)),
            }
        }
        for (side, code, reason, count) in causes {
            let code = match code {
                3000 => "3xxx".to_owned(),
                4000 => "4xxx".to_owned(),
                code => code.to_string(),
            };
            samples.add(&[("side", &side), ("code", &code), ("reason", reason)], count);
        }
    });
}

fn flows(out: &mut Writer, gateway: &Gateway, reports: &[Report]) {
    let (plan, routes) = (gateway.plan(), told(gateway, reports));
    let flows: [Described<Flow>; 4] = [
        (
            "tidegate_received_bytes",
            "Bytes that came, as they came; of sessions all of their connections.",
            |flow| flow.received_bytes,
        ),
        (
            "tidegate_sent_bytes",
            "Bytes that the kernel has taken; of sessions all of their connections.",
            |flow| flow.sent_bytes,
        ),
        ("tidegate_received_messages", "Messages that came whole; on topics all commands.", |flow| {
            flow.received_messages
        }),
        (
            "tidegate_sent_messages",
            "Messages that were given to peers; on topics publications alone, no answers to commands.",
            |flow| flow.sent_messages,
        ),
    ];
    for (name, help, value) in flows {
        out.family(Kind::Counter, name, help, |samples| {
            for route in &routes {
                let clients = of_route(reports, route, |counts| value(&counts.clients));
                samples.add(&[("route", &route.name), ("leg", "client")], clients);
                if plan.upstream_name(route.number, 0).is_some() {
                    let upstreams = of_route(reports, route, |counts| value(&counts.upstreams));
                    samples.add(&[("route", &route.name), ("leg", "upstream")], upstreams);
                }
            }
        });
    }
    let help = "Bytes that wait to be sent, and what is held of what has not come whole, over all sessions, without what topics hold (tidegate_topics_bytes).";
    out.single(Kind::Gauge, "tidegate_buffered_bytes", help, plan.buffered_bytes());
    let compressed = sum(reports, |report| report.inflation.compressed_bytes);
    let help =
        "Bytes of compressed messages that were inflated, before, and nine more of each, which end it.";
    out.single(Kind::Counter, "tidegate_inflate_compressed_bytes", help, compressed);
    let inflated = sum(reports, |report| report.inflation.inflated_bytes);
    let help = "Bytes that they became: by the bytes before, the ratio.";
    out.single(Kind::Counter, "tidegate_inflate_bytes", help, inflated);
    let deflated = sum(reports, |report| report.inflation.deflated_bytes);
    let help = "Bytes of messages that were deflated, before.";
    out.single(Kind::Counter, "tidegate_deflate_bytes", help, deflated);
}

/// Who callers are: what was asked of others, and what came of it.
fn identities(out: &mut Writer, gateway: &Gateway, reports: &[Report]) {
    let plan = gateway.plan();
    if plan.identities().is_empty() {
        return;
    }
    let help = "Tokens that were not believed, and callers that lacked a claim that the route demands.";
    out.family(Kind::Counter, "tidegate_tokens_refused", help, |samples| {
        samples.add(&[("reason", "invalid")], sum(reports, |report| report.counters.tokens_refused));
        samples.add(&[("reason", "no_keys")], sum(reports, |report| report.counters.tokens_unjudged));
        samples.add(&[("reason", "claims")], sum(reports, |report| report.counters.claims_refused));
    });
    let help = "Sessions and requests that have ended with their tokens, or when their hook had said.";
    out.single(
        Kind::Counter,
        "tidegate_tokens_expired",
        help,
        sum(reports, |report| report.counters.tokens_expired),
    );
    let help = "Requests that a hook was asked about, by what came of it.";
    out.family(Kind::Counter, "tidegate_hook_decisions", help, |samples| {
        samples.add(&[("result", "allowed")], sum(reports, |report| report.counters.hooks_allowed));
        samples.add(&[("result", "denied")], sum(reports, |report| report.counters.hooks_denied));
        samples.add(&[("result", "failed")], sum(reports, |report| report.counters.hooks_failed));
        samples.add(&[("result", "busy")], sum(reports, |report| report.counters.hooks_busy));
        samples.add(&[("result", "late")], sum(reports, |report| report.counters.hooks_late));
    });
    let hooks = || plan.identities().iter().filter(|identity| identity.rules().hook().is_some());
    out.family(Kind::Gauge, "tidegate_hook_in_flight", "Requests that wait for a hook now.", |samples| {
        for identity in hooks() {
            samples.add(&[("identity", &identity.rules().name)], identity.in_flight());
        }
    });
    let fetched = || {
        let all = plan.identities().iter();
        all.filter_map(|identity| Some((identity.rules().name.as_str(), identity.fetched()?.fetches())))
    };
    out.family(Kind::Gauge, "tidegate_key_set_keys", "Keys that were fetched and can be used.", |samples| {
        for (identity, fetches) in fetched() {
            samples.add(&[("identity", identity)], fetches.keys);
        }
    });
    let help = "When keys were last fetched, in seconds since 1970; 0: never.";
    out.family(Kind::Gauge, "tidegate_key_set_timestamp_seconds", help, |samples| {
        for (identity, fetches) in fetched() {
            samples.add(&[("identity", identity)], fetches.fetched_unix_seconds);
        }
    });
    out.family(Kind::Counter, "tidegate_key_set_fetches", "Fetches of keys by their result.", |samples| {
        for (identity, fetches) in fetched() {
            samples.add(&[("identity", identity), ("result", "fetched")], fetches.fetched);
            samples.add(&[("identity", identity), ("result", "failed")], fetches.failed);
        }
    });
}

fn trouble(out: &mut Writer, _: &Gateway, reports: &[Report]) {
    let help = "What was done about consumers that are slower than what is sent to them.";
    out.family(Kind::Counter, "tidegate_slow_consumer_actions", help, |samples| {
        let counters = |number: fn(&Report) -> u64| sum(reports, number);
        samples.add(&[("action", "pause")], counters(|report| report.counters.pauses));
        let dropped_new = counters(|report| report.counters.dropped - report.counters.dropped_old);
        samples.add(&[("action", "drop_new")], dropped_new);
        samples.add(&[("action", "drop_old")], counters(|report| report.counters.dropped_old));
        samples.add(&[("action", "disconnect")], counters(|report| report.counters.slow));
    });
    out.family(
        Kind::Counter,
        "tidegate_violations",
        "Broken rules of the protocol, by the leg.",
        |samples| {
            samples.add(&[("leg", "client")], sum(reports, |report| report.counters.client_violations));
            samples.add(&[("leg", "upstream")], sum(reports, |report| report.counters.upstream_violations));
        },
    );
    let help = "What was done about clients that are faster than their rate: not read for a while, a message dropped, a session ended.";
    out.family(Kind::Counter, "tidegate_rate_actions", help, |samples| {
        samples.add(&[("action", "delay")], sum(reports, |report| report.counters.rate_delayed));
        samples.add(&[("action", "drop")], sum(reports, |report| report.counters.rate_dropped));
        samples.add(&[("action", "close")], sum(reports, |report| report.counters.rate_closed));
    });
    out.single(Kind::Counter, "tidegate_pings", "Pings sent.", sum(reports, |report| report.counters.pings));
    let timeouts = sum(reports, |report| report.counters.ping_timeouts);
    out.single(Kind::Counter, "tidegate_ping_timeouts", "Sessions that answered no ping in time.", timeouts);
    let help = "From a ping to its pong; the clock has steps of 16 ms.";
    out.histogram("tidegate_ping_round_trip_seconds", help, &merged(reports, |report| &report.round_trips));
}

fn merged<'r>(reports: &'r [Report], histogram: impl Fn(&'r Report) -> &'r Histogram) -> Histogram {
    reports.iter().map(histogram).fold(Histogram::default(), |mut all, one| {
        all.merge(one);
        all
    })
}

fn topics(out: &mut Writer, gateway: &Gateway, reports: &[Report]) {
    if reports.iter().all(|report| report.topics.is_none()) {
        return;
    }
    let counts = |number: fn(&tidegate_shard::TopicCounts) -> u64| {
        reports.iter().filter_map(|report| report.topics.as_ref()).map(number).sum::<u64>()
    };
    let (topics, subscriptions, bytes) = gateway.plan().topics_held();
    out.single(Kind::Gauge, "tidegate_topics", "Topics now.", topics);
    out.single(Kind::Gauge, "tidegate_subscriptions", "Subscriptions now.", subscriptions);
    out.single(
        Kind::Gauge,
        "tidegate_topics_bytes",
        "Memory of what topics hold: what they keep, and what of that waits for subscribers.",
        bytes,
    );
    out.single(Kind::Counter, "tidegate_published", "Publications taken.", counts(|counts| counts.published));
    let help = "Publications refused, as a queue or the memory was full.";
    out.single(Kind::Counter, "tidegate_publications_refused", help, counts(|counts| counts.refused_busy));
    let help = "What was done about subscribers that have fallen behind, by their topic's policy.";
    out.family(Kind::Counter, "tidegate_slow_subscriber_actions", help, |samples| {
        let held = || reports.iter().filter_map(|report| report.topics.as_ref());
        for (place, policy) in Slow::ALL.map(Slow::as_str).into_iter().enumerate() {
            let behind: u64 = held().map(|counts| counts.fell_behind[place]).sum();
            samples.add(&[("policy", policy), ("action", "fell_behind")], behind);
            let passed: u64 = held().map(|counts| counts.passed_over[place]).sum();
            samples.add(&[("policy", policy), ("action", "passed_over")], passed);
            let gaps: u64 = held().map(|counts| counts.gaps[place]).sum();
            samples.add(&[("policy", policy), ("action", "gap")], gaps);
        }
    });
}

fn upstreams(out: &mut Writer, gateway: &Gateway, reports: &[Report]) {
    let plan = gateway.plan();
    // All shards have the same, but for those that have not taken over the newest generation yet.
    let known: BTreeSet<(u16, u16)> = reports
        .iter()
        .flat_map(|report| &report.upstreams)
        .map(|state| (state.route, state.upstream))
        .collect();
    let known = known.into_iter().filter_map(|(route, place)| {
        let upstream = gateway.names.named_upstream(route, place)?;
        // No sample at all before the first shard knows it.
        states_of_upstream(reports, &upstream).next()?;
        Some(upstream)
    });
    let known: Vec<NamedUpstream> = known.collect();
    if known.is_empty() {
        return;
    }
    // Of those that are no more only the sessions that they have yet are of interest.
    let present: BTreeSet<(u16, u16)> = plan.upstreams().map(|(route, place, _)| (route, place)).collect();
    let is_present = |upstream: &NamedUpstream| present.contains(&(upstream.route.number, upstream.place));
    let add = |samples: &mut Samples<'_>, upstream: &NamedUpstream, value: u64| {
        samples.add(&[("route", &upstream.route.name), ("upstream", &upstream.name)], value);
    };
    let each = |samples: &mut Samples<'_>, value: &dyn Fn(&NamedUpstream) -> u64| {
        for upstream in known.iter().filter(|upstream| is_present(upstream)) {
            add(samples, upstream, value(upstream));
        }
    };
    let of = |upstream: &NamedUpstream| states_of_upstream(reports, upstream);
    let help = "Whether the last try to use an upstream has not failed; 1 before the first.";
    out.family(Kind::Gauge, "tidegate_upstream_up", help, |samples| {
        each(samples, &|upstream| u64::from(UpstreamState::is_up(of(upstream))));
    });
    let help = "Whether somebody has drained an upstream.";
    out.family(Kind::Gauge, "tidegate_upstream_drained", help, |samples| {
        each(samples, &|upstream| {
            let whom = Whom::Upstream(RouteId(upstream.route.number), upstream.place);
            u64::from(plan.is_drained(whom))
        });
    });
    let help = "Legs to an upstream now, those that are being made included.";
    out.family(Kind::Gauge, "tidegate_upstream_sessions", help, |samples| {
        for upstream in &known {
            let count = sessions_of_upstream(reports, upstream);
            if count > 0 || is_present(upstream) {
                add(samples, upstream, count);
            }
        }
    });
    let help = "Times that an upstream could not be used.";
    out.family(Kind::Counter, "tidegate_upstream_failures", help, |samples| {
        each(samples, &|upstream| of(upstream).map(|state| state.failures).sum());
    });
}

fn shards(out: &mut Writer, gateway: &Gateway, reports: &[Report]) {
    let numbers: [Described<Report>; 6] = [
        ("tidegate_turns", "Turns of a shard's loop.", |report| report.backend.turns),
        ("tidegate_system_calls", "System calls of a shard on the way of data.", |report| {
            report.backend.system_calls
        }),
        (
            "tidegate_events",
            "What the kernel has reported to a shard: by turns, the size of its batches.",
            |report| report.backend.events,
        ),
        ("tidegate_buffers_exhausted", "Receives that found no buffer (ENOBUFS).", |report| {
            report.backend.starved
        }),
        ("tidegate_completion_overflows", "Completions that found their queue full.", |report| {
            report.backend.overflows
        }),
        ("tidegate_partial_sends", "Sends that the kernel did not take whole.", |report| {
            report.backend.partial_sends
        }),
    ];
    for (name, help, number) in numbers {
        out.family(Kind::Counter, name, help, |samples| {
            for (shard, report) in reports.iter().enumerate() {
                samples.add(&[("shard", &shard.to_string())], number(report));
            }
        });
    }
    out.family(Kind::Gauge, "tidegate_receive_buffers_lent", "Receive buffers in use now.", |samples| {
        for (shard, report) in reports.iter().enumerate() {
            samples.add(&[("shard", &shard.to_string())], report.buffers.lent);
        }
    });
    let help = "Since a shard's last turn that is known of; idle ones are asked to turn twice a second.";
    out.family(Kind::Gauge, "tidegate_last_turn_age_seconds", help, |samples| {
        for (shard, pulse) in gateway.pulses.iter().enumerate() {
            let age = pulse.silent_for().as_secs_f64();
            samples.add(&[("shard", &shard.to_string())], age);
        }
    });
    let help = "How long turns have taken: so long waits what comes meanwhile.";
    out.histogram("tidegate_turn_duration_seconds", help, &merged(reports, |report| &report.turns));
}
