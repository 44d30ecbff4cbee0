use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const SCRIPT: &str = "#!/bin/bash\necho hello\n";

/// A commit in memory: path to content; paths that end in `!` are not executable.
fn read(files: &[(&str, &str)]) -> Result<Inventory, Vec<Problem>> {
    let files: BTreeMap<String, Vec<u8>> =
        files.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())).collect();
    read_bytes(&files)
}

fn read_bytes(files: &BTreeMap<String, Vec<u8>>) -> Result<Inventory, Vec<Problem>> {
    parse(&|path, limit| match files.get(path.as_str()) {
        Some(content) if content.len() > limit => Found::TooLarge { size: content.len() as u64 },
        Some(content) => Found::File { content: content.clone(), executable: true },
        None if files.contains_key(&format!("{path}!")) => {
            Found::File { content: files[&format!("{path}!")].clone(), executable: false }
        }
        None if path.as_str().contains("symlink") => Found::NotAFile("a symbolic link"),
        None => Found::Missing,
    })
}

fn client(number: u32) -> String {
    format!("LINKOPS-00000000-0000-4000-8000-{number:012}")
}

fn link(number: u32) -> String {
    format!(
        "{{type: VM, host: 192.0.2.{number}, port: 22, user: ops, enrollment: {{clientId: {}}}}}",
        client(number)
    )
}

/// What stands against one `links.yaml`, as text.
fn against_links(text: &str) -> Vec<String> {
    read(&[("links.yaml", text)])
        .map_or_else(|problems| problems, |inventory| inventory.warnings)
        .iter()
        .map(ToString::to_string)
        .collect()
}

