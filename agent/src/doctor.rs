//! Looks for what is wrong, and says what to do about it.

use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use fleetward_protocol::suggest::nearest;
use fleetward_protocol::time::Timestamp;
use serde::Serialize;

use crate::config::{self, Address, Names, Paths, Policy, Settings, SettingsError};
use crate::identity::{self, Identity, IdentityError};
use crate::link;
use crate::platform::files::{self, FileError};
use crate::platform::trust::Secrecy;
use crate::platform::{clock, users};
use crate::status;

/// A difference of clocks that is worth a word, in milliseconds.
const SKEW_WORTH_A_WORD: u64 = 5_000;
/// A difference of clocks that breaks certificates and deadlines, in milliseconds.
const SKEW_THAT_BREAKS: u64 = 60_000;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing to do.
    Ok,
    /// It works, but not for long or not well.
    Warning,
    /// It does not work.
    Error,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub check: &'static str,
    /// How it is.
    pub severity: Severity,
    /// What was seen.
    pub detail: String,
    /// What to do about it; empty if nothing.
    pub advice: String,
}

impl Finding {
    fn ok(check: &'static str, detail: impl Into<String>) -> Self {
        Self { check, severity: Severity::Ok, detail: detail.into(), advice: String::new() }
    }

    fn warning(check: &'static str, detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, severity: Severity::Warning, detail: detail.into(), advice: advice.into() }
    }

    fn error(check: &'static str, detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, severity: Severity::Error, detail: detail.into(), advice: advice.into() }
    }
}

/// Looks at everything.
pub async fn examine(paths: &Paths) -> Vec<Finding> {
    let mut findings = settings(paths);
    let identity = Identity::load(paths);
    findings.push(client_id(paths, identity.as_ref().ok()));
    findings.push(certificate(&identity));
    findings.extend(permissions(paths));
    findings.extend(network(paths, identity.as_ref().ok()).await);
    findings.push(clock_skew(paths));
    findings.push(disk(paths));
    findings.push(journal(paths));
    findings.push(bash());
    findings.push(agent(paths));
    findings.extend(takeovers(status::read_report(paths).as_ref(), clock::now()));
    findings
}

/// Writes the findings for a person.
///
/// # Errors
/// If `out` cannot be written to.
pub fn show(findings: &[Finding], out: &mut impl Write) -> io::Result<()> {
    for finding in findings {
        let mark = match finding.severity {
            Severity::Ok => "ok     ",
            Severity::Warning => "WARNING",
            Severity::Error => "ERROR  ",
        };
        writeln!(out, "{mark}  {}: {}", finding.check, finding.detail)?;
        if !finding.advice.is_empty() {
            writeln!(out, "         -> {}", finding.advice)?;
        }
    }
    Ok(())
}

fn settings(paths: &Paths) -> Vec<Finding> {
    let check = "configuration";
    match Settings::load(&paths.config) {
        Ok(settings) => {
            let valid = Finding::ok(check, format!("{} is valid", paths.config.display()));
            [valid, allowed(&settings.policy)].into_iter().chain(absent_users(&settings.policy)).collect()
        }
        Err(error @ SettingsError::File(FileError::Distrusted(_))) => {
            vec![Finding::error(
                check,
                error.to_string(),
                "look at what it says first; until then nothing runs here",
            )]
        }
        Err(SettingsError::Missing { path, .. }) => {
            let advice = SettingsError::restore(&path);
            vec![Finding::error(check, format!("{} is missing: nothing runs here", path.display()), advice)]
        }
        Err(error) => {
            vec![Finding::error(check, link::chain(&error), "correct the file; until then nothing runs here")]
        }
    }
}

/// What the owner allows, in a line.
fn allowed(policy: &Policy) -> Finding {
    let list = |names: &Option<Names>, all: &str| match names {
        None => all.to_owned(),
        Some(names) if names.is_empty() => "none".to_owned(),
        Some(names) => names.iter().map(String::as_str).collect::<Vec<_>>().join(", "),
    };
    let mut words =
        format!("kinds: {}; users: {}", list(&policy.kinds, "every kind"), list(&policy.users, "every user"));
    for (kind, rule) in &policy.rules {
        for (class, names) in rule {
            words.push_str(&format!("; {kind}, {class}: {}", list(&Some(names.clone()), "")));
        }
    }
    Finding::ok("policy", words)
}

