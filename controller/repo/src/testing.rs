//! Real remotes on loopback for tests: a repository, git over HTTP(S), git over SSH.

#![expect(clippy::unwrap_used, reason = "a test that cannot have its remote fails by panicking")]

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use base64::Engine as _;

/// A repository with a working tree, whose branch is `main`.
pub struct Origin(PathBuf);

impl Origin {
    /// An empty one at `path`, which is made.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        std::fs::create_dir_all(path).unwrap();
        let origin = Self(path.to_owned());
        origin.git(&["init", "--quiet", "--initial-branch=main"]);
        origin
    }

    /// Its working tree.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Its URL as a file remote.
    #[must_use]
    pub fn url(&self) -> String {
        format!("file://{}", self.0.display())
    }

    /// Writes a file of the working tree, below folders that are made.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Commits the whole tree after writing `files`; the commit's id.
    pub fn commit(&self, files: &[(&str, &str)]) -> String {
        for (name, text) in files {
            self.write(name, text);
        }
        self.git(&["add", "-A"]);
        self.git(&["commit", "--quiet", "--allow-empty", "-m", "Change the inventory"]);
        self.git(&["rev-parse", "HEAD"])
    }

    /// Runs git in the working tree, with nobody's own settings; what it printed.
    pub fn git(&self, arguments: &[&str]) -> String {
        let output = Command::new("git")
            .args(["-c", "user.name=Ops", "-c", "user.email=ops@example.com", "-c", "core.safecrlf=false"])
            .args(arguments)
            .current_dir(&self.0)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .output()
            .unwrap();
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

/// Whether a server speaks TLS, with a certificate of its own authority.
#[derive(Clone, Copy, PartialEq)]
pub enum Tls {
    /// Plain HTTP.
    Off,
    /// HTTPS.
    On,
}

/// `git http-backend` behind a small HTTP server with Basic authentication.
pub struct GitServer {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    accepting: Option<thread::JoinHandle<()>>,
    scheme: &'static str,
    authority: String,
}

impl GitServer {
    /// Serves `repository` to whoever comes as `user` (`name:password`); without one, to everybody.
    #[must_use]
    pub fn start(repository: &Path, user: Option<&str>, tls: Tls) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let expected = user.map(|user| {
            format!("basic {}", base64::engine::general_purpose::STANDARD.encode(user)).to_ascii_lowercase()
        });
        let certified = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let authority = certified.cert.pem();
        let config = (tls == Tls::On).then(|| Arc::new(tls_config(&certified)));
        let repository = repository.to_owned();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let accepting = thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let (repository, expected, config) = (repository.clone(), expected.clone(), config.clone());
                thread::spawn(move || match config {
                    None => answer(stream, &repository, expected.as_deref()),
                    Some(config) => {
                        let session = rustls::ServerConnection::new(config).unwrap();
                        answer(rustls::StreamOwned::new(session, stream), &repository, expected.as_deref());
                    }
                });
            }
        });
        let accepting = Some(accepting);
        Self { address, stop, accepting, scheme: if tls == Tls::On { "https" } else { "http" }, authority }
    }

    /// Where the repository is.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of("repo")
    }

    /// Another address of this server, which answers each in its own wrong way.
    #[must_use]
    pub fn url_of(&self, name: &str) -> String {
        format!("{}://{}/{name}", self.scheme, self.address)
    }

    /// The certificate to trust, in PEM.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }
}

impl Drop for GitServer {
    /// The listener is closed when this returns: connections are refused from then on.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(self.address));
        self.accepting.take().unwrap().join().unwrap();
    }
}

fn tls_config(certified: &rcgen::CertifiedKey<rcgen::KeyPair>) -> rustls::ServerConfig {
    let key = rustls_pki_types::PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key.into())
        .unwrap()
}

/// One request, one answer, then the connection closes.
fn answer(stream: impl Read + Write, repository: &Path, expected: Option<&str>) {
    let mut stream = BufReader::new(stream);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        match stream.read_line(&mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) if line.trim().is_empty() => break,
            Ok(_) => head.push(line.trim().to_owned()),
        }
    }
    let header = |name: &str| {
        head.iter().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then(|| value.to_owned())
        })
    };
    let request: Vec<&str> = head[0].split(' ').collect();
    let (path, query) = request[1].split_once('?').unwrap_or((request[1], ""));
    let body = read_body(&mut stream, header("content-length"), header("transfer-encoding"));
    let given = header("authorization").unwrap_or_default().to_ascii_lowercase();
    let reply = |status: &str, headers: &str, body: &[u8]| {
        let head = format!(
            "HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        [head.as_bytes(), body].concat()
    };
    let response = match path.split('/').nth(1) {
        _ if expected.is_some_and(|expected| expected != given) => {
            reply("401 Unauthorized", "WWW-Authenticate: Basic realm=\"git\"\r\n", b"")
        }
        Some("moved-away") => reply("301 Moved", "Location: http://192.0.2.1/repo/info/refs\r\n", b""),
        Some("a-web-page") => reply("200 OK", "Content-Type: text/html\r\n", b"<html>"),
        Some("in-maintenance") => reply("503 Service Unavailable", "", b""),
        Some("repo") => {
            let (status, headers, body) =
                http_backend(repository, request[0], path, query, header("content-type"), &body);
            reply(&status, &headers, &body)
        }
        _ => reply("404 Not Found", "", b""),
    };
    let stream = stream.get_mut();
    let _ = stream.write_all(&response).and_then(|()| stream.flush());
}

