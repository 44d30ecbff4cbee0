//! How each kind of action is carried out: from a parsed action to the [`ProcessPlan`] of one process, and what that process does.
//!
//! A script is bash. Every other kind is *typed*: its process is our own executable, `fleetward-agent perform`
//! ([`crate::perform`]), supervised exactly as a script is.
//!
//! To add a kind: a file beside `unit.rs` that implements `Perform`, its `mod` and one line in `perform`.

pub mod daemon_reload;
mod difference;
pub mod file;
mod own_unit;
mod package;
mod reboot;
pub mod script;
pub mod site;
pub mod unit;
pub mod unit_content;
pub mod unit_file;
mod unit_names;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use fleetward_protocol::action::{
    ALONE, Action, ActionRequest, Actor, Contract, InvalidAction, Needs, Preview,
};
use fleetward_protocol::id::BootId;
use fleetward_protocol::name::ResourceName;
use fleetward_protocol::object::Object;
use fleetward_protocol::order::Order;
use fleetward_protocol::run::Refusal;
use fleetward_protocol::text::Text;
use serde_bytes::ByteBuf;

use crate::config::Allowed;
use crate::perform::{Done, Failure, PERFORM, RESUME, Steps, Task};
use crate::platform::users::{self, Account, Identity};

/// A typed kind of action.
///
/// It goes in steps: look at what there is, change what has to be changed, verify that it is so, and undo it if not. Each
/// step is told through [`Steps`] as it happens; where all is as wanted, nothing is touched.
pub(crate) trait Perform: Contract {
    /// What carrying it out would change on this host as it is now; nothing where all is as wanted. Only looks.
    ///
    /// # Errors
    /// Why it could not be carried out, as [`perform`](Self::perform) would say.
    fn rehearse(&self, steps: &mut Steps) -> Result<Preview, Failure<Preview>>;

    /// Carries it out.
    ///
    /// # Errors
    /// Why it did not come to what was asked for, what to do next, and how the host was left.
    fn perform(&self, steps: &mut Steps) -> Result<Self::Report, Failure<Self::Report>>;
}

/// Carries a typed action out; `None` for an action that is no typed one.
pub(crate) fn perform(action: &Action, steps: &mut Steps) -> Option<Done> {
    match action {
        Action::Script(_) => None,
        Action::DaemonReload(reload) => Some(carry_out(reload, steps)),
        Action::Unit(unit) => Some(carry_out(unit, steps)),
        Action::UnitContent(content) => Some(carry_out(content, steps)),
        Action::UnitFile(file) => Some(carry_out(file, steps)),
        Action::File(file) => Some(carry_out(file, steps)),
        Action::Package(package) => Some(carry_out(package, steps)),
        Action::Reboot(reboot) => Some(carry_out(reboot, steps)),
        Action::Site(site) => Some(carry_out(site, steps)),
    }
}

fn carry_out<C: Perform>(asked: &C, steps: &mut Steps) -> Done {
    if !steps.is_rehearsal() {
        return steps.conclude(|steps| asked.perform(steps));
    }
    steps.conclude(|steps| {
        let preview = asked.rehearse(steps)?;
        steps.preview(&preview);
        Ok(preview)
    })
}

/// One process to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessPlan {
    /// The executable, by absolute path.
    pub program: String,
    /// Its argv; where [`Argument::Script`] stands, the path of the run's script file goes.
    pub arguments: Vec<Argument>,
    /// Its whole environment.
    pub environment: BTreeMap<String, String>,
    /// The names of those variables that the request set: what the host's policy is asked about.
    pub requested: BTreeSet<String>,
    /// What it reads, if it is our own executable.
    pub input: Option<Vec<u8>>,
    /// Where it starts.
    pub directory: PathBuf,
    /// The account to become; `None` to stay the agent's own.
    pub account: Option<Account>,
    /// Whether it becomes that account by itself, when it has opened what is the agent's alone.
    pub becomes: bool,
    /// Resources it holds while it runs.
    pub resources: Vec<ResourceName>,
    /// Whether it is the dry run of what wants the host alone: it holds nothing, and is refused where that would be.
    pub rehearses_alone: bool,
    /// What it touches: what the host's policy is asked about, too.
    pub objects: Vec<Object>,
    /// Whether it can go on in a later boot ([`Contract::RESUMABLE`]).
    pub resumable: bool,
}

