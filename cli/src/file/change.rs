//! `file put` and `file rm`: operations of one step.

use std::path::PathBuf;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use fleetward_api::work::operation::{OperationCreate, StepCall};
use fleetward_protocol::action::file::MAX_CONTENT;
use fleetward_protocol::file::FileMode;
use fleetward_protocol::name::LinuxUser;
use serde_json::{Map, Value, json};

use super::Where;
use crate::app::App;
use crate::failure::{Exit, Failure};
use crate::input;
use crate::render::neutral;
use crate::rollout::Rollout;
use crate::start::{self, Making, Manner, TARGETS};

/// Write a file
#[derive(Debug, Args)]
#[command(after_help = format!("\
The file is replaced whole, in one step, and its owner and mode stay as they are unless others are given. Where it is as it should \
be already, nothing is touched. Its content is not shown anywhere but in a dry run, which prints the lines that would change; \
--secret leaves those out as well. At most 512 KiB.

{TARGETS}

Ctrl-C leaves; the operation goes on. --stop-on-interrupt stops it instead.

Exits with 0 only if every run succeeded, 1 if some did not, 5 if the operation was stopped.

Examples:
  fleetward file put ./motd web-1:/etc/motd --mode 0644 --dry-run
  fleetward file put ./site.conf --on tag:web /etc/nginx/conf.d/site.conf --backup --batch 25% --max-failures 0
  pass show app/token | fleetward file put - --on tag:app /etc/app/token --mode 0600 --owner app --secret --yes"))]
pub(crate) struct Put {
    /// The file here; `-` reads standard input
    #[arg(value_name = "LOCAL")]
    local: PathBuf,
    #[command(flatten)]
    at: Where,
    /// Who may do what with it, in octal digits, such as 0644
    #[arg(long, value_name = "MODE")]
    mode: Option<FileMode>,
    /// Whose it is to be, by name or number
    #[arg(long, value_name = "USER")]
    owner: Option<LinuxUser>,
    /// The group it is to belong to, by name or number
    #[arg(long, value_name = "GROUP")]
    group: Option<LinuxUser>,
    /// Make directories that are missing on the way
    #[arg(long, short = 'p')]
    parents: bool,
    /// Show no line of it, not even in a dry run
    #[arg(long)]
    secret: bool,
    #[command(flatten)]
    change: Change,
}

/// Remove a file or a directory
#[derive(Debug, Args)]
#[command(after_help = format!("\
A link is removed, and not what it leads to. A directory that has something in it is removed with --recursive only. What is not \
there is reported as unchanged.

{TARGETS}

Ctrl-C leaves; the operation goes on. --stop-on-interrupt stops it instead.

Exits with 0 only if every run succeeded, 1 if some did not, 5 if the operation was stopped.

Examples:
  fleetward file rm web-1:/etc/nginx/conf.d/old.conf --backup
  fleetward file rm --on tag:app /srv/app/cache --recursive --dry-run"))]
pub(crate) struct Rm {
    #[command(flatten)]
    at: Where,
    /// Remove a directory with all that is in it
    #[arg(long, short)]
    recursive: bool,
    #[command(flatten)]
    change: Change,
}

/// How something is changed.
#[derive(Debug, Args)]
struct Change {
    /// Keep the file as it was beside it, as `.NAME.fleetward-TIME`
    #[arg(long)]
    backup: bool,
    /// As whom to act; root when absent
    #[arg(long = "as", value_name = "USER")]
    user: Option<LinuxUser>,
    /// Have each host tell what it would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    rollout: Rollout,
    /// Why, in 1,000 characters at most; shown in history and audit
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    manner: Manner,
    #[command(flatten)]
    making: Making,
}

/// `fleetward file put`.
pub(super) async fn put(command: Put, app: &App) -> Result<Exit, Failure> {
    let Put { local, at, mode, owner, group, parents, secret, change } = command;
    let bytes = input::read_within(&local, MAX_CONTENT)?.ok_or_else(|| {
        Failure::Usage(format!(
            "{} has more than {MAX_CONTENT} bytes, and an operation carries no more; put it into a package, or have a script fetch it",
            input::name(&local)
        ))
    })?;
    let size = bytes.len();
    let mut params = Map::from_iter([("state".to_owned(), json!("present"))]);
    match String::from_utf8(bytes) {
        Ok(text) => params.insert("content".to_owned(), text.into()),
        Err(error) => params.insert("content_base64".to_owned(), STANDARD.encode(error.as_bytes()).into()),
    };
    params.extend(mode.map(|mode| ("mode".to_owned(), json!(mode))));
    params.extend(owner.map(|owner| ("owner".to_owned(), json!(owner))));
    params.extend(group.map(|group| ("group".to_owned(), json!(group))));
    if parents {
        params.insert("create_parents".to_owned(), true.into());
    }
    if secret {
        params.insert("show".to_owned(), "nothing".into());
    }
    carry_out(app, at, params, change, |path| format!("write {path} ({size} bytes)")).await
}