fn against_scripts(entry: &str, content: &str) -> Vec<String> {
    let text = format!("scripts:\n  a:\n    name: A\n    description: Does a\n    {entry}\n");
    read(&[("scripts.yaml", &text), ("a.sh", content), ("b.sh!", SCRIPT)])
        .map_or_else(|problems| problems, |inventory| inventory.warnings)
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn no_host_is_called_by_a_word_of_target_expressions() {
    for name in ["all", "All", "not", "and", "or"] {
        let found = against_links(&format!("links:\n  a: {}\n  {name}: {}\n", link(1), link(2)));
        assert!(
            found[0].starts_with(&format!("links.yaml:3:1: links.{name}: a host cannot be called")),
            "{found:?}"
        );
    }
}

#[test]
fn reads_every_field() {
    let links = "\
links:
  edge-7:
    type: vm
    provider: Debian
    host: 192.0.2.7
    port: 2222
    user: ops
    tags: [lab, lab, 2024]
    enrollment: {required: no, clientId: LINKOPS-00000000-0000-4000-8000-000000000007}
    ssh: {keyRef: lab_ed25519, proxyJump: hyper-1}
    metadata: {parent: hyper-1, os: Debian 12, icon: /logos/debian.svg, rack: 4, note: ~}
  hyper-1:
    type: Proxmox
    host: hyper-1.example.com
    port: 22
    user: root
    enrollment: {clientId: FLEET-00000000-0000-4000-8000-000000000001}
    ssh: {keyRef: lab_ed25519, proxyJump: null}
";
    let scripts = "\
scripts:
  rotate_logs: {name: Rotate logs, description: Force log rotation, path: ./scripts/rotate_logs.sh, emoji: '♻️', flags: [--dry-run, --keep=REQUIRED, --level=3], estimatedDuration: 20, tags: [maintenance], timeout: 5m, user: www-data, resources: [apt]}
";
    let inventory =
        read(&[("links.yaml", links), ("scripts.yaml", scripts), ("scripts/rotate_logs.sh", SCRIPT)])
            .unwrap();
    assert_eq!(inventory.warnings, []);
    assert_eq!(inventory.absent, Vec::<String>::new());
    let [edge, hyper] = &inventory.hosts[..] else { panic!("{inventory:?}") };
    assert_eq!(
        (edge.name.as_str(), edge.kind.as_str(), edge.provider.as_str(), edge.port, edge.line),
        ("edge-7", "VM", "Debian", 2222, 2)
    );
    assert_eq!((edge.address.as_str(), edge.user.as_str()), ("192.0.2.7", "ops"));
    assert_eq!(edge.client_id.as_str(), client(7));
    assert_eq!(edge.tags.iter().map(Tag::as_str).collect::<Vec<_>>(), ["lab", "2024"]);
    assert!(!edge.enrollment_required && hyper.enrollment_required);
    assert_eq!(edge.key_ref.as_deref(), Some("lab_ed25519"));
    assert_eq!((edge.proxy_jump.as_ref(), &hyper.proxy_jump), (Some(&hyper.name), &None));
    assert_eq!(
        serde_json::Value::Object(edge.metadata.clone()),
        serde_json::json!({"parent": "hyper-1", "os": "Debian 12", "icon": "/logos/debian.svg", "rack": 4, "note": null})
    );
    let [script] = &inventory.scripts[..] else { panic!("{inventory:?}") };
    assert_eq!((script.title.as_str(), script.description.as_str()), ("Rotate logs", "Force log rotation"));
    assert_eq!(script.path.as_ref().map(RepoPath::as_str), Some("scripts/rotate_logs.sh"));
    let flags: Vec<_> = script.flags.iter().map(|flag| (flag.flag.as_str(), flag.requires_value)).collect();
    assert_eq!(flags, [("--dry-run", false), ("--keep", true), ("--level=3", false)]);
    assert_eq!(script.estimated, Some(Duration::from_secs(20)));
    assert_eq!(script.timeout, Some(Duration::from_secs(300)));
    assert_eq!(script.user.as_ref().map(LinuxUser::as_str), Some("www-data"));
    assert_eq!(script.resources.len(), 1);
    assert_eq!(script.digest, Digest::of(SCRIPT.as_bytes()));
}

#[test]
fn a_script_says_what_it_takes() {
    let scripts = "\
scripts:
  deploy:
    name: Deploy
    description: Deploys
    path: a.sh
    flags: [--dry-run]
    arguments: any
    environment:
      VERSION: {description: What to deploy, required: true}
      API_TOKEN: {secret: yes}
      COLOUR:
    user: www-data
    users: [postgres, postgres]
  plain: {name: P, description: P, path: a.sh}
  strict: {name: P, description: P, path: a.sh, flags: [-v], environment: [A, B]}
  bare: {name: P, description: P, path: a.sh, arguments: none}
";
    let inventory = read(&[("scripts.yaml", scripts), ("a.sh", SCRIPT)]).unwrap();
    assert_eq!(inventory.warnings, []);
    let [bare, deploy, plain, strict] = &inventory.scripts[..] else { panic!("{inventory:?}") };
    let variables: Vec<_> = deploy
        .environment
        .iter()
        .map(|variable| {
            (variable.name.as_str(), variable.description.as_str(), variable.required, variable.secret)
        })
        .collect();
    assert_eq!(
        variables,
        [
            ("VERSION", "What to deploy", true, false),
            ("API_TOKEN", "", false, true),
            ("COLOUR", "", false, false)
        ]
    );
    assert_eq!(deploy.users.iter().map(LinuxUser::as_str).collect::<Vec<_>>(), ["postgres"]);
    assert_eq!(strict.environment.len(), 2);
    let free = [bare, deploy, plain, strict].map(|script| script.free_arguments);
    assert_eq!(free, [FreeArguments::None, FreeArguments::Any, FreeArguments::Any, FreeArguments::None]);
}

#[test]
fn reads_the_rival_shapes() {
    let one = link(1);
    for text in [format!("machines:\n  web-1: {one}\n"), format!("links: {{web-1: {one}}}\nmachines: []\n")] {
        let inventory = read(&[("links.yaml", &text)]).unwrap();
        assert_eq!((inventory.hosts.len(), inventory.hosts[0].name.as_str()), (1, "web-1"));
        assert_eq!(inventory.absent, ["scripts.yaml"]);
    }
    let list = format!(
        "machines:\n- id: web-1\n  name: The first\n  ip: 192.0.2.1\n  hostname: one.example.com\n  ssh_user: root\n  ssh_key: keys/one\n  description: First one\n  tags: [web]\n  clientId: {}\n",
        client(1)
    );
    let inventory = read(&[("links.yml", &list)]).unwrap();
    let host = &inventory.hosts[0];
    assert_eq!((host.address.as_str(), host.port, host.kind.as_str()), ("192.0.2.1", 22, "VPS"));
    assert_eq!(host.key_ref.as_deref(), Some("keys/one"));
    assert_eq!(host.metadata["description"], "First one");
    for empty in ["machines: []", "machines: {}", "links: {}"] {
        assert_eq!(read(&[("links.yaml", empty)]).unwrap().hosts, []);
    }
    let scripts = "scripts:\n- {id: up, name: Up, description: Since when, command: uptime}\n";
    let inventory = read(&[("scripts.yaml", scripts)]).unwrap();
    assert_eq!(inventory.scripts[0].content, b"#!/bin/bash\nuptime");
    assert_eq!(inventory.scripts[0].path, None);
    assert_eq!(read(&[("scripts.yaml", "scripts: []")]).unwrap().scripts, []);
}

#[test]
fn nothing_is_not_none() {
    for null in ["", " ~", " null", " NULL", " # none yet"] {
        for key in ["links", "machines"] {
            let found = against_links(&format!("{key}:{null}\n"));
            let expected = format!(
                "links.yaml:1:1: {key}: has to be a map from name to host, but is nothing; an empty fleet is written `{key}: {{}}`"
            );
            assert_eq!(found, [expected]);
        }
        let problems = read(&[("scripts.yaml", &format!("scripts:{null}\n"))]).unwrap_err();
        assert!(
            problems[0].message.ends_with("is nothing; no scripts are written `scripts: {}`"),
            "{problems:?}"
        );
        for field in ["tags", "flags", "resources", "timeout", "estimatedDuration", "user"] {
            let found = against_scripts(&format!("path: a.sh\n    {field}:{null}"), SCRIPT);
            let expected = format!("scripts.yaml:6:5: scripts.a.{field}: is there, but has no value; ");
            assert!(found.len() == 1 && found[0].starts_with(&expected), "{found:?}");
        }
        for field in ["tags", "ssh", "metadata"] {
            let host = format!(
                "links:\n  a:\n    type: VM\n    host: 192.0.2.1\n    port: 22\n    user: ops\n    {field}:{null}\n    enrollment: {{clientId: {}}}\n",
                client(1)
            );
            let found = against_links(&host);
            assert!(
                found.len() == 1
                    && found[0].contains(&format!("links.a.{field}: is there, but has no value")),
                "{found:?}"
            );
        }
    }
    // Where nothing and none are the same, both are taken.
    let host = link(1).replace("port: 22", "port: 22, provider: ~, ssh: {keyRef: null, proxyJump: null}");
    assert_eq!(against_links(&format!("links: {{a: {host}}}")), Vec::<String>::new());
}

#[test]
fn what_hides_text_is_refused_wherever_it_stands() {
    for (text, at) in [
        ("links: {} # \u{202e}", "1:13"),
        ("links:\n  a: {provider: \"x\u{2066}y\"}", "2:19"),
        ("links:\n  a: {provider: \"x\\u202Ey\"}", "2:17"),
        ("links:\n  a: {metadata: {note: \"\\e[31m\"}}", "2:24"),
    ] {
        let found = against_links(text);
        assert!(found[0].starts_with(&format!("links.yaml:{at}: has the character U+")), "{found:?}");
    }
    let found = against_scripts("path: a.sh", "#!/bin/bash\n# \u{202e} }; dlo\n");
    assert!(found[0].contains("line 2 of the script has the character U+202E"), "{found:?}");
}

#[test]
fn says_what_a_file_is_instead() {
    let lfs = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n";
    for (content, expected) in [
        ("\u{feff}#!/bin/bash\n", "the script begins with a byte order mark (BOM)"),
        ("\u{feff}#!/bin/bash\r\n", "the script begins with a byte order mark (BOM)"),
        (lfs, "the script is a Git LFS pointer"),
        ("\0GITCRYPT\0x", "the script is encrypted by git-crypt"),
        ("../.git/annex", "the script has no #! line"),
        ("/annex/objects/SHA256E-s1--0", "the script is a git-annex pointer"),
        (
            "#!/usr/bin/env -S bash -x\n",
            "the script begins with `#!/usr/bin/env -S bash -x`: `env -S` is not",
        ),
        (
            "#!/usr/bin/env --split-string=bash\n",
            "the script begins with `#!/usr/bin/env --split-string=bash`: `env -S`",
        ),
        (
            "#!/usr/bin/env -S python3\n",
            "the script begins with `#!/usr/bin/env -S python3`, but only bash is run",
        ),
    ] {
        let found = against_scripts("path: a.sh", content);
        assert!(
            found.len() == 1
                && found[0].starts_with(&format!("scripts.yaml:5:11: scripts.a.path: {expected}")),
            "{content:?} {found:?}"
        );
    }
    let utf16: Vec<u8> =
        [0xff, 0xfe].into_iter().chain("links: {}".encode_utf16().flat_map(u16::to_le_bytes)).collect();
    for (content, expected) in
        [(lfs.as_bytes().to_vec(), "is a Git LFS pointer"), (utf16, "is UTF-16; save it as UTF-8")]
    {
        let problems = read_bytes(&BTreeMap::from([("links.yaml".to_owned(), content)])).unwrap_err();
        assert!(problems[0].to_string().starts_with(&format!("links.yaml:1:1: {expected}")), "{problems:?}");
    }
}

#[test]
fn a_remedy_can_be_copied() {
    let files = [
        ("scripts.yaml", "scripts: {a: {name: A, description: D, path: \"it's $(x)/a b.sh\"}}"),
        ("it's $(x)/a b.sh!", SCRIPT),
    ];
    let warnings = read(&files).unwrap().warnings;
    assert!(
        warnings[0].message.ends_with(r"(run: git update-index --chmod=+x -- 'it'\''s $(x)/a b.sh')"),
        "{warnings:?}"
    );
    for (text, word) in [
        ("a/b.sh", "a/b.sh"),
        ("", "''"),
        ("a b", "'a b'"),
        ("-x", "'-x'"),
        ("~x", "'~x'"),
        ("a'b", r"'a'\''b'"),
        ("é", "'é'"),
    ] {
        assert_eq!(shell_word(text), word);
    }
}

#[test]
fn addresses_and_templates_are_told_how_they_are_written() {
    let with = |host: &str| against_links(&format!("links:\n  a: {}\n", link(1).replace("192.0.2.1", host)));
    let block = |host: &str| {
        against_links(&format!(
            "links:\n  a:\n    type: VM\n    host: {host}\n    port: 22\n    user: ops\n    enrollment: {{clientId: {}}}\n",
            client(1)
        ))
    };
    for (found, expected) in [
        (
            block("[2001:db8::1]"),
            "links.yaml:4:11: links.a.host: is a list for YAML; write an IPv6 address without brackets",
        ),
        (with("'[2001:db8::1]'"), "write an IPv6 address without brackets"),
        (with("'[2001:db8::1]:22'"), "write an IPv6 address without brackets"),
        (with("\"{{ ip }}\""), "nothing fills templates in here"),
        (block("{{ ip }}"), "has to be in quotes"),
        (block("{{ip}}"), "has to be in quotes"),
    ] {
        assert!(found.len() == 1 && found[0].contains(expected), "{found:?} wanted {expected}");
    }
    assert_eq!(with("'2001:db8::1'"), Vec::<String>::new());
}

#[test]
fn says_what_is_wrong_with_hosts_and_where() {
    let head = "links:\n  web-1:\n    ";
    let rest = format!(
        "\n    host: 192.0.2.1\n    port: 22\n    user: ops\n    enrollment: {{clientId: {}}}\n",
        client(1)
    );
    let with_type = |text: &str| format!("{head}type: {text}{rest}");
    let two = |first: &str, second: &str| format!("links:\n  {first}\n  {second}\n");
    for (text, expected) in [
        (String::new(), "links.yaml:1:1: is empty"),
        ("links".to_owned(), "links.yaml:1:1: has to be a map with the key `links`, but is `links`"),
        ("hosts: {}".to_owned(), "links.yaml:1:1: links: is required, but is missing"),
        ("links: 7".to_owned(), "links.yaml:1:1: links: has to be a map from name to host, but is `7`"),
        ("links: []".to_owned(), "links.yaml:1:1: links: has to be a map from name to host, but is a list"),
        (
            "links:\n  web-1: 3".to_owned(),
            "links.yaml:2:3: links.web-1: has to be a map of fields, but is `3`",
        ),
        (with_type("[VM]"), "links.yaml:3:11: links.web-1.type: has to be text, but is a list"),
        (with_type("\"a b\""), "links.yaml:3:11: links.web-1.type: `a b` is not a type"),
        (
            with_type("true"),
            "links.yaml:3:11: links.web-1.type: has to be text, but is `true`; put it in quotes",
        ),
        (with_type("Cloud"), "links.yaml:3:11: links.web-1.type: `Cloud` is none of the usual types"),
        (with_type("VM\n    colour: red"), "links.yaml:4:5: links.web-1.colour: is not a field known here"),
        (
            with_type("VM\n    tags: {a: b}"),
            "links.yaml:4:5: links.web-1.tags: has to be a list, but is a map",
        ),
        (with_type("VM\n    tags: [a b]"), "links.yaml:4:12: links.web-1.tags[0]: `a b` is not a valid tag"),
        (
            with_type("VM\n    tags: [[a]]"),
            "links.yaml:4:12: links.web-1.tags[0]: has to be text, but is a list",
        ),
        (
            with_type("VM\n    port: 22"),
            "links.yaml:6:5: port: the key `port` is already in line 4; remove one",
        ),
        (
            with_type("VM\n    metadata: [1]"),
            "links.yaml:4:5: links.web-1.metadata: has to be a map, but is a list",
        ),
        (
            with_type("VM\n    ssh: {proxyJump: web-1}"),
            "links.yaml:2:3: links.web-1.ssh.proxyJump: names the host itself",
        ),
        (
            with_type("VM\n    ssh: {proxyJump: gone}"),
            "links.yaml:2:1: links.web-1.ssh.proxyJump: `gone` is not a host",
        ),
        (
            with_type("VM").replace("22", "\"22\""),
            "links.yaml:5:11: links.web-1.port: has to be a whole number from 1 to 65535, but is the text \"22\"; remove the quotes",
        ),
        (with_type("VM").replace("22", "0"), "links.yaml:5:11: links.web-1.port: has to be a whole number"),
        (
            with_type("VM").replace("22", "65536"),
            "links.yaml:5:11: links.web-1.port: has to be a whole number",
        ),
        (with_type("VM").replace("22", "2.2"), "links.yaml:5:11: links.web-1.port: has to be a whole number"),
        (
            with_type("VM").replace("192.0.2.1", "a;rm"),
            "links.yaml:4:11: links.web-1.host: `a;rm` is neither",
        ),
        (
            with_type("VM").replace("LINKOPS-0000", "LINKOPS-xx"),
            "links.yaml:7:28: links.web-1.enrollment.clientId: `LINKOPS-xx",
        ),
        (
            with_type("VM").replace("enrollment: {", "enrollment: {required: maybe, "),
            "links.yaml:7:28: links.web-1.enrollment.required: has to be true or false",
        ),
        (
            two(&format!("a: {}", link(1)), &format!("a: {}", link(2))),
            "links.yaml:3:3: a: the key `a` is already in line 2",
        ),
        (
            two(&format!("a: {}", link(1)), &format!("b: {}", link(1))),
            "links.yaml:3:1: links.b.enrollment.clientId: LINKOPS-00000000-0000-4000-8000-000000000001 already belongs to `a` in line 2",
        ),
        (
            two(&format!("../a: {}", link(1)), ""),
            "links.yaml:2:3: links.../a: `../a` is not a valid host name",
        ),
        (
            format!("links: {{a: {}}}\nmachines:\n- {{id: a, {}", link(1), &link(2)[1..]),
            "links.yaml:3:1: links.a: the host is already in line 1",
        ),
    ] {
        let found = against_links(&text);
        assert!(
            found.iter().any(|problem| problem.starts_with(expected)),
            "{text}\n{found:#?}\nwanted {expected}"
        );
    }
}

#[test]
fn reports_every_problem_not_only_the_first() {
    let found = against_links("links:\n  a: {type: VM}\n  b: {port: x}\nextra: 1\n");
    assert_eq!(found.len(), 4 + 5 + 1, "{found:#?}");
    let many: String = (0..1000).map(|n| format!("  h{n}: {{}}\n")).collect();
    let problems = read(&[("links.yaml", &format!("links:\n{many}"))]).unwrap_err();
    assert_eq!(problems.len(), MAX_PROBLEMS + 1);
    assert_eq!(problems[MAX_PROBLEMS].message, "4800 more problems are not shown; correct these first");
}

#[test]
fn says_what_is_wrong_with_scripts_and_where() {
    let large = format!("{SCRIPT}{}", "#".repeat(5_000_000));
    for (entry, content, expected) in [
        (
            "path: a.sh",
            "echo hi",
            "scripts.yaml:5:11: scripts.a.path: the script has no #! line, but only bash is run",
        ),
        ("path: a.sh", "", "scripts.yaml:5:11: scripts.a.path: the script has no #! line"),
        (
            "path: a.sh",
            "#!/usr/bin/env python3\n",
            "scripts.yaml:5:11: scripts.a.path: the script begins with `#!/usr/bin/env python3`",
        ),
        (
            "path: a.sh",
            "#!/bin/bash\r\necho\r\n",
            "scripts.yaml:5:11: scripts.a.path: line 1 of the script ends in CRLF",
        ),
        (
            "path: a.sh",
            "#!/bin/bash\necho\r\n",
            "scripts.yaml:5:11: scripts.a.path: line 2 of the script ends in CRLF",
        ),
        (
            "path: a.sh",
            "#!/bin/bash\n\0",
            "scripts.yaml:5:11: scripts.a.path: the script has a NUL at byte 12",
        ),
        (
            "path: a.sh",
            &large,
            "scripts.yaml:5:11: scripts.a.path: a.sh is 5000023 bytes long, but 1048576 are allowed",
        ),
        ("path: gone.sh", SCRIPT, "scripts.yaml:5:11: scripts.a.path: gone.sh is not in the repository"),
        ("path: symlink.sh", SCRIPT, "scripts.yaml:5:11: scripts.a.path: symlink.sh is a symbolic link"),
        ("path: ../a.sh", SCRIPT, "scripts.yaml:5:11: scripts.a.path: `../a.sh` has a `..`"),
        ("path: /a.sh", SCRIPT, "scripts.yaml:5:11: scripts.a.path: `/a.sh` is absolute"),
        ("path: [a.sh]", SCRIPT, "scripts.yaml:5:11: scripts.a.path: has to be text, but is a list"),
        ("path: b.sh", SCRIPT, "scripts.yaml:5:11: scripts.a.path: b.sh is not executable in git"),
        ("tags: []", SCRIPT, "scripts.yaml:2:3: scripts.a.path: is required, but is missing"),
        (
            "command: '#!/bin/sh'",
            SCRIPT,
            "scripts.yaml:5:14: scripts.a.command: the script begins with `#!/bin/sh`",
        ),
        (
            "path: a.sh\n    command: uptime",
            SCRIPT,
            "scripts.yaml:5:5: scripts.a.path: stands beside `command`",
        ),
        (
            "path: a.sh\n    timeout: never",
            SCRIPT,
            "scripts.yaml:6:14: scripts.a.timeout: has to be whole seconds or a span",
        ),
        (
            "path: a.sh\n    timeout: 99999d",
            SCRIPT,
            "scripts.yaml:6:14: scripts.a.timeout: has to be whole seconds or a span",
        ),
        (
            "path: a.sh\n    timeout: 0",
            SCRIPT,
            "scripts.yaml:6:14: scripts.a.timeout: has to be a whole number from 1",
        ),
        (
            "path: a.sh\n    estimatedDuration: -3",
            SCRIPT,
            "scripts.yaml:6:24: scripts.a.estimatedDuration: has to be a whole number",
        ),
        (
            "path: a.sh\n    user: Ops Team",
            SCRIPT,
            "scripts.yaml:6:11: scripts.a.user: `Ops Team` is not a valid Linux user",
        ),
        (
            "path: a.sh\n    flags: [{a: b}]",
            SCRIPT,
            "scripts.yaml:6:13: scripts.a.flags[0]: has to be text, but is a map",
        ),
        (
            "path: a.sh\n    environment:\n      VERSION:\n      LD_PRELOAD: {required: true}",
            SCRIPT,
            "scripts.yaml:8:7: scripts.a.environment.LD_PRELOAD: environment variable `LD_PRELOAD` is never taken",
        ),
        (
            "path: a.sh\n    environment: [BASH_ENV]",
            SCRIPT,
            "scripts.yaml:6:19: scripts.a.environment[0]: environment variable `BASH_ENV` is never taken",
        ),
        (
            "path: a.sh\n    environment: [A-B]",
            SCRIPT,
            "scripts.yaml:6:19: scripts.a.environment[0]: environment name `A-B` has to be",
        ),
        (
            "path: a.sh\n    environment: [A, A]",
            SCRIPT,
            "scripts.yaml:6:22: scripts.a.environment[1]: `A` is declared twice",
        ),
        (
            "path: a.sh\n    environment: VERSION",
            SCRIPT,
            "scripts.yaml:6:18: scripts.a.environment: has to be a map from name",
        ),
        (
            "path: a.sh\n    environment: {A: {secret: 7}}",
            SCRIPT,
            "scripts.yaml:6:31: scripts.a.environment.A.secret: has to be true or false",
        ),
        (
            "path: a.sh\n    users: [Ops Team]",
            SCRIPT,
            "scripts.yaml:6:13: scripts.a.users[0]: `Ops Team` is not a valid Linux user",
        ),
        (
            "path: a.sh\n    arguments: some",
            SCRIPT,
            "scripts.yaml:6:16: scripts.a.arguments: has to be `any`",
        ),
        (
            "path: a.sh\n    flags: [\"=x\"]",
            SCRIPT,
            "scripts.yaml:6:13: scripts.a.flags[0]: has to begin with the flag's name",
        ),
        (
            "path: a.sh\n    flags: [\"--a=b=REQUIRED\"]",
            SCRIPT,
            "scripts.yaml:6:13: scripts.a.flags[0]: has two `=`",
        ),
        (
            "path: a.sh\n    colour: red",
            SCRIPT,
            "scripts.yaml:6:5: scripts.a.colour: is not a field known here",
        ),
    ] {
        let found = against_scripts(entry, content);
        assert!(
            found.iter().any(|problem| problem.starts_with(expected)),
            "{entry}\n{found:#?}\nwanted {expected}"
        );
    }
    assert_eq!(against_scripts("path: a.sh", SCRIPT), Vec::<String>::new());
}

#[test]
fn refuses_hostile_yaml_in_bounded_time() {
    let bomb = (1..30).fold("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned(), |text, n| {
        let alias = format!("*a{}", n - 1);
        format!("{text}a{n}: &a{n} [{}]\n", [alias.as_str(); 10].join(","))
    });
    let keys: String = (0..200_000).map(|n| format!("? k{n}\n")).collect();
    for (name, text, expected) in [
        ("bomb", bomb, "links.yaml:5:34: aliases copy more than 100000 values"),
        (
            "self alias",
            "a: &a [*a]\n".to_owned(),
            "links.yaml:1:8: uses an alias inside the thing it stands for",
        ),
        ("unknown alias", "a: *b\n".to_owned(), "links.yaml:1:4: is not valid YAML"),
        ("deep flow", format!("links: {}", "[".repeat(100_000)), "links.yaml:1:"),
        ("deep list", format!("links: {}", "[".repeat(100)), "links.yaml:1:39: nests deeper than 32 levels"),
        ("deep map", format!("links: {}", "{a: ".repeat(100_000)), "links.yaml:1:"),
        ("deep block", "- ".repeat(100_000), "links.yaml:1:65: nests deeper than 32 levels"),
        ("many keys", keys, "links.yaml:1:1: links: is required"),
        ("tab", "links:\n\tweb-1: {}\n".to_owned(), "links.yaml:2:"),
        ("nul", "links: {}\n\0more".to_owned(), "links.yaml:2:1: has the character U+0000"),
        ("escape", "links: {a: \u{1b}[31m}".to_owned(), "links.yaml:1:12: has the character U+001B"),
        (
            "two documents",
            "links: {}\n---\nlinks: {}\n".to_owned(),
            "links.yaml:2:1: begins a second YAML document",
        ),
        ("tag", "links: !!python/object:os.system {}\n".to_owned(), "links.yaml:1:8: has the tag"),
        ("complex key", "{[a]: b}\n".to_owned(), "links.yaml:1:"),
        ("unclosed", "links: {a: [1, 2\n".to_owned(), "links.yaml:"),
        ("unclosed quote", "links: \"a\n\n".to_owned(), "links.yaml:"),
        ("merge", "links: {<<: 3}\n".to_owned(), "links.yaml:1:13: `<<` takes a map"),
    ] {
        let found = against_links(&text);
        assert!(found.iter().any(|problem| problem.starts_with(expected)), "{name}: {found:#?}");
    }
    let tags: String = (0..300_000).map(|n| format!("t{n},")).collect();
    let found = against_links(&format!("links: {{a: {{tags: [{tags}]}}}}"));
    assert!(
        found.iter().any(|problem| problem.ends_with("has 300000 entries, but 1000 are allowed")),
        "{found:#?}"
    );
    let tab = against_links("links:\n\tweb-1: {}\n").join("\n");
    assert!(tab.contains("tab"), "{tab}");
    let problems = read_bytes(&BTreeMap::from([("links.yaml".to_owned(), b"links: {}\n# \xff".to_vec())]));
    assert_eq!(problems.unwrap_err()[0].to_string(), "links.yaml:2:3: is not UTF-8 from here on");
    let huge = "#".repeat(10 << 20);
    let found = against_links(&huge);
    assert_eq!(found, ["links.yaml:1:1: is 10485760 bytes long, but 8388608 are allowed; it was not read"]);
    let both = read(&[("links.yaml", "links: {}"), ("links.yml", "links: {}")]).unwrap_err();
    assert!(both[0].message.contains("keep one"), "{both:?}");
    let none = read(&[]).unwrap_err();
    assert!(none[0].message.contains("neither links.yaml nor scripts.yaml"), "{none:?}");
}

