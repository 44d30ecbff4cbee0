//! A request to a site on the host itself.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::platform::clock;

/// How long an answer may take, from the first word to its server on.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks whether it is still waited for.
const LOOK: Duration = Duration::from_millis(100);
/// The most that is read until the end of the first line.
const MAX_LINE: u64 = 4096;

/// A request.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Where to.
    pub address: SocketAddr,
    /// Whether with TLS.
    pub tls: bool,
    /// The name that is asked for.
    pub host: &'a str,
    /// The path that is asked for.
    pub path: &'a str,
}

impl Request<'_> {
    /// The status with which it is answered. `is_left` is asked again and again whether to wait no longer.
    ///
    /// # Errors
    /// If there is no answer, or none of HTTP.
    pub fn send(&self, is_left: &mut dyn FnMut() -> bool) -> io::Result<u16> {
        let mut wait = Wait { until: clock::uptime() + PATIENCE, is_left };
        let stream = wait.until_done(|| TcpStream::connect_timeout(&self.address, LOOK))?;
        stream.set_read_timeout(Some(LOOK))?;
        stream.set_write_timeout(Some(LOOK))?;
        let stream = Patient { stream, wait };
        if !self.tls {
            return self.ask(stream);
        }
        let name = ServerName::try_from(self.host.to_owned())
            .unwrap_or_else(|_| ServerName::IpAddress(self.address.ip().into()));
        let connection = ClientConnection::new(Arc::new(config()?), name).map_err(io::Error::other)?;
        self.ask(StreamOwned::new(connection, stream))
    }

    fn ask(&self, mut stream: impl Read + Write) -> io::Result<u16> {
        let Self { host, path, .. } = self;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: fleetward-agent\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes())?;
        stream.flush()?;
        let (mut line, mut byte) = (Vec::new(), [0]);
        let mut stream = stream.take(MAX_LINE);
        while !line.ends_with(b"\n") && stream.read(&mut byte)? > 0 {
            line.extend_from_slice(&byte);
        }
        status(&line).ok_or_else(|| io::Error::other("the answer is none of HTTP"))
    }
}

/// How long something is waited for.
struct Wait<'a> {
    /// As time of the boot.
    until: Duration,
    is_left: &'a mut dyn FnMut() -> bool,
}

impl Wait<'_> {
    /// Does again what does not come about within a look.
    fn until_done<T>(&mut self, mut act: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        loop {
            if (self.is_left)() {
                return Err(io::Error::other("it is not waited for any more"));
            }
            if clock::uptime() >= self.until {
                let words = format!("no answer within {} seconds", PATIENCE.as_secs());
                return Err(io::Error::new(io::ErrorKind::TimedOut, words));
            }
            match act() {
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                }
                done => return done,
            }
        }
    }
}

/// A stream that is waited for so long, however slowly something comes over it.
struct Patient<'a> {
    stream: TcpStream,
    wait: Wait<'a>,
}

impl Read for Patient<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Self { stream, wait } = self;
        wait.until_done(|| stream.read(buffer))
    }
}

impl Write for Patient<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Self { stream, wait } = self;
        wait.until_done(|| stream.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// The status in the first line of an answer (RFC 9112, 4).
fn status(line: &[u8]) -> Option<u16> {
    let line = str::from_utf8(line).ok()?.strip_prefix("HTTP/1.")?;
    let status = line.split(' ').nth(1)?;
    status.trim_end().parse().ok().filter(|status| (100..=599).contains(status))
}

fn config() -> io::Result<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    // Whether the site answers is asked here, from the host to itself, and nothing is told that is secret. A certificate that
    // is not valid for it yet, or that a test authority has signed, is an answer as well.
    Ok(config.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider))).with_no_client_auth())
}

/// Takes whoever answers.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_stands_in_the_first_line() {
        for (line, found) in [
            ("HTTP/1.1 200 OK\r\n", Some(200)),
            ("HTTP/1.1 404\r\n", Some(404)),
            ("HTTP/1.0 301 Moved Permanently\r\n", Some(301)),
            ("HTTP/1.1 999 x\r\n", None),
            ("SSH-2.0-OpenSSH\r\n", None),
            ("HTTP/1.1\r\n", None),
            ("", None),
        ] {
            assert_eq!(status(line.as_bytes()), found, "{line:?}");
        }
    }
}
