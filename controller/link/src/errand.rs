//! What a host says that needs the store: worked on in order beside its session, so that heartbeats go on meanwhile.
//!
//! **What it promises.** What is over the host's budget is counted, never stored; of facts, and of what a host
//! needs, the newest wait until there is budget. What waits is bounded. What was taken is carried out, also if the session ends before.

use std::sync::Arc;
use std::time::Duration;

use fleetward_app::App;
use fleetward_app::fleet::online::Seat;
use fleetward_app::work::connection;
use fleetward_domain::bucket::TooMany;
use fleetward_domain::fleet::budget::{Allowance, Expense, Flood};
use fleetward_pki::PeerIdentity;
use fleetward_protocol::facts::{Facts, Upkeep};
use fleetward_protocol::message::{AgentMessage, ControllerMessage};
use fleetward_protocol::text::Text;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Errands of one host that may wait while the store is slow. More than the budgets allow at once.
const QUEUE: usize = 64;
/// When to ask again while the store is slow.
const LATER: Duration = Duration::from_secs(60);

/// The errands of one session.
pub(super) struct Errands {
    app: App,
    seat: Arc<Seat>,
    queue: mpsc::Sender<Errand>,
    replies: mpsc::Receiver<ControllerMessage>,
    worker: JoinHandle<()>,
    /// The newest facts, while there is no budget for them.
    facts: Option<Box<Facts>>,
    /// The same of what the host needs.
    upkeep: Option<Upkeep>,
}

/// Something that needs the store.
enum Errand {
    Facts(Box<Facts>),
    Upkeep(Upkeep),
    Notice(String),
    Renewal(Vec<u8>),
}

impl Errands {
    /// Starts the worker of a session.
    pub(super) fn start(app: App, seat: Arc<Seat>, identity: PeerIdentity) -> Self {
        let (queue, errands) = mpsc::channel(QUEUE);
        // A session that takes no replies holds up its own errands only.
        let (reply, replies) = mpsc::channel(1);
        let worker = tokio::spawn(work(app.clone(), Arc::clone(&seat), identity, errands, reply));
        Self { app, seat, queue, replies, worker, facts: None, upkeep: None }
    }

    /// Takes a message of the host's; what is to be answered at once.
    pub(super) fn take(&mut self, message: AgentMessage) -> Result<Option<ControllerMessage>, Flood> {
        match message {
            AgentMessage::Facts(facts) => self.take_facts(facts).map(|()| None),
            AgentMessage::Upkeep(upkeep) => self.take_upkeep(upkeep).map(|()| None),
            AgentMessage::Notice { text } => {
                self.take_one(Expense::Notice, Errand::Notice(text.into())).map(|_| None)
            }
            AgentMessage::Renew { csr } => {
                let beyond = self.take_one(Expense::Renewal, Errand::Renewal(csr))?;
                Ok(beyond.map(|TooMany { retry_after }| {
                    let wait = retry_after.as_secs();
                    let reason = Text::of(format_args!("too many renewals; ask again in {wait} s"));
                    ControllerMessage::RenewRefused { reason }
                }))
            }
            // The session's machine answers these itself.
            AgentMessage::Hello(_) | AgentMessage::Heartbeat { .. } | AgentMessage::Goodbye => Ok(None),
        }
    }

    /// Stores what waits, if there is budget again. To be called now and then.
    pub(super) fn retry(&mut self) {
        let (budgets, host) = (self.app.budgets(), self.seat.host);
        if self.facts.is_some()
            && let Ok(slot) = self.queue.try_reserve()
            && budgets.admits(&self.app, host, Expense::Facts)
            && let Some(facts) = self.facts.take()
        {
            slot.send(Errand::Facts(facts));
        }
        if self.upkeep.is_some()
            && let Ok(slot) = self.queue.try_reserve()
            && budgets.admits(&self.app, host, Expense::Upkeep)
            && let Some(upkeep) = self.upkeep.take()
        {
            slot.send(Errand::Upkeep(upkeep));
        }
    }

    /// The next answer of an errand. Can be dropped at its await.
    pub(super) async fn reply(&mut self) -> Option<ControllerMessage> {
        self.replies.recv().await
    }

    /// Returns when everything that was taken is done.
    pub(super) async fn finish(self) {
        let Self { queue, replies, worker, .. } = self;
        drop((queue, replies));
        // A panic of the worker has been reported by the runtime already.
        let _ = worker.await;
    }

    fn take_facts(&mut self, facts: Box<Facts>) -> Result<(), Flood> {
        let older = self.facts.replace(facts);
        self.retry();
        match older {
            // The newest win. If both could have been stored, there was budget for the older before.
            Some(_) => self.app.budgets().exceed(&self.app, self.seat.host, Expense::Facts),
            None => Ok(()),
        }
    }

    fn take_upkeep(&mut self, upkeep: Upkeep) -> Result<(), Flood> {
        let older = self.upkeep.replace(upkeep);
        self.retry();
        match older {
            // As with facts.
            Some(_) => self.app.budgets().exceed(&self.app, self.seat.host, Expense::Upkeep),
            None => Ok(()),
        }
    }

    /// Queues an errand that the budget allows; otherwise when there is budget again.
    fn take_one(&self, expense: Expense, errand: Errand) -> Result<Option<TooMany>, Flood> {
        let (budgets, host) = (self.app.budgets(), self.seat.host);
        let Ok(slot) = self.queue.try_reserve() else {
            budgets.exceed(&self.app, host, expense)?;
            return Ok(Some(TooMany { retry_after: LATER }));
        };
        match budgets.spend(&self.app, host, expense) {
            Allowance::Within => {
                slot.send(errand);
                Ok(None)
            }
            Allowance::Beyond(too_many) => Ok(Some(too_many)),
            Allowance::Flood => Err(Flood),
        }
    }
}

async fn work(
    app: App,
    seat: Arc<Seat>,
    identity: PeerIdentity,
    mut errands: mpsc::Receiver<Errand>,
    reply: mpsc::Sender<ControllerMessage>,
) {
    while let Some(errand) = errands.recv().await {
        match errand {
            Errand::Facts(facts) => connection::take_facts(&app, &seat, &identity, *facts).await,
            Errand::Upkeep(upkeep) => connection::take_upkeep(&app, &seat, &identity, upkeep).await,
            Errand::Notice(text) => connection::take_notice(&app, &seat, &identity, &text).await,
            Errand::Renewal(csr) => {
                let answer = connection::renew(&app, &seat, &identity, &csr).await;
                // The session may be over; the certificate is stored, and asked for again.
                let _ = reply.send(answer).await;
            }
        }
    }
}
