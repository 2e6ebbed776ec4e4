//! Which brokers can't be reached or want to be left alone, and why: for the errors of records that
//! never got away, and for a log in which a failure that comes again and again is told once, then
//! as a number.
//!
//! The sender thread tells it of nodes, connections and their ends.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::claims;
use crate::client::NodeAddress;
use crate::sync::Arc;
use crate::time::MonoTime;
use crate::types::NodeId;

/// What is known of each node's reachability.
#[derive(Debug, Default)]
pub(super) struct Reach {
    nodes: BTreeMap<NodeId, Known>,
    /// The bootstrap server that named the brokers.
    told_by: Option<Arc<str>>,
    /// The last failure to reach any broker, until one is reached or answers.
    last: Option<Arc<str>>,
}

#[derive(Debug)]
struct Known {
    address: NodeAddress,
    was_reached: bool,
    /// The last connection came to stand, and if it has ended then for lack of use.
    is_reached: bool,
    /// Why the last attempt failed, until one succeeds.
    trouble: Option<Arc<str>>,
    throttle: Option<Throttle>,
}

/// A broker's wish to be sent nothing.
#[derive(Debug)]
struct Throttle {
    delay: Duration,
    until: MonoTime,
}

impl Reach {
    /// The full set of nodes. What is known of one stays as long as its address does, also while
    /// it is not among them: a re-bootstrap leaves the brokers and comes back to them. But they
    /// lose their connections then, at once or soon. Says whether there is anything new.
    pub(super) fn set_nodes(&mut self, nodes: &[NodeAddress]) -> bool {
        let mut has_new = false;
        if self.nodes.len() > MAX_KNOWN + nodes.len() {
            self.nodes.clear();
        }
        let there: BTreeSet<NodeId> = nodes.iter().map(|node| node.id).collect();
        for (id, known) in &mut self.nodes {
            if known.is_reached && !there.contains(id) {
                known.is_reached = false;
                has_new = true;
            }
        }
        for address in nodes {
            if self.nodes.get(&address.id).is_none_or(|known| known.address != *address) {
                let (id, address) = (address.id, address.clone());
                let known = Known {
                    address,
                    was_reached: false,
                    is_reached: false,
                    trouble: None,
                    throttle: None,
                };
                self.nodes.insert(id, known);
                has_new = true;
            }
        }
        self.invariants();
        has_new
    }

    /// This node has described the cluster.
    pub(super) fn on_metadata(&mut self, from: NodeId) {
        if from.0 >= 0 {
            self.last = None;
        }
        if let Some(server) = self.nodes.get(&from).filter(|_| from.0 < 0) {
            self.told_by = Some(server.address.name().into());
        }
    }

    /// A connection came to stand.
    pub(super) fn on_connected(&mut self, node: NodeId) {
        if let Some(known) = self.nodes.get_mut(&node) {
            (known.was_reached, known.is_reached, known.trouble) = (true, true, None);
            // A bootstrap server may be reached where no broker is.
            self.last = self.last.take().filter(|_| node.0 < 0);
        }
        self.invariants();
    }

    /// A connection that stood was lost.
    pub(super) fn on_lost(&mut self, node: NodeId) {
        if let Some(known) = self.nodes.get_mut(&node) {
            known.is_reached = false;
        }
    }