impl ProcessPlan {
    /// The plan for a process that goes on with what a restart of the host cut off.
    pub(crate) fn resume(&mut self) {
        let directory = self.arguments.iter().position(|argument| *argument == Argument::Directory);
        self.arguments.insert(directory.unwrap_or(self.arguments.len()), Argument::Text(RESUME.to_owned()));
    }
}

/// One element of an argv.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Argument {
    /// As it stands.
    Text(String),
    /// The path of the file that holds the order's content.
    Script,
    /// The run's directory.
    Directory,
}

/// What a plan takes from its host.
#[derive(Debug)]
pub struct Here<'a> {
    /// The agent's account.
    pub own: &'a Account,
    /// The variables that tell where it has its things.
    pub places: BTreeMap<String, String>,
    /// What the owner allows the kind to touch.
    pub allowed: Allowed,
    /// The boot that it is in.
    pub boot: BootId,
}

/// How an action is carried out with the order's contents, by this host; or what it would change is told.
///
/// # Errors
/// The reason why it cannot be.
pub fn plan(
    order: &Order,
    action: &ActionRequest,
    contents: &[ByteBuf],
    here: &Here<'_>,
) -> Result<ProcessPlan, Refusal> {
    match Action::parse(action) {
        Ok(Action::Script(script)) => script::plan(order, &script, contents, here.own),
        Ok(typed) => plan_typed(order, action, &typed, here),
        Err(InvalidAction::Unsupported { kind }) => Err(Refusal::Unsupported { kind: Text::of(&kind) }),
        Err(error @ InvalidAction::Malformed { .. }) => Err(Refusal::Malformed { detail: Text::of(error) }),
    }
}

/// Our own executable, as it is: a package that is upgraded meanwhile does not change what runs.
const OWN: &str = "/proc/self/exe";

fn plan_typed(
    order: &Order,
    action: &ActionRequest,
    typed: &Action,
    here: &Here<'_>,
) -> Result<ProcessPlan, Refusal> {
    let Here { own, places, .. } = here;
    let Needs { actor, resources, contents: _ } = typed.needs();
    let account = match &actor {
        Actor::Agent => None,
        Actor::Root if own.uid == 0 => None,
        Actor::Root => return Err(Refusal::NoSuchUser { user: Text::of("root") }),
        Actor::User(user) => users::account_of(user, own)?,
    };
    Ok(ProcessPlan {
        program: OWN.to_owned(),
        arguments: vec![
            Argument::Text("fleetward-agent".to_owned()),
            Argument::Text(PERFORM.to_owned()),
            Argument::Directory,
        ],
        environment: base(order, account.as_ref().unwrap_or(own)).into_iter().chain(places.clone()).collect(),
        requested: BTreeSet::new(),
        // What it is told to do may hold secrets: it travels like an environment, and stands in no file and no argv.
        input: Some(input(order, action, here, account.as_ref())?),
        directory: "/".into(),
        account,
        becomes: true,
        rehearses_alone: order.is_rehearsal() && resources.iter().any(|name| name.as_str() == ALONE),
        // Who only looks holds up nobody.
        resources: if order.is_rehearsal() { Vec::new() } else { resources },
        objects: typed.touches(),
        resumable: typed.is_resumable(),
    })
}

