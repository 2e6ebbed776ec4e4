//! From configuration to a running producer: no I/O here, but for the threads' start.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use super::core::Core;
use super::interceptor::{Interceptors, Named, ProducerInterceptor};
use super::partitioner::{BuiltInRules, Partitioner};
use super::{Handle, KafkaProducer};
use crate::accumulator::inbox::Inbox;
use crate::accumulator::shares::ShareLimits;
use crate::accumulator::topic_map::Placing;
use crate::accumulator::{AccumulatorConfig, RecordAccumulator};
use crate::client::{ClientConfig, Lookup, NetworkClient, ThreadResolver};
use crate::completion::{
    CallbackExecutor, EventListener, Executor, ExecutorKind, Guests, Slots, guarded,
};
use crate::config::{ProducerBuilder, ProducerConfig, RecordingLevel};
use crate::error::Error;
use crate::event::ProducerEvent;
use crate::metadata::{Metadata, MetadataSettings};
use crate::metrics::{SensorSettings, SharedSensors, Window};
use crate::network::{MioNet, Net, SocketOptions, Wake};
use crate::random::Random;
use crate::sender::thread::{self, Ending};
use crate::sender::{Sender, SenderConfig};
use crate::sync::{Arc, Mutex, OnceLock};
use crate::threads::Process;
use crate::time::Clock;

/// Who runs callbacks.
#[derive(Clone)]
#[non_exhaustive]
pub enum Callbacks {
    /// So many threads of the producer's own, at least one; the default, with `callback.threads`.
    Threads(usize),
    /// The sender's own thread, as Java does it: while a callback runs nothing is sent. Here to
    /// show what that costs.
    Inline,
    /// The user's thread pool.
    Executor(Arc<dyn Executor>),
}

impl fmt::Debug for Callbacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Threads(threads) => write!(f, "Threads({threads})"),
            Self::Inline => f.write_str("Inline"),
            Self::Executor(_) => f.write_str("Executor"),
        }
    }
}

/// What a builder holds beside keys and values.
#[derive(Clone, Default)]
pub(crate) struct Parts {
    callbacks: Option<Callbacks>,
    partitioner: Option<Arc<dyn Partitioner>>,
    interceptors: Vec<Named>,
    events: Option<EventListener>,
    lookup: Option<Arc<Lookup>>,
}

/// Values that no key can name, and the end of building.
impl ProducerBuilder {
    /// Says who runs callbacks; overrides `callback.threads`.
    pub fn callbacks(mut self, callbacks: Callbacks) -> Self {
        self.parts.callbacks = Some(callbacks);
        self
    }

    /// Has this rule choose the partitions of records that name none; overrides
    /// `partitioner.class`.
    pub fn partition_by(mut self, partitioner: impl Partitioner + 'static) -> Self {
        self.parts.partitioner = Some(Arc::new(partitioner));
        self
    }

    /// Adds an interceptor at the end of the chain. The chain is told of each record before
    /// anything else is done with it; see [`ProducerInterceptor`]. Takes the place of Java's
    /// `interceptor.classes`.
    pub fn interceptor(mut self, interceptor: impl ProducerInterceptor + 'static) -> Self {
        self.parts.interceptors.push(Named::new(interceptor));
        self
    }

    /// Has this closure told of what a program may want to act upon though no record of its own
    /// fails: [`ProducerEvent`]. By default nobody is told.
    ///
    /// It is called on a callback thread, never on the sender's (but under [`Callbacks::Inline`]),
    /// in order with the lines of the log, and may do what a callback may. Its panics are logged.
    /// Of events that come faster than it takes them up to 512 wait; what is lost beyond that is
    /// counted in the log.
    pub fn on_event(mut self, listener: impl Fn(&ProducerEvent) + Send + Sync + 'static) -> Self {
        self.parts.events = Some(EventListener::new(listener));
        self
    }

