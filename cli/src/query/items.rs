//! The answer of hosts that are asked once, as a table.

use std::collections::BTreeMap;

use fleetward_api::work::kind::schema::Field;
use fleetward_api::work::query::QueryItem;
use fleetward_protocol::name::HostName;
use serde_json::{Map, Value};

use super::Sink;
use crate::failure::Failure;
use crate::kind::columns::{Columns, Times};
use crate::kind::detail::detail;
use crate::render::table::{Cell, Sheet, WideTable};
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
        if let (1, Some(((host, _), item))) = (self.0.len(), self.0.first_key_value()) {
            let mut head = Sheet::default();
            head.row("host", host.as_str());
            return detail(head, fields, item, (Times::Ago, out));
        }
        let columns = Columns::of(fields, self.0.values(), Times::Ago);
        // What names an item is shown where its properties do not.
        let is_named = self.0.iter().all(|((_, key), item)| names(item, key));
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

/// Whether the values of an item say what its key does: one of them all of it, or several each a word of it.
fn names(item: &Map<String, Value>, key: &str) -> bool {
    let shown: Vec<String> = item.values().map(value::plain).collect();
    let is_shown = |word: &str| shown.iter().any(|value| value == word);
    is_shown(key) || (key.contains(' ') && key.split(' ').all(is_shown))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn a_key_is_shown_where_nothing_else_says_what_an_item_is() {
        let item = json!({ "protocol": "tcp", "port": 80, "address": "192.0.2.1" });
        let named = |key: &str| super::names(item.as_object().unwrap(), key);
        assert!(named("tcp") && named("tcp 192.0.2.1 80") && !named("tcp 7") && !named("udp"));
    }
}
