//! Files: what is to be in one may be a secret, and is shown by its size and digest alone unless it was asked for otherwise.

use fleetward_protocol::action::file::{Asked, File, Showing};
use serde_json::{Map, Value, json};

use super::{Resolve, Resolved, Within};
use crate::secret::SecretBox;
use crate::work::operation::OperationError;

/// The parameters that hold content.
const CONTENT: [&str; 2] = ["content", "content_base64"];

impl Resolve<File> for Asked {
    async fn resolve(self, within: &mut Within<'_>) -> Result<Resolved<File>, OperationError> {
        let Self(params) = self;
        let (shown, hidden) = shown(&params, within.app.secrets());
        Ok(Resolved { params, shown, hidden, undeclared: Vec::new(), timeout: None })
    }
}

/// The parameters as they may be shown, and what is not.
fn shown(params: &File, secrets: &SecretBox) -> (Map<String, Value>, Vec<(String, String)>) {
    let Ok(Value::Object(mut shown)) = serde_json::to_value(params) else {
        return (Map::new(), Vec::new());
    };
    let mut hidden = Vec::new();
    if params.show != Showing::All {
        for name in CONTENT {
            let Some(Value::String(content)) = shown.remove(name) else { continue };
            let size = params.wanted().map_or(0, |wanted| wanted.len());
            let mut stand_in = secrets.stand_in(&content);
            if let Value::Object(fields) = &mut stand_in {
                fields.insert("size".to_owned(), json!(size));
            }
            shown.insert(name.to_owned(), stand_in);
            hidden.push((name.to_owned(), content));
        }
    }
    (shown, hidden)
}

#[cfg(test)]
mod tests {
    use fleetward_protocol::action::{Action, ActionRequest};

    use super::*;

    fn parse(params: &Value) -> File {
        match Action::parse(&ActionRequest { kind: "file".into(), params: params.to_string() }) {
            Ok(Action::File(file)) => file,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn content_is_shown_only_where_that_was_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let secrets = SecretBox::load_or_create(&directory.path().join("secret.key")).unwrap();
        for show in ["changes", "nothing"] {
            let file = parse(&json!({ "path": "/a", "state": "present", "content": "hush\n", "show": show }));
            let (shown, hidden) = shown(&file, &secrets);
            assert!(!Value::Object(shown.clone()).to_string().contains("hush"), "{shown:?}");
            assert_eq!((&shown["path"], &shown["content"]["size"]), (&json!("/a"), &json!(5)));
            assert_eq!(hidden, [("content".to_owned(), "hush\n".to_owned())]);
        }
        let file = parse(&json!({ "path": "/a", "state": "present", "content": "loud", "show": "all" }));
        let (shown, hidden) = shown(&file, &secrets);
        assert_eq!((&shown["content"], hidden.len()), (&json!("loud"), 0));
    }
}
