//! What stands below the options of a help text: prose, and sections under a heading.

/// A piece of the notes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Note {
    /// A paragraph, in one line.
    Prose(String),
    /// Indented lines below a paragraph, to be shown as they are: what a file holds.
    Verbatim(Vec<String>),
    /// Indented lines under a heading.
    Section {
        /// The heading, without its colon.
        heading: String,
        /// What stands under it.
        body: Body,
    },
}

/// What stands under a heading.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// Lines to be shown as they are: commands.
    Lines(Vec<String>),
    /// Words, each with what it means.
    Terms(Vec<(String, String)>),
}

/// Reads the notes of a help text. An empty line ends a piece; a first line that ends with a colon, with nothing but
/// indented lines below it, is a heading; a piece that is indented as a whole is shown as it is; two columns in each of those lines, with two spaces or more between them, are
/// terms.
pub(crate) fn parse(text: &str) -> Vec<Note> {
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    lines.split(|line| line.is_empty()).filter(|piece| !piece.is_empty()).map(note).collect()
}

fn note(piece: &[&str]) -> Note {
    let is_indented = |line: &&str| line.starts_with("  ");
    match piece.split_first() {
        _ if piece.iter().all(is_indented) => Note::Verbatim(verbatim(piece)),
        Some((heading, below)) if !below.is_empty() && below.iter().all(is_indented) => {
            match heading.strip_suffix(':') {
                Some(heading) if !heading.starts_with(' ') => {
                    Note::Section { heading: heading.to_owned(), body: body(below) }
                }
                _ => prose(piece),
            }
        }
        _ => prose(piece),
    }
}

fn prose(piece: &[&str]) -> Note {
    let words: Vec<&str> = piece.iter().flat_map(|line| line.split_whitespace()).collect();
    Note::Prose(words.join(" "))
}

fn body(lines: &[&str]) -> Body {
    let terms: Option<Vec<(String, String)>> = lines.iter().map(|line| term(line.trim_start())).collect();
    terms.map_or_else(|| Body::Lines(verbatim(lines)), Body::Terms)
}

fn verbatim(lines: &[&str]) -> Vec<String> {
    lines.iter().map(|line| line.strip_prefix("  ").unwrap_or(line).to_owned()).collect()
}

fn term(line: &str) -> Option<(String, String)> {
    let (word, meaning) = line.split_once("  ")?;
    Some((word.to_owned(), meaning.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_prose_commands_and_terms() {
        let text = "One\ntwo.\n\n  a:\n    - b\n\nExamples:\n  fleetward login\n  fleetward  op\n\nExit codes:\n  0    good\n  130  left\n";
        let section = |heading: &str, body| Note::Section { heading: heading.to_owned(), body };
        let expected = [
            Note::Prose("One two.".into()),
            Note::Verbatim(vec!["a:".into(), "  - b".into()]),
            section("Examples", Body::Lines(vec!["fleetward login".into(), "fleetward  op".into()])),
            section(
                "Exit codes",
                Body::Terms(vec![("0".into(), "good".into()), ("130".into(), "left".into())]),
            ),
        ];
        assert_eq!(parse(text), expected);
    }

    #[test]
    fn a_sentence_with_a_colon_is_no_heading() {
        let prose = |text: &str| vec![Note::Prose(text.into())];
        assert_eq!(parse("What is left:\nnothing."), prose("What is left: nothing."));
        assert_eq!(parse("What is left:"), prose("What is left:"));
        assert_eq!(parse("\n\n"), []);
    }

    proptest::proptest! {
        /// No word of a help text is lost on the way to its page.
        #[test]
        fn every_word_is_kept(text in "([ a-z:]{0,20}\n){0,12}") {
            let mut words: Vec<String> = Vec::new();
            let mut add = |text: &str| words.extend(text.split_whitespace().map(str::to_owned));
            for note in parse(&text) {
                match note {
                    Note::Prose(text) => add(&text),
                    Note::Verbatim(lines) => lines.iter().for_each(|line| add(line)),
                    Note::Section { heading, body } => {
                        add(&format!("{heading}:"));
                        match body {
                            Body::Lines(lines) => lines.iter().for_each(|line| add(line)),
                            Body::Terms(terms) => terms.iter().for_each(|(word, meaning)| {
                                add(word);
                                add(meaning);
                            }),
                        }
                    }
                }
            }
            let expected: Vec<&str> = text.split_whitespace().collect();
            proptest::prop_assert_eq!(words, expected);
        }
    }
}