/// A policy may name a user that only other hosts of the fleet have: that is worth a word, and no error.
fn absent_users(policy: &Policy) -> Option<Finding> {
    let users = policy.users.iter().flat_map(|names| names.iter());
    let absent = { users }.find(|name| users::read_account(name).is_none())?;
    let known = users::read_names();
    let advice = match nearest(absent, known.iter().map(String::as_str)) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => "nothing to do if other hosts with this file have it".to_owned(),
    };
    Some(Finding::warning(
        "policy",
        format!("policy.users names `{absent}`, who is no user of this host"),
        advice,
    ))
}

fn client_id(paths: &Paths, identity: Option<&Identity>) -> Finding {
    let check = "client ID";
    let path = paths.client_id.display();
    match (identity::read_client_id(&paths.client_id), identity) {
        (Ok(Some(file)), Some(identity)) if file != identity.client => Finding::error(
            check,
            format!("{path} holds {file}, but the certificate is for {}", identity.client),
            "every run is refused; if this machine is a copy of another, remove the file and enrol with --force",
        ),
        (Ok(Some(file)), _) => Finding::ok(check, file.to_string()),
        (Ok(None), None) => Finding::warning(check, format!("{path} is missing"), "enrol this host"),
        (Ok(None), Some(identity)) => Finding::error(
            check,
            format!("{path} is missing"),
            format!("every run is refused; restore it: echo {} > {path}", identity.client),
        ),
        (Err(error), _) => {
            Finding::error(check, error.to_string(), "write one line with the host's client ID")
        }
    }
}

fn certificate(identity: &Result<Identity, IdentityError>) -> Finding {
    let check = "certificate";
    let identity = match identity {
        Ok(identity) => identity,
        Err(error @ IdentityError::File(FileError::Distrusted(_))) => {
            let advice = "enrol again with --force if somebody may have used that";
            return Finding::error(check, error.to_string(), advice);
        }
        Err(error) => return Finding::error(check, link::chain(error), "enrol this host"),
    };
    let now = clock::now();
    let validity = identity.validity;
    if now < validity.from {
        Finding::error(
            check,
            "not valid yet by this host's clock",
            "set the clock (timedatectl set-ntp true)",
        )
    } else if now >= validity.until {
        Finding::error(
            check,
            "expired",
            "check the clock; if it is right, enrol again with --force and a new token from `fleetward host token`",
        )
    } else if now >= validity.renew_at() {
        let days = validity.until.since(now).as_secs() / 86_400;
        Finding::warning(
            check,
            format!("due for renewal, valid for {days} more days"),
            "it is renewed at the next connection",
        )
    } else {
        Finding::ok(check, format!("valid for {} more days", validity.until.since(now).as_secs() / 86_400))
    }
}

/// Everything that the agent obeys or keeps secret, as [`files::read_trusted`] looks at it when it is used.
fn permissions(paths: &Paths) -> Vec<Finding> {
    let check = "permissions";
    let journal = paths.journal();
    let looked_at = [
        (paths.state.clone(), Secrecy::Public),
        (paths.runs(), Secrecy::Public),
        (paths.key(), Secrecy::Private),
        (paths.root(), Secrecy::Public),
        (paths.certificate(), Secrecy::Public),
        (paths.controllers(), Secrecy::Public),
        (journal.with_extension("key"), Secrecy::Private),
        (journal, Secrecy::Private),
    ];
    let found = looked_at.into_iter().filter_map(|(path, secrecy)| files::read_trust(&path, secrecy).err());
    let mut findings: Vec<_> = found
        .filter(|error| !error.is_absent())
        .map(|error| match error {
            FileError::Distrusted(_) => Finding::error(
                check,
                error.to_string(),
                "then look for who used it, and enrol again with --force if that was a key or a certificate",
            ),
            FileError::Failed { .. } => {
                Finding::error(check, link::chain(&error), "run doctor as the agent's own user (root)")
            }
        })
        .collect();
    if findings.is_empty() {
        findings.push(Finding::ok(
            check,
            "nobody but the agent's own user can read its keys or change its files",
        ));
    }
    findings.extend(passage(&paths.state));
    findings
}

