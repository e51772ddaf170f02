//! `[limits]` and `[route.limits]`.

use std::ops::Range;

use super::rates::{self, RateKeys};
use crate::{
    Limits, RouteLimits, SESSION_TAKEOVER_BYTES,
    report::{At, Report},
    section::Section,
    units::size_text,
};

pub(super) const KIB: u64 = 1 << 10;
pub(super) const MIB: u64 = 1 << 20;
pub(super) const GIB: u64 = 1 << 30;

/// The longest message. With the largest outbox before it, it still fits into one send of the kernel's 2 GiB.
pub(super) const MESSAGE_MOST: u64 = GIB / 2;

/// The limits of the process, and which of them the file sets.
pub(super) struct ProcessLimits {
    pub(super) limits: Limits,
    /// As far as the file says.
    shards: usize,
    set: RouteKeys,
}

/// The keys that a route may set as well, where they are set. Sizes fit a `usize` and counts a `u32`, by their ranges.
#[derive(Default)]
struct RouteKeys {
    message_bytes: Option<At<u64>>,
    message_fragments: Option<At<u64>>,
    message_timeout: Option<At<u64>>,
    control_frames: Option<At<u64>>,
    control_window: Option<At<u64>>,
    outbox_soft: Option<At<u64>>,
    outbox_hard: Option<At<u64>>,
    ping_interval: Option<At<u64>>,
    pong_timeout: Option<At<u64>>,
    close_timeout: Option<At<u64>>,
    idle_timeout: Option<At<u64>>,
    rates: RateKeys,
}

impl ProcessLimits {
    pub(super) fn read(report: &mut Report<'_>, section: Option<&Section<'_>>, shards: Option<u64>) -> Self {
        let mut limits = Limits::default();
        let shards = shards.unwrap_or(1) as usize;
        let Some(section) = section else { return Self { limits, shards, set: RouteKeys::default() } };
        let set = RouteKeys::read(report, section);
        set.apply(&mut limits);
        set.rates.apply(report, &mut limits.rates);
        limits.addresses = rates::addresses(report, section);

        let size = |value: At<u64>| value.value as usize;
        let count = |value: At<u64>| value.value as u32;
        if let Some(value) = section.integer(report, "max_sessions", 1..=100_000_000) {
            limits.max_sessions = Some(size(value));
        }
        if let Some(value) = section.size(report, "memory", MIB..=1024 * GIB) {
            limits.memory_bytes = Some(size(value));
        }
        let head = section.size(report, "head_bytes", 256..=MIB);
        let line = section.size(report, "request_line_bytes", 64..=MIB);
        if let Some(value) = &head {
            limits.head_bytes = value.value as usize;
        }
        if let Some(value) = &line {
            limits.request_line_bytes = value.value as usize;
        }
        if limits.request_line_bytes > limits.head_bytes {
            let (line_text, head_text) =
                (size_text(limits.request_line_bytes as u64), size_text(limits.head_bytes as u64));
            let span = line.or(head).map_or(section.span.clone(), |at| at.span);
            let message = format!(
                "request_line_bytes ({line_text}) is more than head_bytes ({head_text}), of which it is a part"
            );
            report.relation(span, message);
        }
        if let Some(value) = section.integer(report, "head_fields", 1..=1000) {
            limits.head_fields = size(value);
        }
        if let Some(value) = section.duration(report, "head_timeout", 1) {
            limits.head_timeout_ms = value.value;
        }
        if let Some(value) = section.duration(report, "write_timeout", 1) {
            limits.write_timeout_ms = value.value;
        }
        if let Some(value) = section.size(report, "linger_bytes", 0..=GIB) {
            limits.linger_bytes = size(value);
        }
        if let Some(value) = section.integer(report, "receive_buffers", 16..=32_768) {
            if !value.value.is_power_of_two() {
                let near = value.value.next_power_of_two();
                let message = format!("receive_buffers must be a power of two, like {near}");
                report.relation(value.span.clone(), message);
            }
            limits.receive_buffers = count(value);
        }
        if let Some(value) = section.integer(report, "inflaters", 1..=65_536) {
            limits.inflaters = count(value);
        }
        if let Some(value) = section.integer(report, "deflaters", 1..=65_536) {
            limits.deflaters = count(value);
        }
        if let Some(value) = section.size(report, "takeover_bytes", 0..=1024 * GIB) {
            limits.takeover_bytes = size(value);
        }
        if let Some(value) = section.integer(report, "log_entries", 0..=1_000_000_000) {
            limits.log_entries = count(value);
        }
        if let Some(value) = section.integer(report, "compression_level", 1..=9) {
            limits.compression_level = value.value as u8;
        }
        set.check_outbox(report, &limits.route_limits());
        Self { limits, shards, set }
    }

