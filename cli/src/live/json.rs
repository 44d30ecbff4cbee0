//! The live view for programs: one JSON object per line.

use std::io::Write as _;
use std::time::Instant;

use serde::Serialize;
use serde_json::value::RawValue;

use super::View;
use crate::client::sse::ServerEvent;
use crate::failure::{Failure, output};
use crate::render::neutral;

/// Writes `{"event": …, "id": …, "data": …}` for each event; `data` is what the API sent.
#[derive(Debug, Default)]
pub(crate) struct JsonLines {
    text: String,
    /// The data of the `end` event.
    pub(crate) end: Option<String>,
}

#[derive(Serialize)]
struct Line<'a> {
    event: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    data: &'a RawValue,
}

impl View for JsonLines {
    fn event(&mut self, event: &ServerEvent) -> Result<(), Failure> {
        let data: &RawValue = serde_json::from_str(&event.data)
            .map_err(|error| Failure::Other(anyhow::Error::new(error).context("cannot read an event")))?;
        let line = Line { event: &event.name, id: event.id.as_deref(), data };
        let line = serde_json::to_string(&line).map_err(|error| Failure::Other(error.into()))?;
        self.text.push_str(&neutral::json(&line));
        self.text.push('\n');
        if event.name == "end" {
            self.end = Some(event.data.clone());
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        out.write_all(self.text.as_bytes()).and_then(|()| out.flush()).map_err(output)?;
        self.text.clear();
        Ok(())
    }

    fn tick(&mut self, _now: Instant) -> Result<(), Failure> {
        Ok(())
    }

    fn remark(&mut self, text: &str) -> Result<(), Failure> {
        // Standard output belongs to the events.
        let _ = writeln!(std::io::stderr().lock(), "{}", neutral::text(text));
        Ok(())
    }
}
