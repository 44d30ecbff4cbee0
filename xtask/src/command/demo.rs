//! `cargo xtask demo`: a fleet on this machine, from nothing to the output of a script.
//!
//! It drives the real programs with the command lines that the README shows. Everything it makes is under `.demo/`;
//! a second start finds the fleet of the first. Deliberately absent: anything that only a demo can do.

pub(super) mod children;
mod machine;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use crate::{process, workspace};
use anyhow::{Context as _, Result, ensure};
use clap::Args;
use serde::{Deserialize, Serialize};

use self::children::{Children, Interrupted};
use super::test::cargo;

/// Options of `cargo xtask demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoCommand {
    /// Agents on this machine, each with a state directory of its own.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=50))]
    hosts: u16,
    /// End after the run, with its status.
    #[arg(long)]
    once: bool,
    /// Where the demo keeps its data.
    #[arg(long, default_value = ".demo", value_name = "DIR")]
    directory: PathBuf,
}

const CONTROLLER: &str = "controller";
pub(super) const USER: &str = "admin";
const BUILD: Duration = Duration::from_secs(3600);
const STEP: Duration = Duration::from_secs(60);
const RUN: &str = "baseline";

pub(crate) fn execute(command: &DemoCommand) -> Result<ExitCode> {
    machine::ensure()?;
    step("building the console and the programs");
    super::package::build_console()?;
    let mut build = cargo(&["build", "--package", "fleetward-controller", "--package", "fleetward-agent"]);
    build.args(["--package", "fleetward-cli"]);
    process::show_success(&mut build, BUILD)?;

    let directory = workspace::root().join(&command.directory);
    fs::create_dir_all(&directory)?;
    let directory = directory.canonicalize()?;
    let mut children = Children::new(directory.join("log"))?;
    let demo = Demo::open(directory, workspace::target().join("debug"))?;
    let outcome = demo.play(command, &mut children);
    if !children.is_empty() {
        step("stopping everything");
    }
    children.stop();
    match outcome {
        // Whoever asked for the end before the run was over did not get the run's success.
        Err(problem) if problem.is::<Interrupted>() => Ok(ExitCode::from(130)),
        outcome => outcome,
    }
}

/// What a second start has to find again.
#[derive(Debug, Serialize, Deserialize)]
struct Ports {
    http: u16,
    link: u16,
}

/// A controller and agents on this machine, with all their files in one directory.
pub(super) struct Demo {
    directory: PathBuf,
    programs: PathBuf,
    ports: Ports,
}

impl Demo {
    /// The fleet in a directory, new or as it was left, of the programs in another.
    pub(super) fn open(directory: PathBuf, programs: PathBuf) -> Result<Self> {
        let file = directory.join("ports.json");
        let ports = match fs::read(&file) {
            Ok(bytes) => {
                let ports: Ports = serde_json::from_slice(&bytes)?;
                ensure!(
                    TcpListener::bind(("127.0.0.1", ports.http)).is_ok()
                        && UdpSocket::bind(("127.0.0.1", ports.link)).is_ok(),
                    "port {} or {} is in use: is another demo running? `--directory OTHER` starts one beside it",
                    ports.http,
                    ports.link
                );
                ports
            }
            Err(_) => {
                let ports = Ports { http: free_tcp_port()?, link: free_udp_port()? };
                fs::write(&file, serde_json::to_vec(&ports)?)?;
                ports
            }
        };
        fs::write(directory.join("controller.toml"), "# Settings of the demo's controller.\n")?;
        Ok(Self { directory, programs, ports })
    }

    /// Starts it, and gives the administrator's password when all agents are connected.
    pub(super) fn start(&self, hosts: u16, children: &mut Children) -> Result<Password> {
        let password = self.start_controller(children)?;
        self.log_in(&password)?;
        for index in 1..=hosts {
            self.start_agent(index, children)?;
        }
        self.wait_online(hosts, children)?;
        Ok(password)
    }

