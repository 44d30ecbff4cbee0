//! What code may be written where.

use super::{SourceFile, assert_none, files};

/// Lines of shipped Rust outside `allowed` that hold one of `needles`.
fn strays(needles: &[&str], within: &str, allowed: &[&str]) -> Vec<String> {
    let sources = files(&[".rs"]);
    let subject = |file: &&SourceFile| {
        file.path.starts_with(within)
            && !file.is_test()
            && !allowed.iter().any(|prefix| file.path.starts_with(prefix))
    };
    let mut found = Vec::new();
    for file in sources.iter().filter(subject) {
        for (number, line) in file.shipped_lines() {
            let code = line.split("//").next().unwrap_or_default();
            if needles.iter().any(|needle| code.contains(needle)) {
                found.push(format!("{}:{number}: {}", file.path, line.trim()));
            }
        }
    }
    found
}

#[test]
fn the_bus_lives_in_the_agents_platform() {
    assert_none(
        "zbus outside agent/src/platform",
        &strays(&["zbus::", "zbus;"], "", &["agent/src/platform"]),
    );
}

#[test]
fn the_agent_touches_its_host_in_three_places() {
    let allowed = ["agent/src/platform", "agent/src/run", "agent/src/journal"];
    let processes = ["process::Command", "Command::new(", "fork(", "execve("];
    assert_none(
        "the agent starts processes only in platform, run and journal",
        &strays(&processes, "agent/src", &allowed),
    );
    let writes = [
        "fs::write",
        "File::create",
        "OpenOptions",
        "fs::remove",
        "fs::rename",
        "fs::create_dir",
        "fs::set_permissions",
    ];
    assert_none(
        "the agent writes files only in platform, run and journal",
        &strays(&writes, "agent/src", &allowed),
    );
}

#[test]
fn the_clock_is_read_at_the_rim() {
    let clocks = ["SystemTime::now", "Instant::now", "Timestamp::now", "Zoned::now", "Utc::now"];
    let pure = ["protocol/", "controller/domain/", "controller/api/", "controller/store/src"];
    for within in pure {
        assert_none("time is a parameter here", &strays(&clocks, within, &[]));
    }
}

#[test]
fn chance_stays_out_of_decisions() {
    let chance = ["rand::", "Uuid::new_v4", "Uuid::now_v7", "getrandom"];
    for within in ["protocol/", "controller/domain/"] {
        assert_none("randomness is a parameter here", &strays(&chance, within, &[]));
    }
}

#[test]
fn the_environment_is_read_in_config() {
    let reads = ["env::var", "env::vars"];
    let allowed =
        ["controller/src/config", "agent/src/config", "cli/src/config", "xtask/", "controller/http/build.rs"];
    assert_none("the environment is read outside a config module", &strays(&reads, "", &allowed));
}

#[test]
fn exceptions_are_expected_not_allowed() {
    let found = strays(&["#[allow(", "#![allow("], "", &[]);
    assert_none("`#[expect(…, reason = …)]` tells when it is no longer needed, `#[allow]` does not", &found);
}

#[test]
fn nothing_is_left_unfinished() {
    let found = strays(&["todo!(", "unimplemented!(", "FIXME", "XXX"], "", &[]);
    assert_none("unfinished by its own words", &found);
}

#[test]
fn no_test_is_ignored_or_sleeps() {
    let mut found = Vec::new();
    for file in files(&[".rs"]).iter().filter(|file| file.path != "tests/it/laws/source.rs") {
        for (index, line) in file.text.lines().enumerate() {
            let sleeps = file.is_test() && line.contains("sleep(") && !line.trim_start().starts_with("//");
            if line.contains("#[ignore") || sleeps {
                found.push(format!("{}:{}: {}", file.path, index + 1, line.trim()));
            }
        }
    }
    assert_none("a test that is ignored, or that sleeps instead of waiting for an event", &found);
}
