//! `reboot`.

use clap::Args;
use fleetward_protocol::action::reboot::Reboot as Asked;

use crate::action::{self, How};
use crate::app::App;
use crate::failure::{Exit, Failure};
use crate::start::TARGETS;

/// Reboot hosts and see that they come back with all that ran on them
#[derive(Debug, Args)]
#[command(after_help = format!("\
A run ends when its host is back in another boot and that has come to its end. It fails if a service that was active before is not \
any more; its report names them. With --batch 1 and --max-failures 0 the next host goes down only when the one before it is back.

A host where other runs are under way is not rebooted, nor one whose programs want it to stay up (systemd-inhibit).

{TARGETS}

Ctrl-C leaves; the operation goes on. --stop-on-interrupt stops it instead.

Exits with 0 only if every run succeeded, 1 if some did not, 5 if the operation was stopped.

Examples:
  fleetward reboot --on 'web-*' --batch 1 --max-failures 0
  fleetward reboot --on all --only-if-required --canary 1 --batch 10% --max-failures 0 --offline skip --yes
  fleetward reboot --on db-1 --while-busy --force"))]
pub(crate) struct Reboot {
    /// Only hosts that want it: where a package has left /run/reboot-required
    #[arg(long)]
    only_if_required: bool,
    /// Also where somebody wants the host to stay up
    #[arg(long)]
    force: bool,
    /// Also where other runs are under way; scripts among them are lost
    #[arg(long)]
    while_busy: bool,
    #[command(flatten)]
    how: How,
}

/// `fleetward reboot`.
pub(crate) async fn execute(command: Reboot, app: &App) -> Result<Exit, Failure> {
    let Reboot { only_if_required, force, while_busy, how } = command;
    action::carry_out(&Asked { only_if_required, force, while_busy }, how, app).await
}
