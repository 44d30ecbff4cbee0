//! Kinds of query: what can be looked at on a host.
//!
//! A query changes nothing, may be repeated, and is bounded in time and in what it brings. It answers with *items*, each
//! with a key; a query that follows goes on to tell what changes. It travels as its kind and its parameters in JSON, as
//! an action does ([`ActionRequest`]); [`Query`] is the parsed form that the agent carries out.
//!
//! To add a kind: a file beside `units.rs` that implements [`Contract`], its `mod` and one line in the list of
//! `queries!` here. No kind of query has the name of a kind of action.

#[cfg(feature = "schema")]
mod catalogue;
mod contract;

pub mod certificates;
pub mod file_list;
pub mod file_read;
pub mod file_stat;
pub mod host_status;
pub mod logins;
pub mod mounts;
pub mod packages;
pub mod processes;
pub mod site_errors;
pub mod sites;
pub mod sockets;
pub mod timers;
pub mod unit_log;
pub mod unit_show;
pub mod units;

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

#[cfg(feature = "schema")]
pub use catalogue::{Kind, catalogue};
pub use contract::{Contract, Key, Shows};

use crate::action::{ActionRequest, Actor, Privilege};
use crate::malformed::words;
use crate::object::{Class, Object};
use crate::printable::is_line;
use crate::text::{Line, Text};

/// The largest item, as JSON, in bytes.
pub const MAX_ITEM: usize = 8 << 10;
/// The most bytes of a query's parameters, as JSON.
pub const MAX_PARAMS: usize = 16 << 10;
/// How deep objects and lists may stand in each other in an item, the item itself included.
pub const MAX_DEPTH: usize = 8;

