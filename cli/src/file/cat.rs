//! `file cat`: part after part, until the end.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal as _};

use clap::Args;
use fleetward_api::work::kind::Family;
use fleetward_api::work::query::{QueryCreate, QueryItem};
use fleetward_protocol::name::{HostName, LinuxUser};
use fleetward_protocol::query::file_read::{Became, MAX_LENGTH, ReadFile, ReadItem};
use serde_json::{Map, Value, json};

use super::Place;
use crate::app::App;
use crate::config::Format;
use crate::failure::{Exit, Failure, output};
use crate::kind;
use crate::query::{self, Sink};
use crate::render::{Out, neutral};

/// Read a file, or follow it
#[derive(Debug, Args)]
#[command(after_help = "\
Writes what is in the file as it is; to a terminal, with stand-ins for what a terminal would obey. A long file is read part \
after part, up to the length it had at the beginning; if it is replaced or cut off meanwhile, that is an error. In JSON each \
part of 32 MiB ends with an `end` of its own.

With --follow, what is appended is written as it comes, until Ctrl-C, also when the file is emptied or another one takes its \
name, which is said on standard error.

Examples:
  fleetward file cat web-1:/etc/nginx/nginx.conf
  fleetward file cat web-1:/var/log/dpkg.log --tail 64k --follow
  fleetward file cat db-1:/var/backups/dump.gz > dump.gz
  fleetward file cat web-1:/var/log/big.log --range 10G:1M")]
pub(crate) struct Cat {
    /// The host and the path on it, from the root on
    #[arg(value_name = "HOST:PATH")]
    place: Place,
    /// Go on with what is appended
    #[arg(long, short)]
    follow: bool,
    /// So many bytes from the end, such as 4096 or 64k, at most 32M; with --follow 8k when absent
    #[arg(long, value_name = "SIZE", value_parser = parse_size, conflicts_with = "range")]
    tail: Option<u64>,
    /// From which byte on, and how many; to the end if that is left out
    #[arg(long, value_name = "OFFSET[:LENGTH]", value_parser = parse_range, conflicts_with = "follow")]
    range: Option<(u64, Option<u64>)>,
    /// As whom to read; root when absent
    #[arg(long = "as", value_name = "USER")]
    user: Option<LinuxUser>,
}

/// How much is asked for at once.
const PART: u64 = if cfg!(test) { 8 } else { MAX_LENGTH };
/// What is shown of the end when nobody says how much.
const USUAL_TAIL: u64 = 8 << 10;

/// `fleetward file cat`.
pub(super) async fn execute(command: Cat, app: &App) -> Result<Exit, Failure> {
    let Cat { place: Place { host, path }, follow, tail, range, user } = command;
    let known = kind::get(app, "file-read", Family::Query).await?;
    let mut params = Map::from_iter([("path".to_owned(), json!(path))]);
    params.extend(user.map(|user| ("user".to_owned(), json!(user))));
    let ask = |params: Map<String, Value>| QueryCreate {
        kind: known.kind.name.clone(),
        params,
        on: host.to_string(),
        skip_not_enrolled: false,
        follow,
    };
    let tail = tail.or(follow.then_some(USUAL_TAIL));
    let (from, length) = range.unwrap_or((0, None));
    let mut content = Content::new(&app.out);
    if let Some(tail) = tail {
        params.insert("tail".to_owned(), tail.into());
        return part(app, &ask(params), &mut content).await;
    }
    let mut at = from;
    let mut left = length;
    loop {
        // What is appended meanwhile is not run after.
        let known = content.first.as_ref().filter(|first| first.size > at).map(|first| first.size - at);
        let wanted = [left, known].into_iter().flatten().fold(PART, u64::min);
        params.insert("offset".to_owned(), at.into());
        params.insert("length".to_owned(), wanted.into());
        let exit = part(app, &ask(params.clone()), &mut content).await?;
        let now = content.at.unwrap_or(at);
        let read = now.saturating_sub(at);
        at = now;
        left = left.map(|left| left.saturating_sub(read));
        if exit != Exit::Success || left == Some(0) || content.is_at_end(read, wanted)? {
            return Ok(exit);
        }
    }
}

