//! What the runs of typed actions reported, as a table for each step.

use fleetward_api::work::kind::Kind;
use fleetward_api::work::kind::schema::{self, Field};
use fleetward_api::work::operation::Operation;
use fleetward_api::work::run::Run;
use fleetward_protocol::action::{Change, Preview};
use fleetward_protocol::text::Line;
use serde_json::Value;

use super::RUNS_SHOWN;
use crate::app::App;
use crate::failure::Failure;
use crate::kind::columns::{Columns, Times};
use crate::kind::detail::{detail, is_list};
use crate::render::table::{Cell, Sheet, WideTable};
use crate::render::{Out, neutral, words};

/// How many reports of a step are shown where nobody says how many.
const SHOWN: usize = 50;

/// How many changes of a step are shown where nobody says how many runs.
const MAX_CHANGES: usize = 1000;

/// Shows what runs of an operation reported, step by step, if any of them has reported.
pub(super) async fn show(
    app: &App,
    operation: &Operation,
    runs: &[Run],
    (limit, differs): (Option<u32>, bool),
) -> Result<(), Failure> {
    if runs.iter().all(|run| run.report.is_none()) {
        return Ok(());
    }
    if operation.dry_run {
        return preview(operation, runs, limit, differs, app);
    }
    // Only the order of the columns and the look of times hang on it.
    let kinds = app.collect::<Kind>("kinds", &(), None).await.unwrap_or_default();
    let most = if limit.is_some() { usize::MAX } else { SHOWN };
    for (place, step) in (0..).zip(&operation.steps) {
        let is_of = |run: &&Run| run.step == place && run.report.is_some();
        let reported: Vec<&Run> = runs.iter().filter(is_of).collect();
        if reported.is_empty() {
            continue;
        }
        let kind = kinds.iter().find(|known| known.name == step.kind);
        let fields = kind.map(|kind| schema::fields(&kind.answer)).unwrap_or_default();
        if operation.steps.len() > 1 {
            app.out.print(format_args!("\n{}:", neutral::text(&step.subject)))?;
        }
        let (text, left_out) = table(&reported, &fields, most, &app.out);
        app.out.print(format_args!("\n{text}"))?;
        app.out.note_left_out(&left_out);
        if reported.len() > most {
            app.out.note(format_args!("The first {most} reports; --limit shows as many as runs."));
        }
    }
    Ok(())
}

/// What is said where not all runs are shown.
pub(super) fn more_runs(operation: &Operation, is_filtered: bool) -> String {
    let all: u64 = operation.counts.iter().map(|counted| u64::from(counted.count)).sum();
    let more = match all.saturating_sub(u64::from(RUNS_SHOWN)) {
        more if more > 0 && !is_filtered => format!(", and {more} more are not"),
        _ => ", and there are more".to_owned(),
    };
    format!(
        "The first {RUNS_SHOWN} runs are shown{more}; --limit shows more, --state and --host those that are meant."
    )
}

/// Leaves out the lines of files in what a dry run reported; whether there were any. They are the most of it, and stand in the
/// output too.
pub(super) fn leave_out_lines(run: &mut Run) -> bool {
    let changes =
        run.report.as_mut().and_then(|report| report.get_mut("changes")).and_then(Value::as_array_mut);
    let mut differs = false;
    for change in changes.into_iter().flatten().filter_map(Value::as_object_mut) {
        let lines = change.remove("diff");
        differs |= lines.is_some_and(|lines| lines.as_array().is_some_and(|lines| !lines.is_empty()));
    }
    differs
}

