//! Reads server-sent events (WHATWG HTML, section 9.2.6) from bytes as they arrive. No IO.

/// The longest event that is accepted, in bytes. The longest of a controller's tells of 256 KiB of output, each byte of
/// which is six characters at most.
const MAX_EVENT: usize = 4 << 20;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ServerEvent {
    /// What it is called; `message` where the server named none.
    pub(crate) name: String,
    /// Its data; lines are joined by line feeds.
    pub(crate) data: String,
    /// The last id the server sent so far; what `Last-Event-ID` asks to go on after.
    pub(crate) id: Option<String>,
}

/// A stream that is not server-sent events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the controller sent an event of more than {} MiB", MAX_EVENT >> 20)]
pub(crate) struct Oversized;

/// A parser in the middle of a stream.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    /// The line so far, where it did not end with the bytes before.
    line: Vec<u8>,
    name: String,
    data: String,
    has_data: bool,
    id: Option<String>,
    begun: bool,
    after_return: bool,
}

impl Parser {
    /// Takes the next `bytes` and appends the events they complete to `events`.
    ///
    /// # Errors
    /// If an event grows beyond the cap.
    pub(crate) fn push(&mut self, bytes: &[u8], events: &mut Vec<ServerEvent>) -> Result<(), Oversized> {
        let mut rest = bytes;
        loop {
            if self.after_return && !rest.is_empty() {
                self.after_return = false;
                rest = rest.strip_prefix(b"\n").unwrap_or(rest);
            }
            let Some(at) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else { break };
            let (front, end) = rest.split_at(at);
            self.after_return = end[0] == b'\r';
            rest = &end[1..];
            if self.line.is_empty() {
                self.take_line(front, events)?;
            } else {
                self.extend_line(front)?;
                let mut line = std::mem::take(&mut self.line);
                self.take_line(&line, events)?;
                line.clear();
                self.line = line;
            }
        }
        self.extend_line(rest)
    }

    /// Keeps the beginning of a line, unless it is too long already.
    fn extend_line(&mut self, bytes: &[u8]) -> Result<(), Oversized> {
        if self.line.len() + bytes.len() > MAX_EVENT {
            return Err(Oversized);
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn take_line(&mut self, line: &[u8], events: &mut Vec<ServerEvent>) -> Result<(), Oversized> {
        let mut line = line;
        if !self.begun {
            self.begun = true;
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        if line.is_empty() {
            self.dispatch(events);
            return Ok(());
        }
        let colon = line.iter().position(|&byte| byte == b':').unwrap_or(line.len());
        let (field, value) = line.split_at(colon);
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = String::from_utf8_lossy(value.strip_prefix(b" ").unwrap_or(value));
        match field {
            b"event" => self.name = value.into_owned(),
            b"data" => {
                if self.data.len() + value.len() >= MAX_EVENT {
                    return Err(Oversized);
                }
                if self.has_data {
                    self.data.push('\n');
                }
                self.data.push_str(&value);
                self.has_data = true;
            }
            b"id" if !value.contains('\0') => self.id = Some(value.into_owned()),
            // Comments keep the connection alive; `retry` is not followed: the client has its own back-off.
            _ => {}
        }
        Ok(())
    }

    fn dispatch(&mut self, events: &mut Vec<ServerEvent>) {
        let name = std::mem::take(&mut self.name);
        let data = std::mem::take(&mut self.data);
        if std::mem::take(&mut self.has_data) {
            let name = if name.is_empty() { "message".to_owned() } else { name };
            events.push(ServerEvent { name, data, id: self.id.clone() });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(pieces: &[&[u8]]) -> Vec<ServerEvent> {
        let (mut parser, mut events) = (Parser::default(), Vec::new());
        for piece in pieces {
            parser.push(piece, &mut events).unwrap();
        }
        events
    }

    fn event(name: &str, data: &str, id: Option<&str>) -> ServerEvent {
        ServerEvent { name: name.to_owned(), data: data.to_owned(), id: id.map(str::to_owned) }
    }

    #[test]
    fn fields_comments_and_line_ends_are_read_as_the_standard_says() {
        for (text, expected) in [
            ("data: x\n\n", vec![event("message", "x", None)]),
            ("\u{feff}event: run\r\nid: 7\r\ndata: {}\r\n\r\n", vec![event("run", "{}", Some("7"))]),
            ("data:a\rdata: b\r\r", vec![event("message", "a\nb", None)]),
            (": keep-alive\n\nevent: run\n\n", vec![]),
            ("data\n\n", vec![event("message", "", None)]),
            (
                "id: 1\ndata: a\n\ndata: b\n\n",
                vec![event("message", "a", Some("1")), event("message", "b", Some("1"))],
            ),
            ("data: unfinished\n", vec![]),
            ("data:  two spaces\nunknown: x\nretry: 5\n\n", vec![event("message", " two spaces", None)]),
        ] {
            assert_eq!(parse(&[text.as_bytes()]), expected, "{text:?}");
        }
    }

    #[test]
    fn an_endless_event_is_refused() {
        let line = vec![b'x'; 1 << 20];
        let lines = [b"data: ".as_slice(), &line, b"\n"].concat();
        for piece in [&line, &lines] {
            let (mut parser, mut events) = (Parser::default(), Vec::new());
            assert!((0..3).all(|_| parser.push(piece, &mut events).is_ok()));
            assert!((0..2).any(|_| parser.push(piece, &mut events).is_err()));
            assert!(parser.line.capacity().max(parser.data.capacity()) <= 2 * MAX_EVENT);
        }
    }

    proptest! {
        #[test]
        fn where_the_bytes_are_cut_does_not_matter(
            text in "(data|id|event|retry|)?(:| |x|\u{20ac}|\n|\r|\r\n){0,3}(data: y\n\n)?(id: 3\n)?".prop_flat_map(|unit| {
                proptest::collection::vec(Just(unit), 1..6).prop_map(|units| units.concat())
            }),
            cuts in proptest::collection::vec(1usize..5, 0..60),
        ) {
            let mut rest = text.as_bytes();
            let mut pieces = Vec::new();
            for cut in cuts {
                let (piece, later) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece);
                rest = later;
            }
            pieces.push(rest);
            prop_assert_eq!(parse(&pieces), parse(&[text.as_bytes()]));
        }

        #[test]
        fn what_a_server_writes_is_read_back(
            sent in proptest::collection::vec(("[a-z]{1,8}", "[^\r\n\0]{0,40}", 0u64..1000), 0..6),
        ) {
            let mut text = String::new();
            for (name, data, id) in &sent {
                text.push_str(&format!("event: {name}\nid: {id}\ndata: {data}\n\n"));
            }
            let read = parse(&[text.as_bytes()]);
            let expected: Vec<_> = sent
                .iter()
                .map(|(name, data, id)| event(name, data, Some(&id.to_string())))
                .collect();
            prop_assert_eq!(read, expected);
        }
    }
}
