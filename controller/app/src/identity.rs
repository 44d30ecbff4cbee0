//! Which key of secrets and which authority a database belongs with.
//!
//! Both are files of the data directory, and the database is perhaps elsewhere. A controller with another key could open none of
//! the database's secrets and would seal new ones that its next start cannot open; one with another authority would be
//! strange to every host. So the database remembers a digest of each from the first start on, and a controller with others does
//! not start. A fresh key is made only beside a database that knows none.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fleetward_pki::Authority;
use fleetward_protocol::time::Timestamp;
use fleetward_store::people::user;
use fleetward_store::{Store, StoreError, Tx, setting};

use super::secret::{SecretBox, SecretError};
use crate::fleet::controller::Tenure;
use crate::people::actor::Actor;
use crate::people::audit::{self, Entry};

/// Of the key: a digest that it alone can make.
const KEY: &str = "identity.secret_key";
/// Of the authority: the digest of its root certificate.
const AUTHORITY: &str = "identity.authority";

/// Why the files of a data directory do not do for a database.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The key file could not be read or made.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// There is no key file, and the database's secrets were sealed with one.
    #[error(
        "the key file {path} is missing, and this database's secrets were sealed with it; restore it from a backup of the \
         data directory. If it is lost for good, run `fleetward-controller accept-keys`, and enter the repository's \
         credentials again",
        path = .0.display()
    )]
    KeyMissing(PathBuf),
    /// The key file is another controller's.
    #[error(
        "the key file {path} is not the one that this database's secrets were sealed with; restore the right one from a \
         backup of the data directory. If that is lost for good, run `fleetward-controller accept-keys`, and enter the \
         repository's credentials again",
        path = .0.display()
    )]
    OtherKey(PathBuf),
    /// The authority is another controller's.
    #[error(
        "the root certificate in {directory} is not the one that this database's hosts were enrolled with (SHA-256 {expected}); \
         restore that directory from a backup of the data directory. If it is lost for good, run \
         `fleetward-controller accept-keys`, and enrol every host again",
        directory = .directory.display()
    )]
    OtherAuthority {
        /// Where the authority's files are.
        directory: PathBuf,
        /// The digest of the right root certificate.
        expected: String,
    },
    /// The database belongs to another controller.
    #[error(
        "the database belongs to another controller already; give this one a database of its own, or restore the other \
         one's data directory and start that"
    )]
    Taken,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Reads the key at `path`, or makes one if the database knows none yet; and sees that the authority is the database's. Bound to the
/// controller's place: of two that come to a fresh database, one makes it its own.
///
/// # Errors
/// [`IdentityError`], which names what has to be restored; or that another controller has taken the place.
pub async fn unlock(
    store: &Store,
    tenure: &Tenure,
    authority: &Authority,
    path: &Path,
    now: Timestamp,
) -> Result<SecretBox, IdentityError> {
    let mut tx = tenure.write(store).await?;
    let known = setting::list(&mut tx).await?;
    check(&known, authority, path)?;
    let secrets = SecretBox::load_or_create(path)?;
    setting::insert(&mut tx, KEY, &digest_of(&secrets), now).await?;
    setting::insert(&mut tx, AUTHORITY, &authority.digest().to_string(), now).await?;
    tx.commit().await?;
    Ok(secrets)
}

/// Sees that the key at `path` and the authority are what a database remembers in its settings; what it remembers nothing of may
/// be any. To be asked before the database's schema is changed.
///
/// # Errors
/// [`IdentityError`], which names what has to be restored.
pub fn check(
    settings: &BTreeMap<String, String>,
    authority: &Authority,
    path: &Path,
) -> Result<(), IdentityError> {
    if let Some(expected) = settings.get(KEY) {
        let secrets = SecretBox::load(path)?.ok_or_else(|| IdentityError::KeyMissing(path.to_owned()))?;
        if digest_of(&secrets) != *expected {
            return Err(IdentityError::OtherKey(path.to_owned()));
        }
    }
    match settings.get(AUTHORITY) {
        Some(expected) if *expected != authority.digest().to_string() => Err(IdentityError::OtherAuthority {
            directory: authority.directory().to_owned(),
            expected: expected.clone(),
        }),
        _ => Ok(()),
    }
}

/// Sees that no controller has served the database with these settings yet. To be asked before its schema is changed.
///
/// # Errors
/// [`IdentityError::Taken`] if one has.
pub fn expect_unknown(settings: &BTreeMap<String, String>) -> Result<(), IdentityError> {
    if settings.contains_key(KEY) { Err(IdentityError::Taken) } else { Ok(()) }
}

