//! Reads words, directives and blocks as nginx does, from whatever bytes.

/// The most directives that are read of one text: those of ten thousand sites.
pub const MAX_DIRECTIVES: usize = 400_000;
/// The most blocks that stand in each other.
const MAX_DEPTH: usize = 64;
/// The directives whose block is in another language end so (lua-nginx-module).
const FOREIGN: &str = "_by_lua_block";

/// A directive with its words, and the directives in its block if it has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directive {
    /// Its first word.
    pub name: String,
    /// The others.
    pub words: Vec<String>,
    /// What is in its block.
    pub block: Option<Vec<Directive>>,
}

/// What was read of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    /// Its directives, as far as they could be read.
    pub directives: Vec<Directive>,
    /// What nginx would not take in it: the first such thing, with its line.
    pub fault: Option<(usize, &'static str)>,
}

impl Directive {
    /// The directives of this name in its block.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Self> {
        self.block.iter().flatten().filter(move |inner| inner.name == name)
    }

    /// The words of the first directive of this name in its block.
    #[must_use]
    pub fn first(&self, name: &str) -> Option<&[String]> {
        self.block.iter().flatten().find(|inner| inner.name == name).map(|inner| inner.words.as_slice())
    }
}

/// Reads a text. Whatever it is, what can be read of it is read, in time and memory that its length bounds.
#[must_use]
pub fn parse(text: &[u8]) -> Parsed {
    let mut lexer = Lexer { text, at: 0, line: 1 };
    let mut parser = Parser::default();
    loop {
        match lexer.next() {
            Token::Words(words, Then::End) => parser.directive(words, &lexer),
            Token::Words(words, Then::Block) => {
                let is_foreign = words.first().is_some_and(|name| name.ends_with(FOREIGN));
                parser.open(words, &lexer);
                if is_foreign {
                    lexer.skip_block();
                    parser.close(&lexer);
                }
            }
            Token::Words(_, Then::Nothing) => parser.fault(&lexer, "it ends within a directive"),
            Token::Close => parser.close(&lexer),
            Token::Strange(what) => parser.fault(&lexer, what),
            Token::End => break,
        }
        if parser.is_full {
            break;
        }
    }
    parser.end(&lexer)
}

#[derive(Default)]
struct Parser {
    /// The blocks that are open, each with the words before it.
    open: Vec<(Vec<String>, Vec<Directive>)>,
    done: Vec<Directive>,
    count: usize,
    is_full: bool,
    fault: Option<(usize, &'static str)>,
}

impl Parser {
    fn fault(&mut self, lexer: &Lexer<'_>, what: &'static str) {
        self.fault.get_or_insert((lexer.line, what));
    }

    fn directive(&mut self, words: Vec<String>, lexer: &Lexer<'_>) {
        self.add(words, None, lexer);
    }

    fn open(&mut self, words: Vec<String>, lexer: &Lexer<'_>) {
        if self.open.len() == MAX_DEPTH {
            self.fault(lexer, "blocks stand too deep in each other");
            self.is_full = true;
            return;
        }
        self.open.push((words, Vec::new()));
    }

    fn close(&mut self, lexer: &Lexer<'_>) {
        match self.open.pop() {
            Some((words, inner)) => self.add(words, Some(inner), lexer),
            None => self.fault(lexer, "a block ends that did not begin"),
        }
    }

    fn add(&mut self, words: Vec<String>, block: Option<Vec<Directive>>, lexer: &Lexer<'_>) {
        self.count += 1;
        if self.count > MAX_DIRECTIVES {
            self.fault(lexer, "it has too many directives");
            self.is_full = true;
            return;
        }
        let mut words = words.into_iter();
        let directive = Directive { name: words.next().unwrap_or_default(), words: words.collect(), block };
        match self.open.last_mut() {
            Some((_, inner)) => inner.push(directive),
            None => self.done.push(directive),
        }
    }

