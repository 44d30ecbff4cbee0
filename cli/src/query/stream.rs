//! Reads the answer to one question.

use std::io;
use std::time::Duration;

use fleetward_api::work::query::QueryCreate;
use tokio::sync::mpsc;

use crate::client::Client;
use crate::client::sse::{Parser, ServerEvent};
use crate::failure::Failure;
use crate::live::SILENCE;

/// How often silence is measured.
const TICK: Duration = Duration::from_secs(1);

/// What is told of a question.
#[derive(Debug)]
pub(super) enum Told {
    /// The controller has taken it.
    Taken,
    /// What came.
    Events(Vec<ServerEvent>),
    /// It was refused, or broke off before its end. Nothing follows.
    Broken(Failure),
}

/// Whom it is told, and how.
#[derive(Debug)]
pub(super) struct Listening<T, W> {
    /// Takes what is told, as soon as there is room.
    pub(super) tell: mpsc::Sender<T>,
    /// What is made of it.
    pub(super) wrap: W,
}

impl<T, W: Fn(Told) -> T> Listening<T, W> {
    /// Whether somebody listens.
    async fn tell(&self, told: Told) -> bool {
        self.tell.send((self.wrap)(told)).await.is_ok()
    }
}

/// Asks, and tells what comes, until the end was told, it broke, or nobody listens.
pub(super) async fn read<T, W>(client: &Client, asked: &QueryCreate, listening: &Listening<T, W>)
where
    W: Fn(Told) -> T,
{
    if let Err(failure) = events(client, asked, listening).await {
        listening.tell(Told::Broken(failure)).await;
    }
}

async fn events<T, W>(
    client: &Client,
    asked: &QueryCreate,
    listening: &Listening<T, W>,
) -> Result<(), Failure>
where
    W: Fn(Told) -> T,
{
    let mut stream = client.ask("queries", asked).await?;
    listening.tell(Told::Taken).await;
    let url = || client.address().to_string();
    let gone = |source| Failure::Unreachable { url: url(), source };
    let mut parser = Parser::default();
    // Counted in ticks: time in which this process was stopped is nobody's silence.
    let mut silence = Duration::ZERO;
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            biased;
            _ = ticks.tick() => {
                silence += TICK;
                if silence > SILENCE {
                    let what = format!("nothing was heard for {} s", SILENCE.as_secs());
                    return Err(gone(io::Error::new(io::ErrorKind::TimedOut, what)));
                }
            }
            bytes = stream.next() => {
                silence = Duration::ZERO;
                let bytes = bytes.ok_or_else(|| gone(broken()))?.map_err(|_| gone(broken()))?;
                let mut events = Vec::new();
                parser
                    .push(&bytes, &mut events)
                    .map_err(|error| Failure::NotAController { url: url(), problem: error.to_string() })?;
                let is_end = events.iter().any(|event| event.name == "end");
                if (!events.is_empty() && !listening.tell(Told::Events(events)).await) || is_end {
                    return Ok(());
                }
            }
        }
    }
}

/// What is said where an answer ends before its end.
fn broken() -> io::Error {
    let what = "the answer broke off: the controller stopped, the login ended or the network broke; ask again, that is \
                always safe";
    io::Error::new(io::ErrorKind::UnexpectedEof, what)
}
