//! The arguments of `fanout`.

use clap::Args;

use super::{Common, Messages, NoPlan, Timing, share, usage};
use crate::{
    fanout::{AdapterName, Echo, Fanout},
    plan::{Load, Plan, Scenario},
    units,
};

#[derive(Args, Debug)]
pub(super) struct FanoutArguments {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    messages: Messages,
    /// Sessions that publish
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    publishers: u32,
    /// Sessions that subscribe [default: -c]
    #[arg(long, value_name = "N", conflicts_with = "connections", value_parser = clap::value_parser!(u32).range(1..=4_000_000))]
    subscribers: Option<u32>,
    /// Topics; publishers and subscribers are spread over them
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    topics: u32,
    /// How the server publishes
    #[arg(long, value_name = "NAME", default_value = "broadcast")]
    adapter: AdapterName,
    /// Whether a publisher must hear its own messages (yes), must not (no), or either
    #[arg(long, value_name = "WHETHER", default_value = "any", value_parser = echo)]
    echo_to_sender: Echo,
    /// The share of subscribers that never read: 0.1 or 10% [default: none]
    #[arg(long, value_name = "SHARE", value_parser = share)]
    share: Option<f64>,
    /// Conflation keys: publications have so many in turn [default: none; needs --adapter tidegate]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true, value_parser = clap::value_parser!(u32).range(..=1_000_000))]
    keys: u32,
    #[command(flatten)]
    timing: Timing,
    /// Messages published for each second over all publishers, whether deliveries come or not (open loop)
    #[arg(short = 'R', long, value_name = "RATE", allow_hyphen_values = true, value_parser = units::rate, conflicts_with = "depth")]
    rate: Option<f64>,
}

impl FanoutArguments {
    pub(super) fn plan(mut self) -> Result<Plan, NoPlan> {
        let subscribers = self.subscribers.unwrap_or(self.common.connections);
        let fanout = Fanout {
            publishers: self.publishers,
            subscribers,
            topics: self.topics,
            adapter: self.adapter,
            echo: self.echo_to_sender,
            share: self.share.unwrap_or(0.0),
            keys: self.keys,
        };
        if fanout.topics > 1 && !fanout.adapter.has_topics(&self.common.url.path) {
            return Err(usage(
                "more than one topic needs --adapter tidegate, or --adapter nchan and a URL with {topic} in its path",
            ));
        }
        if fanout.keys > 0 && fanout.adapter != AdapterName::Tidegate {
            return Err(usage("--keys needs --adapter tidegate: others have no place for a key"));
        }
        if fanout.topics > subscribers {
            return Err(usage("each topic needs a subscriber"));
        }
        if fanout.topics > fanout.publishers && !fanout.adapter.names_topics() {
            return Err(usage(
                "each topic needs a publisher: with this adapter one publishes on one topic alone",
            ));
        }
        let kind = self.messages.kind();
        if !self.messages.size.sizes.tell_time(kind) {
            return Err(usage(
                "fanout needs messages that tell whose they are: -s 20 or more, with --text 27",
            ));
        }
        if self.common.deflate {
            return Err(usage("fanout does not speak permessage-deflate: leave --deflate out"));
        }
        if let Some(own) = fanout.adapter.adapter().subprotocol()
            && !self.common.subprotocols.iter().any(|offered| offered == own)
        {
            self.common.subprotocols.insert(0, own.to_owned());
        }
        let Timing { duration, warmup } = self.timing;
        self.common.connections = fanout.publishers + subscribers;
        let (scenario, load) = (Scenario::Fanout(fanout), Load::from_rate(self.rate));
        self.common.plan(scenario, Some(&self.messages), load, duration, warmup)
    }
}

fn echo(text: &str) -> Result<Echo, String> {
    match text {
        "any" => Ok(Echo::Any),
        "yes" => Ok(Echo::Expected),
        "no" => Ok(Echo::Unexpected),
        _ => Err("yes, no or any".into()),
    }
}
