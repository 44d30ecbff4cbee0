//! The answer of hosts that are asked once, as a table.

use std::collections::BTreeMap;

use fleetward_api::work::kind::schema::Field;
use fleetward_api::work::query::QueryItem;
use fleetward_protocol::name::HostName;
use serde_json::{Map, Value};

use super::Sink;
use crate::failure::Failure;
use crate::kind::columns::{Columns, Times};
use crate::render::table::{Cell, WideTable};
use crate::render::{Out, value};

/// The most items that are kept.
pub(crate) const MAX_ITEMS: usize = 200_000;

/// What hosts have, kept until all of it is there.
#[derive(Debug, Default)]
pub(crate) struct Items(BTreeMap<(HostName, String), Map<String, Value>>);

impl Sink for Items {
    fn item(&mut self, QueryItem { host, key, item }: QueryItem) -> Result<(), Failure> {
        match item {
            Some(item) => drop(self.0.insert((host, key), item)),
            None => drop(self.0.remove(&(host, key))),
        }
        if self.0.len() > MAX_ITEMS {
            return Err(Failure::Usage(format!(
                "the answer has more than {MAX_ITEMS} items; ask fewer hosts, or read it with --output json"
            )));
        }
        Ok(())
    }
}

impl Items {
    /// Each item with its host, host by host and by keys.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&HostName, &Map<String, Value>)> {
        self.0.iter().map(|((host, _), item)| (host, item))
    }

    /// Whether nobody has anything.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A row for each item, with the columns of the schema as far as one item has them; and the columns for which there was
    /// no room.
    pub(crate) fn table(&self, fields: &[Field], out: &Out) -> (String, Vec<String>) {
        if self.0.is_empty() {
            return (String::new(), Vec::new());
        }
        let columns = Columns::of(fields, self.0.values(), Times::Ago);
        // What names an item is shown where none of its properties does.
        let is_named =
            self.0.iter().all(|((_, key), item)| item.values().any(|value| value::plain(value) == *key));
        let key = (!is_named).then(|| "KEY".to_owned());
        let titles = std::iter::once("HOST".to_owned()).chain(key).chain(columns.titles());
        let mut table = WideTable::new(out, titles);
        for ((host, key), item) in &self.0 {
            let key = (!is_named).then(|| Cell::new(key));
            let cells = columns.cells(item, &out.clock);
            let cells = cells.iter().map(Cell::new);
            table.push(std::iter::once(Cell::new(host.as_str())).chain(key).chain(cells));
        }
        table.finish()
    }
}
