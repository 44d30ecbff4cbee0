//! What can be typed, and what the help says.

use clap::{CommandFactory as _, Parser as _};
use expect_test::expect_file;

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    let words = line.split(' ').filter(|word| !word.is_empty());
    Cli::try_parse_from(std::iter::once("fleetward").chain(words))
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_line_of_the_walk_is_understood() {
    for line in [
        "login https://ctl.example.com:7444",
        "login https://ctl.example.com:7444 --user ann --password-stdin",
        "logout",
        "whoami",
        "password --password-stdin",
        "host add web-1 --type VPS --provider Example --tag prod --tag web",
        "host add old-7 --type VM --client-id LINKOPS-00000000-0000-4000-8000-000000000007",
        "host list",
        "host list --tag prod --type VM --status online --sort last-seen --output json",
        "host list --sort -last-seen --search web --lifecycle all --limit 5",
        "host show web-1",
        "host update web-1 --tag a --tag b",
        "host update web-1 --add-tag a --remove-tag b --provider Example",
        "host retire web-1 --yes",
        "host token web-1 --lifetime 10m",
        "host approve web-1",
        "host revoke web-1 -y",
        "host verify web-1",
        "enrol-token",
        "repo set https://git.example.com/ops/fleet.git --branch main",
        "repo check",
        "repo check ~/fleet --output json",
        "repo sync --accept --yes",
        "host delete web-1 --yes",
        "repo set git@git.example.com:ops/fleet.git --ssh-key key --host-key SHA256:x --interval never",
        "repo sync",
        "repo status",
        "repo history --limit 3",
        "script list --tag web",
        "script show baseline --content",
        "run baseline --on all --concurrency 20 --batch 25% --max-failures 0 --skip-not-enrolled --timeout 5m -- --dry-run",
        "run a b --on all --canary 1 --deadline 2h --offline skip --env A=b --env C= --user www --dir /srv --yes",
        "run a --on all --reason because --detach --continue-on-failure",
        "run a --on all --stop-on-interrupt",
        "run a --on all --id 01890000-0000-7000-8000-000000000001",
        "do k --on all",
        "do k a=b c.d=e f:=[1] --on all --canary 1 --reason because --params - --yes --detach",
        "do k --on all --id 01890000-0000-7000-8000-000000000001 --stop-on-interrupt",
        "ask k a=b --on web-1 --follow",
        "package list --on all",
        "package list linux-* --on os:debian --pending --security --held --skip-not-enrolled",
        "package refresh --on all --yes",
        "package install nginx curl=7.88.1-10 --on web-1 --replace-conffiles --canary 1",
        "package upgrade --on all --security --batch 10% --max-failures 0 --yes",
        "package upgrade nginx --on web-1 --autoremove --detach",
        "package hold nginx --on web-1",
        "package unhold nginx --on web-1",
        "package remove nginx --on web-1 --autoremove --dry-run",
        "package purge nginx --on web-1 --reason because",
        "reboot --on web-1 --dry-run",
        "reboot --on all --only-if-required --force --while-busy --batch 1 --max-failures 0 --yes",
        "site list --on all",
        "site list *.example.com --on web-1 --skip-not-enrolled",
        "site show shop --on web-1",
        "site apply -f shop.yaml --on web-1 --batch 1 --max-failures 0 --start --replace-edited --yes",
        "site test --file - --on all",
        "site enable shop --on web-1 --yes",
        "site disable shop --on web-1 --dry-run",
        "site rm shop --on web-1 --replace-edited --reason because",
        "site errors shop --on web-1 -n 200",
        "site certificates --on all --days 21",
        "kind list --family query",
        "kind show k",
        "op list --status partial --since 2h --until 2026-01-02T03:04:05Z --kind k --subject a --host web-1",
        "op list --since yesterday --until 1w",
        "op show OP-17 --state timed_out",
        "op runs 17",
        "operation show 01890000-0000-7000-8000-000000000001",
        "op logs OP-17 --host web-1 --follow --stream stdout --timestamps",
        "op logs OP-17 --host web-1 --raw",
        "op stop op-17",
        "session list",
        "session end 01890000-0000-7000-8000-000000000001",
        "audit list --action host. --actor ann --subject web-1 --limit 10",
        "audit",
        "audit --limit 5 --actor ann",
        "audit --since yesterday --until 2h",
        "completion bash",
        "version",
        "--controller https://ctl.example.com --color never --utc --quiet host list",
        "host list --controller http://127.0.0.1:7080 --ca-cert root.pem",
    ] {
        assert!(parse(line).is_ok(), "{line}: {}", parse(line).err().unwrap());
    }
}

