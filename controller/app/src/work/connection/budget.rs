//! What hosts may make the controller write, and what is done when one of them wants more.
//!
//! **What it promises.** What is not stored is counted, and told in sum under the host's name (`refusal`). The budget is
//! the host's: it survives its connections.

use std::sync::{Mutex, MutexGuard, PoisonError};

use fleetward_domain::bucket::TooMany;
use fleetward_domain::fleet::budget::{Allowance, Budgets, Expense, Flood};
use fleetward_protocol::id::HostId;
use fleetward_store::StoreError;
use fleetward_store::fleet::host::{self, Notice};
use tracing::{error, warn};

use super::Admitted;
use crate::App;
use crate::fleet::online::FleetEvent;
use crate::people::actor::Actor;
use crate::people::audit::{self, Entry};

/// What is told of a host that was cut off.
const CUT_OFF: &str = "host.cut_off";

/// What is left of the hosts' budgets.
#[derive(Debug, Default)]
pub struct HostBudgets(Mutex<Budgets>);

impl HostBudgets {
    /// Takes an expense from the host's budget; one that is not in there is counted, and harmless by itself.
    ///
    /// # Errors
    /// [`TooMany`] if the budget is used up.
    pub fn admit(&self, app: &App, host: HostId, expense: Expense) -> Result<(), TooMany> {
        let admitted = self.budgets().admit(host, expense, app.now());
        if admitted.is_err() {
            count(app, host, expense);
        }
        admitted
    }

    /// Whether what waits of a host may be stored now.
    #[must_use]
    pub fn admits(&self, app: &App, host: HostId, expense: Expense) -> bool {
        self.budgets().admit(host, expense, app.now()).is_ok()
    }

    /// Takes note of a message of a host's; what is to be done with it. What is not to be stored is counted.
    pub fn spend(&self, app: &App, host: HostId, expense: Expense) -> Allowance {
        let allowance = self.budgets().spend(host, expense, app.now());
        if allowance != Allowance::Within {
            count(app, host, expense);
        }
        allowance
    }

    /// Counts a message of a host's that is not stored for another reason.
    ///
    /// # Errors
    /// [`Flood`] if there were too many of them.
    pub fn exceed(&self, app: &App, host: HostId, expense: Expense) -> Result<(), Flood> {
        count(app, host, expense);
        self.budgets().exceed(host, app.now())
    }

    fn budgets(&self) -> MutexGuard<'_, Budgets> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn count(app: &App, host: HostId, expense: Expense) {
    let kind = match expense {
        Expense::Connection => "host.connection_refused",
        Expense::Notice => "host.notice",
        Expense::Facts => "host.facts",
        Expense::Upkeep => "host.upkeep",
        Expense::Renewal => "host.renewal_refused",
        Expense::CutOff => CUT_OFF,
    };
    app.refusals().count(kind, host, app.now());
}

/// Whether the operator is to be told by [`record_cut_off`] that a host is cut off now: once in a while. Otherwise it
/// was counted, and is told in sum.
#[must_use]
pub fn is_cut_off_told(app: &App, host: HostId) -> bool {
    app.budgets().admit(app, host, Expense::CutOff).is_ok()
}

/// Tells the operator of a host that was cut off for a flood.
pub async fn record_cut_off(app: &App, admitted: &Admitted) {
    warn!(host = %admitted.name, "connection.cut_off");
    if let Err(error) = write_cut_off(app, admitted).await {
        error!(host = %admitted.name, %error, "connection.cut_off_not_stored");
    }
    app.fleet().announce(FleetEvent::Host { tenant: admitted.tenant, host: admitted.host });
}

async fn write_cut_off(app: &App, admitted: &Admitted) -> Result<(), StoreError> {
    let (now, name) = (app.now(), &admitted.name);
    let text = format!(
        "the controller cut this host off because it sent far more messages than an agent does; those over its budget \
         were counted, not stored. Restart or upgrade its agent; if it goes on, `fleetward host revoke {name}` \
         keeps it out"
    );
    let mut tx = app.store().write().await?;
    host::update_notice(&mut tx, admitted.host, &Notice { at: now, text: text.clone() }).await?;
    let entry = Entry::new(CUT_OFF, Actor::System, name).tenant(admitted.tenant).with("text", text);
    audit::record(&mut tx, entry, now).await?;
    tx.commit().await
}
