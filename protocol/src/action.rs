//! Kinds of action: what a run does on its host.
//!
//! An action travels as its kind and its parameters in JSON ([`ActionRequest`]), so that the controller, its
//! store, the CLI and the console stay generic, and so that an agent that does not know a kind can say which.
//! [`Action`] is the parsed form that the agent executes.
//!
//! To add a kind: a file beside `unit.rs` that implements [`Contract`], its `mod` and one line in
//! [`for_each_action!`](crate::for_each_action). Everything else in this module is made from that list, and so is what other
//! crates make of it. `docs/architecture.md` tells the rest.

#[cfg(feature = "schema")]
mod catalogue;
mod contract;
mod preview;

pub mod daemon_reload;
pub mod file;
pub mod package;
pub mod reboot;
pub mod script;
pub mod site;
pub mod unit;
pub mod unit_content;
pub mod unit_file;

use serde::{Deserialize, Serialize};
use std::time::Duration;

#[cfg(feature = "schema")]
pub(crate) use catalogue::schema;
#[cfg(feature = "schema")]
pub use catalogue::{Kind, catalogue};
pub use contract::{ALONE, Actor, Contract, Described, Needs, NoReport, Privilege};
pub use preview::{Change, MAX_CHANGES, MAX_DIFF, Preview};

use crate::malformed::words;
use crate::object::{Class, Object};
use crate::text::{Line, Text, Word};

/// An action as it travels and as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionRequest {
    /// [`Contract::KIND`] of the action.
    pub kind: String,
    /// The parameters as JSON text.
    pub params: String,
}

/// Why an [`ActionRequest`] is not an [`Action`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAction {
    /// This build knows no such kind.
    #[error("unsupported kind of action `{kind}`")]
    Unsupported {
        /// The kind asked for.
        kind: String,
    },
    /// The parameters do not fit the kind.
    #[error("invalid parameters for `{kind}`: {detail}")]
    Malformed {
        /// The kind asked for.
        kind: String,
        /// What is wrong with them.
        detail: String,
    },
}

/// Makes everything that has an arm for each kind from one list of `module::Parameters`.
macro_rules! actions {
    ($($module:ident::$Params:ident,)+) => {
        /// A parsed action.
        #[derive(Debug, Clone, PartialEq)]
        #[expect(clippy::large_enum_variant, reason = "there are as many as are carried out at once")]
        pub enum Action {
            $(
                #[doc = concat!("What [`", stringify!($module), "`](mod@", stringify!($module), ") does.")]
                $Params($module::$Params),
            )+
        }

        /// Every kind this build knows, in a stable order.
        pub const KINDS: &[&str] = &[$(<$module::$Params as Contract>::KIND,)+];

        impl Action {
            /// Parses and validates a request.
            ///
            /// # Errors
            /// [`InvalidAction::Unsupported`] for an unknown kind, [`InvalidAction::Malformed`] for bad parameters.
            pub fn parse(request: &ActionRequest) -> Result<Self, InvalidAction> {
                match request.kind.as_str() {
                    $(<$module::$Params as Contract>::KIND => parse(request).map(Self::$Params),)+
                    kind => Err(InvalidAction::Unsupported { kind: kind.chars().take(64).collect() }),
                }
            }

            /// [`Contract::KIND`].
            #[must_use]
            pub const fn kind(&self) -> &'static str {
                match self {
                    $(Self::$Params(_) => <$module::$Params as Contract>::KIND,)+
                }
            }

            /// [`Contract::SUMMARY`].
            #[must_use]
            pub const fn summary(&self) -> &'static str {
                match self {
                    $(Self::$Params(_) => <$module::$Params as Contract>::SUMMARY,)+
                }
            }

            /// [`Contract::IDEMPOTENT`].
            #[must_use]
            pub const fn is_idempotent(&self) -> bool {
                match self {
                    $(Self::$Params(_) => <$module::$Params as Contract>::IDEMPOTENT,)+
                }
            }

            /// [`Contract::RESUMABLE`].
            #[must_use]
            pub const fn is_resumable(&self) -> bool {
                match self {
                    $(Self::$Params(_) => <$module::$Params as Contract>::RESUMABLE,)+
                }
            }

            /// [`Contract::DEFAULT_TIMEOUT`].
            #[must_use]
            pub const fn default_timeout(&self) -> Duration {
                match self {
                    $(Self::$Params(_) => <$module::$Params as Contract>::DEFAULT_TIMEOUT,)+
                }
            }

            /// [`Contract::REHEARSES`].
            #[must_use]
            pub const fn rehearses(&self) -> bool {
                match self {
                    $(Self::$Params(_) => <$module::$Params as Contract>::REHEARSES,)+
                }
            }

            /// [`Contract::PRIVILEGE`].
            #[must_use]
            pub const fn privilege(&self) -> Privilege {
                match self {
                    $(Self::$Params(_) => <$module::$Params as Contract>::PRIVILEGE,)+
                }
            }

            /// [`Contract::subject`].
            #[must_use]
            pub fn subject(&self) -> Word {
                match self {
                    $(Self::$Params(params) => params.subject(),)+
                }
            }

            /// [`Contract::needs`].
            #[must_use]
            pub fn needs(&self) -> Needs {
                match self {
                    $(Self::$Params(params) => params.needs(),)+
                }
            }

            /// [`Contract::touches`].
            #[must_use]
            pub fn touches(&self) -> Vec<Object> {
                match self {
                    $(Self::$Params(params) => params.touches(),)+
                }
            }

            /// The request that carries the action.
            ///
            /// # Errors
            /// [`InvalidAction::Malformed`] if the parameters do not validate.
            pub fn request(&self) -> Result<ActionRequest, InvalidAction> {
                match self {
                    $(Self::$Params(params) => ActionRequest::new(params),)+
                }
            }
        }

        $(
            impl From<$module::$Params> for Action {
                fn from(params: $module::$Params) -> Self {
                    Self::$Params(params)
                }
            }
        )+

        /// [`Contract::OBJECTS`] of this kind; `None` if there is no such kind.
        #[must_use]
        pub fn objects(kind: &str) -> Option<&'static [Class]> {
            match kind {
                $(<$module::$Params as Contract>::KIND => Some(<$module::$Params as Contract>::OBJECTS),)+
                _ => None,
            }
        }

        /// What [`catalogue()`] lists.
        #[cfg(feature = "schema")]
        const DESCRIPTIONS: &[fn() -> Kind] = &[$(Kind::of::<$module::$Params>,)+];
    };
}

