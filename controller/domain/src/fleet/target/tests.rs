use expect_test::{Expect, expect};
use fleetward_protocol::facts::{Facts, Upkeep};
use fleetward_protocol::text::{List, Text};
use proptest::prelude::*;

use super::*;

fn facts(os: &str, version: &str, cpus: u32, memory_gib: u64) -> Facts {
    Facts {
        hostname: Text::of("h"),
        os: Text::of(os),
        os_version: Text::of(version),
        os_name: Text::of(format_args!("{os} GNU/Linux {version}")),
        kernel: Text::of("6.1.0-18-amd64"),
        arch: Text::of("x86_64"),
        cpu_model: Text::default(),
        cpus,
        memory_total: memory_gib << 30,
        memory_available: 0,
        swap_total: 0,
        disks: List::default(),
        addresses: List::of(["192.0.2.7", "2001:db8::7"].map(Text::of)),
        uptime_s: 3600,
        virtualisation: Text::of("kvm"),
        load: [0; 3],
        reboot_required: false,
    }
}

const BEHIND: Upkeep = Upkeep { time_synchronised: Some(false), updates: Some(7), security_updates: Some(2) };
const WELL: Upkeep = Upkeep { time_synchronised: Some(true), updates: Some(1), security_updates: Some(0) };

fn fleet(facts: &[Facts]) -> Vec<HostView<'_>> {
    let host = |name, kind, status, tags: &[&'static str], facts| HostView {
        name,
        kind,
        provider: "Example",
        status,
        enrolment: if name == "new" { "pending" } else { "enrolled" },
        tags: tags.to_vec(),
        facts,
        upkeep: match name {
            "web-1" => Some(&BEHIND),
            "web-9" => Some(&WELL),
            _ => None,
        },
    };
    vec![
        host("web-1", "VPS", "online", &["prod", "web"], facts.first()),
        host("web-2", "VPS", "offline", &["prod", "web"], facts.first()),
        host("web-9", "VM", "online", &["lab", "web", "env=lab"], facts.get(1)),
        host("db-1", "Proxmox", "online", &["prod", "db"], facts.get(1)),
        host("new", "LXC", "offline", &[], None),
    ]
}

