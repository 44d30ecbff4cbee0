//! Tells what is seen: in frames, in portions, and never more than was agreed.

use std::marker::PhantomData;

use fleetward_protocol::message::{MAX_ITEMS, QueryItem, QueryUp};
use fleetward_protocol::query::{Contract, Key};
use fleetward_protocol::text::{Line, List, Text};
use fleetward_protocol::wire::{self, MAX_QUERY_FRAME};
use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::pipe::Sender;

use super::Agent;
use crate::config::Allowed;

/// A portion is told when it has so many bytes. With one more item it fits into a frame.
const PORTION: usize = 48 << 10;

/// Where it is told.
#[derive(Debug)]
pub(super) struct Teller<C> {
    out: Sender,
    allowed: Allowed,
    agent: Agent,
    portion: Vec<QueryItem>,
    /// The bytes of the portion.
    size: usize,
    /// What was told before all was.
    items: usize,
    bytes: usize,
    is_complete: bool,
    kind: PhantomData<fn() -> C>,
}

/// Why an answer does not go on.
#[derive(Debug)]
pub(super) enum Stop {
    /// Nobody listens any more.
    Unheard,
    /// It cannot: why, and what to do about it.
    Failed(Line),
}

impl Stop {
    /// The answer breaks off.
    pub(super) fn failed(detail: impl std::fmt::Display) -> Self {
        Self::Failed(Text::of(detail))
    }
}

impl<C: Contract> Teller<C> {
    pub(super) fn new(out: Sender, allowed: Allowed) -> Self {
        Self {
            out,
            allowed,
            agent: Agent::default(),
            portion: Vec::new(),
            size: 0,
            items: 0,
            bytes: 0,
            is_complete: false,
            kind: PhantomData,
        }
    }

    /// The same, for this agent.
    pub(super) fn of(self, agent: Agent) -> Self {
        Self { agent, ..self }
    }

    /// The agent that it is told for.
    pub(super) const fn agent(&self) -> &Agent {
        &self.agent
    }

    /// What the owner allows this kind to look at.
    pub(super) const fn allowed(&self) -> &Allowed {
        &self.allowed
    }

    /// Tells of an item, with the next portion, unless the owner does not allow it.
    pub(super) async fn item(&mut self, item: &C::Item) -> Result<(), Stop> {
        if C::shown(item).is_some_and(|object| !self.allowed.allows(&object)) {
            return Ok(());
        }
        let key = C::key(item);
        let json =
            serde_json::to_string(item).map_err(|error| Stop::failed(format_args!("`{key}`: {error}")))?;
        let item = Text::try_from(json).map_err(|error| Stop::failed(format_args!("`{key}`: {error}")))?;
        let size = key.len() + item.len();
        if !self.is_complete {
            self.items += 1;
            self.bytes += size;
            if self.items > C::MAX_ITEMS || self.bytes > C::MAX_BYTES {
                self.flush().await?;
                let (items, bytes) = (C::MAX_ITEMS, C::MAX_BYTES);
                return Err(Stop::failed(format_args!(
                    "there are more than {items} items or {bytes} bytes of them; ask for less"
                )));
            }
        }
        self.size += size;
        self.portion.push(QueryItem { key, item });
        if self.size >= PORTION || self.portion.len() == MAX_ITEMS { self.flush().await } else { Ok(()) }
    }

    /// Whether items wait for a whole portion.
    pub(super) const fn holds(&self) -> bool {
        !self.portion.is_empty()
    }

    /// Tells what is no more.
    pub(super) async fn gone(&mut self, keys: Vec<Key>) -> Result<(), Stop> {
        self.flush().await?;
        for keys in keys.chunks(MAX_ITEMS) {
            self.say(&QueryUp::Gone(List::of(keys.iter().cloned()))).await?;
        }
        Ok(())
    }

    /// Tells that this is all there is now.
    pub(super) async fn complete(&mut self) -> Result<(), Stop> {
        self.flush().await?;
        self.is_complete = true;
        self.say(&QueryUp::Complete).await
    }

    /// Tells of the items that wait for a whole portion.
    pub(super) async fn flush(&mut self) -> Result<(), Stop> {
        if self.portion.is_empty() {
            return Ok(());
        }
        self.size = 0;
        let portion = std::mem::take(&mut self.portion);
        self.say(&QueryUp::Items(List::of(portion))).await
    }

    /// The last word.
    pub(super) async fn end(mut self, how: Result<(), Stop>) {
        let last = match how {
            Ok(()) => QueryUp::Ended,
            Err(Stop::Failed(detail)) => QueryUp::Failed { detail },
            Err(Stop::Unheard) => return,
        };
        if self.flush().await.is_ok() {
            drop(self.say(&last).await);
        }
    }

    /// Whoever listens slowly is waited for.
    async fn say(&mut self, what: &QueryUp) -> Result<(), Stop> {
        let frame = wire::frame(what, MAX_QUERY_FRAME).map_err(Stop::failed)?;
        self.out.write_all(&frame).await.map_err(|_| Stop::Unheard)
    }
}
