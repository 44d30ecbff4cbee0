//! The rules that keep a certificate from meaning more than it should.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use fleetward_protocol::client_id::ClientId;
use fleetward_protocol::enrol::identity_uri;
use rcgen::{CertificateParams, KeyPair, SanType};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::UnixTime;
use tempfile::TempDir;

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
const MONTH: Duration = Duration::from_secs(30 * 86_400);

fn client(number: u8) -> ClientId {
    format!("FLEET-00000000-0000-4000-8000-0000000000{number:02}").parse().unwrap()
}

fn authority() -> (TempDir, Authority) {
    let directory = TempDir::new().unwrap();
    let authority = Authority::create(&directory.path().join("pki"), "ctl.example.com", NOW).unwrap();
    (directory, authority)
}

fn request(client: &ClientId) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(identity_uri(client).try_into().unwrap())];
    params.serialize_request(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
}

fn verifier(authority: &Authority) -> Arc<dyn ClientCertVerifier> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.root().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap()
}

fn unix(at: Timestamp) -> UnixTime {
    UnixTime::since_unix_epoch(at.since(Timestamp::from_millis(0)))
}

#[test]
fn a_host_certificate_authenticates_its_host_and_ends() {
    let (_directory, authority) = authority();
    let key = HostKey::parse(&request(&client(7))).unwrap();
    assert_eq!(key.claimed(), Some(&client(7)));
    let issued = authority.issue_host(&key, &client(7), NOW, MONTH).unwrap();
    let identity = PeerIdentity::of_verified(&issued.chain[0]).unwrap();
    let expected = PeerIdentity {
        client: client(7),
        serial: issued.serial,
        fingerprint: issued.fingerprint,
        not_after: NOW + MONTH,
    };
    assert_eq!(identity, expected);
    let verify = |at| verifier(&authority).verify_client_cert(&issued.chain[0], &issued.chain[1..], unix(at));
    verify(NOW).unwrap();
    verify(NOW + MONTH).unwrap();
    verify(NOW + MONTH + Duration::from_secs(1)).unwrap_err();
}

#[test]
fn only_the_key_is_taken_from_a_request() {
    let (_directory, authority) = authority();
    let mut params = CertificateParams::new(vec!["evil.example.com".to_owned()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.subject_alt_names.push(SanType::URI(identity_uri(&client(1)).try_into().unwrap()));
    let request = params.serialize_request(&KeyPair::generate().unwrap()).unwrap();
    let key = HostKey::parse(request.der()).unwrap();
    assert_eq!(key.claimed(), None, "two names are no claim");
    let issued = authority.issue_host(&key, &client(2), NOW, MONTH).unwrap();
    assert_eq!(PeerIdentity::of_verified(&issued.chain[0]).unwrap().client, client(2));
    let (_, parsed) = x509_parser::parse_x509_certificate(&issued.chain[0]).unwrap();
    assert!(!parsed.is_ca());
}

#[test]
fn a_request_whose_signature_does_not_verify_is_refused() {
    let mut request = request(&client(1));
    let last = request.len() - 1;
    request[last] ^= 1;
    HostKey::parse(&request).unwrap_err();
    HostKey::parse(b"").unwrap_err();
    HostKey::parse(&[0x30; 4096]).unwrap_err();
}

#[test]
fn certificates_of_another_root_and_of_servers_are_not_hosts() {
    let ((_one, ours), (_two, theirs)) = (authority(), authority());
    let key = HostKey::parse(&request(&client(1))).unwrap();
    let foreign = theirs.issue_host(&key, &client(1), NOW, MONTH).unwrap();
    verifier(&ours).verify_client_cert(&foreign.chain[0], &foreign.chain[1..], unix(NOW)).unwrap_err();
    let server = ours.ensure_server(ServerPurpose::Link, "ctl.example.com", NOW).unwrap();
    verifier(&ours).verify_client_cert(&server.chain[0], &server.chain[1..], unix(NOW)).unwrap_err();
    assert_eq!(PeerIdentity::of_verified(&server.chain[0]), Err(IdentityError::NotAHost));
}

#[test]
fn a_root_is_made_once_and_its_key_is_private() {
    let (directory, authority) = authority();
    let pki = directory.path().join("pki");
    assert!(matches!(Authority::create(&pki, "other", NOW), Err(PkiError::Exists(_))));
    let key = pki.join("root.key.pem");
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(Authority::load(&pki).unwrap().digest(), authority.digest());
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o640)).unwrap();
    let refused = Authority::load(&pki).unwrap_err();
    assert!(refused.to_string().contains("chmod 0600"), "{refused}");
    std::fs::remove_file(&key).unwrap();
    assert!(matches!(Authority::load(&pki), Err(PkiError::Missing(_))));
    std::fs::write(&key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert!(matches!(Authority::load(&pki), Err(PkiError::Mismatch(_))));
}

#[test]
fn a_foreign_key_may_be_shared_with_a_group_and_with_nobody_else() {
    let (directory, authority) = authority();
    let issued = authority.ensure_server(ServerPurpose::Web, "ctl.example.com", NOW).unwrap();
    let pki = directory.path().join("pki");
    let (certificate, key) = (pki.join("web.pem"), directory.path().join("foreign.key.pem"));
    std::fs::copy(pki.join("web.key.pem"), &key).unwrap();
    let read = |mode| {
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
        ServerCertificate::read(&certificate, &key)
    };
    assert_eq!(read(0o640).unwrap().chain[0], issued.chain[0]);
    // Its owner may be another than the controller, which must still be able to read it.
    let refused = read(0o644).unwrap_err();
    assert!(refused.to_string().contains("chmod o= "), "{refused}");
}

#[test]
fn a_server_certificate_is_kept_until_it_is_due_or_the_name_changes() {
    let (_directory, authority) = authority();
    let serve = |name, now| authority.ensure_server(ServerPurpose::Web, name, now).unwrap();
    let first = serve("ctl.example.com", NOW);
    let day = Duration::from_secs(86_400);
    assert_eq!(serve("ctl.example.com", NOW + day).chain, first.chain);
    let renamed = serve("192.0.2.7", NOW + day);
    assert_ne!(renamed.chain[0], first.chain[0]);
    let renewed = serve("192.0.2.7", NOW + day * 150);
    assert_ne!(renewed.chain[0], renamed.chain[0]);
    assert_eq!(renewed.key, first.key, "a pinned key stays good");
}