    /// Has this closure find the addresses of a host, with the port that they are to have, in place
    /// of the system's resolver: for names that are in a service registry, or for addresses behind
    /// a tunnel. `client.dns.lookup` says nothing then.
    ///
    /// It is asked for `bootstrap.servers` and for the hosts that brokers name, each time that a
    /// connection is to be made; an address that is given as such is taken as it is. All addresses
    /// are tried. An error, or no address at all, counts as a connection that failed: it is tried
    /// again after `reconnect.backoff.ms`, and its text stands in the causes of time-outs.
    ///
    /// It runs on the resolver's thread, never on the sender's, one name at a time, and may take
    /// its time: other names wait for it, and nothing else. A panic counts as an error. One that is
    /// still asking when a close's time is over is left to itself
    /// ([`CloseReport::threads_stuck`](crate::CloseReport::threads_stuck)).
    pub fn resolve_with(
        mut self,
        lookup: impl Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> Self {
        self.parts.lookup = Some(Arc::new(lookup));
        self
    }

    /// Starts the producer. Connects to nothing yet: that is the sender thread's work, and what
    /// goes wrong there shows in `wait_ready`, in calls that wait, and in the log.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration is wrong, or if the system has no thread or file
    /// descriptor to give.
    pub fn build(&self) -> Result<KafkaProducer, Error> {
        start(self.build_config()?, &self.parts)
    }

    #[cfg(test)]
    pub(crate) fn build_in<N: Net + Send + 'static>(
        &self,
        surroundings: Surroundings<N>,
    ) -> Result<KafkaProducer, Error> {
        start_in(self.build_config()?, &self.parts, surroundings)
    }
}

impl KafkaProducer {
    /// A builder; only `bootstrap_servers` has no default.
    pub fn builder() -> ProducerBuilder {
        ProducerBuilder::default()
    }

    /// A producer from a checked configuration.
    ///
    /// # Errors
    /// [`Error::Config`] if the system has no thread or file descriptor to give.
    pub fn from_config(config: ProducerConfig) -> Result<Self, Error> {
        start(config, &Parts::default())
    }

    /// A producer from Kafka's own keys and values.
    ///
    /// # Errors
    /// As [`ProducerConfig::from_properties`] and [`from_config`](Self::from_config).
    pub fn from_properties<K, V>(entries: impl IntoIterator<Item = (K, V)>) -> Result<Self, Error>
    where
        K: AsRef<str>,
        V: AsRef<str>,
    {
        Self::from_config(ProducerConfig::from_properties(entries)?)
    }
}

/// What a producer lives in: the machine, or a simulated world.
pub(crate) struct Surroundings<N> {
    pub(crate) clock: Clock,
    pub(crate) net: N,
    /// Ends the net's poll.
    pub(crate) waker: Arc<dyn Wake>,
    pub(crate) resolver: ThreadResolver,
    /// Decides what is left to chance.
    pub(crate) seed: u64,
}

fn start(config: ProducerConfig, parts: &Parts) -> Result<KafkaProducer, Error> {
    let clock = Clock::system();
    let (net, waker) = MioNet::new(clock.clone()).map_err(refused_by_system)?;
    let seed = seed(&clock, Process::current());
    let wake = Arc::clone(&waker) as _;
    let resolver = match parts.lookup.clone() {
        Some(lookup) => ThreadResolver::with_lookup(wake, guarded_lookup(lookup)),
        None => ThreadResolver::new(wake),
    };
    start_in(config, parts, Surroundings { clock, net, waker, resolver, seed })
}

/// The user's lookup: what panics there is an error of it.
fn guarded_lookup(lookup: Arc<Lookup>) -> Box<Lookup> {
    Box::new(move |host, port| {
        let mut found = Ok(Vec::new());
        guarded(|| found = lookup(host, port))
            .map_err(|panic| io::Error::other(format!("the lookup panicked: {panic}")))?;
        found
    })
}

fn refused_by_system(error: io::Error) -> Error {
    Error::Config(format!("the system refuses what a producer needs: {error}").into())
}