    fn end(mut self, lexer: &Lexer<'_>) -> Parsed {
        if !self.open.is_empty() {
            self.fault(lexer, "it ends within a block");
        }
        // Those that are left are closed here: what is in them was read all the same.
        self.is_full = false;
        self.count = 0;
        while !self.open.is_empty() {
            self.close(lexer);
        }
        Parsed { directives: self.done, fault: self.fault }
    }
}

enum Token {
    /// Words, and what stands behind them.
    Words(Vec<String>, Then),
    Close,
    Strange(&'static str),
    End,
}

enum Then {
    End,
    Block,
    Nothing,
}

struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
    line: usize,
}

impl Lexer<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn take(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        self.line += usize::from(byte == b'\n');
        Some(byte)
    }

    fn next(&mut self) -> Token {
        let mut words = Vec::new();
        loop {
            let Some(byte) = self.take() else {
                return if words.is_empty() { Token::End } else { Token::Words(words, Then::Nothing) };
            };
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' => {}
                b'#' => while self.take().is_some_and(|byte| byte != b'\n') {},
                b';' | b'{' if words.is_empty() => return Token::Strange("a directive has no name"),
                b';' => return Token::Words(words, Then::End),
                b'{' => return Token::Words(words, Then::Block),
                b'}' if words.is_empty() => return Token::Close,
                // nginx gives up here. What follows is a block's end all the same.
                b'}' => return Token::Strange("a block ends within a directive"),
                quote @ (b'"' | b'\'') => match self.quoted(quote) {
                    None => return Token::Strange("a quote does not end"),
                    Some(word) => {
                        words.push(word);
                        if !matches!(
                            self.peek(),
                            None | Some(b' ' | b'\t' | b'\r' | b'\n' | b';' | b'{' | b')')
                        ) {
                            return Token::Strange("something stands right behind a quote");
                        }
                    }
                },
                _ => {
                    self.at -= 1;
                    words.push(self.plain());
                }
            }
        }
    }

    /// A word up to the quote that ends it.
    fn quoted(&mut self, quote: u8) -> Option<String> {
        let from = self.at;
        loop {
            match self.take()? {
                b'\\' => {
                    self.take();
                }
                byte if byte == quote => return Some(unescaped(self.text.get(from..self.at - 1)?)),
                _ => {}
            }
        }
    }

    /// A word up to a space, a semicolon, or a brace that is not one of `${`.
    fn plain(&mut self) -> String {
        let from = self.at;
        let mut is_variable = false;
        while let Some(byte) = self.peek() {
            match byte {
                b'{' if is_variable => {}
                b' ' | b'\t' | b'\r' | b'\n' | b';' | b'{' => break,
                b'\\' => {
                    self.take();
                    is_variable = false;
                }
                byte => is_variable = byte == b'$',
            }
            self.take();
        }
        unescaped(self.text.get(from..self.at.min(self.text.len())).unwrap_or_default())
    }

    /// Passes over a block in Lua, up to its last brace: strings and comments in it may hold others.
    fn skip_block(&mut self) {
        let mut depth = 1_usize;
        while let Some(byte) = self.take() {
            match byte {
                b'{' => depth += 1,
                b'}' => depth -= 1,
                quote @ (b'"' | b'\'') => drop(self.quoted(quote)),
                b'-' if self.peek() == Some(b'-') => while self.take().is_some_and(|byte| byte != b'\n') {},
                _ => {}
            }
            if depth == 0 {
                return;
            }
        }
    }
}

