//! The way to the dispatcher: what may be told it. Knows nothing of what the dispatcher does with it.

use fleetward_domain::work::run::RunState;
use fleetward_protocol::id::{HostId, OperationId, RunId};
use tokio::sync::mpsc;

/// Tells the dispatcher what happens. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Dispatcher(mpsc::UnboundedSender<Message>);

/// A run whose state is committed, or was found to be this.
#[derive(Debug, Clone)]
pub struct RunStateChange {
    /// Its operation.
    pub operation: OperationId,
    /// The run.
    pub run: RunId,
    /// Its state.
    pub state: RunState,
}

// The queue is unbounded because its senders must not wait for the dispatcher, which waits for the recorder. What
// is in it is bounded by what can happen: the recorder's batches, the connected hosts, the operations.
#[derive(Debug)]
pub(crate) enum Message {
    Created(OperationId),
    Stop(OperationId),
    Online(HostId),
    Offline(HostId),
    Gone(HostId),
    Moved(Vec<RunStateChange>),
    Shutdown,
}

/// What the dispatcher's task reads.
#[derive(Debug)]
pub(crate) struct Inbox(pub(crate) mpsc::UnboundedReceiver<Message>);

impl Dispatcher {
    pub(crate) fn new() -> (Self, Inbox) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), Inbox(receiver))
    }

    /// An operation was committed.
    pub fn created(&self, operation: OperationId) {
        self.tell(Message::Created(operation));
    }

    /// That an operation should stop was committed.
    pub fn stop(&self, operation: OperationId) {
        self.tell(Message::Stop(operation));
    }

    /// The host is connected, and may be given runs.
    pub fn host_online(&self, host: HostId) {
        self.tell(Message::Online(host));
    }

    /// The host is not connected any more, or may not be given runs.
    pub fn host_offline(&self, host: HostId) {
        self.tell(Message::Offline(host));
    }

    /// The host was retired or revoked: it will never report anything again.
    pub fn host_gone(&self, host: HostId) {
        self.tell(Message::Gone(host));
    }

    /// Ends the task. Everything is taken up again at the next start.
    pub fn shutdown(&self) {
        self.tell(Message::Shutdown);
    }

    /// Returns when the task has ended: it changes nothing any more.
    pub async fn stopped(&self) {
        self.0.closed().await;
    }

    pub(crate) fn moved(&self, moved: Vec<RunStateChange>) {
        if !moved.is_empty() {
            self.tell(Message::Moved(moved));
        }
    }

    fn tell(&self, message: Message) {
        // Fails only while the controller shuts down; everything is taken up again at the next start.
        let _ = self.0.send(message);
    }
}
