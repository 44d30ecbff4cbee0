//! Write, make or remove a file or a directory.
//!
//! A file is replaced whole, in one step: whoever opens it reads the old content or the new. What is as asked for already is left
//! alone, and the report says so.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::{Actor, Contract, Needs, Privilege};
use crate::choice::choices;
use crate::file::{FileMode, FileType};
use crate::name::LinuxUser;
use crate::object::{Class, Object};
use crate::path::HostPath;
use crate::text::{Line, List, Text, Word};

/// The most content, in bytes: with it an order is as large as one may be.
pub const MAX_CONTENT: usize = 512 << 10;
/// The most parameters, in bytes of JSON: text that JSON escapes grows.
const MAX_PARAMS: usize = 900 << 10;
/// How many earlier versions of a file are kept.
pub const MAX_KEPT: usize = 5;
/// The most notes of a report.
pub const MAX_NOTES: usize = 16;

/// Parameters of a file action.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct File {
    /// The path: an absolute one. One that is not UTF-8 is `base64:` and its bytes. A link at its end is not followed: name what it
    /// leads to.
    #[cfg_attr(feature = "schema", schema(value_type = String, example = "/etc/motd", max_length = 5467))]
    pub path: HostPath,
    /// What is to be there.
    #[cfg_attr(feature = "schema", schema(inline))]
    pub state: State,
    /// What is to be in the file, as text; of 512 KiB at the most. A file whose content is not given keeps its own, and a new one is
    /// empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// The same in base64, where it is no text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_base64: Option<String>,
    /// Whose it is to be, by name or number. As it is when absent, and a new one's is who acts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, example = "root"))]
    pub owner: Option<LinuxUser>,
    /// Which group it is to belong to, by name or number. As it is when absent, and a new one's is that of who acts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, example = "adm"))]
    pub group: Option<LinuxUser>,
    /// Who may do what with it, in octal digits. As it is when absent; a new file has 0644, a new directory 0755.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, example = "0644"))]
    pub mode: Option<FileMode>,
    /// Whether the file as it was is kept beside it, as `.NAME.fleetward-TIME`: the last 5 of these are.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[cfg_attr(feature = "schema", schema(default = false))]
    pub backup: bool,
    /// Whether directories that are missing on the way are made, with mode 0755.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[cfg_attr(feature = "schema", schema(default = false))]
    pub create_parents: bool,
    /// Whether a directory is removed with all that is in it; only with `absent`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[cfg_attr(feature = "schema", schema(default = false))]
    pub recursive: bool,
    /// What of the content may be shown.
    #[serde(default = "Showing::usual", skip_serializing_if = "Showing::is_usual")]
    #[cfg_attr(feature = "schema", schema(inline))]
    pub show: Showing,
    /// As whom to act; as root when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub user: Option<LinuxUser>,
}

choices! {
    /// What is to be at a path.
    pub enum State {
        /// A file, with this content if one is given.
        Present = "present",
        /// Nothing.
        Absent = "absent",
        /// A directory.
        Directory = "directory",
    }
}

choices! {
    /// What of a file's content may be shown.
    pub enum Showing {
        /// Its size and digest in lists and plans; in a dry run the lines that would change.
        Changes = "changes",
        /// Its size and digest, everywhere: for secrets.
        Nothing = "nothing",
        /// The content, wherever the operation is shown.
        All = "all",
    }
}

impl Showing {
    /// What is meant when nothing is said.
    const fn usual() -> Self {
        Self::Changes
    }

    /// Whether it is what is meant when nothing is said.
    fn is_usual(&self) -> bool {
        *self == Self::usual()
    }
}

/// What a file action tells when it ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct FileReport {
    /// Whether anything was done. Where all was as wanted, nothing is touched.
    pub changed: bool,
    /// What was there before; absent if nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(inline))]
    pub before: Option<FileState>,
    /// What is there now; absent if nothing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(inline))]
    pub after: Option<FileState>,
    /// Where the file as it was is kept, if that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub backup: Option<Line>,
    /// What else there is to know, such as attributes that could not be kept.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schema(value_type = Vec<String>))]
    pub notes: List<Line, MAX_NOTES>,
}

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct FileState {
    /// What it is.
    #[serde(rename = "type")]
    #[cfg_attr(feature = "schema", schema(inline))]
    pub kind: FileType,
    /// How many bytes it has.
    pub size: u64,
    /// Who may do what with it, in octal digits.
    #[cfg_attr(feature = "schema", schema(value_type = String, example = "0644"))]
    pub mode: FileMode,
    /// Whose it is; a number where the host has no name for it.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub owner: Word,
    /// The group it belongs to; a number where the host has no name for it.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub group: Word,
}

