//! `check-config`: reads the configuration and says what it comes to.

use crate::config::Transport;

use super::{Settings, print};

pub(crate) fn run(settings: &Settings) -> anyhow::Result<()> {
    let config = settings.load()?;
    let transport = match &config.http.transport {
        Transport::OwnCertificate => "HTTPS, certificate of the controller's own authority".to_owned(),
        Transport::Certificate { certificate, .. } => format!("HTTPS, {}", certificate.display()),
        Transport::PlainLoopback => "HTTP without TLS, loopback only".to_owned(),
    };
    // A PostgreSQL URL may hold a password.
    let database = match config.database.split_once('@') {
        Some((_, rest)) => format!("postgres://…@{rest}"),
        None => config.database.clone(),
    };
    print(&format!(
        "name       {}\ndata       {}\ndatabase   {database}\nagents     udp {} (told to connect to {})\nweb        tcp {} ({transport})\n",
        config.name,
        config.data.display(),
        config.link.listen,
        config.link.advertise,
        config.http.listen,
    ));
    Ok(())
}