#[test]
fn what_cannot_be_meant_is_refused_with_code_2() {
    for line in [
        "",
        "host",
        "host add web-1",
        "host add web/1 --type VM",
        "host add web-1 --type VM --tag a,b",
        "host list --status asleep",
        "host list --limit 0",
        "host update web-1",
        "host update web-1 --tag a --add-tag b",
        "host token web-1 --lifetime soon",
        "repo set",
        "repo sync --yes",
        "repo set url --interval 90s",
        "repo set url --username a --ssh-key k",
        "run",
        "run a",
        "run --on all",
        "run ../a --on all",
        "run a --on all --batch 0",
        "run a --on all --batch 101%",
        "run a --on all --concurrency 0",
        "run a --on all --timeout 0s",
        "run a --on all --env =x",
        "run a --on all --env x",
        "run a --on all --user Root!",
        "run a --on all --detach --stop-on-interrupt",
        "run a --on all --dry-run",
        "do",
        "do k",
        "do k --on all --id 1",
        "do k --on all --batch 0",
        "ask k",
        "ask k --on all --yes",
        "kind show",
        "kind list --family thing",
        "op list --script a",
        "op show",
        "op show OP-x",
        "op show -1",
        "op logs OP-1 --raw",
        "op logs OP-1 --host a --raw --follow",
        "op list --since tomorrow",
        "--output yaml host list",
        "--controller http://ctl.example.com host list",
        "--fingerprint sha256:12 host list",
        "session end latest",
        "completion tcsh",
    ] {
        let error = parse(line).err().unwrap_or_else(|| panic!("accepted: {line}"));
        assert_eq!(error.exit_code(), 2, "{line}: {error}");
    }
}

#[test]
fn every_limit_takes_the_same_numbers_and_refuses_the_others_in_the_same_words() {
    let mut command = Cli::command();
    command.build();
    let mut lists = Vec::new();
    for noun in command.get_subcommands() {
        for verb in noun.get_subcommands() {
            if verb.get_arguments().any(|argument| argument.get_id() == "limit") {
                let of = if verb.get_positionals().any(clap::Arg::is_required_set) { " OP-1" } else { "" };
                lists.push(format!("{} {}{of}", noun.get_name(), verb.get_name()));
            }
        }
    }
    assert!(lists.len() > 7, "only these have a limit: {lists:?}");
    for list in lists {
        for good in ["1", "1001", "4294967295"] {
            assert!(parse(&format!("{list} --limit {good}")).is_ok(), "{list} {good}");
        }
        for bad in ["0", "-1", "4294967296", "many", "1.5", ""] {
            let words = list.split(' ').map(str::to_owned).chain([format!("--limit={bad}")]);
            let error =
                Cli::try_parse_from(std::iter::once("fleetward".to_owned()).chain(words)).unwrap_err();
            let told = error.to_string();
            assert_eq!(error.exit_code(), 2, "{told}");
            assert!(told.contains("'--limit <COUNT>'"), "{list}: {told}");
            assert_eq!(
                told.contains("is not in 1..=4294967295"),
                ["0", "-1", "4294967296"].contains(&bad),
                "{told}"
            );
        }
    }
}

#[test]
fn usage_lines_show_what_is_needed_and_not_what_was_given() {
    for (line, usage) in [
        ("host retire --yes --controller https://ctl.example.com", "fleetward host retire [OPTIONS] <NAME>"),
        ("--utc op show --limit 3", "fleetward op show [OPTIONS] <OP>"),
        ("host add --tag a", "fleetward host add [OPTIONS] --type <TYPE> <NAME>"),
        ("run a --batch 5", "fleetward run [OPTIONS] --on <EXPR> <SCRIPT>... [-- <ARGUMENTS>...]"),
    ] {
        let words = std::iter::once("fleetward").chain(line.split(' '));
        let error = with_plain_usage(Cli::command()).try_get_matches_from(words).expect_err(line);
        assert!(error.to_string().contains(&format!("\nUsage: {usage}\n")), "{line}: {error}");
    }
}

#[test]
fn an_unknown_option_is_not_to_be_put_behind_two_dashes_where_nothing_can_stand() {
    let said = |line: &str| {
        let words = std::iter::once("fleetward").chain(line.split(' '));
        let error = with_plain_usage(Cli::command()).try_get_matches_from(words).expect_err(line);
        without_idle_tips(error).to_string()
    };
    for line in ["op logs OP-1 --tail", "host show --web-1", "audit --tail"] {
        let told = said(line);
        assert!(told.contains("unexpected argument") && !told.contains("use '-- "), "{told}");
    }
    assert!(said("host list --stauts online").contains("'--status'"), "what was meant stays");
    assert!(said("run a --on all --dry-run").contains("use '-- --dry-run'"), "a script may take it");
}

#[test]
fn arguments_reach_the_script_as_they_are() {
    let words = ["fleetward", "run", "a", "--on", "x & !y", "--", "--yes", "", "a b", "$HOME", "--", "-o"];
    let Command::Run(run) = Cli::try_parse_from(words).unwrap().command else { panic!("not a run") };
    let text = format!("{run:?}");
    assert!(text.contains(r#"arguments: ["--yes", "", "a b", "$HOME", "--", "-o"]"#), "{text}");
    assert!(text.contains("yes: false"), "{text}");
}

/// Blessed with `UPDATE_EXPECT=1`.
#[test]
fn the_help_is_as_reviewed() {
    let mut text = String::new();
    write_help(&mut Cli::command().term_width(100), "fleetward", &mut text);
    expect_file!["../../help.txt"].assert_eq(&text);
}

fn write_help(command: &mut clap::Command, path: &str, text: &mut String) {
    command.build();
    text.push_str(&format!("$ {path} --help\n{}\n\n", command.render_long_help().to_string().trim_end()));
    let names: Vec<String> = command.get_subcommands().map(|command| command.get_name().to_owned()).collect();
    for name in names {
        if let Some(subcommand) = command.find_subcommand_mut(&name) {
            let mut subcommand = subcommand.clone().term_width(100);
            write_help(&mut subcommand, &format!("{path} {name}"), text);
        }
    }
}
