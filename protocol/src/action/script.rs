//! Run an enrolled bash script on the host.
//!
//! The script is named by its SHA-256; its content travels beside the order and is checked against the digest.
//! Arguments are an argv array: nothing is ever pasted into a shell line. Only bash runs.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Contract;
use crate::digest::Digest;
use crate::name::{LinuxUser, ResourceName, ScriptName};

/// The largest script, in bytes. A larger one is refused at sync.
pub const MAX_CONTENT: usize = 1 << 20;
/// The most arguments one run may have.
pub const MAX_ARGUMENTS: usize = 256;
/// The largest single argument or environment value, in bytes (below `MAX_ARG_STRLEN` of execve(2)).
pub const MAX_ARGUMENT: usize = 64 << 10;
/// The most bytes of arguments and environment together (well below `ARG_MAX`).
pub const MAX_ARGUMENTS_TOTAL: usize = 512 << 10;

/// Parameters of a script run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// The script's id in `scripts.yaml`.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub name: ScriptName,
    /// SHA-256 of the content that runs.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub digest: Digest,
    /// Arguments after the script's own path.
    #[serde(default)]
    pub arguments: Vec<String>,
    /// Environment beside the fixed base (`PATH`, `HOME`, `USER`, `LOGNAME`, `SHELL`, `LANG`, and `FLEETWARD_*`).
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Where it starts; the user's home when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// As whom it runs; the agent's own user (root) when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub user: Option<LinuxUser>,
    /// Resources held while it runs, such as `apt`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schema(value_type = Vec<String>))]
    pub resources: Vec<ResourceName>,
}

impl Contract for Script {
    const KIND: &'static str = "script";
    const IDEMPOTENT: bool = false;
    const DEFAULT_TIMEOUT: Duration = Duration::from_secs(300);

    fn resources(&self) -> &[ResourceName] {
        &self.resources
    }

    fn validate(&self) -> Result<(), String> {
        if self.arguments.len() > MAX_ARGUMENTS {
            return Err(format!("{} arguments, but {MAX_ARGUMENTS} are allowed", self.arguments.len()));
        }
        let mut total = 0;
        for argument in &self.arguments {
            total += check_text("an argument", argument)?;
        }
        for (key, value) in &self.environment {
            let starts_well =
                key.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
            if !starts_well || !key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
                return Err(format!(
                    "environment name `{}` may hold only letters, digits and `_`",
                    key.escape_debug()
                ));
            }
            total += key.len() + check_text("an environment value", value)?;
        }
        if total > MAX_ARGUMENTS_TOTAL {
            return Err(format!(
                "{total} bytes of arguments and environment, but {MAX_ARGUMENTS_TOTAL} are allowed"
            ));
        }
        match &self.directory {
            Some(path) if !path.starts_with('/') => {
                Err(format!("directory `{}` is not absolute", path.escape_debug()))
            }
            Some(path) => check_text("the directory", path).map(|_| ()),
            None => Ok(()),
        }
    }
}

/// Whether the first line asks for bash, the only interpreter that is run: `#!/bin/bash` or
/// `#!/usr/bin/env bash`, with or without arguments to bash.
#[must_use]
pub fn names_bash(content: &[u8]) -> bool {
    let line = content.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let Some(line) = line.strip_prefix(b"#!").and_then(|line| std::str::from_utf8(line).ok()) else {
        return false;
    };
    let mut words = line.split([' ', '\t']).filter(|word| !word.is_empty());
    match words.next() {
        Some("/bin/bash" | "/usr/bin/bash") => true,
        Some("/usr/bin/env") => words.next() == Some("bash"),
        _ => false,
    }
}

fn check_text(what: &str, text: &str) -> Result<usize, String> {
    if text.contains('\0') {
        return Err(format!("{what} holds a NUL byte"));
    }
    if text.len() > MAX_ARGUMENT {
        return Err(format!("{what} is {} bytes long, but {MAX_ARGUMENT} are allowed", text.len()));
    }
    Ok(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bash_is_bash() {
        for yes in [
            "#!/bin/bash\n",
            "#!/bin/bash",
            "#!/usr/bin/env bash\nx",
            "#! /bin/bash -e\n",
            "#!/usr/bin/bash -eu\n",
        ] {
            assert!(names_bash(yes.as_bytes()), "{yes:?}");
        }
        for no in [
            "",
            "echo",
            "#!/bin/sh\n",
            "#!/usr/bin/env python3\n",
            "#!/bin/bash\r\n",
            "#!/usr/bin/env -S bash\n",
            "\n#!/bin/bash",
            "#!/bin/bashful\n",
        ] {
            assert!(!names_bash(no.as_bytes()), "{no:?}");
        }
    }
}
