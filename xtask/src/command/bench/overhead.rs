//! What journal, supervisor and network add to a trivial script: one run after the other on loopback, in turn with fork
//! and exec of the same script, and with a typed action that finds all as wanted.
//!
//! Controller and agent are release builds on this machine, with their files on its disk. The controller's log tells
//! the moments: it is about to tell the host (the hand-out is committed), the result has arrived, the result is
//! committed. Nothing else runs meanwhile: the request is over before, and nobody looks before all is over.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::{process, workspace};
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::super::demo::children::Children;
use super::super::demo::{Demo, USER};
use super::report::{Goal, Report};
use super::{median, quantile};

const SCRIPT: &str = "#!/bin/bash\n:\n";
const LIST: &str =
    "scripts:\n  nothing:\n    name: Nothing\n    description: Does nothing\n    path: scripts/nothing.sh\n";
const FILTER: &str = "info,fleetward_app::work::dispatch=debug,fleetward_app::work::recorder=debug,\
    fleetward_link::run=debug";
const ENVIRONMENT: [(&str, &str); 6] = [
    ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    ("HOME", "/root"),
    ("USER", "root"),
    ("LOGNAME", "root"),
    ("SHELL", "/bin/bash"),
    ("LANG", "C.UTF-8"),
];
const NOTE: &str = "\
Release builds of controller and agent on this machine, without a lab, with their files on its disk. *Order sent*: the hand-out is committed
and the host is about to be told. *Result committed*: the transaction that holds the result is durable. Between them are the order's way, the
journal's synchronised write, the supervisor, the script, its synchronised result, the result's way and the one
commit of all that happened. Fork and exec has a run's environment, and both take turns.";
const RUNS: usize = 400;
/// The first runs find nothing warm.
const WARM_UP: usize = 20;
const LIMIT: Duration = Duration::from_secs(30);
/// Long enough for a run to be over before anybody looks.
const PATIENCE: Duration = Duration::from_millis(15);
/// What is said of a run, in this order.
const MOMENTS: [&str; 3] = ["dispatcher.tells_host", "run.result_arrived", "recorder.run_ended"];

pub(super) fn measure(report: &mut Report) -> Result<()> {
    let directory = workspace::target().join("bench");
    if directory.exists() {
        fs::remove_dir_all(&directory)?;
    }
    let programs = directory.join("programs");
    fs::create_dir_all(&programs)?;
    for program in ["release/fleetward-controller", "release/fleetward", "agent/fleetward-agent"] {
        let built = workspace::target().join(program);
        symlink(&built, programs.join(built.file_name().context("a program has a name")?))?;
    }
    let inventory = directory.join("files");
    fs::create_dir_all(inventory.join("scripts"))?;
    let script = inventory.join("scripts/nothing.sh");
    fs::write(&script, SCRIPT)?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    fs::write(inventory.join("scripts.yaml"), LIST)?;

    let mut children = Children::new(directory.join("log"))?;
    let demo = Demo::open(directory.clone(), programs)?;
    fs::write(directory.join("controller.toml"), format!("[log]\nfilter = \"{FILTER}\"\n"))?;
    let password = demo.start(1, &mut children)?;
    demo.sync_inventory(&inventory)?;
    let mut api = Api::log_in(demo.http_port(), &password.current)?;
    let mut log = Log::open(&directory.join("log/controller.log"))?;
    // What was measured before may have left gigabytes for the disk to write, and every run waits for the disk.
    process::succeed(&mut Command::new("sync"), Duration::from_secs(300))?;

    let nothing = json!({ "scripts": [{ "name": "nothing" }], "on": "all" });
    let unchanged = json!({
        "steps": [{ "kind": "file", "params": { "path": script.display().to_string(), "state": "present", "content": SCRIPT } }],
        "on": "all",
    });
    let (mut bare, mut asked, mut arrived, mut ended) = (vec![], vec![], vec![], vec![]);
    let mut typed = vec![];
    for round in 0..WARM_UP + RUNS {
        let fork = fork_and_exec(&script)?;
        let request = jiff::Timestamp::now();
        let operation = api.start(&nothing)?;
        let [sent, reported, committed] = log.next_run(&operation)?;
        let operation = api.start(&unchanged)?;
        let [told, _, known] = log.next_run(&operation)?;
        if round >= WARM_UP {
            bare.push(fork);
            asked.push(between(request, committed));
            arrived.push(between(sent, reported));
            ended.push(between(sent, committed));
            typed.push(between(told, known));
        }
    }
    children.stop();

    let (alone, whole) = (median(&mut bare), median(&mut ended));
    report.section("A trivial script on loopback, one run after the other, against fork and exec in turn");
    report.row("fork and exec of the script to its end, median", alone, "ms", Goal::None);
    report.row("order sent to result committed, median", whole, "ms", Goal::None);
    report.row("added by journal, supervisor, network and store", whole - alone, "ms", Goal::AtMost(1.5));
    let typed = median(&mut typed);
    report.row(
        "order of a typed action that changes nothing to result committed, median",
        typed,
        "ms",
        Goal::None,
    );
    report.row("added to that of the script by the typed action", typed - whole, "ms", Goal::AtMost(3.0));
    report.row("order sent to result arrived, median", median(&mut arrived), "ms", Goal::None);
    report.row("order sent to result committed, 95 of 100", quantile(&mut ended, 0.95), "ms", Goal::None);
    report.row("HTTP request to result committed, median", median(&mut asked), "ms", Goal::None);
    report.note(NOTE);
    Ok(())
}

