//! YAML 1.2 into a tree that knows where each thing stands, within hard caps.
//!
//! Rules beyond the format: one document; keys are scalars and unique; aliases may copy
//! [`MAX_ALIASED_NODES`] nodes in all, and never contain themselves; only the core tags; no control
//! characters (the parser reads NUL as the end of input, which would cut a file short in silence).
//! `<<` merges as in YAML 1.1, because the files we take over may use it.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};

use fleetward_protocol::printable::find_hidden;

use super::content::disguise;
use super::problem::{Position, Report};

/// How deep lists and maps may nest.
pub(super) const MAX_DEPTH: usize = 32;
/// The most nodes in one file, aliases expanded.
pub(super) const MAX_NODES: usize = 2_000_000;
/// The most nodes that all aliases of one file may copy.
pub(super) const MAX_ALIASED_NODES: usize = 100_000;

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) at: Position,
    pub(super) value: Value,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// Text that is not quoted: may be a number, a boolean or null.
    Plain(String),
    /// Quoted or block text, always a string.
    Quoted(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One key of a map.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) at: Position,
    pub(super) key: String,
    pub(super) value: Node,
}

impl Node {
    /// Whether it is YAML's null, or nothing at all.
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Plain(text) if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// What it is, for messages.
    pub(super) fn describe(&self) -> String {
        match &self.value {
            _ if self.is_null() => "nothing".to_owned(),
            Value::Plain(text) => format!("`{}`", shorten(text)),
            Value::Quoted(text) => format!("the text \"{}\"", shorten(text)),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a map".to_owned(),
        }
    }

    fn count(&self) -> usize {
        1 + match &self.value {
            Value::Plain(_) | Value::Quoted(_) => 0,
            Value::List(items) => items.iter().map(Self::count).sum(),
            Value::Map(entries) => entries.iter().map(|entry| 1 + entry.value.count()).sum(),
        }
    }
}

/// At most 60 characters, control characters escaped: what is shown comes from a hostile file.
pub(super) fn shorten(text: &str) -> String {
    let mut shown: String = text.chars().take(60).flat_map(char::escape_debug).collect();
    if text.chars().nth(60).is_some() {
        shown.push('…');
    }
    shown
}

/// Parses one file's bytes. Reports and returns nothing if the tree cannot be trusted.
pub(super) fn parse(report: &mut Report, bytes: &[u8]) -> Option<Node> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text),
        Err(error) => {
            let at = place(&bytes[..error.valid_up_to()]);
            match disguise(bytes) {
                Some(what) => report.error(Position::START, "", what),
                None => report.error(at, "", "is not UTF-8 from here on"),
            }
            return None;
        }
    };
    if let Some(what) = disguise(bytes) {
        report.error(Position::START, "", what);
        return None;
    }
    if let Some((index, c)) = find_hidden(text) {
        report.error(place(&text.as_bytes()[..index]), "", hidden(c));
        return None;
    }
    let mut builder = Builder::new(report);
    for event in Parser::new_from_str(text) {
        let step = match event {
            Ok((event, span)) => builder.handle(event, position(&span)),
            Err(error) => {
                let mark = error.marker();
                let at = Position { line: narrow(mark.line()), column: narrow(mark.col() + 1) };
                Err(Stop { at, message: explain(text, at, error.info()) })
            }
        };
        if let Err(Stop { at, mut message }) = step {
            if is_template(text, at) {
                message.push_str(TEMPLATE);
            }
            builder.report.error(at, "", message);
            return None;
        }
    }
    let Builder { root, broken, report, .. } = builder;
    if root.is_none() {
        report.error(Position::START, "", "is empty");
    }
    root.filter(|_| !broken)
}

/// What is added where a template's braces were read as a map.
const TEMPLATE: &str = " (a value that begins with `{{` has to be in quotes, or YAML takes it for a map; nothing fills \
                        templates in here, so write what is meant)";

/// Whether the place is within the braces of a template, such as `host: {{ ip }}`.
fn is_template(text: &str, at: Position) -> bool {
    let line = text.lines().nth(at.line as usize - 1).unwrap_or_default();
    let start = line.split(": ").take(1).map(str::len).sum::<usize>();
    line.get(start..).is_some_and(|value| value.trim_start_matches([':', ' ']).starts_with("{{"))
}

