//! Writes directives whose values stay what they are.

use std::fmt::Display;

use super::Directive;

/// A text that is being written.
#[derive(Debug, Default)]
pub struct Writer {
    text: String,
    depth: usize,
}

impl Writer {
    /// A comment of one line: what would end it is left out.
    pub fn comment(&mut self, words: impl Display) {
        self.begin();
        self.text.push_str("# ");
        self.text.extend(words.to_string().chars().map(|c| if c.is_control() { ' ' } else { c }));
        self.text.push('\n');
    }

    /// A directive with its words.
    pub fn directive<T: AsRef<str>>(&mut self, name: &str, words: impl IntoIterator<Item = T>) {
        self.words(name, words);
        self.text.push_str(";\n");
    }

    /// A directive with its words and its block.
    pub fn block<T: AsRef<str>>(
        &mut self,
        name: &str,
        words: impl IntoIterator<Item = T>,
        inner: impl FnOnce(&mut Self),
    ) {
        self.words(name, words);
        self.text.push_str(" {\n");
        self.depth += 1;
        inner(self);
        self.depth -= 1;
        self.begin();
        self.text.push_str("}\n");
    }

    /// What was read, with all that is in it.
    pub fn read(&mut self, directive: &Directive) {
        match &directive.block {
            None => self.directive(&directive.name, &directive.words),
            Some(inner) => self.block(&directive.name, &directive.words, |writer| {
                inner.iter().for_each(|directive| writer.read(directive));
            }),
        }
    }

    /// The text.
    #[must_use]
    pub fn into_text(self) -> String {
        self.text
    }

    fn begin(&mut self) {
        self.text.extend(std::iter::repeat_n("    ", self.depth));
    }

    fn words<T: AsRef<str>>(&mut self, name: &str, words: impl IntoIterator<Item = T>) {
        self.begin();
        self.word(name);
        for word in words {
            self.text.push(' ');
            self.word(word.as_ref());
        }
    }

    fn word(&mut self, word: &str) {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "/:.,=~^*$_-+%@()&?!|[]<>".contains(c);
        if !word.is_empty() && word.chars().all(is_plain) {
            self.text.push_str(word);
            return;
        }
        self.text.push('"');
        for c in word.chars() {
            match c {
                '"' => self.text.push_str("\\\""),
                '\\' => self.text.push_str("\\\\"),
                '\n' => self.text.push_str("\\n"),
                '\r' => self.text.push_str("\\r"),
                '\t' => self.text.push_str("\\t"),
                c => self.text.push(c),
            }
        }
        self.text.push('"');
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::parse;
    use super::*;

    #[test]
    fn what_looks_plain_is_and_the_rest_is_quoted() {
        let mut writer = Writer::default();
        writer.comment("one\nline");
        writer.block("server", [""; 0], |writer| {
            writer.directive("listen", ["[::]:443", "ssl"]);
            writer.directive("return", ["200", "a \"b\"; } # $x \\n\n"]);
        });
        let text = "# one line\nserver {\n    listen [::]:443 ssl;\n    return 200 \"a \\\"b\\\"; } # $x \\\\n\\n\";\n}\n";
        assert_eq!(writer.into_text(), text);
    }

    proptest! {
        /// No value breaks out of its directive, and each is read as it was written.
        #[test]
        fn what_is_written_is_read_again(
            words in prop::collection::vec(prop_oneof!["(?s).{0,12}", "[\"'\\\\;{}$#\n\t ntr]{0,12}"], 0..5),
            inner in "(?s).{0,12}",
        ) {
            let name = "directive";
            let word = Directive { name: name.into(), words: vec![inner], block: None };
            for block in [None, Some(vec![word])] {
                let directive = Directive { name: name.into(), words: words.clone(), block };
                let mut writer = Writer::default();
                writer.read(&directive);
                writer.read(&directive);
                let parsed = parse(writer.into_text().as_bytes());
                prop_assert_eq!(parsed.fault, None);
                prop_assert_eq!(parsed.directives, [directive.clone(), directive]);
            }
        }
    }
}
