//! Builds the tree from the tokens, by recursive descent with a counted depth.

use fleetward_protocol::name::{HostName, InvalidName};
use fleetward_protocol::suggest::nearest;

use super::budget::{Budget, MAX_STEPS};
use super::error::TargetError;
use super::lexer::{COMPARISONS, Comparison, Spanned, Text, Token, tokens};
use super::matching::{Field, Node, Number};
use super::pattern::{Pattern, is_glob};
use super::{KEYS, MAX_DEPTH, MAX_GROUPS, MAX_LENGTH, NUMBER_KEYS};

const EXPECTED: &str = "a host name, a key such as `tag:`, `!` or `(`";

pub(super) fn parse(text: &str) -> Result<Node, TargetError> {
    if text.len() > MAX_LENGTH {
        let message = format!("the expression is {} bytes long, but {MAX_LENGTH} are allowed", text.len());
        return Err(TargetError::new(text, 0, message));
    }
    let tokens = tokens(text)?.into_iter().peekable();
    let mut parser = Parser { text, tokens, groups: 0, budget: Budget::of(MAX_STEPS) };
    let node = parser.expression(0)?;
    match parser.tokens.next() {
        None => Ok(node),
        Some(Spanned { token: Token::Close, at }) => {
            Err(TargetError::new(text, at, "unexpected `)`; no parenthesis is open"))
        }
        Some(Spanned { at, .. }) => {
            Err(TargetError::new(text, at, "expected `&`, `|` or the end; join two hosts with `|` or `,`"))
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    tokens: std::iter::Peekable<std::vec::IntoIter<Spanned>>,
    /// How many groups were named.
    groups: usize,
    /// For patterns that are compared with the values of a closed set.
    budget: Budget,
}

impl Parser<'_> {
    fn expression(&mut self, depth: usize) -> Result<Node, TargetError> {
        let mut terms = vec![self.term(depth)?];
        while self.take(|token| *token == Token::Or || is_word(token, "or")) {
            terms.push(self.term(depth)?);
        }
        Ok(one_or(terms, Node::Or))
    }

    fn term(&mut self, depth: usize) -> Result<Node, TargetError> {
        let mut factors = vec![self.factor(depth)?];
        while self.take(|token| *token == Token::And || is_word(token, "and")) {
            factors.push(self.factor(depth)?);
        }
        Ok(one_or(factors, Node::And))
    }

    fn factor(&mut self, depth: usize) -> Result<Node, TargetError> {
        let Some(Spanned { token, at }) = self.tokens.next() else {
            return Err(self.error(self.text.len(), format!("the expression ends here; expected {EXPECTED}")));
        };
        if depth >= MAX_DEPTH {
            return Err(self.error(at, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        if token == Token::Not || is_word(&token, "not") {
            return Ok(Node::Not(Box::new(self.factor(depth + 1)?)));
        }
        match token {
            Token::Open => {
                let node = self.expression(depth + 1)?;
                if self.take(|token| *token == Token::Close) {
                    return Ok(node);
                }
                let end = self.tokens.peek().map_or(self.text.len(), |next| next.at);
                Err(self.error(end, "expected `)`, `&` or `|`: a parenthesis is still open"))
            }
            Token::Word(word) => self.host(at, word),
            Token::Group(name) => self.group(at, &name),
            Token::Field { key, value } => self.field(at, &key, &value),
            Token::Compare { key, comparison, number, number_at } => {
                self.compare(at, &key, comparison, &number, number_at)
            }
            Token::Close => Err(self.error(at, format!("unexpected `)`; expected {EXPECTED}"))),
            Token::And | Token::Or | Token::Not => {
                Err(self.error(at, format!("unexpected operator; expected {EXPECTED}")))
            }
        }
    }

    fn group(&mut self, at: usize, name: &str) -> Result<Node, TargetError> {
        self.groups += 1;
        if self.groups > MAX_GROUPS {
            return Err(self.error(at, format!("an expression names at most {MAX_GROUPS} groups")));
        }
        name.parse().map(Node::Group).map_err(|error: InvalidName| self.error(at + 1, error.to_string()))
    }

    fn host(&self, at: usize, word: Text) -> Result<Node, TargetError> {
        if !word.quoted {
            if word.text == "all" {
                return Ok(Node::All);
            }
            if word.text == "and" || word.text == "or" {
                return Err(self.error(at, format!("unexpected `{}`; expected {EXPECTED}", word.text)));
            }
            if is_glob(&word.text) {
                return Ok(Node::Field(Field::Name, self.glob(at, &word.text)?));
            }
        }
        match word.text.parse::<HostName>() {
            Ok(name) => Ok(Node::Name(name.as_str().to_owned())),
            Err(error) => Err(self.error(at, error.to_string())),
        }
    }

    fn field(&mut self, at: usize, key: &str, value: &Text) -> Result<Node, TargetError> {
        let value_at = at + key.len() + 1;
        if key == "fact" && !value.quoted {
            return self.fact(value_at, &value.text);
        }
        let named = plain(key);
        match Field::named(&named) {
            Some(field) => {
                let pattern = if value.quoted {
                    Pattern::literal(&value.text)
                } else {
                    self.glob(value_at, &value.text)?
                };
                if let Some(values) = field.values() {
                    let mut is_known = false;
                    for known in values {
                        let matched = pattern.matches_folded(known, &mut self.budget);
                        is_known |= matched.map_err(|_| {
                            self.error(value_at, "the pattern is too costly; make it simpler")
                        })?;
                    }
                    if !is_known {
                        return Err(self.error(value_at, unknown_value(key, &value.text, values)));
                    }
                }
                Ok(Node::Field(field, pattern))
            }
            None if Number::named(&named).is_some() => {
                self.compare(at, key, Comparison::Equal, &value.text, value_at)
            }
            None => Err(self.unknown_key(at, key)),
        }
    }

    /// What stands behind `fact:`: the name of a fact, and what it is to be.
    fn fact(&mut self, at: usize, text: &str) -> Result<Node, TargetError> {
        let end = text.find(['=', '<', '>']).unwrap_or(text.len());
        let (key, wanted) = text.split_at(end);
        let named = plain(key);
        let (field, number) = (Field::named(&named).filter(|field| field.is_fact()), Number::named(&named));
        let (comparison, value) = split_comparison(wanted);
        let value_at = at + text.len() - value.len();
        match (field, number, comparison) {
            (Some(field), _, None) if field.is_answer() => Ok(Node::Field(field, Pattern::literal("yes"))),
            (_, Some(number), None) => Ok(Node::Compare(number, Comparison::Above, 0)),
            (Some(_), _, None) => {
                let message = format!("`fact:{key}` says nothing of it; write `fact:{key}=PATTERN`");
                Err(self.error(at, message))
            }
            (_, _, Some(_)) if value.is_empty() && (field.is_some() || number.is_some()) => {
                Err(self.error(value_at, format!("expected a value after `fact:{text}`")))
            }
            (Some(_), _, Some(Comparison::Equal)) => {
                let value = Text { text: value.to_owned(), quoted: false };
                // What is wrong with the value stands behind the name and one sign, as after `:`.
                self.field(value_at - key.len() - 1, key, &value)
            }
            (Some(_), _, Some(_)) => {
                Err(self.error(at, format!("`{key}` is not a number; write `fact:{key}=PATTERN`")))
            }
            (_, Some(_), Some(comparison)) => self.compare(at, key, comparison, value, value_at),
            (None, None, _) => {
                let facts = KEYS.iter().filter(|key| Field::named(key).is_some_and(Field::is_fact));
                let facts: Vec<&str> = facts.chain(NUMBER_KEYS).copied().collect();
                let key: String = key.chars().take(40).collect();
                let meant = nearest(&plain(&key), facts.iter().copied());
                let meant = meant.map(|meant| format!(" (did you mean `{meant}`?)")).unwrap_or_default();
                let message = format!("unknown fact `{key}`{meant}; the facts are {}", facts.join(", "));
                Err(self.error(at, message))
            }
        }
    }

    fn glob(&self, at: usize, text: &str) -> Result<Pattern, TargetError> {
        Pattern::glob(text).map_err(|error| self.error(at + error.at, error.message))
    }

    fn compare(
        &self,
        at: usize,
        key: &str,
        comparison: Comparison,
        number: &str,
        number_at: usize,
    ) -> Result<Node, TargetError> {
        let named = plain(key);
        let Some(field) = Number::named(&named) else {
            if Field::named(&named).is_some() {
                return Err(self.error(at, format!("`{key}` is not a number; write `{key}:value`")));
            }
            return Err(self.unknown_key(at, key));
        };
        let value = field.parse(number).ok_or_else(|| {
            let example = if field.is_size() { "8G" } else { "4" };
            self.error(number_at, format!("expected a number, such as {example}"))
        })?;
        Ok(Node::Compare(field, comparison, value))
    }

    fn unknown_key(&self, at: usize, key: &str) -> TargetError {
        let key: String = key.chars().take(40).collect();
        let meant = nearest(&key, KEYS.iter().chain(NUMBER_KEYS).copied());
        let meant = meant.map(|meant| format!(" (did you mean `{meant}`?)")).unwrap_or_default();
        let message = format!(
            "unknown key `{key}`{meant}; the keys are {} (with `:`) and {} (with `>=`, `<=`, `>`, `<`, `=`)",
            KEYS.join(", "),
            NUMBER_KEYS.join(", ")
        );
        self.error(at, message)
    }

    fn take(&mut self, wanted: impl Fn(&Token) -> bool) -> bool {
        self.tokens.next_if(|next| wanted(&next.token)).is_some()
    }

    fn error(&self, at: usize, message: impl Into<String>) -> TargetError {
        TargetError::new(self.text, at, message)
    }
}

/// A key as the lists of keys have it.
fn plain(key: &str) -> String {
    key.strip_prefix("fact.").unwrap_or(key).replace('-', "_")
}

/// The comparison at the beginning of a text, if there is one, and what stands behind it.
fn split_comparison(text: &str) -> (Option<Comparison>, &str) {
    for (symbol, comparison) in COMPARISONS {
        if let Some(rest) = text.strip_prefix(symbol) {
            return (Some(comparison), rest);
        }
    }
    (None, text)
}

fn unknown_value(key: &str, value: &str, values: &[&str]) -> String {
    let meant = nearest(value, values.iter().copied());
    let meant = meant.map(|meant| format!(" (did you mean `{meant}`?)")).unwrap_or_default();
    let shown: String = value.chars().take(40).collect();
    format!("`{shown}` is no value of `{key}:`{meant}; the values are {}", values.join(", "))
}

fn is_word(token: &Token, word: &str) -> bool {
    matches!(token, Token::Word(text) if !text.quoted && text.text == word)
}

fn one_or(mut nodes: Vec<Node>, many: fn(Vec<Node>) -> Node) -> Node {
    match (nodes.pop(), nodes.is_empty()) {
        (Some(only), true) => only,
        (last, _) => {
            nodes.extend(last);
            many(nodes)
        }
    }
}