fn hidden(c: char) -> String {
    let what =
        if c.is_control() { "YAML does not allow" } else { "hides text or turns its order; remove it" };
    format!("has the character U+{:04X}, which {what}", u32::from(c))
}

/// Why the rest of the file is not looked at.
struct Stop {
    at: Position,
    message: String,
}

/// A list or map whose end has not come yet.
struct Frame {
    at: Position,
    anchor: usize,
    kind: FrameKind,
}

enum FrameKind {
    List(Vec<Node>),
    Map {
        entries: Vec<Entry>,
        lines: HashMap<String, u32>,
        key: Option<(Position, String)>,
        merges: Vec<Node>,
    },
}

struct Builder<'r> {
    report: &'r mut Report,
    stack: Vec<Frame>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    aliased: usize,
    documents: usize,
    root: Option<Node>,
    broken: bool,
}

impl<'r> Builder<'r> {
    fn new(report: &'r mut Report) -> Self {
        let (stack, anchors) = (Vec::new(), HashMap::new());
        Self { report, stack, anchors, nodes: 0, aliased: 0, documents: 0, root: None, broken: false }
    }

    fn handle(&mut self, event: Event<'_>, at: Position) -> Result<(), Stop> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(stop(at, "begins a second YAML document; a file may hold only one"));
                }
                Ok(())
            }
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor) else {
                    return Err(stop(at, "uses an alias inside the thing it stands for"));
                };
                self.aliased += node.count();
                if self.aliased > MAX_ALIASED_NODES {
                    let message = format!(
                        "aliases copy more than {MAX_ALIASED_NODES} values in this file; write them out"
                    );
                    return Err(stop(at, &message));
                }
                let node = Node { at, ..node.clone() };
                self.add(node)
            }
            Event::Scalar(text, style, anchor, tag) => {
                let text = text.into_owned();
                // Also what an escape in quotes stands for (`"\u202E"`), which the file's own text does not show.
                if let Some((_, c)) = find_hidden(&text) {
                    return Err(stop(at, &hidden(c)));
                }
                let as_text =
                    check_tag(at, tag.as_deref(), &["str", "int", "float", "bool", "null"])? == Some("str");
                let plain = style == ScalarStyle::Plain && !as_text;
                let value = if plain { Value::Plain(text) } else { Value::Quoted(text) };
                self.complete(Node { at, value }, anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                check_tag(at, tag.as_deref(), &["seq"])?;
                self.open(Frame { at, anchor, kind: FrameKind::List(Vec::new()) })
            }
            Event::MappingStart(anchor, tag) => {
                check_tag(at, tag.as_deref(), &["map"])?;
                let (entries, lines, merges) = (Vec::new(), HashMap::new(), Vec::new());
                self.open(Frame { at, anchor, kind: FrameKind::Map { entries, lines, key: None, merges } })
            }
            Event::SequenceEnd | Event::MappingEnd => match self.stack.pop() {
                None => Err(stop(at, "ends something that did not begin")),
                Some(Frame { at, anchor, kind: FrameKind::List(items) }) => {
                    self.complete(Node { at, value: Value::List(items) }, anchor)
                }
                Some(Frame { at, anchor, kind: FrameKind::Map { entries, lines, merges, .. } }) => {
                    let entries = merge(entries, lines, merges)?;
                    self.complete(Node { at, value: Value::Map(entries) }, anchor)
                }
            },
        }
    }

    fn open(&mut self, frame: Frame) -> Result<(), Stop> {
        if let Some(Frame { kind: FrameKind::Map { key: None, .. }, .. }) = self.stack.last() {
            return Err(stop(frame.at, "uses a list or a map as a key; a key has to be text"));
        }
        if self.stack.len() >= MAX_DEPTH {
            return Err(stop(frame.at, &format!("nests deeper than {MAX_DEPTH} levels")));
        }
        self.stack.push(frame);
        Ok(())
    }

    fn complete(&mut self, node: Node, anchor: usize) -> Result<(), Stop> {
        // The parser numbers anchors from 1; zero is none.
        if anchor != 0 {
            self.aliased += node.count();
            if self.aliased > MAX_ALIASED_NODES {
                let message = format!("anchors hold more than {MAX_ALIASED_NODES} values in this file");
                return Err(stop(node.at, &message));
            }
            self.anchors.insert(anchor, node.clone());
        }
        self.add(node)
    }

    /// Puts a finished node where it belongs.
    fn add(&mut self, node: Node) -> Result<(), Stop> {
        self.nodes += 1;
        if self.nodes + self.aliased > MAX_NODES {
            return Err(stop(node.at, &format!("holds more than {MAX_NODES} values")));
        }
        let Some(frame) = self.stack.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut frame.kind {
            FrameKind::List(items) => items.push(node),
            FrameKind::Map { entries, lines, key, merges } => match key.take() {
                None => *key = Some(as_key(node)?),
                // YAML 1.1's merge key, only where it is not quoted away by writing it as text.
                Some((_, name)) if name == "<<" => merges.push(node),
                Some((at, name)) => {
                    if let Some(first) = lines.get(&name) {
                        let message =
                            format!("the key `{}` is already in line {first}; remove one", shorten(&name));
                        self.report.error(at, &name, message);
                        self.broken = true;
                    } else {
                        lines.insert(name.clone(), at.line);
                        entries.push(Entry { at, key: name, value: node });
                    }
                }
            },
        }
        Ok(())
    }
}