/// A script that runs as another user is read from below the state directory.
fn passage(state: &Path) -> Option<Finding> {
    let mode = std::fs::metadata(state).ok()?.permissions().mode() & 0o7777;
    (users::may_change_user() && mode & 0o001 == 0).then(|| {
        let state = state.display();
        Finding::warning(
            "permissions",
            format!("{state} has mode {mode:04o}: scripts that run as another user than root are refused"),
            format!("run `chmod o+x {state}` if there are such scripts"),
        )
    })
}

async fn network(paths: &Paths, identity: Option<&Identity>) -> Vec<Finding> {
    let controllers = match config::read_controllers(paths) {
        Ok(controllers) if controllers.is_empty() => {
            let advice =
                format!("name one in {}: controllers = [\"ctl.example.com:7443\"]", paths.config.display());
            return vec![Finding::error("controllers", "none is configured", advice)];
        }
        Ok(controllers) => controllers,
        Err(SettingsError::Controllers { path, config, source }) => {
            let advice = format!("name them in {} instead, or enrol again with --force", config.display());
            return vec![Finding::error("controllers", format!("{}: {source}", path.display()), advice)];
        }
        // The configuration's own finding says it.
        Err(SettingsError::File(_) | SettingsError::Missing { .. } | SettingsError::Invalid { .. }) => {
            return Vec::new();
        }
    };
    let mut findings = Vec::new();
    for address in &controllers {
        findings.extend(reach(address, identity).await);
    }
    findings
}

async fn reach(address: &Address, identity: Option<&Identity>) -> Vec<Finding> {
    let resolved = match link::resolve(address).await {
        Ok(targets) if targets.is_empty() => {
            return vec![Finding::error(
                "name",
                format!("{} has no address", address.host()),
                "check the DNS record",
            )];
        }
        Ok(targets) => {
            let shown: Vec<_> = targets.iter().map(|target| target.ip().to_string()).collect();
            Finding::ok("name", format!("{} is {}", address.host(), shown.join(", ")))
        }
        Err(error) => {
            let advice = "check /etc/resolv.conf and the name in agent.toml";
            return vec![Finding::error("name", format!("{}: {error}", address.host()), advice)];
        }
    };
    let Some(identity) = identity else { return vec![resolved] };
    let reached = match link::probe(address, identity).await {
        Ok(round_trip) => Finding::ok("UDP", format!("{address} answers in {} ms", round_trip.as_millis())),
        Err(error) => not_reached(address, &error),
    };
    vec![resolved, reached]
}

/// What an attempt that failed says, and what to do about it: each cause has its own remedy.
fn not_reached(address: &Address, error: &link::DialError) -> Finding {
    let advice = match error {
        link::DialError::NoAnswer(_) => format!(
            "let UDP port {} out here and in at the controller, and check that it runs",
            address.port()
        ),
        link::DialError::Closed => {
            "check that the controller runs (systemctl status fleetward-controller there), and \
                                    that the port is that of its `link.listen`"
                .to_owned()
        }
        link::DialError::NoRoute(_) => {
            "check this host's routes (ip route get) and its own firewall".to_owned()
        }
        _ => "the controller answered but did not accept; its log and the host's entry there say why"
            .to_owned(),
    };
    Finding::error("UDP", format!("{address}: {}", link::chain(error)), advice)
}

fn clock_skew(paths: &Paths) -> Finding {
    let check = "clock";
    match status::read_report(paths).and_then(|report| report.skew_ms) {
        None => Finding::warning(check, "not compared yet", "it is compared when the agent connects"),
        Some(skew) if skew.unsigned_abs() >= SKEW_THAT_BREAKS => Finding::error(
            check,
            format!("{} s {} the controller's", skew.unsigned_abs() / 1000, direction(skew)),
            "set the clock (timedatectl set-ntp true): certificates and deadlines depend on it",
        ),
        Some(skew) if skew.unsigned_abs() >= SKEW_WORTH_A_WORD => Finding::warning(
            check,
            format!("{} s {} the controller's", skew.unsigned_abs() / 1000, direction(skew)),
            "let NTP set the clock (timedatectl set-ntp true)",
        ),
        Some(skew) => Finding::ok(check, format!("within {} ms of the controller's", skew.unsigned_abs())),
    }
}

