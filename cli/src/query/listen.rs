//! Reads answers: once, or on and on across connections that break.

use std::io;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use fleetward_api::fleet::host::{Host, HostQuery, Status};
use fleetward_api::work::query::QueryCreate;
use fleetward_protocol::name::HostName;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Answer, Sink};
use crate::app::App;
use crate::client::jittered;
use crate::client::sse::Parser;
use crate::failure::Failure;
use crate::live::{FIRST_PAUSE, LONGEST_PAUSE, LOOK_UP_WITHIN, PATIENCE, SILENCE};
use crate::render::neutral;

/// How often silence is measured.
const TICK: Duration = Duration::from_secs(1);
/// The most hosts that are looked up at once.
const MAX_LOOKED_UP: usize = 50;

/// Why listening ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// All was told.
    Ended,
    /// The user left.
    Left,
}

/// Why one answer ended.
enum AnswerEnd {
    /// With its end, or with the user.
    Whole(Ending),
    /// A host that was followed is connected again.
    Back,
}

/// Asks, and reads the answer to its end, or until the user leaves.
pub(super) async fn once(
    app: &App,
    asked: &QueryCreate,
    answer: &mut Answer,
    sink: &mut impl Sink,
) -> Result<Ending, Failure> {
    let mut listener = Listener::new(app, asked)?;
    match listener.listen(answer, sink).await? {
        AnswerEnd::Whole(ending) => Ok(ending),
        AnswerEnd::Back => Ok(Ending::Ended),
    }
}

/// Asks, and asks again when the connection to the controller breaks, or a host that was followed comes back.
pub(super) async fn follow(
    app: &App,
    asked: &QueryCreate,
    answer: &mut Answer,
    sink: &mut impl Sink,
) -> Result<Ending, Failure> {
    let mut listener = Listener::new(app, asked)?;
    let mut lost: Option<Instant> = None;
    loop {
        let failure = match listener.listen(answer, sink).await {
            Ok(AnswerEnd::Whole(Ending::Ended)) if answer.missing().next().is_some() => {
                match listener.wait_for_hosts(answer).await? {
                    AnswerEnd::Whole(ending) => return Ok(ending),
                    AnswerEnd::Back => None,
                }
            }
            Ok(AnswerEnd::Whole(ending)) => return Ok(ending),
            Ok(AnswerEnd::Back) => None,
            Err(failure) if listener.has_heard && failure.is_passing() => Some(failure),
            Err(failure) => return Err(failure),
        };
        if listener.has_heard_now {
            lost = None;
        }
        if let Some(failure) = failure {
            let since = *lost.get_or_insert_with(|| {
                app.out.warn("The connection to the controller was lost; asking again until it answers.");
                Instant::now()
            });
            if since.elapsed() > PATIENCE {
                return Err(failure);
            }
        } else {
            app.out.note("A host is back; asking again.");
        }
        if listener.pause().await == Some(Ending::Left) {
            return Ok(Ending::Left);
        }
        answer.again();
        sink.again()?;
    }
}

struct Listener<'a> {
    app: &'a App,
    asked: &'a QueryCreate,
    interrupts: Signal,
    /// Whether the controller has taken the question, ever and the last time.
    has_heard: bool,
    has_heard_now: bool,
    /// The next pause, and when the last one ended.
    pause: Duration,
    asked_at: Instant,
}

impl<'a> Listener<'a> {
    fn new(app: &'a App, asked: &'a QueryCreate) -> Result<Self, Failure> {
        let interrupts =
            signal(SignalKind::interrupt()).context("cannot listen for Ctrl-C").map_err(Failure::Other)?;
        let asked_at = Instant::now();
        let (has_heard, has_heard_now, pause) = (false, false, FIRST_PAUSE);
        Ok(Self { app, asked, interrupts, has_heard, has_heard_now, pause, asked_at })
    }

