//! The environment variables of Fleetward's programs, and which of them was meant by one that is none.
//!
//! A program that looks for the variables it knows never notices one that is misspelt. So each program looks through
//! all that begin with [`PREFIX`]; what belongs to one of the others is no mistake.

/// What the name of each of them begins with.
pub const PREFIX: &str = "FLEETWARD_";

/// Every variable of every program, but for the tests' own.
pub const KNOWN: &[&str] = &[
    // The controller: where its settings are, and each of them.
    "FLEETWARD_CONFIG",
    "FLEETWARD_DATA",
    "FLEETWARD_NAME",
    "FLEETWARD_DATABASE",
    "FLEETWARD_LINK_LISTEN",
    "FLEETWARD_LINK_ADVERTISE",
    "FLEETWARD_LINK_CONTROLLERS",
    "FLEETWARD_HTTP_LISTEN",
    "FLEETWARD_HTTP_PLAIN_LOOPBACK",
    "FLEETWARD_HTTP_CERTIFICATE",
    "FLEETWARD_HTTP_KEY",
    "FLEETWARD_HTTP_METRICS_TOKEN_FILE",
    "FLEETWARD_ENROLMENT_TOKEN_LIFETIME",
    "FLEETWARD_ENROLMENT_ATTEMPTS_PER_MINUTE",
    "FLEETWARD_ENROLMENT_CERTIFICATE_LIFETIME",
    "FLEETWARD_RETENTION_OPERATIONS",
    "FLEETWARD_RETENTION_OUTPUT",
    "FLEETWARD_RETENTION_FREE_SPACE",
    "FLEETWARD_HTTP_LOGINS_PER_MINUTE",
    "FLEETWARD_RETENTION_AUDIT",
    "FLEETWARD_RETENTION_AUDIT_SIZE",
    "FLEETWARD_RETENTION_ON_HOSTS",
    "FLEETWARD_INVENTORY_LOCAL_REMOTES",
    "FLEETWARD_LOG_FORMAT",
    "FLEETWARD_LOG_FILTER",
    // The agent.
    "FLEETWARD_LOG",
    "FLEETWARD_NGINX_CONFIG",
    "FLEETWARD_REBOOT_REQUIRED",
    // The command line.
    "FLEETWARD_URL",
    "FLEETWARD_TOKEN",
    "FLEETWARD_CA_CERT",
    "FLEETWARD_FINGERPRINT",
    // What a script finds.
    "FLEETWARD_RUN_ID",
    "FLEETWARD_OPERATION_ID",
    "FLEETWARD_CLIENT_ID",
    "FLEETWARD_SCRIPT",
    // Development.
    "FLEETWARD_LAB",
    "FLEETWARD_LAB_DIR",
];

/// What the variables of the tests begin with.
const TESTS: &str = "FLEETWARD_TEST_";

/// A variable that looks like one of Fleetward's, and is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown {
    /// Its name, with nothing in it that a terminal would act on.
    name: String,
    /// The one that may have been meant.
    meant: Option<&'static str>,
}

impl std::fmt::Display for Unknown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the environment variable {} is none of Fleetward's and has no effect", self.name)?;
        match self.meant {
            Some(meant) => write!(f, "; did you mean {meant}?"),
            None => write!(f, "; correct its name or unset it"),
        }
    }
}

/// Those of `names` that look like variables of Fleetward's and are none, in order.
pub fn unknown<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<Unknown> {
    let mut found: Vec<Unknown> = names
        .into_iter()
        .filter(|name| name.starts_with(PREFIX) && !name.starts_with(TESTS) && !KNOWN.contains(name))
        .map(|name| Unknown { name: name.escape_debug().take(80).collect(), meant: nearest(name) })
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

/// The variable that was perhaps meant; what all of them begin with makes none like another.
fn nearest(name: &str) -> Option<&'static str> {
    let own = |known: &&'static str| known.strip_prefix(PREFIX);
    let meant = crate::suggest::nearest(name.strip_prefix(PREFIX)?, KNOWN.iter().filter_map(own))?;
    KNOWN.iter().find(|known| known.strip_prefix(PREFIX) == Some(meant)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_misspelt_is_told_with_what_was_meant() {
        let names =
            ["FLEETWARD_HTPP_LISTEN", "PATH", "FLEETWARD_URL", "FLEETWARD_TEST_ALL", "FLEETWARD_LOGG"];
        let told: Vec<String> = unknown(names).iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].contains("FLEETWARD_HTPP_LISTEN") && told[0].ends_with("FLEETWARD_HTTP_LISTEN?"));
        assert!(told[1].ends_with("did you mean FLEETWARD_LOG?"), "{told:?}");
    }

    #[test]
    fn nothing_is_suggested_for_what_is_like_none_and_nothing_harms_a_terminal() {
        let told = unknown(["FLEETWARD_\u{1b}[2J", "FLEETWARD_X", "FLEETWARD_SOMETHING_ELSE"]);
        let text: Vec<String> = told.iter().map(ToString::to_string).collect();
        assert!(text.iter().all(|text| text.contains("unset it") && !text.contains('\u{1b}')), "{text:?}");
    }

    #[test]
    fn every_variable_has_the_prefix_and_stands_here_once() {
        let mut names = KNOWN.to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), KNOWN.len());
        assert!(KNOWN.iter().all(|name| name.starts_with(PREFIX)));
        assert!(unknown(KNOWN.iter().copied()).is_empty());
    }
}
