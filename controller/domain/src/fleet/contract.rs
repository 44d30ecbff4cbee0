//! A script's contract: what `scripts.yaml` declares that it takes, and whether a request keeps to it.
//!
//! A reviewed script is run with what its authors meant it to get. Flags it does not know, a required value that
//! is missing, a variable nobody declared and a user nobody named are told before the first host is touched.
//!
//! What it promises: [`Contract::check`] is the only place where this is decided; the API, and through it the CLI
//! and the console, ask it for a preview and again for the operation itself. Variables and users that are not
//! declared need the permission [`Override`](crate::people::permission::Permission::Override), and are named to whoever
//! keeps the audit log. Arguments have no such way around. What is code to a shell or a loader
//! ([`is_reserved`](fleetward_protocol::action::script::is_reserved)) is not decided here: nobody may give it.

use std::collections::BTreeMap;
use std::fmt;

use fleetward_protocol::name::{LinuxUser, ScriptName};
use fleetward_protocol::suggest::nearest;
use serde::{Deserialize, Serialize};

use crate::fleet::inventory::Flag;

/// How much of a person's text an error repeats.
const SHOWN: usize = 60;

/// Whether a script takes arguments that are none of its flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FreeArguments {
    /// As many as it is given. A script without flags then takes anything at all.
    Any,
    /// None.
    None,
}

/// An environment variable that a script takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variable {
    /// Its name; never a reserved one.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Whether every request has to give it.
    pub required: bool,
    /// Whether its value is shown to nobody.
    pub secret: bool,
}

/// What a script declares.
#[derive(Debug, Clone, Copy)]
pub struct Contract<'a> {
    /// The script.
    pub script: &'a ScriptName,
    /// The flags it takes.
    pub flags: &'a [Flag],
    /// Whether it takes other arguments.
    pub free: FreeArguments,
    /// The variables it takes.
    pub variables: &'a [Variable],
    /// As whom it runs when the request does not say.
    pub user: Option<&'a LinuxUser>,
    /// As whom else it may be run.
    pub users: &'a [LinuxUser],
}

/// What a request gives to a script.
#[derive(Debug, Clone, Copy)]
pub struct Given<'a> {
    /// Its arguments.
    pub arguments: &'a [String],
    /// Its environment.
    pub environment: &'a BTreeMap<String, String>,
    /// As whom it is to run, if the request says.
    pub user: Option<&'a LinuxUser>,
}

/// Whether the caller may give what a script does not declare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Latitude {
    /// Only what is declared.
    Declared,
    /// Other variables and users too.
    Override,
}

/// Something that was given although the script does not declare it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Undeclared {
    /// A variable.
    Variable(String),
    /// A user.
    User(LinuxUser),
}

/// Why a request does not keep to a script's contract. The text shows how the script is called.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("script `{script}`: {fault}")]
pub struct Breach {
    /// The script.
    pub script: ScriptName,
    /// What is wrong.
    pub fault: Fault,
    /// How it is called.
    pub usage: String,
}

/// What is wrong with what a script is given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It has no such flag.
    #[error("there is no flag `{flag}`{}", meant(.nearest.as_deref()))]
    UnknownFlag {
        /// The flag, shortened.
        flag: String,
        /// One that was perhaps meant.
        nearest: Option<String>,
    },
    /// A flag that has to be given is not.
    #[error("the flag `{flag}` is required: give `{flag}=VALUE`")]
    MissingFlag {
        /// The flag.
        flag: String,
    },
    /// A flag came without its value.
    #[error("the flag `{flag}` takes a value: write `{flag}=VALUE` as one word")]
    MissingValue {
        /// The flag.
        flag: String,
    },
    /// A flag came with a value and takes none.
    #[error("the flag `{flag}` takes no value: write only `{flag}`")]
    UnexpectedValue {
        /// The flag.
        flag: String,
    },
    /// An argument that is no flag, and the script takes none.
    #[error(
        "`{argument}` is none of its flags, and it takes no other arguments; `arguments: any` in scripts.yaml allows them"
    )]
    FreeArgument {
        /// The argument, shortened.
        argument: String,
    },
    /// A variable that has to be given is not.
    #[error("the environment variable `{name}` is required: give it with `--env {name}=VALUE`")]
    MissingVariable {
        /// Its name.
        name: String,
    },
    /// Variables or users that are not declared, by a caller who may not give them.
    #[error("it does not declare {}; declare it in scripts.yaml, or ask somebody with the permission `override`, such as an admin", listed(.things))]
    Undeclared {
        /// Each of them.
        things: Vec<Undeclared>,
    },
}

