//! Looking at a host itself: its sockets, its mounts, its logins, and how it is.

use std::io::Read as _;
use std::net::{TcpListener, UdpSocket};
use std::process::{Command, Stdio};
use std::time::Duration;

use fleetward_agent::query::Queries;
use fleetward_protocol::order::Authority;
use fleetward_protocol::run::Refusal;
use serde_json::{Value, json};

use crate::host::{Machine, boot};
use crate::query::of;
use crate::query_units::{ask, machine};
use crate::systemd::World;

#[tokio::test]
async fn sockets_that_listen_are_told_with_their_processes() {
    let (tcp, udp) = (TcpListener::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("[::1]:0").ok());
    let port = tcp.local_addr().unwrap().port();
    let connected = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    let machine = Machine::new();
    let queries = Queries::new(machine.start(boot(1)).runs);
    let items = ask(&queries, "sockets", &format!(r#"{{"port":{port}}}"#)).await.unwrap();
    let of_tcp: Vec<_> = items.values().filter(|item| item["protocol"] == "tcp").collect();
    assert_eq!(of_tcp.len(), 1, "what is connected does not listen: {items:?}");
    let socket = of_tcp[0];
    assert_eq!((&socket["address"], &socket["port"]), (&json!("127.0.0.1"), &json!(port)));
    assert_eq!((&socket["pid"], &socket["processes"]), (&json!(std::process::id()), &json!(1)));
    let name = std::fs::read_to_string("/proc/self/comm").unwrap();
    assert_eq!(socket["process"], name.trim_end());
    if nix::unistd::getuid().is_root() {
        assert_eq!(socket["user"], "root");
    }
    if let Some(udp) = &udp {
        let port = udp.local_addr().unwrap().port();
        let params = format!(r#"{{"protocol":"udp","port":{port}}}"#);
        let items = ask(&queries, "sockets", &params).await.unwrap();
        let keys: Vec<_> =
            items.keys().filter(|key| key.starts_with(&format!("udp [::1]:{port} "))).collect();
        assert_eq!(keys.len(), 1, "{items:?}");
        let params = format!(r#"{{"protocol":"tcp","port":{port}}}"#);
        let other = ask(&queries, "sockets", &params).await.unwrap();
        assert!(other.values().all(|item| item["protocol"] == "tcp"), "{other:?}");
    }
    drop(connected);
}

/// Two processes hold it, and the one that is named calls itself what it wants.
#[tokio::test]
async fn a_socket_is_told_with_the_first_of_its_processes_whatever_that_is_called() {
    let machine = Machine::new();
    let never = machine.path("never");
    nix::unistd::mkfifo(&never, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let (tcp, other) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let port = tcp.local_addr().unwrap().port();
    let hold = || {
        let held = std::os::fd::OwnedFd::from(tcp.try_clone().unwrap());
        // It has the socket twice, and waits for what nobody writes.
        let wait =
            "exec 3<&0 4<>\"$0\"; printf 'a\\033[2J\\nb' > /proc/$$/comm; echo ready; read -r line <&4";
        let mut shell = std::process::Command::new("/bin/sh")
            .arg("-c")
            .arg(wait)
            .arg(&never)
            .stdin(std::process::Stdio::from(held))
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(shell.stdout.take().unwrap()), &mut line)
            .unwrap();
        shell
    };
    let mut shells = [hold(), hold()];
    drop(tcp);
    let queries = Queries::new(machine.start(boot(1)).runs);
    let items = ask(&queries, "sockets", &format!(r#"{{"port":{port}}}"#)).await.unwrap();
    drop(other);
    let pids = shells.each_ref().map(std::process::Child::id);
    for shell in &mut shells {
        shell.kill().unwrap();
        shell.wait().unwrap();
    }
    let socket = items.values().next().expect("it listens");
    assert_eq!((items.len(), &socket["processes"]), (1, &json!(2)), "{items:?}");
    assert_eq!(socket["pid"], json!(pids.iter().min().unwrap()));
    assert_eq!(socket["process"], "a\u{fffd}[2J b");
}

#[tokio::test]
async fn mounts_are_told_with_how_full_they_are() {
    let machine = Machine::new();
    let queries = Queries::new(machine.start(boot(1)).runs);
    let items = ask(&queries, "mounts", "{}").await.unwrap();
    let root = &items["/"];
    let number = |name: &str| root[name].as_u64().unwrap();
    assert!(number("size") > 0 && number("used") <= number("size"), "{root}");
    assert!(number("percent") <= 100 && root.get("unresponsive").is_none(), "{root}");
    let stat = nix::sys::statvfs::statvfs("/").unwrap();
    assert_eq!(number("size"), stat.blocks() * stat.fragment_size());
    let shares = [number("used"), number("available")].map(|bytes| bytes * 100 / number("size").max(1));
    let full = (stat.blocks() - stat.blocks_free()) * 100 / stat.blocks();
    let free = stat.blocks_available() * 100 / stat.blocks();
    // Others write and remove meanwhile.
    assert!(shares[0].abs_diff(full) <= 2 && shares[1].abs_diff(free) <= 2, "{shares:?} {full} {free}");
    let views = |items: &std::collections::BTreeMap<String, Value>| {
        items.values().filter(|item| item["file_system"] == "proc").count()
    };
    assert_eq!(views(&items), 0);
    let all = ask(&queries, "mounts", r#"{"all":true}"#).await.unwrap();
    assert!(views(&all) > 0 && all.len() > items.len());
    assert!(items.keys().all(|mount| all.contains_key(mount)));
    let view = all.values().find(|item| item["file_system"] == "proc").unwrap();
    assert!(view.get("size").is_none() && view.get("unresponsive").is_none(), "{view}");
}

#[tokio::test]
async fn logins_are_told_as_far_as_the_owner_allows() {
    let sessions = vec![("4", "user", "root"), ("5", "manager", "root"), ("6", "user", "deploy")];
    let world = World { sessions, ..World::default() };
    let Some((machine, _bus)) = machine("listing logins", world) else { return };
    let queries = Queries::new(machine.start(boot(1)).runs);
    let items = ask(&queries, "logins", "{}").await.unwrap();
    let root = &items["user root"];
    assert_eq!((&root["uid"], root["part"].as_str()), (&json!(0), Some("user")));
    assert!(root["groups"].as_array().unwrap().contains(&json!("root")), "{root}");
    assert!(root["shell"].as_str().unwrap().starts_with('/'), "{root}");
    assert!(!items.contains_key("user nobody"), "it has no shell to log in with");
    let sessions: Vec<_> = items.keys().filter(|key| key.starts_with("session")).collect();
    assert_eq!(sessions, ["session 4 root", "session 6 deploy"]);
    let session = &items["session 6 deploy"];
    assert_eq!((&session["from"], &session["terminal"]), (&json!("192.0.2.10"), &json!("pts/0")));
    assert_eq!((&session["since"], &session["pid"]), (&json!(1_700_000_000_000_i64), &json!(4711)));
    assert!(session.get("password").is_none() && session.get("groups").is_none(), "{session}");

    let only = ask(&queries, "logins", r#"{"parts":["session"]}"#).await.unwrap();
    assert_eq!(only.keys().collect::<Vec<_>>(), ["session 4 root", "session 6 deploy"]);
    std::fs::write(machine.paths().config, "[policy.rules.logins]\nusers = ['dep*']\n").unwrap();
    let allowed = ask(&queries, "logins", "{}").await.unwrap();
    assert_eq!(allowed.keys().collect::<Vec<_>>(), ["session 6 deploy"]);
}

/// No password, nor anything made of one, leaves the host.
#[tokio::test]
async fn no_hash_of_a_password_is_told() {
    let machine = Machine::new();
    let queries = Queries::new(machine.start(boot(1)).runs);
    let items = ask(&queries, "logins", r#"{"parts":["user"]}"#).await.unwrap();
    // What of it the test itself may read, it compares.
    let shadow = std::fs::read_to_string("/etc/shadow").unwrap_or_default();
    for item in items.values() {
        let told = item.get("password").and_then(Value::as_str);
        assert!(told.is_none_or(|told| ["set", "locked", "empty"].contains(&told)), "{item}");
        let user = item["user"].as_str().unwrap();
        let line = shadow.lines().find_map(|line| line.strip_prefix(user)?.strip_prefix(':'));
        if let Some(field) = line.and_then(|line| line.split(':').next()) {
            let expected = match field {
                "" => "empty",
                "x" => "locked",
                field if field.starts_with(['!', '*']) => "locked",
                _ => "set",
            };
            assert_eq!(told, Some(expected), "{item}");
        }
    }
    let root = &items["user root"];
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
    let line = passwd.lines().find(|line| line.starts_with("root:")).unwrap();
    let fields: Vec<&str> = line.split(':').collect();
    assert_eq!((root["home"].as_str(), root["shell"].as_str()), (Some(fields[5]), Some(fields[6])));
}

#[tokio::test]
async fn the_status_of_a_host_is_one_item() {
    let mut world = World::default();
    world.units.insert("web.service".into(), ("loaded", "active".into(), 40));
    world.units.insert("broken.service".into(), ("loaded", "failed".into(), 0));
    let Some((machine, _bus)) = machine("showing how a host is", world) else { return };
    let queries = Queries::new(machine.start(boot(1)).runs);
    let items = ask(&queries, "host-status", "{}").await.unwrap();
    assert_eq!(items.keys().collect::<Vec<_>>(), ["host"]);
    let status = &items["host"];
    assert_eq!((&status["system"], &status["failed_units"]), (&json!("running"), &json!(1)));
    let number = |name: &str| status[name].as_u64().unwrap_or_else(|| panic!("{name} in {status}"));
    assert!(
        number("uptime_s") > 0 && number("cpus") > 0 && number("memory_total") > number("memory_available")
    );
    assert!(
        number("agent_memory") > 0 && number("agent_free") > 0 && number("agent_journal") > 0,
        "{status}"
    );
    assert_eq!(status["agent_version"], fleetward_agent::VERSION);
    assert!(status["load"].as_array().unwrap().len() == 3 && status["reboot_required"].is_boolean());
    assert!(status.get("agent_controller").is_none(), "it is connected to none");
    let read = |path: &str| std::fs::read_to_string(path).unwrap();
    assert_eq!(status["hostname"], read("/proc/sys/kernel/hostname").trim());
    assert_eq!(status["kernel"], read("/proc/sys/kernel/osrelease").trim());
    assert_eq!(status["reboot_required"], json!(false));
    let meminfo = read("/proc/meminfo");
    let swap = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_ascii_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
    };
    assert_eq!(number("swap_total"), swap("SwapTotal:"));
    assert!(number("swap_used") <= number("swap_total"), "{status}");
    // Whoever asks reads of the agent that answers, and not of the process that looks.
    let ours = read("/proc/self/status");
    let anonymous = ours.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    let anonymous = anonymous.split_ascii_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024;
    assert!(number("agent_memory").abs_diff(anonymous) < anonymous / 2, "{status} {anonymous}");
}

/// Packages write the file, and what stands in it is what they have written.
#[tokio::test]
async fn what_asks_for_a_reboot_is_named_as_far_as_there_is_room() {
    let machine = Machine::new();
    std::fs::write(&machine.reboot, "").unwrap();
    let packages: String =
        (0..20).map(|number| format!("linux-{number}\u{1b}[2J\nlinux-{number}\u{1b}[2J\n")).collect();
    std::fs::write(machine.reboot.with_extension("pkgs"), packages).unwrap();
    let queries = Queries::new(machine.start(boot(1)).runs);
    let status = &ask(&queries, "host-status", "{}").await.unwrap()["host"];
    assert_eq!(status["reboot_required"], json!(true));
    let expected: Vec<String> = (0..12).map(|number| format!("linux-{number}\u{fffd}[2J")).collect();
    assert_eq!(status["reboot_packages"], json!(expected), "each once, and so many");
}

/// The agent writes down to which controller it is connected; what another one wrote there is not this one's.
#[tokio::test]
async fn the_controller_is_that_of_this_agent() {
    let machine = Machine::new();
    let life = machine.start(boot(1));
    let lock = std::fs::File::create(machine.paths().state.join("lock")).unwrap();
    lock.lock().unwrap();
    let report = |pid: u32| {
        let report = fleetward_agent::status::Report {
            pid,
            controller: Some("ctl.example.com:7443".into()),
            since_ms: Some(1_700_000_000_000),
            ..Default::default()
        };
        std::fs::write(machine.paths().status(), serde_json::to_vec(&report).unwrap()).unwrap();
    };
    let queries = Queries::new(life.runs);
    for (pid, controller) in [(std::process::id(), Some("ctl.example.com:7443")), (1, None)] {
        report(pid);
        let status = &ask(&queries, "host-status", "{}").await.unwrap()["host"];
        assert_eq!(status.get("agent_controller").and_then(Value::as_str), controller, "{status}");
        let since = status.get("agent_connected_since").and_then(Value::as_i64);
        assert_eq!(since, controller.map(|_| 1_700_000_000_000), "{status}");
    }
}

/// Each of these tells of the whole host: an owner lets it be asked or not.
#[tokio::test]
async fn an_owner_who_allows_other_kinds_lets_a_host_be_asked_none_of_these() {
    let machine = Machine::new();
    std::fs::write(machine.paths().config, "[policy]\nkinds = ['units']\n").unwrap();
    let queries = Queries::new(machine.start(boot(1)).runs);
    for kind in ["sockets", "mounts", "logins", "host-status"] {
        let open = of(Authority::Query, kind, "{}", false, Duration::from_secs(60));
        let refused = queries.open(&open).await.err().unwrap_or_else(|| panic!("{kind} was answered"));
        assert!(
            matches!(&refused, Refusal::NotAllowed { rule } if rule.contains("policy.kinds")),
            "{refused:?}"
        );
    }
}

/// A host without systemd, and without apt, says the rest.
#[tokio::test]
async fn what_a_host_has_not_is_left_out() {
    let mut machine = Machine::new();
    machine.bus = Some(format!("unix:path={}", machine.directory.path().join("no-bus").display()));
    let queries = Queries::new(machine.start(boot(1)).runs);
    let status = &ask(&queries, "host-status", "{}").await.unwrap()["host"];
    assert!(status.get("system").is_none() && status.get("failed_units").is_none(), "{status}");
    assert!(status["uptime_s"].as_u64().is_some_and(|seconds| seconds > 0));
    let items = ask(&queries, "logins", r#"{"parts":["session"]}"#).await;
    assert!(items.is_ok(), "{items:?}");
}

#[tokio::test]
async fn processes_are_told_with_what_they_take() {
    let machine = Machine::new();
    let queries = Queries::new(machine.start(boot(1)).runs);
    // A name with an end in its middle, and with what a terminal would obey.
    let mut child = Command::new("sh")
        .args(["-c", r#"printf 'a) R 9\033[31m' > /proc/$$/comm; echo; while :; do :; done"#])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = [0];
    child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    let pid = child.id().to_string();
    let items = ask(&queries, "processes", r#"{"count":4096}"#).await.unwrap();
    let busy = &items[&pid];
    assert!(busy["cpu_share"].as_u64() > Some(0) && busy["cpu_ms"].as_u64() > Some(0), "{busy}");
    assert!(busy["name"].as_str().is_some_and(|name| name.starts_with("a) R 9") && !name.contains('\x1b')));
    assert_eq!((&busy["parent"], &busy["threads"]), (&json!(std::process::id()), &json!(1)));
    assert!(busy["memory"].as_u64() > Some(100 << 10) && busy["since"].as_i64() > Some(1_700_000_000_000));

    let own = &items[&std::process::id().to_string()];
    let (least, user) = (own["memory"].as_u64().unwrap(), own["user"].as_str().unwrap());
    let most = ask(&queries, "processes", r#"{"most":"memory","count":2}"#).await.unwrap();
    assert_eq!(most.len(), 2);
    assert!(most.values().all(|item| item["memory"].as_u64() >= Some(least.min(1 << 20))), "{most:?}");

    std::fs::write(machine.paths().config, "[policy.rules.processes]\nusers = ['nobody']\n").unwrap();
    let allowed = ask(&queries, "processes", r#"{"count":4096}"#).await.unwrap();
    assert!(user == "nobody" || !allowed.contains_key(&pid), "{allowed:?}");
    let open = of(
        Authority::Query,
        "processes",
        &json!({ "user": user }).to_string(),
        false,
        Duration::from_secs(60),
    );
    assert!(user == "nobody" || matches!(queries.open(&open).await, Err(Refusal::NotAllowed { .. })));
    child.kill().unwrap();
    child.wait().unwrap();
}