impl Contract for File {
    const KIND: &'static str = "file";
    const SUMMARY: &'static str = "Write, make or remove a file or a directory.";
    const IDEMPOTENT: bool = true;
    const RESUMABLE: bool = true;
    const REHEARSES: bool = true;
    const OBJECTS: &'static [Class] = &[Class::Paths];
    const DEFAULT_TIMEOUT: Duration = Duration::from_secs(300);
    const PRIVILEGE: Privilege = Privilege::Administer;

    type Asked = Asked;
    type Report = FileReport;

    fn subject(&self) -> Word {
        let verb = match self.state {
            State::Present => "write",
            State::Absent => "remove",
            State::Directory => "make directory",
        };
        Text::of(format_args!("{verb} {}", self.path))
    }

    fn needs(&self) -> Needs {
        Needs {
            actor: self.user.clone().map_or(Actor::Root, Actor::User),
            resources: self.path.resource().into_iter().collect(),
            contents: Vec::new(),
        }
    }

    fn touches(&self) -> Vec<Object> {
        vec![self.path.object()]
    }

    fn validate(&self) -> Result<(), String> {
        let has_content = self.content.is_some() || self.content_base64.is_some();
        if self.content.is_some() && self.content_base64.is_some() {
            return Err("give the content once: as `content` or as `content_base64`".to_owned());
        }
        let refused = match self.state {
            State::Present => [("recursive", self.recursive), ("", false), ("", false)],
            State::Directory => {
                [("recursive", self.recursive), ("content", has_content), ("backup", self.backup)]
            }
            State::Absent => [
                ("content", has_content),
                ("create_parents", self.create_parents),
                (
                    "owner, group and mode",
                    self.owner.is_some() || self.group.is_some() || self.mode.is_some(),
                ),
            ],
        };
        if let Some((name, _)) = refused.into_iter().find(|(_, is_given)| *is_given) {
            return Err(format!("{name} mean nothing with the state `{}`: leave them out", self.state));
        }
        if self.backup && self.recursive {
            return Err(
                "a whole directory is not kept: leave `backup` out, or move it away yourself".to_owned()
            );
        }
        let length = self.content.as_ref().map_or(0, String::len);
        let encoded = self.content_base64.as_ref().map_or(0, String::len);
        if length > MAX_CONTENT || encoded > MAX_CONTENT.div_ceil(3) * 4 {
            return Err(format!("the content has more than {MAX_CONTENT} bytes, and an order holds no more"));
        }
        let escaped =
            self.content.as_ref().map_or(Ok(0), |text| serde_json::to_string(text).map(|json| json.len()));
        if escaped.is_ok_and(|length| length > MAX_PARAMS) {
            return Err("the content is too large as text: give it as `content_base64`".to_owned());
        }
        if let Some(encoded) = &self.content_base64 {
            STANDARD.decode(encoded).map_err(|error| format!("`content_base64` is no base64: {error}"))?;
        }
        if self.path.as_bytes() == b"/" {
            return Err("`/` itself is not changed: name something in it".to_owned());
        }
        Ok(())
    }
}

impl File {
    /// What is to be in the file; `None` where that does not matter.
    #[must_use]
    pub fn wanted(&self) -> Option<Vec<u8>> {
        match (&self.content, &self.content_base64) {
            (Some(text), _) => Some(text.as_bytes().to_vec()),
            (None, Some(encoded)) => STANDARD.decode(encoded).ok(),
            (None, None) => None,
        }
    }
}

/// The content may be a secret: no log shows it.
impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let content = self.content.as_ref().or(self.content_base64.as_ref()).map(String::len);
        f.debug_struct("File")
            .field("path", &self.path)
            .field("state", &self.state)
            .field("content", &content)
            .finish_non_exhaustive()
    }
}

