//! `do`.

use std::time::Instant;

use clap::Args;
use fleetward_api::work::kind::Family;
use fleetward_api::work::operation::{OperationCreate, StepCall};
use fleetward_protocol::action::Contract;
use serde_json::{Map, Value};

use crate::app::App;
use crate::failure::{Exit, Failure};
use crate::kind::{self, Call};
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
    how: How,
}

/// Where, how and why something is done.
#[derive(Debug, Args)]
pub(crate) struct How {
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
    let known = kind::get(app, &command.call.kind, Family::Action).await?;
    let params = command.call.params(&known)?;
    start(&known.kind.name, params, command.how, app).await
}

/// Does what these parameters say.
///
/// # Errors
/// If they are none of this kind's.
pub(crate) async fn carry_out<C: Contract>(asked: &C, how: How, app: &App) -> Result<Exit, Failure> {
    asked.validate().map_err(Failure::Usage)?;
    let params = serde_json::to_value(asked).map_err(|error| Failure::Other(error.into()))?;
    let Value::Object(params) = params else {
        return Err(Failure::Usage("nothing was asked for".to_owned()));
    };
    start(C::KIND, params, how, app).await
}

impl How {
    /// The same, and nothing is changed.
    pub(crate) fn dry(self) -> Self {
        Self { dry_run: true, ..self }
    }

    fn check(&self) -> Result<(), Failure> {
        if self.dry_run { Ok(()) } else { self.making.check(&self.manner) }
    }
}

async fn start(kind: &str, params: Map<String, Value>, how: How, app: &App) -> Result<Exit, Failure> {
    // What is asked for was judged before: who mistyped it is not told of a terminal first.
    how.check()?;
    let begun = Instant::now();
    let asked = OperationCreate {
        id: None,
        plan: None,
        steps: vec![StepCall { kind: kind.to_owned(), params }],
        scripts: Vec::new(),
        on: how.targets.on,
        skip_not_enrolled: how.targets.skip_not_enrolled,
        dry_run: how.dry_run,
        rollout: how.rollout.into(),
        environment: std::collections::BTreeMap::new(),
        directory: None,
        user: None,
        reason: how.reason,
    };
    let preview = start::preview(app, &asked, None, &how.manner).await?;
    start::carry_out(app, asked, preview, (&how.manner, &how.making), begun).await
}