/// Reads one part.
async fn part(app: &App, asked: &QueryCreate, content: &mut Content<'_>) -> Result<Exit, Failure> {
    let exit = query::tell(app, asked, content).await?;
    content.flush()?;
    Ok(exit)
}

/// What is in the file, written as it comes.
struct Content<'a> {
    out: &'a Out,
    to: Box<dyn io::Write + 'a>,
    /// What the file was like at first.
    first: Option<ReadFile>,
    /// What it is like.
    file: Option<ReadFile>,
    /// As far as it was written.
    at: Option<u64>,
    /// Whether the host was asked again, so that it tells once more what it had told.
    is_again: bool,
    /// Whether the last part had less than was asked for.
    is_short: bool,
    is_terminal: bool,
    /// The rest of a character or a line that a terminal was not shown yet.
    waiting: Vec<u8>,
}

impl<'a> Content<'a> {
    fn new(out: &'a Out) -> Self {
        if out.format == Format::Json {
            // What is in it was written as the controller told it.
            return Self::to(out, Box::new(io::sink()), false);
        }
        let stdout = io::stdout();
        let is_terminal = stdout.is_terminal();
        Self::to(out, Box::new(stdout), is_terminal)
    }

    fn to(out: &'a Out, to: Box<dyn io::Write + 'a>, is_terminal: bool) -> Self {
        Self {
            out,
            to,
            first: None,
            file: None,
            at: None,
            is_again: false,
            is_short: false,
            is_terminal,
            waiting: Vec::new(),
        }
    }

    /// Whether all was read of which there was something at first, after a part that has so many bytes of those asked for.
    ///
    /// # Errors
    /// If the file has become shorter than that.
    fn is_at_end(&mut self, read: u64, wanted: u64) -> Result<bool, Failure> {
        let (Some(first), Some(file), Some(at)) = (&self.first, &self.file, self.at) else { return Ok(true) };
        let was_short = std::mem::replace(&mut self.is_short, read < wanted);
        if first.size == 0 {
            // Such as of procfs, where no length is known before.
            return Ok(read < wanted);
        }
        if at < first.size && read == 0 && was_short {
            // Files of sysfs have less in them than they say (stat(2)), and stay at that.
            return if file.size < first.size { Err(changed("it was cut off")) } else { Ok(true) };
        }
        // A part that is too short is asked on from there: whether the file ends there is seen then.
        Ok(at >= first.size)
    }

    fn file(&mut self, file: ReadFile) -> Result<(), Failure> {
        let is_again = std::mem::take(&mut self.is_again);
        let became = match &self.file {
            Some(before) if is_again && (before.device, before.inode) != (file.device, file.inode) => {
                Some(Became::Replaced)
            }
            Some(_) if is_again && self.at.is_some_and(|at| file.size < at) => Some(Became::Truncated),
            _ => file.became,
        };
        match (&self.file, became) {
            (_, Some(Became::Truncated)) => self.out.warn("The file was emptied; what follows is new."),
            (_, Some(Became::Replaced)) => {
                self.out.warn("Another file has its name; what follows is of that.")
            }
            (Some(before), None) if (before.device, before.inode) != (file.device, file.inode) => {
                return Err(changed("another file has its name by now"));
            }
            (Some(_), None) if !self.has_no_length(&file) && self.at.is_some_and(|at| file.size < at) => {
                return Err(changed("it is shorter than what was read of it"));
            }
            (Some(before), None) if file.size == before.size && file.modified != before.modified => {
                self.out.warn(
                    "The file was changed while it was read: what was written before may be of before.",
                );
            }
            _ => {}
        }
        if became.is_some() || self.at.is_none() {
            self.at = Some(file.from);
        }
        self.first.get_or_insert_with(|| file.clone());
        self.file = Some(file);
        Ok(())
    }

