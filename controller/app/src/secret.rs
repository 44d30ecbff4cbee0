//! Secrets at rest: encrypted in the database with a key that is not in it.
//!
//! **What for.** Credentials that the controller has to use again (a git token, an SSH key) cannot be digested;
//! they are sealed with XChaCha20-Poly1305 under the key in `secret.key` of the data directory.
//!
//! **What it promises.** A sealed value opens only with the same key and the same purpose, so that a value
//! copied from one column to another is refused. The key file is made once, whole or not at all, with mode
//! 0600, and is refused when others can read it.
//!
//! **Deliberately absent.** Rotation of the key: the first byte of a sealed value names its format, which
//! leaves room for it.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use chacha20poly1305::aead::{Aead as _, AeadCore as _, KeyInit as _, OsRng, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use fleetward_protocol::digest::Digest;
use sha2::{Digest as _, Sha256};

/// XChaCha20-Poly1305: this byte, 24 bytes of nonce, ciphertext with tag.
const FORMAT: u8 = 1;
const NONCE: usize = 24;
const KEY: usize = 32;

/// Seals and opens secrets. Cheap to clone.
#[derive(Clone)]
pub struct SecretBox {
    cipher: XChaCha20Poly1305,
    /// What digests of secrets are made with.
    digest_key: [u8; KEY],
}

/// Why a secret could not be kept or used.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The key file could not be read or made.
    #[error("{act} the key file {path}", path = .path.display())]
    KeyFile {
        /// What was tried.
        act: &'static str,
        /// The key file.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// Others can read the key.
    #[error("the key file {path} has mode {mode:04o}, but must be readable by its owner alone; run `chmod 0600 {path}`", path = .path.display())]
    Exposed {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The key file holds something else.
    #[error("the key file {path} does not hold 64 hexadecimal digits; restore it from a backup", path = .0.display())]
    Malformed(PathBuf),
    /// The value was sealed with another key or for another purpose, or was changed.
    #[error(
        "open a stored secret: it was sealed with another secret.key, or was changed; restore the key file, or enter the secret again"
    )]
    NotOurs,
    /// The value could not be sealed.
    #[error("seal a secret")]
    NotSealed,
}

impl SecretBox {
    /// Reads the key at `path`, or makes one there.
    ///
    /// # Errors
    /// If the file cannot be read or made, is readable by others, or does not hold a key.
    pub fn load_or_create(path: &Path) -> Result<Self, SecretError> {
        if let Some(found) = Self::load(path)? {
            return Ok(found);
        }
        create(path).map_err(|source| failed("make", path, source))?;
        Self::read(path, 0o600)
    }

    /// Reads the key at `path`, if there is one.
    ///
    /// # Errors
    /// If the file cannot be read, is readable by others, or does not hold a key.
    pub fn load(path: &Path) -> Result<Option<Self>, SecretError> {
        match fs::metadata(path) {
            Ok(found) => Self::read(path, found.permissions().mode() & 0o7777).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(failed("read", path, source)),
        }
    }

    /// Encrypts `plain` so that it opens only for `purpose`.
    ///
    /// # Errors
    /// [`SecretError::NotSealed`] if `plain` is beyond what the cipher takes (256 GiB).
    pub fn seal(&self, purpose: &str, plain: &[u8]) -> Result<Vec<u8>, SecretError> {
        let nonce = XChaCha20Poly1305::generate_nonce(&mut OsRng);
        let payload = Payload { msg: plain, aad: purpose.as_bytes() };
        let ciphertext = self.cipher.encrypt(&nonce, payload).map_err(|_| SecretError::NotSealed)?;
        let mut sealed = Vec::with_capacity(1 + NONCE + ciphertext.len());
        sealed.push(FORMAT);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&ciphertext);
        Ok(sealed)
    }

    /// Decrypts what [`Self::seal`] made for the same `purpose`.
    ///
    /// # Errors
    /// [`SecretError::NotOurs`] otherwise.
    pub fn open(&self, purpose: &str, sealed: &[u8]) -> Result<Vec<u8>, SecretError> {
        let Some((&FORMAT, rest)) = sealed.split_first() else { return Err(SecretError::NotOurs) };
        let Some((nonce, ciphertext)) = rest.split_at_checked(NONCE) else {
            return Err(SecretError::NotOurs);
        };
        let payload = Payload { msg: ciphertext, aad: purpose.as_bytes() };
        self.cipher.decrypt(XNonce::from_slice(nonce), payload).map_err(|_| SecretError::NotOurs)
    }

    /// A digest by which two secrets can be compared and that tells nothing else: without the key nobody can try
    /// values until one fits.
    #[must_use]
    pub fn digest(&self, purpose: &str, plain: &[u8]) -> Digest {
        // Nested, as HMAC is, so that the digest of one text says nothing about that of a longer one.
        let inner = Sha256::new()
            .chain_update(self.digest_key)
            .chain_update(Sha256::digest(purpose))
            .chain_update(plain)
            .finalize();
        Digest::of(&[self.digest_key.as_slice(), inner.as_slice()].concat())
    }

    /// What is shown in the place of a value that may be a secret: the same value has the same digest.
    #[must_use]
    pub fn stand_in(&self, value: &str) -> serde_json::Value {
        serde_json::json!({ "digest": self.digest("operation.variable", value.as_bytes()) })
    }

    fn read(path: &Path, mode: u32) -> Result<Self, SecretError> {
        if mode & 0o077 != 0 {
            return Err(SecretError::Exposed { path: path.to_owned(), mode });
        }
        let text = fs::read_to_string(path).map_err(|source| failed("read", path, source))?;
        let malformed = || SecretError::Malformed(path.to_owned());
        let digits = text.trim_end();
        if digits.len() != 2 * KEY || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(malformed());
        }
        let mut key = [0; KEY];
        for (byte, pair) in key.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| malformed())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| malformed())?;
        }
        let digest_key = Sha256::new().chain_update(b"fleetward secret digest").chain_update(key).finalize();
        Ok(Self { cipher: XChaCha20Poly1305::new(Key::from_slice(&key)), digest_key: digest_key.into() })
    }
}