/// Why an [`ActionRequest`] is not a [`Query`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidQuery {
    /// This build knows no such kind.
    #[error("unsupported kind of query `{kind}`")]
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
macro_rules! queries {
    ($($module:ident::$Params:ident,)+) => {
        /// A parsed query.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Query {
            $(
                #[doc = concat!("What [`", stringify!($module), "`](mod@", stringify!($module), ") looks at.")]
                $Params($module::$Params),
            )+
        }

        /// Every kind this build knows, in a stable order.
        pub const QUERY_KINDS: &[&str] = &[$(<$module::$Params as Contract>::KIND,)+];

        impl Query {
            /// Parses and validates a request.
            ///
            /// # Errors
            /// [`InvalidQuery::Unsupported`] for an unknown kind, [`InvalidQuery::Malformed`] for bad parameters.
            pub fn parse(request: &ActionRequest) -> Result<Self, InvalidQuery> {
                match request.kind.as_str() {
                    $(<$module::$Params as Contract>::KIND => parse(request).map(Self::$Params),)+
                    kind => Err(InvalidQuery::Unsupported { kind: kind.chars().take(64).collect() }),
                }
            }

            /// [`Contract::KIND`].
            #[must_use]
            pub const fn kind(&self) -> &'static str {
                match self {
                    $(Self::$Params(_) => <$module::$Params as Contract>::KIND,)+
                }
            }

            /// [`Contract::PRIVILEGE`].
            #[must_use]
            pub const fn privilege(&self) -> Privilege {
                match self {
                    $(Self::$Params(_) => <$module::$Params as Contract>::PRIVILEGE,)+
                }
            }

            /// [`Contract::touches`].
            #[must_use]
            pub fn touches(&self) -> Vec<Object> {
                match self {
                    $(Self::$Params(params) => params.touches(),)+
                }
            }

            /// [`Contract::actor`].
            #[must_use]
            pub fn actor(&self) -> Actor {
                match self {
                    $(Self::$Params(params) => params.actor(),)+
                }
            }

            /// What an answer may take and bring.
            #[must_use]
            pub const fn bounds(&self) -> Bounds {
                match self {
                    $(Self::$Params(_) => Bounds::of::<$module::$Params>(),)+
                }
            }

            /// The request that carries the query.
            ///
            /// # Errors
            /// [`InvalidQuery::Malformed`] if the parameters do not validate.
            pub fn request(&self) -> Result<ActionRequest, InvalidQuery> {
                match self {
                    $(Self::$Params(params) => request(params),)+
                }
            }
        }

        $(
            impl From<$module::$Params> for Query {
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

queries! {
    units::Units,
    file_list::FileList,
    file_stat::FileStat,
    file_read::FileRead,
    packages::Packages,
    unit_log::UnitLog,
    unit_show::UnitShow,
    timers::Timers,
    sites::Sites,
    certificates::Certificates,
    site_errors::SiteErrors,
    sockets::Sockets,
    mounts::Mounts,
    logins::Logins,
    host_status::HostStatus,
    processes::Processes,
}

/// What an answer may take and bring: a host stops at these, and a controller takes no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// [`Contract::FOLLOWS`].
    pub follows: bool,
    /// [`Contract::SHOWS`].
    pub shows: Shows,
    /// [`Contract::DEFAULT_TIMEOUT`].
    pub timeout: Duration,
    /// [`Contract::MAX_ITEMS`].
    pub items: usize,
    /// [`Contract::MAX_BYTES`].
    pub bytes: usize,
}

impl Bounds {
    const fn of<C: Contract>() -> Self {
        Self {
            follows: C::FOLLOWS,
            shows: C::SHOWS,
            timeout: C::DEFAULT_TIMEOUT,
            items: C::MAX_ITEMS,
            bytes: C::MAX_BYTES,
        }
    }
}

fn request<C: Contract>(params: &C) -> Result<ActionRequest, InvalidQuery> {
    let malformed = |detail| InvalidQuery::Malformed { kind: C::KIND.to_owned(), detail };
    params.validate().map_err(malformed)?;
    let params = serde_json::to_string(params).map_err(|error| malformed(error.to_string()))?;
    Ok(ActionRequest { kind: C::KIND.to_owned(), params })
}

fn parse<C: Contract + DeserializeOwned>(request: &ActionRequest) -> Result<C, InvalidQuery> {
    // What the parser quotes came from elsewhere, and as long as it was.
    let malformed = |detail: &dyn std::fmt::Display| {
        let detail: Line = Text::of(detail);
        InvalidQuery::Malformed { kind: C::KIND.to_owned(), detail: detail.into() }
    };
    if request.params.len() > MAX_PARAMS {
        let length = request.params.len();
        return Err(malformed(&format_args!("they have {length} bytes, and {MAX_PARAMS} are allowed")));
    }
    let params: C = serde_json::from_str(&request.params).map_err(|error| malformed(&words(&error)))?;
    params.validate().map_err(|error| malformed(&error))?;
    Ok(params)
}

/// An item as it is passed on.
pub type Fields = Map<String, Value>;

/// Why a text is not an item.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidItem {
    /// It is not JSON.
    #[error("it is not JSON")]
    NotJson,
    /// It is not an object.
    #[error("it is not an object")]
    NotAnObject,
    /// Objects and lists stand too deep in each other.
    #[error("it is nested deeper than {MAX_DEPTH}")]
    Deep,
    /// It holds text that is not one printable line.
    #[error("it holds text that is not printable")]
    NotPrintable,
}

/// Reads an item as a host told it: an object of bounded depth, all of whose texts are printable lines.
///
/// # Errors
/// The first of these that it is not.
pub fn read_item(text: &Text<MAX_ITEM>) -> Result<Fields, InvalidItem> {
    let value: Value = serde_json::from_str(text).map_err(|_| InvalidItem::NotJson)?;
    check(&value, MAX_DEPTH)?;
    match value {
        Value::Object(item) => Ok(item),
        _ => Err(InvalidItem::NotAnObject),
    }
}

