//! What the runs of a typed action reported, as a table.

use std::collections::BTreeSet;

use fleetward_api::work::kind::Kind;
use fleetward_api::work::run::Run;

use crate::app::App;
use crate::failure::Failure;
use crate::kind::schema;
use crate::render::table::{Cell, Table};
use crate::render::{Out, value, words};

/// How many reports are shown where nobody says how many.
const SHOWN: usize = 50;
/// The most columns of a table.
const MAX_COLUMNS: usize = 64;

/// Shows what runs of `kind` reported, if any of them has reported.
pub(super) async fn show(app: &App, kind: &str, runs: &[Run], limit: Option<u32>) -> Result<(), Failure> {
    let reported: Vec<&Run> = runs.iter().filter(|run| run.report.is_some()).collect();
    if reported.is_empty() {
        return Ok(());
    }
    // Only the order of the columns hangs on it.
    let kinds = app.collect::<Kind>("kinds", &(), None).await.unwrap_or_default();
    let order: Vec<String> = kinds
        .iter()
        .find(|known| known.name == kind)
        .map(|known| schema::fields(&known.answer).into_iter().map(|field| field.name).collect())
        .unwrap_or_default();
    let most = if limit.is_some() { usize::MAX } else { SHOWN };
    app.out.print(format_args!("\n{}", table(&reported, &order, most, &app.out)))?;
    if reported.len() > most {
        app.out.note(format_args!("The first {most} reports; --limit shows as many as runs."));
    }
    Ok(())
}

/// The first reports, a column for each field that one of them has: in the `order` of the schema, then others by name.
fn table(runs: &[&Run], order: &[String], most: usize, out: &Out) -> String {
    let shown = || runs.iter().take(most).filter_map(|run| Some((run, run.report.as_ref()?)));
    let filled: BTreeSet<&String> = shown()
        .flat_map(|(_, report)| report.iter().filter(|(_, value)| !value.is_null()).map(|(name, _)| name))
        .collect();
    let ordered = order.iter().filter(|name| filled.contains(name));
    let others = filled.iter().copied().filter(|name| !order.contains(name));
    // A host may report any fields, and as many as it likes.
    let columns: Vec<&String> = ordered.chain(others).take(MAX_COLUMNS).collect();
    let titles = ["HOST".to_owned(), "STATE".to_owned()];
    let header: Vec<String> =
        titles.into_iter().chain(columns.iter().map(|name| name.to_uppercase())).collect();
    let mut table = Table::of_columns(out, &header);
    for (run, report) in shown() {
        let fixed = [
            Cell::new(run.host.as_str()),
            Cell::new(words::run_state(run.state)).tone(words::run_tone(run.state)),
        ];
        let fields =
            columns.iter().map(|name| Cell::new(report.get(*name).map(value::plain).unwrap_or_default()));
        table.push(fixed.into_iter().chain(fields));
    }
    table.finish()
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use expect_test::expect;
    use serde_json::json;

    use super::*;
    use crate::args::Cli;

    fn run(host: &str, state: &str, report: serde_json::Value) -> Run {
        serde_json::from_value(json!({
            "id": "01890000-0000-7000-8000-000000000001", "operation": "01890000-0000-7000-8000-00000000000a",
            "host": host, "step": 0, "kind": "k", "subject": "s", "digest": "0".repeat(64), "state": state,
            "report": report, "output_bytes": 0, "output_dropped": 0, "reattached": 0, "seq": 1,
        }))
        .unwrap()
    }

    #[test]
    fn reports_have_the_columns_of_the_schema_that_are_filled() {
        let runs = [
            run(
                "web-1",
                "succeeded",
                json!({ "changed": true, "after": { "sub": "running" }, "more": [1, 2] }),
            ),
            run("web-2", "failed", json!({ "changed": false, "absent": null, "\u{1b}[2J": "\u{1b}[2J" })),
        ];
        let runs: Vec<&Run> = runs.iter().collect();
        let order = ["changed", "before", "after"].map(str::to_owned);
        let out = Out::new(&Cli::parse_from(["fleetward", "version", "--color", "never"]).globals);
        expect![[r#"
            HOST   STATE      CHANGED  AFTER              ␛[2J  MORE
            web-1  succeeded  true     {"sub":"running"}        1, 2
            web-2  failed     false                       ␛[2J
        "#]]
        .assert_eq(&table(&runs, &order, SHOWN, &out));
        assert_eq!(table(&runs, &order, 1, &out).lines().count(), 2);
    }
}