impl std::fmt::Debug for SecretBox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecretBox").finish_non_exhaustive()
    }
}

/// Writes a fresh key. If another process was faster, its key stays.
fn create(path: &Path) -> io::Result<()> {
    let key = XChaCha20Poly1305::generate_key(&mut OsRng);
    let text: String = key.iter().map(|byte| format!("{byte:02x}")).chain(["\n".to_owned()]).collect();
    let staged = path.with_extension(format!("new-{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&staged)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    // A hard link fails where a rename would replace: a second key would make every sealed secret useless.
    let linked = fs::hard_link(&staged, path);
    fs::remove_file(&staged)?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => path.parent().map_or(Ok(()), |parent| fs::File::open(parent)?.sync_all()),
    }
}

fn failed(act: &'static str, path: &Path, source: io::Error) -> SecretError {
    SecretError::KeyFile { act, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_only_with_the_same_key_and_purpose() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret.key");
        let first = SecretBox::load_or_create(&path).unwrap();
        let sealed = first.seal("repository", b"hunter2").unwrap();
        assert!(!sealed.windows(7).any(|window| window == b"hunter2"));
        assert_ne!(sealed, first.seal("repository", b"hunter2").unwrap());
        let again = SecretBox::load_or_create(&path).unwrap();
        assert_eq!(again.open("repository", &sealed).unwrap(), b"hunter2");
        assert!(matches!(again.open("totp", &sealed), Err(SecretError::NotOurs)));
        let other = SecretBox::load_or_create(&directory.path().join("other.key")).unwrap();
        assert!(matches!(other.open("repository", &sealed), Err(SecretError::NotOurs)));
        for cut in 0..sealed.len() {
            assert!(matches!(again.open("repository", &sealed[..cut]), Err(SecretError::NotOurs)));
            let mut changed = sealed.clone();
            changed[cut] ^= 1;
            assert!(matches!(again.open("repository", &changed), Err(SecretError::NotOurs)));
        }
    }

    #[test]
    fn a_digest_compares_and_cannot_be_tried_without_the_key() {
        let directory = tempfile::tempdir().unwrap();
        let first = SecretBox::load_or_create(&directory.path().join("secret.key")).unwrap();
        let again = SecretBox::load_or_create(&directory.path().join("secret.key")).unwrap();
        let other = SecretBox::load_or_create(&directory.path().join("other.key")).unwrap();
        let digest = first.digest("variable", b"hunter2");
        assert_eq!(again.digest("variable", b"hunter2"), digest);
        assert_ne!(again.digest("variable", b"hunter3"), digest);
        assert_ne!(again.digest("else", b"hunter2"), digest);
        assert_ne!(other.digest("variable", b"hunter2"), digest);
        assert_ne!(Digest::of(b"hunter2"), digest);
    }

    #[test]
    fn refuses_a_key_that_others_can_read_or_that_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret.key");
        SecretBox::load_or_create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(SecretBox::load_or_create(&path), Err(SecretError::Exposed { mode: 0o640, .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "short").unwrap();
        assert!(matches!(SecretBox::load_or_create(&path), Err(SecretError::Malformed(_))));
    }
}
