//! The scripts of a chaos run, and what each of them must have written when it ended by itself.
//!
//! Each script records its start on its host, durably, before anything else, and at its end how many bytes it wrote.
//! What it writes follows from its run's id alone, so that the audit knows every byte at every place.

use std::fmt::Write as _;

/// Where scripts leave their records on a host.
pub const RECORDS: &str = "/var/lib/chaos";
/// The variable that tells [`Script::Silent`] for how many seconds.
pub const SILENCE: &str = "CHAOS_SILENCE";

/// One of the scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Script {
    /// Little output on both streams.
    Small,
    /// 10 MiB.
    Big,
    /// A line, a long silence, a line.
    Silent,
    /// A line now and then.
    Drip,
    /// Output by a child with a session of its own and by one whose parent died.
    Fork,
    /// Ends with exit code 3.
    Fails,
    /// Ends by SIGKILL.
    Killed,
    /// Both streams, line by line in turn.
    Mixed,
    /// Never ends; its time limit does.
    Endless,
    /// Ends at once, and leaves a process that writes on and on.
    Chatter,
    /// Ends at once, and leaves a process that is silent longer than it is waited for, and then writes.
    Daemon,
}

/// How a script ends when nobody disturbs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With this exit code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// At its time limit.
    Timeout,
}

/// What a script writes and how it ends when nobody disturbs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// Every byte of standard output.
    pub stdout: Vec<u8>,
    /// Every byte of standard error.
    pub stderr: Vec<u8>,
    /// What a process that it leaves may write to standard output after that. How much of it is kept is left to chance.
    pub more: Vec<u8>,
    /// How it ends.
    pub end: End,
}

impl Script {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Small,
        Self::Big,
        Self::Silent,
        Self::Drip,
        Self::Fork,
        Self::Fails,
        Self::Killed,
        Self::Mixed,
        Self::Endless,
        Self::Chatter,
        Self::Daemon,
    ];

    /// Its name in the inventory.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Big => "big",
            Self::Silent => "silent",
            Self::Drip => "drip",
            Self::Fork => "fork",
            Self::Fails => "fails",
            Self::Killed => "killed",
            Self::Mixed => "mixed",
            Self::Endless => "endless",
            Self::Chatter => "chatter",
            Self::Daemon => "daemon",
        }
    }

    /// The script of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|script| script.name() == name)
    }

    /// The time limit that operators give it, for the command line.
    pub const fn timeout(self) -> &'static str {
        match self {
            Self::Endless => "8s",
            Self::Chatter => "10s",
            _ => "30m",
        }
    }

    /// The whole file.
    pub fn text(self) -> String {
        let lengths = {
            let expected = self.expected(SAMPLE);
            format!("{} {}", expected.stdout.len(), expected.stderr.len())
        };
        // An option of `set` for each way to go on after a command that somebody else ended.
        format!(
            "#!/bin/bash\nset -euo pipefail\nrecord={RECORDS}/$FLEETWARD_RUN_ID\n\
             echo start >> \"$record.starts\"\nsync \"$record.starts\"\n\
             wrote() {{ echo '{lengths}' > \"$record.wrote\"; }}\n{}",
            self.body()
        )
    }

    fn body(self) -> &'static str {
        match self {
            Self::Small => {
                "echo \"out $FLEETWARD_RUN_ID\"\necho \"err $FLEETWARD_RUN_ID\" >&2\nseq 1 100\nwrote\n"
            }
            Self::Big => "seq 1 1449608\nwrote\n",
            Self::Silent => {
                "echo \"before $FLEETWARD_RUN_ID\"\nsleep \"$CHAOS_SILENCE\"\n\
                 echo \"after $FLEETWARD_RUN_ID\"\nwrote\n"
            }
            Self::Drip => {
                "for line in $(seq 1 40); do\n    echo \"drip $line $FLEETWARD_RUN_ID\"\n    sleep 0.25\ndone\nwrote\n"
            }
            Self::Fork => {
                "gate=$record.gate\nmkfifo \"$gate\"\n\
                 setsid bash -euc 'for line in {1..200}; do echo \"session $line\"; [ $line != 100 ] || sleep 2; done' &\n\
                 session=$!\n\
                 ( ( for line in {1..200}; do echo \"orphan $line\" >&2; [ $line != 100 ] || sleep 2; done; echo done > \"$gate\" ) & )\n\
                 wait \"$session\"\nread -r _ < \"$gate\"\nrm \"$gate\"\necho \"after $FLEETWARD_RUN_ID\"\nwrote\n"
            }
            Self::Fails => {
                "echo \"about to fail $FLEETWARD_RUN_ID\"\necho 'no such thing' >&2\nwrote\nexit 3\n"
            }
            Self::Killed => "echo \"about to die $FLEETWARD_RUN_ID\"\nwrote\nkill -KILL $$\n",
            Self::Mixed => {
                "for line in {1..500}; do\n    echo \"out $line\"\n    echo \"err $line\" >&2\ndone\nwrote\n"
            }
            Self::Endless => "echo \"endless\"\nwrote\nsetsid sleep 3600 &\nsleep 3600\n",
            Self::Chatter => {
                "echo \"started $FLEETWARD_RUN_ID\"\nwrote\n\
                 ( for line in {1..120}; do sleep 1; echo \"tick $line\"; done ) &\n"
            }
            // Without a redirection: it dies of its first line if nobody reads it.
            Self::Daemon => {
                "echo \"started $FLEETWARD_RUN_ID\"\nwrote\n\
                 nohup bash -euc \"sleep 12; echo alive; echo alive >&2; echo alive > $record.lived\" &\n"
            }
        }
    }

    /// What it writes as this run.
    pub fn expected(self, run: &str) -> Expected {
        let lines = |count: u32, line: &dyn Fn(u32) -> String| -> String {
            (1..=count).map(|number| line(number) + "\n").collect()
        };
        let none = String::new;
        let (stdout, stderr, end) = match self {
            Self::Small => (
                format!("out {run}\n{}", lines(100, &|line| line.to_string())),
                format!("err {run}\n"),
                End::Code(0),
            ),
            Self::Big => {
                let mut text = String::with_capacity(10 << 20);
                for number in 1..=1_449_608 {
                    // Writing to a string cannot fail.
                    let _ = writeln!(text, "{number}");
                }
                (text, none(), End::Code(0))
            }
            Self::Silent => (format!("before {run}\nafter {run}\n"), none(), End::Code(0)),
            Self::Drip => (lines(40, &|line| format!("drip {line} {run}")), none(), End::Code(0)),
            Self::Fork => (
                format!("{}after {run}\n", lines(200, &|line| format!("session {line}"))),
                lines(200, &|line| format!("orphan {line}")),
                End::Code(0),
            ),
            Self::Fails => (format!("about to fail {run}\n"), "no such thing\n".to_owned(), End::Code(3)),
            Self::Killed => (format!("about to die {run}\n"), none(), End::Signal(9)),
            Self::Mixed => (
                lines(500, &|line| format!("out {line}")),
                lines(500, &|line| format!("err {line}")),
                End::Code(0),
            ),
            Self::Endless => ("endless\n".to_owned(), none(), End::Timeout),
            Self::Chatter | Self::Daemon => (format!("started {run}\n"), none(), End::Code(0)),
        };
        let more = match self {
            Self::Chatter => lines(120, &|line| format!("tick {line}")),
            _ => none(),
        };
        Expected { stdout: stdout.into_bytes(), stderr: stderr.into_bytes(), more: more.into_bytes(), end }
    }
}