    /// The node was reached, and nothing went wrong since.
    pub(super) fn is_reached(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|known| known.is_reached)
    }

    /// The brokers that are reached, and why the others aren't, as far as either is known.
    pub(super) fn all(&self) -> BTreeMap<NodeId, Result<(), Arc<str>>> {
        let tried = |(id, known): (&NodeId, &Known)| match &known.trouble {
            _ if id.0 < 0 => None,
            Some(trouble) => Some((*id, Err(Arc::clone(trouble)))),
            None => known.is_reached.then_some((*id, Ok(()))),
        };
        self.nodes.iter().filter_map(tried).collect()
    }

    /// An attempt to connect failed. Gives the reason, with a hint where the address is one that
    /// the cluster itself gave, and nobody was ever met there.
    pub(super) fn on_unreachable(&mut self, node: NodeId, reason: &str) -> Arc<str> {
        let told_by = self.told_by.as_deref();
        let Some(known) = self.nodes.get_mut(&node) else { return reason.into() };
        let text: Arc<str> = if node.0 < 0 || known.was_reached {
            reason.into()
        } else {
            let address = &known.address;
            let via = told_by.map(|server| format!(" via {server}")).unwrap_or_default();
            format!(
                "{reason} (broker {node} advertised {address}{via}, and was never reached \
                 there: if it runs, check its advertised.listeners)"
            )
            .into()
        };
        (known.is_reached, known.trouble) = (false, Some(Arc::clone(&text)));
        if node.0 >= 0 {
            self.last = Some(Arc::clone(&text));
        }
        self.invariants();
        text
    }

    /// The node is to be sent nothing for `delay`; an earlier wish that goes on for longer stays.
    pub(super) fn on_throttle(&mut self, node: NodeId, delay: Duration, now: MonoTime) {
        let until = now + delay;
        let Some(known) = self.nodes.get_mut(&node) else { return };
        if known.throttle.as_ref().is_none_or(|throttle| throttle.until <= until) {
            known.throttle = Some(Throttle { delay, until });
        }
        self.invariants();
    }

    /// A node goes by its own name; one that is reached was reached, and nothing is wrong with it.
    fn invariants(&self) {
        if claims::are_checked() && self.nodes.len() <= 64 {
            for (id, known) in &self.nodes {
                assert_eq!(known.address.id, *id, "{known:?}");
                let is_well = known.was_reached && known.trouble.is_none();
                assert!(is_well || !known.is_reached, "{known:?}");
            }
        }
    }

    /// For how long the leader of a partition wanted to be left alone, if that still goes on.
    pub(super) fn throttle(&self, leader: Option<NodeId>, now: MonoTime) -> Option<Duration> {
        let throttle = self.nodes.get(&leader?)?.throttle.as_ref()?;
        (throttle.until > now).then_some(throttle.delay)
    }

    /// Why the leader of a partition can't be reached; without one, why no broker could be.
    pub(super) fn trouble(&self, leader: Option<NodeId>) -> Option<Arc<str>> {
        match leader {
            Some(node) => self.nodes.get(&node)?.trouble.clone(),
            None => self.last.clone(),
        }
    }
}

/// Failures of one kind in a row, for the log.
#[derive(Debug, Default)]
pub(super) struct Repeats(BTreeMap<(Subject, NodeId), Repeat>);

/// What a line in the log is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    Connection,
    Metadata,
    ProducerId,
    Rebootstrap,
}

#[derive(Debug)]
struct Repeat {
    text: String,
    told_at: MonoTime,
    /// How often it came since.
    untold: u32,
}

/// How long a failure that stays the same is only counted.
const TELL_EVERY: Duration = Duration::from_secs(30);
/// As many brokers are kept apart; past that all begin anew.
const MAX_KNOWN: usize = 1024;

impl Repeats {
    /// The line to log, if one is due.
    pub(super) fn tell(
        &mut self,
        subject: Subject,
        node: NodeId,
        text: String,
        now: MonoTime,
    ) -> Option<String> {
        if self.0.len() >= MAX_KNOWN {
            self.0.clear();
        }
        let Some(last) = self.0.get_mut(&(subject, node)) else {
            let told = Repeat { text: text.clone(), told_at: now, untold: 0 };
            self.0.insert((subject, node), told);
            self.invariants();
            return Some(text);
        };
        let is_same = last.text == text;
        if is_same && now < last.told_at + TELL_EVERY {
            last.untold += 1;
            return None;
        }
        let (times, since) = (last.untold, now.since(last.told_at).as_secs());
        let line = match (times, is_same) {
            (0, _) => text.clone(),
            (_, true) => format!("{text} ({times} times more within the last {since} s)"),
            (_, false) => format!("{text} (what was told before came {times} times more)"),
        };
        *last = Repeat { text, told_at: now, untold: 0 };
        self.invariants();
        Some(line)
    }

