//! Run an enrolled bash script on the host.
//!
//! The script is named by its SHA-256; its content travels beside the order and is checked against the digest.
//! Arguments are an argv array: nothing is ever pasted into a shell line. Only bash runs.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Actor, Contract, Needs, NoReport, Privilege};
use crate::digest::Digest;
use crate::name::{LinuxUser, ResourceName, ScriptName};
use crate::object::{Class, Object};
use crate::text::{Text, Word};

/// The largest script, in bytes. A larger one is refused at sync.
pub const MAX_CONTENT: usize = 1 << 20;
/// The most arguments one run may have.
pub const MAX_ARGUMENTS: usize = 256;
/// The largest single argument or environment value, in bytes (below `MAX_ARG_STRLEN` of execve(2)).
pub const MAX_ARGUMENT: usize = 64 << 10;
/// The most environment variables one run may be given.
pub const MAX_VARIABLES: usize = 256;
/// The longest name of an environment variable, in bytes.
pub const MAX_VARIABLE_NAME: usize = 128;
/// The most bytes of arguments and environment together (well below `ARG_MAX`).
pub const MAX_ARGUMENTS_TOTAL: usize = 512 << 10;

/// A script as a person asks for it: by name. What it is, and as whom it runs, is what the inventory says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "schema", schema(as = ScriptRun))]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// The script's id in `scripts.yaml`.
    #[cfg_attr(feature = "schema", schema(value_type = String, example = "baseline"))]
    pub name: ScriptName,
    /// Its arguments; never joined, never interpreted. A script that declares flags takes these alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<String>,
    /// Its environment: variables that it declares; others take the permission `override`, and what shells and loaders
    /// take as code is never taken.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
    /// Where it starts; the user's home when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// As whom it runs: one of the users that it declares; others take the permission `override`. Its own user when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub user: Option<LinuxUser>,
}

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
    /// Never a name that [`is_reserved`].
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
    const SUMMARY: &'static str = "Run an enrolled bash script on the host.";
    const IDEMPOTENT: bool = false;
    // Where bash was in it, and what that line had done, nobody can tell.
    const RESUMABLE: bool = false;
    const REHEARSES: bool = false;
    const OBJECTS: &'static [Class] = &[];
    const DEFAULT_TIMEOUT: Duration = Duration::from_secs(300);
    const PRIVILEGE: Privilege = Privilege::Operate;

    type Asked = Call;
    type Report = NoReport;

    fn subject(&self) -> Word {
        Text::of(&self.name)
    }

    fn needs(&self) -> Needs {
        Needs {
            actor: self.user.clone().map_or(Actor::Agent, Actor::User),
            resources: self.resources.clone(),
            contents: vec![self.digest],
        }
    }

    fn touches(&self) -> Vec<Object> {
        Vec::new()
    }

    fn validate(&self) -> Result<(), String> {
        if self.arguments.len() > MAX_ARGUMENTS {
            return Err(format!("{} arguments, but {MAX_ARGUMENTS} are allowed", self.arguments.len()));
        }
        let mut total = 0;
        for argument in &self.arguments {
            total += check_text("an argument", argument)?;
        }
        if self.environment.len() > MAX_VARIABLES {
            return Err(format!(
                "{} environment variables, but {MAX_VARIABLES} are allowed",
                self.environment.len()
            ));
        }
        for (key, value) in &self.environment {
            check_variable(key)?;
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

/// Names that the loader, the C library, bash or a common interpreter takes as code, as a place to load code
/// from, or as a command to run; and those of a run's fixed base. Sources: the variables that ld.so(8) ignores
/// in secure execution, those that sudo(8) removes, bash(1), and the manuals of the interpreters.
const RESERVED: &[&str] = &[
    // The base of every run: a program trusts these to name its user and its programs.
    "HOME",
    "LOGNAME",
    "PATH",
    "SHELL",
    "USER",
    // bash and other shells. `BASH…` is among the prefixes.
    "CDPATH",
    "ENV",
    "EXECIGNORE",
    "FCEDIT",
    "FPATH",
    "GLOBIGNORE",
    "IFS",
    "INPUTRC",
    "NULLCMD",
    "POSIXLY_CORRECT",
    "PROMPT_COMMAND",
    "PS0",
    "PS1",
    "PS2",
    "PS3",
    "PS4",
    "READNULLCMD",
    "SHELLOPTS",
    "TEXTDOMAIN",
    "TEXTDOMAINDIR",
    "ZDOTDIR",
    // The C library.
    "GCONV_PATH",
    "GETCONF_DIR",
    "GLIBC_TUNABLES",
    "HOSTALIASES",
    "LANGUAGE",
    "LOCALDOMAIN",
    "LOCPATH",
    "NIS_PATH",
    "NLSPATH",
    "RESOLV_HOST_CONF",
    "RES_OPTIONS",
    "TERMCAP",
    "TERMINFO",
    "TERMINFO_DIRS",
    "TZDIR",
    // Libraries that load modules or helpers by name.
    "GIO_EXTRA_MODULES",
    "GIO_MODULE_DIR",
    "KRB5_CONFIG",
    "SASL_PATH",
    // Interpreters and build tools. Families are among the prefixes.
    "CLASSPATH",
    "JAVA_OPTS",
    "JAVA_TOOL_OPTIONS",
    "JDK_JAVA_OPTIONS",
    "MAKEFILES",
    "MAKEFLAGS",
    "MFLAGS",
    "PHPRC",
    "PHP_INI_SCAN_DIR",
    "_JAVA_OPTIONS",
    // Commands that others run, and configuration that can hold some.
    "APT_CONFIG",
    "AWS_CONFIG_FILE",
    "BROWSER",
    "CURL_HOME",
    "CVS_RSH",
    "DOCKER_CONFIG",
    "EDITOR",
    "KUBECONFIG",
    "LESSCLOSE",
    "LESSOPEN",
    "MANPAGER",
    "PAGER",
    "RIPGREP_CONFIG_PATH",
    "RSYNC_RSH",
    "SSH_ASKPASS",
    "SUDO_ASKPASS",
    "SUDO_EDITOR",
    "SYSTEMD_EDITOR",
    "SYSTEMD_PAGER",
    "TAR_OPTIONS",
    "VISUAL",
    "WGETRC",
];

/// Families of which every name is reserved.
const RESERVED_PREFIXES: &[&str] = &[
    "ANSIBLE_",
    "BASH",
    "BUNDLE_",
    "DPKG_",
    "DYLD_",
    "FLEETWARD_",
    "GEM_",
    "GIT_",
    "LD_",
    "LUA_",
    "MALLOC_",
    "NODE_",
    "NPM_",
    "OPENSSL_",
    "PERL",
    "PYTHON",
    "RUBY",
    "XDG_",
    "npm_",
];

/// Whether a variable of this name is never taken from a request, nor from a script's declaration: what it
/// holds would be code beside the script that was reviewed.
///
/// No list of such names is complete. That is why a request sets only what the script declares, and why
/// anything else asks for a permission of its own; these are refused even then.
#[must_use]
pub fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name) || RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Whether a variable of this name can be given to a run.
///
/// # Errors
/// Why not, in words for the person who wrote it: it is no name of a variable, or it [`is_reserved`].
pub fn check_variable(name: &str) -> Result<(), String> {
    let starts_well = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    if name.len() > MAX_VARIABLE_NAME
        || !starts_well
        || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    {
        let shown: String = name.chars().take(60).collect();
        return Err(format!(
            "environment name `{}` has to be 1 to {MAX_VARIABLE_NAME} letters, digits and `_`, and no digit first",
            shown.escape_debug()
        ));
    }
    if is_reserved(name) {
        return Err(format!(
            "environment variable `{name}` is never taken: a shell, a loader or an interpreter would take its value \
             as code; set it in the script itself"
        ));
    }
    Ok(())
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

    fn with_variable(name: &str) -> Script {
        Script {
            name: "hello".parse().unwrap(),
            digest: Digest::of(b""),
            arguments: Vec::new(),
            environment: BTreeMap::from([(name.to_owned(), "x".to_owned())]),
            directory: None,
            user: None,
            resources: Vec::new(),
        }
    }

    #[test]
    fn what_is_taken_as_code_is_never_a_variable() {
        for name in [
            "BASH_ENV",
            "ENV",
            "SHELLOPTS",
            "BASHOPTS",
            "BASH_FUNC_echo",
            "BASH_LOADABLES_PATH",
            "NPM_CONFIG_GLOBALCONFIG",
            "KUBECONFIG",
            "PS4",
            "IFS",
            "CDPATH",
            "LD_PRELOAD",
            "LD_AUDIT",
            "LD_LIBRARY_PATH",
            "GCONV_PATH",
            "PATH",
            "HOME",
            "FLEETWARD_RUN_ID",
            "GLIBC_TUNABLES",
            "LOCPATH",
            "NLSPATH",
            "PYTHONPATH",
            "PYTHONSTARTUP",
            "PERL5OPT",
            "PERL5LIB",
            "RUBYOPT",
            "NODE_OPTIONS",
            "JAVA_TOOL_OPTIONS",
            "GIT_SSH_COMMAND",
            "GIT_CONFIG_COUNT",
            "OPENSSL_CONF",
            "APT_CONFIG",
            "TAR_OPTIONS",
            "XDG_CONFIG_HOME",
            "LESSOPEN",
            "PAGER",
        ] {
            assert!(is_reserved(name), "{name}");
            let refusal = with_variable(name).validate().unwrap_err();
            assert!(refusal.contains(name) && refusal.contains("never taken"), "{refusal}");
        }
        for name in [
            "LANG",
            "LC_ALL",
            "TZ",
            "DEBIAN_FRONTEND",
            "http_proxy",
            "VERSION",
            "A",
            "_x",
            "PATHS",
            "ENVIRONMENT",
        ] {
            assert_eq!(with_variable(name).validate(), Ok(()), "{name}");
        }
        for name in ["", "1A", "A-B", "A B", "A=B", "Ä", "BASH_FUNC_echo%%", "A\0", &"A".repeat(129)] {
            assert!(with_variable(name).validate().unwrap_err().contains("has to be"), "{name:?}");
        }
    }

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