    fn play(&self, command: &DemoCommand, children: &mut Children) -> Result<ExitCode> {
        let password = self.start(command.hosts, children)?;
        self.sync_inventory(&workspace::root().join("xtask/demo"))?;

        step(&format!("fleetward run {RUN} --on all --yes"));
        let status = children.run("run", self.cli().args(["run", RUN, "--on", "all", "--yes"]))?;
        if command.once {
            return Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        self.print_welcome(&password);
        children.wait_for_interrupt()?;
        println!();
        Ok(ExitCode::SUCCESS)
    }

    /// Starts the controller, made first if there is none, and gives the administrator's password.
    fn start_controller(&self, children: &mut Children) -> Result<Password> {
        let file = self.directory.join("password");
        let data = self.data();
        let mut password = match fs::read_to_string(&file) {
            Ok(text) => Password { current: text.trim().to_owned(), one_time: None },
            Err(_) => Password { current: new_password()?, one_time: None },
        };
        if !data.join("instance.toml").exists() {
            step("fleetward-controller init");
            let mut init = self.controller();
            init.arg("init").arg("--data").arg(&data).args(["--name", "127.0.0.1"]);
            let said = process::succeed(&mut init, STEP)?;
            password.one_time = Some(one_time_password(&said)?);
            // Before it is in use: whoever stops us now finds it here.
            write_private(&file, &password.current)?;
        }
        step("fleetward-controller serve");
        children.start(CONTROLLER, self.controller().arg("serve"))?;
        children.until("the controller to answer", STEP, || self.is_healthy())?;
        Ok(password)
    }

    fn log_in(&self, password: &Password) -> Result<()> {
        step(&format!("fleetward login {}", self.url()));
        let mut login = self.cli();
        login.args(["login", &self.url(), "--user", USER, "--password-stdin"]);
        let lines = match &password.one_time {
            Some(one_time) => format!("{one_time}\n{}\n", password.current),
            None => format!("{}\n", password.current),
        };
        // A file, so that no pipe can fill up and no process list shows it.
        let mut input = tempfile::tempfile()?;
        input.write_all(lines.as_bytes())?;
        std::io::Seek::rewind(&mut input)?;
        let login = login.stdin(Stdio::from(input));
        process::show_success(login, STEP).context("log in (`rm -r .demo` starts afresh)")
    }

    fn start_agent(&self, index: u16, children: &mut Children) -> Result<()> {
        let name = format!("demo-{index}");
        let state = self.directory.join(&name);
        if !state.join("certificate.pem").exists() {
            step(&format!("enrolling {name}"));
            fs::create_dir_all(&state)?;
            fs::set_permissions(&state, fs::Permissions::from_mode(0o700))?;
            self.enrol(&name)?;
        }
        let policy = state.join("agent.toml");
        if !policy.exists() {
            // Without one nothing would run.
            fs::copy(workspace::root().join("packaging/agent/agent.toml"), policy)?;
        }
        children.start(&name, self.agent(&name).arg("run"))
    }

    fn enrol(&self, name: &str) -> Result<()> {
        let known = self.hosts()?.iter().any(|host| host["name"] == name);
        let mut host = self.cli();
        host.args(["--output", "json", "host"]);
        if known {
            host.args(["token", name]);
        } else {
            host.args(["add", name, "--type", "VM", "--provider", "This machine", "--tag", "demo"]);
        }
        let answer: serde_json::Value = serde_json::from_str(&process::succeed(&mut host, STEP)?)?;
        let token = find_text(&answer, "token").context("`host add` answered without a token")?;
        let mut enrol = self.agent(name);
        enrol.args(["enrol", "--controller", &format!("127.0.0.1:{}", self.ports.link), "--token", token]);
        process::succeed(&mut enrol, STEP).map(drop)
    }

    fn wait_online(&self, hosts: u16, children: &mut Children) -> Result<()> {
        step("waiting for the agents to connect");
        children.until("the agents to be online", STEP, || {
            let online = self.hosts()?.iter().filter(|host| host["status"] == "online").count();
            Ok((online >= usize::from(hosts)).then_some(()))
        })
    }

    /// Makes an inventory repository of these files, unless there is one, and brings the controller up to it.
    pub(super) fn sync_inventory(&self, files: &Path) -> Result<()> {
        let repository = self.directory.join("inventory");
        step(&format!("an inventory repository in {}", repository.display()));
        fill_repository(&repository, files)?;
        let url = format!("file://{}", repository.display());
        let mut set = self.cli();
        process::show_success(set.args(["repo", "set", &url, "--branch", "main"]), STEP)?;
        process::show_success(self.cli().args(["repo", "sync"]), STEP)?;
        process::show_success(self.cli().args(["script", "list"]), STEP)
    }

    fn hosts(&self) -> Result<Vec<serde_json::Value>> {
        let text = process::succeed(self.cli().args(["--output", "json", "host", "list"]), STEP)?;
        Ok(serde_json::from_str(&text)?)
    }

    fn is_healthy(&self) -> Result<Option<()>> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.ports.http))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer.starts_with(b"HTTP/1.1 200").then_some(()))
    }

    fn print_welcome(&self, password: &Password) {
        let programs = self.programs.strip_prefix(workspace::root()).unwrap_or(&self.programs);
        println!("\nThe fleet is up.\n");
        println!("  console    {}", self.url());
        println!("  user       {USER}");
        println!("  password   {}", password.current);
        println!("  API        {}/api/docs", self.url());
        println!("\nIn another terminal:\n");
        println!("  export XDG_CONFIG_HOME={}", self.config().display());
        println!("  {}/fleetward host list", programs.display());
        println!("  {}/fleetward run disk_usage --on all -- --limit=85", programs.display());
        println!("\nCtrl-C stops everything.");
    }

    fn controller(&self) -> Command {
        let mut command = Command::new(self.programs.join("fleetward-controller"));
        command.env("FLEETWARD_DATA", self.data());
        // Not the settings of a controller that is installed on this machine.
        command.env("FLEETWARD_CONFIG", self.directory.join("controller.toml"));
        command.env("FLEETWARD_HTTP_LISTEN", format!("127.0.0.1:{}", self.ports.http));
        command.env("FLEETWARD_HTTP_PLAIN_LOOPBACK", "true");
        command.env("FLEETWARD_INVENTORY_LOCAL_REMOTES", "true");
        command.env("FLEETWARD_LINK_LISTEN", format!("127.0.0.1:{}", self.ports.link));
        command
    }

    fn agent(&self, name: &str) -> Command {
        let state = self.directory.join(name);
        let mut command = Command::new(self.programs.join("fleetward-agent"));
        command.arg("--config").arg(state.join("agent.toml"));
        command.arg("--state").arg(&state);
        command.arg("--client-id-file").arg(state.join("client_id"));
        command
    }

    fn cli(&self) -> Command {
        let mut command = Command::new(self.programs.join("fleetward"));
        command.env("XDG_CONFIG_HOME", self.config()).env("FLEETWARD_URL", self.url());
        command
            .env_remove("FLEETWARD_TOKEN")
            .env_remove("FLEETWARD_FINGERPRINT")
            .env_remove("FLEETWARD_CA_CERT");
        command
    }

    /// Where the controller's API listens.
    pub(super) const fn http_port(&self) -> u16 {
        self.ports.http
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.http)
    }

    fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    fn config(&self) -> PathBuf {
        self.directory.join("config")
    }
}

