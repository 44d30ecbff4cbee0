//! An nginx of our own: the real program, with a configuration and a port of its own in a directory of a test.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use fleetward_agent::run::{Opened, Stage};
use fleetward_protocol::action::ActionRequest;
use fleetward_protocol::order::Authority;
use fleetward_protocol::run::Outcome;
use serde_json::{Value, json};

use crate::host::{Life, Machine, Output, Request, asking, boot, client, exited, last, script, skipped};

/// A machine with an nginx.
pub(crate) struct Web {
    pub(crate) machine: Machine,
    pub(crate) life: Life,
    pub(crate) top: PathBuf,
    pub(crate) port: u16,
}

/// `None` where there is no nginx, or no root, whom sites need.
pub(crate) fn web(test: &str) -> Option<Web> {
    if !nix::unistd::geteuid().is_root() {
        skipped(test, "sites need root");
        return None;
    }
    if Command::new("nginx").arg("-v").stderr(Stdio::null()).status().is_err() {
        skipped(test, "nginx is not installed");
        return None;
    }
    Some(web_on(Machine::new()))
}

/// An nginx on a machine; of its systemd nothing is asked, unless the machine has one of ours.
pub(crate) fn web_on(mut machine: Machine) -> Web {
    let top = machine.directory.path().canonicalize().unwrap().join("nginx");
    for directory in ["", "sites-available", "sites-enabled", "conf.d", "files"] {
        fs::create_dir(top.join(directory)).unwrap();
    }
    machine.nginx = Some(top.join("nginx.conf").to_str().unwrap().to_owned());
    // Nothing here is asked of the systemd of the machine that tests run on.
    machine.bus = machine.bus.take().or_else(|| Some(format!("unix:path={}", top.join("no-bus").display())));
    let life = machine.start(boot(1));
    let web = Web { machine, life, port: free_port(), top };
    web.configure("include sites-enabled/*;");
    web
}

/// A port on which nobody listens.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Web {
    /// Writes the first file, with this in its http part.
    pub(crate) fn configure(&self, http: &str) {
        let text = format!(
            "user root;\nworker_processes 2;\npid nginx.pid;\nerror_log error.log;\nevents {{ worker_connections 64; }}\n\
             http {{\n    access_log off;\n    server_names_hash_bucket_size 128;\n    {http}\n}}\n"
        );
        fs::write(self.path("nginx.conf"), text).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.top.join(name)
    }

    pub(crate) fn nginx(&self, arguments: &[&str]) -> bool {
        let mut nginx = Command::new("nginx");
        let (config, log) = (self.path("nginx.conf"), self.path("error.log"));
        nginx.arg("-p").arg(&self.top).arg("-c").arg(config).arg("-e").arg(log).args(arguments);
        nginx.stdin(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
    }

    /// Starts nginx; returns when it listens, for it becomes a daemon then.
    pub(crate) fn start(&self) {
        assert!(self.nginx(&[]), "{}", fs::read_to_string(self.path("error.log")).unwrap());
    }

    /// Its id stands in the usual file, or in one that a test names.
    pub(crate) fn master(&self) -> Option<i32> {
        let files = ["nginx.pid", "files/other.pid"].map(|name| fs::read_to_string(self.path(name)));
        files.into_iter().find_map(|text| text.ok()?.trim().parse().ok())
    }

    /// Kills nginx with all its workers, as a host that has no memory left does.
    pub(crate) fn kill(&self) {
        let Some(master) = self.master() else { return };
        crate::restart::kill_with_children(master);
        exited(master);
    }

    /// A site that answers with this body.
    pub(crate) fn site(&self, body: &str) -> Value {
        json!({
            "name": "shop",
            "server_names": ["shop.example.com"],
            "listen": [{ "address": "127.0.0.1", "port": self.port }],
            "locations": [{ "path": "/", "reply": { "status": 200, "body": body } }],
        })
    }

    pub(crate) fn request(&self, params: &Value) -> Request {
        let typed = Some(ActionRequest { kind: "site".into(), params: params.to_string() });
        Request { typed, content: String::new(), ..script("") }
    }

    pub(crate) async fn ask(&self, params: &Value) -> (Outcome, Output) {
        let request = self.request(params);
        let end = self.life.finish(&request).await;
        let output = self.life.output(request.run, &end);
        (end.outcome, output)
    }

    /// What it reports, when it comes out well.
    pub(crate) async fn done(&self, params: &Value) -> Value {
        let (outcome, output) = self.ask(params).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(outcome, Outcome::Exited(0), "{said}");
        output.report.expect("a report")
    }

    /// How it ends, and what it says, when it does not.
    pub(crate) async fn fails(&self, params: &Value) -> (Outcome, String) {
        let (outcome, output) = self.ask(params).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(matches!(outcome, Outcome::Exited(1..)), "{outcome:?} {said} {:?}", output.report);
        (outcome, said)
    }

    /// Why it is not begun.
    pub(crate) async fn refused(&self, params: &Value) -> String {
        let progress = self.life.begin(&self.request(params)).await;
        let stage = last(progress).await;
        assert!(matches!(stage, Stage::Refused { .. }), "{stage:?}");
        format!("{stage:?}")
    }

    pub(crate) async fn rehearse(&self, params: &Value) -> (Outcome, Output) {
        let request = self.request(params);
        let progress = match self.life.runs.open(asking(&client(), Authority::Rehearse, &request)).await {
            Opened::Held(progress) => progress,
            Opened::Unknown => panic!("the run is unknown"),
        };
        let Stage::Finished { end, .. } = last(progress).await else { panic!("it did not finish") };
        let output = self.life.output(request.run, &end);
        (end.outcome, output)
    }

    /// What the site of this name answers: its first line, and its body.
    pub(crate) fn get(&self, host: &str, path: &str) -> Option<(String, String)> {
        let answer = get(self.port, host, path)?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.to_owned(), body.to_owned()))
    }

    pub(crate) fn body(&self) -> Option<String> {
        self.get("shop.example.com", "/").map(|(_, body)| body)
    }

    /// All names in the directory of nginx, those in its directories too.
    pub(crate) fn names(&self) -> Vec<String> {
        fn collect(directory: &Path, top: &Path, names: &mut Vec<String>) {
            for entry in fs::read_dir(directory).unwrap().flatten() {
                let path = entry.path();
                if entry.file_type().unwrap().is_dir() {
                    collect(&path, top, names);
                } else {
                    names.push(path.strip_prefix(top).unwrap().to_str().unwrap().to_owned());
                }
            }
        }
        let mut names = Vec::new();
        collect(&self.top, &self.top, &mut names);
        names.retain(|name| !matches!(name.as_str(), "nginx.conf" | "nginx.pid" | "error.log"));
        names.sort();
        names
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The whole answer of a server on this port of the host itself.
pub(crate) fn get(port: u16, host: &str, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    String::from_utf8(answer).ok()
}
