//! Compare-and-set under parallel callers: of those who try at once, exactly one wins.

use std::future::Future;

use fleetward_domain::work::operation::OperationStatus;
use fleetward_domain::work::run::RunState;
use fleetward_protocol::digest::Digest;
use fleetward_protocol::id::{AuditId, TokenId, UserId};

use super::sample::*;
use crate::fleet::host::Enrolment;
use crate::fleet::{host, token};
use crate::on_both_engines;
use crate::people::{audit, idempotency, tenant, user};
use crate::testing::NOW;
use crate::work::batch::Written;
use crate::work::{operation, run};
use crate::{Scope, Store, setting};

const CALLERS: usize = 8;

async fn at_once<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    call: impl Fn(usize) -> F,
) -> Vec<T> {
    let calls: Vec<_> = (0..CALLERS).map(|caller| tokio::spawn(call(caller))).collect();
    let mut results = Vec::new();
    for call in calls {
        results.push(call.await.unwrap());
    }
    results
}

fn wins(results: &[bool]) -> usize {
    results.iter().filter(|&&won| won).count()
}

async fn insert_user(store: &Store) -> UserId {
    let id = UserId::from_uuid(uuid());
    let row = user::User {
        id,
        name: format!("u{}", id.as_uuid().simple()).parse().unwrap(),
        password_hash: None,
        must_change_password: false,
        known_parties: Vec::new(),
        disabled_at: None,
        created_at: NOW,
    };
    let mut tx = store.write().await.unwrap();
    user::insert(&mut tx, &row).await.unwrap();
    tx.commit().await.unwrap();
    id
}