/// A word as nginx takes it: a backslash before a quote or another one is left out, and `\t`, `\r`, `\n` are what they mean.
fn unescaped(raw: &[u8]) -> String {
    let mut word = Vec::with_capacity(raw.len());
    let mut bytes = raw.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        let means = match (byte, bytes.peek()) {
            (b'\\', Some(next @ (b'"' | b'\'' | b'\\'))) => Some(*next),
            (b'\\', Some(b't')) => Some(b'\t'),
            (b'\\', Some(b'r')) => Some(b'\r'),
            (b'\\', Some(b'n')) => Some(b'\n'),
            _ => None,
        };
        if means.is_some() {
            bytes.next();
        }
        word.push(means.unwrap_or(byte));
    }
    String::from_utf8(word).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn one(text: &str) -> Directive {
        let parsed = parse(text.as_bytes());
        assert_eq!((parsed.fault, parsed.directives.len()), (None, 1), "{text}");
        parsed.directives.into_iter().next().unwrap()
    }

    #[test]
    fn words_are_read_as_nginx_reads_them() {
        for (text, words) in [
            ("a b  c\t\n d;", &["b", "c", "d"][..]),
            ("a \"b c\" 'd \"e\"';", &["b c", "d \"e\""]),
            (r#"a "b\"c\\d\ne\.f" g\;h\ i;"#, &["b\"c\\d\ne\\.f", "g\\;h\\ i"]),
            ("a b#c # d;\n e;", &["b#c", "e"]),
            ("a ${b}c $d{}", &["${b}c", "$d"]),
            ("a b}c;", &["b}c"]),
            ("a '' \"\";", &["", ""]),
            (r"a ~^/x\.\d{2}$ {}", &[r"~^/x\.\d"]),
            ("a ($b = '') {}", &["($b", "=", "", ")"]),
        ] {
            let parsed = parse(text.as_bytes());
            let found = &parsed.directives[0].words;
            assert_eq!(found, words, "{text}");
        }
    }

    #[test]
    fn blocks_hold_directives_and_lua_does_not_break_them() {
        let server = one("server { listen 80; location / { root /srv; } location = /x { return 204; } }");
        assert_eq!(server.first("listen"), Some(&["80".to_owned()][..]));
        assert_eq!(server.all("location").count(), 2);
        let lua = "http { content_by_lua_block { local x = \"}\" -- }\n if a then return { b = '{' } end } listen 80; }";
        let http = one(lua);
        assert_eq!(http.first("listen"), Some(&["80".to_owned()][..]));
    }

    #[test]
    fn what_nginx_would_not_take_is_told_and_the_rest_read() {
        for (text, line, told) in [
            ("a b", 1, "within a directive"),
            ("a {\n b;", 2, "within a block"),
            ("a;\n}\nb;", 2, "did not begin"),
            ("a \"b", 1, "does not end"),
            ("a \"b\"c;", 1, "right behind a quote"),
            (";", 1, "no name"),
            ("a { b }", 1, "within a directive"),
        ] {
            let (at, what) = parse(text.as_bytes()).fault.unwrap();
            assert!(at == line && what.contains(told), "{text:?}: {at} {what}");
        }
        assert_eq!(parse(b"a;}\nb;").directives.len(), 2);
        let deep = "a {".repeat(100_000);
        assert!(parse(deep.as_bytes()).fault.unwrap().1.contains("too deep"));
        let many = "a;".repeat(MAX_DIRECTIVES + 5);
        let parsed = parse(many.as_bytes());
        assert_eq!(parsed.directives.len(), MAX_DIRECTIVES);
        assert!(parsed.fault.unwrap().1.contains("too many"));
    }

    proptest! {
        #[test]
        fn whatever_bytes_are_read(text in prop::collection::vec(prop_oneof![
            Just(b'{'), Just(b'}'), Just(b';'), Just(b'"'), Just(b'\\'), Just(b'$'), Just(b'#'), Just(b' '), Just(b'\n'), any::<u8>()
        ], 0..200)) {
            let parsed = parse(&text);
            fn count(of: &[Directive]) -> usize {
                of.iter().map(|one| 1 + one.block.as_deref().map_or(0, count)).sum()
            }
            prop_assert!(count(&parsed.directives) <= text.len());
        }
    }
}
