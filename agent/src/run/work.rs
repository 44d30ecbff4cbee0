//! What a run is started with: an order that means this host, and the contents it names.

use fleetward_protocol::action::ActionRequest;
use fleetward_protocol::digest::Digest;
use fleetward_protocol::order::{Authority, Order};
use fleetward_protocol::run::Refusal;
use serde_bytes::ByteBuf;

use crate::gate;

/// What is needed to start a run.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) order: Order,
    /// What the order says is to be done.
    pub(super) action: ActionRequest,
    /// The contents that the order names, in its order: each has its digest.
    pub(super) contents: Vec<ByteBuf>,
}

impl Work {
    /// Reads the bytes of an order for a run.
    pub(super) fn open(order: &[u8], contents: Vec<ByteBuf>) -> Result<Self, Refusal> {
        let order = gate::open(order)?;
        let (Authority::Run(action) | Authority::Rehearse(action)) = &order.authority else {
            return Err(Refusal::NotARun);
        };
        let action = action.clone();
        if !order.contents.iter().copied().eq(contents.iter().map(|content| Digest::of(content))) {
            return Err(Refusal::DigestMismatch);
        }
        Ok(Self { order, action, contents })
    }
}
