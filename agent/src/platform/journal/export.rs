//! The Journal Export Format, read piece by piece (systemd: "Journal Export Formats").
//!
//! An entry is fields and an empty line. A field is `NAME=value`, or, where the value holds the end of a line or other
//! control characters, `NAME`, the value's length in 64 bits (little endian) and the value, each with an end of line behind it.
//!
//! **What it promises.** Whatever comes, of a value is kept what its field may have, and the rest is passed over as it comes: no
//! length that is told is believed before the bytes are there.

/// The longest name of a field (journald takes no longer one).
const MAX_NAME: usize = 64;
/// The most bytes that are kept of a message.
const MAX_MESSAGE: usize = 6 << 10;
/// The same of every other field.
const MAX_VALUE: usize = 512;

/// The fields that are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// `__CURSOR`: the place in the journal.
    Cursor,
    /// `__REALTIME_TIMESTAMP`: when the journal took it, in microseconds of the wall clock.
    Time,
    /// `_BOOT_ID`.
    Boot,
    /// `_SYSTEMD_UNIT`: the unit of the process that wrote it.
    SystemdUnit,
    /// `UNIT`: the unit that systemd speaks of.
    Unit,
    /// `SYSLOG_IDENTIFIER`: what the process calls itself.
    Identifier,
    /// `_COMM`: what the kernel calls the process.
    Comm,
    /// `_PID`.
    Pid,
    /// `PRIORITY`.
    Priority,
    /// `MESSAGE`.
    Message,
}

/// Each with its name, in the order of their values.
const FIELDS: [(&str, Field); 10] = [
    ("__CURSOR", Field::Cursor),
    ("__REALTIME_TIMESTAMP", Field::Time),
    ("_BOOT_ID", Field::Boot),
    ("_SYSTEMD_UNIT", Field::SystemdUnit),
    ("UNIT", Field::Unit),
    ("SYSLOG_IDENTIFIER", Field::Identifier),
    ("_COMM", Field::Comm),
    ("_PID", Field::Pid),
    ("PRIORITY", Field::Priority),
    ("MESSAGE", Field::Message),
];

/// What journalctl is asked to tell of an entry: what begins with `__` it tells by itself.
pub(super) const OUTPUT_FIELDS: &str =
    "_BOOT_ID,_SYSTEMD_UNIT,UNIT,SYSLOG_IDENTIFIER,_COMM,_PID,PRIORITY,MESSAGE";

/// The value of a field.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Value {
    /// Its bytes, as many as are kept.
    pub bytes: Vec<u8>,
    /// Whether it has more.
    pub is_cut: bool,
}

/// An entry of the journal. A field that it has several times is told by the first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Entry([Option<Value>; FIELDS.len()]);

/// It is not the Journal Export Format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("journalctl wrote what is not the Journal Export Format")]
pub struct Malformed;

/// Takes entries out of bytes, wherever these are cut.
#[derive(Debug, Default)]
pub struct Export {
    at: At,
    /// The name that is being read.
    name: Vec<u8>,
    entry: Entry,
    /// Whether the entry has any field.
    has_begun: bool,
}

/// Where the next byte stands.
#[derive(Debug, Clone, Copy, Default)]
enum At {
    /// In the name of a field, or behind the entry.
    #[default]
    Name,
    /// In a value that ends with its line.
    Line(Option<Field>),
    /// In the length of a value, of which so many bytes are known.
    Length(Option<Field>, u64, u32),
    /// In a value that has so many bytes more.
    Bytes(Option<Field>, u64),
    /// Behind such a value.
    End,
}

impl Entry {
    /// What it has of a field.
    #[must_use]
    pub fn get(&self, field: Field) -> Option<&Value> {
        self.0.get(field as usize)?.as_ref()
    }

    /// The field as text, if it is whole and is one.
    #[must_use]
    pub fn text(&self, field: Field) -> Option<&str> {
        let value = self.get(field).filter(|value| !value.is_cut)?;
        str::from_utf8(&value.bytes).ok()
    }

    /// Begins a field, if it is the first of its name.
    fn begin(&mut self, field: Field) -> Option<Field> {
        let value = self.0.get_mut(field as usize).filter(|value| value.is_none())?;
        *value = Some(Value::default());
        Some(field)
    }

    fn extend(&mut self, field: Option<Field>, more: &[u8]) {
        let value = field.and_then(|field| self.0.get_mut(field as usize)?.as_mut());
        let Some(value) = value else { return };
        let most = if field == Some(Field::Message) { MAX_MESSAGE } else { MAX_VALUE };
        let room = most.saturating_sub(value.bytes.len());
        let kept = more.get(..room).unwrap_or(more);
        value.is_cut |= kept.len() < more.len();
        value.bytes.extend_from_slice(kept);
    }
}

