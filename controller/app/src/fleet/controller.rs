//! Which controller works on a database: one, until several share it.
//!
//! Two that do not know of each other would tell each other's hosts to be offline, hand out each other's runs and seal
//! secrets with keys of their own. On SQLite the lock of the data directory keeps the second away; on PostgreSQL each
//! controller counts *beats* in the database, and a newcomer that sees another one's counter move does not start.
//!
//! **What it promises.** No clock decides: a controller is dead when a newcomer has seen its counter stand still for
//! [`Patience::dead`], and that is a compare-and-set on the counter. Whoever was found dead and wakes up learns it at its next
//! beat, and must stop.

use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use fleetward_protocol::id::ControllerId;
use fleetward_store::fleet::controller::{self, Controller};
use fleetward_store::{Store, StoreError, Tx};
use tokio::time::{Instant, sleep, timeout};
use tracing::warn;

use crate::continuity::Continuity;
use crate::vital::Vital;

/// How often a controller tells that it is alive.
pub const BEAT: Duration = Duration::from_secs(2);

/// How others are watched before a controller starts.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// How long a counter stands still before its controller is dead.
    pub dead: Duration,
    /// Between two looks.
    pub look: Duration,
}

impl Patience {
    /// Five beats.
    pub const DEFAULT: Self = Self { dead: Duration::from_secs(10), look: Duration::from_millis(250) };
}

/// Why a controller may not start.
#[derive(Debug, thiserror::Error)]
pub enum AdmissionError {
    /// Another one works on the database.
    #[error(
        "another controller works on this database: {name} (version {version}); stop it first, or give this \
         one a database of its own"
    )]
    Other {
        /// What it is called.
        name: String,
        /// Its version.
        version: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a controller is while it works on a database, and what ends it.
#[derive(Debug, Clone, Default)]
pub struct Tenure {
    /// Its place, where others can reach the database as well.
    pub place: Option<ControllerId>,
    /// Whether the database still has what was seen committed.
    pub continuity: Continuity,
    /// Whether all of its parts work.
    pub vital: Vital,
}

impl Tenure {
    /// A transaction for what the controller may write only while the database is its own: who would find it dead meanwhile waits
    /// for its end. It is a beat as well.
    ///
    /// # Errors
    /// [`StoreError::TakenOver`] if another controller has taken its place.
    pub async fn write(&self, store: &Store) -> Result<InPlace, StoreError> {
        let mut tx = store.write().await?;
        let beat = match self.place {
            Some(place) => Some(controller::update_beat(&mut tx, place).await?.ok_or(StoreError::TakenOver)?),
            None => None,
        };
        beat.inspect(|beat| self.continuity.compare_beat(*beat));
        Ok(InPlace { tx, beat, continuity: self.continuity.clone() })
    }

    /// Tells that this controller is alive.
    ///
    /// # Errors
    /// [`StoreError::TakenOver`] if it was found dead: it must stop then. If the store fails otherwise, the next beat may come
    /// through.
    pub async fn beat(&self, store: &Store) -> Result<(), StoreError> {
        let beat = async { self.write(store).await?.commit().await };
        // A connection that died in silence would be waited for until TCP gives it up.
        timeout(2 * BEAT, beat).await.unwrap_or(Err(StoreError::Busy))
    }
}

/// A transaction of [`Tenure::write`].
#[derive(Debug)]
pub struct InPlace {
    tx: Tx,
    /// The count of beats that it commits.
    beat: Option<u64>,
    continuity: Continuity,
}

impl InPlace {
    /// Commits it.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn commit(self) -> Result<(), StoreError> {
        self.tx.commit().await?;
        self.beat.inspect(|beat| self.continuity.note_beat(*beat));
        Ok(())
    }
}

impl Deref for InPlace {
    type Target = Tx;

    fn deref(&self) -> &Tx {
        &self.tx
    }
}

impl DerefMut for InPlace {
    fn deref_mut(&mut self) -> &mut Tx {
        &mut self.tx
    }
}

/// Leaves the database to others at once.
///
/// # Errors
/// If the store fails; others wait as for one that died.
pub async fn leave(store: &Store, id: ControllerId) -> Result<(), StoreError> {
    let mut tx = store.write().await?;
    controller::delete(&mut tx, id).await?;
    tx.commit().await
}

/// Takes the database for this controller, when every other one has left or is dead.
///
/// # Errors
/// [`AdmissionError::Other`] as soon as another one shows that it is alive.
pub async fn admit(store: &Store, newcomer: &Controller, patience: Patience) -> Result<(), AdmissionError> {
    // How long each counter has stood still. A look that was kept waiting counts as one that was not: whatever held it up
    // held up the other one's beats, too.
    let mut seen: HashMap<ControllerId, (u64, Duration)> = HashMap::new();
    let mut last = Instant::now();
    loop {
        let others = controller::list_living(&mut *store.read().await?).await?;
        let step = last.elapsed().min(2 * patience.look);
        last = Instant::now();
        let mut dead = Vec::with_capacity(others.len());
        for other in &others {
            let (beat, still) = match seen.get(&other.id) {
                Some((beat, still)) => (*beat, *still + step),
                None => (other.beat, Duration::ZERO),
            };
            seen.insert(other.id, (beat, still));
            if beat != other.beat {
                let Controller { name, version, .. } = other.clone();
                return Err(AdmissionError::Other { name, version });
            }
            if still >= patience.dead {
                dead.push(other);
            }
        }
        if dead.len() == others.len() && take(store, newcomer, &dead).await? {
            return Ok(());
        }
        sleep(patience.look).await;
    }
}