on_both_engines! {
    async fn a_token_enrols_one_key(store: Store) {
        let id = TokenId::from_uuid(uuid());
        let row = token::Token {
            id, tenant: tenant::DEFAULT, host: None, secret_digest: Digest::of(b"secret"), created_by: None,
            created_at: NOW, expires_at: at(60), used_at: None, used_by: None,
        };
        let mut tx = store.write().await.unwrap();
        token::insert(&mut tx, &row).await.unwrap();
        tx.commit().await.unwrap();
        let results = at_once(|caller| {
            let store = store.clone();
            async move {
                let mut tx = store.write().await.unwrap();
                let won = token::update_used(&mut tx, id, &Digest::of(&[caller as u8]), at(1)).await.unwrap();
                tx.commit().await.unwrap();
                won
            }
        }).await;
        assert_eq!(wins(&results), 1);
        let mut tx = store.write().await.unwrap();
        assert!(!token::update_used(&mut tx, id, &Digest::of(b"late"), at(61)).await.unwrap());
    }

    async fn a_run_is_handed_out_once(store: Store) {
        let (op, runs) = operation(&store, tenant::DEFAULT, 1).await;
        let run = runs[0];
        let results = at_once(|_| {
            let store = store.clone();
            async move {
                let write = vec![change(op, run, RunState::Queued, RunState::Dispatched(custody()))];
                crate::tests::sample::write(&store, write).await.written[0] == Written::Changed
            }
        }).await;
        assert_eq!(wins(&results), 1);
    }

    async fn an_operation_ends_once(store: Store) {
        let (op, _) = operation(&store, tenant::DEFAULT, 1).await;
        let results = at_once(|_| {
            let store = store.clone();
            async move {
                let mut tx = store.write().await.unwrap();
                let seq = operation::update_status(&mut tx, op, OperationStatus::Queued, OperationStatus::Failed, at(1)).await.unwrap();
                tx.commit().await.unwrap();
                seq.is_some()
            }
        }).await;
        assert_eq!(wins(&results), 1);
    }

    async fn a_password_is_replaced_once_and_ends_whoever_logs_in_with_the_one_before(store: Store) {
        let id = insert_user(&store).await;
        let mut tx = store.write().await.unwrap();
        assert!(user::update_password(&mut tx, id, "before", false, at(1)).await.unwrap());
        tx.commit().await.unwrap();
        let results = at_once(|caller| {
            let store = store.clone();
            async move {
                let mut tx = store.write().await.unwrap();
                let won = user::update_own_password(&mut tx, id, "before", &format!("by {caller}"), at(2)).await.unwrap();
                tx.commit().await.unwrap();
                won
            }
        }).await;
        assert_eq!(wins(&results), 1);
        let mut tx = store.write().await.unwrap();
        let known = [fleetward_domain::people::attempt::Party::of("192.0.2.1".parse().unwrap())];
        assert!(!user::update_known_parties(&mut tx, id, "before", &known).await.unwrap());
        let now = user::get(&mut tx, id).await.unwrap().password_hash.unwrap();
        assert!(user::update_known_parties(&mut tx, id, &now, &known).await.unwrap());
        assert_eq!(user::get(&mut tx, id).await.unwrap().known_parties, known);
        user::update_disabled(&mut tx, id, Some(at(3)), at(3)).await.unwrap();
        assert!(!user::update_known_parties(&mut tx, id, &now, &[]).await.unwrap());
        tx.commit().await.unwrap();
    }

    async fn operations_are_numbered_without_gap(store: Store) {
        let numbers = at_once(|_| {
            let store = store.clone();
            async move {
                let mut tx = store.write().await.unwrap();
                let number = operation::insert(&mut tx, &new_operation(tenant::DEFAULT), NOW).await.unwrap();
                tx.commit().await.unwrap();
                number
            }
        }).await;
        let mut sorted = numbers;
        sorted.sort_unstable();
        assert_eq!(sorted, (1..=CALLERS as u64).collect::<Vec<_>>());
    }

    async fn batches_of_the_same_operation_take_different_seqs(store: Store) {
        let (op, runs) = operation(&store, tenant::DEFAULT, CALLERS as u32).await;
        let seqs = at_once(|caller| {
            let (store, run) = (store.clone(), runs[caller]);
            async move { crate::tests::sample::write(&store, vec![append(op, run, 0, b"x")]).await.seqs[&op] }
        }).await;
        let mut sorted = seqs;
        sorted.sort_unstable();
        assert_eq!(sorted, (2..2 + CALLERS as u64).collect::<Vec<_>>());
    }

    async fn a_piece_of_output_that_comes_twice_is_kept_once(store: Store) {
        let (op, runs) = operation(&store, tenant::DEFAULT, 1).await;
        let run = runs[0];
        at_once(|_| {
            let store = store.clone();
            async move { crate::tests::sample::write(&store, vec![append(op, run, 0, b"once")]).await }
        }).await;
        let mut conn = store.read().await.unwrap();
        let bytes = crate::work::output::read(&mut conn, store.files(), &Scope::Everything, run, 0, 100).await.unwrap();
        assert_eq!(bytes, b"once");
        assert_eq!(run::get(&mut conn, &Scope::Everything, run).await.unwrap().output_end, 4);
    }

    async fn an_approval_happens_once(store: Store) {
        let host = host::NewHost { enrolment: Enrolment::Quarantined, ..new_host(tenant::DEFAULT, "web-1") };
        insert_host(&store, &host).await;
        let results = at_once(|_| {
            let (store, id) = (store.clone(), host.id);
            async move {
                let mut tx = store.write().await.unwrap();
                let won = host::update_enrolment(&mut tx, id, Enrolment::Quarantined, Enrolment::Enrolled, at(1)).await.unwrap();
                tx.commit().await.unwrap();
                won
            }
        }).await;
        assert_eq!(wins(&results), 1);
    }

    async fn an_idempotency_key_is_claimed_once(store: Store) {
        use idempotency::{Answer, Claim};
        let user = insert_user(&store).await;
        let request = Digest::of(b"request");
        let claims = at_once(|_| {
            let store = store.clone();
            async move {
                let mut tx = store.write().await.unwrap();
                let claim = idempotency::insert(&mut tx, user, "key", &request, at(60), NOW).await.unwrap();
                tx.commit().await.unwrap();
                claim
            }
        }).await;
        assert_eq!(claims.iter().filter(|claim| **claim == Claim::New).count(), 1);
        assert!(claims.iter().all(|claim| matches!(claim, Claim::New | Claim::Pending)));
        let mut tx = store.write().await.unwrap();
        let answer = Answer { status: 201, body: Some("{}".to_owned()) };
        assert!(idempotency::update_answered(&mut tx, user, "key", &answer).await.unwrap());
        assert!(!idempotency::update_answered(&mut tx, user, "key", &answer).await.unwrap());
        let again = idempotency::insert(&mut tx, user, "key", &request, at(60), at(1)).await.unwrap();
        assert_eq!(again, Claim::Answered(answer));
        let other = idempotency::insert(&mut tx, user, "key", &Digest::of(b"other"), at(60), at(1)).await.unwrap();
        assert_eq!(other, Claim::Different);
        let expired = idempotency::insert(&mut tx, user, "key", &request, at(120), at(60)).await.unwrap();
        assert_eq!(expired, Claim::New);
    }

    async fn a_setting_is_made_once(store: Store) {
        let results = at_once(|caller| {
            let store = store.clone();
            async move {
                let mut tx = store.write().await.unwrap();
                let won = setting::insert(&mut tx, "identity", &caller.to_string(), NOW).await.unwrap();
                tx.commit().await.unwrap();
                won
            }
        }).await;
        assert_eq!(wins(&results), 1);
        let winner = results.iter().position(|&won| won).unwrap().to_string();
        let mut conn = store.read().await.unwrap();
        assert_eq!(setting::find(&mut conn, "identity").await.unwrap(), Some(winner));
    }

    async fn the_audit_chain_has_no_fork_and_shows_every_change(store: Store) {
        at_once(|caller| {
            let store = store.clone();
            async move {
                let event = audit::NewEvent {
                    id: AuditId::from_uuid(uuid()), tenant: (caller % 2 == 0).then_some(tenant::DEFAULT), at: NOW,
                    kind: "host.added".to_owned(), actor: "ada".to_owned(), subject: caller.to_string(),
                    details: serde_json::json!({"z": 1, "a": {"y": [1], "b": null}}).as_object().unwrap().clone(),
                };
                let mut tx = store.write().await.unwrap();
                audit::insert(&mut tx, &event).await.unwrap();
                tx.commit().await.unwrap();
            }
        }).await;
        let mut conn = store.read().await.unwrap();
        let chain = audit::list_chain(&mut conn, 1, 100).await.unwrap();
        assert_eq!(chain.len(), CALLERS);
        let whole = audit::verify(1, audit::genesis(), &chain).unwrap();
        // In two stretches it is the same chain.
        let half = audit::verify(1, audit::genesis(), &chain[..4]).unwrap();
        assert_eq!(audit::verify(5, half, &chain[4..]).unwrap(), whole);
        // Whatever is changed or taken out is noticed, and where.
        let mut forged = chain.clone();
        forged[3].event.actor = "eve".to_owned();
        assert_eq!(audit::verify(1, audit::genesis(), &forged).unwrap_err().number, 4);
        let mut shortened = chain.clone();
        shortened.remove(3);
        assert_eq!(audit::verify(1, audit::genesis(), &shortened).unwrap_err().number, 4);
        // Events of no tenant, such as logins, are seen where the controller is administrated, and only there.
        let page = crate::page::PageRequest::first(100);
        let filter = audit::Filter { kind: Some("host.".to_owned()), ..audit::Filter::default() };
        let seen = audit::list(&mut conn, &Scope::of(tenant::DEFAULT), &filter, &page).await.unwrap();
        assert_eq!(seen.items.len(), CALLERS);
        let other = Scope::of(fleetward_protocol::id::TenantId::from_uuid(uuid()));
        assert_eq!(audit::list(&mut conn, &other, &filter, &page).await.unwrap().items.len(), 0);
        let seen = audit::list(&mut conn, &Scope::Everything, &filter, &page).await.unwrap();
        assert_eq!(seen.items.len(), CALLERS);
    }

    async fn a_transaction_that_is_dropped_changes_nothing(store: Store) {
        let (op, runs) = operation(&store, tenant::DEFAULT, 1).await;
        let mut tx = store.write().await.unwrap();
        let writes = vec![append(op, runs[0], 0, b"lost"), change(op, runs[0], RunState::Queued, RunState::Expired)];
        crate::work::batch::write(&mut tx, store.files(), writes).await.unwrap();
        drop(tx);
        let mut conn = store.read().await.unwrap();
        let run = run::get(&mut conn, &Scope::Everything, runs[0]).await.unwrap();
        assert_eq!((run.state, run.output_end), (RunState::Queued, 0));
        let op = operation::get(&mut conn, &Scope::Everything, op).await.unwrap();
        assert_eq!((op.seq, op.failed), (1, 0));
    }
}
