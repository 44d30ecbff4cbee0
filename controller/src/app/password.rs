//! Passwords: argon2id, on threads of their own, a few at a time.

use std::sync::Arc;

use argon2::password_hash::rand_core::OsRng;
use argon2::password_hash::{PasswordHash, PasswordHasher as _, PasswordVerifier as _, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

/// The fewest characters of a password that a person chooses.
pub const MIN_LENGTH: usize = 12;
/// The most.
pub const MAX_LENGTH: usize = 1024;

/// Memory of one computation, in KiB, passes and lanes: OWASP's second recommendation for argon2id.
const COST: (u32, u32, u32) = (19 * 1024, 2, 1);
/// Computations at the same time: what logins may use of memory and processors, whoever asks.
const PARALLEL: usize = 4;
/// A one-time password's alphabet: without characters that are mistaken for each other.
const ALPHABET: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz123456789";

/// Computes password hashes. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Passwords(Arc<Semaphore>);

/// Why a password is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unacceptable {
    /// Too short or too long.
    #[error("a password has {MIN_LENGTH} to {MAX_LENGTH} characters")]
    Length,
    /// It is the one in force.
    #[error("the new password is the one in force")]
    Same,
}

/// A hash could not be computed; a defect, or no memory.
#[derive(Debug, thiserror::Error)]
#[error("compute a password hash: {0}")]
pub struct HashFailed(String);

impl Passwords {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(PARALLEL)))
    }

    /// The hash of a password, with a fresh salt, in PHC format.
    ///
    /// # Errors
    /// If it could not be computed.
    pub async fn hash(&self, password: &str) -> Result<String, HashFailed> {
        let password = password.to_owned();
        self.compute(move || hash(&password)).await?
    }

    /// Whether the password has this hash. Without a hash the same work is done, and the answer is no: the time
    /// does not tell which users exist.
    ///
    /// # Errors
    /// If it could not be computed.
    pub async fn verify(&self, password: &str, hash: Option<String>) -> Result<bool, HashFailed> {
        let password = password.to_owned();
        self.compute(move || match hash.as_deref().map(PasswordHash::new) {
            Some(Ok(hash)) => {
                argon2().is_ok_and(|argon2| argon2.verify_password(password.as_bytes(), &hash).is_ok())
            }
            _ => {
                let _ = self::hash(&password);
                false
            }
        })
        .await
    }

    async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, HashFailed> {
        let failed = |error: &dyn std::fmt::Display| HashFailed(error.to_string());
        let permit = Arc::clone(&self.0).acquire_owned().await.map_err(|error| failed(&error))?;
        spawn_blocking(move || {
            let _permit = permit;
            work()
        })
        .await
        .map_err(|error| failed(&error))
    }
}

/// Whether a person may choose this password.
///
/// # Errors
/// [`Unacceptable`].
pub fn check(new: &str, current: &str) -> Result<(), Unacceptable> {
    let length = new.chars().count();
    if !(MIN_LENGTH..=MAX_LENGTH).contains(&length) {
        return Err(Unacceptable::Length);
    }
    if new == current { Err(Unacceptable::Same) } else { Ok(()) }
}

/// The hash of a password, computed on this thread: for `init` and `user reset-password`.
///
/// # Errors
/// If it could not be computed.
pub fn hash(password: &str) -> Result<String, HashFailed> {
    let salt = SaltString::generate(&mut OsRng);
    argon2()?
        .hash_password(password.as_bytes(), &salt)
        .map(|hash| hash.to_string())
        .map_err(|error| HashFailed(error.to_string()))
}

/// A one-time password: 100 random bits, in groups that can be read out.
#[must_use]
pub fn one_time() -> String {
    let mut text = String::with_capacity(23);
    for (at, byte) in rand::random::<[u8; 20]>().into_iter().enumerate() {
        if at > 0 && at % 5 == 0 {
            text.push('-');
        }
        // 32 letters divide 256: every one is as likely.
        text.push(char::from(ALPHABET.get(usize::from(byte % 32)).copied().unwrap_or(b'a')));
    }
    text
}

fn argon2() -> Result<Argon2<'static>, HashFailed> {
    let (memory, passes, lanes) = COST;
    let params = Params::new(memory, passes, lanes, None).map_err(|error| HashFailed(error.to_string()))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}
