//! Follows an operation as it happens, across lost connections.
//!
//! **What it promises.** Every event is given to the view once and in order, whatever happens to the connection:
//! it is opened again with `Last-Event-ID`, with growing pauses. Leaving (Ctrl-C) stops nothing at the hosts
//! unless that was asked for.

pub(crate) mod json;
mod lines;
pub(crate) mod screen;
mod tally;

use std::io;
use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use fleetward_api::fleet::host::{Host, HostQuery};
use fleetward_protocol::name::HostName;
use hyper::Method;
use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::app::App;
use crate::client::sse::{Parser, ServerEvent};
use crate::client::{self, Patience, Stream};
use crate::failure::Failure;

/// The pause before the first attempt to connect again; doubled for each further one.
pub(crate) const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long the controller may stay away.
pub(crate) const PATIENCE: Duration = Duration::from_secs(600);
/// The controller writes at least a comment more often than this; a silent connection is a dead one.
pub(crate) const SILENCE: Duration = Duration::from_secs(45);
/// How long nothing new must come for a reader to have caught up, where the sequence does not tell.
const CAUGHT_UP: Duration = Duration::from_secs(1);
/// How often hosts are looked up that a view waits for, and how long that may take.
const LOOK_UP_EVERY: Duration = Duration::from_secs(30);
pub(crate) const LOOK_UP_WITHIN: Duration = Duration::from_secs(5);
/// How often the view gets a chance to move.
const TICK: Duration = Duration::from_millis(200);

/// Where events are shown. Two kinds: for people, and for programs.
pub(crate) trait View {
    /// Takes the next event.
    fn event(&mut self, event: &ServerEvent) -> Result<(), Failure>;
    /// Shows what was taken so far; called when nothing more is at hand.
    fn flush(&mut self) -> Result<(), Failure>;
    /// Time has passed.
    fn tick(&mut self, now: Instant) -> Result<(), Failure>;
    /// Tells about the connection.
    fn remark(&mut self, text: &str) -> Result<(), Failure>;
    /// The hosts that it waits for and would say something about if they are away.
    fn waits_for(&self, _now: Instant) -> Vec<HostName> {
        Vec::new()
    }
    /// Takes what the controller knows of those hosts.
    fn hosts(&mut self, _hosts: &[Host]) -> Result<(), Failure> {
        Ok(())
    }
}

/// What is followed, and how far.
#[derive(Debug)]
pub(crate) struct Following<'a> {
    /// The operation's id or number.
    pub(crate) operation: &'a str,
    /// Only output of this host.
    pub(crate) host: Option<&'a HostName>,
    /// When it is enough.
    pub(crate) until: Until,
}

/// When a view has seen enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    /// When the operation has ended.
    End,
    /// When it has caught up with this sequence number.
    Sequence(u64),
}

/// What Ctrl-C does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interrupt {
    /// Leaves; the operation goes on.
    Detach,
    /// Stops the operation and stays until it has; the second one leaves.
    Stop,
}

/// Ctrl-C, from when this is made on: it does nothing by itself any more, and is waited for.
#[derive(Debug)]
pub(crate) struct Interrupts {
    signal: Signal,
    interrupt: Interrupt,
    stop: Stop,
}

impl Interrupts {
    /// Begins to listen for it.
    ///
    /// # Errors
    /// If the system has no room for that.
    pub(crate) fn listen(interrupt: Interrupt) -> Result<Self, Failure> {
        let signal =
            signal(SignalKind::interrupt()).context("cannot listen for Ctrl-C").map_err(Failure::Other)?;
        Ok(Self { signal, interrupt, stop: Stop::Unwanted })
    }

    /// Waits for the next one.
    pub(crate) async fn recv(&mut self) {
        self.signal.recv().await;
    }

    /// What one that came means: whether the user leaves. If not, the operation is to be stopped.
    pub(crate) fn leaves(&mut self) -> bool {
        if self.interrupt == Interrupt::Detach || self.stop != Stop::Unwanted {
            return true;
        }
        self.stop = Stop::Wanted;
        false
    }
}