/// Sees that no controller has served this database yet, and that none was made for it.
///
/// # Errors
/// [`IdentityError::Taken`] if one was.
pub async fn expect_none(tx: &mut Tx) -> Result<(), IdentityError> {
    expect_unknown(&setting::list(tx).await?)?;
    if user::list(tx).await?.is_empty() { Ok(()) } else { Err(IdentityError::Taken) }
}

/// Forgets both, so that the next start takes what is in its data directory: for an administrator on the controller's own
/// machine, when the right files are lost.
///
/// # Errors
/// If the store fails.
pub async fn forget(tx: &mut Tx, now: Timestamp) -> Result<(), StoreError> {
    setting::delete(tx, KEY).await?;
    setting::delete(tx, AUTHORITY).await?;
    audit::record(tx, Entry::new("controller.keys_accepted", Actor::System, "the controller"), now).await
}

fn digest_of(secrets: &SecretBox) -> String {
    secrets.digest("identity", b"the key of this database's secrets").to_string()
}

#[cfg(test)]
mod tests {
    use fleetward_protocol::id::ControllerId;
    use fleetward_store::on_both_engines;
    use fleetward_store::people::tenant;
    use fleetward_store::testing::NOW;
    use uuid::Uuid;

    use super::*;

    on_both_engines! {
        async fn a_database_opens_only_with_the_key_and_the_authority_of_its_first_start(store: Store) {
            let (directory, tenure) = (tempfile::tempdir().unwrap(), Tenure::default());
            let (key, other_key) = (directory.path().join("secret.key"), directory.path().join("other.key"));
            let authority = Authority::create(&directory.path().join("pki"), "ctl.example.com", NOW).unwrap();
            let other = Authority::create(&directory.path().join("other"), "ctl.example.com", NOW).unwrap();
            let sealed = unlock(&store, &tenure, &authority, &key, NOW).await.unwrap().seal("x", b"secret").unwrap();
            // The same files, later.
            let again = unlock(&store, &tenure, &authority, &key, NOW).await.unwrap();
            assert_eq!(again.open("x", &sealed).unwrap(), b"secret");
            // No key: none is made.
            let told = unlock(&store, &tenure, &authority, &other_key, NOW).await.unwrap_err();
            assert!(matches!(&told, IdentityError::KeyMissing(path) if *path == other_key), "{told}");
            assert!(!other_key.exists());
            // Another one's key.
            SecretBox::load_or_create(&other_key).unwrap();
            let told = unlock(&store, &tenure, &authority, &other_key, NOW).await.unwrap_err();
            assert!(matches!(&told, IdentityError::OtherKey(path) if *path == other_key), "{told}");
            assert!(told.to_string().contains(&other_key.display().to_string()), "{told}");
            // Another one's authority.
            let told = unlock(&store, &tenure, &other, &key, NOW).await.unwrap_err();
            assert!(matches!(&told, IdentityError::OtherAuthority { expected, .. } if *expected == authority.digest().to_string()), "{told}");
            let mut tx = store.write().await.unwrap();
            assert!(matches!(expect_none(&mut tx).await, Err(IdentityError::Taken)));
            // Lost for good.
            forget(&mut tx, NOW).await.unwrap();
            tx.commit().await.unwrap();
            unlock(&store, &tenure, &other, &other_key, NOW).await.unwrap();
            assert!(matches!(unlock(&store, &tenure, &authority, &key, NOW).await, Err(IdentityError::OtherKey(_))));
        }

        async fn who_was_found_dead_gives_a_database_no_key(store: Store) {
            let directory = tempfile::tempdir().unwrap();
            let key = directory.path().join("secret.key");
            let authority = Authority::create(&directory.path().join("pki"), "ctl.example.com", NOW).unwrap();
            let dead = Tenure { place: Some(ControllerId::from_uuid(Uuid::now_v7())), ..Tenure::default() };
            let told = unlock(&store, &dead, &authority, &key, NOW).await.unwrap_err();
            assert!(matches!(told, IdentityError::Store(StoreError::TakenOver)), "{told}");
            assert!(!key.exists());
            assert_eq!(setting::list(&mut store.read().await.unwrap()).await.unwrap().get(KEY), None);
        }

        /// It was made for a controller that is yet to serve.
        async fn a_database_that_has_users_is_somebodys(store: Store) {
            let mut tx = store.write().await.unwrap();
            expect_none(&mut tx).await.unwrap();
            crate::people::user::insert_admin(&mut tx, &"ada".parse().unwrap(), tenant::DEFAULT, NOW).await.unwrap();
            assert!(matches!(expect_none(&mut tx).await, Err(IdentityError::Taken)));
        }
    }
}
