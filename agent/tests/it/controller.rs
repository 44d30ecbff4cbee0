//! A controller as far as an agent can tell: a certificate authority, a QUIC endpoint, and the real session machines.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fleetward_protocol::client_id::ClientId;
use fleetward_protocol::digest::Digest;
use fleetward_protocol::enrol::{EnrolReply, EnrolRequest, Token};
use fleetward_protocol::message::{
    AgentMessage, ControllerMessage, FEATURES, Finished, Hello, MAX_FEATURES, OpenRun, RunDown, RunUp,
    StreamKind, Welcome,
};
use fleetward_protocol::session::{RunSink, SinkEvent};
use fleetward_protocol::text::{List, Text, Word};
use fleetward_protocol::time::Timestamp;
use fleetward_protocol::wire::{self, ALPN, ALPN_ENROL, MAX_CONTROL_FRAME, MAX_ENROL_FRAME, MAX_RUN_FRAME};
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Connection, Endpoint, RecvStream, SendStream, ServerConfig};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, IsCa, KeyPair,
    KeyUsagePurpose,
};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    pub(crate) fn root(&self) -> CertificateDer<'static> {
        self.issuer.der().clone()
    }

    pub(crate) fn token(&self, client: Option<ClientId>) -> Token {
        Token { secret: [7; 32], root: Digest::of(self.issuer.der()), client }
    }

    /// Signs what was asked for, valid from a moment ago for `life`.
    pub(crate) fn sign(&self, csr: &[u8], life: Duration) -> Vec<serde_bytes::ByteBuf> {
        let mut request = CertificateSigningRequestParams::from_der(&csr.to_vec().into()).unwrap();
        let now = time::OffsetDateTime::now_utc();
        request.params.not_before = now - Duration::from_secs(2);
        request.params.not_after = now + life;
        let certificate = request.signed_by(&self.issuer).unwrap();
        vec![bytes(certificate.der()), bytes(&self.root())]
    }
}

fn bytes(der: &CertificateDer<'_>) -> serde_bytes::ByteBuf {
    serde_bytes::ByteBuf::from(der.to_vec())
}

pub(crate) struct Controller {
    endpoint: Endpoint,
    pub(crate) authority: Arc<Authority>,
}

impl Controller {
    pub(crate) fn start(authority: &Arc<Authority>, address: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([fleetward_agent::link::SERVER_NAME.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &authority.issuer).unwrap();
        let chain = vec![certificate.der().clone(), authority.root()];
        let mut roots = RootCertStore::empty();
        roots.add(authority.root()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()
            .unwrap();
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, PrivateKeyDer::Pkcs8(key.serialize_der().into()))
            .unwrap();
        tls.alpn_protocols = vec![ALPN.to_vec(), ALPN_ENROL.to_vec()];
        let config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
        let endpoint = Endpoint::server(config, address.parse().unwrap()).unwrap();
        Self { endpoint, authority: Arc::clone(authority) }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.endpoint.local_addr().unwrap()
    }

    pub(crate) async fn accept(&self) -> Connection {
        let incoming = tokio::time::timeout(Duration::from_secs(20), self.endpoint.accept());
        incoming.await.expect("the agent dials").unwrap().await.unwrap()
    }

    /// A handshake, however it ends.
    pub(crate) async fn accept_raw(&self) -> Result<Connection, quinn::ConnectionError> {
        self.endpoint.accept().await.unwrap().await
    }

    /// Answers one enrolment.
    pub(crate) async fn enrol(&self, life: Duration) -> EnrolRequest {
        let connection = self.accept().await;
        let (mut send, mut receive) = connection.accept_bi().await.unwrap();
        let request: EnrolRequest = read(&mut receive, MAX_ENROL_FRAME).await.unwrap();
        let chain = self.authority.sign(&request.csr, life);
        write(&mut send, &EnrolReply::Issued { chain, quarantined: false }, MAX_ENROL_FRAME).await;
        connection.closed().await;
        request
    }

    /// Takes a connection up to the welcome.
    pub(crate) async fn session(&self) -> Session {
        self.session_of(false).await
    }

    /// The same, by a controller that has all features.
    pub(crate) async fn session_with_features(&self) -> Session {
        let features = List::of(FEATURES.iter().map(|&feature| Text::of(feature)));
        self.welcome(false, features).await
    }

    /// The same, by a controller that has the host's facts, or has not.
    pub(crate) async fn session_of(&self, facts_known: bool) -> Session {
        self.welcome(facts_known, List::default()).await
    }

    async fn welcome(&self, facts_known: bool, features: List<Word, MAX_FEATURES>) -> Session {
        let connection = self.accept().await;
        let (mut send, mut receive) = connection.accept_bi().await.unwrap();
        let AgentMessage::Hello(hello) = read(&mut receive, MAX_CONTROL_FRAME).await.unwrap() else {
            panic!("no hello")
        };
        let welcome = Welcome {
            controller_version: Text::of("test"),
            clock: Timestamp::from_millis(0),
            heartbeat_ms: 60_000,
            silence_ms: 180_000,
            quarantined: false,
            features,
            facts_known,
            keep_s: 0,
        };
        write(&mut send, &ControllerMessage::Welcome(welcome), MAX_CONTROL_FRAME).await;
        Session { connection, hello, send, receive }
    }
}

pub(crate) struct Session {
    pub(crate) connection: Connection,
    pub(crate) hello: Hello,
    pub(crate) send: SendStream,
    pub(crate) receive: RecvStream,
}

impl Session {
    /// The next message of the agent that is no heartbeat; heartbeats are answered on the way.
    pub(crate) async fn message(&mut self) -> Option<AgentMessage> {
        loop {
            match read(&mut self.receive, MAX_CONTROL_FRAME).await? {
                AgentMessage::Heartbeat { seq, .. } => {
                    self.say(&ControllerMessage::Heartbeat { seq }).await;
                }
                message => return Some(message),
            }
        }
    }