/// The administrator's password.
pub(super) struct Password {
    /// The one in force.
    pub(super) current: String,
    /// The one that `init` printed; to be changed at the first login.
    one_time: Option<String>,
}

fn step(what: &str) {
    println!("\n==> {what}");
}

fn new_password() -> Result<String> {
    let mut bytes = [0_u8; 12];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn one_time_password(said: &str) -> Result<String> {
    let line = said.lines().find(|line| line.to_lowercase().contains("password"));
    line.and_then(|line| line.split_whitespace().last())
        .map(ToOwned::to_owned)
        .context("`fleetward-controller init` printed no password")
}

fn write_private(path: &Path, text: &str) -> Result<()> {
    let mut file = fs::File::options().create(true).truncate(true).write(true).mode(0o600).open(path)?;
    Ok(file.write_all(text.as_bytes())?)
}

/// The first text under that key, however deep.
fn find_text<'a>(value: &'a serde_json::Value, key: &str) -> Option<&'a str> {
    match value {
        serde_json::Value::Object(map) => map
            .get(key)
            .and_then(serde_json::Value::as_str)
            .or_else(|| map.values().find_map(|value| find_text(value, key))),
        serde_json::Value::Array(values) => values.iter().find_map(|value| find_text(value, key)),
        _ => None,
    }
}

/// The example inventory as a git repository. What a person changed in it stays.
fn fill_repository(repository: &Path, files: &Path) -> Result<()> {
    if repository.join(".git").exists() {
        return Ok(());
    }
    copy_tree(files, repository)?;
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        git.arg("-C").arg(repository).args(["-c", "user.name=Demo", "-c", "user.email=demo@example.com"]);
        // What a person has set up for git, such as signing or hooks, has no business here.
        git.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_SYSTEM", "/dev/null");
        process::succeed(git.args(arguments), STEP)
    };
    git(&["init", "--quiet", "--initial-branch=main"])?;
    git(&["add", "--all"])?;
    git(&["commit", "--quiet", "--message", "Add the example scripts"]).map(drop)
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

/// The usual port if it is free, else any that is.
fn free_tcp_port() -> Result<u16> {
    let socket = TcpListener::bind(("127.0.0.1", 7444)).or_else(|_| TcpListener::bind(("127.0.0.1", 0)))?;
    Ok(socket.local_addr()?.port())
}

fn free_udp_port() -> Result<u16> {
    let socket = UdpSocket::bind(("127.0.0.1", 7443)).or_else(|_| UdpSocket::bind(("127.0.0.1", 0)))?;
    Ok(socket.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_programs_say_is_understood() {
        let value = serde_json::json!({"host": {"name": "a"}, "enrolment": {"token": "fw1.x"}});
        assert_eq!(find_text(&value, "token"), Some("fw1.x"));
        assert_eq!(one_time_password("user: admin\nOne-time password: abc-def\n").unwrap(), "abc-def");
        assert!(one_time_password("nothing").is_err());
    }
}
