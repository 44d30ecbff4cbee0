//! Binds this host to its client ID and its key, once.

use std::time::Duration;

use fleetward_protocol::client_id::ClientId;
use fleetward_protocol::enrol::{EnrolRefusal, EnrolReply, EnrolRequest, Token};
use fleetward_protocol::text::Text;
use rustls_pki_types::CertificateDer;

use crate::config::{self, Address, Paths, SettingsError};
use crate::identity::{self, ClientIdError, Identity, IdentityError, Request};
use crate::link::{EnrolLinkError, exchange_enrolment};
use crate::platform::clock;
use crate::platform::files::{self, FileError};

const ATTEMPT: Duration = Duration::from_secs(15);

/// Whether a host that is enrolled may be enrolled again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// It may: the old identity is replaced.
    Replace,
    /// It may not.
    Refuse,
}

/// A host that was enrolled.
#[derive(Debug)]
pub struct Enrolled {
    /// Who it is now.
    pub client: ClientId,
    /// Whether a person must approve it before it gets work.
    pub quarantined: bool,
}

/// The host was not enrolled; nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// It is already.
    #[error("this host is enrolled as {0} already; use --force to enrol it again")]
    Already(ClientId),
    /// No address was given, and none is in the configuration.
    #[error("no controller is known; give one with --controller HOST:PORT")]
    NoController,
    /// `agent.toml` cannot be used.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The client-ID file cannot be used.
    #[error(transparent)]
    ClientId(#[from] ClientIdError),
    /// The file names another host than the token.
    #[error(
        "{path} holds {file}, but the token is for {token}; ask for a token for this host, or remove the file if it came from a copied disk image"
    )]
    OtherClient {
        /// The file.
        path: String,
        /// What it holds.
        file: ClientId,
        /// What the token is bound to.
        token: ClientId,
    },
    /// A key, a certificate or a file.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A file or directory.
    #[error(transparent)]
    File(#[from] FileError),
    /// No controller could be asked.
    #[error("this host is not enrolled, because no controller could be asked: {0}")]
    Unreachable(String),
    /// The controller said no.
    #[error("this host is not enrolled, because the controller refused: {0}")]
    Refused(EnrolRefusal),
}

/// Enrols this host with the first of `controllers` (or, if there is none, of the configuration) that answers.
///
/// # Errors
/// If it is enrolled already, if no controller answers, or the controller refuses.
pub async fn enrol(
    paths: &Paths,
    controllers: &[Address],
    token: &Token,
    again: Again,
) -> Result<Enrolled, EnrolError> {
    if again == Again::Refuse
        && let Ok(identity) = Identity::load(paths)
    {
        return Err(EnrolError::Already(identity.client));
    }
    let configured = config::read_configured_controllers(paths)?;
    let known = if controllers.is_empty() { &configured } else { controllers };
    if known.is_empty() {
        return Err(EnrolError::NoController);
    }
    let client = choose_client(paths, token)?;
    files::ensure_directory(&paths.state, 0o711)?;
    let request = Request::generate(&client)?;
    request.save_key(paths)?;
    let (chain, root, quarantined) = ask(known, token, &request).await?;
    // The file first: a certificate without it could not run anything.
    if let Some(directory) = paths.client_id.parent() {
        files::ensure_directory(directory, 0o755)?;
    }
    files::ensure_file(&paths.client_id, 0o644, format!("{client}\n").as_bytes())?;
    if !controllers.is_empty() {
        config::write_controllers(paths, controllers)?;
    }
    request.install(paths, chain, root)?;
    Ok(Enrolled { client, quarantined })
}

/// The client ID that the host has, else the token's, else a fresh one.
fn choose_client(paths: &Paths, token: &Token) -> Result<ClientId, EnrolError> {
    let file = identity::read_client_id(&paths.client_id)?;
    match (file, &token.client) {
        (Some(file), Some(token)) if file != *token => Err(EnrolError::OtherClient {
            path: paths.client_id.display().to_string(),
            file,
            token: token.clone(),
        }),
        (Some(client), _) => Ok(client),
        (None, Some(client)) => Ok(client.clone()),
        (None, None) => Ok(ClientId::issued(clock::fresh_uuid())),
    }
}

type Issued = (Vec<CertificateDer<'static>>, CertificateDer<'static>, bool);

async fn ask(controllers: &[Address], token: &Token, request: &Request) -> Result<Issued, EnrolError> {
    let hostname =
        nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let message = EnrolRequest {
        secret: token.secret,
        csr: request.csr.clone(),
        hostname: Text::of(&hostname),
        agent_version: Text::of(crate::VERSION),
    };
    let mut failures = Vec::new();
    for address in controllers {
        let exchange = tokio::time::timeout(ATTEMPT, exchange_enrolment(address, token.root, &message));
        match exchange.await.unwrap_or(Err(EnrolLinkError::TimedOut)) {
            Ok((EnrolReply::Issued { chain, quarantined }, root)) => {
                let chain = chain.into_iter().map(|der| CertificateDer::from(der.into_vec())).collect();
                return Ok((chain, root, quarantined));
            }
            // Every controller of the fleet would say the same.
            Ok((EnrolReply::Refused(refusal), _)) => return Err(EnrolError::Refused(refusal)),
            Err(error) => failures.push(format!("{address}: {error}")),
        }
    }
    Err(EnrolError::Unreachable(failures.join("; ")))
}
