//! Sites of nginx on a host that has a real one, under systemd: what is applied is served, what is broken is not made worse, and
//! no request is lost by a change.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use super::kinds::last_report;
use xtask::fleet::Fleet;
use xtask::lab::Host;
use xtask::process::{self, Finished};

/// So many changes come while requests do.
const CHANGES: u32 = 50;
/// The least requests in a second meanwhile. A few more are sent, so that a moment in which this machine is busy counts for nothing.
const LEAST: f64 = 500.0;
const SENT: &str = "550";
/// Sends requests at a steady pace, each over a connection of its own, until its input ends; then tells what became of them. What
/// is not answered by the site as a whole is a failure, whatever the reason.
const LOAD: &str = r#"
import json, socket, sys, threading, time
address, pace = sys.argv[1], int(sys.argv[2])
asked = b"GET / HTTP/1.1\r\nHost: shop.example.com\r\nConnection: close\r\n\r\n"
lock, over, number, answered, failed = threading.Lock(), threading.Event(), 0, 0, []
began = time.monotonic()
def ask():
    with socket.create_connection((address, 80), timeout=10) as link:
        link.sendall(asked)
        answer = b""
        while piece := link.recv(65536):
            answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200 ") or not body.startswith(b"content ") or not body.endswith(b" of the shop"):
        raise ValueError(answer)
def work():
    global number, answered
    while True:
        with lock:
            due = began + number / pace
            number += 1
        if over.wait(max(0, due - time.monotonic())):
            return
        try:
            ask()
            with lock:
                answered += 1
        except Exception as problem:
            with lock:
                failed.append(repr(problem)[:300])
workers = [threading.Thread(target=work) for _ in range(8)]
for worker in workers:
    worker.start()
print("begun", flush=True)
sys.stdin.read()
took = time.monotonic() - began
over.set()
for worker in workers:
    worker.join()
print(json.dumps({"seconds": took, "answered": answered, "failed": len(failed), "first": failed[:3]}))
"#;
/// In nginx's place for whoever asks it for a verdict: when the last content is in place, nginx ends before it can be reloaded.
const ENDS_NGINX: &str = "#!/bin/sh
if [ \"$*\" = '-t -c /etc/nginx/nginx.conf' ] && grep -q 'content 99' /etc/nginx/sites-enabled/shop; then
    systemctl kill --signal=KILL nginx
    while systemctl is-active --quiet nginx; do :; done
fi
exec /usr/sbin/nginx \"$@\"
";
const SECURE: &str = "name: secure
server_names: [secure.example.com]
tls: { certificate: /etc/ssl/secure.pem, key: /etc/ssl/private/secure.key }
redirect_http: true
locations:
  - { path: /, reply: { status: 200, body: secure } }
probe: {}
";
const FILE: &str = "/etc/nginx/sites-available/shop";
const LINK: &str = "/etc/nginx/sites-enabled/shop";

/// All of it, with nginx on `h3` and requests from `h4`. nginx runs there afterwards, as it was installed.
pub(super) fn walk(fleet: &Fleet) -> Result<()> {
    let (host, directory) = (fleet.lab.host("h3")?, tempfile::tempdir()?);
    host.run(&["systemctl", "start", "nginx"])?;
    let shop = Shop { fleet, host, directory: directory.path() };
    applied(&shop)?;
    certificates(&shop)?;
    broken_by_others(&shop)?;
    under_load(&shop)?;
    without_nginx(&shop)?;
    gone(&shop)
}

struct Shop<'a> {
    fleet: &'a Fleet,
    host: &'a Host,
    directory: &'a Path,
}

impl Shop<'_> {
    /// `fleetward site VERB` with the shop that has this content.
    fn does(&self, verb: &str, content: u32, more: &[&str]) -> Result<Finished> {
        let file = self.directory.join("shop.yaml");
        let text = format!(
            "name: shop\nserver_names: [shop.example.com]\nerror_log: /var/log/nginx/shop.error.log\nlocations:\n  \
             - {{ path: /, match: exact, reply: {{ status: 200, body: content {content} of the shop }} }}\n  \
             - {{ path: /static/, static: {{ root: /srv/shop }} }}\nprobe: {{}}\n"
        );
        std::fs::write(&file, text)?;
        let file = file.to_string_lossy();
        self.fleet.exec(&[&["site", verb, "--file", &file, "--on", "h3", "--yes"], more].concat())
    }

    fn applies(&self, content: u32) -> Result<()> {
        let applied = self.does("apply", content, &[])?;
        ensure!(applied.status.code() == Some(0), "{applied:?}");
        Ok(())
    }

    /// What nginx answers to a request for this name, from another machine.
    fn answer(&self, name: &str, path: &str) -> Result<String> {
        let mut curl = self.fleet.lab.operator_command("curl");
        let url = format!("http://{}{path}", self.host.address());
        curl.args([
            "--silent",
            "--show-error",
            "--max-time",
            "20",
            "--header",
            &format!("Host: {name}"),
            &url,
        ]);
        process::succeed(&mut curl, Duration::from_secs(30))
    }

    fn serves(&self, content: u32) -> Result<()> {
        let answer = self.answer("shop.example.com", "/")?;
        ensure!(answer == format!("content {content} of the shop"), "content {content}: {answer}");
        Ok(())
    }

    fn has(&self, path: &str) -> Result<bool> {
        Ok(self.host.exec(&["test", "-e", path])?.status.success())
    }
}