fn as_key(node: Node) -> Result<(Position, String), Stop> {
    match node.value {
        Value::Plain(text) | Value::Quoted(text) if !text.is_empty() => Ok((node.at, text)),
        Value::Plain(_) | Value::Quoted(_) => Err(stop(node.at, "has an empty key")),
        Value::List(_) | Value::Map(_) => {
            Err(stop(node.at, "uses a list or a map as a key; a key has to be text"))
        }
    }
}

/// Adds what `<<` brings in; a map's own keys win, then the first merged map.
fn merge(
    mut entries: Vec<Entry>,
    mut lines: HashMap<String, u32>,
    merges: Vec<Node>,
) -> Result<Vec<Entry>, Stop> {
    for node in merges {
        let maps = match node.value {
            Value::List(items) => items,
            _ => vec![node],
        };
        for map in maps {
            let Value::Map(merged) = map.value else {
                return Err(stop(map.at, "`<<` takes a map or a list of maps"));
            };
            for entry in merged {
                if !lines.contains_key(&entry.key) {
                    lines.insert(entry.key.clone(), entry.at.line);
                    entries.push(entry);
                }
            }
        }
    }
    Ok(entries)
}

/// The core tag's suffix, if there is a tag and it is one of `allowed`.
fn check_tag<'t>(at: Position, tag: Option<&'t Tag>, allowed: &[&str]) -> Result<Option<&'t str>, Stop> {
    match tag {
        None => Ok(None),
        Some(tag) if tag.is_yaml_core_schema() && allowed.contains(&tag.suffix.as_str()) => {
            Ok(Some(&tag.suffix))
        }
        // `!` alone means: text, whatever it looks like.
        Some(tag) if tag.handle.is_empty() && tag.suffix == "!" => Ok(Some("str")),
        Some(tag) => Err(stop(
            at,
            &format!("has the tag `{}`, which is not understood here", shorten(&tag.to_string())),
        )),
    }
}

fn stop(at: Position, message: &str) -> Stop {
    Stop { at, message: message.to_owned() }
}

fn position(span: &Span) -> Position {
    Position { line: narrow(span.start.line()), column: narrow(span.start.col() + 1) }
}

fn narrow(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX).max(1)
}

/// The place after `before`.
fn place(before: &[u8]) -> Position {
    let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
    let start = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |index| index + 1);
    let column = String::from_utf8_lossy(&before[start..]).chars().count() + 1;
    Position { line: narrow(line), column: narrow(column) }
}

/// The parser's message, with the usual cause added where the line shows it.
fn explain(text: &str, at: Position, info: &str) -> String {
    let line = text.lines().nth(at.line as usize - 1).unwrap_or_default();
    let indentation = line.len() - line.trim_start().len();
    if line[..indentation].contains('\t') {
        return format!(
            "is not valid YAML: {info} (the line is indented with a tab; YAML allows only spaces)"
        );
    }
    format!("is not valid YAML: {info}")
}
