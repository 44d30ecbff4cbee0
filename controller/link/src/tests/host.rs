//! A host that is none: it speaks the real protocol over real QUIC and does only what a test tells it.

use std::net::SocketAddr;
use std::sync::Arc;

use fleetward_pki::CONTROLLER_NAME;
use fleetward_protocol::client_id::ClientId;
use fleetward_protocol::digest::Digest;
use fleetward_protocol::enrol::{EnrolReply, EnrolRequest, Token, identity_uri};
use fleetward_protocol::id::{BootId, JournalId, RunId};
use fleetward_protocol::message::{
    AgentMessage, ControllerMessage, Finished, Hello, OpenRun, RunDown, RunUp, StreamKind, Welcome,
};
use fleetward_protocol::output::{Record, Stream};
use fleetward_protocol::run::Outcome;
use fleetward_protocol::text::{List, Text};
use fleetward_protocol::time::Timestamp;
use fleetward_protocol::wire::{ALPN, ALPN_ENROL, MAX_CONTROL_FRAME, MAX_ENROL_FRAME, MAX_RUN_FRAME};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint, RecvStream, SendStream};
use rcgen::{CertificateParams, KeyPair, SanType};
use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use uuid::Uuid;

use crate::frame::{self, Frames};

/// What a host keeps.
pub(super) struct FakeHost {
    pub(super) client: ClientId,
    pub(super) boot: BootId,
    pub(super) journal: JournalId,
    pub(super) address: SocketAddr,
    pub(super) clock: Timestamp,
    pub(super) facts: Digest,
    /// What it can do beyond the first release.
    pub(super) features: Vec<&'static str>,
    pub(super) root: CertificateDer<'static>,
    pub(super) key: KeyPair,
    pub(super) chain: Vec<CertificateDer<'static>>,
    endpoint: Endpoint,
}

/// An established session.
pub(super) struct Session {
    pub(super) connection: Connection,
    pub(super) send: SendStream,
    pub(super) frames: Frames,
    pub(super) welcome: Welcome,
}

/// A run's stream after its opening.
pub(super) struct RunStream {
    pub(super) open: OpenRun,
    pub(super) send: SendStream,
    pub(super) frames: Frames,
}

impl FakeHost {
    pub(super) fn new(client: ClientId, address: SocketAddr, root: CertificateDer<'static>) -> Self {
        let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let journal = JournalId::from_uuid(Uuid::new_v4());
        Self {
            client,
            boot: BootId::from_uuid(Uuid::nil()),
            journal,
            address,
            clock: Timestamp::from_millis(0),
            facts: Digest::of(b""),
            features: Vec::new(),
            root,
            key: KeyPair::generate().unwrap(),
            chain: Vec::new(),
            endpoint,
        }
    }

    pub(super) fn request(&self, client: &ClientId) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(identity_uri(client).try_into().unwrap())];
        params.serialize_request(&self.key).unwrap().der().to_vec()
    }

    pub(super) async fn try_enrol(&self, token: &Token, request: Vec<u8>) -> EnrolReply {
        let connection = self.dial(ALPN_ENROL, None).await.unwrap();
        let (mut send, receive) = connection.open_bi().await.unwrap();
        let request = EnrolRequest {
            secret: token.secret,
            csr: request,
            hostname: Text::of("fake.example.com"),
            agent_version: Text::of("0.0.0"),
        };
        frame::send(&mut send, &request, MAX_ENROL_FRAME).await.unwrap();
        Frames::new(receive, MAX_ENROL_FRAME).next().await.unwrap().unwrap()
    }

    /// Enrols; whether the host must wait for approval.
    pub(super) async fn enrol(&mut self, token: &Token) -> bool {
        match self.try_enrol(token, self.request(&self.client)).await {
            EnrolReply::Issued { chain, quarantined } => {
                self.chain = chain.into_iter().map(|der| CertificateDer::from(der.into_vec())).collect();
                quarantined
            }
            EnrolReply::Refused(refusal) => panic!("refused: {refusal}"),
        }
    }

    /// Connects with the host's certificate, or without one.
    pub(super) async fn dial(
        &self,
        alpn: &[u8],
        chain: Option<&[CertificateDer<'static>]>,
    ) -> Result<Connection, quinn::ConnectionError> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots);
        let mut tls = match chain {
            Some(chain) => {
                let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
                builder.with_client_auth_cert(chain.to_vec(), key).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        tls.alpn_protocols = vec![alpn.to_vec()];
        let config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
        self.endpoint.connect_with(config, self.address, CONTROLLER_NAME).unwrap().await
    }

    pub(super) fn hello(&self, held: Vec<RunId>) -> Hello {
        Hello {
            agent_version: Text::of("0.0.0"),
            boot: self.boot,
            journal: self.journal,
            kinds: List::of([Text::of("script")]),
            features: List::of(self.features.iter().map(Text::of)),
            held: List::of(held),
            facts: self.facts,
            clock: self.clock,
        }
    }

    pub(super) async fn connect(&self) -> Session {
        self.connect_holding(Vec::new()).await
    }

    pub(super) async fn connect_holding(&self, held: Vec<RunId>) -> Session {
        let connection = self.dial(ALPN, Some(&self.chain)).await.unwrap();
        let (mut send, receive) = connection.open_bi().await.unwrap();
        let hello = AgentMessage::Hello(self.hello(held));
        frame::send(&mut send, &hello, MAX_CONTROL_FRAME).await.unwrap();
        let mut frames = Frames::new(receive, MAX_CONTROL_FRAME);
        match frames.next().await.unwrap().unwrap() {
            ControllerMessage::Welcome(welcome) => Session { connection, send, frames, welcome },
            other => panic!("{other:?}"),
        }
    }
}