#[test]
fn anchors_and_merge_keys_work_within_the_cap() {
    let text = format!(
        "base: &base {{type: VM, port: 22, user: ops}}\nlinks:\n  a:\n    <<: *base\n    user: root\n    host: 192.0.2.1\n    enrollment: {{clientId: {}}}\n  b:\n    <<: [*base]\n    host: 192.0.2.2\n    enrollment: {{clientId: {}}}\n",
        client(1),
        client(2)
    );
    let inventory = read(&[("links.yaml", &text)]).unwrap();
    let users: Vec<_> = inventory.hosts.iter().map(|host| host.user.as_str()).collect();
    assert_eq!(users, ["root", "ops"]);
}

#[test]
fn a_fleet_of_ten_thousand_is_read() {
    let text: String =
        (0..10_000u32).map(|n| format!("  h{n}: {}\n", link(1).replace(&client(1), &client(n)))).collect();
    assert_eq!(read(&[("links.yaml", &format!("links:\n{text}"))]).unwrap().hosts.len(), 10_000);
}

/// A file whose only key has no entries is written with `{}`.
fn whole(text: String) -> String {
    if text.lines().count() > 1 { text } else { text.replace('\n', " {}\n") }
}

/// One host as a person might write it, with the fields that must be there.
fn any_host() -> impl Strategy<Value = (String, String, u8, u16, String)> {
    (
        "[a-z0-9][a-z0-9_.-]{0,12}",
        prop_oneof!["VPS", "Proxmox", "VM"],
        any::<u8>(),
        1u16..,
        "[a-z_][a-z0-9_-]{0,8}",
    )
        .prop_filter("typed by YAML, or a word of target expressions", |(name, _, _, _, user)| {
            !matches!(user.as_str(), "null" | "true" | "false")
                && name != "null"
                && !crate::fleet::target::WORDS.contains(&name.as_str())
                && user.parse::<f64>().is_err()
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn p4_a_good_inventory_is_reflected_whole(
        hosts in proptest::collection::vec(any_host(), 0..8),
        scripts in proptest::collection::btree_map("[a-z0-9][a-z0-9_.-]{0,12}", "[ -~]{0,40}", 0..6),
        flow in any::<bool>(),
    ) {
        let hosts: BTreeMap<_, _> = hosts.into_iter().enumerate().map(|(n, host)| (host.0.clone(), (n, host))).collect();
        let mut links = "links:\n".to_owned();
        for (name, (n, (_, kind, octet, port, user))) in &hosts {
            let id = client(u32::try_from(*n).unwrap());
            links.push_str(&if flow {
                format!("  '{name}': {{port: {port}, user: {user}, type: {kind}, host: 192.0.2.{octet}, enrollment: {{clientId: {id}}}}}\n")
            } else {
                format!("  '{name}':\n    type: {kind}\n    host: \"192.0.2.{octet}\"\n    port: {port}\n    user: {user}\n    enrollment:\n      clientId: {id}\n")
            });
        }
        let mut listing = "scripts:\n".to_owned();
        let mut files = BTreeMap::new();
        for (name, text) in &scripts {
            listing.push_str(&format!("  '{name}': {{name: \"Run {name}\", description: It runs, path: s/{name}.sh}}\n"));
            files.insert(format!("s/{name}.sh"), format!("{SCRIPT}: {text:?}\n").into_bytes());
        }
        files.insert("links.yaml".to_owned(), whole(links).into_bytes());
        files.insert("scripts.yaml".to_owned(), whole(listing).into_bytes());
        let inventory = read_bytes(&files).unwrap();
        let found: Vec<_> = inventory.hosts.iter().map(|host| host.name.to_string()).collect();
        prop_assert_eq!(found, hosts.keys().cloned().collect::<Vec<_>>());
        for host in &inventory.hosts {
            let (n, (_, kind, octet, port, user)) = &hosts[host.name.as_str()];
            prop_assert_eq!(host.client_id.to_string(), client(u32::try_from(*n).unwrap()));
            prop_assert_eq!((&host.kind, &host.address, host.port, &host.user), (kind, &format!("192.0.2.{octet}"), *port, user));
        }
        prop_assert_eq!(inventory.scripts.len(), scripts.len());
        for script in &inventory.scripts {
            prop_assert_eq!(&script.content, &files[&format!("s/{}.sh", script.name)]);
            prop_assert_eq!(script.digest, Digest::of(&script.content));
        }
    }

    #[test]
    fn p5_a_missing_required_field_is_named_with_its_line(
        before in 0usize..5,
        missing in 0usize..8,
        how in 0usize..3,
    ) {
        let names = ["type", "host", "port", "user", "enrollment.clientId", "name", "description", "path"];
        let link = |number: u32, without: Option<&str>| {
            let id = client(number);
            let lines = [("type", "VM"), ("host", "192.0.2.9"), ("port", "22"), ("user", "ops")];
            let mut text: String = lines
                .iter()
                .map(|(name, value)| line("    ", name, value, without, how))
                .collect();
            if without == Some("enrollment.clientId") {
                text.push_str(["    enrollment: {required: true}\n", "", "    enrollment: {clientId: }\n"][how]);
            } else {
                text.push_str(&format!("    enrollment:\n      clientId: {id}\n"));
            }
            text
        };
        let script = |without: Option<&str>| -> String {
            [("name", "A"), ("description", "Does it"), ("path", "a.sh")]
                .iter()
                .map(|(name, value)| line("    ", name, value, without, how))
                .collect()
        };
        let (mut links, mut scripts) = ("links:\n".to_owned(), "scripts:\n".to_owned());
        for n in 0..u32::try_from(before).unwrap() {
            links.push_str(&format!("  h{n}:\n{}", link(n, None)));
            scripts.push_str(&format!("  s{n}:\n{}", script(None)));
        }
        let (file, text, owner) = if missing < 5 {
            ("links.yaml", &mut links, "links.bad")
        } else {
            ("scripts.yaml", &mut scripts, "scripts.bad")
        };
        let expected_line = text.lines().count() + 1;
        text.push_str("  bad:\n    tags: [x]\n");
        text.push_str(&if missing < 5 { link(99, Some(names[missing])) } else { script(Some(names[missing])) });
        let last = text.lines().count();
        let (links, scripts) = (whole(links), whole(scripts));
        let problems = read(&[("links.yaml", &links), ("scripts.yaml", &scripts), ("a.sh", SCRIPT)]).unwrap_err();
        prop_assert_eq!(problems.len(), 1, "{:?}", problems);
        prop_assert_eq!(&problems[0].file, file);
        let field = format!("{owner}.{}", names[missing]);
        prop_assert_eq!(&problems[0].field, &field);
        prop_assert!((expected_line..=last).contains(&(problems[0].line as usize)), "{}", problems[0]);
        prop_assert!(problems[0].message.starts_with("is required"), "{}", problems[0]);
    }

    #[test]
    fn p6_malformed_yaml_names_file_and_line(
        good in 0u32..20,
        bad in prop_oneof![
            Just("  x: [1, 2\n  y: 3\n"),
            Just("  x: \"open\n"),
            Just("\tx: 1\n"),
            Just("  x: y: z\n"),
            Just("  x: {a: b\n"),
            Just("  x: *nowhere\n"),
            Just("  x: @at\n"),
            Just("  - x\n"),
            Just("  x: %y\n  }\n"),
        ],
        scripts in any::<bool>(),
    ) {
        let mut text = if scripts { "scripts:\n".to_owned() } else { "links:\n".to_owned() };
        for n in 0..good {
            text.push_str(&format!("  h{n}: {}\n", link(n)));
        }
        let broken_at = text.lines().count() + 1;
        text.push_str(bad);
        // Block collections cannot change kind half-way; without an entry before it the list is well-formed.
        prop_assume!(good > 0 || !bad.starts_with("  - "));
        let file = if scripts { "scripts.yaml" } else { "links.yaml" };
        let problems = read(&[(file, &text)]).unwrap_err();
        prop_assert_eq!(&problems[0].file, file);
        prop_assert!(problems[0].message.contains("not valid YAML"), "{}", problems[0]);
        let line = problems[0].line as usize;
        prop_assert!((broken_at.saturating_sub(1)..=broken_at + 3).contains(&line), "{} {}", broken_at, problems[0]);
    }

    #[test]
    fn p6_any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = read_bytes(&BTreeMap::from([("links.yaml".to_owned(), bytes.clone()), ("scripts.yaml".to_owned(), bytes)]));
    }

    #[test]
    fn p6_any_yaml_like_text_is_read_or_refused(
        text in "([ \\t\\n]|links|scripts|a|- |: |\\? |\\[|\\]|\\{|\\}|,|#|&a |\\*a|!!str |!x |'|\"|\\||>|---|%|<<){0,60}",
    ) {
        if let Err(problems) = read(&[("links.yaml", &text), ("scripts.yaml", &text)]) {
            prop_assert!(problems.iter().all(|problem| problem.line > 0 && !problem.file.is_empty()));
        }
    }
}

fn line(indent: &str, name: &str, value: &str, without: Option<&str>, how: usize) -> String {
    if without == Some(name) {
        return ["".to_owned(), format!("{indent}{name}:\n"), format!("{indent}{name}: ~\n")][how].clone();
    }
    format!("{indent}{name}: {value}\n")
}
