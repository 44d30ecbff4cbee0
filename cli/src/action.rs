//! `do`.

use std::time::Instant;

use clap::Args;
use fleetward_api::work::kind::Family;
use fleetward_api::work::operation::{OperationCreate, StepCall};

use crate::app::App;
use crate::failure::{Exit, Failure};
use crate::kind::{self, Call};
use crate::render::neutral;
use crate::rollout::Rollout;
use crate::start::{self, Making, Manner, TARGETS, Targets};

/// Do something of any kind on hosts and follow it live
#[derive(Debug, Args)]
#[command(after_help = format!("\
Shows the targets and asks before it starts, then shows what each host tells, as `fleetward run` does.

{}

{TARGETS}

Ctrl-C leaves; the operation goes on. --stop-on-interrupt stops it instead.

Exits with 0 only if every run succeeded, 1 if some did not, 5 if the operation was stopped.

Examples:
  fleetward do unit unit=nginx.service verb=restart --on 'web-*'
  fleetward do unit unit=nginx.service verb=reload --on tag:web --batch 25% --max-failures 0
  fleetward do unit unit=nginx verb=stop --on tag:web --dry-run
  fleetward do unit --params unit.json --on all --offline skip --yes --output json", kind::FORMS))]
pub(crate) struct Do {
    #[command(flatten)]
    pub(crate) call: Call,
    #[command(flatten)]
    targets: Targets,
    /// Have each host tell what it would change, and change nothing; for kinds that can
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    rollout: Rollout,
    /// Why, in 1,000 characters at most; shown in history and audit
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    manner: Manner,
    #[command(flatten)]
    making: Making,
}

/// `fleetward do`.
pub(crate) async fn execute(command: Do, app: &App) -> Result<Exit, Failure> {
    if !command.dry_run {
        command.making.check(&command.manner)?;
    }
    let begun = Instant::now();
    let known = kind::get(app, &command.call.kind, Family::Action).await?;
    let params = command.call.params(&known)?;
    let what = neutral::text(&command.call.typed(&params));
    let asked = OperationCreate {
        id: None,
        plan: None,
        steps: vec![StepCall { kind: known.kind.name, params }],
        scripts: Vec::new(),
        on: command.targets.on,
        skip_not_enrolled: command.targets.skip_not_enrolled,
        dry_run: command.dry_run,
        rollout: command.rollout.into(),
        environment: std::collections::BTreeMap::new(),
        directory: None,
        user: None,
        reason: command.reason,
    };
    let preview = start::preview(app, &asked, &what, &command.manner).await?;
    start::carry_out(app, asked, preview, (&command.manner, &command.making), begun).await
}
