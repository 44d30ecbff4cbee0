//! The figures as a page.

use std::fmt::Write as _;

use anyhow::Result;

use super::output_of;

/// What a figure should be.
#[derive(Debug, Clone, Copy)]
pub(super) enum Goal {
    /// Told for comparison.
    None,
    /// This much or less.
    AtMost(f64),
    /// Less than this.
    Below(f64),
    /// This much or more.
    AtLeast(f64),
}

/// The page that grows.
#[derive(Debug)]
pub(super) struct Report {
    text: String,
    met: bool,
}

impl Report {
    pub(super) fn new(hosts: usize) -> Result<Self> {
        let cpu = std::fs::read_to_string("/proc/cpuinfo")?;
        let model = cpu
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1))
            .unwrap_or("unknown");
        let memory = std::fs::read_to_string("/proc/meminfo")?;
        let total = super::kib(&memory, "MemTotal")? / 1024.0 / 1024.0;
        let mut text = String::from(
            "# Benchmarks\n\nWritten by `cargo xtask bench`: release packages on real Debian 12 hosts under systemd, all on one \
             machine in a network namespace,\nevery peer on the same hosts in the same run. The operator's program, the \
             controller and all hosts share the machine's processors.\n\n",
        );
        writeln!(text, "| machine | |\n|---|---|")?;
        writeln!(text, "| processors | {} × {model} |", output_of("nproc", &[]))?;
        writeln!(text, "| memory | {total:.0} GiB |")?;
        writeln!(text, "| kernel | {} |", output_of("uname", &["-sr"]))?;
        writeln!(text, "| hosts | {hosts}, and one for the controller |")?;
        writeln!(text, "| date | {} |", output_of("date", &["-u", "+%Y-%m-%d"]))?;
        let ansible = output_of("ansible", &["--version"]);
        writeln!(text, "| ansible | {} |", ansible.lines().next().unwrap_or("none"))?;
        writeln!(text, "| commit | {} |", output_of("git", &["rev-parse", "--short", "HEAD"]))?;
        Ok(Self { text, met: true })
    }

    pub(super) fn section(&mut self, title: &str) {
        self.text.push_str(&format!("\n## {title}\n\n| what | measured | goal | |\n|---|---|---|---|\n"));
    }

    /// What the table's reader has to know.
    pub(super) fn note(&mut self, text: &str) {
        self.text.push_str(&format!("\n{text}\n"));
    }

    pub(super) fn row(&mut self, what: &str, value: f64, unit: &str, goal: Goal) {
        let (wanted, met) = match goal {
            Goal::None => (String::new(), None),
            Goal::AtMost(limit) => (format!("≤ {limit} {unit}"), Some(value <= limit)),
            Goal::Below(limit) => (format!("< {limit} {unit}"), Some(value < limit)),
            Goal::AtLeast(limit) => (format!("≥ {limit} {unit}"), Some(value >= limit)),
        };
        let verdict = match met {
            Some(true) => "met",
            Some(false) => "**missed**",
            None => "",
        };
        self.met &= met != Some(false);
        let digits = if value >= 100.0 {
            0
        } else if value >= 10.0 {
            1
        } else {
            3
        };
        self.text.push_str(&format!("| {what} | {value:.digits$} {unit} | {wanted} | {verdict} |\n"));
    }

    pub(super) fn text(&self) -> String {
        self.text.clone()
    }

    pub(super) const fn all_met(&self) -> bool {
        self.met
    }
}