impl Contract<'_> {
    /// Checks what a request gives; what of it is not declared, if the caller may give that.
    ///
    /// # Errors
    /// The first fault, with the script's usage.
    pub fn check(&self, given: Given<'_>, latitude: Latitude) -> Result<Vec<Undeclared>, Breach> {
        self.check_arguments(given.arguments)
            .and_then(|()| self.check_surroundings(given, latitude))
            .map_err(|fault| Breach { script: self.script.clone(), fault, usage: self.usage() })
    }

    /// How the script is called.
    #[must_use]
    pub fn usage(&self) -> String {
        let mut usage = self.script.to_string();
        for flag in self.flags {
            usage.push_str(&match (flag.requires_value, flag.flag.split_once('=')) {
                (true, _) => format!(" {}=VALUE", flag.flag),
                (false, Some((name, _))) => format!(" [{name}=VALUE]"),
                (false, None) => format!(" [{}]", flag.flag),
            });
        }
        if self.free == FreeArguments::Any {
            usage.push_str(" [ARGUMENT…]");
        }
        usage
    }

    fn check_arguments(&self, arguments: &[String]) -> Result<(), Fault> {
        if self.flags.is_empty() && self.free == FreeArguments::Any {
            return Ok(());
        }
        let mut rest = arguments.iter();
        for argument in rest.by_ref() {
            if argument == "--" && self.free == FreeArguments::Any {
                // What follows is for the script alone.
                break;
            }
            self.check_argument(argument)?;
        }
        let required = self.flags.iter().filter(|flag| flag.requires_value);
        let given = arguments.get(..arguments.len() - rest.len()).unwrap_or_default();
        for flag in required {
            if !given.iter().any(|argument| gives_required(argument, flag)) {
                return Err(Fault::MissingFlag { flag: flag.flag.clone() });
            }
        }
        Ok(())
    }

    fn check_argument(&self, argument: &str) -> Result<(), Fault> {
        let mut fault = None;
        for flag in self.flags {
            let name = flag.name();
            let takes_value = flag.takes_value();
            match value_of(argument, name) {
                None if argument == name && takes_value => {
                    fault = Some(Fault::MissingValue { flag: name.to_owned() });
                }
                None if argument == name => return Ok(()),
                Some(_) if flag.requires_value && !gives_required(argument, flag) => {
                    fault = Some(Fault::MissingValue { flag: name.to_owned() });
                }
                Some(_) if takes_value => return Ok(()),
                Some(_) => fault = fault.or_else(|| Some(Fault::UnexpectedValue { flag: name.to_owned() })),
                None => {}
            }
        }
        if let Some(fault) = fault {
            return Err(fault);
        }
        let is_flag = argument.len() > 1 && argument.starts_with('-') && argument != "--";
        if is_flag {
            let name = argument.split_once('=').map_or(argument, |(name, _)| name);
            let known = self.flags.iter().map(Flag::name);
            return Err(Fault::UnknownFlag {
                flag: shorten(name),
                nearest: nearest(name, known).map(str::to_owned),
            });
        }
        match self.free {
            FreeArguments::Any => Ok(()),
            FreeArguments::None => Err(Fault::FreeArgument { argument: shorten(argument) }),
        }
    }

    fn check_surroundings(&self, given: Given<'_>, latitude: Latitude) -> Result<Vec<Undeclared>, Fault> {
        let required = self.variables.iter().filter(|variable| variable.required);
        for Variable { name, .. } in required {
            if !given.environment.contains_key(name) {
                return Err(Fault::MissingVariable { name: name.clone() });
            }
        }
        let declared = |name: &str| self.variables.iter().any(|variable| variable.name == name);
        let variables = given.environment.keys().filter(|name| !declared(name));
        let mut things: Vec<_> = variables.cloned().map(Undeclared::Variable).collect();
        let user = given.user.filter(|user| self.user != Some(*user) && !self.users.contains(user));
        things.extend(user.cloned().map(Undeclared::User));
        match latitude {
            Latitude::Declared if !things.is_empty() => Err(Fault::Undeclared { things }),
            Latitude::Declared | Latitude::Override => Ok(things),
        }
    }
}

