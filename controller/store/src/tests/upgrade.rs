//! Databases of every schema that was released, with something in every table, brought to this build's.
//!
//! Each step has a file in `upgrade/` that holds the rows of a database of that schema. The newest step's is written by
//! `UPDATE_EXPECT=1`, from what [`rows::fill`] makes through the store's own functions; once the step is released it is never
//! written again. So whoever adds a step adds its file, and every older one is brought to the new schema here.

mod rows;

use std::collections::BTreeMap;
use std::path::PathBuf;

use fleetward_protocol::id::ControllerId;

use super::sample::*;
use crate::fleet::controller::{self, Controller};
use crate::migrate::{Migration, STEPS, Step, Text};
use crate::people::user;
use crate::testing::{self, Blank, NOW};
use crate::{Engine, Store, StoreError, setting};
use rows::Rows;

/// Each function becomes a test on SQLite and one on PostgreSQL; it is given a database with nothing in it.
macro_rules! on_blanks {
    ($($name:ident)+) => {$(
        mod $name {
            #[tokio::test]
            async fn sqlite() {
                let blank = crate::testing::blank_sqlite();
                super::$name(&blank).await;
                blank.finish().await;
            }

            #[tokio::test]
            async fn postgres() {
                if let Some(blank) = crate::testing::blank_postgres(stringify!($name)).await {
                    super::$name(&blank).await;
                    blank.finish().await;
                }
            }
        }
    )+};
}

on_blanks! {
    a_table_that_others_refer_to_is_rebuilt_without_losing_their_rows
    a_step_that_leaves_a_dangling_row_changes_nothing
    nothing_is_migrated_without_the_controllers_place
    nothing_is_migrated_for_who_brings_other_keys
}

/// On SQLite a new table in the place of the old one, as its documentation tells (lang_altertable, section 7): the children of
/// `user` are deleted by a cascade when that is done with references enforced.
const REBUILD: Step = Step {
    number: STEPS.len() as i64 + 1,
    name: "rebuild",
    text: Text::Each {
        sqlite: r#"
            CREATE TABLE user_next (
              id {text} PRIMARY KEY, name {text} NOT NULL UNIQUE, password_hash {text},
              must_change_password BIGINT NOT NULL DEFAULT 0, known_parties {text} NOT NULL DEFAULT '[]',
              disabled_at BIGINT, created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL,
              colour {text} NOT NULL DEFAULT 'none'
            );
            INSERT INTO user_next (id, name, password_hash, must_change_password, known_parties, disabled_at, created_at, updated_at)
              SELECT id, name, password_hash, must_change_password, known_parties, disabled_at, created_at, updated_at FROM "user";
            DROP TABLE "user";
            ALTER TABLE user_next RENAME TO "user";"#,
        postgres: r#"ALTER TABLE "user" ADD COLUMN colour {text} NOT NULL DEFAULT 'none';"#,
    },
};

/// A defect that only SQLite's check finds; PostgreSQL refuses the statement itself.
const DANGLING: Step = Step {
    number: STEPS.len() as i64 + 1,
    name: "dangling",
    text: Text::Both(r#"UPDATE session SET user_id = 'nobody';"#),
};

fn with(step: Step) -> Vec<Step> {
    [STEPS, &[step]].concat()
}

async fn opened(blank: &Blank, steps: &[Step]) -> Result<Store, StoreError> {
    Store::connect(&blank.url).await?.migrate_by(Migration { steps, now: NOW, place: None }, |_| Ok(())).await
}

fn file(step: i64) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("src/tests/upgrade/{step:04}.json"))
}

/// `UPDATE_EXPECT=1` writes the file of the newest step.
#[tokio::test]
async fn the_generated_rows_of_the_newest_schema_stand_in_every_table_and_column() {
    let newest = STEPS.last().unwrap().number;
    let test = testing::sqlite().await;
    count_ids();
    rows::fill(&test.store).await;
    let made = Rows::of(&test.store).await;
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(file(newest), made.to_text()).unwrap();
    }
    let kept = Rows::read(&file(newest));
    assert_eq!(
        made.columns(),
        kept.columns(),
        "the schema was changed: run `cargo xtask bless` to write src/tests/upgrade/{newest:04}.json again, unless step {newest} \
         was released; then the change belongs in a step of its own"
    );
    assert_eq!(made.empty(), Vec::<&str>::new(), "tables without a row: fill them in `rows::fill`");
    assert_eq!(kept.empty(), Vec::<&str>::new());
    test.finish().await;
}

#[tokio::test]
async fn a_database_of_each_released_schema_keeps_every_row_on_sqlite() {
    for known in 1..=STEPS.len() {
        let blank = testing::blank_sqlite();
        every_row_is_kept(&blank, known).await;
        blank.finish().await;
    }
}

#[tokio::test]
async fn a_database_of_each_released_schema_keeps_every_row_on_postgres() {
    for known in 1..=STEPS.len() {
        let Some(blank) = testing::blank_postgres("a database of each released schema").await else { return };
        every_row_is_kept(&blank, known).await;
        blank.finish().await;
    }
}