fn applied(shop: &Shop<'_>) -> Result<()> {
    let fleet = shop.fleet;
    for rehearsed in [shop.does("test", 1, &[])?, shop.does("apply", 1, &["--dry-run"])?] {
        let said = rehearsed.text();
        ensure!(
            rehearsed.status.code() == Some(0)
                && said.contains("shop.example.com")
                && said.contains("reload nginx"),
            "{rehearsed:?}"
        );
    }
    ensure!(!shop.has(FILE)? && !shop.has(LINK)?, "a dry run wrote a file");
    for changed in [true, false] {
        shop.applies(1)?;
        let report = last_report(fleet)?;
        let probed = if changed { report["probed"] == 200 } else { report["probed"].is_null() };
        ensure!(report["changed"] == changed && report["reloaded"] == changed && probed, "{report}");
        ensure!(report["after"] == "enabled" && report["running"] == true, "{report}");
    }
    shop.serves(1)?;
    let listed = fleet.items(&["site", "list", "--on", "h3"])?;
    let told = |name: &str| listed.iter().find(|site| site["name"] == name).cloned().unwrap_or_default();
    ensure!(told("shop")["writer"] == "ours" && told("shop")["enabled"] == true, "{listed:?}");
    ensure!(told("default")["writer"] == "foreign", "{listed:?}");
    ensure!(fleet.succeed(&["site", "list", "*.example.com", "--on", "h3"])?.contains("shop.example.com"));

    shop.answer("shop.example.com", "/static/nowhere")?;
    let errors = fleet.succeed(&["site", "errors", "shop", "--on", "h3"])?;
    ensure!(errors.contains("/srv/shop/static/nowhere"), "{errors}");
    Ok(())
}

fn certificates(shop: &Shop<'_>) -> Result<()> {
    let make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 \
                -subj /CN=secure.example.com -addext subjectAltName=DNS:secure.example.com \
                -keyout /etc/ssl/private/secure.key -out /etc/ssl/secure.pem";
    shop.host.run(&["sh", "-c", make])?;
    let file = shop.directory.join("secure.yaml");
    std::fs::write(&file, SECURE)?;
    let file = file.to_string_lossy();
    shop.fleet.succeed(&["site", "apply", "--file", &file, "--on", "h3", "--yes"])?;
    ensure!(last_report(shop.fleet)?["probed"] == 200, "the probe speaks TLS");
    for (days, found) in [("21", 0), ("31", 1)] {
        let told = shop.fleet.items(&["site", "certificates", "--days", days, "--on", "h3"])?;
        ensure!(told.len() == found, "{told:?}");
        for certificate in told {
            let left = certificate["days_left"].as_i64();
            ensure!(left == Some(29) || left == Some(30), "{certificate}");
            ensure!(
                certificate["names"][0] == "secure.example.com" && certificate["sites"][0] == "secure",
                "{certificate}"
            );
        }
    }
    shop.fleet.succeed(&["site", "rm", "secure", "--on", "h3", "--yes"])?;
    Ok(())
}

/// nginx would not start any more with what somebody else wrote: that is said, and nothing is done.
fn broken_by_others(shop: &Shop<'_>) -> Result<()> {
    let (broken, ours) =
        (shop.host.root().join("etc/nginx/sites-enabled/broken"), shop.host.root().join(&FILE[1..]));
    let before = std::fs::read(&ours)?;
    std::fs::write(&broken, "server { nonsense; }\n")?;
    let refused = shop.does("apply", 2, &[])?;
    ensure!(
        refused.status.code() == Some(1) && refused.text().contains("unknown directive \"nonsense\""),
        "{refused:?}"
    );
    ensure!(std::fs::read(&ours)? == before && broken.exists(), "something was done");
    let listed = shop.fleet.exec(&["site", "list", "--on", "h3"])?;
    ensure!(listed.status.code() == Some(1) && listed.error_text().contains("nonsense"), "{listed:?}");
    shop.serves(1)?;
    std::fs::remove_file(broken)?;
    Ok(())
}