    /// However many brokers there were, so many are kept apart.
    fn invariants(&self) {
        debug_assert!(self.0.len() <= MAX_KNOWN, "{} failures are kept", self.0.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(id: i32, host: &str) -> NodeAddress {
        NodeAddress { id: NodeId(id), host: host.into(), port: 9092 }
    }

    fn learned() -> Reach {
        let mut reach = Reach::default();
        reach.set_nodes(&[address(-1, "kafka.example")]);
        reach.on_connected(NodeId(-1));
        reach.on_metadata(NodeId(-1));
        reach.set_nodes(&[address(1, "localhost"), address(2, "b")]);
        reach
    }

    #[test]
    fn an_address_that_was_never_any_good_is_told_with_who_gave_it() {
        let mut reach = learned();
        assert_eq!(
            &*reach.on_unreachable(NodeId(1), "refused"),
            "refused (broker 1 advertised localhost:9092 via bootstrap server kafka.example:9092, \
             and was never reached there: if it runs, check its advertised.listeners)"
        );
        assert!(reach.trouble(Some(NodeId(1))).is_some() && reach.trouble(None).is_some());
        reach.set_nodes(&[address(3, "::1")]);
        let text = reach.on_unreachable(NodeId(3), "refused");
        assert!(text.contains("advertised [::1]:9092 via"), "{text}");
        reach.on_connected(NodeId(2));
        assert!(reach.set_nodes(&[address(-1, "kafka.example")]), "a connection is gone");
        assert!(!reach.set_nodes(&[address(1, "localhost"), address(2, "b")]));
        assert!(!reach.is_reached(NodeId(2)), "it was there and is back, unconnected");
        assert!(reach.trouble(Some(NodeId(1))).is_some(), "a re-bootstrap forgets no trouble");
        assert_eq!(reach.trouble(Some(NodeId(2))), None);
    }

    #[test]
    fn a_broker_that_was_there_is_merely_down_until_its_address_is_another() {
        let mut reach = learned();
        reach.on_connected(NodeId(1));
        assert_eq!(&*reach.on_unreachable(NodeId(1), "refused"), "refused");
        assert_eq!(reach.trouble(Some(NodeId(1))).as_deref(), Some("refused"));
        assert_eq!(reach.all(), [(NodeId(1), Err("refused".into()))].into());
        reach.on_connected(NodeId(1));
        assert_eq!((reach.trouble(Some(NodeId(1))), reach.trouble(None)), (None, None));
        assert_eq!(reach.all(), [(NodeId(1), Ok(()))].into());
        reach.on_lost(NodeId(1));
        assert_eq!(reach.all(), [].into(), "it may be back, but nobody knows");
        reach.on_connected(NodeId(1));
        reach.on_unreachable(NodeId(2), "refused");
        reach.on_metadata(NodeId(1));
        assert_eq!(reach.trouble(None), None, "a broker that answers was reached");
        assert!(!reach.set_nodes(&[address(1, "localhost")]) && reach.is_reached(NodeId(1)));
        assert!(reach.set_nodes(&[address(1, "elsewhere")]) && !reach.is_reached(NodeId(1)));
        assert!(reach.on_unreachable(NodeId(1), "refused").contains("advertised elsewhere:9092"));
    }

    #[test]
    fn a_broker_is_left_alone_for_as_long_as_it_wished_at_most() {
        let mut reach = learned();
        let at = |millis| MonoTime::ZERO + Duration::from_millis(millis);
        let node = Some(NodeId(1));
        reach.on_throttle(NodeId(1), Duration::from_millis(50), at(0));
        reach.on_throttle(NodeId(1), Duration::from_millis(10), at(20));
        assert_eq!(reach.throttle(node, at(49)), Some(Duration::from_millis(50)));
        assert_eq!((reach.throttle(node, at(50)), reach.throttle(None, at(0))), (None, None));
    }

    #[test]
    fn a_failure_that_stays_the_same_is_told_once_and_then_as_a_number() {
        let mut repeats = Repeats::default();
        let at = |seconds| MonoTime::ZERO + Duration::from_secs(seconds);
        let mut tell = |text: &str, seconds| {
            repeats.tell(Subject::Connection, NodeId(1), text.to_owned(), at(seconds))
        };
        assert_eq!(tell("refused", 0).as_deref(), Some("refused"));
        for seconds in 1..30 {
            assert_eq!(tell("refused", seconds), None);
        }
        let counted = "refused (29 times more within the last 30 s)";
        assert_eq!(tell("refused", 30).as_deref(), Some(counted));
        assert_eq!(tell("refused", 31), None);
        let other = "timed out (what was told before came 1 times more)";
        assert_eq!(tell("timed out", 32).as_deref(), Some(other));
    }
}