const fn direction(skew: i64) -> &'static str {
    if skew > 0 { "behind" } else { "ahead of" }
}

fn disk(paths: &Paths) -> Finding {
    let check = "disk space";
    let min_free = Settings::load(&paths.config).unwrap_or_default().runs.min_free_mib;
    match files::read_free_space(&paths.state) {
        Ok(free) if free >> 20 < min_free => Finding::error(
            check,
            format!("{} MiB free at {}", free >> 20, paths.state.display()),
            format!("no run starts below {min_free} MiB; free some space, or lower runs.min_free_mib"),
        ),
        Ok(free) => Finding::ok(check, format!("{} MiB free at {}", free >> 20, paths.state.display())),
        Err(error) => Finding::error(
            check,
            format!("{}: {error}", paths.state.display()),
            "the state directory is missing; enrol this host",
        ),
    }
}

fn journal(paths: &Paths) -> Finding {
    let check = "journal";
    let path = paths.journal();
    let damaged =
        std::fs::read_dir(&paths.state).into_iter().flatten().flatten().find(|entry| {
            entry.file_name().to_str().is_some_and(|name| name.starts_with("journal.damaged-"))
        });
    if let Some(damaged) = damaged {
        let detail = format!("{} was put aside", damaged.path().display());
        return Finding::warning(
            check,
            detail,
            "runs it knew are lost; check the disk, then remove the file",
        );
    }
    match nix::unistd::access(&path, nix::unistd::AccessFlags::W_OK) {
        Ok(()) => Finding::ok(check, format!("{} is writable", path.display())),
        Err(nix::errno::Errno::ENOENT) => Finding::ok(check, "none yet"),
        Err(error) => Finding::error(
            check,
            format!("{}: {error}", path.display()),
            "check the disk and its mount options",
        ),
    }
}

fn bash() -> Finding {
    let found = ["/bin/bash", "/usr/bin/bash"].into_iter().find(|path| Path::new(path).exists());
    match found {
        Some(path) => Finding::ok("bash", path),
        None => Finding::error("bash", "not installed", "install it; scripts are bash scripts"),
    }
}

fn agent(paths: &Paths) -> Finding {
    let check = "agent";
    match status::read_report(paths) {
        None => Finding::error(check, "not running", "systemctl enable --now fleetward-agent"),
        Some(report) => match (report.controller, report.last_error) {
            (Some(controller), _) if report.quarantined => Finding::warning(
                check,
                format!("connected to {controller}, waiting for approval"),
                "approve the host: `fleetward host approve NAME`, or in the console",
            ),
            (Some(controller), _) => Finding::ok(check, format!("connected to {controller}")),
            (None, error) => {
                let error = error.unwrap_or_else(|| "connecting".into());
                Finding::error(
                    check,
                    format!("not connected: {error}"),
                    "the findings above say why; the log says more (journalctl -u fleetward-agent)",
                )
            }
        },
    }
}

