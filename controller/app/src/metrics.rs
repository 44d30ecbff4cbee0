//! What is counted, in the text format that Prometheus reads.

use std::fmt;
use std::sync::Arc;

use fleetward_domain::work::operation::OperationStatus;
use fleetward_domain::work::run::RunStatus;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

/// The counters. Cheap to clone; all clones count together.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Counters>);

#[derive(Debug)]
struct Counters {
    registry: Registry,
    hosts_connected: Gauge,
    hosts_duplicate: Gauge,
    runs_ended: Family<State, Counter>,
    operations: Family<State, Counter>,
    output: Counter,
    commits: Counter,
    writes: Counter,
    logins: Family<Outcome, Counter>,
    enrolments: Family<Outcome, Counter>,
    requests: Family<Request, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    state: Word,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    result: Word,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    method: Word,
    route: String,
    status: u16,
}

/// A word out of a fixed list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Word(&'static str);

impl EncodeLabelValue for Word {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        self.0.encode(encoder)
    }
}

impl Metrics {
    pub(super) fn new() -> Self {
        let mut registry = Registry::with_prefix("fleetward");
        let counters = Counters {
            hosts_connected: Gauge::default(),
            hosts_duplicate: Gauge::default(),
            runs_ended: Family::default(),
            operations: Family::default(),
            output: Counter::default(),
            commits: Counter::default(),
            writes: Counter::default(),
            logins: Family::default(),
            enrolments: Family::default(),
            requests: Family::default(),
            registry: Registry::default(),
        };
        registry.register("hosts_connected", "Hosts that are connected", counters.hosts_connected.clone());
        registry.register(
            "hosts_duplicate",
            "Hosts whose identity two machines use",
            counters.hosts_duplicate.clone(),
        );
        registry.register("runs_ended", "Runs that ended, by their final state", counters.runs_ended.clone());
        registry.register("operations", "Operations that reached a status", counters.operations.clone());
        registry.register_with_unit(
            "output",
            "Output of runs that was committed",
            Unit::Bytes,
            counters.output.clone(),
        );
        registry.register("commits", "Transactions of the recorder", counters.commits.clone());
        registry.register("writes", "Changes of runs in them", counters.writes.clone());
        registry.register("logins", "Attempts to log in, by result", counters.logins.clone());
        registry.register("enrolments", "Attempts to enrol, by result", counters.enrolments.clone());
        registry.register("http_requests", "Requests to the API", counters.requests.clone());
        Self(Arc::new(Counters { registry, ..counters }))
    }

    /// Everything, as text (`application/openmetrics-text; version=1.0.0; charset=utf-8`).
    #[must_use]
    pub fn encode(&self, hosts_connected: usize, hosts_duplicate: usize) -> String {
        self.0.hosts_connected.set(i64::try_from(hosts_connected).unwrap_or(i64::MAX));
        self.0.hosts_duplicate.set(i64::try_from(hosts_duplicate).unwrap_or(i64::MAX));
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.0.registry);
        text
    }

    /// A request was answered. `route` is the route's pattern, not the path.
    pub fn answered(&self, method: &'static str, route: &str, status: u16) {
        let labels = Request { method: Word(method), route: route.to_owned(), status };
        self.0.requests.get_or_create(&labels).inc();
    }

    pub(super) fn committed(&self, writes: usize, bytes: usize) {
        self.0.commits.inc();
        self.0.writes.inc_by(writes as u64);
        self.0.output.inc_by(bytes as u64);
    }

    pub(super) fn run_ended(&self, status: RunStatus) {
        self.0.runs_ended.get_or_create(&State { state: Word(status.as_str()) }).inc();
    }

    pub(super) fn operation_moved(&self, status: OperationStatus) {
        self.0.operations.get_or_create(&State { state: Word(status.as_str()) }).inc();
    }

    pub(super) fn logged_in(&self, result: &'static str) {
        self.0.logins.get_or_create(&Outcome { result: Word(result) }).inc();
    }

    pub(super) fn enrolled(&self, result: &'static str) {
        self.0.enrolments.get_or_create(&Outcome { result: Word(result) }).inc();
    }
}