/// Starts a producer anywhere.
pub(crate) fn start_in<N: Net + Send + 'static>(
    config: ProducerConfig,
    parts: &Parts,
    surroundings: Surroundings<N>,
) -> Result<KafkaProducer, Error> {
    let Surroundings { clock, net, waker, resolver, seed } = surroundings;
    let process = Process::current();
    let name = client_id(&config);
    let bell = Arc::new(move || waker.wake());
    let inbox = Arc::new(Inbox::new(bell, process));
    let memory = usize::try_from(config.buffer_memory).unwrap_or(usize::MAX);
    let sensors = Arc::new(SharedSensors::new(sensor_settings(&config)));
    let accumulator = accumulator_config(&config, memory, seed);
    let mut accumulator = RecordAccumulator::new(accumulator, inbox, clock.clone());
    accumulator.sensors = Arc::clone(&sensors);
    let accumulator = Arc::new(accumulator);
    let slots = Arc::new(Slots::new(config.callback_max_pending));
    let kind = match parts.callbacks.clone() {
        None => ExecutorKind::Threads(config.callback_threads),
        Some(Callbacks::Threads(threads)) => ExecutorKind::Threads(threads.max(1)),
        Some(Callbacks::Inline) => ExecutorKind::Inline,
        Some(Callbacks::Executor(executor)) => ExecutorKind::Custom(executor),
    };
    let guests = Guests {
        listener: parts.events.clone(),
        kept: parts.lookup.clone().map(|lookup| Arc::new(lookup) as _),
    };
    let executor =
        CallbackExecutor::start(kind, guests, &name, slots).map_err(refused_by_system)?;
    let executor = Arc::new(executor);
    let mut random = Random::new(seed);
    let spread = Random::new(random.next_u64());
    let metadata = Metadata::new(MetadataSettings::from(&config), spread);
    let cell = Arc::clone(metadata.cell());
    let resolver_thread = resolver.thread();
    let client = NetworkClient::new(net, resolver, client_config(&config, &name, seed))
        .recording_to(sensors);
    let sender = Sender::new(
        sender_config(&config),
        Arc::clone(&accumulator),
        client,
        metadata,
        Arc::clone(&executor),
        random,
    );
    let ending = Arc::new(Ending::default());
    let thread =
        thread::start(&name, sender, clock.clone(), Arc::clone(&executor), Arc::clone(&ending))
            .map_err(refused_by_system)?;
    let interceptors = Interceptors::new(&parts.interceptors, &clock, process);
    let max_plain_size = match interceptors {
        Some(_) => 0,
        None => config.max_request_size.min(memory),
    };
    let core = Core {
        accumulator,
        metadata: cell,
        executor,
        rules: BuiltInRules::new(config.partitioner, config.partitioner_ignore_keys),
        partitioner: parts.partitioner.clone(),
        interceptors,
        max_block: config.max_block,
        max_request_size: config.max_request_size,
        max_plain_size,
        close_on_drop_timeout: config.close_on_drop_timeout,
        client_id: name.into(),
        start_time_ms: clock.wall_millis(),
        clock,
        process,
        ending,
        sender_thread: Mutex::new(Some(thread)),
        resolver: resolver_thread,
        report: OnceLock::new(),
    };
    Ok(KafkaProducer { handle: Arc::new(Handle { core: Arc::new(core) }) })
}

/// The name of the producer, and of its threads: `client.id`, or one that is made up.
fn client_id(config: &ProducerConfig) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    if config.client_id.is_empty() {
        format!("producer-{}", NEXT.fetch_add(1, Ordering::Relaxed))
    } else {
        config.client_id.clone()
    }
}

/// Producers that start together are not to back off together.
fn seed(clock: &Clock, process: Process) -> u64 {
    (clock.wall_millis() as u64) ^ (u64::from(process.id()) << 44)
}

