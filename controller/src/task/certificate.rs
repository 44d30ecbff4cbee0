//! Keeps the controller's own server certificates fresh.

use std::time::Duration;

use fleetward_app::App;
use fleetward_pki::{PkiError, Rotating, ServerCertificate, ServerPurpose};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::{Certificates, Ticks};
use crate::config::{Config, Transport};

const INTERVAL: Duration = Duration::from_secs(6 * 3600);

pub(super) async fn run(app: App, config: Config, certificates: Certificates, stopping: CancellationToken) {
    let mut ticks = Ticks::every(INTERVAL, stopping);
    while ticks.next().await.is_some() {
        refresh(&app, ServerPurpose::Link, &config.name, &certificates.link);
        if let Some(web) = &certificates.web {
            match &config.http.transport {
                // Whoever renews it replaces the files.
                Transport::Certificate { certificate, key } => {
                    take(ServerPurpose::Web, ServerCertificate::read(certificate, key), web);
                }
                Transport::OwnCertificate | Transport::PlainLoopback => {
                    refresh(&app, ServerPurpose::Web, &config.name, web)
                }
            }
        }
    }
}

fn refresh(app: &App, purpose: ServerPurpose, name: &str, in_use: &Rotating) {
    take(purpose, app.authority().ensure_server(purpose, name, app.now()), in_use);
}

fn take(purpose: ServerPurpose, fresh: Result<ServerCertificate, PkiError>, in_use: &Rotating) {
    let taken = fresh.map_err(Failed::Pki).and_then(|certificate| {
        let not_after = certificate.not_after;
        in_use.replace(certificate).map_err(Failed::Tls).map(|()| not_after)
    });
    match taken {
        Ok(not_after) => info!(?purpose, not_after_ms = not_after.as_millis(), "certificate.current"),
        // The one in use is good for weeks yet; every few hours it is tried again.
        Err(error) => error!(?purpose, %error, "certificate.not_renewed"),
    }
}

#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Pki(PkiError),
    #[error("use the certificate: {0}")]
    Tls(rustls::Error),
}
