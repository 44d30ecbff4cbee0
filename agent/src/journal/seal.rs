//! Orders at rest: sealed in the journal with a key that is not in it.
//!
//! **What for.** An order carries what its run was given, secrets among it. It waits in the journal, and stays there until
//! the journal is compacted; a copy of the journal must tell nothing of it.
//!
//! **What it promises.** A sealed order opens only with the key of the same host and for the same run: AES-256-GCM with
//! a random nonce (NIST SP 800-38D) and the run's id as associated data. The key is made once, whole or not at all, with
//! mode 0600, and is refused when others can read it.

use std::path::Path;

use fleetward_protocol::id::RunId;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::platform::files::{self, FileError};
use crate::platform::trust::Secrecy;

/// The first byte of a sealed order: this byte, the nonce, ciphertext with tag.
const FORMAT: u8 = 1;
const KEY: usize = 32;

/// Seals and opens orders.
#[derive(Debug)]
pub(super) struct Seal {
    key: LessSafeKey,
    random: SystemRandom,
}

/// The system gave no random bytes, or the order is too long for the cipher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotSealed;

impl Seal {
    /// The key at `path`. Where there is none, or what is there is none, a new one is made: what the old one sealed
    /// cannot be opened then, and is not carried out.
    ///
    /// # Errors
    /// If it cannot be read or made, or others could have read or written it.
    pub(super) fn load_or_create(path: &Path) -> Result<Self, FileError> {
        let random = SystemRandom::new();
        let found = match files::read_trusted(path, KEY as u64, Secrecy::Private) {
            Ok(bytes) => Some(bytes),
            Err(error) if error.is_absent() => None,
            Err(error) => return Err(error),
        };
        let unusable = |_| FileError::new("make a key for", path, std::io::Error::other("no random bytes"));
        if let Some(key) = found.and_then(|bytes| UnboundKey::new(&AES_256_GCM, &bytes).ok()) {
            return Ok(Self { key: LessSafeKey::new(key), random });
        }
        let mut bytes = [0; KEY];
        random.fill(&mut bytes).map_err(unusable)?;
        files::ensure_file(path, 0o600, &bytes)?;
        tracing::info!(path = %path.display(), "journal_key_made");
        let key = UnboundKey::new(&AES_256_GCM, &bytes).map_err(unusable)?;
        Ok(Self { key: LessSafeKey::new(key), random })
    }

    /// Encrypts `order` so that it opens only as the order of `run`.
    pub(super) fn seal(&self, run: RunId, order: &[u8]) -> Result<Vec<u8>, NotSealed> {
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).map_err(|_| NotSealed)?;
        let mut sealed = Vec::with_capacity(1 + NONCE_LEN + order.len() + AES_256_GCM.tag_len());
        sealed.push(FORMAT);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(order);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self.key.seal_in_place_separate_tag(nonce, purpose(run), &mut sealed[1 + NONCE_LEN..]);
        sealed.extend_from_slice(tag.map_err(|_| NotSealed)?.as_ref());
        Ok(sealed)
    }

    /// Decrypts what [`Self::seal`] made for the same run; `None` if this key did not, or it was changed.
    pub(super) fn open(&self, run: RunId, sealed: &[u8]) -> Option<Vec<u8>> {
        let (&format, rest) = sealed.split_first()?;
        let (nonce, rest) = rest.split_first_chunk::<NONCE_LEN>()?;
        if format != FORMAT {
            return None;
        }
        let mut bytes = rest.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = self.key.open_in_place(nonce, purpose(run), &mut bytes).ok()?.len();
        bytes.truncate(length);
        Some(bytes)
    }
}

fn purpose(run: RunId) -> Aad<Vec<u8>> {
    Aad::from(format!("order of {run}").into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn run(number: u128) -> RunId {
        RunId::from_uuid(uuid::Uuid::from_u128(number))
    }

    #[test]
    fn an_order_opens_with_its_key_for_its_run_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal.key");
        Seal::load_or_create(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        for order in [&b""[..], b"TOKEN=hunter2", &[7; 100_000]] {
            let seal = Seal::load_or_create(&path).unwrap();
            let sealed = seal.seal(run(1), order).unwrap();
            assert_eq!(seal.open(run(1), &sealed).as_deref(), Some(order));
            assert_ne!(seal.seal(run(1), order).unwrap(), sealed, "no two are alike");
            assert_eq!(Seal::load_or_create(&path).unwrap().open(run(1), &sealed).as_deref(), Some(order));
            assert_eq!(seal.open(run(2), &sealed), None);
            for at in [0, 1, 13, sealed.len() - 1] {
                let mut changed = sealed.clone();
                changed[at] ^= 1;
                assert_eq!(seal.open(run(1), &changed), None, "byte {at}");
            }
            for length in [0, 1, 13, sealed.len() - 1] {
                assert_eq!(seal.open(run(1), &sealed[..length]), None, "{length} bytes");
            }
            std::fs::write(&path, "short").unwrap();
            assert_eq!(Seal::load_or_create(&path).unwrap().open(run(1), &sealed), None);
            std::fs::remove_file(&path).unwrap();
            assert_eq!(Seal::load_or_create(&path).unwrap().open(run(1), &sealed), None);
        }

        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let told = Seal::load_or_create(&path).unwrap_err().to_string();
        assert!(told.contains("mode 0640") && told.contains("chmod 0600"), "{told}");
    }
}