/// `fleetward file rm`.
pub(super) async fn remove(command: Rm, app: &App) -> Result<Exit, Failure> {
    let Rm { at, recursive, change } = command;
    let mut params = Map::from_iter([("state".to_owned(), json!("absent"))]);
    if recursive {
        params.insert("recursive".to_owned(), true.into());
    }
    let all = if recursive { " with all that is in it" } else { "" };
    carry_out(app, at, params, change, |path| format!("remove {path}{all}")).await
}

async fn carry_out(
    app: &App,
    at: Where,
    mut params: Map<String, Value>,
    change: Change,
    what: impl FnOnce(&str) -> String,
) -> Result<Exit, Failure> {
    let Change { backup, user, dry_run, rollout, reason, manner, making } = change;
    if !dry_run {
        making.check(&manner)?;
    }
    let begun = Instant::now();
    let skip_not_enrolled = at.skip_not_enrolled;
    let (on, path) = at.resolve()?;
    let what = neutral::text(&what(&path.to_string()));
    params.insert("path".to_owned(), json!(path));
    params.extend(user.map(|user| ("user".to_owned(), json!(user))));
    if backup {
        params.insert("backup".to_owned(), true.into());
    }
    let asked = OperationCreate {
        id: None,
        plan: None,
        steps: vec![StepCall { kind: "file".to_owned(), params }],
        scripts: Vec::new(),
        on,
        skip_not_enrolled,
        dry_run,
        rollout: rollout.into(),
        environment: std::collections::BTreeMap::new(),
        directory: None,
        user: None,
        reason,
    };
    let preview = start::preview(app, &asked, Some(&what), &manner).await?;
    start::carry_out(app, asked, preview, (&manner, &making), begun).await
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use crate::args::Cli;
    use crate::client::double::{answer, serve};
    use crate::failure::Failure;

    /// What the controller is asked first, which says no to it.
    async fn asked(line: &str) -> serde_json::Value {
        let no = r#"{"error":"no","code":"NO","timestamp":"2026-01-02T03:04:05.000Z"}"#;
        let (address, mut requests) = serve(vec![vec![answer("400 Bad Request", no)]]).await;
        let line = format!("fleetward --quiet --token secret --controller {address} file {line}");
        let result = crate::dispatch(Cli::try_parse_from(line.split(' ')).unwrap()).await;
        assert!(matches!(result, Err(Failure::Refused { .. })), "{result:?}");
        let request = requests.try_recv().unwrap();
        assert!(request.starts_with("POST /api/v1/targets/preview "), "{request}");
        serde_json::from_str(request.split("\r\n\r\n").nth(1).unwrap()).unwrap()
    }

    #[tokio::test]
    async fn what_is_written_and_removed_is_a_step_of_an_operation() {
        let directory = tempfile::tempdir().unwrap();
        let local = directory.path().join("local");
        for (content, name, expected) in
            [(&b"hush\n"[..], "content", "hush\n"), (b"\xff", "content_base64", "/w==")]
        {
            std::fs::write(&local, content).unwrap();
            let line = format!("put {} web-1:/etc/token --mode 600 --secret --as app --yes", local.display());
            let body = asked(&line).await;
            assert_eq!(body["on"], "web-1");
            let mut params = serde_json::json!({
                "state": "present", "path": "/etc/token", "mode": "0600", "show": "nothing", "user": "app",
            });
            params[name] = expected.into();
            assert_eq!(body["steps"], serde_json::json!([{ "kind": "file", "params": params }]));
        }
        let body = asked("rm --on tag:web /srv/x -r --backup --dry-run --yes").await;
        let params =
            serde_json::json!({ "state": "absent", "path": "/srv/x", "recursive": true, "backup": true });
        assert_eq!((&body["on"], &body["steps"][0]["params"]), (&"tag:web".into(), &params));
        std::fs::write(&local, vec![0; super::MAX_CONTENT + 1]).unwrap();
        let line = format!(
            "fleetward --token secret --controller 127.0.0.1:1 file put {} web-1:/etc/token --yes",
            local.display()
        );
        let error = crate::dispatch(Cli::try_parse_from(line.split(' ')).unwrap()).await.unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("an operation carries no more"), "{error}");
    }
}