/// Whether all text in a value from a host is printable lines, and nothing in it deeper than `depth`.
pub(crate) fn check(value: &Value, depth: usize) -> Result<(), InvalidItem> {
    let printable = |text: &str| if is_line(text) { Ok(()) } else { Err(InvalidItem::NotPrintable) };
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
        Value::String(text) => printable(text),
        Value::Array(_) | Value::Object(_) if depth == 0 => Err(InvalidItem::Deep),
        Value::Array(items) => items.iter().try_for_each(|item| check(item, depth - 1)),
        Value::Object(fields) => {
            fields.iter().try_for_each(|(name, value)| printable(name).and_then(|()| check(value, depth - 1)))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::action::KINDS;

    /// Policies, permissions and command lines name a kind of either family by its name alone.
    /// People wrote the parameters, and not the JSON that they travel in.
    #[test]
    fn what_is_wrong_is_told_without_a_place_in_json() {
        let params = r#"{"units":["ngin*"]}"#.to_owned();
        let request = ActionRequest { kind: "unit-log".to_owned(), params };
        let Err(InvalidQuery::Malformed { detail, .. }) = Query::parse(&request) else { panic!() };
        assert!(
            detail.contains("`ngin*` is not the name of a unit") && !detail.contains("column"),
            "{detail}"
        );
        assert!(detail.ends_with("a pattern is not taken here"), "{detail}");
    }

    #[test]
    fn no_kind_of_query_has_the_name_of_another_kind() {
        let names: BTreeSet<_> = KINDS.iter().chain(QUERY_KINDS).collect();
        assert_eq!(names.len(), KINDS.len() + QUERY_KINDS.len());
        for kind in QUERY_KINDS {
            let well_formed = kind.split('-').all(|word| {
                word.starts_with(|c: char| c.is_ascii_lowercase())
                    && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
            });
            assert!(well_formed && kind.len() <= 32, "{kind}");
        }
    }

    proptest! {
        #[test]
        fn what_is_no_query_is_refused_by_the_name_of_its_kind(
            at in 0..QUERY_KINDS.len(),
            params in prop_oneof![
                any::<String>(),
                "[\\[{}\\]\",:a-z0-9]{0,60}",
                "\\{(\"(types|states|pattern|[a-z]{1,4})\":(\"[^\"\\\\]{0,20}\"|[0-9]{1,12}|null|\\[\\]|\\[\"failed\"\\]),?){0,3}\\}",
            ],
        ) {
            let kind = QUERY_KINDS[at];
            let request = ActionRequest { kind: kind.to_owned(), params };
            match Query::parse(&request) {
                Ok(query) => {
                    prop_assert_eq!(query.kind(), kind);
                    prop_assert_eq!(Query::parse(&query.request().unwrap()), Ok(query));
                }
                Err(InvalidQuery::Malformed { kind: named, detail }) => {
                    prop_assert_eq!(named, kind);
                    prop_assert!(!detail.is_empty() && is_line(&detail), "{detail:?}");
                }
                Err(error) => prop_assert!(false, "{error}"),
            }
        }

        /// Whatever a host says as an item: what is taken has no text that is more than a printable line.
        #[test]
        fn an_item_is_an_object_of_printable_lines(
            text in prop_oneof![
                "\\{\"[a-z]{0,3}\":\"[a-z\u{e9}]{0,5}(\\\\[nut\"0-9]{1,4})?\"\\}",
                "[\\[{}\\]\",:a1\\\\]{0,40}",
            ],
        ) {
            let Ok(text) = text.parse::<Text<MAX_ITEM>>() else { return Ok(()) };
            if let Ok(item) = read_item(&text) {
                for (name, value) in item {
                    prop_assert!(is_line(&name));
                    prop_assert!(value.as_str().is_none_or(is_line), "{value}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_item_is_told_apart() {
        let read = |text: &str| read_item(&text.parse().unwrap()).map(|item| item.len());
        let nested = |depth: usize| format!("{}{}", "{\"a\":".repeat(depth - 1) + "{", "}".repeat(depth));
        assert_eq!(read(r#"{"name":"é","tags":["a",1,null,true]}"#), Ok(2));
        assert_eq!(read(&nested(MAX_DEPTH)), Ok(1));
        assert_eq!(read(&nested(MAX_DEPTH + 1)), Err(InvalidItem::Deep));
        assert_eq!(read(&nested(500)), Err(InvalidItem::NotJson));
        assert_eq!(read("[1]"), Err(InvalidItem::NotAnObject));
        assert_eq!(read("{"), Err(InvalidItem::NotJson));
        for hidden in ["{\"a\":\"x\\ny\"}", "{\"a\":[\"\\u001b[2J\"]}", "{\"\\u202e\":1}"] {
            assert_eq!(read(hidden), Err(InvalidItem::NotPrintable), "{hidden}");
        }
    }

    #[test]
    fn a_kind_of_tomorrow_is_unsupported_and_too_much_is_refused() {
        let request = ActionRequest { kind: "k".repeat(1000), params: "{}".to_owned() };
        assert_eq!(Query::parse(&request), Err(InvalidQuery::Unsupported { kind: "k".repeat(64) }));
        let request = ActionRequest { kind: "units".to_owned(), params: " ".repeat(MAX_PARAMS + 1) };
        let error = Query::parse(&request).unwrap_err().to_string();
        assert!(error.contains("16384 are allowed"), "{error}");
    }
}
