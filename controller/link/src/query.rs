//! One query's stream: the order goes down, what the host says comes up, checked.
//!
//! **What it promises.** Whatever the host says, what is passed on is bounded in size, in number and in how fast it comes, and
//! is printable. Nothing is read from the host while nobody takes what it said before. The stream ends when nobody listens.

use std::time::Duration;

use fleetward_app::fleet::online::{Look, Seen};
use fleetward_domain::work::run::refusal;
use fleetward_protocol::message::{OpenQuery, QueryItem, QueryUp, StreamKind};
use fleetward_protocol::query::{Bounds, Fields, InvalidItem, Key, Shows, read_item};
use fleetward_protocol::run::Refusal;
use fleetward_protocol::wire::{MAX_QUERY_FRAME, close};
use quinn::{Connection, ConnectionError, ReadError, SendStream, WriteError};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::{debug, warn};

use super::frame::{self, Frames, ReceiveError, SendError};
use super::port::Port;
use super::reason::chain;

/// What a host may take on top of its own time, for the way to it and back.
const GRACE: Duration = Duration::from_secs(15);
/// The most changes of one host's table that are taken in one second. Entries have the pace of whoever reads them.
const CHANGES: usize = 512;

/// Why an answer is not whole.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("the connection to the host was lost; ask again")]
    Connection(#[source] ConnectionError),
    #[error("the host did not tell all within {} s; ask again, or for less", .0.as_secs())]
    Silent(Duration),
    #[error("the host ended its answer in the middle; ask again")]
    Early,
    #[error("the host's agent does not answer queries; update it")]
    Unsupported,
    #[error(
        "the host told of more than {items} items or {bytes} bytes of them, and was not heard any longer; ask for less"
    )]
    TooMuch { items: usize, bytes: usize },
    #[error("the host told of `{key}` what cannot be shown: {source}; update its agent")]
    Item { key: Key, source: InvalidItem },
    #[error("the host told what it may not now; update its agent")]
    Unexpected,
    #[error("the host's answer could not be read; update its agent")]
    Receive(#[source] ReceiveError),
    #[error("the host could not be asked")]
    Send(#[source] SendError),
    #[error("nobody listens any more")]
    Unheard,
}

impl From<ReceiveError> for Broken {
    fn from(error: ReceiveError) -> Self {
        match error {
            ReceiveError::Read(ReadError::ConnectionLost(lost)) => Self::Connection(lost),
            ReceiveError::Read(ReadError::Reset(code)) if code == close::UNSUPPORTED.into() => {
                Self::Unsupported
            }
            ReceiveError::Read(ReadError::Reset(_)) | ReceiveError::Truncated => Self::Early,
            error => Self::Receive(error),
        }
    }
}

impl From<SendError> for Broken {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Write(WriteError::ConnectionLost(lost)) => Self::Connection(lost),
            SendError::Write(WriteError::Stopped(code)) if code == close::UNSUPPORTED.into() => {
                Self::Unsupported
            }
            error => Self::Send(error),
        }
    }
}

/// Asks a host, and passes on what it says until it has said all, or nobody listens.
pub(super) async fn serve(port: &Port, connection: &Connection, look: Look) {
    let answers = look.answers.clone();
    tokio::select! {
        // The streams end with it, and so does what the host does for them.
        () = answers.closed() => {}
        result = ask(port, connection, look) => {
            let last = match result {
                Ok(last) => last,
                Err(Broken::Unheard) => return,
                Err(broken @ Broken::Unsupported) => Seen::Refused(broken.to_string()),
                Err(broken) => {
                    warn!(remote = %connection.remote_address(), reason = chain(&broken), "query.broke_off");
                    Seen::Failed(broken.to_string())
                }
            };
            // Nobody listening any more is no error.
            let _ = answers.send(last).await;
        }
    }
}