/// Shows what a dry run's hosts would change: a row for each change.
fn preview(
    operation: &Operation,
    runs: &[Run],
    limit: Option<u32>,
    differs: bool,
    app: &App,
) -> Result<(), Failure> {
    for (place, step) in (0..).zip(&operation.steps) {
        let reported = runs.iter().filter(|run| run.step == place);
        let mut reported: Vec<(&Run, Preview)> = reported.filter_map(|run| Some((run, read(run)?))).collect();
        if reported.is_empty() {
            continue;
        }
        let all = reported.len();
        if limit.is_none() {
            reported.truncate(within(&reported, MAX_CHANGES));
        }
        if operation.steps.len() > 1 {
            app.out.print(format_args!("\n{}:", neutral::text(&step.subject)))?;
        }
        let (text, left_out) = changes(&reported, &app.out);
        app.out.print(format_args!("\n{text}"))?;
        app.out.note_left_out(&left_out);
        if reported.len() < all {
            app.out.note(format_args!(
                "What {} of {all} hosts told; --limit shows as many runs as it says, --host those that are meant.",
                reported.len()
            ));
        }
    }
    if differs {
        app.out.note(format_args!(
            "`fleetward op logs {}` shows the lines that would differ.",
            operation.number
        ));
    }
    Ok(())
}

/// How many of the first have no more than so many changes together; one at the least.
fn within(reported: &[(&Run, Preview)], most: usize) -> usize {
    let mut rows = 0;
    let too_many = reported.iter().position(|(_, preview)| {
        let before = rows;
        rows += preview.changes.len().max(1);
        before > 0 && rows > most
    });
    too_many.unwrap_or(reported.len())
}

fn read(run: &Run) -> Option<Preview> {
    serde_json::from_value(Value::Object(run.report.clone()?)).ok()
}

fn changes(reported: &[(&Run, Preview)], out: &Out) -> (String, Vec<String>) {
    let titles = ["HOST", "WOULD", "NOW", "THEN"].map(str::to_owned);
    let mut table = WideTable::new(out, titles);
    for (run, Preview { changes, left_out }) in reported {
        let row = |what: &str, now: &str, then: &str| {
            [Cell::new(run.host.as_str()), Cell::new(what), Cell::new(now), Cell::new(then)].into_iter()
        };
        if changes.is_empty() {
            table.push(row("nothing: unchanged", "", ""));
        }
        for Change { what, before, after, .. } in changes.iter() {
            let word = |word: &Option<Line>| word.clone().unwrap_or_default();
            table.push(row(what, &word(before), &word(after)));
        }
        if *left_out > 0 {
            table.push(row(&format!("and {left_out} changes more"), "", ""));
        }
    }
    table.finish()
}

