//! Scripts: a name becomes the content that the tenant's inventory has under it now, checked against what it declares.

use std::collections::BTreeMap;

use fleetward_domain::fleet::contract::{Contract, Given, Latitude, Undeclared};
use fleetward_domain::people::permission::Permission;
use fleetward_protocol::action::ActionRequest;
use fleetward_protocol::action::Contract as _;
use fleetward_protocol::action::script::{Call, Script as Params};
use fleetward_protocol::name::{LinuxUser, ScriptName};
use fleetward_store::fleet::script::{self, Script};
use serde_json::{Map, Value, json};

use super::{Asked, Resolve, Resolved, Within};
use crate::secret::SecretBox;
use crate::work::operation::OperationError;

/// The longest value of a variable that is shown as it is; of a longer one, its digest is.
const MAX_SHOWN: usize = 256;

/// What all of several scripts are given.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// Their environment.
    pub environment: BTreeMap<String, String>,
    /// Where they start.
    pub directory: Option<String>,
    /// As whom they run.
    pub user: Option<LinuxUser>,
}

/// A script with its arguments, as a person asks for it.
#[must_use]
pub fn asked(name: ScriptName, arguments: Vec<String>, surroundings: &Surroundings) -> Asked {
    let Surroundings { environment, directory, user } = surroundings.clone();
    let call = Call { name, arguments, environment, directory, user };
    let params = match serde_json::to_value(call) {
        Ok(Value::Object(params)) => params,
        // Text, lists and maps of text: nothing that JSON could not hold.
        _ => Map::new(),
    };
    Asked { kind: Params::KIND.to_owned(), params }
}

impl Resolve<Params> for Call {
    async fn resolve(self, within: &mut Within<'_>) -> Result<Resolved<Params>, OperationError> {
        let Self { name, arguments, environment, directory, user } = self;
        let found = script::find(within.conn, &within.scope, &name).await?;
        let found = found.filter(|script| script.retired_at.is_none());
        let found = found.ok_or(OperationError::NoScript(name))?;
        let (caller, tenant) = (within.permit.caller(), within.permit.tenant());
        let latitude = match caller.grants.allow(tenant, Permission::Override) {
            true => Latitude::Override,
            false => Latitude::Declared,
        };
        let params = Params {
            name: found.name.clone(),
            digest: found.digest,
            arguments,
            environment,
            directory,
            user: user.clone().or_else(|| found.user.clone()),
            resources: found.resources.clone(),
        };
        // What nobody may give is told before what this caller may not.
        ActionRequest::new(&params)?;
        let given =
            Given { arguments: &params.arguments, environment: &params.environment, user: user.as_ref() };
        let undeclared = contract(&found).check(given, latitude);
        let undeclared = undeclared.map_err(|breach| OperationError::Contract(Box::new(breach)))?;
        let (shown, hidden) = shown(&params, &found, &undeclared, within.app.secrets());
        Ok(Resolved { params, shown, hidden, undeclared, timeout: found.timeout })
    }
}

fn contract(script: &Script) -> Contract<'_> {
    Contract {
        script: &script.name,
        flags: &script.flags,
        free: script.free_arguments,
        variables: &script.environment,
        user: script.user.as_ref(),
        users: &script.users,
    }
}

/// The parameters as they may be shown, and the variables that are not.
fn shown(
    params: &Params,
    script: &Script,
    undeclared: &[Undeclared],
    secrets: &SecretBox,
) -> (Map<String, Value>, Vec<(String, String)>) {
    let (mut environment, mut hidden) = (Map::new(), Vec::new());
    for (name, value) in &params.environment {
        let is_public = script.environment.iter().any(|variable| variable.name == *name && !variable.secret);
        if !is_public {
            hidden.push((name.clone(), value.clone()));
        }
        let value = match is_public && value.len() <= MAX_SHOWN {
            true => json!(value),
            false => secrets.stand_in(value),
        };
        environment.insert(name.clone(), value);
    }
    let mut shown = Map::new();
    shown.insert("name".to_owned(), json!(params.name));
    shown.insert("digest".to_owned(), json!(params.digest));
    shown.insert("arguments".to_owned(), json!(params.arguments));
    if let Some(user) = &params.user {
        shown.insert("user".to_owned(), json!(user));
    }
    if let Some(directory) = &params.directory {
        shown.insert("directory".to_owned(), json!(directory));
    }
    if !environment.is_empty() {
        shown.insert("environment".to_owned(), environment.into());
    }
    if !undeclared.is_empty() {
        let undeclared: Vec<String> = undeclared.iter().map(ToString::to_string).collect();
        shown.insert("undeclared".to_owned(), json!(undeclared));
    }
    (shown, hidden)
}