/// From a database that knows so many steps.
async fn every_row_is_kept(blank: &Blank, known: usize) {
    let store = opened(blank, &STEPS[..known]).await.unwrap();
    let kept = Rows::read(&file(STEPS[known - 1].number));
    kept.insert(&store).await;
    store.close().await.unwrap();
    let store = opened(blank, STEPS).await.unwrap();
    kept.assert_in(&Rows::of(&store).await);
    rows::read_all(&store).await;
    store.close().await.unwrap();
}

async fn a_table_that_others_refer_to_is_rebuilt_without_losing_their_rows(blank: &Blank) {
    let store = opened(blank, STEPS).await.unwrap();
    rows::fill(&store).await;
    let before = Rows::of(&store).await;
    // Another connection has read the old schema, and reads on.
    let mut reader = store.read().await.unwrap();
    user::list(&mut reader).await.unwrap();
    let migrated = opened(blank, &with(REBUILD)).await.unwrap();
    let after = Rows::of(&migrated).await;
    before.assert_in(&after);
    assert!(after.columns().contains(&("user".to_owned(), "colour".to_owned())));
    user::list(&mut reader).await.unwrap();
    drop(reader);
    rows::read_all(&migrated).await;
    // References are enforced as before.
    let mut tx = migrated.write().await.unwrap();
    let nobody = fleetward_protocol::id::UserId::from_uuid(uuid());
    let grant = fleetward_domain::people::permission::Grant {
        tenant: crate::people::tenant::DEFAULT,
        role: fleetward_domain::people::permission::Role::Admin,
    };
    let refused = user::insert_grant(&mut tx, nobody, grant, NOW).await;
    assert!(matches!(refused, Err(StoreError::Conflict { .. })), "{refused:?}");
    drop(tx);
    store.close().await.unwrap();
    migrated.close().await.unwrap();
}

async fn a_step_that_leaves_a_dangling_row_changes_nothing(blank: &Blank) {
    let store = opened(blank, STEPS).await.unwrap();
    rows::fill(&store).await;
    let before = Rows::of(&store).await;
    let refused = opened(blank, &with(DANGLING)).await.unwrap_err();
    match store.engine() {
        Engine::Sqlite => {
            assert!(refused.to_string().contains("`session` refers to one of `user`"), "{refused}")
        }
        Engine::Postgres => assert!(matches!(refused, StoreError::Conflict { .. }), "{refused}"),
    }
    assert_eq!(Rows::of(&store).await, before);
    store.close().await.unwrap();
}

async fn nothing_is_migrated_for_who_brings_other_keys(blank: &Blank) {
    let older = opened(blank, STEPS).await.unwrap();
    let mut tx = older.write().await.unwrap();
    setting::insert(&mut tx, "identity", "one", NOW).await.unwrap();
    tx.commit().await.unwrap();
    let before = Rows::of(&older).await;
    let newer = async |identity: &'static str| {
        let migration = Migration { steps: &with(REBUILD), now: NOW, place: None };
        let check = |settings: &BTreeMap<String, String>| match &*settings["identity"] == identity {
            true => Ok(()),
            false => Err(StoreError::TakenOver),
        };
        Store::connect(&blank.url).await.unwrap().migrate_by(migration, check).await
    };
    assert!(matches!(newer("another").await, Err(StoreError::TakenOver)));
    assert_eq!(Rows::of(&older).await, before);
    assert_ne!(Rows::of(&newer("one").await.unwrap()).await.columns(), before.columns());
}

async fn nothing_is_migrated_without_the_controllers_place(blank: &Blank) {
    // An older controller that lives.
    let older = opened(blank, STEPS).await.unwrap();
    let before = Rows::of(&older).await;
    let newer = Store::connect(&blank.url).await.unwrap();
    let id = ControllerId::from_uuid(uuid());
    let refused = newer
        .migrate_by(Migration { steps: &with(REBUILD), now: NOW, place: Some(id) }, |_| {
            Ok::<_, StoreError>(())
        })
        .await
        .unwrap_err();
    assert!(matches!(refused, StoreError::TakenOver), "{refused}");
    // Nor does a command of a newer package.
    let refused = Store::open_existing_by(&with(REBUILD), &blank.url).await.unwrap_err();
    assert!(refused.to_string().contains("of an older build"), "{refused}");
    assert_eq!(Rows::of(&older).await.columns(), before.columns());
    let mut tx = older.write().await.unwrap();
    let row = Controller { id, name: "newer".to_owned(), version: "2".to_owned(), beat: 0, started_at: NOW };
    controller::insert(&mut tx, &row).await.unwrap();
    tx.commit().await.unwrap();
    let newer = Store::connect(&blank.url).await.unwrap();
    let newer = newer
        .migrate_by(Migration { steps: &with(REBUILD), now: NOW, place: Some(id) }, |_| {
            Ok::<_, StoreError>(())
        })
        .await
        .unwrap();
    assert_ne!(Rows::of(&newer).await.columns(), before.columns());
    // What the older build's commands say now.
    let refused = Store::open_existing(&blank.url).await.unwrap_err();
    assert!(refused.to_string().contains("install the newer"), "{refused}");
    older.close().await.unwrap();
    newer.close().await.unwrap();
}
