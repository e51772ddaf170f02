//! What a worker's sessions go by.

use std::sync::Arc;

use tidegate_wire::{Limits, close::CloseCode};

use crate::{
    fanout::FanRules,
    payload::{Fill, Payloads},
    plan::{Load, Plan, Scenario},
    session::Rules,
};

/// How long an orderly close may take at most.
const CLOSE_TIMEOUT_NS: u64 = 2_000_000_000;

pub(super) fn rules(plan: &Plan) -> Rules {
    let payloads = payloads(plan);
    let (messages, code) = match plan.scenario {
        Scenario::Churn { messages, code } => (Some(messages), code),
        Scenario::Echo
        | Scenario::Idle
        | Scenario::Storm { .. }
        | Scenario::Slow { .. }
        | Scenario::Fanout(_)
        | Scenario::Replay => (None, 1000),
    };
    let is_closed = plan.load == Load::Closed || messages.is_some();
    let timeout_ns = plan.timeout.as_nanos() as u64;
    Rules {
        // A server may push what it likes where nothing is judged.
        limits: Limits { message_bytes: payloads.max().max(1 << 20), message_fragments: 1 << 16 },
        stamps: if is_closed && !payloads.tell_time() { plan.depth as usize } else { 0 },
        payloads,
        subprotocols: plan.subprotocols.clone(),
        offer: plan.deflate,
        timeout_ns,
        close_timeout_ns: timeout_ns.min(CLOSE_TIMEOUT_NS),
        close_code: CloseCode::new(code).unwrap_or(CloseCode::NORMAL),
        judges: !matches!(plan.scenario, Scenario::Idle | Scenario::Storm { .. }),
        waits_for_answers: plan.waits_for_answers(),
        messages,
        fanout: plan.scenario.fanout().map(|fanout| {
            let depth = (plan.load == Load::Closed).then_some(plan.depth);
            FanRules::new(fanout, depth, plan.seed)
        }),
    }
}

fn payloads(plan: &Plan) -> Payloads {
    let payloads = Payloads::new(plan.sizes, plan.kind, plan.seed).with_shares(&plan.shares);
    let payloads = match &plan.trace {
        Some(trace) => payloads.with_trace(Arc::clone(trace)),
        None => payloads,
    };
    if plan.fill == Fill::Random && plan.deflate.is_none() && plan.trace.is_none() {
        return payloads;
    }
    payloads.with_fill(plan.fill, plan.deflate.is_some())
}