fn accumulator_config(config: &ProducerConfig, memory: usize, seed: u64) -> AccumulatorConfig {
    AccumulatorConfig {
        batch_size: config.batch_size,
        linger: config.linger,
        memory,
        shares: ShareLimits {
            partition: ShareLimits::bytes(memory, config.partition_share),
            broker: ShareLimits::bytes(memory, config.broker_share),
            in_use_for: config.metadata_max_idle,
        },
        placing: Placing { adaptive: config.partitioner_adaptive, seed },
    }
}

fn sender_config(config: &ProducerConfig) -> SenderConfig {
    SenderConfig {
        acks: config.acks.as_i16(),
        idempotent: config.enable_idempotence,
        one_in_flight: config.max_in_flight == 1,
        max_request_size: config.max_request_size,
        request_timeout: config.request_timeout,
        delivery_timeout: config.delivery_timeout,
        linger: config.linger,
        retries: config.retries,
        retry_backoff: config.retry_backoff,
        retry_backoff_max: config.retry_backoff_max,
        wait_ends_linger: config.wait_ends_linger,
        availability_timeout: config.partitioner_availability_timeout,
    }
}

fn sensor_settings(config: &ProducerConfig) -> SensorSettings {
    SensorSettings {
        window: Window { samples: config.metrics_num_samples, span: config.metrics_sample_window },
        detailed: config.metrics_recording_level >= RecordingLevel::Debug,
    }
}

fn client_config(config: &ProducerConfig, client_id: &str, seed: u64) -> ClientConfig {
    ClientConfig {
        client_id: client_id.into(),
        max_in_flight: config.max_in_flight,
        reconnect_backoff: config.reconnect_backoff,
        reconnect_backoff_max: config.reconnect_backoff_max,
        connection_setup_timeout: config.socket_connection_setup_timeout,
        connection_setup_timeout_max: config.socket_connection_setup_timeout_max,
        connections_max_idle: config.connections_max_idle,
        socket: SocketOptions {
            send_buffer: config.send_buffer,
            receive_buffer: config.receive_buffer,
            user_timeout: Some(config.request_timeout),
            ..SocketOptions::default()
        },
        seed,
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::producer::ProducerRecord;

    /// The name server never answers, and the thread that asks it is stuck in the system.
    #[test]
    fn a_name_that_is_looked_up_for_ever_delays_no_call() {
        const SHORT: Duration = Duration::from_millis(200);
        let (release, stuck) = crossbeam_channel::bounded::<()>(0);
        let (asked, is_asked) = crossbeam_channel::unbounded();
        let lookup = move |_: &str, _| {
            let _ = asked.send(());
            let _ = stuck.recv();
            Err(io::ErrorKind::NotFound.into())
        };
        let clock = Clock::system();
        let (net, waker) = MioNet::new(clock.clone()).unwrap();
        let resolver = ThreadResolver::with_lookup(Arc::clone(&waker) as _, Box::new(lookup));
        let builder = KafkaProducer::builder().bootstrap_servers("hangs:9092").max_block(SHORT);
        let surroundings = Surroundings { clock: clock.clone(), net, waker, resolver, seed: 1 };
        let producer = builder.build_in(surroundings).unwrap();
        is_asked.recv_timeout(Duration::from_secs(20)).unwrap();
        let record = || ProducerRecord::new("t", "v");
        let within = |what: &str, call: &dyn Fn() -> bool| {
            let begun = clock.now();
            assert!(call(), "{what}");
            assert!(clock.now().since(begun) < Duration::from_secs(4), "{what} is late");
        };
        let timed_out = |error| matches!(error, Error::MetadataTimeout { .. });
        within("send", &|| timed_out(producer.send(record()).unwrap_err()));
        within("try_send", &|| {
            matches!(producer.try_send(record()).unwrap_err().error(), Error::NotReady { .. })
        });
        within("wait_ready", &|| timed_out(producer.wait_ready(&["t"], SHORT).unwrap_err()));
        within("flush", &|| producer.flush(SHORT).is_ok());
        within("close", &|| producer.close(SHORT).threads_stuck == 1);
        drop(release);
    }
}
