//! The client against a small server that answers as the test says.

use std::sync::Arc;

use fleetward_api::fleet::host::Host;
use fleetward_api::people::auth::Me;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::double::{Step, answer, header, play, serve};
use super::*;
use crate::client::trust::{Fingerprint, Untrusted};

fn client(address: Address) -> Client {
    Client::new(address, Trust::System, Some("secret".to_owned())).unwrap()
}

#[tokio::test]
async fn one_connection_carries_many_requests() {
    let (address, mut requests) =
        serve(vec![vec![answer("200 OK", "1"), answer("200 OK", "2"), answer("200 OK", "3")]]).await;
    let client = client(address);
    for expected in ["1", "2", "3"] {
        assert_eq!(client.get("hosts").await.unwrap(), expected);
    }
    let request = requests.recv().await.unwrap();
    assert!(request.starts_with("GET /api/v1/hosts HTTP/1.1\r\n"), "{request}");
    assert_eq!(header(&request, "authorization").unwrap(), "Bearer secret");
    assert_eq!(header(&request, "idempotency-key"), None);
}

#[tokio::test]
async fn a_write_is_repeated_with_the_same_key_when_the_connection_breaks() {
    let (address, mut requests) =
        serve(vec![vec![Step::HangUp], vec![Step::HangUp], vec![answer("201 Created", "{}")]]).await;
    client(address).send(Method::POST, "hosts", &serde_json::json!({"name": "web-1"})).await.unwrap();
    let keys = [
        header(&requests.recv().await.unwrap(), "idempotency-key"),
        header(&requests.recv().await.unwrap(), "idempotency-key"),
        header(&requests.recv().await.unwrap(), "idempotency-key"),
    ];
    assert!(keys[0].is_some());
    assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
}

#[tokio::test]
async fn a_write_whose_first_sending_is_still_carried_out_waits_for_its_answer() {
    let body = r#"{"error":"no answer yet","code":"IDEMPOTENCY_KEY_IN_USE","details":{},"timestamp":"2026-01-02T03:04:05.000Z"}"#;
    let busy = || answer("409 Conflict", body);
    let (address, _requests) =
        serve(vec![vec![Step::HangUp], vec![busy(), answer("201 Created", "{}")]]).await;
    client(address).send(Method::POST, "hosts", &serde_json::json!({"name": "web-1"})).await.unwrap();
    // Nothing was sent before that it could be the answer of.
    let (address, _requests) = serve(vec![vec![busy(), answer("201 Created", "{}")]]).await;
    client(address).send(Method::POST, "hosts", &serde_json::json!({"name": "web-1"})).await.unwrap_err();
}