/// Each change is what is served as soon as its run has ended, and no request fails for it.
fn under_load(shop: &Shop<'_>) -> Result<()> {
    let load = Load::begin(shop.fleet.lab.host("h4")?, shop.host.address())?;
    for content in 2..2 + CHANGES {
        shop.applies(content)?;
        shop.serves(content)?;
    }
    let Told { seconds, answered, failed, first } = load.end()?;
    println!("{CHANGES} changes in {seconds:.1} s, with {answered} requests");
    ensure!(failed == 0, "{failed} requests failed by {CHANGES} changes, {answered} did not: {first:?}");
    ensure!(f64::from(answered) >= LEAST * seconds, "{answered} requests in {seconds:.1} s are no load");
    Ok(())
}

fn without_nginx(shop: &Shop<'_>) -> Result<()> {
    let Shop { fleet, host, .. } = shop;
    host.run(&["systemctl", "stop", "nginx"])?;
    shop.applies(70)?;
    let report = last_report(fleet)?;
    ensure!(
        report["changed"] == true && report["running"] == false && report["reloaded"] == false,
        "{report}"
    );
    let started = shop.does("apply", 70, &["--start"])?;
    ensure!(started.status.code() == Some(0), "{started:?}");
    ensure!(
        last_report(fleet)?["probed"] == 200 && host.run(&["systemctl", "is-active", "nginx"])? == "active"
    );
    shop.serves(70)?;

    let before = host.run(&["cat", FILE])?;
    std::fs::write(host.root().join("usr/local/sbin/nginx"), ENDS_NGINX)?;
    host.run(&["chmod", "755", "/usr/local/sbin/nginx"])?;
    let died = shop.does("apply", 99, &[])?;
    ensure!(died.status.code() == Some(1) && died.text().contains("does not any more"), "{died:?}");
    let report = last_report(fleet)?;
    ensure!(report["changed"] == false && report["running"] == false, "{report}");
    ensure!(host.run(&["cat", FILE])? == before, "what was there was not put back");
    host.run(&["rm", "/usr/local/sbin/nginx"])?;
    host.run(&["systemctl", "start", "nginx"])?;
    shop.serves(70)
}

fn gone(shop: &Shop<'_>) -> Result<()> {
    let fleet = shop.fleet;
    fleet.succeed(&["site", "disable", "shop", "--on", "h3", "--yes"])?;
    ensure!(shop.has(FILE)? && !shop.has(LINK)?);
    ensure!(fleet.items(&["site", "list", "shop", "--on", "h3"])?[0]["enabled"] == false);
    ensure!(shop.answer("shop.example.com", "/")?.contains("Welcome to nginx"), "what is disabled is served");
    fleet.succeed(&["site", "enable", "shop", "--on", "h3", "--yes"])?;
    shop.serves(70)?;
    fleet.succeed(&["site", "rm", "shop", "--on", "h3", "--yes"])?;
    ensure!(!shop.has(FILE)? && !shop.has(LINK)?);
    ensure!(shop.answer("shop.example.com", "/")?.contains("Welcome to nginx"), "what is removed is served");
    let left = shop.host.run(&[
        "find",
        "/etc/nginx",
        "-name",
        "*fleetward*",
        "-not",
        "-path",
        "/etc/nginx/fleetward",
    ])?;
    ensure!(left.is_empty(), "{left}");
    Ok(())
}

/// Requests that go on until they are ended.
struct Load {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

/// What became of them.
#[derive(Debug, Deserialize)]
struct Told {
    seconds: f64,
    answered: u32,
    failed: u32,
    first: Vec<String>,
}

impl Load {
    fn begin(from: &Host, to: &str) -> Result<Self> {
        let mut command = from.command("python3")?;
        command.args(["-c", LOAD, to, SENT]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let input = child.stdin.take().context("its input")?;
        let mut output = BufReader::new(child.stdout.take().context("its output")?);
        let mut line = String::new();
        output.read_line(&mut line)?;
        ensure!(line == "begun\n", "the load does not begin: {line}");
        Ok(Self { child, input, output })
    }

    /// It ends by itself when its input does, also when this is never called.
    fn end(self) -> Result<Told> {
        let Self { mut child, input, mut output } = self;
        drop(input);
        let mut told = String::new();
        output.read_to_string(&mut told)?;
        child.wait()?;
        serde_json::from_str(&told).with_context(|| format!("the load told {told:?}"))
    }
}
