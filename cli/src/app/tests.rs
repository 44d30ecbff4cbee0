//! What lists ask the controller for, with `--limit` and without.

use clap::Parser as _;

use crate::args::Cli;
use crate::client::double::{Step, answer, serve};

/// Every list with a limit: the command, the address it reads, and how many items people see when they do not say.
const LISTS: &[(&str, &str, u32)] = &[
    ("audit list", "audit", 50),
    ("op list", "operations", 50),
    ("repo history", "repo/syncs", 20),
    ("host list", "hosts", 1000),
    ("op runs OP-7", "operations/OP-7/runs", 1000),
];

/// A page of so many items, and whether another one follows.
fn page(count: usize, next: Option<&str>) -> Step {
    let next = next.map(|next| format!(r#","next_cursor":"{next}""#)).unwrap_or_default();
    answer("200 OK", &format!(r#"{{"items":[{}]{next}}}"#, vec!["1"; count].join(",")))
}

/// The addresses that a command reads, as the pages are answered.
async fn read_by(line: &str, pages: Vec<Step>) -> Vec<String> {
    let (address, mut requests) = serve(vec![pages]).await;
    let globals = format!("fleetward --quiet --token secret --controller {address} {line}");
    crate::dispatch(Cli::try_parse_from(globals.split(' ')).unwrap()).await.unwrap();
    let mut paths = Vec::new();
    while let Ok(request) = requests.try_recv() {
        paths.push(request.split(' ').nth(1).unwrap().trim_start_matches("/api/v1/").to_owned());
    }
    paths
}

#[tokio::test]
async fn every_limit_is_one_on_items_whatever_a_page_holds() {
    for (command, path, _) in LISTS {
        let pages = vec![page(1000, Some("a")), page(500, Some("b")), page(1, None)];
        assert_eq!(
            read_by(&format!("{command} --output json --limit 1500"), pages).await,
            [format!("{path}?limit=1000"), format!("{path}?limit=500&cursor=a")],
            "{command}"
        );
        let table = read_by(&format!("{command} --limit 7"), vec![page(0, None)]).await;
        assert_eq!(table, [format!("{path}?limit=7")], "{command}");
    }
}

#[tokio::test]
async fn without_a_limit_programs_get_all_and_people_as_much_as_the_help_says() {
    for (command, path, shown) in LISTS {
        let pages = vec![page(1000, Some("a")), page(1000, Some("b")), page(3, None)];
        assert_eq!(
            read_by(&format!("{command} --output json"), pages).await,
            [
                format!("{path}?limit=1000"),
                format!("{path}?limit=1000&cursor=a"),
                format!("{path}?limit=1000&cursor=b")
            ],
            "{command}"
        );
        let table = read_by(command, vec![page(0, None)]).await;
        assert_eq!(table, [format!("{path}?limit={shown}")], "{command}");
    }
}

/// Filters go with every page.
#[tokio::test]
async fn the_audit_log_is_read_with_its_filters_page_by_page() {
    let line = "audit list --action host. --actor ann --subject web-1 --since 2026-01-02T03:04:05Z --limit 3 --output json";
    let filters = "audit?action=host.&actor=ann&subject=web-1&from=2026-01-02T03%3A04%3A05.000Z";
    assert_eq!(
        read_by(line, vec![page(2, Some("a")), page(1, Some("b"))]).await,
        [format!("{filters}&limit=3"), format!("{filters}&limit=1&cursor=a")]
    );
}