    /// The limits of a route with these of its own.
    pub(super) fn route(&self, report: &mut Report<'_>, section: Option<&Section<'_>>) -> RouteLimits {
        let own = section.map(|section| RouteKeys::read(report, section)).unwrap_or_default();
        let mut limits = self.limits.clone();
        // A larger message needs more room, where nothing was said about the room: see `apply`.
        if self.set.outbox_hard.is_none() {
            limits.outbox_hard_bytes = Limits::default().outbox_hard_bytes;
        }
        own.apply_after(&self.set, &mut limits);
        own.rates.apply(report, &mut limits.rates);
        let mut limits = limits.route_limits();
        let most = section.and_then(|section| section.integer(report, "max_sessions", 1..=100_000_000));
        limits.max_sessions = most.map(|most| most.value as usize);
        own.check_outbox(report, &limits);
        limits
    }

    /// Whether the memory for context takeover, asked for at `span`, is enough for one session.
    pub(super) fn check_takeover(&self, report: &mut Report<'_>, span: &Range<usize>) {
        let (budget, needed) = (self.limits.takeover_bytes, SESSION_TAKEOVER_BYTES * self.shards);
        if budget < needed {
            let (budget, needed) = (size_text(budget as u64), size_text(needed as u64));
            let shards = if self.shards == 1 { "" } else { " for so many shards" };
            let message = format!(
                "context takeover needs takeover_bytes of at least {needed} in [limits]{shards}, not {budget}"
            );
            report.relation(span.clone(), message);
        }
    }
}

impl RouteKeys {
    fn read(report: &mut Report<'_>, section: &Section<'_>) -> Self {
        Self {
            message_bytes: section.size(report, "message_bytes", 1..=MESSAGE_MOST),
            message_fragments: section.integer(report, "message_fragments", 1..=u64::from(u32::MAX)),
            message_timeout: section.duration(report, "message_timeout", 1),
            control_frames: section.integer(report, "control_frames", 1..=65_535),
            control_window: section.duration(report, "control_window", 1),
            outbox_soft: section.size(report, "outbox_soft", KIB..=MESSAGE_MOST),
            outbox_hard: section.size(report, "outbox_hard", KIB..=GIB),
            ping_interval: section.duration(report, "ping_interval", 0),
            pong_timeout: section.duration(report, "pong_timeout", 1),
            close_timeout: section.duration(report, "close_timeout", 1),
            idle_timeout: section.duration(report, "idle_timeout", 0),
            rates: RateKeys::read(report, section),
        }
    }

    fn apply(&self, limits: &mut Limits) {
        self.apply_after(&Self::default(), limits);
    }

    /// Puts what is set here over `limits`, in which `outer` stands already.
    fn apply_after(&self, outer: &Self, limits: &mut Limits) {
        let size = |into: &mut usize, key: &Option<At<u64>>| {
            if let Some(at) = key {
                *into = at.value as usize;
            }
        };
        let count = |into: &mut u32, key: &Option<At<u64>>| {
            if let Some(at) = key {
                *into = at.value as u32;
            }
        };
        let time = |into: &mut u64, key: &Option<At<u64>>| {
            if let Some(at) = key {
                *into = at.value;
            }
        };
        size(&mut limits.message_bytes, &self.message_bytes);
        count(&mut limits.message_fragments, &self.message_fragments);
        time(&mut limits.message_timeout_ms, &self.message_timeout);
        count(&mut limits.control_frames, &self.control_frames);
        time(&mut limits.control_window_ms, &self.control_window);
        size(&mut limits.outbox_soft_bytes, &self.outbox_soft);
        size(&mut limits.outbox_hard_bytes, &self.outbox_hard);
        time(&mut limits.ping_interval_ms, &self.ping_interval);
        time(&mut limits.pong_timeout_ms, &self.pong_timeout);
        time(&mut limits.close_timeout_ms, &self.close_timeout);
        time(&mut limits.idle_timeout_ms, &self.idle_timeout);
        if self.outbox_hard.is_none() && outer.outbox_hard.is_none() {
            // Up to the soft limit, then one more message and what had arrived before the pause took effect.
            let room = limits.outbox_soft_bytes + limits.message_bytes + MIB as usize;
            limits.outbox_hard_bytes = limits.outbox_hard_bytes.max(room);
        }
    }

    /// The soft limit below the hard one; told where one of them is set here. Inside a route only what the route
    /// sets is its mistake: the rest was told at `[limits]`.
    fn check_outbox(&self, report: &mut Report<'_>, limits: &RouteLimits) {
        let (soft, hard) = (limits.outbox_soft_bytes, limits.outbox_hard_bytes);
        if soft <= hard {
            return;
        }
        if let Some(At { span, .. }) = self.outbox_soft.as_ref().or(self.outbox_hard.as_ref()) {
            let (soft, hard) = (size_text(soft as u64), size_text(hard as u64));
            report.relation(span.clone(), format!("outbox_soft ({soft}) is more than outbox_hard ({hard})"));
        }
    }
}
