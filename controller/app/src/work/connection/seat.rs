//! A seat that is left whatever ends its session.

use std::sync::Arc;

use tracing::{error, info};

use super::Departure;
use crate::App;
use crate::fleet::online::{FleetEvent, Seat};

/// A host's seat, held by its session. Dropped in whatever way (an early return, a panic, a task that is cut off), it
/// is left: no host is online without a session.
#[derive(Debug)]
pub struct HeldSeat {
    app: App,
    seat: Arc<Seat>,
    is_left: bool,
}

impl HeldSeat {
    pub(super) const fn new(app: App, seat: Arc<Seat>) -> Self {
        Self { app, seat, is_left: false }
    }

    /// The seat, for those who work for the session.
    #[must_use]
    pub const fn seat(&self) -> &Arc<Seat> {
        &self.seat
    }

    /// Gives the seat back, and says why.
    pub fn leave(mut self, departure: Departure, reason: &str) {
        self.is_left = true;
        if release(&self.app, &self.seat) {
            info!(host = %self.seat.host, ?departure, reason, "connection.left");
        }
    }
}

impl Drop for HeldSeat {
    fn drop(&mut self) {
        if !self.is_left && release(&self.app, &self.seat) {
            error!(host = %self.seat.host, "connection.broken_off");
        }
    }
}

/// Frees the seat; whether the host is offline now.
fn release(app: &App, seat: &Seat) -> bool {
    let is_offline = app.fleet().leave(seat);
    if is_offline {
        app.dispatcher().host_offline(seat.host);
        app.presences().note_offline(seat.host, seat.presence().last_seen);
        app.fleet().announce(FleetEvent::Host { tenant: seat.tenant, host: seat.host });
    }
    is_offline
}
