//! Runs an enrolled bash script: bash, by absolute path, with the script's file and an argv array.

use std::collections::BTreeMap;
use std::path::PathBuf;

use fleetward_protocol::action::Contract as _;
use fleetward_protocol::action::script::{Script, names_bash};
use fleetward_protocol::digest::Digest;
use fleetward_protocol::order::Order;
use fleetward_protocol::run::Refusal;
use fleetward_protocol::text::Text;
use serde_bytes::ByteBuf;

use super::{Argument, ProcessPlan};
use crate::platform::users::{self, Account};

/// Where `#!/usr/bin/env bash` may find it.
const BASH: [&str; 3] = ["/bin/bash", "/usr/bin/bash", "/usr/local/bin/bash"];

pub(super) fn plan(
    order: &Order,
    script: &Script,
    contents: &[ByteBuf],
    own: &Account,
) -> Result<ProcessPlan, Refusal> {
    if order.is_rehearsal() {
        return Err(Refusal::Malformed {
            detail: Text::of("a script has no dry run: what it would do is not known"),
        });
    }
    // A script has one content, and it is what its parameters name.
    let [content] = contents else { return Err(Refusal::DigestMismatch) };
    if Digest::of(content) != script.digest {
        return Err(Refusal::DigestMismatch);
    }
    if !names_bash(content) {
        return Err(Refusal::NotBash);
    }
    let account = match &script.user {
        Some(user) => users::account_of(user, own)?,
        None => None,
    };
    let actor = account.as_ref().unwrap_or(own);
    let directory = directory(script, actor)?;
    let (program, options) = interpreter(content)?;
    let mut arguments = vec![Argument::Text("bash".into())];
    arguments.extend(options.into_iter().map(Argument::Text));
    arguments.push(Argument::Script);
    arguments.extend(script.arguments.iter().cloned().map(Argument::Text));
    Ok(ProcessPlan {
        program,
        arguments,
        environment: environment(order, script, actor),
        requested: script.environment.keys().cloned().collect(),
        input: None,
        directory,
        account,
        becomes: false,
        resources: script.resources.clone(),
        rehearses_alone: false,
        objects: script.touches(),
        resumable: Script::RESUMABLE,
    })
}

fn directory(script: &Script, actor: &Account) -> Result<PathBuf, Refusal> {
    match &script.directory {
        Some(path) if std::path::Path::new(path).is_dir() => Ok(path.into()),
        Some(path) => Err(Refusal::NoSuchDirectory { path: Text::of(path) }),
        // Service accounts have homes that do not exist; that is no reason not to run.
        None if actor.home.is_dir() => Ok(actor.home.clone()),
        None => Ok("/".into()),
    }
}

/// The bash that the first line asks for, and the options it gives to it.
fn interpreter(content: &[u8]) -> Result<(String, Vec<String>), Refusal> {
    let line = content.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let line = line.strip_prefix(b"#!").and_then(|line| std::str::from_utf8(line).ok()).unwrap_or_default();
    let mut words = line.split([' ', '\t']).filter(|word| !word.is_empty());
    let named = match words.next() {
        Some("/usr/bin/env") => words.next().and(None),
        named => named,
    };
    let program = named
        .into_iter()
        .chain(BASH)
        .find(|path| std::path::Path::new(path).exists())
        .ok_or_else(|| Refusal::SpawnFailed { detail: Text::of("bash is not installed on this host") })?;
    Ok((program.to_owned(), words.map(str::to_owned).collect()))
}

fn environment(order: &Order, script: &Script, actor: &Account) -> BTreeMap<String, String> {
    let mut environment = super::base(order, actor);
    environment.insert("FLEETWARD_SCRIPT".to_owned(), script.name.to_string());
    // A request may choose the language; what else is in the base is reserved, and never in a request.
    environment.extend(script.environment.iter().map(|(key, value)| (key.clone(), value.clone())));
    environment
}