impl Export {
    /// Takes of `bytes` what belongs to the next entry; the entry, if its end was among it. Without one, all was taken.
    ///
    /// # Errors
    /// [`Malformed`]; nothing more can be read then.
    pub fn take(&mut self, bytes: &mut &[u8]) -> Result<Option<Entry>, Malformed> {
        while let Some((first, rest)) = bytes.split_first() {
            match self.at {
                At::Name => {
                    let (name, ended) = until(bytes, |byte| matches!(byte, b'=' | b'\n'));
                    let room = (MAX_NAME + 1).saturating_sub(self.name.len());
                    self.name.extend_from_slice(name.get(..room).unwrap_or(name));
                    let is_over = ended == Some(b'\n') && self.name.is_empty();
                    match ended {
                        None => {}
                        // An empty line behind nothing is none.
                        Some(_) if is_over && !self.has_begun => {}
                        Some(_) if is_over => {
                            self.has_begun = false;
                            return Ok(Some(std::mem::take(&mut self.entry)));
                        }
                        Some(end) => {
                            let field = self.field();
                            self.at = match end {
                                b'=' => At::Line(field),
                                _ => At::Length(field, 0, 0),
                            };
                        }
                    }
                }
                At::Line(field) => {
                    let (value, ended) = until(bytes, |byte| byte == b'\n');
                    self.entry.extend(field, value);
                    if ended.is_some() {
                        self.at = At::Name;
                    }
                }
                At::Length(field, length, known) => {
                    *bytes = rest;
                    let length = length | u64::from(*first) << (8 * known);
                    self.at = match known {
                        7 if length == 0 => At::End,
                        7 => At::Bytes(field, length),
                        _ => At::Length(field, length, known + 1),
                    };
                }
                At::Bytes(field, left) => {
                    let here = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                    let (value, rest) = bytes.split_at(here);
                    *bytes = rest;
                    self.entry.extend(field, value);
                    self.at = match left - value.len() as u64 {
                        0 => At::End,
                        left => At::Bytes(field, left),
                    };
                }
                At::End => {
                    *bytes = rest;
                    if *first != b'\n' {
                        return Err(Malformed);
                    }
                    self.at = At::Name;
                }
            }
        }
        Ok(None)
    }

    /// The field whose name was read, if it is kept.
    fn field(&mut self) -> Option<Field> {
        self.has_begun = true;
        let name = std::mem::take(&mut self.name);
        let (_, field) = FIELDS.iter().find(|(known, _)| known.as_bytes() == name)?;
        self.entry.begin(*field)
    }
}

