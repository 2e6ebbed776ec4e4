//! Metrics: what the producer does, in numbers, under the names that Kafka's clients gave them.
//!
//! - `stats`: rates, averages and maxima over a window of time; `histogram`: percentiles
//! - `sensors`: where what happens is recorded, behind one leaf lock
//! - `figures`, `snapshot`: the values as they are handed out
//! - `catalogue`: each metric's group, name, unit and meaning, and where its value stands
//! - `prometheus`: the text that Prometheus reads
//!
//! The sender and its client record by the request and by the batch, and users' threads where they
//! wait; nothing is recorded for a single record. Whoever reads measures what was recorded, and
//! asks the queues, the pool and the callbacks for what they hold.

mod catalogue;
mod figures;
mod histogram;
mod prometheus;
mod sensors;
mod snapshot;
mod stats;
#[cfg(test)]
mod tests;

pub use self::catalogue::{Metric, MetricKind};
pub use self::figures::{Average, IoTime, Meter, Percentiles};
pub use self::prometheus::prometheus_text;
pub(crate) use self::sensors::{BatchSent, SensorSettings, Sensors, SharedSensors, Traffic};
pub(crate) use self::snapshot::{Gauges, Queued};
pub use self::snapshot::{Metrics, NodeMetrics, ProducerMetrics, TopicMetrics, TrafficMetrics};
pub(crate) use self::stats::Window;