/// Calls a macro with the list of all kinds of action, as `module::Parameters` within [`action`](crate::action). Whoever has
/// something to say of each kind makes it from here, so that no kind can be forgotten.
#[macro_export]
macro_rules! for_each_action {
    ($callback:ident) => {
        $callback! {
            script::Script,
            daemon_reload::DaemonReload,
            unit::Unit,
            unit_content::UnitContent,
            unit_file::UnitFile,
            file::File,
            package::Package,
            reboot::Reboot,
            site::Site,
        }
    };
}

for_each_action!(actions);

impl ActionRequest {
    /// The request that carries `params`.
    ///
    /// # Errors
    /// [`InvalidAction::Malformed`] if the parameters do not validate.
    pub fn new<C: Contract>(params: &C) -> Result<Self, InvalidAction> {
        let malformed = |detail| InvalidAction::Malformed { kind: C::KIND.to_owned(), detail };
        params.validate().map_err(malformed)?;
        let params = serde_json::to_string(params).map_err(|error| malformed(error.to_string()))?;
        Ok(Self { kind: C::KIND.to_owned(), params })
    }
}

fn parse<C: Contract>(request: &ActionRequest) -> Result<C, InvalidAction> {
    // What the parser quotes came from elsewhere, and as long as it was.
    let malformed = |detail: &dyn std::fmt::Display| {
        let detail: Line = Text::of(detail);
        InvalidAction::Malformed { kind: C::KIND.to_owned(), detail: detail.into() }
    };
    let params: C = serde_json::from_str(&request.params).map_err(|error| malformed(&words(&error)))?;
    params.validate().map_err(|error| malformed(&error))?;
    Ok(params)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn kinds_have_names_of_their_own_that_go_everywhere() {
        let names: BTreeSet<_> = KINDS.iter().collect();
        assert_eq!(names.len(), KINDS.len());
        for kind in KINDS {
            let well_formed = kind.split('-').all(|word| {
                word.starts_with(|c: char| c.is_ascii_lowercase())
                    && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
            });
            assert!(well_formed && kind.len() <= 32, "{kind}");
        }
    }

    proptest! {
        #[test]
        fn what_is_no_action_is_refused_by_the_name_of_its_kind(
            at in 0..KINDS.len(),
            params in prop_oneof![
                any::<String>(),
                "[\\[{}\\]\",:a-z0-9]{0,60}",
                "\\{(\"[a-z]{1,8}\":(\"[^\"\\\\]{0,20}\"|[0-9]{1,12}|null|\\[\\]),?){0,4}\\}",
            ],
        ) {
            let kind = KINDS[at];
            let request = ActionRequest { kind: kind.to_owned(), params };
            match Action::parse(&request) {
                Ok(action) => {
                    prop_assert_eq!(action.kind(), kind);
                    prop_assert_eq!(Action::parse(&action.request().unwrap()), Ok(action));
                }
                Err(InvalidAction::Malformed { kind: named, detail }) => {
                    prop_assert_eq!(named, kind);
                    prop_assert!(!detail.is_empty() && crate::printable::is_line(&detail), "{detail:?}");
                }
                Err(error) => prop_assert!(false, "{error}"),
            }
        }
    }

    #[test]
    fn a_kind_of_tomorrow_is_unsupported() {
        let request = ActionRequest { kind: "k".repeat(1000), params: "{}".to_owned() };
        assert_eq!(Action::parse(&request), Err(InvalidAction::Unsupported { kind: "k".repeat(64) }));
    }
}
