use crate::testing::NOW;
use fleetward_domain::fleet::contract::{FreeArguments, Variable};
use fleetward_domain::work::run::{RunState, RunStatus};
use fleetward_protocol::digest::Digest;
use fleetward_protocol::id::{AuditId, RunId, SessionId, SyncId, TokenId, UserId};

use super::sample::*;
use crate::fleet::script;
use crate::fleet::{certificate, host, repository, sync, token};
use crate::on_both_engines;
use crate::page::{Direction, PageRequest};
use crate::people::{audit, session, tenant, user};
use crate::work::{batch, operation, output, run};
use crate::{Scope, StoreError};

on_both_engines! {
    async fn every_noun_comes_back_as_it_was_written(store: Store) {
        let everything = Scope::of(tenant::DEFAULT);
        let mut tx = store.write().await.unwrap();
        let admin = user::User {
            id: UserId::from_uuid(uuid()), name: "ada".parse().unwrap(), password_hash: Some("$argon2id$".to_owned()),
            must_change_password: true, known_parties: Vec::new(), disabled_at: None, created_at: NOW,
        };
        user::insert(&mut tx, &admin).await.unwrap();
        let grant = fleetward_domain::people::permission::Grant { tenant: tenant::DEFAULT, role: fleetward_domain::people::permission::Role::Admin };
        user::insert_grant(&mut tx, admin.id, grant, NOW).await.unwrap();
        user::insert_grant(&mut tx, admin.id, grant, NOW).await.unwrap();
        assert_eq!(user::find(&mut tx, &admin.name).await.unwrap().as_ref(), Some(&admin));
        assert_eq!(user::list_grants(&mut tx, admin.id).await.unwrap().as_slice(), &[grant]);

        let login = session::Session {
            id: SessionId::from_uuid(uuid()), user: admin.id, kind: session::SessionKind::Login, secret_digest: Digest::of(b"s"),
            name: "cli".to_owned(), created_at: NOW, last_used_at: NOW, expires_at: Some(at(60)),
        };
        session::insert(&mut tx, &login).await.unwrap();
        assert_eq!(session::find_live(&mut tx, &login.secret_digest, at(59)).await.unwrap().as_ref(), Some(&login));
        assert_eq!(session::find_live(&mut tx, &login.secret_digest, at(60)).await.unwrap(), None);

        let new = new_host(tenant::DEFAULT, "web-1");
        host::insert(&mut tx, &new, NOW).await.unwrap();
        let found = host::get(&mut tx, &everything, &new.declared.name).await.unwrap();
        assert_eq!(found.declared, new.declared);
        let page = host::list(&mut tx, &everything, &host::Filter::default(), (host::Sort::LastSeen, Direction::Descending), &PageRequest::first(10)).await.unwrap();
        assert_eq!(page.items, vec![found]);
        assert_eq!(host::all_for_targets(&mut tx, &everything).await.unwrap().len(), 1);

        let issued = certificate::Certificate {
            serial: "0a".to_owned(), tenant: tenant::DEFAULT, host: new.id, fingerprint: Digest::of(b"der"), not_before: NOW,
            not_after: at(1000), issued_at: NOW, revoked_at: None, revoke_reason: None,
        };
        certificate::insert(&mut tx, &issued).await.unwrap();
        assert_eq!(certificate::find(&mut tx, &issued.fingerprint).await.unwrap().as_ref(), Some(&issued));
        assert_eq!(certificate::update_revoked(&mut tx, new.id, None, "lost", at(1)).await.unwrap(), 1);

        let enrol = token::Token {
            id: TokenId::from_uuid(uuid()), tenant: tenant::DEFAULT, host: Some(new.id), secret_digest: Digest::of(b"t"),
            created_by: Some(admin.id), created_at: NOW, expires_at: at(60), used_at: None, used_by: None,
        };
        token::insert(&mut tx, &enrol).await.unwrap();
        let (key, other) = (Digest::of(b"key"), Digest::of(b"other"));
        assert!(token::update_used(&mut tx, enrol.id, &key, at(1)).await.unwrap());
        assert!(token::update_used(&mut tx, enrol.id, &key, at(2)).await.unwrap());
        assert!(!token::update_used(&mut tx, enrol.id, &other, at(2)).await.unwrap());
        assert_eq!(token::find(&mut tx, &enrol.secret_digest).await.unwrap().unwrap().used_by, Some(key));

        let digest = script::insert_content(&mut tx, b"#!/bin/bash\n", NOW).await.unwrap();
        assert_eq!(script::insert_content(&mut tx, b"#!/bin/bash\n", NOW).await.unwrap(), digest);
        assert_eq!(script::get_content(&mut tx, &digest).await.unwrap(), b"#!/bin/bash\n");
        let baseline = script::Script {
            tenant: tenant::DEFAULT, name: "baseline".parse().unwrap(), digest, display_name: "Baseline".to_owned(),
            description: "Checks".to_owned(), emoji: String::new(), flags: vec![], free_arguments: FreeArguments::None,
            environment: vec![Variable { name: "VERSION".to_owned(), description: String::new(), required: true, secret: false }],
            users: vec!["postgres".parse().unwrap()], estimated: Some(std::time::Duration::from_secs(3)),
            timeout: None, user: Some("nobody".parse().unwrap()), resources: vec!["apt".parse().unwrap()], tags: vec![],
            path: Some("scripts/b.sh".to_owned()), commit: "c0ffee".to_owned(), created_at: NOW, updated_at: NOW, retired_at: None,
        };
        script::update(&mut tx, &baseline).await.unwrap();
        assert_eq!(script::get(&mut tx, &everything, &baseline.name).await.unwrap(), baseline);

        let repo = repository::Repository {
            tenant: tenant::DEFAULT, url: "https://git.example.com/f.git".to_owned(), branch: "main".to_owned(), credentials: Some(vec![0, 1, 255]),
            interval: std::time::Duration::from_secs(900), good: None, created_at: NOW, updated_at: NOW,
        };
        repository::update(&mut tx, &repo).await.unwrap();
        assert!(repository::update_good(&mut tx, tenant::DEFAULT, "c0ffee", NOW).await.unwrap());
        repository::update(&mut tx, &repo).await.unwrap();
        let kept = repository::find(&mut tx, &everything, tenant::DEFAULT).await.unwrap().unwrap();
        assert_eq!((kept.good_commit(), kept.credentials.clone()), (Some("c0ffee"), Some(vec![0, 1, 255])));

        let started = sync::Sync {
            id: SyncId::from_uuid(uuid()), tenant: tenant::DEFAULT, url: repo.url.clone(), branch: repo.branch.clone(),
            triggered_by: "ada".to_owned(), status: sync::SyncStatus::Running, started_at: NOW, ended_at: None, commit: None,
            failure: None, problems: vec![], counts: sync::Counts::default(), departures: None,
        };
        sync::insert(&mut tx, &started).await.unwrap();
        let ended = sync::Ended { status: sync::SyncStatus::Failed, at: at(1), commit: None, failure: Some("gone".to_owned()), problems: vec![], counts: sync::Counts::default(), departures: None };
        assert!(sync::update_ended(&mut tx, started.id, &ended).await.unwrap());
        assert!(!sync::update_ended(&mut tx, started.id, &ended).await.unwrap());
        assert_eq!(sync::list(&mut tx, &everything, &PageRequest::first(1)).await.unwrap().items[0].failure.as_deref(), Some("gone"));

        let op = new_operation(tenant::DEFAULT);
        assert_eq!(operation::insert(&mut tx, &op, NOW).await.unwrap(), 1);
        let planned = new_run(&new, 0);
        run::insert(&mut tx, tenant::DEFAULT, op.id, std::slice::from_ref(&planned), NOW).await.unwrap();
        let held = RunState::Dispatched(custody());
        let done = batch::write(&mut tx, store.files(), vec![
            change(op.id, planned.id, RunState::Queued, held.clone()),
            append(op.id, planned.id, 0, b"hello"),
            append(op.id, planned.id, 5, b" world"),
            append(op.id, planned.id, 99, b"gap"),
            change(op.id, planned.id, RunState::Queued, RunState::Expired),
            change(op.id, planned.id, held.clone(), RunState::Succeeded),
        ]).await.unwrap();
        use batch::Written;
        assert_eq!(done.written, vec![
            Written::Changed, Written::Appended { end: 5 }, Written::Appended { end: 11 }, Written::Misplaced { end: 11 },
            Written::Stale(held), Written::Changed,
        ]);
        assert_eq!(done.seqs[&op.id], 2);
        assert_eq!(output::read(&mut tx, store.files(), &everything, planned.id, 3, 100).await.unwrap(), b"lo world");
        let since = output::list_since(&mut tx, store.files(), &everything, op.id, 1, 100).await.unwrap();
        assert_eq!((since.pieces.len(), since.upto, since.more), (1, 2, false));
        let row = run::get(&mut tx, &everything, planned.id).await.unwrap();
        assert_eq!((row.state, row.output_end, row.seq), (RunState::Succeeded, 11, 2));
        assert_eq!(operation::get(&mut tx, &everything, op.id).await.unwrap().succeeded, 1);
        assert_eq!(run::list_since(&mut tx, &everything, op.id, 1, 10).await.unwrap().len(), 1);
        assert!(run::list_held(&mut tx, new.id).await.unwrap().is_empty());
        let known = run::list_known(&mut tx, &[planned.id, RunId::from_uuid(uuid())]).await.unwrap();
        let status = RunStatus::Succeeded;
        let expected = run::Known { run: planned.id, operation: op.id, host: new.id, status, handed_out: true };
        assert_eq!(known, [(planned.id, expected)].into());

        let event = audit::NewEvent {
            id: AuditId::from_uuid(uuid()), tenant: Some(tenant::DEFAULT), at: NOW, kind: "host.added".to_owned(),
            actor: "ada".to_owned(), subject: "web-1\0".to_owned(), details: serde_json::Map::new(),
        };
        audit::insert(&mut tx, &event).await.unwrap();
        let chain = audit::list_chain(&mut tx, 1, 10).await.unwrap();
        audit::verify(1, audit::genesis(), &chain).unwrap();
        tx.commit().await.unwrap();

        let elsewhere = Scope::of(fleetward_protocol::id::TenantId::from_uuid(uuid()));
        let mut conn = store.read().await.unwrap();
        assert!(matches!(host::get(&mut conn, &elsewhere, &new.declared.name).await, Err(StoreError::NotFound { .. })));
        assert!(operation::get(&mut conn, &elsewhere, op.id).await.is_err());
        assert!(output::read(&mut conn, store.files(), &elsewhere, planned.id, 0, 9).await.unwrap().is_empty());
    }
}