fn input(
    order: &Order,
    action: &ActionRequest,
    here: &Here<'_>,
    account: Option<&Account>,
) -> Result<Vec<u8>, Refusal> {
    let (action, allowed, boot) = (action.clone(), here.allowed.clone(), here.boot);
    let identity = account.map(Identity::of);
    let task = Task { action, rehearsal: order.is_rehearsal(), allowed, identity, boot };
    serde_json::to_vec(&task).map_err(|error| Refusal::Malformed { detail: Text::of(error) })
}

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The environment of every process of a run.
fn base(order: &Order, actor: &Account) -> BTreeMap<String, String> {
    let variables = [
        ("PATH", PATH.to_owned()),
        ("HOME", actor.home.display().to_string()),
        ("USER", actor.name.clone()),
        ("LOGNAME", actor.name.clone()),
        ("SHELL", actor.shell.display().to_string()),
        ("LANG", "C.UTF-8".to_owned()),
        ("FLEETWARD_RUN_ID", order.run.to_string()),
        ("FLEETWARD_OPERATION_ID", order.operation.to_string()),
        ("FLEETWARD_CLIENT_ID", order.client.to_string()),
    ];
    variables.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use fleetward_protocol::action::unit::{Unit, Verb};
    use fleetward_protocol::id::{OperationId, RunId};
    use fleetward_protocol::object::Class;
    use fleetward_protocol::order::{Authority, Limits};
    use fleetward_protocol::time::Timestamp;

    use super::*;
    use crate::config::BUS;

    fn action() -> ActionRequest {
        let unit = Unit::new("nginx.service".parse().unwrap(), Verb::Restart);
        ActionRequest::new(&unit).unwrap()
    }

    fn order() -> Order {
        Order {
            run: RunId::from_uuid(uuid::Uuid::from_u128(1)),
            operation: OperationId::from_uuid(uuid::Uuid::from_u128(2)),
            client: "00000000-0000-4000-8000-000000000007".parse().unwrap(),
            issuer: Text::of("ada"),
            authority: Authority::Run(action()),
            not_before: Timestamp::from_millis(0),
            deadline: Timestamp::from_millis(0),
            limits: Limits::DEFAULT,
            contents: Vec::new(),
        }
    }

    fn account(uid: u32) -> Account {
        Account { name: "x".into(), uid, gid: uid, home: "/root".into(), shell: "/bin/sh".into() }
    }

    fn here<'a>(own: &'a Account, bus: Option<&str>) -> Here<'a> {
        let places = bus.map(|bus| (BUS.to_owned(), bus.to_owned())).into_iter().collect();
        Here { own, places, allowed: Allowed::default(), boot: BootId::from_uuid(uuid::Uuid::from_u128(3)) }
    }

    #[test]
    fn a_dry_run_holds_nothing_and_is_not_for_scripts() {
        let rehearsal =
            |action: &ActionRequest| Order { authority: Authority::Rehearse(action.clone()), ..order() };
        let plan = super::plan(&rehearsal(&action()), &action(), &[], &here(&account(0), None)).unwrap();
        let task: Task = serde_json::from_slice(&plan.input.unwrap()).unwrap();
        assert!(task.rehearsal);
        assert_eq!(plan.resources, []);
        assert_eq!(plan.objects, [Object::named(Class::Units, "nginx.service")]);
        let script = ActionRequest {
            kind: "script".into(),
            params: format!(r#"{{"name":"a","digest":"{}"}}"#, "0".repeat(64)),
        };
        let refusal = super::plan(&rehearsal(&script), &script, &[], &here(&account(0), None)).unwrap_err();
        assert!(format!("{refusal:?}").contains("no dry run"), "{refusal:?}");
    }

    #[test]
    fn a_typed_kind_is_our_own_executable_and_says_nothing_in_its_argv() {
        let plan = plan(&order(), &action(), &[], &here(&account(0), Some("unix:path=/bus"))).unwrap();
        let text = |text: &str| Argument::Text(text.into());
        assert_eq!(plan.arguments, [text("fleetward-agent"), text("perform"), Argument::Directory]);
        let task: Task = serde_json::from_slice(&plan.input.unwrap()).unwrap();
        assert_eq!((task.action, task.rehearsal), (action(), false));
        assert_eq!(plan.environment[BUS], "unix:path=/bus");
        assert_eq!((plan.account, plan.requested.len()), (None, 0));
        assert_eq!(plan.resources[0].as_str(), "unit/nginx.service");
        let mut plan = super::plan(&order(), &action(), &[], &here(&account(0), None)).unwrap();
        assert!(plan.resumable);
        plan.resume();
        let resumed = [text("fleetward-agent"), text("perform"), text("--resume"), Argument::Directory];
        assert_eq!(plan.arguments, resumed);
    }

    #[test]
    fn what_needs_root_is_refused_without_it() {
        let refusal = plan(&order(), &action(), &[], &here(&account(1000), None)).unwrap_err();
        assert_eq!(refusal, Refusal::NoSuchUser { user: Text::of("root") });
    }
}