/// Whether another machine has this host's identity.
fn takeovers(report: Option<&status::Report>, now: Timestamp) -> Option<Finding> {
    let warning = report?.takeovers.warning(now)?;
    Some(Finding::error("identity", warning, link::takeover::REMEDY))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::time::Duration;

    use super::*;

    #[test]
    fn another_machine_with_this_identity_is_an_error_with_the_remedy() {
        let now = clock::now();
        let mut report = status::Report { takeovers: Default::default(), ..Default::default() };
        assert_eq!(takeovers(None, now), None);
        report.takeovers = report.takeovers.with_one(now);
        assert_eq!(takeovers(Some(&report), now), None);
        report.takeovers = report.takeovers.with_one(now);
        let found = takeovers(Some(&report), now).unwrap();
        assert_eq!((found.severity, found.check), (Severity::Error, "identity"));
        assert!(
            found.detail.contains("another machine") && found.advice.contains("fleetward host token"),
            "{found:?}"
        );
    }

    #[test]
    fn a_closed_port_is_not_taken_for_a_firewall() {
        let address = "ctl.example.com:7443".parse().unwrap();
        let closed = not_reached(&address, &link::DialError::Closed);
        assert!(
            closed.detail.contains("closed") && closed.advice.contains("the controller runs"),
            "{closed:?}"
        );
        assert!(!closed.advice.contains("let UDP port"), "{closed:?}");
        let silent = not_reached(&address, &link::DialError::NoAnswer(Duration::from_secs(3)));
        assert!(silent.advice.contains("let UDP port 7443 out"), "{silent:?}");
    }

    #[test]
    fn what_others_can_read_or_change_is_told_with_the_command_that_mends_it() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let paths = Paths { config: at("agent.toml"), state: at("state"), client_id: at("client_id") };
        files::ensure_directory(&paths.runs(), 0o711).unwrap();
        fs::set_permissions(&paths.state, Permissions::from_mode(0o711)).unwrap();
        files::ensure_file(&paths.config, 0o644, b"[policy]\nusers = ['root']").unwrap();
        files::ensure_file(&paths.key(), 0o600, b"").unwrap();
        files::ensure_file(&paths.root(), 0o644, b"").unwrap();
        let told = || -> Vec<_> { settings(&paths).into_iter().chain(permissions(&paths)).collect() };
        assert!(told().iter().all(|finding| finding.severity == Severity::Ok), "{:?}", told());

        let key = paths.journal().with_extension("key");
        files::ensure_file(&key, 0o644, b"").unwrap();
        for (path, mode, command) in [
            (&paths.config, 0o666, "chmod go-w"),
            (&paths.key(), 0o644, "chmod 0600"),
            (&paths.root(), 0o664, "chmod go-w"),
            (&paths.runs(), 0o777, "chmod go-w"),
            (&key, 0o644, "chmod 0600"),
        ] {
            let before = fs::metadata(path).unwrap().permissions();
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
            let wanted = [format!("mode {mode:04o}"), format!("`{command} {}`", path.display())];
            let is_told = |finding: &Finding| {
                finding.severity == Severity::Error && wanted.iter().all(|part| finding.detail.contains(part))
            };
            assert!(told().iter().any(is_told), "{:?}", told());
            fs::set_permissions(path, before).unwrap();
        }
        fs::remove_file(key).unwrap();

        let words = |policy: &str| {
            files::ensure_file(&paths.config, 0o644, format!("[policy]\n{policy}").as_bytes()).unwrap();
            told().into_iter().find(|finding| finding.severity != Severity::Ok)
        };
        fs::remove_file(&paths.config).unwrap();
        let [missing] = &settings(&paths)[..] else { panic!("{:?}", settings(&paths)) };
        assert_eq!(missing.severity, Severity::Error);
        assert!(missing.detail.contains("agent.toml is missing: nothing runs"), "{missing:?}");
        assert!(missing.advice.contains("`install -m 0644 /usr/share/"), "{missing:?}");

        let absent = words("users = ['root', 'rooot']").unwrap();
        assert_eq!((absent.severity, absent.advice.as_str()), (Severity::Warning, "did you mean `root`?"));
        let wrong = words("kinds = ['Script']").unwrap();
        assert!(wrong.severity == Severity::Error && wrong.detail.contains("did you mean `script`?"));
        assert_eq!(words("kinds = ['script']"), None);
        let all = "kinds = ['script', 'unit']\nusers = []\n[policy.rules.unit]\nunits = ['nginx', 'app-*']";
        assert_eq!(words(all), None);
        let told = settings(&paths).into_iter().find(|finding| finding.check == "policy").unwrap();
        assert_eq!(told.detail, "kinds: script, unit; users: none; unit, units: app-*, nginx");

        if users::may_change_user() {
            fs::set_permissions(&paths.state, Permissions::from_mode(0o700)).unwrap();
            let closed = words("").unwrap();
            assert!(
                closed.severity == Severity::Warning && closed.advice.contains("chmod o+x"),
                "{closed:?}"
            );
        }
    }
}