/// One stream, from its opening to the last word.
async fn ask(port: &Port, connection: &Connection, look: Look) -> Result<Seen, Broken> {
    let Look { order, not_before, deadline, follow, bounds, answers } = look;
    let patience = bounds.timeout + GRACE;
    let due = Instant::now() + patience;
    let silent = |_| Broken::Silent(patience);
    // A host that allows no more streams is waited for, too.
    let opened = timeout_at(due, connection.open_bi()).await.map_err(silent)?;
    let (mut send, receive) = opened.map_err(Broken::Connection)?;
    let mut frames = Frames::new(receive, MAX_QUERY_FRAME);
    let remaining = deadline.since(port.app.now()).min(deadline.since(not_before));
    let remaining_ms = u64::try_from(remaining.as_millis()).unwrap_or(u64::MAX);
    let open = OpenQuery { order, remaining_ms, follow };
    let sent = timeout_at(due, begin(&mut send, &open)).await.map_err(silent)?;
    let result = match sent {
        Ok(()) => {
            let (left, pace) = (Left::of(bounds), Pace::of(bounds.shows));
            Listener { due: Some(due), patience, follow, left, pace, answers }.listen(&mut frames).await
        }
        // What the host has against it stands in the other direction.
        Err(SendError::Write(WriteError::Stopped(_))) => {
            match timeout_at(due, frames.next::<QueryUp>()).await {
                Ok(Ok(_)) => Err(Broken::Unexpected),
                Ok(Err(error)) => Err(error.into()),
                Err(elapsed) => Err(silent(elapsed)),
            }
        }
        Err(error) => Err(error.into()),
    };
    if let Err(broken) = &result {
        debug!(reason = chain(broken), "query.stopped");
        let _ = send.reset(close::PROTOCOL.into());
        frames.stop(close::PROTOCOL);
    }
    result
}

async fn begin(send: &mut SendStream, open: &OpenQuery) -> Result<(), SendError> {
    frame::send(send, &StreamKind::Query, MAX_QUERY_FRAME).await?;
    frame::send(send, open, MAX_QUERY_FRAME).await
}

/// Takes what a host says.
struct Listener {
    /// When all must have been told.
    due: Option<Instant>,
    patience: Duration,
    follow: bool,
    left: Left,
    pace: Pace,
    answers: mpsc::Sender<Seen>,
}

impl Listener {
    async fn listen(mut self, frames: &mut Frames) -> Result<Seen, Broken> {
        let mut is_first = true;
        loop {
            let next = frames.next::<QueryUp>();
            let said = match self.due {
                Some(due) => timeout_at(due, next).await.map_err(|_| Broken::Silent(self.patience))?,
                None => next.await,
            };
            let is_complete = self.due.is_none();
            match said?.ok_or(Broken::Early)? {
                // What is so for a moment only is no refusal: whoever asks may ask again.
                QueryUp::Refused(refusal @ Refusal::Busy { .. }) if is_first => {
                    return Ok(Seen::Failed(refusal::detail(&refusal)));
                }
                QueryUp::Refused(refusal) if is_first => return Ok(Seen::Refused(refusal::detail(&refusal))),
                QueryUp::Items(items) => self.items(items.into_vec(), is_complete).await?,
                QueryUp::Gone(keys) if is_complete => {
                    self.pace.take(keys.len()).await;
                    self.pass(Seen::Gone(keys.into_vec())).await?;
                }
                QueryUp::Complete if !is_complete => {
                    // From now on it is silent while nothing changes.
                    self.due = None;
                    self.pass(Seen::Complete).await?;
                }
                QueryUp::Failed { detail } => return Ok(Seen::Failed(detail.into())),
                QueryUp::Ended if is_complete => return Ok(Seen::Ended),
                QueryUp::Refused(_) | QueryUp::Gone(_) | QueryUp::Complete | QueryUp::Ended => {
                    return Err(Broken::Unexpected);
                }
            }
            is_first = false;
            if self.due.is_none() && !self.follow {
                // Nothing is left to be said but that it was all.
                return match timeout_at(Instant::now() + GRACE, frames.next::<QueryUp>()).await {
                    Ok(Ok(Some(QueryUp::Ended))) => Ok(Seen::Ended),
                    Ok(Ok(Some(_))) => Err(Broken::Unexpected),
                    Ok(Ok(None)) => Err(Broken::Early),
                    Ok(Err(error)) => Err(error.into()),
                    Err(_) => Err(Broken::Silent(self.patience)),
                };
            }
        }
    }