/// The first reports, and the columns for which there was no room.
fn table(runs: &[&Run], fields: &[Field], most: usize, out: &Out) -> (String, Vec<String>) {
    let shown = || runs.iter().take(most).filter_map(|run| Some((run, run.report.as_ref()?)));
    if let ([run], Some(report)) = (runs, runs.first().and_then(|run| run.report.as_ref())) {
        let mut head = Sheet::default();
        head.row("host", run.host.as_str());
        head.toned(out, "state", words::run_state(run.state), words::run_tone(run.state));
        return detail(head, fields, report, (Times::At, out));
    }
    let reports: Vec<_> = shown().map(|(_, report)| report).collect();
    let mut columns = Columns::of(fields, reports.iter().copied(), Times::At);
    let lists = columns.without_lists(reports.iter().copied(), is_list);
    if !lists.is_empty() {
        out.note(format_args!(
            "Of one host, with --host HOST, there is more: {}.",
            neutral::text(&lists.join(", "))
        ));
    }
    let titles = ["HOST", "STATE"].map(str::to_owned);
    let mut table = WideTable::new(out, titles.into_iter().chain(columns.titles()));
    for (run, report) in shown() {
        let fixed = [
            Cell::new(run.host.as_str()),
            Cell::new(words::run_state(run.state)).tone(words::run_tone(run.state)),
        ];
        let cells = columns.cells(report, &out.clock);
        table.push(fixed.into_iter().chain(cells.iter().map(Cell::new)));
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
    fn how_many_runs_are_not_shown_is_said() {
        let mut operation = crate::operation::tests::operation();
        operation["counts"] =
            json!([{ "state": "succeeded", "count": 1200 }, { "state": "failed", "count": 3 }]);
        let operation: Operation = serde_json::from_value(operation).unwrap();
        let text = more_runs(&operation, false);
        assert!(text.starts_with("The first 1000 runs are shown, and 203 more are not; --limit"), "{text}");
        let text = more_runs(&operation, true);
        assert!(text.starts_with("The first 1000 runs are shown, and there are more; --limit"), "{text}");
    }

    #[test]
    fn a_large_dry_run_is_shown_in_part_and_its_lines_are_let_go() {
        let report =
            json!({ "changes": [{ "what": "write /a", "diff": ["-a", "+b"] }, { "what": "start a" }] });
        let mut changed = run("web-1", "succeeded", report);
        assert!(leave_out_lines(&mut changed) && !leave_out_lines(&mut changed));
        assert_eq!(
            changed.report.as_ref().unwrap()["changes"],
            json!([{ "what": "write /a" }, { "what": "start a" }])
        );
        let same = run("web-2", "succeeded", json!({ "changes": [] }));
        let reported = |runs: &[Run]| -> usize {
            let reported: Vec<(&Run, Preview)> = runs.iter().map(|run| (run, read(run).unwrap())).collect();
            within(&reported, 4)
        };
        assert_eq!(reported(&[changed.clone(), changed.clone(), same.clone()]), 2);
        assert_eq!(reported(&[changed.clone(), same.clone(), same]), 3);
    }

    #[test]
    fn reports_have_the_columns_of_the_schema_that_are_filled() {
        let state = json!({ "type": "object", "properties": {
            "sub": { "type": "string" }, "since": { "type": "integer", "format": "unix-ms" },
        } });
        let schema = json!({ "required": ["changed"], "properties": {
            "after": state, "before": state, "changed": { "type": "boolean" },
        } });
        let runs = [
            run(
                "web-1",
                "succeeded",
                json!({ "changed": true, "before": { "sub": "dead" },
                    "after": { "sub": "running", "since": 1_767_323_045_000_i64 }, "more": [1, 2] }),
            ),
            run("web-2", "failed", json!({ "changed": false, "absent": null, "\u{1b}[2J": "\u{1b}[2J" })),
        ];
        let runs: Vec<&Run> = runs.iter().collect();
        let fields = schema::fields(schema.as_object().unwrap());
        let out = Out::new(&Cli::parse_from(["fleetward", "version", "--color", "never", "--utc"]).globals);
        expect![[r#"
            HOST   STATE      CHANGED  SINCE                    SUB             ␛[2J  MORE
            web-1  succeeded  true     2026-01-02 03:04:05 UTC  dead → running        1, 2
            web-2  failed     false                                             ␛[2J
        "#]]
        .assert_eq(&table(&runs, &fields, SHOWN, &out).0);
        let one = table(&runs[..1], &fields, SHOWN, &out).0;
        assert!(one.starts_with("host     web-1\nstate    succeeded\nchanged  true\n"), "{one}");
        assert_eq!(table(&runs, &fields, 1, &out).0.lines().count(), 2);
    }

    #[test]
    fn a_dry_run_has_a_row_for_each_change() {
        let change =
            json!({ "what": "restart a.service", "before": "active", "after": "active, started anew" });
        let runs = [
            run("web-1", "succeeded", json!({ "changes": [{ "what": "daemon-reload" }, change] })),
            run("web-2", "succeeded", json!({ "changes": [] })),
            run("web-3", "failed", json!({ "changes": [{ "what": "\u{1b}[2J" }] })),
        ];
        let reported: Vec<(&Run, Preview)> = runs.iter().filter_map(|run| Some((run, read(run)?))).collect();
        let out = Out::new(&Cli::parse_from(["fleetward", "version", "--color", "never", "--utc"]).globals);
        expect![[r#"
            HOST   WOULD               NOW     THEN
            web-1  daemon-reload
            web-1  restart a.service   active  active, started anew
            web-2  nothing: unchanged
        "#]]
        .assert_eq(&changes(&reported, &out).0);
    }
}