impl Flag {
    /// The part before `=`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.flag.split_once('=').map_or(&self.flag, |(name, _)| name)
    }

    /// Whether it is passed as `name=value`.
    #[must_use]
    pub fn takes_value(&self) -> bool {
        self.requires_value || self.flag.contains('=')
    }
}

impl fmt::Display for Undeclared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable(name) => write!(f, "the environment variable `{}`", shorten(name)),
            Self::User(user) => write!(f, "the user `{user}`"),
        }
    }
}

/// The value in `flag=value`.
fn value_of<'a>(argument: &'a str, flag: &str) -> Option<&'a str> {
    argument.strip_prefix(flag)?.strip_prefix('=')
}

/// Whether an argument gives a flag the value that it requires. An empty one, or one that is still the placeholder,
/// is none.
fn gives_required(argument: &str, flag: &Flag) -> bool {
    value_of(argument, flag.name()).is_some_and(|value| !matches!(value, "" | "REQUIRED"))
}

fn meant(nearest: Option<&str>) -> String {
    nearest.map(|nearest| format!(" (did you mean `{nearest}`?)")).unwrap_or_default()
}

fn listed(things: &[Undeclared]) -> String {
    things.iter().take(10).map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn shorten(text: &str) -> String {
    text.chars().take(SHOWN).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn flag(text: &str) -> Flag {
        match text.strip_suffix("=REQUIRED") {
            Some(flag) => Flag { flag: flag.to_owned(), requires_value: true },
            None => Flag { flag: text.to_owned(), requires_value: false },
        }
    }

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    fn checked(flags: &str, free: FreeArguments, line: &str) -> String {
        let (name, flags) =
            ("rotate".parse().unwrap(), words(flags).iter().map(|text| flag(text)).collect::<Vec<_>>());
        let contract =
            Contract { script: &name, flags: &flags, free, variables: &[], user: None, users: &[] };
        let given = Given { arguments: &words(line), environment: &BTreeMap::new(), user: None };
        match contract.check(given, Latitude::Declared) {
            Ok(_) => "ok".to_owned(),
            Err(breach) => breach.fault.to_string(),
        }
    }

    #[test]
    fn flags_are_a_contract() {
        use FreeArguments::{Any, None};
        const FLAGS: &str = "--dry-run --keep=REQUIRED --level=info";
        for (free, line, answer) in [
            (None, "--keep=7", "ok"),
            (None, "--dry-run --keep=7 --level=debug", "ok"),
            (None, "--keep=a=b --level=", "ok"),
            (None, "", "the flag `--keep` is required: give `--keep=VALUE`"),
            (None, "--keep=", "the flag `--keep` takes a value: write `--keep=VALUE` as one word"),
            (None, "--keep=REQUIRED", "the flag `--keep` takes a value: write `--keep=VALUE` as one word"),
            (None, "--keep 7", "the flag `--keep` takes a value: write `--keep=VALUE` as one word"),
            (None, "--keep=7 --level", "the flag `--level` takes a value: write `--level=VALUE` as one word"),
            (None, "--keep=7 --dry-run=yes", "the flag `--dry-run` takes no value: write only `--dry-run`"),
            (None, "--keep=7 --dryrun", "there is no flag `--dryrun` (did you mean `--dry-run`?)"),
            (None, "--keep=7 --kep=8", "there is no flag `--kep` (did you mean `--keep`?)"),
            (None, "--keep=7 -x", "there is no flag `-x`"),
            (
                None,
                "--keep=7 all",
                "`all` is none of its flags, and it takes no other arguments; `arguments: any` in scripts.yaml allows them",
            ),
            (Any, "--keep=7 all -", "ok"),
            (Any, "--keep=7 -- --anything", "ok"),
            (Any, "-- --keep=7", "the flag `--keep` is required: give `--keep=VALUE`"),
            (Any, "--keep=7 --anything", "there is no flag `--anything`"),
        ] {
            assert_eq!(checked(FLAGS, free, line), answer, "{line}");
        }
        assert_eq!(checked("", Any, "anything -x --y=z --"), "ok");
        assert!(checked("", None, "anything").contains("takes no other arguments"));
        assert_eq!(checked("", None, ""), "ok");
        assert_eq!(checked("start stop", None, "start"), "ok");
    }

    #[test]
    fn the_usage_shows_what_is_taken() {
        let flags = [flag("--dry-run"), flag("--keep=REQUIRED"), flag("--level=info")];
        let script = "rotate".parse().unwrap();
        let free = FreeArguments::Any;
        let contract =
            Contract { script: &script, flags: &flags, free, variables: &[], user: None, users: &[] };
        assert_eq!(contract.usage(), "rotate [--dry-run] --keep=VALUE [--level=VALUE] [ARGUMENT…]");
    }

    #[test]
    fn variables_and_users_are_declared_or_need_a_permission() {
        let variable = |name: &str, required| Variable {
            name: name.to_owned(),
            description: String::new(),
            required,
            secret: false,
        };
        let (script, own, other) =
            ("rotate".parse().unwrap(), "www-data".parse().unwrap(), "postgres".parse().unwrap());
        let (root, others) = ("root".parse().unwrap(), [other]);
        let variables = [variable("VERSION", true), variable("COLOUR", false)];
        let contract = Contract {
            script: &script,
            flags: &[],
            free: FreeArguments::Any,
            variables: &variables,
            user: Some(&own),
            users: &others,
        };
        let check = |names: &[&str], user: Option<&LinuxUser>, latitude| {
            let environment = names.iter().map(|name| ((*name).to_owned(), "x".to_owned())).collect();
            contract.check(Given { arguments: &[], environment: &environment, user }, latitude)
        };
        for user in [None, Some(&own), others.first()] {
            assert_eq!(check(&["VERSION", "COLOUR"], user, Latitude::Declared), Ok(vec![]));
        }
        assert_eq!(
            check(&[], None, Latitude::Override).unwrap_err().to_string(),
            "script `rotate`: the environment variable `VERSION` is required: give it with `--env VERSION=VALUE`"
        );
        assert_eq!(
            check(&["VERSION", "SPEED"], Some(&root), Latitude::Declared).unwrap_err().to_string(),
            "script `rotate`: it does not declare the environment variable `SPEED`, the user `root`; declare it in \
             scripts.yaml, or ask somebody with the permission `override`, such as an admin"
        );
        assert_eq!(
            check(&["VERSION", "SPEED"], Some(&root), Latitude::Override),
            Ok(vec![Undeclared::Variable("SPEED".to_owned()), Undeclared::User(root.clone())])
        );
    }

    #[test]
    fn a_required_value_is_given_whatever_else_declares_the_flag() {
        for flags in ["--b=REQUIRED --b=x", "--b=x --b=REQUIRED"] {
            for line in ["--b=", "--b=REQUIRED"] {
                let told = checked(flags, FreeArguments::None, line);
                assert_eq!(told, "the flag `--b` is required: give `--b=VALUE`", "{flags}: {line}");
            }
            assert_eq!(checked(flags, FreeArguments::None, "--b=y"), "ok", "{flags}");
        }
    }

    proptest! {
        #[test]
        fn what_passes_is_declared(
            flags in prop::collection::vec("--[ab](=(REQUIRED|x))?", 1..4),
            arguments in prop::collection::vec("(--[abc]|-|c)(=[xy]?)?|--|.{0,5}", 0..5),
        ) {
            let flags: Vec<Flag> = flags.iter().map(|text| flag(text)).collect();
            let script = "rotate".parse().unwrap();
            let contract =
                Contract { script: &script, flags: &flags, free: FreeArguments::None, variables: &[], user: None, users: &[] };
            let given = Given { arguments: &arguments, environment: &BTreeMap::new(), user: None };
            if contract.check(given, Latitude::Declared).is_ok() {
                for argument in &arguments {
                    let fits = |flag: &Flag| match flag.takes_value() {
                        true => argument.starts_with(&format!("{}=", flag.name())),
                        false => *argument == flag.flag,
                    };
                    prop_assert!(flags.iter().any(fits), "{argument}");
                }
                for flag in flags.iter().filter(|flag| flag.requires_value) {
                    let value = |argument: &String| argument.strip_prefix(&format!("{}=", flag.flag)).is_some_and(|value| !value.is_empty());
                    prop_assert!(arguments.iter().any(value), "{flag:?}");
                }
            }
        }
    }
}