    /// Reads one answer to its end.
    async fn listen(&mut self, answer: &mut Answer, sink: &mut impl Sink) -> Result<AnswerEnd, Failure> {
        self.has_heard_now = false;
        let mut stream = tokio::select! {
            stream = self.app.client.ask("queries", self.asked) => stream?,
            _ = self.interrupts.recv() => return Ok(AnswerEnd::Whole(Ending::Left)),
        };
        (self.has_heard, self.has_heard_now) = (true, true);
        let url = || self.app.client.address().to_string();
        let gone = |source| Failure::Unreachable { url: url(), source };
        let (mut parser, mut events) = (Parser::default(), Vec::new());
        // Counted in ticks: time in which this process was stopped is nobody's silence.
        let mut silence = Duration::ZERO;
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut look = LookUp::default();
        loop {
            tokio::select! {
                // Items may come without end: Ctrl-C goes first.
                biased;
                _ = self.interrupts.recv() => return Ok(AnswerEnd::Whole(Ending::Left)),
                _ = ticks.tick() => {
                    silence += TICK;
                    if silence > SILENCE {
                        let what = format!("nothing was heard for {} s", SILENCE.as_secs());
                        return Err(gone(io::Error::new(io::ErrorKind::TimedOut, what)));
                    }
                    if look.is_any_back(self.app, answer).await {
                        return Ok(AnswerEnd::Back);
                    }
                }
                bytes = stream.next() => {
                    silence = Duration::ZERO;
                    let bytes = bytes.ok_or_else(|| gone(broken()))?.map_err(|_| gone(broken()))?;
                    parser
                        .push(&bytes, &mut events)
                        .map_err(|error| Failure::NotAController { url: url(), problem: error.to_string() })?;
                    let mut ended = false;
                    for event in events.drain(..) {
                        sink.event(&event)?;
                        ended |= answer.take(&event, sink)?;
                    }
                    sink.flush()?;
                    if ended {
                        return Ok(AnswerEnd::Whole(Ending::Ended));
                    }
                }
            }
        }
    }

    /// Nobody is followed any more, and somebody was: waits until one of them is back, for a while.
    async fn wait_for_hosts(&mut self, answer: &Answer) -> Result<AnswerEnd, Failure> {
        let names: Vec<String> = answer.missing().map(|name| neutral::text(name.as_str())).collect();
        self.app.out.note(format_args!("Waiting for {}.", names.join(", ")));
        let begun = Instant::now();
        let mut look = LookUp::default();
        while begun.elapsed() < PATIENCE {
            if self.pause().await == Some(Ending::Left) {
                return Ok(AnswerEnd::Whole(Ending::Left));
            }
            if look.is_any_back(self.app, answer).await {
                return Ok(AnswerEnd::Back);
            }
        }
        Ok(AnswerEnd::Whole(Ending::Ended))
    }

    /// Waits a little longer each time, unless all went well for long.
    async fn pause(&mut self) -> Option<Ending> {
        if self.asked_at.elapsed() > PATIENCE / 10 {
            self.pause = FIRST_PAUSE;
        }
        let pause = self.pause;
        self.pause = (pause * 2).min(LONGEST_PAUSE);
        let ending = tokio::select! {
            () = tokio::time::sleep(jittered(pause)) => None,
            _ = self.interrupts.recv() => Some(Ending::Left),
        };
        self.asked_at = Instant::now();
        ending
    }
}

/// What is said where an answer ends before its end.
fn broken() -> io::Error {
    let what = "the answer broke off: the controller stopped, the login ended or the network broke; ask again, that is \
                always safe";
    io::Error::new(io::ErrorKind::UnexpectedEof, what)
}

/// Looks hosts up that were followed, more seldom the longer they stay away.
#[derive(Debug, Default)]
struct LookUp {
    wait: Duration,
    last: Option<Instant>,
}

impl LookUp {
    /// Whether one of the missing hosts is connected. What cannot be found out is found out the next time.
    async fn is_any_back(&mut self, app: &App, answer: &Answer) -> bool {
        let names: Vec<&str> = answer.missing().take(MAX_LOOKED_UP).map(HostName::as_str).collect();
        if names.is_empty() || self.last.is_some_and(|last| last.elapsed() < self.wait) {
            return false;
        }
        let query = HostQuery { on: Some(names.join(" | ")), ..HostQuery::default() };
        let asked = app.collect::<Host>("hosts", &query, None);
        let found = tokio::time::timeout(LOOK_UP_WITHIN, asked).await;
        (self.last, self.wait) = (Some(Instant::now()), (self.wait * 2).clamp(TICK, LONGEST_PAUSE));
        matches!(found, Ok(Ok(hosts)) if hosts.iter().any(|host| host.status == Status::Online))
    }
}
