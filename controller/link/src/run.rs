//! One run's stream: opened by the controller, fed to the recorder, acknowledged after its commits.

use std::time::Duration;

use fleetward_app::fleet::online::Attach;
use fleetward_app::work::recorder::{Committed, Feed, RecorderStopped};
use fleetward_protocol::message::{Dispatch, OpenRun, RunDown, RunUp, StreamKind};
use fleetward_protocol::run::CancelCause;
use fleetward_protocol::session::{RunSink, SessionError, SinkEvent};
use fleetward_protocol::text::List;
use fleetward_protocol::wire::{MAX_OUTPUT_PIECE, MAX_RUN_FRAME, close};
use quinn::{Connection, ConnectionError, SendStream};
use serde_bytes::ByteBuf;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{debug, warn};

use super::frame::{self, Frames, ReceiveError, SendError};
use super::port::Port;
use super::reason::chain;

/// The largest message from a host on a run's stream: one piece of output.
const MAX_UP_FRAME: usize = MAX_OUTPUT_PIECE + 1024;
/// How long to wait before a stream that broke on a living connection is opened again; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How the session speaks to a run's task.
pub(super) struct Handle(watch::Sender<Option<CancelCause>>);

/// How a run's task hears that the run should stop.
pub(super) type Cancels = watch::Receiver<Option<CancelCause>>;

/// The two ends between a session and a run's task.
pub(super) fn handle(cancel: Option<CancelCause>) -> (Handle, Cancels) {
    let (sender, receiver) = watch::channel(cancel);
    (Handle(sender), receiver)
}

impl Handle {
    /// The run should stop. The first request stands.
    pub(super) fn cancel(&self, cause: CancelCause) {
        self.0.send_if_modified(|cancel| cancel.is_none() && cancel.replace(cause).is_none());
    }
}

/// Why a stream ended before its run did.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    #[error(transparent)]
    Receive(#[from] ReceiveError),
    #[error(transparent)]
    Send(#[from] SendError),
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error("the host ended the stream before the run's result")]
    Early,
    #[error("the host reported what cannot have happened")]
    Impossible,
    #[error(transparent)]
    Stopped(#[from] RecorderStopped),
}

/// Serves a run until its result is committed, or the connection is gone.
pub(super) async fn serve(port: &Port, connection: &Connection, mut attach: Attach, mut cancels: Cancels) {
    let feed = port.app.recorder().feed(attach.run, attach.operation, attach.offset);
    let mut pause = FIRST_PAUSE;
    loop {
        let before = feed.committed().offset;
        let broken = match stream(port, connection, &attach, &feed, &mut cancels).await {
            Ok(()) => return,
            Err(Broken::Stopped(_)) => return,
            Err(broken) => broken,
        };
        if connection.close_reason().is_some() {
            return;
        }
        warn!(run = %attach.run, reason = chain(&broken), "run.stream_broke");
        let committed = feed.committed();
        if committed.ended {
            return;
        }
        if committed.accepted {
            attach.dispatch = None;
        }
        if committed.offset > before {
            pause = FIRST_PAUSE;
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
        match feed.restart().await {
            Ok(offset) => attach.offset = offset,
            Err(RecorderStopped) => return,
        }
    }
}

/// One stream of the run, from its opening to the committed result.
async fn stream(
    port: &Port,
    connection: &Connection,
    attach: &Attach,
    feed: &Feed,
    cancels: &mut Cancels,
) -> Result<(), Broken> {
    let (mut send, receive) = connection.open_bi().await?;
    let mut frames = Frames::with_buffers(receive, MAX_UP_FRAME, port.buffers.clone());
    let result = converse(port, attach, feed, cancels, &mut send, &mut frames).await;
    match &result {
        Ok(()) => {
            let _ = send.finish();
            frames.stop(close::DONE);
        }
        Err(_) => {
            let _ = send.reset(close::PROTOCOL.into());
            frames.stop(close::PROTOCOL);
        }
    }
    result
}

async fn converse(
    port: &Port,
    attach: &Attach,
    feed: &Feed,
    cancels: &mut Cancels,
    send: &mut SendStream,
    frames: &mut Frames,
) -> Result<(), Broken> {
    frame::send(send, &StreamKind::Run, MAX_RUN_FRAME).await?;
    // With the order and not behind it: a host that read the order alone would start what is to be stopped.
    let mut told = *cancels.borrow_and_update();
    frame::send(send, &RunDown::Open(open(port, attach, told)), MAX_RUN_FRAME).await?;
    let mut sink = RunSink::new(attach.offset);
    let mut commits = feed.watch();
    if attach.dispatch.is_none() {
        // Not the first stream of this run: people see that it was cut off and came back.
        feed.attached().await?;
    }
    loop {
        tokio::select! {
            message = frames.next_up(), if !sink.has_ended() => {
                let message = message?.ok_or(Broken::Early)?;
                if matches!(message, RunUp::Finished(_)) {
                    debug!(run = %attach.run, "run.result_arrived");
                }
                match sink.handle_message(message)? {
                    SinkEvent::Nothing => {}
                    event => feed.report(event).await?,
                }
            }
            changed = commits.changed() => {
                changed.map_err(|_| RecorderStopped)?;
                let committed: Committed = *commits.borrow_and_update();
                if let Some(acknowledge) = sink.handle_committed(committed.offset) {
                    frame::send(send, &acknowledge, MAX_RUN_FRAME).await?;
                }
                if committed.ended {
                    frame::send(send, &sink.handle_result_committed(), MAX_RUN_FRAME).await?;
                    return Ok(());
                }
                if committed.impossible {
                    return Err(Broken::Impossible);
                }
            }
            Ok(()) = cancels.changed() => {
                let cancel = *cancels.borrow_and_update();
                if let Some(cause) = cancel.filter(|_| told.is_none()) {
                    told = cancel;
                    debug!(run = %attach.run, ?cause, "run.cancel_sent");
                    frame::send(send, &RunDown::Cancel { cause }, MAX_RUN_FRAME).await?;
                }
            }
        }
    }
}

fn open(port: &Port, attach: &Attach, cancel: Option<CancelCause>) -> OpenRun {
    let dispatch = attach.dispatch.as_ref().map(|prepared| {
        // What was planned may start: that our clock was set back since makes it no order for later.
        let life = prepared.deadline.since(prepared.not_before);
        let remaining = prepared.deadline.since(port.app.deadlines().now()).min(life);
        Dispatch {
            order: prepared.order.clone(),
            contents: List::of(prepared.contents.iter().map(|content| ByteBuf::from(content.as_ref()))),
            remaining_ms: u64::try_from(remaining.as_millis()).unwrap_or(u64::MAX),
        }
    });
    OpenRun { run: attach.run, offset: attach.offset, started: attach.started, cancel, dispatch }
}
