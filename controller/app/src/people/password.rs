//! Passwords: argon2id, on threads of their own, a few at a time, in two lanes: what strangers ask for holds up nobody
//! who is known, and each lane's queue is short.

use std::sync::Arc;
use std::time::Duration;

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
#[cfg(not(test))]
const COST: (u32, u32, u32) = (19 * 1024, 2, 1);
/// Tests look at who is let in, not at how long it takes.
#[cfg(test)]
const COST: (u32, u32, u32) = (8, 1, 1);
/// Computations of one lane at the same time: what logins may use of memory and processors, whoever asks.
const PARALLEL: usize = 2;
/// Strangers' passwords that may wait: what the last of them waits for is over within a second or two.
const STRANGERS_WAITING: usize = 16;
/// The same of who is known; they fill it only themselves.
const KNOWN_WAITING: usize = 64;
/// When to come again if too many wait.
const SOON: Duration = Duration::from_secs(2);
/// A one-time password's alphabet: without characters that are mistaken for each other.
const ALPHABET: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz123456789";

/// Computes password hashes.
#[derive(Debug)]
pub struct Passwords {
    strangers: Lane,
    known: Lane,
}

/// Who asks for a computation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Anybody.
    Stranger,
    /// A user who is logged in, or from where this user logged in before.
    Known,
}

#[derive(Debug)]
struct Lane {
    running: Arc<Semaphore>,
    /// Places for those that run and those that wait.
    places: Semaphore,
}

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

/// Why nothing was computed.
#[derive(Debug, thiserror::Error)]
pub enum NotComputed {
    /// Too many wait already.
    #[error("too many logins at once; try again in {} s", .retry_after.as_secs())]
    Busy {
        /// How long to wait.
        retry_after: Duration,
    },
    /// It failed.
    #[error(transparent)]
    Failed(#[from] HashFailed),
}

impl Lane {
    fn new(waiting: usize) -> Self {
        Self { running: Arc::new(Semaphore::new(PARALLEL)), places: Semaphore::new(PARALLEL + waiting) }
    }
}

impl Passwords {
    pub(crate) fn new() -> Self {
        Self { strangers: Lane::new(STRANGERS_WAITING), known: Lane::new(KNOWN_WAITING) }
    }

    /// The hash of a password, with a fresh salt, in PHC format.
    ///
    /// # Errors
    /// [`NotComputed`].
    pub async fn hash(&self, password: &str, standing: Standing) -> Result<String, NotComputed> {
        let password = password.to_owned();
        Ok(self.compute(standing, move || hash(&password)).await??)
    }

    /// Whether the password has this hash. Without a hash the same work is done, and the answer is no: the time
    /// does not tell which users exist.
    ///
    /// # Errors
    /// [`NotComputed`].
    pub async fn verify(
        &self,
        password: &str,
        hash: Option<String>,
        standing: Standing,
    ) -> Result<bool, NotComputed> {
        let password = password.to_owned();
        self.compute(standing, move || match hash.as_deref().map(PasswordHash::new) {
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

    pub(crate) async fn compute<T: Send + 'static>(
        &self,
        standing: Standing,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, NotComputed> {
        let lane = match standing {
            Standing::Stranger => &self.strangers,
            Standing::Known => &self.known,
        };
        let _place = lane.places.try_acquire().map_err(|_| NotComputed::Busy { retry_after: SOON })?;
        let failed = |error: &dyn std::fmt::Display| HashFailed(error.to_string());
        let permit = Arc::clone(&lane.running).acquire_owned().await.map_err(|error| failed(&error))?;
        let done = spawn_blocking(move || {
            // Whoever gives up waiting does not end the computation.
            let _permit = permit;
            work()
        });
        Ok(done.await.map_err(|error| failed(&error))?)
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
