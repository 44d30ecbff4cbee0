//! Key and certificate files: private, whole or not at all, never readable by others.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use rcgen::KeyPair;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::PkiError;

/// Writes `content` to `path` with mode 0600, whole or not at all, and through to the disk.
pub(super) fn write_private(path: &Path, content: &str) -> Result<(), PkiError> {
    let failed = |source| PkiError::File { act: "write", path: path.to_owned(), source };
    let staged = path.with_extension("new");
    let write = || -> io::Result<()> {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&staged)?;
        file.write_all(content.as_bytes())?;
        file.sync_all()?;
        fs::rename(&staged, path)?;
        path.parent().map_or(Ok(()), |parent| fs::File::open(parent)?.sync_all())
    };
    write().map_err(failed)
}

/// Reads a private key, if nobody but its owner (and root) can.
pub(super) fn read_key(path: &Path) -> Result<KeyPair, PkiError> {
    let bytes = read_guarded(path, Guard { forbidden: 0o077, chmod: "0600" })?;
    let text = str::from_utf8(&bytes).map_err(|_| no_key(path))?;
    KeyPair::from_pem(text).map_err(|_| no_key(path))
}

/// Reads a private key of any kind that a web server's may be. Its group may read it too, as is usual for keys that
/// several programs share.
pub(super) fn read_foreign_key(path: &Path) -> Result<PrivateKeyDer<'static>, PkiError> {
    let bytes = read_guarded(path, Guard { forbidden: 0o007, chmod: "o=" })?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| no_key(path))
}

/// Whose permissions a private key must not have, and what takes them away.
struct Guard {
    forbidden: u32,
    chmod: &'static str,
}

fn read_guarded(path: &Path, guard: Guard) -> Result<Vec<u8>, PkiError> {
    let failed = |error| read_failed(path, error);
    // Of the file that is open: another could have taken its place meanwhile.
    let mut file = fs::File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o7777;
    if mode & guard.forbidden != 0 {
        return Err(PkiError::Exposed { path: path.to_owned(), mode, chmod: guard.chmod });
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

fn no_key(path: &Path) -> PkiError {
    PkiError::Malformed { path: path.to_owned(), expected: "a private key in PEM" }
}

/// Reads the certificates of a PEM file; never an empty list.
pub(super) fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, PkiError> {
    let bytes = fs::read(path).map_err(|error| read_failed(path, error))?;
    let malformed = || PkiError::Malformed { path: path.to_owned(), expected: "a certificate in PEM" };
    let certificates: Vec<_> =
        CertificateDer::pem_slice_iter(&bytes).collect::<Result<_, _>>().map_err(|_| malformed())?;
    if certificates.is_empty() { Err(malformed()) } else { Ok(certificates) }
}

fn read_failed(path: &Path, source: io::Error) -> PkiError {
    if source.kind() == io::ErrorKind::NotFound {
        PkiError::Missing(path.to_owned())
    } else {
        PkiError::File { act: "read", path: path.to_owned(), source }
    }
}
