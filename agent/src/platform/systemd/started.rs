//! What kept systemd from starting a unit that it was asked to start.

use fleetward_protocol::action::unit::UnitName;
use fleetward_protocol::text::{Line, Text};

use super::{Systemd, SystemdError, UNIT, property};

/// What is asked before a start (systemd.unit(5)): whether it was met, when that was looked at, and each part of it.
const ASKED: [[&str; 3]; 2] = [
    ["ConditionResult", "ConditionTimestampMonotonic", "Conditions"],
    ["AssertResult", "AssertTimestampMonotonic", "Asserts"],
];

/// One part: its name, whether it is one of several of which one is enough, whether it is to be false, its value, and whether it
/// was met: less than 0 if it was not (org.freedesktop.systemd1(5)).
type Part = (String, bool, bool, String, i32);

impl Systemd {
    /// The conditions and assertions that were not met when systemd was last to start the unit, as its file has them:
    /// `ConditionPathExists=/srv/app`. None where all were met, or where it was not to be started in this boot.
    ///
    /// # Errors
    /// If systemd does not tell.
    pub fn read_unmet(&self, unit: &UnitName) -> Result<Vec<Line>, SystemdError> {
        self.runtime.block_on(async {
            let (connection, path) = (&self.connection, self.load(unit).await?);
            let path = path.as_str();
            let mut unmet = Vec::new();
            for [met, looked_at, parts] in ASKED {
                let was_looked_at = property::<u64>(connection, path, UNIT, looked_at).await?;
                let is_met = property::<bool>(connection, path, UNIT, met).await?;
                if was_looked_at.unwrap_or(0) == 0 || is_met.unwrap_or(true) {
                    continue;
                }
                let parts = property::<Vec<Part>>(connection, path, UNIT, parts).await?;
                let named = failed(&parts.unwrap_or_default());
                // systemd has read the file again since: of its parts nothing is known any more.
                let is_forgotten = named.is_empty();
                unmet.extend(named);
                if is_forgotten {
                    unmet.push(Text::of(format_args!(
                        "its {}",
                        met.trim_end_matches("Result").to_lowercase()
                    )));
                }
            }
            Ok(unmet)
        })
    }
}

/// Those parts that were not met. Of parts of which one is enough none is named where another kind was not met: one of them may have been.
fn failed(parts: &[Part]) -> Vec<Line> {
    let of = |is_one_of: bool| -> Vec<Line> {
        let failed = parts.iter().filter(|(_, one_of, .., state)| *one_of == is_one_of && *state < 0);
        failed.map(shown).collect()
    };
    let all = of(false);
    if all.is_empty() { of(true) } else { all }
}

fn shown((name, is_one_of, is_not, value, _): &Part) -> Line {
    let (one_of, not) = (if *is_one_of { "|" } else { "" }, if *is_not { "!" } else { "" });
    Text::of(format_args!("{name}={one_of}{not}{value}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_met_is_shown_as_the_file_has_it() {
        let part = |is_one_of, is_not, value: &str, state| {
            ("ConditionPathExists".to_owned(), is_one_of, is_not, value.to_owned(), state)
        };
        let told = |parts: &[Part]| failed(parts).iter().map(|line| line.to_string()).collect::<Vec<_>>();
        assert_eq!(
            told(&[part(false, true, "/a", -1), part(false, false, "/b", 1), part(false, false, "/c", 0)]),
            ["ConditionPathExists=!/a"]
        );
        assert_eq!(
            told(&[part(true, false, "/a", -1), part(false, false, "/b", -1)]),
            ["ConditionPathExists=/b"]
        );
        assert_eq!(told(&[part(true, true, "/a", -1)]), ["ConditionPathExists=|!/a"]);
    }
}