/// In milliseconds. The environment is a run's, which decides what bash reads at its start.
fn fork_and_exec(script: &Path) -> Result<f64> {
    let mut command = Command::new(script);
    command.env_clear().envs(ENVIRONMENT);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let start = Instant::now();
    let status = command.status()?;
    let took = start.elapsed().as_secs_f64() * 1e3;
    ensure!(status.success(), "the script failed: {status}");
    Ok(took)
}

fn between(from: jiff::Timestamp, to: jiff::Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64() * 1e3
}

/// The controller's API over one connection that stays: no peer has to be started beside what is timed.
struct Api {
    connection: BufReader<TcpStream>,
    token: String,
}

impl Api {
    fn log_in(port: u16, password: &str) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_nodelay(true)?;
        let mut api = Self { connection: BufReader::new(stream), token: String::new() };
        let answer = api.post("auth/login", &json!({"username": USER, "password": password}))?;
        api.token = answer["token"].as_str().context("no token")?.to_owned();
        Ok(api)
    }

    /// Gives the operation's id.
    fn start(&mut self, operation: &Value) -> Result<String> {
        let answer = self.post("operations", operation)?;
        Ok(answer["id"].as_str().with_context(|| format!("no operation: {answer}"))?.to_owned())
    }

    fn post(&mut self, path: &str, body: &Value) -> Result<Value> {
        let body = body.to_string();
        let length = body.len();
        let authorization = match self.token.as_str() {
            "" => String::new(),
            token => format!("Authorization: Bearer {token}\r\n"),
        };
        let request = format!(
            "POST /api/v1/{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n\
             {authorization}Content-Length: {length}\r\n\r\n{body}"
        );
        self.connection.get_mut().write_all(request.as_bytes())?;
        let mut line = String::new();
        self.connection.read_line(&mut line)?;
        let status = line.trim_end().to_owned();
        let mut length = 0;
        loop {
            line.clear();
            self.connection.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.parse()?;
            }
        }
        let mut answer = vec![0; length];
        self.connection.read_exact(&mut answer)?;
        ensure!(status.contains(" 20"), "{path}: {status}: {}", String::from_utf8_lossy(&answer));
        Ok(serde_json::from_slice(&answer)?)
    }
}

/// The controller's log, read as it grows.
struct Log {
    file: BufReader<fs::File>,
}

impl Log {
    fn open(path: &Path) -> Result<Self> {
        let mut file = BufReader::new(fs::File::open(path)?);
        std::io::copy(&mut file, &mut std::io::sink())?;
        Ok(Self { file })
    }

    /// The three moments of the next run; it is the only one of its operation.
    fn next_run(&mut self, operation: &str) -> Result<[jiff::Timestamp; 3]> {
        std::thread::park_timeout(PATIENCE);
        let mut seen: HashMap<&str, jiff::Timestamp> = HashMap::new();
        let mut line = String::new();
        process::until("the operation's end in the controller's log", LIMIT, || {
            loop {
                if self.file.read_line(&mut line)? == 0 || !line.ends_with('\n') {
                    return Ok(None);
                }
                let moment = MOMENTS.into_iter().find(|moment| line.contains(moment));
                let time = line.split_whitespace().next().unwrap_or_default();
                if let Some(moment) = moment {
                    seen.entry(moment).or_insert(time.parse()?);
                }
                let is_over = line.contains("operation.moved")
                    && line.contains(operation)
                    && line.contains("to=success");
                line.clear();
                if is_over {
                    return Ok(Some(()));
                }
            }
        })?;
        let at = |moment: &str| seen.get(moment).copied().with_context(|| format!("the log has no {moment}"));
        Ok([at(MOMENTS[0])?, at(MOMENTS[1])?, at(MOMENTS[2])?])
    }
}