/// Why following ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The operation has ended.
    Ended,
    /// All there was has been shown.
    CaughtUp,
    /// The user left.
    Detached,
}

/// Shows what happens in an operation, from its beginning, until there is nothing more to show.
///
/// # Errors
/// If the controller says no, or stays away for ten minutes.
pub(crate) async fn follow(
    app: &App,
    following: &Following<'_>,
    interrupts: Interrupts,
    view: &mut impl View,
) -> Result<Ending, Failure> {
    let mut follower = Follower { app, following, interrupts, position: None, lost: None, looked_up: None };
    let ending = follower.run(view).await;
    view.flush()?;
    ending
}

/// Whether the user wants the operation stopped, and the controller knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    Unwanted,
    Wanted,
    Asked,
}

struct Follower<'a> {
    app: &'a App,
    following: &'a Following<'a>,
    interrupts: Interrupts,
    /// The id of the last event that the view took.
    position: Option<String>,
    /// Since when there is no connection, and the next pause.
    lost: Option<(Instant, Duration)>,
    /// When hosts were looked up last.
    looked_up: Option<Instant>,
}

impl Follower<'_> {
    async fn run(&mut self, view: &mut impl View) -> Result<Ending, Failure> {
        loop {
            let failure = match self.listen(view).await {
                Err(failure) if failure.is_passing() => failure,
                result => return result,
            };
            let (since, pause) = match self.lost {
                Some(lost) => lost,
                None => {
                    view.remark("connection lost, resuming")?;
                    (Instant::now(), FIRST_PAUSE)
                }
            };
            if since.elapsed() > PATIENCE {
                return Err(failure);
            }
            self.lost = Some((since, (pause * 2).min(LONGEST_PAUSE)));
            tokio::select! {
                () = tokio::time::sleep(client::jittered(pause)) => {}
                () = self.interrupts.recv() => {
                    if let Some(ending) = self.interrupted(view)? {
                        return Ok(ending);
                    }
                }
            }
        }
    }

    /// Reads one connection to its end.
    async fn listen(&mut self, view: &mut impl View) -> Result<Ending, Failure> {
        #[derive(Serialize)]
        struct Query<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            host: Option<&'a str>,
        }
        let path = format!("operations/{}/events", self.following.operation);
        let query = Query { host: self.following.host.map(HostName::as_str) };
        let path = client::with_query(&path, &query)?;
        let (client, position) = (&self.app.client, self.position.clone());
        let mut open = pin!(client.open(&path, position.as_deref()));
        let mut stream = loop {
            tokio::select! {
                stream = &mut open => break stream?,
                () = self.interrupts.recv() => {
                    if let Some(ending) = self.interrupted(view)? {
                        return Ok(ending);
                    }
                }
            }
        };
        self.ask_to_stop().await?;
        let mut parser = Parser::default();
        let mut events = Vec::new();
        // Counted in ticks: time in which this process was stopped, or its terminal was, is nobody's silence.
        let mut silence = Duration::ZERO;
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                // Output may come without end: Ctrl-C and the clock go first.
                biased;
                () = self.interrupts.recv() => {
                    if let Some(ending) = self.interrupted(view)? {
                        return Ok(ending);
                    }
                    self.ask_to_stop().await?;
                }
                _ = ticks.tick() => {
                    view.tick(Instant::now())?;
                    silence += TICK;
                    if let Some(ending) = self.silent(silence)? {
                        return Ok(ending);
                    }
                    self.look_up(view).await?;
                }
                bytes = stream.next() => {
                    silence = Duration::ZERO;
                    self.take(bytes, &mut parser, &mut events)?;
                    if self.lost.take().is_some() {
                        view.remark("resumed")?;
                    }
                    if let Some(ending) = self.show(&mut events, view)? {
                        return Ok(ending);
                    }
                }
            }
        }
    }

    fn take(
        &self,
        bytes: Option<io::Result<bytes::Bytes>>,
        parser: &mut Parser,
        events: &mut Vec<ServerEvent>,
    ) -> Result<(), Failure> {
        let url = || self.app.client.address().to_string();
        let gone = |source| Failure::Unreachable { url: url(), source };
        let bytes = bytes
            .ok_or_else(|| {
                gone(io::Error::new(io::ErrorKind::UnexpectedEof, "the stream of events broke off"))
            })?
            .map_err(gone)?;
        parser
            .push(&bytes, events)
            .map_err(|error| Failure::NotAController { url: url(), problem: error.to_string() })
    }

    fn show(
        &mut self,
        events: &mut Vec<ServerEvent>,
        view: &mut impl View,
    ) -> Result<Option<Ending>, Failure> {
        let mut ending = None;
        for event in events.drain(..) {
            view.event(&event)?;
            if event.name == "end" {
                ending = Some(Ending::Ended);
            }
            if event.id.is_some() {
                self.position = event.id;
            }
        }
        view.flush()?;
        if ending.is_none()
            && let Until::Sequence(wanted) = self.following.until
            && self.position.as_deref().is_some_and(|id| has_passed(id, wanted))
        {
            ending = Some(Ending::CaughtUp);
        }
        Ok(ending)
    }

    /// Tells the view about the hosts that it waits for.
    async fn look_up(&mut self, view: &mut impl View) -> Result<(), Failure> {
        let now = Instant::now();
        if self.following.until != Until::End
            || self.looked_up.is_some_and(|last| now.duration_since(last) < LOOK_UP_EVERY)
        {
            return Ok(());
        }
        let names = view.waits_for(now);
        if names.is_empty() {
            return Ok(());
        }
        self.looked_up = Some(now);
        let on = names.iter().map(HostName::as_str).collect::<Vec<_>>().join(" | ");
        let query = HostQuery { on: Some(on), ..HostQuery::default() };
        let asked = self.app.collect::<Host>("hosts", &query, None);
        // It is said for information: a look-up that fails is not worth more than the next one.
        match tokio::time::timeout(LOOK_UP_WITHIN, asked).await {
            Ok(Ok(hosts)) => view.hosts(&hosts),
            Ok(Err(_)) | Err(_) => Ok(()),
        }
    }

    fn silent(&self, silence: Duration) -> Result<Option<Ending>, Failure> {
        if silence > CAUGHT_UP && self.following.until != Until::End {
            return Ok(Some(Ending::CaughtUp));
        }
        if silence > SILENCE {
            let what = format!("nothing was heard for {} s", SILENCE.as_secs());
            let source = io::Error::new(io::ErrorKind::TimedOut, what);
            return Err(Failure::Unreachable { url: self.app.client.address().to_string(), source });
        }
        Ok(None)
    }

    fn interrupted(&mut self, view: &mut impl View) -> Result<Option<Ending>, Failure> {
        if self.interrupts.leaves() {
            return Ok(Some(Ending::Detached));
        }
        view.remark("stopping; press Ctrl-C again to leave")?;
        Ok(None)
    }

    async fn ask_to_stop(&mut self) -> Result<(), Failure> {
        if self.interrupts.stop != Stop::Wanted {
            return Ok(());
        }
        let path = format!("operations/{}/stop", self.following.operation);
        match self.app.client.act(Method::POST, &path, Patience::Usual).await {
            // 409: it has ended, or somebody else is stopping it.
            Ok(_) | Err(Failure::Refused { status: 409, .. }) => self.interrupts.stop = Stop::Asked,
            Err(failure) => return Err(failure),
        }
        Ok(())
    }
}

/// Opens a run's output as raw bytes.
pub(crate) async fn raw_output(app: &App, path: &str) -> Result<Stream, Failure> {
    app.client.open(path, None).await
}

/// Whether the event with this id is the last one of sequence number `wanted`, or a later one. An id is a sequence
/// number, with something behind it in the middle of a change of several events.
fn has_passed(id: &str, wanted: u64) -> bool {
    let digits = id.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = id.split_at(digits);
    number.parse().is_ok_and(|number: u64| number > wanted || (number == wanted && rest.is_empty()))
}

#[cfg(test)]
mod tests;
