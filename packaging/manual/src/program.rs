//! The three programs, and what their definitions do not say.

use clap::Command;

/// A program that has manual pages.
pub(crate) struct Program {
    /// Its command line.
    pub(crate) definition: Command,
    /// The section of the manual (man-pages(7)): 1 for everybody's commands, 8 for those of a machine's owner.
    pub(crate) section: &'static str,
    /// The files that it reads and writes, with what they hold.
    pub(crate) files: &'static [(&'static str, &'static str)],
    /// Pages to go on with, as `name(section)`.
    pub(crate) see_also: &'static [&'static str],
}

/// The three of them.
pub(crate) fn all() -> [Program; 3] {
    [
        Program {
            definition: fleetward_cli::definition(),
            section: "1",
            files: &[(
                "$XDG_CONFIG_HOME/fleetward/contexts.json",
                "The logins that are kept; in ~/.config/fleetward where XDG_CONFIG_HOME is not set.",
            )],
            see_also: &["fleetward-controller(8)", "fleetward-agent(8)"],
        },
        Program {
            definition: fleetward_agent::cli::definition(),
            section: "8",
            files: &[
                (
                    "/etc/fleetward/agent.toml",
                    "What this host's owner allows, and where its controllers are. It is read before each run; each \
                     setting stands in it with its default. It has to be writable by root alone.",
                ),
                ("/etc/fleetward/client_id", "The host's client ID, written when the host is enrolled."),
                (
                    "/var/lib/fleetward-agent/",
                    "The host's key and certificate, the journal, and output that is not delivered yet.",
                ),
            ],
            see_also: &["fleetward(1)", "fleetward-controller(8)", "systemctl(1)", "journalctl(1)"],
        },
        Program {
            definition: fleetward_controller::cli::definition(),
            section: "8",
            files: &[
                (
                    "/etc/fleetward/controller.toml",
                    "The settings; each stands in it with its default. It may hold a database password, so root and the \
                     controller's own account alone may read it.",
                ),
                (
                    "/var/lib/fleetward/",
                    "The data directory: authority, keys, database and output. Include it in backups.",
                ),
            ],
            see_also: &["fleetward(1)", "fleetward-agent(8)", "systemctl(1)", "journalctl(1)"],
        },
    ]
}