/// A file action as a person asks for it: the same, of which not all is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Asked(pub File);

#[cfg(feature = "schema")]
impl utoipa::PartialSchema for Asked {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        File::schema()
    }
}

#[cfg(feature = "schema")]
impl utoipa::ToSchema for Asked {
    fn name() -> std::borrow::Cow<'static, str> {
        File::name()
    }

    fn schemas(schemas: &mut Vec<(String, utoipa::openapi::RefOr<utoipa::openapi::schema::Schema>)>) {
        File::schemas(schemas);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::{Action, ActionRequest};

    fn parse(params: &str) -> Result<File, String> {
        match Action::parse(&ActionRequest { kind: "file".into(), params: params.into() }) {
            Ok(Action::File(file)) => Ok(file),
            Ok(other) => Err(format!("{other:?}")),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn parameters_read_as_they_are_written() {
        let file =
            parse(r#"{"path":"/etc//motd","state":"present","content":"hi\n","owner":"0","mode":"640"}"#)
                .unwrap();
        assert_eq!((file.subject().as_str(), file.wanted()), ("write /etc/motd", Some(b"hi\n".to_vec())));
        assert_eq!(file.mode.unwrap().bits(), 0o640);
        assert_eq!(file.needs().actor, Actor::Root);
        assert_eq!(file.needs().resources.len(), 1);
        assert!(!format!("{file:?}").contains("hi"));
        let file =
            parse(r#"{"path":"/a","state":"present","content_base64":"/w==","user":"deploy"}"#).unwrap();
        assert_eq!(file.wanted(), Some(vec![0xff]));
        assert_eq!(file.needs().actor, Actor::User("deploy".parse().unwrap()));
        assert_eq!(parse(r#"{"path":"/a","state":"absent","recursive":true}"#).unwrap().wanted(), None);
        for (params, told) in [
            (r#"{"path":"/a"}"#, "missing field `state`"),
            (r#"{"path":"a","state":"absent"}"#, "from the root on"),
            (r#"{"path":"/","state":"absent","recursive":true}"#, "`/` itself"),
            (r#"{"path":"/a","state":"present","content":"","content_base64":""}"#, "once"),
            (r#"{"path":"/a","state":"present","content_base64":"?"}"#, "no base64"),
            (r#"{"path":"/a","state":"present","recursive":true}"#, "recursive mean nothing"),
            (r#"{"path":"/a","state":"directory","content":"x"}"#, "content mean nothing"),
            (r#"{"path":"/a","state":"absent","mode":"0644"}"#, "owner, group and mode mean nothing"),
            (r#"{"path":"/a","state":"absent","recursive":true,"backup":true}"#, "is not kept"),
            (r#"{"path":"/a","state":"present","mode":"u+x"}"#, "octal"),
            (r#"{"path":"/a","state":"present","owner":"a b"}"#, "not a valid"),
        ] {
            let error = parse(params).unwrap_err();
            assert!(error.contains("`file`") && error.contains(told), "{error}");
        }
    }

    #[test]
    fn the_most_content_goes_into_an_order() {
        use crate::order::{Authority, Limits, Step};

        let file = |content: Option<String>, content_base64: Option<String>| {
            let mut file = parse(r#"{"path":"/a","state":"present"}"#).unwrap();
            (file.content, file.content_base64) = (content, content_base64);
            ActionRequest::new(&file)
        };
        let fits = |action: ActionRequest| {
            let step = Step {
                authority: Authority::Run(action),
                limits: Limits::of(&[]).to_list(),
                contents: List::default(),
            };
            step.encode().is_ok()
        };
        assert!(fits(file(Some("x".repeat(MAX_CONTENT)), None).unwrap()));
        assert!(fits(file(None, Some(STANDARD.encode(vec![0xff; MAX_CONTENT]))).unwrap()));
        assert!(file(Some("x".repeat(MAX_CONTENT + 1)), None).is_err());
        assert!(file(None, Some(STANDARD.encode(vec![0; MAX_CONTENT + 3]))).is_err());
        let error = file(Some("\u{1}".repeat(MAX_CONTENT)), None).unwrap_err().to_string();
        assert!(error.contains("content_base64"), "{error}");
    }
}