/// Puts the newcomer in the place of the dead. Not so if one of them has told that it is alive meanwhile, or another newcomer
/// was faster.
async fn take(store: &Store, newcomer: &Controller, dead: &[&Controller]) -> Result<bool, StoreError> {
    let mut tx = store.write().await?;
    for other in dead {
        if !controller::update_dead(&mut tx, other.id, other.beat).await? {
            return Ok(false);
        }
        warn!(controller = %other.id, name = other.name, "controller.found_dead");
    }
    match controller::insert(&mut tx, newcomer).await {
        Ok(()) => tx.commit().await.map(|()| true),
        Err(StoreError::Conflict { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fleetward_protocol::time::Timestamp;
    use fleetward_store::on_both_engines;
    use fleetward_store::testing::execute;
    use uuid::Uuid;

    use super::*;

    const QUICK: Patience = Patience { dead: Duration::from_millis(60), look: Duration::from_millis(5) };
    /// So long that a test which waited for it would be stopped.
    const LONG: Patience = Patience { dead: Duration::from_secs(3600), look: Duration::from_millis(5) };

    fn named(name: &str) -> Controller {
        Controller {
            id: ControllerId::from_uuid(Uuid::now_v7()),
            name: name.to_owned(),
            version: "0.0.0".to_owned(),
            beat: 0,
            started_at: Timestamp::from_millis(1_700_000_000_000),
        }
    }

    fn of(who: &Controller) -> Tenure {
        Tenure { place: Some(who.id), ..Tenure::default() }
    }

    async fn lives(store: &Store, who: &Controller) -> bool {
        match of(who).beat(store).await {
            Err(StoreError::TakenOver) => false,
            told => told.map(|()| true).unwrap(),
        }
    }

    on_both_engines! {
        async fn one_that_lives_keeps_another_away(store: Store) {
            let (first, second) = (named("one"), named("two"));
            admit(&store, &first, LONG).await.unwrap();
            let beats = async {
                loop {
                    assert!(lives(&store, &first).await);
                    tokio::task::yield_now().await;
                }
            };
            let refused = tokio::select! {
                refused = admit(&store, &second, LONG) => refused.unwrap_err(),
                () = beats => unreachable!(),
            };
            let told = refused.to_string();
            assert!(told.contains("another controller works on this database: one (version 0.0.0)"), "{told}");
            assert!(lives(&store, &first).await, "the first one was not disturbed");
        }

        async fn one_that_left_or_died_keeps_nobody_away(store: Store) {
            let (first, second) = (named("one"), named("two"));
            admit(&store, &first, LONG).await.unwrap();
            leave(&store, first.id).await.unwrap();
            admit(&store, &second, LONG).await.unwrap();
            // It is killed, and tells nothing any more.
            let third = named("three");
            admit(&store, &third, QUICK).await.unwrap();
            // Should it wake up, it learns it.
            assert!(!lives(&store, &second).await && lives(&store, &third).await);
        }

        async fn who_was_found_dead_writes_nothing_that_is_bound_to_its_place(store: Store) {
            let first = named("one");
            admit(&store, &first, LONG).await.unwrap();
            let tenure = of(&first);
            tenure.write(&store).await.unwrap().commit().await.unwrap();
            admit(&store, &named("two"), QUICK).await.unwrap();
            assert!(matches!(tenure.write(&store).await, Err(StoreError::TakenOver)));
            // Where nobody else can reach the database there is no place.
            Tenure::default().write(&store).await.unwrap();
        }

        /// Writes in its place count the beats on, too: neither hides from the other what was lost.
        async fn beats_that_were_lost_are_noticed_by_whatever_counts_on(store: Store) {
            let first = named("one");
            admit(&store, &first, LONG).await.unwrap();
            let lose = async || execute(&store, "UPDATE controller SET beat = beat - 1").await;
            for (before, after) in [(3, 0), (0, 3), (1, 1)] {
                let tenure = of(&first);
                for _ in 0..before {
                    tenure.write(&store).await.unwrap().commit().await.unwrap();
                }
                tenure.beat(&store).await.unwrap();
                for _ in 0..after {
                    tenure.write(&store).await.unwrap().commit().await.unwrap();
                }
                // What was not committed is no loss.
                drop(tenure.write(&store).await.unwrap());
                tenure.beat(&store).await.unwrap();
                assert!(!tenure.continuity.is_broken());
                lose().await;
                tenure.write(&store).await.unwrap().commit().await.unwrap();
                assert!(tenure.continuity.is_broken());
            }
        }

        async fn of_several_newcomers_one_starts(store: Store) {
            let all = [named("one"), named("two"), named("three")];
            let [one, two, three] = &all;
            let admitted = async |who| tokio::time::timeout(Duration::from_secs(2), admit(&store, who, LONG)).await;
            let (one, two, three) = tokio::join!(admitted(one), admitted(two), admitted(three));
            let started = [one, two, three].iter().filter(|admitted| matches!(admitted, Ok(Ok(())))).count();
            assert_eq!(started, 1);
        }
    }
}