    /// Whether nothing is known of how long it is, as of files of procfs.
    fn has_no_length(&self, file: &ReadFile) -> bool {
        file.size == 0 && self.first.as_ref().is_none_or(|first| first.size == 0)
    }

    /// Writes a piece; what was written before, to a connection that was lost since, is not written again.
    fn piece(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Failure> {
        let at = self.at.unwrap_or(offset);
        if offset > at {
            self.out.warn(format_args!("{} bytes before these were not read.", offset - at));
        }
        let known = usize::try_from(at.saturating_sub(offset)).unwrap_or(usize::MAX).min(bytes.len());
        let mut new = bytes.get(known..).unwrap_or_default();
        self.at = Some(at.max(offset.saturating_add(bytes.len() as u64)));
        if !self.is_terminal {
            return self.to.write_all(new).map_err(output);
        }
        // Line by line: what belongs together is made harmless together.
        while let Some(end) = new.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = new.split_at(end);
            self.waiting.extend_from_slice(line);
            self.line("\n")?;
            new = rest.get(1..).unwrap_or_default();
        }
        self.waiting.extend_from_slice(new);
        if self.waiting.len() > MAX_LINE { self.line("") } else { Ok(()) }
    }

    fn line(&mut self, end: &str) -> Result<(), Failure> {
        let mut text = String::new();
        neutral::line(&std::mem::take(&mut self.waiting), neutral::Colours::Strip, &mut text);
        write!(self.to, "{text}{end}").map_err(output)
    }
}

/// The longest line that is shown to a terminal in one piece, in bytes.
const MAX_LINE: usize = 64 << 10;

fn changed(how: &str) -> Failure {
    Failure::Other(anyhow::anyhow!("the file was changed while it was read: {how}; read it again"))
}

impl Sink for Content<'_> {
    fn noting(&mut self) -> Option<&mut dyn Sink> {
        Some(self)
    }

    fn item(&mut self, QueryItem { item, .. }: QueryItem) -> Result<(), Failure> {
        let Some(item) = item else { return Ok(()) };
        let item: ReadItem =
            serde_json::from_value(Value::Object(item)).map_err(|error| Failure::Other(error.into()))?;
        if let Some(file) = item.file {
            return self.file(file);
        }
        match item.read_piece() {
            Some((offset, bytes)) => self.piece(offset, &bytes),
            None => {
                Err(Failure::Other(anyhow::anyhow!("the host told a piece of the file that cannot be read")))
            }
        }
    }

    fn again(&mut self, _hosts: Option<&BTreeSet<HostName>>) -> Result<(), Failure> {
        self.is_again = true;
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Failure> {
        // The beginning of a character waits for its end.
        let whole = match str::from_utf8(&self.waiting) {
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            _ => self.waiting.len(),
        };
        if whole > 0 {
            let rest = self.waiting.split_off(whole);
            self.line("")?;
            self.waiting = rest;
        }
        self.to.flush().map_err(output)
    }
}

/// A count of bytes, with `k`, `M`, `G` or `T` for powers of 1024.
fn parse_size(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.strip_suffix(['k', 'K']) {
        Some(digits) => (digits, 10),
        None => match text.char_indices().last() {
            Some((at, 'M')) => (&text[..at], 20),
            Some((at, 'G')) => (&text[..at], 30),
            Some((at, 'T')) => (&text[..at], 40),
            _ => (text, 0),
        },
    };
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = is_number.then(|| digits.parse::<u64>().ok()).flatten();
    number
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| format!("`{}` is no size: write bytes, or 64k, 10M, 2G", text.escape_debug()))
}

