//! The session of one connected host: its control stream, and the tasks of its runs.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use fleetward_app::fleet::online::{Attach, CloseReason, HostCommand};
use fleetward_app::settings::Settings;
use fleetward_app::work::connection::{self, Admitted, Departure, HeldSeat, JoinError, NotAdmitted};
use fleetward_domain::fleet::budget::Flood;
use fleetward_pki::PeerIdentity;
use fleetward_protocol::id::RunId;
use fleetward_protocol::message::{
    AgentMessage, ClientIdReport, ControllerMessage, Hello, MAX_HELD, MOVE, StreamKind,
};
use fleetward_protocol::session::{ControllerEvent, ControllerSession, HANDSHAKE_TIMEOUT, SessionError};
use fleetward_protocol::text::List;
use fleetward_protocol::wire::{MAX_CONTROL_FRAME, MAX_RUN_FRAME, close};
use quinn::{Connection, SendStream, VarInt};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};
use tracing::{debug, info};

use super::errand::Errands;
use super::frame::{self, Frames, ReceiveError, SendError};
use super::port::Port;
use super::reason::chain;
use super::{query, run};

/// How long a host that is asked to go to another controller is given to leave by itself.
const LEAVE: Duration = Duration::from_secs(1);

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("the agent said goodbye")]
    Goodbye,
    #[error("the connection was closed")]
    Gone,
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error(transparent)]
    Receive(#[from] ReceiveError),
    #[error(transparent)]
    Send(#[from] SendError),
    #[error(transparent)]
    Flood(#[from] Flood),
    #[error("{0}")]
    TooOften(JoinError),
    #[error("a newer connection took over")]
    Superseded,
    #[error("the host was revoked or retired")]
    Revoked,
    #[error(transparent)]
    NotAdmitted(NotAdmitted),
    #[error("the certificate of this connection has expired; connect again with a renewed one")]
    Expired,
    #[error("the controller stops")]
    Stopping,
    #[error("the controller could not take the session: {0}")]
    Unavailable(String),
}

impl End {
    const fn code(&self) -> u32 {
        match self {
            Self::Goodbye | Self::Gone => close::DONE,
            Self::Session(SessionError::Silent(_)) => close::SILENT,
            Self::Session(_) | Self::Receive(_) | Self::Send(_) => close::PROTOCOL,
            Self::Flood(_) | Self::TooOften(_) => close::TOO_MANY,
            Self::Superseded => close::SUPERSEDED,
            Self::Revoked | Self::NotAdmitted(_) => close::REVOKED,
            Self::Stopping | Self::Unavailable(_) | Self::Expired => close::SHUTDOWN,
        }
    }

    const fn departure(&self) -> Departure {
        match self {
            Self::Goodbye => Departure::Goodbye,
            Self::Gone | Self::Stopping | Self::Unavailable(_) | Self::TooOften(_) => Departure::Disconnected,
            Self::Session(SessionError::Silent(_)) => Departure::Silent,
            Self::Session(_) | Self::Receive(_) | Self::Send(_) | Self::Flood(_) => Departure::BrokeProtocol,
            Self::Superseded => Departure::Superseded,
            Self::Revoked | Self::NotAdmitted(_) => Departure::Revoked,
            Self::Expired => Departure::Expired,
        }
    }
}

impl From<CloseReason> for End {
    fn from(reason: CloseReason) -> Self {
        match reason {
            CloseReason::Revoked => Self::Revoked,
            CloseReason::Superseded => Self::Superseded,
        }
    }
}

/// Serves a connection whose certificate was verified, to its end.
pub(super) async fn serve(port: &Arc<Port>, connection: Connection, identity: PeerIdentity) {
    let remote = connection.remote_address();
    let admitted = match connection::admit(&port.app, &identity).await {
        Ok(admitted) => admitted,
        Err(error) if error.is_final() => {
            connection.close(close::REVOKED.into(), error.to_string().as_bytes());
            return port.refused(remote, &format!("{}: {error}", identity.client)).await;
        }
        Err(error) => {
            connection.close(close::SHUTDOWN.into(), b"the controller cannot check the certificate now");
            return debug!(%remote, error = chain(&error), "link.admission_failed");
        }
    };
    let (end, errands) = match greet(port, &connection, &admitted).await {
        Ok(mut live) => {
            let end = live.run().await;
            let errands = live.end(&end);
            (end, Some(errands))
        }
        Err(end) => (end, None),
    };
    info!(host = %admitted.name, %remote, reason = chain(&end), "link.closed");
    if matches!(
        end,
        End::Session(SessionError::Unexpected { .. })
            | End::Receive(ReceiveError::Decode(_))
            | End::NotAdmitted(_)
    ) {
        port.refused(remote, &format!("{}: {}", admitted.name, chain(&end))).await;
    }
    // Decided now, so that the next connection of the same flood does not tell it first.
    let is_told = matches!(end, End::Flood(_)) && connection::is_cut_off_told(&port.app, admitted.host);
    connection.close(VarInt::from_u32(end.code()), end.to_string().as_bytes());
    if let Some(errands) = errands {
        errands.finish().await;
    }
    if is_told {
        // Last, so that it stands behind what the host said itself.
        connection::record_cut_off(&port.app, &admitted).await;
    }
}

/// A session in progress.
struct OpenSession {
    port: Arc<Port>,
    connection: Connection,
    identity: PeerIdentity,
    session: ControllerSession,
    send: SendStream,
    frames: Frames,
    seat: HeldSeat,
    commands: mpsc::UnboundedReceiver<HostCommand>,
    runs: JoinSet<RunId>,
    attached: HashMap<RunId, run::Handle>,
    questions: JoinSet<()>,
    errands: Errands,
    /// Whether the host goes to another controller when it is asked to.
    can_move: bool,
}

/// Reads the hello, takes the host's seat and answers with the welcome.
async fn greet(port: &Arc<Port>, connection: &Connection, admitted: &Admitted) -> Result<OpenSession, End> {
    let opened = timeout(HANDSHAKE_TIMEOUT, connection.accept_bi());
    let (mut send, receive) = tokio::select! {
        opened = opened => opened
            .map_err(|_| End::Session(SessionError::Silent(HANDSHAKE_TIMEOUT)))?
            .map_err(|_| End::Gone)?,
        () = port.stopping.cancelled() => return Err(End::Stopping),
    };
    let mut frames = Frames::new(receive, MAX_CONTROL_FRAME);
    let mut session = ControllerSession::new(port.monotonic());
    let first = timeout(HANDSHAKE_TIMEOUT, frames.next::<AgentMessage>())
        .await
        .map_err(|_| SessionError::Silent(HANDSHAKE_TIMEOUT))??
        .ok_or(End::Gone)?;
    let hello: Hello = match session.handle_message(first, port.monotonic())? {
        ControllerEvent::Hello(hello) => hello,
        // The machine lets nothing else through as the first message.
        _ => return Err(End::Gone),
    };
    let joined = match connection::join(&port.app, admitted, &hello, connection.remote_address()).await {
        Ok(joined) => joined,
        Err(JoinError::NotAdmitted(error)) if error.is_final() => return Err(End::NotAdmitted(error)),
        Err(error @ JoinError::TooOften(_)) => return Err(End::TooOften(error)),
        Err(error) => return Err(End::Unavailable(chain(&error))),
    };
    session.welcome(joined.welcome);
    let can_move = hello.features.iter().any(|feature| feature.as_str() == MOVE);
    let controllers = &port.app.settings().controllers;
    if can_move && !controllers.is_empty() {
        let addresses = List::of(controllers.iter().cloned());
        session.send(ControllerMessage::Controllers { addresses });
    }
    if !joined.forget.is_empty() {
        session.send(ControllerMessage::Forget { runs: List::of(joined.forget) });
    }
    let errands = Errands::start(port.app.clone(), Arc::clone(joined.seat.seat()), admitted.identity.clone());
    let mut live = OpenSession {
        port: Arc::clone(port),
        connection: connection.clone(),
        identity: admitted.identity.clone(),
        session,
        frames,
        seat: joined.seat,
        commands: joined.commands,
        runs: JoinSet::new(),
        attached: HashMap::new(),
        questions: JoinSet::new(),
        errands,
        can_move,
        send: {
            // Behind the runs' streams the heartbeat would wait for their output.
            let _ = send.set_priority(1);
            send.write_all(&[]).await.map_err(|error| End::Send(error.into()))?;
            send
        },
    };
    if let Err(end) = live.begin(joined.attach).await {
        // The host has said nothing yet.
        drop(live.end(&end));
        return Err(end);
    }
    info!(host = %admitted.name, remote = %connection.remote_address(), agent = %hello.agent_version, "link.established");
    Ok(live)
}

impl OpenSession {
    /// Greets the host and opens the streams of its runs, unless it was told to go in the meantime.
    async fn begin(&mut self, mut attach: Vec<Attach>) -> Result<(), End> {
        let mut queued = Vec::new();
        self.take_queued(&mut attach, &mut queued)?;
        self.flush().await?;
        // What came while the host read.
        self.take_queued(&mut attach, &mut queued)?;
        for attach in attach {
            self.attach(attach);
        }
        queued.into_iter().try_for_each(|command| self.handle_command(command))
    }

    /// Takes what is queued for the host. A cancel request goes with the order of its run, not behind it.
    fn take_queued(&mut self, attach: &mut [Attach], queued: &mut Vec<HostCommand>) -> Result<(), End> {
        while let Ok(command) = self.commands.try_recv() {
            match command {
                HostCommand::Close(reason) => return Err(reason.into()),
                HostCommand::Cancel { run, cause } if attach.iter().any(|attach| attach.run == run) => {
                    let stopped = attach.iter_mut().filter(|attach| attach.run == run);
                    stopped.for_each(|attach| attach.cancel = attach.cancel.or(Some(cause)));
                }
                command => queued.push(command),
            }
        }
        Ok(())
    }

    /// Leaves the seat; what the host said before is still to be worked on.
    fn end(self, end: &End) -> Errands {
        let Self { seat, runs, errands, .. } = self;
        // The runs' tasks end with the session; what they had not handed over is asked for again.
        drop(runs);
        seat.leave(end.departure(), &end.to_string());
        errands
    }

    async fn run(&mut self) -> End {
        loop {
            if let Err(end) = self.flush().await {
                return end;
            }
            if let Err(end) = self.step().await {
                if matches!(end, End::Stopping) {
                    self.send_away().await;
                }
                return end;
            }
        }
    }

    /// Asks the host to go to another controller, if there is one, and gives it a moment to.
    async fn send_away(&mut self) {
        let Settings { advertise, controllers, .. } = self.port.app.settings();
        if self.can_move && controllers.iter().any(|controller| controller.as_str() != advertise.as_str()) {
            self.session.send(ControllerMessage::Move);
            if self.flush().await.is_ok() {
                // To one that stays, the end of the connection says the same.
                drop(timeout(LEAVE, self.connection.closed()).await);
            }
        }
    }

    /// Waits for the next thing to happen and handles it.
    async fn step(&mut self) -> Result<(), End> {
        let deadline = self.port.instant(self.session.poll_timeout());
        tokio::select! {
            message = self.frames.next::<AgentMessage>() => {
                let message = message?.ok_or(End::Gone)?;
                self.handle_message(message)
            }
            command = self.commands.recv() => match command {
                Some(command) => self.handle_command(command),
                None => Err(End::Superseded),
            },
            Some(done) = self.runs.join_next() => {
                if let Ok(run) = done {
                    self.attached.remove(&run);
                }
                Ok(())
            }
            Some(_) = self.questions.join_next() => Ok(()),
            Some(answer) = self.errands.reply() => {
                self.session.send(answer);
                Ok(())
            }
            () = sleep_until(deadline) => Ok(self.session.handle_timeout(self.port.monotonic())?),
            () = self.port.stopping.cancelled() => Err(End::Stopping),
        }
    }

    fn handle_message(&mut self, message: AgentMessage) -> Result<(), End> {
        let now = self.port.app.now();
        if now >= self.identity.not_after {
            return Err(End::Expired);
        }
        self.seat.seat().heard(now, self.connection.rtt());
        match self.session.handle_message(message, self.port.monotonic())? {
            ControllerEvent::Heartbeat { clock } => {
                self.seat.seat().heard_clock(clock, now);
                self.errands.retry();
                Ok(())
            }
            ControllerEvent::Goodbye => Err(End::Goodbye),
            ControllerEvent::Message(message) => {
                if let Some(answer) = self.errands.take(message)? {
                    self.session.send(answer);
                }
                Ok(())
            }
            ControllerEvent::Hello(_) => Ok(()),
        }
    }

    fn handle_command(&mut self, command: HostCommand) -> Result<(), End> {
        match command {
            HostCommand::Attach(attach) => self.attach(attach),
            HostCommand::Cancel { run, cause } => {
                if let Some(handle) = self.attached.get(&run) {
                    handle.cancel(cause);
                }
            }
            HostCommand::Forget { runs } => {
                for runs in runs.chunks(MAX_HELD) {
                    let runs = List::of(runs.iter().copied());
                    self.session.send(ControllerMessage::Forget { runs });
                }
            }
            HostCommand::ReadClientId { reply } => {
                let connection = self.connection.clone();
                self.questions.spawn(read_client_id(connection, reply));
            }
            HostCommand::Look(look) => {
                let (port, connection) = (Arc::clone(&self.port), self.connection.clone());
                self.questions.spawn(async move { query::serve(&port, &connection, look).await });
            }
            HostCommand::Close(reason) => return Err(reason.into()),
        }
        Ok(())
    }

    fn attach(&mut self, attach: Attach) {
        let run = attach.run;
        if self.attached.contains_key(&run) {
            return;
        }
        let (handle, cancels) = run::handle(attach.cancel);
        self.attached.insert(run, handle);
        let (port, connection) = (Arc::clone(&self.port), self.connection.clone());
        self.runs.spawn(async move {
            run::serve(&port, &connection, attach, cancels).await;
            run
        });
    }

    /// Sends what the machine has queued. A host that does not take it is as good as silent.
    async fn flush(&mut self) -> Result<(), End> {
        while let Some(message) = self.session.poll_transmit() {
            timeout(HANDSHAKE_TIMEOUT, frame::send(&mut self.send, &message, MAX_CONTROL_FRAME))
                .await
                .map_err(|_| SessionError::Silent(HANDSHAKE_TIMEOUT))??;
        }
        Ok(())
    }
}

/// Asks what the host's client-ID file says. Without an answer the sender is dropped.
async fn read_client_id(connection: Connection, reply: oneshot::Sender<ClientIdReport>) {
    let exchange = async {
        let (mut send, receive) = connection.open_bi().await.ok()?;
        frame::send(&mut send, &StreamKind::ClientId, MAX_RUN_FRAME).await.ok()?;
        send.finish().ok()?;
        Frames::new(receive, MAX_CONTROL_FRAME).next().await.ok()?
    };
    if let Ok(Some(report)) = timeout(HANDSHAKE_TIMEOUT, exchange).await {
        // Nobody waiting any more is no error.
        let _ = reply.send(report);
    }
}