    pub(crate) async fn say(&mut self, message: &ControllerMessage) {
        write(&mut self.send, message, MAX_CONTROL_FRAME).await;
    }

    pub(crate) async fn open(&self, open: OpenRun) -> RunStream {
        let (mut send, receive) = self.connection.open_bi().await.unwrap();
        let sink = RunSink::new(open.offset);
        write(&mut send, &StreamKind::Run, MAX_RUN_FRAME).await;
        write(&mut send, &RunDown::Open(open), MAX_RUN_FRAME).await;
        RunStream { send, receive, sink, log: Vec::new() }
    }
}

pub(crate) struct RunStream {
    send: SendStream,
    receive: RecvStream,
    sink: RunSink,
    /// Output since the stream was opened.
    pub(crate) log: Vec<u8>,
}

impl RunStream {
    /// The next event; output is acknowledged as committed at once.
    pub(crate) async fn event(&mut self) -> Option<SinkEvent> {
        let message: RunUp = read(&mut self.receive, MAX_RUN_FRAME).await?;
        let event = self.sink.handle_message(message).unwrap();
        if let SinkEvent::Output { offset, bytes } = &event {
            self.log.extend_from_slice(bytes);
            if let Some(acknowledge) = self.sink.handle_committed(offset + bytes.len() as u64) {
                write(&mut self.send, &acknowledge, MAX_RUN_FRAME).await;
            }
        }
        Some(event)
    }

    pub(crate) async fn finished(&mut self) -> Finished {
        loop {
            match self.event().await.expect("the run ends before its stream") {
                SinkEvent::Finished(finished) => return finished,
                SinkEvent::Refused(refusal) => panic!("{refusal:?}"),
                _ => {}
            }
        }
    }

    pub(crate) async fn say(&mut self, message: &RunDown) {
        write(&mut self.send, message, MAX_RUN_FRAME).await;
    }

    /// Waits until the agent ended its direction.
    pub(crate) async fn ended(&mut self) {
        assert!(read::<RunUp>(&mut self.receive, MAX_RUN_FRAME).await.is_none());
    }
}

pub(crate) async fn write<T: Serialize>(send: &mut SendStream, message: &T, cap: usize) {
    // Whether the agent still listens is seen where something is read.
    drop(send.write_all(&wire::frame(message, cap).unwrap()).await);
}

pub(crate) async fn read<T: DeserializeOwned>(receive: &mut RecvStream, cap: usize) -> Option<T> {
    let mut prefix = [0; 4];
    receive.read_exact(&mut prefix).await.ok()?;
    let mut body = vec![0; wire::frame_length(prefix, cap).unwrap()];
    receive.read_exact(&mut body).await.unwrap();
    Some(wire::decode(&body, cap).unwrap())
}
