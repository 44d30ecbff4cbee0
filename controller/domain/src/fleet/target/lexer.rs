//! Cuts an expression into tokens.

use super::error::TargetError;

/// A token and the byte at which it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spanned {
    pub(super) token: Token,
    pub(super) at: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    Open,
    Close,
    Not,
    And,
    Or,
    /// A bare word, or a quoted one.
    Word(Text),
    /// `@name`.
    Group(String),
    /// `key:value`.
    Field {
        key: String,
        value: Text,
    },
    /// `key >= number`; the number follows as a word.
    Compare {
        key: String,
        comparison: Comparison,
        number: String,
        number_at: usize,
    },
}

/// Text as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Text {
    pub(super) text: String,
    pub(super) quoted: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    AtLeast,
    AtMost,
    Above,
    Below,
    Equal,
}

/// The comparisons as they are written; the longer ones first.
pub(super) const COMPARISONS: [(&str, Comparison); 6] = [
    (">=", Comparison::AtLeast),
    ("<=", Comparison::AtMost),
    ("==", Comparison::Equal),
    (">", Comparison::Above),
    ("<", Comparison::Below),
    ("=", Comparison::Equal),
];

pub(super) fn tokens(text: &str) -> Result<Vec<Spanned>, TargetError> {
    let mut lexer = Lexer { text, at: 0 };
    let mut tokens = Vec::new();
    while let Some(spanned) = lexer.next()? {
        tokens.push(spanned);
    }
    Ok(tokens)
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    fn next(&mut self) -> Result<Option<Spanned>, TargetError> {
        self.skip_space();
        let at = self.at;
        let Some(next) = self.peek() else { return Ok(None) };
        let token = match next {
            '(' => self.symbol(Token::Open),
            ')' => self.symbol(Token::Close),
            '!' => self.symbol(Token::Not),
            ',' => self.symbol(Token::Or),
            '&' | '|' => {
                self.bump(next);
                // `&&` and `||` mean the same as `&` and `|`.
                if self.peek() == Some(next) {
                    self.bump(next);
                }
                if next == '&' { Token::And } else { Token::Or }
            }
            '"' | '\'' => Token::Word(Text { text: self.quoted(next)?, quoted: true }),
            '@' => {
                self.bump(next);
                Token::Group(self.take_while(|c| !ends_word(c)).to_owned())
            }
            _ => self.word()?,
        };
        Ok(Some(Spanned { token, at }))
    }

    fn word(&mut self) -> Result<Token, TargetError> {
        let start = self.at;
        let word = self.take_glob(|c| ends_word(c) || matches!(c, ':' | '<' | '>' | '='));
        if word.is_empty() {
            let next = self.peek().unwrap_or(' ');
            let message = format!("unexpected `{next}`; expected a host name, a key such as `tag:`, or `(`");
            return Err(TargetError::new(self.text, start, message));
        }
        if self.peek() == Some(':') {
            self.bump(':');
            let key = word.to_owned();
            let value_at = self.at;
            let value = match self.peek() {
                Some(quote @ ('"' | '\'')) => Text { text: self.quoted(quote)?, quoted: true },
                _ => Text { text: self.take_glob(ends_word).to_owned(), quoted: false },
            };
            if value.text.is_empty() {
                let message = format!("expected a value after `{key}:`");
                return Err(TargetError::new(self.text, value_at, message));
            }
            return Ok(Token::Field { key, value });
        }
        let key = word;
        let after_word = self.at;
        self.skip_space();
        let Some(comparison) = self.comparison() else {
            self.at = after_word;
            return Ok(Token::Word(Text { text: word.to_owned(), quoted: false }));
        };
        self.skip_space();
        let number_at = self.at;
        let number = self.take_while(|c| !ends_word(c) && !matches!(c, '<' | '>' | '=')).to_owned();
        Ok(Token::Compare { key: key.to_owned(), comparison, number, number_at })
    }

    fn comparison(&mut self) -> Option<Comparison> {
        let rest = self.rest();
        let (symbol, comparison) = COMPARISONS.into_iter().find(|(symbol, _)| rest.starts_with(symbol))?;
        self.at += symbol.len();
        Some(comparison)
    }

    fn quoted(&mut self, quote: char) -> Result<String, TargetError> {
        let start = self.at;
        self.bump(quote);
        let text = self.take_while(|c| c != quote).to_owned();
        if self.peek().is_none() {
            return Err(TargetError::new(
                self.text,
                start,
                format!("the quote is not closed; expected another `{quote}`"),
            ));
        }
        self.bump(quote);
        Ok(text)
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn bump(&mut self, c: char) {
        self.at += c.len_utf8();
    }

    fn symbol(&mut self, token: Token) -> Token {
        // All symbols are ASCII.
        self.at += 1;
        token
    }

    fn skip_space(&mut self) {
        self.take_while(char::is_whitespace);
    }

    /// Up to a character that ends it; within brackets and braces `,` and `!` do not.
    fn take_glob(&mut self, ends: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let mut depth = 0_usize;
        let end = rest.find(|c: char| {
            match c {
                '[' | '{' => depth += 1,
                ']' | '}' => depth = depth.saturating_sub(1),
                ',' | '!' if depth > 0 => return false,
                _ => {}
            }
            ends(c)
        });
        let end = end.unwrap_or(rest.len());
        self.at += end;
        rest.get(..end).unwrap_or_default()
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c| !wanted(c)).unwrap_or(rest.len());
        self.at += end;
        rest.get(..end).unwrap_or_default()
    }
}

fn ends_word(c: char) -> bool {
    c.is_whitespace() || matches!(c, '(' | ')' | '&' | '|' | '!' | ',' | '"' | '\'')
}
