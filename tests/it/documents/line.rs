//! Takes commands out of text, and puts values in the place of placeholders.

/// Where a command stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In a block of lines to type: every program in it is known.
    Block,
    /// Among the examples of a help text, in a script or a unit.
    Example,
    /// In a sentence, where a command is often only named.
    Sentence,
}

/// What a Markdown file holds.
#[derive(Debug, Default)]
pub(super) struct Page {
    /// The texts of blocks of commands.
    pub(super) blocks: Vec<String>,
    /// The texts between backquotes.
    pub(super) inline: Vec<String>,
    /// What links lead to, in the tree.
    pub(super) links: Vec<String>,
}

const PROGRAMS: [&str; 4] = ["fleetward", "fleetward-agent", "fleetward-controller", "cargo xtask"];

/// What can be told of text from its fences and backquotes.
pub(super) fn page(text: &str) -> Page {
    let mut page = Page::default();
    let mut prose = String::new();
    let mut fence: Option<(bool, String)> = None;
    for line in text.lines() {
        match (line.trim_start().strip_prefix("```"), &mut fence) {
            (Some(kind), None) => {
                fence = Some((["sh", "bash", "console"].contains(&kind.trim()), String::new()))
            }
            (Some(_), Some(_)) => {
                if let Some((true, block)) = fence.take() {
                    page.blocks.push(block);
                }
            }
            (None, Some((is_shell, block))) => {
                let typed = line.trim_start().trim_start_matches("# ").trim_start_matches("$ ");
                // A block of another kind that holds our commands has the wrong kind.
                *is_shell |= has_program(typed);
                block.push_str(typed);
                block.push('\n');
            }
            (None, None) => {
                prose.push_str(line);
                prose.push(if line.trim().is_empty() { '\n' } else { ' ' });
            }
        }
    }
    for paragraph in prose.lines() {
        page.inline.extend(paragraph.split('`').skip(1).step_by(2).map(str::to_owned));
        page.links.extend(
            paragraph
                .split("](")
                .skip(1)
                .filter_map(|rest| rest.split_once(')'))
                .map(|(target, _)| target.split('#').next().unwrap_or_default().to_owned())
                .filter(|target| !target.is_empty() && !target.contains("://")),
        );
    }
    page
}

/// Whether a line begins with one of our programs.
pub(super) fn has_program(line: &str) -> bool {
    PROGRAMS.iter().any(|name| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')))
        || line.contains("$(fleetward ")
        || line.contains("| fleetward ")
}

/// What stands between backquotes in `text` and begins with one of our programs.
pub(super) fn in_backquotes(text: &str) -> Vec<String> {
    let codes = text.split('`').skip(1).step_by(2).map(|code| code.replace("\\\"", "\""));
    codes.filter(|code| has_program(code)).collect()
}

/// The simple commands of a text as a shell would read it: those between pipes and separators, and those whose output
/// stands in another one's words.
pub(super) fn commands(text: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for line in text.replace("\\\n", " ").lines() {
        if let Some((_, inner)) = line.split_once("$(") {
            let inner = inner.rsplit_once(')').map_or(inner, |(inner, _)| inner);
            found.extend(commands(inner));
            continue;
        }
        let words = shlex::split(line).unwrap_or_else(|| line.split(' ').map(str::to_owned).collect());
        let mut command = Vec::new();
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "|" | "||" | "&&" | ";" => found.push(std::mem::take(&mut command)),
                ">" | ">>" | "<" => drop(words.next()),
                _ => command.push(word),
            }
        }
        found.push(command);
    }
    found.retain(|command| !command.is_empty());
    found
}

/// Whether a word stands for something that the reader has to put there.
pub(super) fn is_placeholder(word: &str) -> bool {
    word == "…" || word.contains("...") || word.starts_with(['<', '{']) || value(word).is_some()
}

/// A value of the kind that a placeholder stands for.
fn value(word: &str) -> Option<&'static str> {
    Some(match word {
        "NAME" | "THIS-HOSTS-NAME" | "<host>" | "{name}" | "{0}" => "web-1",
        "SCRIPT" => "baseline",
        "EXPR" => "all",
        "OP" => "OP-17",
        "URL" | "{address}" => "https://ctl.example.com:7444",
        "HOST:PORT" | "HOST:7443" | "{controller}" => "ctl.example.com:7443",
        _ => return None,
    })
}

/// The words with values where placeholders stood.
pub(super) fn with_values(words: &[String]) -> Vec<String> {
    let mut before = String::new();
    let mut given = Vec::new();
    for word in words {
        let put = match (before.as_str(), word.as_str()) {
            ("--token", word) if is_placeholder(word) || word == "TOKEN" => token(),
            ("--fingerprint", _) => format!("sha256:{}", "01".repeat(32)),
            // What a message fills in: after `login` an address, after `logs` an operation.
            ("login", "{}") => "https://ctl.example.com:7444".to_owned(),
            ("logs", word) if word.starts_with('{') => "OP-17".to_owned(),
            (_, word) => value(word).unwrap_or(word).to_owned(),
        };
        before.clone_from(word);
        given.push(put);
    }
    given
}

fn token() -> String {
    use fleetward_protocol::digest::Digest;
    fleetward_protocol::enrol::Token { secret: [7; 32], root: Digest::of(b"root"), client: None }.reveal()
}