#[cfg(test)]
mod tests {
    use super::super::Here;
    use super::*;
    use crate::config::Allowed;
    use fleetward_protocol::action::ActionRequest;
    use fleetward_protocol::id::{OperationId, RunId};
    use fleetward_protocol::order::{Authority, Limits};
    use fleetward_protocol::time::Timestamp;

    const CONTENT: &[u8] = b"#!/bin/bash -eu\necho hi\n";

    fn script(content: &[u8]) -> Script {
        Script {
            name: "hello".parse().unwrap(),
            digest: Digest::of(content),
            arguments: vec!["--dry-run".into(), "$(reboot); `x` 'y' \"z\"".into()],
            environment: BTreeMap::from([("LANG".into(), "de_DE.UTF-8".into())]),
            directory: Some("/".into()),
            user: None,
            resources: vec!["apt".parse().unwrap()],
        }
    }

    fn planned(script: &Script, content: &[u8]) -> Result<ProcessPlan, Refusal> {
        let action = ActionRequest::new(script).unwrap();
        let order = Order {
            run: RunId::from_uuid(uuid::Uuid::from_u128(1)),
            operation: OperationId::from_uuid(uuid::Uuid::from_u128(2)),
            issuer: Text::of("ada"),
            client: "00000000-0000-4000-8000-000000000007".parse().unwrap(),
            authority: Authority::Run(action.clone()),
            not_before: Timestamp::from_millis(0),
            deadline: Timestamp::from_millis(0),
            limits: Limits::DEFAULT,
            contents: vec![Digest::of(content)],
        };
        let own = users::read_own_account();
        let here = Here {
            own: &own,
            places: BTreeMap::new(),
            allowed: Allowed::default(),
            boot: fleetward_protocol::id::BootId::from_uuid(uuid::Uuid::nil()),
        };
        super::super::plan(&order, &action, &[ByteBuf::from(content)], &here)
    }

    #[test]
    fn arguments_are_an_array_and_the_environment_is_ours() {
        let plan = planned(&script(CONTENT), CONTENT).unwrap();
        let text = |text: &str| Argument::Text(text.into());
        assert_eq!(plan.program, "/bin/bash");
        assert_eq!(
            plan.arguments,
            [
                text("bash"),
                text("-eu"),
                Argument::Script,
                text("--dry-run"),
                text("$(reboot); `x` 'y' \"z\"")
            ]
        );
        let keys: Vec<_> = plan.environment.keys().map(String::as_str).collect();
        assert_eq!(
            keys,
            [
                "FLEETWARD_CLIENT_ID",
                "FLEETWARD_OPERATION_ID",
                "FLEETWARD_RUN_ID",
                "FLEETWARD_SCRIPT",
                "HOME",
                "LANG",
                "LOGNAME",
                "PATH",
                "SHELL",
                "USER"
            ]
        );
        assert_eq!(plan.environment["LANG"], "de_DE.UTF-8");
        assert_eq!(plan.environment["FLEETWARD_RUN_ID"], "00000000-0000-0000-0000-000000000001");
        assert_eq!((plan.account, plan.resources.len()), (None, 1));
    }

    #[test]
    fn what_is_refused() {
        assert_eq!(planned(&script(CONTENT), b"#!/bin/bash\nother"), Err(Refusal::DigestMismatch));
        let python = b"#!/usr/bin/env python3\n";
        assert_eq!(planned(&script(python), python), Err(Refusal::NotBash));
        let nowhere = Script { directory: Some("/nonexistent".into()), ..script(CONTENT) };
        let refusal = Refusal::NoSuchDirectory { path: Text::of("/nonexistent") };
        assert_eq!(planned(&nowhere, CONTENT), Err(refusal));
        let nobody = Script { user: Some("no-such-user".parse().unwrap()), ..script(CONTENT) };
        assert_eq!(planned(&nobody, CONTENT), Err(Refusal::NoSuchUser { user: Text::of("no-such-user") }));
        let mut order_of_future = script(CONTENT);
        order_of_future.user = Some(users::read_own_account().name.parse().unwrap());
        assert_eq!(planned(&order_of_future, CONTENT).unwrap().account, None);
    }
}