fn parse_range(text: &str) -> Result<(u64, Option<u64>), String> {
    match text.split_once(':') {
        None => Ok((parse_size(text)?, None)),
        Some((offset, length)) => match (parse_size(offset)?, parse_size(length)?) {
            (_, 0) => Err("a range has at least one byte".to_owned()),
            (offset, length) => Ok((offset, Some(length))),
        },
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::client::double::{Step, answer, serve};

    #[test]
    fn sizes_and_ranges() {
        for (text, size) in [("0", 0), ("4096", 4096), ("64k", 64 << 10), ("2G", 2 << 30), ("1T", 1 << 40)] {
            assert_eq!(parse_size(text), Ok(size));
        }
        for text in ["", "k", "-1", "+1", "1.5M", "1m", "99999999T", "1 k", "é"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
        assert_eq!(parse_range("10G:1M"), Ok((10 << 30, Some(1 << 20))));
        assert_eq!(parse_range("5"), Ok((5, None)));
        assert!(parse_range("5:").is_err() && parse_range("5:0").is_err());
    }

    fn out() -> Out {
        Out::new(&crate::args::Cli::parse_from(["fleetward", "version", "--color", "never"]).globals)
    }

    fn file(inode: u64, size: u64, from: u64, became: Option<Became>) -> ReadFile {
        let modified = fleetward_protocol::time::Timestamp::from_millis(0);
        ReadFile { became, size, from, modified, inode, device: 1 }
    }

    #[test]
    fn another_file_between_two_parts_is_an_error_and_what_was_written_is_not_written_twice() {
        let out = out();
        let mut content = Content::new(&out);
        content.file(file(1, 100, 0, None)).unwrap();
        content.piece(0, &[b' '; 0]).unwrap();
        content.at = Some(60);
        content.file(file(1, 120, 60, None)).unwrap();
        assert!(content.file(file(2, 100, 60, None)).unwrap_err().to_string().contains("another file"));
        assert!(content.file(file(1, 50, 60, None)).unwrap_err().to_string().contains("shorter"));
        // Followed, and asked again.
        content.again(None).unwrap();
        content.file(file(1, 130, 40, None)).unwrap();
        assert_eq!(content.at, Some(60), "twenty bytes of it were written");
        content.file(file(2, 10, 0, Some(Became::Replaced))).unwrap();
        assert_eq!(content.at, Some(0));
        // Another one by now, of which nothing was written; and one that was emptied.
        content.at = Some(10);
        content.again(None).unwrap();
        content.file(file(3, 50, 42, None)).unwrap();
        assert_eq!(content.at, Some(42));
        content.again(None).unwrap();
        content.file(file(3, 5, 0, None)).unwrap();
        assert_eq!(content.at, Some(0));
    }

    fn written(pieces: &[(u64, &[u8])], is_terminal: bool) -> Vec<u8> {
        let (out, mut bytes) = (out(), Vec::new());
        let mut content = Content::to(&out, Box::new(&mut bytes), is_terminal);
        content.file(file(1, 100, 0, None)).unwrap();
        for (offset, piece) in pieces {
            content.piece(*offset, piece).unwrap();
            content.flush().unwrap();
        }
        drop(content);
        bytes
    }

    #[test]
    fn a_file_is_written_as_it_is_and_a_terminal_is_shown_what_is_harmless() {
        let pieces = [(0, &b"a\x1b[2J\xc3"[..]), (3, b"2J\xc3\xa4\n\0"), (9, b"b")];
        assert_eq!(written(&pieces, false), b"a\x1b[2J\xc3\xa4\n\0b");
        let shown = String::from_utf8(written(&pieces, true)).unwrap();
        assert!(shown.starts_with("a␛[2Jä\n") && !shown.contains('\u{1b}'), "{shown:?}");
    }

    /// What a host tells of a part of a file with twenty bytes.
    fn part(offset: usize, length: usize) -> Step {
        part_of(20, offset, length)
    }

    /// What a host tells of a part of a file that says that it has so many.
    fn part_of(size: u64, offset: usize, length: usize) -> Step {
        let item = |key: &str, item: &ReadItem| {
            format!("event: item\ndata: {}\n\n", json!({ "host": "web-1", "key": key, "item": item }))
        };
        let bytes = &b"twenty bytes of text"[offset..offset + length];
        let end = r#"{"hosts":1,"answered":1}"#;
        Step::Break(format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n{}{}event: end\ndata: {end}\n\n",
            item("file", &ReadItem::file(file(1, size, offset as u64, None))),
            item("0", &ReadItem::piece(offset as u64, bytes)),
        ))
    }

    async fn cat(line: &str, parts: &[(usize, usize)]) -> Vec<Value> {
        let parts = parts.iter().map(|(offset, length)| part(*offset, *length)).collect();
        let (result, asked) = try_cat(line, parts).await;
        assert_eq!(result.unwrap(), Exit::Success);
        asked
    }

    /// How it ends when the host tells these parts, and what was asked of it.
    async fn try_cat(line: &str, parts: Vec<Step>) -> (Result<Exit, Failure>, Vec<Value>) {
        let kind = json!({
            "name": "file-read", "family": "query", "summary": "Read.", "permission": "read", "idempotent": true,
            "timeout_s": 10, "follows": true, "parameters": { "type": "object" }, "answer": { "type": "object" },
        });
        let mut connections: Vec<Vec<Step>> = parts.into_iter().map(|part| vec![part]).collect();
        connections[0].insert(0, answer("200 OK", &json!({ "items": [kind] }).to_string()));
        let (address, mut requests) = serve(connections).await;
        let line =
            format!("fleetward --quiet --token secret --controller {address} file cat web-1:/a {line}");
        let result =
            crate::dispatch(crate::args::Cli::try_parse_from(line.trim_end().split(' ')).unwrap()).await;
        let mut asked = Vec::new();
        while let Ok(request) = requests.try_recv() {
            let body = request.split("\r\n\r\n").nth(1).unwrap_or_default();
            asked.extend(serde_json::from_str::<Value>(body).ok().map(|body| body["params"].clone()));
        }
        (result, asked)
    }

    /// A file that ends before the length that it had: what was written of it is not the file.
    #[tokio::test]
    async fn a_file_that_is_cut_off_is_an_error_and_one_that_never_had_its_length_is_none() {
        for parts in [
            // Emptied, or cut off behind what was read, between two parts.
            vec![part(0, 8), part_of(0, 8, 0)],
            vec![part(0, 8), part_of(12, 8, 4), part_of(12, 12, 0)],
            // While a part was read.
            vec![part(0, 5), part_of(5, 5, 0)],
            vec![part(0, 0), part_of(0, 0, 0)],
        ] {
            let (result, _) = try_cat("", parts.clone()).await;
            let error = result.unwrap_err().to_string();
            assert!(error.contains("changed while it was read"), "{parts:?}: {error}");
        }
        // One of sysfs, which says 4096 and has five bytes; and one of procfs, which says nothing.
        for parts in [
            vec![part_of(4096, 0, 5), part_of(4096, 5, 0)],
            vec![part_of(0, 0, 8), part_of(0, 8, 3)],
            vec![part_of(0, 0, 0)],
        ] {
            let (result, asked) = try_cat("", parts.clone()).await;
            assert_eq!((result.unwrap(), asked.len()), (Exit::Success, parts.len()), "{parts:?}");
        }
    }

    #[tokio::test]
    async fn a_long_file_is_asked_for_part_after_part_up_to_its_end() {
        let asked = cat("", &[(0, 8), (8, 8), (16, 4)]).await;
        let part = |offset: u64, length: u64| json!({ "path": "/a", "offset": offset, "length": length });
        assert_eq!(asked, [part(0, 8), part(8, 8), part(16, 4)]);
        assert_eq!(
            cat("--output json", &[(0, 8), (8, 8), (16, 4)]).await,
            asked,
            "programs are told all of it"
        );
        assert_eq!(cat("--range 5:10", &[(5, 8), (13, 2)]).await, [part(5, 8), part(13, 2)]);
        assert_eq!(
            cat("--tail 4 --as deploy", &[(16, 4)]).await,
            [json!({ "path": "/a", "tail": 4, "user": "deploy" })]
        );
    }
}