    async fn items(&mut self, items: Vec<QueryItem>, is_complete: bool) -> Result<(), Broken> {
        if is_complete {
            self.pace.take(items.len()).await;
        } else {
            self.left.take(&items)?;
        }
        let read = |QueryItem { key, item }| match read_item(&item) {
            Ok(item) => Ok((key, item)),
            Err(source) => Err(Broken::Item { key, source }),
        };
        let items: Vec<(Key, Fields)> = items.into_iter().map(read).collect::<Result<_, _>>()?;
        self.pass(Seen::Items(items)).await
    }

    /// Waits for whoever listens; that is no time of the host's.
    async fn pass(&mut self, seen: Seen) -> Result<(), Broken> {
        let began = Instant::now();
        self.answers.send(seen).await.map_err(|_| Broken::Unheard)?;
        if let Some(due) = &mut self.due {
            *due += began.elapsed();
        }
        Ok(())
    }
}

/// What a host may still tell before all is told.
struct Left {
    bounds: Bounds,
    items: usize,
    bytes: usize,
}

impl Left {
    const fn of(bounds: Bounds) -> Self {
        Self { bounds, items: bounds.items, bytes: bounds.bytes }
    }

    fn take(&mut self, items: &[QueryItem]) -> Result<(), Broken> {
        let bytes: usize = items.iter().map(|item| item.key.len() + item.item.len()).sum();
        // A message without any is one, too: nobody is heard for ever who tells nothing.
        let left = self.items.checked_sub(items.len().max(1)).zip(self.bytes.checked_sub(bytes));
        let Bounds { items, bytes, .. } = self.bounds;
        (self.items, self.bytes) = left.ok_or(Broken::TooMuch { items, bytes })?;
        Ok(())
    }
}

/// How fast changes are taken: a host that tells of more waits.
struct Pace {
    /// What its items are to each other: of a table that changes faster than this nobody misses anything, for the last state of
    /// each item is told; entries are all told, and wait for whoever reads.
    shows: Shows,
    since: Instant,
    taken: usize,
}

impl Pace {
    fn of(shows: Shows) -> Self {
        Self { shows, since: Instant::now(), taken: 0 }
    }

    async fn take(&mut self, changes: usize) {
        let next = self.since + Duration::from_secs(1);
        if Instant::now() >= next {
            *self = Self::of(self.shows);
        } else if self.taken >= CHANGES {
            sleep_until(next).await;
            *self = Self::of(self.shows);
        }
        // A message without any is one, too.
        self.taken += match self.shows {
            Shows::Table => changes.max(1),
            // One without any tells nothing that somebody would read.
            Shows::Entries => usize::from(changes == 0),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_takes_no_time_of_the_hosts() {
        let (answers, mut heard) = mpsc::channel(1);
        let (began, patience) = (Instant::now(), Duration::from_secs(30));
        let bounds = Bounds { timeout: patience, items: 1, bytes: 1, follows: false, shows: Shows::Table };
        let due = Some(began + patience);
        let (left, pace) = (Left::of(bounds), Pace::of(bounds.shows));
        let mut listener = Listener { due, patience, follow: false, left, pace, answers };
        listener.pass(Seen::Complete).await.unwrap();
        let reads = async {
            sleep_until(began + Duration::from_secs(60)).await;
            heard.recv().await
        };
        let (passed, _) = tokio::join!(listener.pass(Seen::Complete), reads);
        passed.unwrap();
        assert_eq!(listener.due, Some(began + patience + Duration::from_secs(60)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_changes_all_the_time_is_heard_at_a_pace() {
        let (began, mut pace) = (Instant::now(), Pace::of(Shows::Table));
        for _ in 0..CHANGES * 10 {
            pace.take(1).await;
        }
        assert_eq!(began.elapsed().as_secs(), 9);
        let quiet = Instant::now();
        sleep_until(quiet + Duration::from_secs(60)).await;
        pace.take(256).await;
        assert_eq!(quiet.elapsed().as_secs(), 60, "whoever was quiet is heard at once");
    }

    #[tokio::test(start_paused = true)]
    async fn entries_are_heard_as_fast_as_they_are_read() {
        let (began, mut pace) = (Instant::now(), Pace::of(Shows::Entries));
        for _ in 0..1000 {
            pace.take(256).await;
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
        // What nobody reads holds nobody up: messages without entries are taken at a pace.
        for _ in 0..CHANGES * 2 + 1 {
            pace.take(0).await;
        }
        assert_eq!(began.elapsed().as_secs(), 2);
    }
}
