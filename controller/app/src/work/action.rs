//! Kinds of action on the controller's side: what a person asks for becomes what a host is told.
//!
//! **What it promises.** A kind is one of [`Kinds`], and all that is done with it here is done through that list: whatever
//! stands around this module is generic over kinds. A kind cannot be forgotten: the list is made by
//! [`for_each_action!`](fleetward_protocol::for_each_action), and each of them must [`Resolve`]. What comes from outside names
//! things; digests, users and limits are looked up in the caller's tenant.
//!
//! To add a kind whose parameters are for the host as they are, nothing is to be done here; for another, a file beside
//! `script.rs` that implements [`Resolve`].

mod file;
pub mod script;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use fleetward_domain::fleet::contract::Undeclared;
use fleetward_domain::people::permission::Permission;
use fleetward_protocol::action::{self, ActionRequest, Contract, InvalidAction, Kind};
use fleetward_protocol::digest::Digest;
use fleetward_protocol::suggest::nearest;
use fleetward_protocol::text::{Line, Text};
use fleetward_store::{Connection, Scope};
use serde_json::{Map, Value};

use crate::App;
use crate::people::access::{Permit, Run};
use crate::work::operation::OperationError;

/// An action as a person asks for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// The kind's name.
    pub kind: String,
    /// Its parameters, whatever they are.
    pub params: Map<String, Value>,
}

/// For whom, and in which rows, names are looked up.
pub struct Within<'a> {
    /// The application.
    pub app: &'a App,
    /// Who asks.
    pub permit: &'a Permit<Run>,
    /// Whose rows count.
    pub scope: Scope,
    /// Where they are read.
    pub conn: &'a mut Connection,
}

/// An action as it is ordered.
#[derive(Debug)]
pub struct Resolved<C> {
    /// What the host receives.
    pub params: C,
    /// The parameters as they may be shown: without what may be a secret.
    pub shown: Map<String, Value>,
    /// Names with the values that must not be shown under them, in no step of the operation.
    pub hidden: Vec<(String, String)>,
    /// What was given although nobody declared it.
    pub undeclared: Vec<Undeclared>,
    /// How long it may take where the request does not say; what its kind says when absent.
    pub timeout: Option<Duration>,
}

/// What a person asks for, and how it becomes what a host is told: the parameters `C` of a kind.
pub trait Resolve<C: Contract> {
    /// Looks up what is named, and checks what only the controller can.
    fn resolve(
        self,
        within: &mut Within<'_>,
    ) -> impl Future<Output = Result<Resolved<C>, OperationError>> + Send;
}

/// Parameters that are for the host as they are.
impl<C: Contract<Asked = C> + Send> Resolve<C> for C {
    async fn resolve(self, _: &mut Within<'_>) -> Result<Resolved<C>, OperationError> {
        let shown = match serde_json::to_value(&self) {
            Ok(Value::Object(shown)) => shown,
            _ => Map::new(),
        };
        Ok(Resolved { params: self, shown, hidden: Vec::new(), undeclared: Vec::new(), timeout: None })
    }
}

/// An action that is resolved, whatever its kind.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) action: ActionRequest,
    pub(crate) subject: String,
    pub(crate) contents: Vec<Digest>,
    pub(crate) shown: Map<String, Value>,
    pub(crate) hidden: Vec<(String, String)>,
    pub(crate) undeclared: Vec<Undeclared>,
    pub(crate) timeout: Duration,
    /// Whether the kind can tell what it would do.
    pub(crate) rehearses: bool,
}

/// The kinds that this controller knows. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Kinds(Arc<[Box<dyn Known>]>);

impl Kinds {
    /// Every kind there is.
    #[must_use]
    pub fn all() -> Self {
        let mut kinds: Vec<Box<dyn Known>> = Vec::new();
        macro_rules! add {
            ($($module:ident::$Params:ident,)+) => {
                $(kinds.push(Of::<action::$module::$Params>::boxed());)+
            };
        }
        fleetward_protocol::for_each_action!(add);
        Self(kinds.into())
    }

    /// Every kind there is, and one more.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn with<C: Contract + Send + 'static>() -> Self
    where
        C::Asked: Resolve<C> + Send,
    {
        let all = Self::all();
        let mut kinds: Vec<Box<dyn Known>> = vec![Of::<C>::boxed()];
        kinds.extend(all.0.iter().map(|kind| kind.again()));
        Self(kinds.into())
    }

    /// What they are.
    pub fn iter(&self) -> impl Iterator<Item = &Kind> {
        self.0.iter().map(|known| known.kind())
    }

    /// What a person asks for, as it is ordered.
    ///
    /// # Errors
    /// [`OperationError`], in words for the person.
    pub(crate) async fn resolve(
        &self,
        asked: Asked,
        within: &mut Within<'_>,
    ) -> Result<Step, OperationError> {
        let found = self.0.iter().find(|known| known.kind().name == asked.kind);
        let Some(known) = found else {
            let nearest = nearest(&asked.kind, self.iter().map(|kind| kind.name)).map(str::to_owned);
            return Err(OperationError::NoKind { kind: Text::of(&asked.kind), nearest });
        };
        let permission = Permission::from(known.kind().privilege);
        within.permit.require(permission)?;
        known.resolve(asked.params, within).await
    }
}

type Pending<'a> = Pin<Box<dyn Future<Output = Result<Step, OperationError>> + Send + 'a>>;

/// A kind, without its types.
trait Known: fmt::Debug + Send + Sync {
    fn kind(&self) -> &Kind;
    fn resolve<'a>(&'a self, params: Map<String, Value>, within: &'a mut Within<'_>) -> Pending<'a>;
    #[cfg(any(test, feature = "testing"))]
    fn again(&self) -> Box<dyn Known>;
}

/// The kind whose parameters are `C`.
struct Of<C> {
    kind: Kind,
    parameters: std::marker::PhantomData<fn() -> C>,
}

impl<C: Contract + Send + 'static> Of<C>
where
    C::Asked: Resolve<C> + Send,
{
    fn boxed() -> Box<dyn Known> {
        Box::new(Self { kind: Kind::of::<C>(), parameters: std::marker::PhantomData })
    }
}

impl<C> fmt::Debug for Of<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.name)
    }
}

impl<C: Contract + Send + 'static> Known for Of<C>
where
    C::Asked: Resolve<C> + Send,
{
    fn kind(&self) -> &Kind {
        &self.kind
    }

    fn resolve<'a>(&'a self, params: Map<String, Value>, within: &'a mut Within<'_>) -> Pending<'a> {
        Box::pin(async move {
            let asked: C::Asked = serde_json::from_value(Value::Object(params)).map_err(|error| {
                // What the parser quotes came from elsewhere, and as long as it was.
                let detail: Line = Text::of(error);
                InvalidAction::Malformed { kind: C::KIND.to_owned(), detail: detail.into() }
            })?;
            let Resolved { params, shown, hidden, undeclared, timeout } = asked.resolve(within).await?;
            Ok(Step {
                action: ActionRequest::new(&params)?,
                subject: params.subject().into(),
                contents: params.needs().contents,
                shown,
                hidden,
                undeclared,
                timeout: timeout.unwrap_or(C::DEFAULT_TIMEOUT),
                rehearses: C::REHEARSES,
            })
        })
    }

    #[cfg(any(test, feature = "testing"))]
    fn again(&self) -> Box<dyn Known> {
        Self::boxed()
    }
}