#[tokio::test]
async fn what_has_a_name_is_asked_for_again_until_the_controller_knows() {
    let refusal = |status: &str, code: &str| {
        let body = format!(
            r#"{{"error":"no","code":"{code}","details":{{}},"timestamp":"2026-01-02T03:04:05.000Z"}}"#
        );
        answer(status, &body)
    };
    let (address, mut requests) = serve(vec![vec![
        refusal("503 Service Unavailable", "BUSY"),
        refusal("504 Gateway Timeout", "TIMEOUT"),
        answer("201 Created", "{}"),
    ]])
    .await;
    client(address).make("operations", &serde_json::json!({"id": "x"})).await.unwrap();
    let bodies =
        [requests.recv().await.unwrap(), requests.recv().await.unwrap(), requests.recv().await.unwrap()];
    assert!(bodies.iter().all(|request| request.ends_with(r#"{"id":"x"}"#)), "{bodies:?}");
    assert!(bodies.iter().all(|request| header(request, "idempotency-key").is_none()), "{bodies:?}");
    let (address, mut requests) =
        serve(vec![vec![refusal("409 Conflict", "CONFLICT"), answer("200 OK", "{}")]]).await;
    client(address).make("operations", &serde_json::json!({"id": "x"})).await.unwrap_err();
    assert!(requests.recv().await.is_some() && requests.try_recv().is_err(), "a refusal is a refusal");
}

#[tokio::test]
async fn a_login_is_not_repeated() {
    let (address, mut requests) = serve(vec![vec![Step::HangUp], vec![answer("200 OK", "{}")]]).await;
    let failure = client(address).send_once("auth/login", &()).await.unwrap_err();
    assert_eq!(failure.exit_code(), 4, "{failure}");
    assert_eq!(header(&requests.recv().await.unwrap(), "idempotency-key"), None);
    assert!(requests.try_recv().is_err());
}

#[tokio::test]
async fn failures_have_the_exit_codes_that_the_help_promises() {
    let body = |code: &str| {
        format!(
            r#"{{"error":"no: do this","code":"{code}","details":{{}},"timestamp":"2026-01-02T03:04:05.000Z"}}"#
        )
    };
    for (status, body, exit, text) in [
        ("400 Bad Request", body("INVALID"), 2, "no: do this"),
        ("404 Not Found", body("HOST_NOT_FOUND"), 2, "no: do this"),
        ("409 Conflict", body("CONFLICT"), 2, "no: do this"),
        ("403 Forbidden", body("FORBIDDEN"), 3, "no: do this"),
        ("403 Forbidden", body("HOST_NOT_ENROLLED"), 2, "no: do this"),
        ("503 Service Unavailable", body("STOPPING"), 4, "no: do this"),
        ("503 Service Unavailable", body("HOST_OFFLINE"), 1, "no: do this"),
        ("502 Bad Gateway", "<html>".to_owned(), 4, "does not answer like a Fleetward controller"),
        ("200 OK", "<html>".to_owned(), 4, "does not answer like a Fleetward controller"),
    ] {
        let (address, _requests) = serve(vec![vec![answer(status, &body)]]).await;
        let client = client(address);
        let result = match client.get("auth/me").await {
            Ok(bytes) => client.read::<Me>(&bytes).map(|_| ()),
            Err(failure) => Err(failure),
        };
        let failure = result.unwrap_err();
        assert_eq!(failure.exit_code(), exit, "{status}");
        assert!(failure.to_string().contains(text), "{failure}");
    }
}

#[tokio::test]
async fn an_ended_login_says_what_to_do() {
    let body = r#"{"error":"log in","code":"UNAUTHENTICATED","timestamp":"2026-01-02T03:04:05.000Z"}"#;
    let (address, _requests) = serve(vec![vec![answer("401 Unauthorized", body)]]).await;
    let failure = client(address).get("hosts").await.unwrap_err();
    assert_eq!(failure.exit_code(), 3);
    assert!(failure.to_string().contains("run `fleetward login http://127.0.0.1:"), "{failure}");
}

#[tokio::test]
async fn nobody_listening_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    drop(listener);
    assert_eq!(client(address).get("hosts").await.unwrap_err().exit_code(), 4);
}

#[tokio::test]
async fn pages_are_read_until_there_are_enough() {
    let page = |items: &str, next: &str| answer("200 OK", &format!(r#"{{"items":[{items}]{next}}}"#));
    let (address, mut requests) = serve(vec![vec![
        page("1,2", r#","next_cursor":"a b""#),
        page("3", r#","next_cursor":"c""#),
        page("4", ""),
        page("1,2", r#","next_cursor":"x""#),
    ]])
    .await;
    let client = client(address);
    let mut seen = Vec::new();
    let query = [("tag", "a&b")];
    let mut take = |item: &RawValue| {
        seen.push(item.get().to_owned());
        Ok(())
    };
    client.pages("hosts", &query, None, &mut take).await.unwrap();
    client.pages("hosts", &query, Some(1), &mut take).await.unwrap();
    assert_eq!(seen, ["1", "2", "3", "4", "1"]);
    let mut lines = Vec::new();
    while let Ok(request) = requests.try_recv() {
        lines.push(request.lines().next().unwrap().to_owned());
    }
    assert_eq!(
        lines,
        [
            "GET /api/v1/hosts?tag=a%26b&limit=1000 HTTP/1.1",
            "GET /api/v1/hosts?tag=a%26b&limit=1000&cursor=a+b HTTP/1.1",
            "GET /api/v1/hosts?tag=a%26b&limit=1000&cursor=c HTTP/1.1",
            "GET /api/v1/hosts?tag=a%26b&limit=1 HTTP/1.1",
        ]
    );
}

#[tokio::test]
async fn a_stream_goes_on_after_the_last_event() {
    let text = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: x\n\n";
    let (address, mut requests) = serve(vec![vec![Step::Answer(text.to_owned())]]).await;
    let mut stream = client(address).open("operations/OP-1/events", Some("17")).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap(), "data: x\n\n");
    let request = requests.recv().await.unwrap();
    assert_eq!(header(&request, "last-event-id").unwrap(), "17");
    assert_eq!(header(&request, "accept").unwrap(), "text/event-stream");
}

/// A certificate authority and a server certificate that it signed for `name`.
fn certificates(name: &str) -> (CertificateDer<'static>, CertificateDer<'static>, PrivateKeyDer<'static>) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root_key = KeyPair::generate().unwrap();
    let root = params.self_signed(&root_key).unwrap();
    let issuer = Issuer::new(params, root_key);
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    (root.der().clone(), leaf.der().clone(), key)
}

/// A TLS server for `name` that answers one request; its root and its own certificate.
async fn serve_tls(name: &str) -> (Address, CertificateDer<'static>, CertificateDer<'static>) {
    let (root, leaf, key) = certificates(name);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.clone(), root.clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("https://localhost:{}", listener.local_addr().unwrap().port()).parse().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            if let Ok(stream) = acceptor.accept(stream).await {
                let (told, _requests) = mpsc::unbounded_channel();
                play(stream, vec![answer("200 OK", "1")], told).await;
            }
        }
    });
    (address, root, leaf)
}

async fn ask(address: &Address, trust: Trust) -> Result<Bytes, Failure> {
    Client::new(address.clone(), trust, None).unwrap().get("/health").await
}

fn untrusted(result: Result<Bytes, Failure>) -> Untrusted {
    match result {
        Err(Failure::Untrusted(untrusted)) => *untrusted,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn only_what_is_trusted_is_talked_to() {
    let (address, root, leaf) = serve_tls("localhost").await;
    let (stranger, _, _) = certificates("localhost");
    for trust in [
        Trust::Roots(vec![stranger.clone(), root.clone()]),
        Trust::Pinned(Fingerprint::of(&root)),
        Trust::Pinned(Fingerprint::of(&leaf)),
    ] {
        assert_eq!(ask(&address, trust).await.unwrap(), "1");
    }
    match untrusted(ask(&address, Trust::Pinned(Fingerprint::of(&stranger))).await) {
        Untrusted::PinChanged { presented, .. } => assert_eq!(presented, [leaf.clone(), root.clone()]),
        other => panic!("{other}"),
    }
    let refused = untrusted(ask(&address, Trust::Roots(vec![stranger])).await);
    assert!(matches!(refused, Untrusted::UnknownIssuer { .. }), "{refused}");
}

#[tokio::test]
async fn a_pinned_root_does_not_vouch_for_another_name() {
    let (address, root, _) = serve_tls("other.example.com").await;
    let refused = untrusted(ask(&address, Trust::Pinned(Fingerprint::of(&root))).await);
    assert!(matches!(refused, Untrusted::Invalid { .. }), "{refused}");
    assert!(refused.to_string().contains("other.example.com"), "{refused}");
}

#[test]
fn fingerprints_are_read_as_tools_print_them() {
    let fingerprint = Fingerprint::of(&CertificateDer::from(vec![1, 2, 3]));
    let digits = fingerprint.to_string().replace("sha256:", "");
    let pairs: Vec<&str> = (0..32).map(|index| &digits[2 * index..2 * index + 2]).collect();
    for text in
        [fingerprint.to_string(), digits.to_ascii_uppercase(), pairs.join(":"), format!("SHA256:{digits}")]
    {
        assert_eq!(text.parse(), Ok(fingerprint), "{text}");
    }
    assert!("sha256:".parse::<Fingerprint>().is_err());
}

#[test]
fn unknown_fields_of_a_newer_controller_are_ignored() {
    let text = r#"{"username":"ann","grants":[],"must_change_password":false,"new":1}"#;
    let client = client("http://127.0.0.1:1".parse().unwrap());
    assert!(client.read::<Me>(text.as_bytes()).is_ok());
    assert!(client.read::<Host>(text.as_bytes()).is_err());
}
