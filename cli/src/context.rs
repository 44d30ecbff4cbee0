//! Logins kept on disk: one per controller, in `contexts.json`, mode 0600.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fleetward_api::time::Time;
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use crate::client::address::Address;
use crate::client::trust::Trust;
use crate::config;
use crate::failure::Failure;

/// All logins of a user.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Contexts {
    /// The one that commands use when none is named.
    current: Option<String>,
    contexts: Vec<Context>,
}

/// A login at one controller.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Context {
    /// The controller.
    url: String,
    /// Who logged in.
    pub(crate) user: String,
    /// What proves it.
    pub(crate) token: String,
    /// When that stops working.
    pub(crate) expires_at: Time,
    /// The fingerprint that was trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pin: Option<String>,
    /// The authorities that were given with `--ca-cert`; DER in base64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    roots: Vec<String>,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("url", &self.url).field("user", &self.user).finish_non_exhaustive()
    }
}

impl Context {
    /// A fresh login.
    pub(crate) fn new(address: &Address, trust: &Trust, user: String, token: String, until: Time) -> Self {
        let (pin, roots) = match trust {
            Trust::System => (None, Vec::new()),
            Trust::Pinned(fingerprint) => (Some(fingerprint.to_string()), Vec::new()),
            Trust::Roots(roots) => (None, roots.iter().map(|root| STANDARD.encode(root)).collect()),
        };
        Self { url: address.to_string(), user, token, expires_at: until, pin, roots }
    }

    /// Who vouches for this controller.
    ///
    /// # Errors
    /// If the file was damaged.
    pub(crate) fn trust(&self) -> anyhow::Result<Trust> {
        if let Some(pin) = &self.pin {
            return pin.parse().map(Trust::Pinned).map_err(anyhow::Error::msg);
        }
        if self.roots.is_empty() {
            return Ok(Trust::System);
        }
        let roots: Result<Vec<_>, _> =
            self.roots.iter().map(|root| STANDARD.decode(root).map(CertificateDer::from)).collect();
        Ok(Trust::Roots(roots.context("cannot read a certificate of the kept login")?))
    }
}

impl Contexts {
    /// Reads them; none where there is no file.
    ///
    /// # Errors
    /// If the file cannot be read or is not ours.
    pub(crate) fn load() -> Result<Self, Failure> {
        let Some(path) = path() else { return Ok(Self::default()) };
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                let what = format!("cannot read {}; remove it and log in again", path.display());
                Failure::Other(anyhow::Error::new(error).context(what))
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => {
                let what = format!("cannot read {}", path.display());
                Err(Failure::Other(anyhow::Error::new(error).context(what)))
            }
        }
    }

    /// The controller that was logged in to last.
    pub(crate) fn current(&self) -> Option<Address> {
        self.current.as_ref().and_then(|url| url.parse().ok())
    }

    /// The login at `address`.
    pub(crate) fn find(&self, address: &Address) -> Option<&Context> {
        let url = address.to_string();
        self.contexts.iter().find(|context| context.url == url)
    }

    /// Takes `context` in place of an older one, and makes it the current one.
    pub(crate) fn put(&mut self, context: Context) {
        self.current = Some(context.url.clone());
        self.contexts.retain(|other| other.url != context.url);
        self.contexts.push(context);
    }

    /// Forgets the login at `address`, and what was trusted there.
    pub(crate) fn remove(&mut self, address: &Address) {
        let url = address.to_string();
        self.contexts.retain(|context| context.url != url);
        if self.current.as_deref() == Some(&url) {
            self.current = self.contexts.last().map(|context| context.url.clone());
        }
    }

    /// Writes them, whole or not at all, readable by their owner only.
    ///
    /// # Errors
    /// If there is no place for them, or it cannot be written.
    pub(crate) fn save(&self) -> Result<(), Failure> {
        let path = path().ok_or_else(|| {
            Failure::Usage(
                "neither XDG_CONFIG_HOME nor HOME is set, so there is no place for a login".to_owned(),
            )
        })?;
        write(&path, self).map_err(Failure::Other)
    }
}

fn path() -> Option<PathBuf> {
    config::directory().map(|directory| directory.join("contexts.json"))
}

fn write(path: &Path, contexts: &Contexts) -> anyhow::Result<()> {
    let directory = path.parent().context("the login file has no directory")?;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    let fresh = path.with_extension(format!("{}.new", std::process::id()));
    let written = (|| {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        file.write_all(&serde_json::to_vec_pretty(contexts)?)?;
        file.sync_all()?;
        fs::rename(&fresh, path)
    })();
    if written.is_err() {
        // The error that is reported is the first one.
        let _ = fs::remove_file(&fresh);
    }
    written.with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::client::trust::Fingerprint;

    fn context(url: &str, trust: &Trust) -> Context {
        let until = "2026-01-02T03:04:05Z".parse().unwrap();
        Context::new(&url.parse().unwrap(), trust, "ann".to_owned(), "secret".to_owned(), until)
    }

    #[test]
    fn several_logins_are_kept_and_the_last_is_current() {
        let mut contexts = Contexts::default();
        contexts.put(context("https://a.example.com", &Trust::System));
        contexts.put(context("https://b.example.com", &Trust::System));
        contexts.put(context("https://a.example.com", &Trust::System));
        assert_eq!(contexts.contexts.len(), 2);
        assert_eq!(contexts.current().unwrap().to_string(), "https://a.example.com");
        contexts.remove(&"https://a.example.com".parse().unwrap());
        assert_eq!(contexts.current().unwrap().to_string(), "https://b.example.com");
        assert!(contexts.find(&"https://a.example.com".parse().unwrap()).is_none());
    }

    #[test]
    fn what_was_trusted_is_read_back() {
        let certificate = CertificateDer::from(vec![1, 2, 3]);
        let pinned = Trust::Pinned(Fingerprint::of(&certificate));
        for trust in [Trust::System, pinned, Trust::Roots(vec![certificate])] {
            assert_eq!(context("https://a.example.com", &trust).trust().unwrap(), trust);
        }
    }

    #[test]
    fn only_the_owner_can_read_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new/contexts.json");
        write(&path, &Contexts::default()).unwrap();
        write(&path, &Contexts::default()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }
}
