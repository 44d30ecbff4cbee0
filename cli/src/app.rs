//! What every command that talks to a controller needs: a client, and a way to answer.

use std::path::Path;

use anyhow::Context as _;
use bytes::Bytes;
use fleetward_api::time::Time;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::client::Client;
use crate::client::address::Address;
use crate::client::trust::Trust;
use crate::config::{Format, Globals};
use crate::context::Contexts;
use crate::failure::{Exit, Failure};
use crate::moment::Moment;
use crate::render::Out;

#[cfg(test)]
mod tests;

/// A command's surroundings.
#[derive(Debug)]
pub(crate) struct App {
    /// Asks the controller.
    pub(crate) client: Client,
    /// Answers the user.
    pub(crate) out: Out,
}

impl App {
    /// With the login that the options, the environment or the last `login` name.
    ///
    /// # Errors
    /// If there is none.
    pub(crate) fn new(globals: &Globals) -> Result<Self, Failure> {
        let contexts = Contexts::load()?;
        let address = address(globals, &contexts)?;
        let context = contexts.find(&address);
        let trust = match given_trust(globals)? {
            Some(trust) => trust,
            None => context.map_or(Ok(Trust::System), |context| context.trust()).map_err(Failure::Other)?,
        };
        let token = globals.token.clone().or_else(|| context.map(|context| context.token.clone()));
        let Some(token) = token else {
            return Err(Failure::LoggedOut(format!(
                "not logged in at {address}; run `fleetward login {address}`"
            )));
        };
        Ok(Self { client: Client::new(address, trust, Some(token))?, out: Out::new(globals) })
    }

    /// Shows an answer: as it is in JSON, or as `table` writes it.
    pub(crate) fn show<T: DeserializeOwned>(
        &self,
        answer: &Bytes,
        table: impl FnOnce(&T) -> String,
    ) -> Result<Exit, Failure> {
        match self.out.format {
            Format::Json => self.out.json(answer)?,
            Format::Table => self.out.print(table(&self.client.read(answer)?))?,
        }
        Ok(Exit::Success)
    }

    /// Shows a list: all its pages as one JSON array, or as `table` writes the items.
    pub(crate) async fn list<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &impl Serialize,
        most: Option<u32>,
        table: impl FnOnce(&[T]) -> String,
    ) -> Result<Exit, Failure> {
        match self.out.format {
            Format::Json => {
                let mut array = self.out.array();
                self.client.pages(path, query, most, |item| array.push(item)).await?;
                array.end()?;
            }
            Format::Table => {
                let items = self.collect::<T>(path, query, most).await?;
                self.out.print(table(&items))?;
            }
        }
        Ok(Exit::Success)
    }

    /// The point in time that the user means, on the clock and in the zone of this command.
    ///
    /// # Errors
    /// If it is further away than the clock can show.
    pub(crate) fn resolve(&self, moment: Option<&Moment>) -> Result<Option<Time>, Failure> {
        moment
            .map(|moment| moment.resolve(&self.out.clock.now()))
            .transpose()
            .map_err(|error| Failure::Usage(error.to_string()))
    }

    /// How many items of a list to ask for, whose newest are on top: `limit`, if the user gave one; else `shown` of
    /// them for people, all of them for programs.
    pub(crate) fn newest(&self, limit: Option<u32>, shown: u32) -> Option<u32> {
        match self.out.format {
            Format::Json => limit,
            Format::Table => limit.or(Some(shown)),
        }
    }

    /// Tells the user that a list of `count` items was cut where nobody asked for it.
    pub(crate) fn note_newest(&self, limit: Option<u32>, shown: u32, count: usize) {
        if limit.is_none() && count >= shown as usize {
            self.out.note(format_args!("The newest {shown}; --limit shows more."));
        }
    }

    /// Reads a list, `most` items at most.
    pub(crate) async fn collect<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &impl Serialize,
        most: Option<u32>,
    ) -> Result<Vec<T>, Failure> {
        let mut items = Vec::new();
        let take = |item: &serde_json::value::RawValue| {
            items.push(self.client.read(item.get().as_bytes())?);
            Ok(())
        };
        self.client.pages(path, query, most, take).await?;
        Ok(items)
    }
}

/// The controller that a command is for.
pub(crate) fn address(globals: &Globals, contexts: &Contexts) -> Result<Address, Failure> {
    globals.controller.clone().or_else(|| contexts.current()).ok_or_else(|| {
        Failure::LoggedOut("not logged in; run `fleetward login https://CONTROLLER:7444`".to_owned())
    })
}

/// Whom the options say to trust.
pub(crate) fn given_trust(globals: &Globals) -> Result<Option<Trust>, Failure> {
    if let Some(fingerprint) = globals.fingerprint {
        return Ok(Some(Trust::Pinned(fingerprint)));
    }
    globals.ca_cert.as_deref().map(|path| read_roots(path).map_err(Failure::Other)).transpose()
}

fn read_roots(path: &Path) -> anyhow::Result<Trust> {
    let roots: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path)
        .with_context(|| format!("cannot read {}", path.display()))?
        .collect();
    let roots = roots.with_context(|| format!("cannot read {}", path.display()))?;
    anyhow::ensure!(!roots.is_empty(), "{} holds no certificate in PEM form", path.display());
    Ok(Trust::Roots(roots))
}
