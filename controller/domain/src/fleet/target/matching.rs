//! The tree of an expression, and what it looks at in a host.

use std::collections::HashSet;

use fleetward_protocol::facts::{Facts, Upkeep};
use fleetward_protocol::name::GroupName;

use super::lexer::Comparison;
use super::pattern::Pattern;
use super::{ANSWERS, ENROLMENTS, HostView, STATUSES};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    All,
    /// Exactly this host, which must exist.
    Name(String),
    /// What this group's expression means. None is left when an expression is ready to select.
    Group(GroupName),
    Field(Field, Pattern),
    Compare(Number, Comparison, u64),
    Not(Box<Self>),
    And(Vec<Self>),
    Or(Vec<Self>),
}

impl Node {
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

    /// The groups in the expression, each as often as it is written.
    pub(super) fn groups(&self) -> Vec<&GroupName> {
        match self {
            Self::Group(name) => vec![name],
            Self::Not(node) => node.groups(),
            Self::And(nodes) | Self::Or(nodes) => nodes.iter().flat_map(Self::groups).collect(),
            Self::All | Self::Name(_) | Self::Field(..) | Self::Compare(..) => Vec::new(),
        }
    }

    /// The same with `meaning` in the place of each group that it knows.
    pub(super) fn with_groups(self, meaning: &impl Fn(&GroupName) -> Option<Self>) -> Self {
        let each = |nodes: Vec<Self>| nodes.into_iter().map(|node| node.with_groups(meaning)).collect();
        match self {
            Self::Group(name) => meaning(&name).unwrap_or(Self::Group(name)),
            Self::Not(node) => Self::Not(Box::new(node.with_groups(meaning))),
            Self::And(nodes) => Self::And(each(nodes)),
            Self::Or(nodes) => Self::Or(each(nodes)),
            node @ (Self::All | Self::Name(_) | Self::Field(..) | Self::Compare(..)) => node,
        }
    }

    fn collect_names<'a>(&'a self, names: &mut Vec<&'a str>) {
        match self {
            Self::Name(name) => names.push(name),
            Self::Not(node) => node.collect_names(names),
            Self::And(nodes) | Self::Or(nodes) => nodes.iter().for_each(|node| node.collect_names(names)),
            Self::All | Self::Group(_) | Self::Field(..) | Self::Compare(..) => {}
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
    RebootRequired,
    TimeSynchronised,
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
            "reboot_required" => Self::RebootRequired,
            "time_synchronised" | "time_synchronized" => Self::TimeSynchronised,
            _ => return None,
        })
    }

    /// Whether the host tells it of itself.
    pub(super) const fn is_fact(self) -> bool {
        match self {
            Self::Name | Self::Tag | Self::Kind | Self::Provider | Self::Status | Self::Enrolment => false,
            Self::Os
            | Self::OsVersion
            | Self::OsName
            | Self::Kernel
            | Self::Arch
            | Self::Virtualisation
            | Self::Hostname
            | Self::Address
            | Self::RebootRequired
            | Self::TimeSynchronised => true,
        }
    }

    /// Whether it is so or is not.
    pub(super) fn is_answer(self) -> bool {
        self.values() == Some(ANSWERS)
    }

    /// Every value there is, where the set is closed: another can only be a mistake, and under `!` it would
    /// select everything.
    pub(super) const fn values(self) -> Option<&'static [&'static str]> {
        match self {
            Self::Status => Some(STATUSES),
            Self::Enrolment => Some(ENROLMENTS),
            Self::RebootRequired | Self::TimeSynchronised => Some(ANSWERS),
            _ => None,
        }
    }

    /// What the host has there, where it has one value and not many.
    pub(super) fn value<'a>(self, host: &HostView<'a>) -> Option<&'a str> {
        let fact = |read: fn(&Facts) -> &str| host.facts.map(read);
        let answer = |is: bool| if is { "yes" } else { "no" };
        match self {
            Self::Tag | Self::Address => None,
            Self::Name => Some(host.name),
            Self::Kind => Some(host.kind),
            Self::Provider => Some(host.provider),
            Self::Status => Some(host.status),
            Self::Enrolment => Some(host.enrolment),
            Self::Os => fact(|facts| &facts.os),
            Self::OsVersion => fact(|facts| &facts.os_version),
            Self::OsName => fact(|facts| &facts.os_name),
            Self::Kernel => fact(|facts| &facts.kernel),
            Self::Arch => fact(|facts| &facts.arch),
            Self::Virtualisation => fact(|facts| &facts.virtualisation),
            Self::Hostname => fact(|facts| &facts.hostname),
            Self::RebootRequired => host.facts.map(|facts| answer(facts.reboot_required)),
            Self::TimeSynchronised => host.upkeep.and_then(|upkeep| upkeep.time_synchronised).map(answer),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Number {
    Cpus,
    Memory,
    Swap,
    Uptime,
    Updates,
    SecurityUpdates,
}

impl Number {
    /// The number of a key in [`super::NUMBER_KEYS`].
    pub(super) fn named(key: &str) -> Option<Self> {
        Some(match key {
            "cpus" => Self::Cpus,
            "memory" => Self::Memory,
            "swap" => Self::Swap,
            "uptime" => Self::Uptime,
            "updates" => Self::Updates,
            "security_updates" => Self::SecurityUpdates,
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

    /// What the host has there, if that is known.
    pub(super) fn of(self, host: &HostView<'_>) -> Option<u64> {
        let fact = |read: fn(&Facts) -> u64| host.facts.map(read);
        let upkeep = |read: fn(&Upkeep) -> Option<u32>| host.upkeep.and_then(read).map(u64::from);
        match self {
            Self::Cpus => fact(|facts| facts.cpus.into()),
            Self::Memory => fact(|facts| facts.memory_total),
            Self::Swap => fact(|facts| facts.swap_total),
            Self::Uptime => fact(|facts| facts.uptime_s),
            Self::Updates => upkeep(|upkeep| upkeep.updates),
            Self::SecurityUpdates => upkeep(|upkeep| upkeep.security_updates),
        }
    }
}

impl Comparison {
    pub(super) const fn holds(self, value: u64, wanted: u64) -> bool {
        match self {
            Self::AtLeast => value >= wanted,
            Self::AtMost => value <= wanted,
            Self::Above => value > wanted,
            Self::Below => value < wanted,
            Self::Equal => value == wanted,
        }
    }
}