fn read_body(
    stream: &mut impl std::io::BufRead,
    length: Option<String>,
    encoding: Option<String>,
) -> Vec<u8> {
    let mut body = Vec::new();
    if let Some(length) = length {
        body.resize(length.parse().unwrap(), 0);
        stream.read_exact(&mut body).unwrap();
    } else if encoding.is_some() {
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).unwrap();
            let size = usize::from_str_radix(line.trim(), 16).unwrap();
            let mut chunk = vec![0; size + 2];
            stream.read_exact(&mut chunk).unwrap();
            if size == 0 {
                break;
            }
            body.extend_from_slice(&chunk[..size]);
        }
    }
    body
}

/// Runs `git http-backend` (its CGI protocol is in git-http-backend(1)); status, headers, body.
fn http_backend(
    repository: &Path,
    method: &str,
    path: &str,
    query: &str,
    content_type: Option<String>,
    body: &[u8],
) -> (String, String, Vec<u8>) {
    let inside = path.trim_start_matches("/repo");
    let mut child = Command::new("git")
        .arg("http-backend")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_PROJECT_ROOT", repository)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("PATH_INFO", format!("/.git{inside}"))
        .env("REQUEST_METHOD", method)
        .env("QUERY_STRING", query)
        .env("CONTENT_TYPE", content_type.unwrap_or_default())
        .env("CONTENT_LENGTH", body.len().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let body = body.to_vec();
    let feeder = thread::spawn(move || drop(stdin.write_all(&body)));
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    let split = output.stdout.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(output.stdout[..split].to_vec()).unwrap();
    let status = head.lines().find_map(|line| line.strip_prefix("Status: ")).unwrap_or("200 OK").to_owned();
    let kept: Vec<&str> = head.lines().filter(|line| line.starts_with("Content-Type")).collect();
    (status, kept.iter().map(|line| format!("{line}\r\n")).collect(), output.stdout[split + 4..].to_vec())
}

/// A real `sshd` that lets the current user in with three keys.
pub struct SshServer {
    directory: tempfile::TempDir,
    process: Child,
    user: String,
    port: u16,
}

impl SshServer {
    /// `None`, said aloud, where there is no `sshd`.
    #[must_use]
    pub fn start() -> Option<Self> {
        let sshd = Path::new("/usr/sbin/sshd");
        if !sshd.exists() {
            let all = std::env::var("FLEETWARD_TEST_ALL").is_ok_and(|all| all == "1");
            assert!(!all, "ssh remotes cannot be tested because /usr/sbin/sshd is missing (openssh-server)");
            eprintln!("SKIPPED: ssh remotes because /usr/sbin/sshd is missing (openssh-server)");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for (name, kind, passphrase) in [
            ("host", "ed25519", ""),
            ("ed25519", "ed25519", ""),
            ("rsa", "rsa", ""),
            ("locked", "ed25519", "correct horse"),
            ("stranger", "ed25519", ""),
        ] {
            run(Command::new("ssh-keygen").args(["-q", "-t", kind, "-N", passphrase, "-f"]).arg(at(name)));
        }
        let authorized: String = ["ed25519", "rsa", "locked"]
            .map(|name| std::fs::read_to_string(at(&format!("{name}.pub"))).unwrap())
            .concat();
        std::fs::write(at("authorized"), authorized).unwrap();
        // Nobody else is likely to take the port between here and sshd's bind.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = format!(
            "ListenAddress 127.0.0.1\nPort {port}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\n\
             StrictModes no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\n\
             PermitRootLogin prohibit-password\nLogLevel INFO\n",
            at("host").display(),
            at("authorized").display()
        );
        std::fs::write(at("config"), config).unwrap();
        if run(Command::new("id").arg("-u")) == "0" {
            std::fs::create_dir_all("/run/sshd").unwrap();
        }
        let mut process = Command::new(sshd)
            .args(["-D", "-e", "-f"])
            .arg(at("config"))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap()).lines();
        let listening = log.by_ref().map_while(Result::ok).any(|line| line.contains("Server listening"));
        assert!(listening, "sshd did not start");
        // Its log is read to the end, or sshd would block on a full pipe.
        thread::spawn(move || log.for_each(drop));
        let user = run(Command::new("id").arg("-un"));
        Some(Self { directory, process, user, port })
    }

    /// Where `repository` is over SSH.
    #[must_use]
    pub fn url(&self, repository: &Path) -> String {
        format!("ssh://{}@127.0.0.1:{}{}", self.user, self.port, repository.display())
    }

    /// A client's private key: `ed25519`, `rsa` and `locked` are let in, `stranger` is not.
    #[must_use]
    pub fn client_key(&self, name: &str) -> String {
        std::fs::read_to_string(self.directory.path().join(name)).unwrap()
    }

    /// The server's key as a line of `known_hosts`.
    #[must_use]
    pub fn host_key_line(&self) -> String {
        let key = std::fs::read_to_string(self.directory.path().join("host.pub")).unwrap();
        format!("[127.0.0.1]:{} {key}", self.port)
    }
}

impl Drop for SshServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
