use std::fmt::Write as _;

use expect_test::expect;
use fleetward_protocol::action::script::names_bash;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;

fn client(number: u128) -> ClientId {
    ClientId::issued(Uuid::from_u128(number))
}

fn request() -> VerifiedRequest {
    VerifiedRequest { client: client(1), key: Digest::of(b"key") }
}

const TENANT: TenantId = TenantId::from_uuid(Uuid::from_u128(1));
const OTHER: TenantId = TenantId::from_uuid(Uuid::from_u128(2));

fn host(standing: Standing) -> KnownHost {
    KnownHost { tenant: TENANT, standing }
}

const NOW: Timestamp = Timestamp::from_millis(1000);

fn token(bound: Option<u128>, used_by: Option<&[u8]>) -> KnownToken {
    KnownToken {
        tenant: TENANT,
        client: bound.map(client),
        expires: Timestamp::from_millis(2000),
        used_by: used_by.map(Digest::of),
    }
}

#[test]
fn the_whole_table() {
    let tokens = [
        ("bound", token(Some(1), None)),
        ("bound, same key again", token(Some(1), Some(b"key"))),
        ("bound, another key", token(Some(1), Some(b"thief"))),
        ("bound elsewhere", token(Some(2), None)),
        ("unbound", token(None, None)),
        ("unbound, same key again", token(None, Some(b"key"))),
    ];
    let mut table = String::new();
    for (name, token) in &tokens {
        writeln!(table, "{name}").unwrap();
        for standing in std::iter::once(None).chain(Standing::ALL.map(Some)) {
            let decision = match decide(Some(token), &request(), standing.map(host), NOW) {
                Ok(enrol) => format!("{enrol:?}"),
                Err(refusal) => format!("- {refusal:?}"),
            };
            writeln!(table, "  {:12} {decision}", standing.map_or("unknown", Standing::as_str)).unwrap();
        }
    }
    expect![[r#"
        bound
          unknown      - Retired
          pending      Issue
          quarantined  Quarantine
          enrolled     Issue
          revoked      Issue
          retired      - Retired
        bound, same key again
          unknown      - Retired
          pending      Issue
          quarantined  Quarantine
          enrolled     Issue
          revoked      Issue
          retired      - Retired
        bound, another key
          unknown      - UsedToken
          pending      - UsedToken
          quarantined  - UsedToken
          enrolled     - UsedToken
          revoked      - UsedToken
          retired      - UsedToken
        bound elsewhere
          unknown      - WrongClient
          pending      - WrongClient
          quarantined  - WrongClient
          enrolled     - WrongClient
          revoked      - WrongClient
          retired      - WrongClient
        unbound
          unknown      Quarantine
          pending      Quarantine
          quarantined  - NeedsBoundToken
          enrolled     - NeedsBoundToken
          revoked      - NeedsBoundToken
          retired      - Retired
        unbound, same key again
          unknown      Quarantine
          pending      Quarantine
          quarantined  Quarantine
          enrolled     Issue
          revoked      - NeedsBoundToken
          retired      - Retired
    "#]]
    .assert_eq(&table);
}

#[test]
fn an_expired_or_unknown_token_enrols_nobody() {
    let token = token(Some(1), None);
    let at = |millis| {
        decide(Some(&token), &request(), Some(host(Standing::Pending)), Timestamp::from_millis(millis))
    };
    assert_eq!(at(1999), Ok(Enrol::Issue));
    assert_eq!(at(2000), Err(EnrolRefusal::ExpiredToken));
    assert_eq!(decide(None, &request(), Some(host(Standing::Pending)), NOW), Err(EnrolRefusal::UnknownToken));
}

fn file() -> impl Strategy<Value = ClientIdFile> {
    prop_oneof![
        Just(ClientIdFile::Missing),
        ".{0,40}".prop_map(ClientIdFile::Unreadable),
        any::<String>().prop_map(ClientIdFile::Content),
        (0u128..4, prop::sample::select(vec!["", "\n", "\n\n", " ", "\r\n", "x"]), any::<bool>()).prop_map(
            |(number, end, upper)| {
                let id = client(number).to_string();
                let id = if upper { id.to_uppercase() } else { id };
                ClientIdFile::Content(format!("{id}{end}"))
            }
        ),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// A client ID stands in git, so it is no secret: only the host's own tenant can make the token that enrols it.
    #[test]
    fn no_token_enrols_a_host_of_another_tenant(
        standing in prop::sample::select(&Standing::ALL[..]),
        bound in prop::option::of(0u128..3),
        used_by in prop::option::of(prop::sample::select(vec![&b"key"[..], b"thief"])),
        now in 0i64..3000,
    ) {
        let (token, now) = (token(bound, used_by), Timestamp::from_millis(now));
        let decide = |host| decide(Some(&token), &request(), Some(host), now);
        let elsewhere = KnownHost { tenant: OTHER, standing };
        let answer = decide(elsewhere);
        prop_assert!(answer.is_err(), "{:?}", answer);
        // And the answer does not tell how far the other tenant's host has come.
        for standing in Standing::ALL {
            prop_assert_eq!(decide(KnownHost { standing, ..elsewhere }), answer);
        }
        // Nor does it say anything that no host of the token's own tenant is told.
        prop_assert!(Standing::ALL.iter().any(|&standing| decide(host(standing)) == answer) || bound.is_some());
    }

    #[test]
    fn p11_enrolled_if_and_only_if_the_file_is_the_inventory_id(number in 0u128..4, file in file()) {
        let inventory = client(number);
        let same = match &file {
            ClientIdFile::Content(content) => {
                // The UUID is case-insensitive (FLEET- stays upper case either way).
                let text = inventory.to_string();
                let upper = text.to_uppercase();
                [&text, &upper].iter().any(|id| content == *id || *content == format!("{id}\n"))
            }
            _ => false,
        };
        prop_assert_eq!(Verification::of(&inventory, &file).is_enrolled(), same);
    }

    #[test]
    fn p12_a_failed_verification_has_a_reason(number in 0u128..4, file in file()) {
        let verification = Verification::of(&client(number), &file);
        prop_assert_eq!(verification.is_enrolled(), verification.client_id_matches);
        prop_assert!(verification.client_id_found || !verification.client_id_matches);
        match &verification.reason {
            None => prop_assert!(verification.is_enrolled(), "refused without a reason"),
            Some(reason) => {
                prop_assert!(!verification.is_enrolled());
                // The file that is wrong, and what it should hold or why it could not be read.
                let text = reason.to_string();
                prop_assert!(text.contains("/etc/fleetward/client_id"), "{}", text);
                let particular = match &file {
                    ClientIdFile::Missing => "missing".to_owned(),
                    ClientIdFile::Unreadable(why) => why.clone(),
                    ClientIdFile::Content(_) => client(number).to_string(),
                };
                prop_assert!(text.contains(&particular), "{}", text);
            }
        }
    }

    #[test]
    fn p13_any_target_that_is_not_enrolled_is_listed(
        targets in prop::collection::vec(prop::sample::select(&Standing::ALL[..]), 0..30)
    ) {
        let named: Vec<(HostName, Standing)> =
            targets.iter().enumerate().map(|(index, &standing)| (format!("h{index}").parse().unwrap(), standing)).collect();
        let missing: Vec<_> =
            named.iter().filter(|(_, standing)| *standing != Standing::Enrolled).cloned().collect();
        match require_enrolled(named.iter().map(|(name, standing)| (name, *standing))) {
            Ok(()) => prop_assert!(missing.is_empty()),
            Err(error) => {
                prop_assert!(error.to_string().contains(missing[0].0.as_str()));
                prop_assert_eq!(error.hosts, missing);
            }
        }
    }

    /// The rule itself is the protocol's, so that the controller's sync and the host agree on it.
    #[test]
    fn p15_an_interpreter_that_is_not_bash_is_refused(
        interpreter in "(/usr)?/bin/(env )?[a-z]{1,8}[0-9.]{0,3}( -[a-z])?",
        rest in any::<Vec<u8>>(),
    ) {
        let mut script = format!("#!{interpreter}\n").into_bytes();
        script.extend(rest);
        let mut words = interpreter.split(' ');
        let bash = match words.next() {
            Some("/bin/bash" | "/usr/bin/bash") => true,
            Some("/usr/bin/env") => words.next() == Some("bash"),
            _ => false,
        };
        prop_assert_eq!(names_bash(&script), bash);
    }

    #[test]
    fn p15_without_a_shebang_nothing_is_bash(script in any::<Vec<u8>>()) {
        prop_assert_eq!(names_bash(&script), script.starts_with(b"#!/bin/bash\n"));
    }
}