impl Session {
    pub(super) async fn say(&mut self, message: &AgentMessage) {
        frame::send(&mut self.send, message, MAX_CONTROL_FRAME).await.unwrap();
    }

    pub(super) async fn hear(&mut self) -> ControllerMessage {
        self.frames.next().await.unwrap().unwrap()
    }

    /// The next run's stream that the controller opens.
    pub(super) async fn accept_run(&self) -> RunStream {
        let (send, receive) = self.accept_stream(StreamKind::Run).await;
        let mut frames = receive;
        match frames.next().await.unwrap().unwrap() {
            RunDown::Open(open) => RunStream { open, send, frames },
            other => panic!("{other:?}"),
        }
    }

    pub(super) async fn accept_stream(&self, expected: StreamKind) -> (SendStream, Frames) {
        let (send, receive): (SendStream, RecvStream) = self.connection.accept_bi().await.unwrap();
        let mut frames = Frames::new(receive, MAX_RUN_FRAME);
        assert_eq!(frames.next::<StreamKind>().await.unwrap(), Some(expected));
        (send, frames)
    }
}

impl RunStream {
    pub(super) async fn say(&mut self, message: &RunUp) {
        frame::send(&mut self.send, message, MAX_RUN_FRAME).await.unwrap();
    }

    pub(super) async fn hear(&mut self) -> RunDown {
        self.frames.next().await.unwrap().unwrap()
    }

    /// Accepts, starts, writes `text` to standard output and ends with `outcome`; returns when the controller has
    /// said that it may forget.
    pub(super) async fn play(self, text: &str, outcome: Outcome) {
        let log = log_of(text);
        self.play_log(log, outcome).await;
    }

    /// As [`Self::play`], with what it writes as a log.
    pub(super) async fn play_log(mut self, log: Vec<u8>, outcome: Outcome) {
        let at = Timestamp::from_millis(1);
        self.say(&RunUp::Accepted).await;
        self.say(&RunUp::Started { at }).await;
        if !log.is_empty() {
            self.say(&RunUp::Output { offset: 0, bytes: log.clone().into() }).await;
        }
        self.say(&RunUp::Finished(finished(outcome, log.len() as u64))).await;
        loop {
            match self.hear().await {
                RunDown::Forget => return,
                RunDown::Acknowledge { offset } => assert_eq!(offset, log.len() as u64),
                other => panic!("{other:?}"),
            }
        }
    }
}

pub(super) fn finished(outcome: Outcome, log_length: u64) -> Finished {
    Finished { outcome, at: Timestamp::from_millis(2), duration_ms: 1, log_length, left: None }
}

pub(super) fn log_of(text: &str) -> Vec<u8> {
    let mut log = Vec::new();
    let record = Record { stream: Stream::Stdout, at: Timestamp::from_millis(1), payload: text.as_bytes() };
    record.append_to(&mut log);
    log
}