/// Takes what stands before the first such byte, and it; all, if there is none.
fn until<'a>(bytes: &mut &'a [u8], ends: impl Fn(u8) -> bool) -> (&'a [u8], Option<u8>) {
    let all = *bytes;
    let end = all.iter().position(|byte| ends(*byte)).unwrap_or(all.len());
    let (before, rest) = all.split_at(end);
    match rest.split_first() {
        Some((end, rest)) => {
            *bytes = rest;
            (before, Some(*end))
        }
        None => {
            *bytes = rest;
            (before, None)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads pieces, one after the other.
    fn read(pieces: &[&[u8]]) -> Result<Vec<Entry>, Malformed> {
        let (mut export, mut entries) = (Export::default(), Vec::new());
        for piece in pieces {
            let mut rest = *piece;
            while let Some(entry) = export.take(&mut rest)? {
                entries.push(entry);
            }
            assert!(rest.is_empty());
        }
        Ok(entries)
    }

    /// A field as journald writes it.
    fn write(out: &mut Vec<u8>, name: &str, value: &[u8], as_bytes: bool) {
        out.extend_from_slice(name.as_bytes());
        if as_bytes || value.contains(&b'\n') {
            out.push(b'\n');
            out.extend_from_slice(&(value.len() as u64).to_le_bytes());
        } else {
            out.push(b'=');
        }
        out.extend_from_slice(value);
        out.push(b'\n');
    }

    #[test]
    fn every_field_has_its_place() {
        for (place, (_, field)) in FIELDS.iter().enumerate() {
            assert_eq!(*field as usize, place);
        }
        let told = FIELDS.iter().map(|(name, _)| *name).filter(|name| !name.starts_with("__"));
        assert_eq!(told.collect::<Vec<_>>().join(","), OUTPUT_FIELDS);
    }

    #[test]
    fn an_entry_is_its_fields_and_what_has_an_end_of_line_has_a_length() {
        let mut text = Vec::new();
        for (name, value) in [
            ("__CURSOR", &b"s=1;i=2"[..]),
            ("_PID", b"7"),
            ("OTHER", b"a\nMESSAGE=no"),
            ("MESSAGE", b"one\n\ntwo=\xff"),
            ("MESSAGE", b"a second one"),
            ("SYSLOG_IDENTIFIER", b""),
        ] {
            write(&mut text, name, value, false);
        }
        text.push(b'\n');
        let entries = read(&[&text]).unwrap();
        let entry = &entries[0];
        assert_eq!(
            (entries.len(), entry.text(Field::Cursor), entry.text(Field::Pid)),
            (1, Some("s=1;i=2"), Some("7"))
        );
        assert_eq!(entry.get(Field::Message).unwrap().bytes, b"one\n\ntwo=\xff");
        assert_eq!((entry.text(Field::Message), entry.text(Field::Identifier)), (None, Some("")));
        assert_eq!(entry.get(Field::Unit), None);
        // What is cut off is no entry, and what is not closed is an error.
        assert_eq!(read(&[&text[..text.len() - 1]]), Ok(vec![]));
        assert_eq!(read(&[b"MESSAGE\n\x01\0\0\0\0\0\0\0ab\n\n"]), Err(Malformed));
    }

    /// However long it says that it is.
    #[test]
    fn what_is_too_long_is_cut_and_never_kept() {
        let mut text = Vec::new();
        let long = vec![b'x'; 1 << 20];
        write(&mut text, "MESSAGE", &long, true);
        write(&mut text, "_COMM", &long, false);
        write(&mut text, &"N".repeat(1 << 20), b"x", false);
        text.push(b'\n');
        let entries = read(&[&text]).unwrap();
        let (message, comm) = (entries[0].get(Field::Message).unwrap(), entries[0].get(Field::Comm).unwrap());
        assert_eq!((message.bytes.len(), message.is_cut), (MAX_MESSAGE, true));
        assert_eq!((comm.bytes.len(), comm.is_cut, entries[0].text(Field::Comm)), (MAX_VALUE, true, None));
        let mut export = Export::default();
        let mut rest = &[b"MESSAGE\n", &u64::MAX.to_le_bytes()[..], &long].concat()[..];
        assert_eq!(export.take(&mut rest), Ok(None));
        assert!(export.entry.0.iter().flatten().all(|value| value.bytes.capacity() <= 2 * MAX_MESSAGE));
        assert!(export.name.capacity() <= 2 * MAX_NAME);
    }

    fn fields() -> impl Strategy<Value = Vec<(String, Vec<u8>, bool)>> {
        let name = prop_oneof![
            prop::sample::select(FIELDS.map(|(name, _)| name.to_owned()).to_vec()),
            "[A-Z_]{1,80}",
        ];
        let value = prop_oneof![
            prop::collection::vec(any::<u8>(), 0..40),
            prop::collection::vec(prop::sample::select(b"\n=\0M".to_vec()), 0..20),
            prop::collection::vec(any::<u8>(), 500..530),
        ];
        prop::collection::vec((name, value, any::<bool>()), 1..8)
    }

    proptest! {
        /// What was written is read, wherever it is cut.
        #[test]
        fn what_was_written_is_read(
            entries in prop::collection::vec(fields(), 0..4),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let (mut text, mut expected) = (Vec::new(), Vec::new());
            for fields in &entries {
                let mut entry = Entry::default();
                for (name, value, as_bytes) in fields {
                    write(&mut text, name, value, *as_bytes);
                    let Some(place) = FIELDS.iter().position(|(known, _)| known == name) else { continue };
                    let most = if name == "MESSAGE" { MAX_MESSAGE } else { MAX_VALUE };
                    let kept = value[..value.len().min(most)].to_vec();
                    entry.0[place].get_or_insert(Value { bytes: kept, is_cut: value.len() > most });
                }
                text.push(b'\n');
                expected.push(entry);
            }
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            cuts.sort_unstable();
            let (mut pieces, mut from) = (Vec::new(), 0);
            for cut in cuts.into_iter().chain([text.len()]) {
                pieces.push(&text[from..cut]);
                from = cut;
            }
            prop_assert_eq!(read(&pieces), Ok(expected));
        }

        #[test]
        fn no_bytes_break_it(text in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(b"\n\n=\0M".to_vec())], 0..300)) {
            let _ = read(&[&text]);
        }
    }
}
