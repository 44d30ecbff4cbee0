//! The tree of an expression, and how it is asked about a host.

use std::collections::HashSet;

use fleetward_protocol::facts::Facts;

use super::lexer::Comparison;
use super::pattern::Pattern;
use super::{ENROLMENTS, HostView, STATUSES};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    All,
    /// Exactly this host, which must exist.
    Name(String),
    Field(Field, Pattern),
    Compare(Number, Comparison, u64),
    Not(Box<Self>),
    And(Vec<Self>),
    Or(Vec<Self>),
}

impl Node {
    pub(super) fn matches(&self, host: &HostView<'_>) -> bool {
        match self {
            Self::All => true,
            Self::Name(name) => host.name == name,
            Self::Field(field, pattern) => field.matches(pattern, host),
            Self::Compare(number, comparison, wanted) => {
                host.facts.is_some_and(|facts| comparison.holds(number.of(facts), *wanted))
            }
            Self::Not(node) => !node.matches(host),
            Self::And(nodes) => nodes.iter().all(|node| node.matches(host)),
            Self::Or(nodes) => nodes.iter().any(|node| node.matches(host)),
        }
    }

    /// The names in the expression that no host has, each once, in the order they were written.
    pub(super) fn unknown_names(&self, hosts: &[HostView<'_>]) -> Vec<&str> {
        let mut names = Vec::new();
        self.collect_names(&mut names);
        if names.is_empty() {
            return names;
        }
        let mut known: HashSet<&str> = hosts.iter().map(|host| host.name).collect();
        // A name that was reported once counts as known from then on.
        names.retain(|name| known.insert(name));
        names
    }

    fn collect_names<'a>(&'a self, names: &mut Vec<&'a str>) {
        match self {
            Self::Name(name) => names.push(name),
            Self::Not(node) => node.collect_names(names),
            Self::And(nodes) | Self::Or(nodes) => nodes.iter().for_each(|node| node.collect_names(names)),
            Self::All | Self::Field(..) | Self::Compare(..) => {}
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Name,
    Tag,
    Kind,
    Provider,
    Status,
    Enrolment,
    Os,
    OsVersion,
    OsName,
    Kernel,
    Arch,
    Virtualisation,
    Hostname,
    Address,
}

impl Field {
    /// The field of a key in [`super::KEYS`].
    pub(super) fn named(key: &str) -> Option<Self> {
        Some(match key {
            "name" => Self::Name,
            "tag" => Self::Tag,
            "type" => Self::Kind,
            "provider" => Self::Provider,
            "status" => Self::Status,
            "enrolment" | "enrollment" => Self::Enrolment,
            "os" => Self::Os,
            "os_version" => Self::OsVersion,
            "os_name" => Self::OsName,
            "kernel" => Self::Kernel,
            "arch" => Self::Arch,
            "virtualisation" | "virtualization" => Self::Virtualisation,
            "hostname" => Self::Hostname,
            "address" => Self::Address,
            _ => return None,
        })
    }

    /// Every value there is, where the set is closed: another can only be a mistake, and under `!` it would
    /// select everything.
    pub(super) const fn values(self) -> Option<&'static [&'static str]> {
        match self {
            Self::Status => Some(STATUSES),
            Self::Enrolment => Some(ENROLMENTS),
            _ => None,
        }
    }

    fn matches(self, pattern: &Pattern, host: &HostView<'_>) -> bool {
        let fact =
            |read: fn(&Facts) -> &str| host.facts.is_some_and(|facts| pattern.matches_folded(read(facts)));
        match self {
            Self::Name => pattern.matches(host.name),
            Self::Tag => host.tags.iter().any(|tag| pattern.matches(tag)),
            Self::Kind => pattern.matches_folded(host.kind),
            Self::Provider => pattern.matches_folded(host.provider),
            Self::Status => pattern.matches_folded(host.status),
            Self::Enrolment => pattern.matches_folded(host.enrolment),
            Self::Os => fact(|facts| &facts.os),
            Self::OsVersion => fact(|facts| &facts.os_version),
            Self::OsName => fact(|facts| &facts.os_name),
            Self::Kernel => fact(|facts| &facts.kernel),
            Self::Arch => fact(|facts| &facts.arch),
            Self::Virtualisation => fact(|facts| &facts.virtualisation),
            Self::Hostname => fact(|facts| &facts.hostname),
            Self::Address => host
                .facts
                .is_some_and(|facts| facts.addresses.iter().any(|address| pattern.matches_folded(address))),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Number {
    Cpus,
    Memory,
    Swap,
    Uptime,
}

impl Number {
    /// The number of a key in [`super::NUMBER_KEYS`].
    pub(super) fn named(key: &str) -> Option<Self> {
        Some(match key {
            "cpus" => Self::Cpus,
            "memory" => Self::Memory,
            "swap" => Self::Swap,
            "uptime" => Self::Uptime,
            _ => return None,
        })
    }

    pub(super) const fn is_size(self) -> bool {
        matches!(self, Self::Memory | Self::Swap)
    }

    pub(super) fn parse(self, text: &str) -> Option<u64> {
        let (digits, shift) = match text.char_indices().next_back()? {
            (at, suffix) if self.is_size() && suffix.is_ascii_alphabetic() => {
                let shift = match suffix.to_ascii_uppercase() {
                    'K' => 10,
                    'M' => 20,
                    'G' => 30,
                    'T' => 40,
                    _ => return None,
                };
                (text.get(..at)?, shift)
            }
            _ => (text, 0),
        };
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        digits.parse::<u64>().ok()?.checked_mul(1 << shift)
    }

    const fn of(self, facts: &Facts) -> u64 {
        match self {
            Self::Cpus => facts.cpus as u64,
            Self::Memory => facts.memory_total,
            Self::Swap => facts.swap_total,
            Self::Uptime => facts.uptime_s,
        }
    }
}

impl Comparison {
    const fn holds(self, value: u64, wanted: u64) -> bool {
        match self {
            Self::AtLeast => value >= wanted,
            Self::AtMost => value <= wanted,
            Self::Above => value > wanted,
            Self::Below => value < wanted,
            Self::Equal => value == wanted,
        }
    }
}
