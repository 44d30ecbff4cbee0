//! The first line of a file that was written here: with it, ours are told from those of others.

use fleetward_protocol::action::site::SiteName;
use fleetward_protocol::digest::Digest;

/// What the first line of each file of ours begins with.
const MARK: &str = "# fleetward site ";
const TOLD: &str = "; written by fleetward-agent, which does not replace what is changed by hand; sha256 ";

/// Whose a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// Written here, and not changed since.
    Ours,
    /// Written here, and changed since.
    Edited,
    /// Somebody else's.
    Foreign,
}

/// Whose the file of a site is, by its first line.
#[must_use]
pub fn whose(name: &SiteName, content: &[u8]) -> Whose {
    let end = content.iter().position(|byte| *byte == b'\n').unwrap_or(content.len());
    let (first, rest) = (content.get(..end).unwrap_or_default(), content.get(end + 1..).unwrap_or_default());
    let Some(told) = str::from_utf8(first).ok().and_then(|line| line.strip_prefix(MARK)) else {
        return Whose::Foreign;
    };
    match told.strip_prefix(name.as_str()).and_then(|told| told.strip_prefix(TOLD)) {
        None => Whose::Foreign,
        Some(digest) if digest == Digest::of(rest).to_string() => Whose::Ours,
        Some(_) => Whose::Edited,
    }
}

/// Text of ours, with the line that says so.
#[must_use]
pub fn marked(name: &SiteName, text: &str) -> String {
    format!("{MARK}{name}{TOLD}{}\n{text}", Digest::of(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_whose_it_is() {
        let (shop, other) = ("shop".parse().unwrap(), "shop2".parse().unwrap());
        let text = marked(&shop, "server {\n}\n");
        assert_eq!(whose(&shop, text.as_bytes()), Whose::Ours);
        for (content, found) in [
            (format!("{text}# more\n"), Whose::Edited),
            (text.replace("server", "map"), Whose::Edited),
            (text.lines().skip(1).collect(), Whose::Foreign),
            (String::new(), Whose::Foreign),
        ] {
            assert_eq!(whose(&shop, content.as_bytes()), found, "{content}");
        }
        assert_eq!(whose(&other, text.as_bytes()), Whose::Foreign, "a copy under another name");
        assert_eq!(whose(&shop, b"\xff\n\xff"), Whose::Foreign);
    }
}