fn chosen(expression: &str) -> String {
    let ubuntu = Facts {
        reboot_required: true,
        kernel: Text::of("6.8.0-40-generic"),
        ..facts("ubuntu", "24.04", 2, 4)
    };
    let facts = [facts("debian", "12", 4, 8), ubuntu];
    let hosts = fleet(&facts);
    match Target::parse(expression) {
        Ok(target) => match target.select(&hosts) {
            Ok(chosen) => chosen.iter().map(|&index| hosts[index].name).collect::<Vec<_>>().join(" "),
            Err(error) => error.to_string(),
        },
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_group_means_what_its_expression_means() {
    let facts = [facts("debian", "12", 4, 8), facts("ubuntu", "24.04", 2, 4)];
    let hosts = fleet(&facts);
    let groups = [("prod", "tag:prod | new"), ("ghosts", "web-77"), ("nested", "@prod")];
    let groups = groups.map(|(name, on)| (name.parse().unwrap(), Target::parse(on).unwrap())).into();
    let chosen =
        |expression: &str| match Target::parse(expression).unwrap().with_groups(&groups).select(&hosts) {
            Ok(chosen) => chosen.iter().map(|&index| hosts[index].name).collect::<Vec<_>>().join(" "),
            Err(error) => error.to_string(),
        };
    assert_eq!(chosen("@prod"), "web-1 web-2 db-1 new");
    // It binds as one: its own `|` does not reach what stands beside it.
    assert_eq!(chosen("@prod & web-*"), "web-1 web-2");
    assert_eq!(chosen("!@prod"), "web-9");
    assert_eq!(chosen("@ghosts"), "no such host: `web-77` (did you mean `web-1`?)");
    let unknown = "no such group: `@lost`; `fleetward group list` shows those there are";
    assert_eq!(chosen("web-1 | @lost,!@lost"), unknown);
    // Groups within groups are not looked up.
    assert_eq!(chosen("@nested"), unknown.replace("lost", "prod"));
    let told = |expression: &str| Target::parse(expression).unwrap_err().message().to_owned();
    assert!(told("@").contains("not a valid group name"), "{}", told("@"));
    assert!(told("@a:b").contains("not a valid group name"), "{}", told("@a:b"));
    let many = vec!["@g"; MAX_GROUPS + 1].join("|");
    assert_eq!(told(&many), "an expression names at most 64 groups");
    assert!(Target::parse(&vec!["@g"; MAX_GROUPS].join("|")).is_ok());
}

#[test]
fn expressions_mean_what_they_say() {
    for (expression, hosts) in [
        ("all", "web-1 web-2 web-9 db-1 new"),
        ("web-1", "web-1"),
        ("web-1, db-1", "web-1 db-1"),
        ("db-1 or web-1 || new", "web-1 db-1 new"),
        ("web-*", "web-1 web-2 web-9"),
        ("???", "new"),
        ("*-1", "web-1 db-1"),
        ("tag:prod & !web-1", "web-2 db-1"),
        ("tag:prod and not web-1", "web-2 db-1"),
        ("tag:env=*", "web-9"),
        ("tag:\"env=lab\"", "web-9"),
        ("type:vps", "web-1 web-2"),
        ("provider:EXAMPLE & status:online", "web-1 web-9 db-1"),
        ("os:debian", "web-1 web-2"),
        ("fact.os:Ubuntu", "web-9 db-1"),
        ("fact:os=Ubuntu", "web-9 db-1"),
        ("fact:kernel=6.1* & !web-2", "web-1"),
        ("os:debian & !kernel:6.1*", "`os:debian & !kernel:6.1*` matches none of 5 hosts"),
        ("all & !kernel:6.1*", "web-9 db-1 new"),
        ("fact:os_name=Debian*", "web-1 web-2"),
        ("fact:reboot-required", "web-9 db-1"),
        ("fact:reboot_required=no | reboot-required:no", "web-1 web-2"),
        ("reboot_required:yes & !db-1", "web-9"),
        // What is not known is neither.
        ("time_synchronised:no", "web-1"),
        ("fact:time-synchronised", "web-9"),
        ("fact:time-synchronized=no", "web-1"),
        ("fact:security-updates", "web-1"),
        ("security_updates>=2 | fact:updates<2", "web-1 web-9"),
        ("security-updates=0", "web-9"),
        ("fact:cpus>=4", "web-1 web-2"),
        ("fact:memory=8G", "web-1 web-2"),
        ("os_version:24.*", "web-9 db-1"),
        ("!os:debian", "web-9 db-1 new"),
        ("kernel:6.1.*", "web-1 web-2"),
        ("address:2001:db8::*", "web-1 web-2 web-9 db-1"),
        ("cpus>=4", "web-1 web-2"),
        ("cpus < 4", "web-9 db-1"),
        ("memory>4G & memory<=8g", "web-1 web-2"),
        ("fact.cpus=2", "web-9 db-1"),
        ("cpus:2", "web-9 db-1"),
        ("name:web-?", "web-1 web-2 web-9"),
        ("web-1 | db-1 & tag:web", "web-1"),
        ("(web-1 | db-1) & tag:web", "web-1"),
        ("!(tag:web | tag:db)", "new"),
        ("!!new", "new"),
        ("'web-1'", "web-1"),
        ("web-[1-5]", "web-1 web-2"),
        ("web-[1,9], db-1", "web-1 web-9 db-1"),
        ("{web,db}-1 & tag:prod", "web-1 db-1"),
        ("name:{web-[1-2],new}", "web-1 web-2 new"),
        ("tag:{db,lab}", "web-9 db-1"),
        ("all & !web-[1-9]", "db-1 new"),
        ("status:OFFLINE", "web-2 new"),
        ("status:off*", "web-2 new"),
        ("enrolment:pending", "new"),
        ("all & !enrollment:enrolled", "new"),
    ] {
        assert_eq!(chosen(expression), hosts, "{expression}");
    }
}

fn check(expression: &str, expected: &Expect) {
    expected.assert_eq(&chosen(expression));
}

#[test]
fn errors_show_the_place_and_what_was_expected() {
    check(
        "",
        &expect![[r#"
        column 1: the expression ends here; expected a host name, a key such as `tag:`, `!` or `(`
          
          ^"#]],
    );
    check(
        "tag:prod &",
        &expect![[r#"
        column 11: the expression ends here; expected a host name, a key such as `tag:`, `!` or `(`
          tag:prod &
                    ^"#]],
    );
    check(
        "(web-1 | web-2",
        &expect![[r#"
        column 15: expected `)`, `&` or `|`: a parenthesis is still open
          (web-1 | web-2
                        ^"#]],
    );
    check(
        "web-1) | x",
        &expect![[r#"
        column 6: unexpected `)`; no parenthesis is open
          web-1) | x
               ^"#]],
    );
    check(
        "web-1 web-2",
        &expect![[r#"
        column 7: expected `&`, `|` or the end; join two hosts with `|` or `,`
          web-1 web-2
                ^"#]],
    );
    check(
        "tag: prod",
        &expect![[r#"
        column 5: expected a value after `tag:`
          tag: prod
              ^"#]],
    );
    check(
        "tags:prod",
        &expect![[r#"
            column 1: unknown key `tags` (did you mean `tag`?); the keys are name, tag, type, provider, status, enrolment, os, os_version, os_name, kernel, arch, virtualisation, hostname, address, reboot_required, time_synchronised (with `:`) and cpus, memory, swap, uptime, updates, security_updates (with `>=`, `<=`, `>`, `<`, `=`)
              tags:prod
              ^"#]],
    );
    check(
        "fact:reboot-requird",
        &expect![[r#"
        column 6: unknown fact `reboot-requird` (did you mean `reboot_required`?); the facts are os, os_version, os_name, kernel, arch, virtualisation, hostname, address, reboot_required, time_synchronised, cpus, memory, swap, uptime, updates, security_updates
          fact:reboot-requird
               ^"#]],
    );
    check(
        "fact:tag=prod",
        &expect![[r#"
        column 6: unknown fact `tag`; the facts are os, os_version, os_name, kernel, arch, virtualisation, hostname, address, reboot_required, time_synchronised, cpus, memory, swap, uptime, updates, security_updates
          fact:tag=prod
               ^"#]],
    );
    check(
        "fact:kernel",
        &expect![[r#"
        column 6: `fact:kernel` says nothing of it; write `fact:kernel=PATTERN`
          fact:kernel
               ^"#]],
    );
    check(
        "fact:kernel=",
        &expect![[r#"
        column 13: expected a value after `fact:kernel=`
          fact:kernel=
                      ^"#]],
    );
    check(
        "fact:kernel>6",
        &expect![[r#"
        column 6: `kernel` is not a number; write `fact:kernel=PATTERN`
          fact:kernel>6
               ^"#]],
    );
    check(
        "web-1 | fact:reboot-required=maybe",
        &expect![[r#"
        column 30: `maybe` is no value of `reboot-required:`; the values are yes, no
          web-1 | fact:reboot-required=maybe
                                       ^"#]],
    );
    check(
        "fact:cpus>=many",
        &expect![[r#"
        column 12: expected a number, such as 4
          fact:cpus>=many
                     ^"#]],
    );
    check(
        "reboot_required:true",
        &expect![[r#"
        column 17: `true` is no value of `reboot_required:`; the values are yes, no
          reboot_required:true
                          ^"#]],
    );
    check(
        "cpus>=many",
        &expect![[r#"
        column 7: expected a number, such as 4
          cpus>=many
                ^"#]],
    );
    check(
        "os>=12",
        &expect![[r#"
        column 1: `os` is not a number; write `os:value`
          os>=12
          ^"#]],
    );
    check(
        "é | \"web",
        &expect![[r#"
            column 5: the quote is not closed; expected another `"`
              é | "web
                  ^"#]],
    );
    check(
        "web-1 | \"web",
        &expect![[r#"
        column 9: the quote is not closed; expected another `"`
          web-1 | "web
                  ^"#]],
    );
    check(
        "all & !status:ofline",
        &expect![[r#"
        column 15: `ofline` is no value of `status:` (did you mean `offline`?); the values are online, offline
          all & !status:ofline
                        ^"#]],
    );
    check(
        "enrolment:'approved'",
        &expect![[r#"
        column 11: `approved` is no value of `enrolment:`; the values are pending, quarantined, enrolled, revoked
          enrolment:'approved'
                    ^"#]],
    );
    check(
        "tags:web-1",
        &expect![[r#"
            column 1: unknown key `tags` (did you mean `tag`?); the keys are name, tag, type, provider, status, enrolment, os, os_version, os_name, kernel, arch, virtualisation, hostname, address, reboot_required, time_synchronised (with `:`) and cpus, memory, swap, uptime, updates, security_updates (with `>=`, `<=`, `>`, `<`, `=`)
              tags:web-1
              ^"#]],
    );
    check(
        "tag:é | web-[a-c]",
        &expect![[r#"
            column 14: brackets hold numbers: `[1-20]`, `[01-20]`, `[1,3,5-9]`; other choices are written `{a,b}`, and literal brackets in quotes
              tag:é | web-[a-c]
                           ^"#]],
    );
    check(
        "tag:web-{1..3}",
        &expect![[r#"
        column 10: a range is written in brackets: `[1-3]`
          tag:web-{1..3}
                   ^"#]],
    );
    check(
        "web-[1, 3]",
        &expect![[r#"
        column 5: the `[` is not closed; write `[1-20]` without spaces
          web-[1, 3]
              ^"#]],
    );
    check(
        "a & | b",
        &expect![[r#"
        column 5: unexpected operator; expected a host name, a key such as `tag:`, `!` or `(`
          a & | b
              ^"#]],
    );
    check(
        ":x",
        &expect![[r#"
        column 1: unexpected `:`; expected a host name, a key such as `tag:`, or `(`
          :x
          ^"#]],
    );
}

#[test]
fn what_means_nothing_says_so() {
    check("tag:none", &expect!["`tag:none` matches none of 5 hosts"]);
    check("web-1 | wbe-2 | mail | mail", &expect!["no such host: `wbe-2` (did you mean `web-2`?), `mail`"]);
    check("all & !gone", &expect!["no such host: `gone`"]);
    check("zzz-*", &expect!["`zzz-*` matches none of 5 hosts"]);
}

#[test]
fn depth_and_length_are_bounded() {
    let nested = |depth: usize| format!("{}a{}", "(".repeat(depth), ")".repeat(depth));
    assert!(Target::parse(&nested(MAX_DEPTH - 1)).is_ok());
    assert!(Target::parse(&nested(MAX_DEPTH)).unwrap_err().to_string().contains("nested deeper"));
    assert!(Target::parse(&"!".repeat(MAX_LENGTH)).is_err());
    assert!(Target::parse(&"(".repeat(MAX_LENGTH)).is_err());
    assert!(Target::parse(&"a|".repeat(MAX_LENGTH)).unwrap_err().to_string().contains("bytes long"));
    let wide = vec!["web-1"; 600].join("|");
    assert_eq!(chosen(&wide), "web-1");
}

/// A thousand hosts whose tags are made to be compared slowly.
fn hostile_tags() -> Vec<Vec<String>> {
    let tag = |host: usize, tag: usize| format!("{}-{host}-{tag}{}", "y".repeat(40), "y".repeat(8));
    (0..1000).map(|host| (0..25).map(|at| tag(host, at)).collect()).collect()
}

#[test]
fn a_hostile_expression_ends_within_its_budget() {
    let tags = hostile_tags();
    let hosts: Vec<HostView<'_>> = tags
        .iter()
        .map(|tags| HostView { tags: tags.iter().map(String::as_str).collect(), ..HostView::default() })
        .collect();
    let stars = (0..45).map(|end| format!("tag:{}z{end}", "*y".repeat(40))).collect::<Vec<_>>().join("|");
    let forks = format!("tag:{}z", "{*y,*yy}".repeat(60));
    let nested = format!("tag:{}{}z", "{*y,*y,*y,*y,*y,*y,*y,*y,*y,*y,*y,*y,".repeat(8), "}".repeat(8));
    for (expression, is_cheap) in [(&stars, true), (&forks, true), (&nested, false)] {
        let mut budget = Budget::of(MAX_STEPS);
        let ended = Target::parse(expression).unwrap().select_within(&hosts, &mut budget).unwrap_err();
        if is_cheap {
            assert!(matches!(ended, NoTarget::Nothing { .. }), "{ended}");
            assert!(MAX_STEPS - budget.left() < 20_000_000, "{}", budget.left());
        } else {
            assert!(matches!(ended, NoTarget::TooCostly { .. } | NoTarget::Nothing { .. }), "{ended}");
        }
    }
    check_costly(&hosts);
}

fn check_costly(hosts: &[HostView<'_>]) {
    let error = Target::parse("all & *").unwrap().select_within(hosts, &mut Budget::of(100)).unwrap_err();
    expect!["target too costly for 1000 hosts; make the pattern simpler: fewer `*` and braces in it, or fewer patterns"]
        .assert_eq(&error.to_string());
}

#[test]
fn a_tag_is_compared_once_however_many_hosts_have_it() {
    let one = "y".repeat(60);
    let hosts: Vec<HostView<'_>> =
        (0..10_000).map(|_| HostView { tags: vec![&one; 10], ..HostView::default() }).collect();
    let mut budget = Budget::of(MAX_STEPS);
    let target = Target::parse(&format!("tag:{}z", "{*y,*yy}".repeat(30))).unwrap();
    assert!(matches!(target.select_within(&hosts, &mut budget), Err(NoTarget::Nothing { .. })));
    assert!(MAX_STEPS - budget.left() < 500_000, "{}", budget.left());
}

#[test]
fn what_was_perhaps_meant_is_looked_for_within_the_budget() {
    let names: Vec<String> = (0..20_000).map(|at| format!("host-with-a-rather-long-name-{at}")).collect();
    let hosts: Vec<HostView<'_>> =
        names.iter().map(|name| HostView { name, ..HostView::default() }).collect();
    let unknown =
        (0..90).map(|at| format!("host-with-a-rather-long-nome-{at}")).collect::<Vec<_>>().join("|");
    let Err(NoTarget::UnknownNames { names }) = Target::parse(&unknown).unwrap().select(&hosts) else {
        panic!("none of them is known");
    };
    assert_eq!(names.len(), 90);
    assert!(names.iter().filter(|(_, nearest)| nearest.is_some()).count() <= 3);
}

/// An expression as data, with its own way to print and to evaluate: what the parser is compared with.
#[derive(Debug, Clone)]
enum Model {
    All,
    Name(usize),
    Prefix(&'static str),
    Tag(&'static str),
    Not(Box<Model>),
    And(Vec<Model>),
    Or(Vec<Model>),
}

const NAMES: [&str; 5] = ["web-1", "web-2", "web-9", "db-1", "new"];

fn model() -> impl Strategy<Value = Model> {
    let leaf = prop_oneof![
        Just(Model::All),
        (0..NAMES.len()).prop_map(Model::Name),
        prop::sample::select(vec!["web-", "db", "", "x"]).prop_map(Model::Prefix),
        prop::sample::select(vec!["prod", "web", "lab", "none"]).prop_map(Model::Tag),
    ];
    leaf.prop_recursive(5, 40, 4, |inner| {
        prop_oneof![
            inner.clone().prop_map(|model| Model::Not(Box::new(model))),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Model::And),
            prop::collection::vec(inner, 2..4).prop_map(Model::Or),
        ]
    })
}

/// How tightly the place binds that a model is printed into: parentheses are put only where needed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Binding {
    Or,
    And,
    Not,
}

fn print(model: &Model, place: Binding, words: bool) -> String {
    let join = |models: &[Model], operator: &str, own: Binding| {
        // An operand of the same kind would be flattened: the value is the same, so no parentheses either.
        let printed: Vec<_> = models.iter().map(|model| print(model, own, words)).collect();
        let joined = printed.join(operator);
        if place > own { format!("({joined})") } else { joined }
    };
    match model {
        Model::All => "all".to_owned(),
        Model::Name(index) => NAMES[*index].to_owned(),
        Model::Prefix(prefix) => format!("{prefix}*"),
        Model::Tag(tag) => format!("tag:{tag}"),
        Model::Not(model) => {
            format!("{}{}", if words { "not " } else { "!" }, print(model, Binding::Not, words))
        }
        Model::And(models) => join(models, if words { " and " } else { "&" }, Binding::And),
        Model::Or(models) => join(models, if words { " or " } else { " , " }, Binding::Or),
    }
}

fn naive(model: &Model, host: &HostView<'_>) -> bool {
    match model {
        Model::All => true,
        Model::Name(index) => host.name == NAMES[*index],
        Model::Prefix(prefix) => host.name.starts_with(prefix),
        Model::Tag(tag) => host.tags.contains(tag),
        Model::Not(model) => !naive(model, host),
        Model::And(models) => models.iter().all(|model| naive(model, host)),
        Model::Or(models) => models.iter().any(|model| naive(model, host)),
    }
}

/// Globs by definition: every way to let `*` swallow something.
fn naive_glob(pattern: &[char], text: &[char]) -> bool {
    match (pattern, text) {
        ([], text) => text.is_empty(),
        (['*', pattern @ ..], text) => (0..=text.len()).any(|taken| naive_glob(pattern, &text[taken..])),
        (['?', pattern @ ..], [_, text @ ..]) => naive_glob(pattern, text),
        ([wanted, pattern @ ..], [found, text @ ..]) => wanted == found && naive_glob(pattern, text),
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn p9_a_selection_is_all_that_match_and_nothing_else(model in model(), words in any::<bool>()) {
        let hosts = fleet(&[]);
        let expression = print(&model, Binding::Or, words);
        let expected: Vec<_> = (0..hosts.len()).filter(|&index| naive(&model, &hosts[index])).collect();
        let selected = Target::parse(&expression).unwrap().select(&hosts);
        match selected {
            Ok(selected) => prop_assert_eq!(selected, expected, "{}", expression),
            Err(NoTarget::Nothing { .. }) => prop_assert!(expected.is_empty(), "{}", expression),
            Err(error) => prop_assert!(false, "{}: {}", expression, error),
        }
    }

    #[test]
    fn globs_match_by_definition(pattern in "[ab*?]{0,10}", text in "[ab]{0,12}") {
        let chars = |text: &str| text.chars().collect::<Vec<_>>();
        prop_assert_eq!(
            pattern::Pattern::glob(&pattern).unwrap().matches(&text, &mut Budget::of(u64::MAX)).unwrap(),
            naive_glob(&chars(&pattern), &chars(&text))
        );
    }

    #[test]
    fn any_text_is_an_expression_or_an_error_with_a_place(text in r#"[a-z0-9é&|!()," ':*?<>=.\[\]{}-]{0,60}|.{0,60}"#) {
        if let Err(error) = Target::parse(&text) {
            prop_assert!(error.column() <= text.chars().count() + 1);
            prop_assert!(!error.to_string().is_empty());
        }
    }
}

proptest! {
    /// A name that a host may have means that host when it is written bare, and none other.
    #[test]
    fn a_name_that_is_not_refused_means_its_host(
        text in prop_oneof!["[a-zA-Z][a-z0-9-]{0,6}[a-z0-9]", prop::sample::select(WORDS).prop_map(str::to_owned)]
    ) {
        let name: HostName = text.parse().unwrap();
        let alone = Target::parse(&text).is_ok_and(|target| {
            let host = |name| HostView { name, ..fleet(&[]).remove(0) };
            target.select(&[host(text.as_str()), host("another-host")]) == Ok(vec![0])
        });
        let is_word = WORDS.contains(&text.to_lowercase().as_str());
        prop_assert_eq!(check_name(&name).is_err(), is_word);
        prop_assert!(alone || is_word, "{} does not mean its host", text);
    }
}