/// Every run's id has this length, so that a script's output has one length.
const SAMPLE: &str = "00000000-0000-0000-0000-000000000000";

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;
    use std::time::Duration;

    #[test]
    fn scripts_write_what_is_expected_of_them() {
        let records = tempfile::tempdir().unwrap();
        // What they leave would outlive the test.
        let left = [Script::Endless, Script::Chatter, Script::Daemon];
        for script in Script::ALL.into_iter().filter(|script| !left.contains(script)) {
            let text = script.text().replace(RECORDS, &records.path().display().to_string());
            let mut command = Command::new("bash");
            command.args(["-c", &text]).env("FLEETWARD_RUN_ID", SAMPLE).env(SILENCE, "0");
            let finished = crate::process::run(&mut command, Duration::from_secs(60)).unwrap();
            let expected = script.expected(SAMPLE);
            assert!(finished.stdout == expected.stdout, "{script:?}: {}", finished.text());
            assert!(finished.stderr == expected.stderr, "{script:?}: {}", finished.error_text());
            let end = match finished.status.code() {
                Some(code) => End::Code(code),
                None => End::Signal(std::os::unix::process::ExitStatusExt::signal(&finished.status).unwrap()),
            };
            assert_eq!(end, expected.end, "{script:?}");
            let read = |what: &str| {
                std::fs::read_to_string(records.path().join(format!("{SAMPLE}.{what}"))).unwrap()
            };
            assert_eq!(read("starts"), "start\n", "{script:?}");
            assert_eq!(
                read("wrote"),
                format!("{} {}\n", expected.stdout.len(), expected.stderr.len()),
                "{script:?}"
            );
            std::fs::remove_file(records.path().join(format!("{SAMPLE}.starts"))).unwrap();
        }
        assert_eq!(Script::Big.expected(SAMPLE).stdout.len(), 10 << 20);
    }
}
