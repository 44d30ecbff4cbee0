//! PostgreSQL servers that tests start.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use uuid::Uuid;

/// A server of one test's own, which becomes a standby and a primary again. It ends with this, or with the test's process.
#[derive(Debug)]
pub struct Server {
    owner: Owner,
    bin: PathBuf,
    home: PathBuf,
    _users: File,
}

impl Server {
    /// Starts one.
    ///
    /// # Errors
    /// Why not, in words.
    pub fn start() -> Result<Self, String> {
        let bin =
            newest_postgres().ok_or("no PostgreSQL server is installed (Debian: apt install postgresql)")?;
        let owner = owner()?;
        let home = std::env::temp_dir().join(format!("fleetward-test-server-{}", Uuid::now_v7().simple()));
        let said = |error: std::io::Error| format!("making `{}` failed: {error}", home.display());
        fs::create_dir(&home).map_err(said)?;
        fs::set_permissions(&home, fs::Permissions::from_mode(0o711)).map_err(said)?;
        let users = File::create(home.join("users.lock")).map_err(said)?;
        users.lock_shared().map_err(said)?;
        start_server(&bin, &owner, &home, &home.join("data"))?;
        Ok(Self { owner, bin, home, _users: users })
    }

    /// The URL of its own database.
    #[must_use]
    pub fn url(&self) -> String {
        format!("postgres://postgres@localhost/postgres?host={}", self.data().display())
    }

    /// Restarts it as a standby, as an old primary comes back after a failover.
    ///
    /// # Errors
    /// Why not, in words.
    pub fn demote(&self) -> Result<(), String> {
        self.control(&["-m", "fast", "stop"])?;
        fs::write(self.data().join("standby.signal"), "").map_err(|error| error.to_string())?;
        let options = options(&text(&self.data()));
        let log = text(&self.data().join("server.log"));
        self.control(&["-w", "-l", &log, "-o", &options, "start"])
    }

    /// Makes it the primary.
    ///
    /// # Errors
    /// Why not, in words.
    pub fn promote(&self) -> Result<(), String> {
        self.control(&["-w", "promote"])
    }

    fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    fn control(&self, arguments: &[&str]) -> Result<(), String> {
        let data = text(&self.data());
        self.owner.run(&self.bin, "pg_ctl", &[&["-D", &data], arguments].concat(), &self.home)?.check()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Else the watchdog does it.
        let _ = self.control(&["-m", "immediate", "stop"]);
        let _ = fs::remove_dir_all(&self.home);
    }
}

/// The private server's URL, and a lock that keeps it up as long as this process holds it.
pub(super) fn private_server() -> Result<(String, File), String> {
    let bin =
        newest_postgres().ok_or("no PostgreSQL server is installed (Debian: apt install postgresql)")?;
    let owner = owner()?;
    let home = std::env::temp_dir().join(format!("fleetward-test-postgres-{}", owner.uid));
    let said = |what: &str, error: std::io::Error| format!("{what} `{}` failed: {error}", home.display());
    fs::create_dir_all(&home).map_err(|error| said("creating", error))?;
    fs::set_permissions(&home, fs::Permissions::from_mode(0o711)).map_err(|error| said("opening", error))?;
    let open = |name: &str| {
        File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(home.join(name))
            .map_err(|e| said("locking", e))
    };
    // The watchdog waits for this one to be free.
    let users = open("users.lock")?;
    users.lock_shared().map_err(|error| said("locking", error))?;
    let start = open("start.lock")?;
    start.lock().map_err(|error| said("locking", error))?;
    let data = home.join("data");
    if !owner.run(&bin, "pg_ctl", &["-D", &text(&data), "status"], &home)?.success {
        start_server(&bin, &owner, &home, &data)?;
    }
    Ok((format!("postgres://postgres@localhost/postgres?host={}", data.display()), users))
}

fn start_server(bin: &Path, owner: &Owner, home: &Path, data: &Path) -> Result<(), String> {
    let _ = fs::remove_dir_all(data);
    fs::create_dir(data).map_err(|error| format!("creating `{}` failed: {error}", data.display()))?;
    chown(data, Some(owner.uid), Some(owner.gid)).map_err(|error| format!("chown failed: {error}"))?;
    let data = text(data);
    let init = ["-D", &data, "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C"];
    owner.run(bin, "initdb", &init, home)?.check()?;
    let options = options(&data);
    let log = format!("{data}/server.log");
    owner.run(bin, "pg_ctl", &["-D", &data, "-w", "-l", &log, "-o", &options, "start"], home)?.check()?;
    // Looks every other second whether a test process still holds the lock; the first time that none does, it
    // holds the lock itself while it stops the server.
    let watchdog = r#"while sleep 2; do
        if flock -n -x 9; then "$@"; rm -rf "$DATA"; exit 0; fi
    done 9>"$USERS""#;
    let mut command = Command::new("setsid");
    command.args(["sh", "-c", watchdog, "watchdog"]).args(owner.prefix()).arg(bin.join("pg_ctl"));
    command
        .args(["-D", &data, "-m", "immediate", "stop"])
        .env("DATA", &data)
        .env("USERS", home.join("users.lock"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/");
    command.spawn().map(|_| ()).map_err(|error| format!("the watchdog did not start: {error}"))
}

fn options(data: &str) -> String {
    format!(
        "-k {data} -c listen_addresses= -c fsync=off -c full_page_writes=off -c synchronous_commit=off \
         -c max_connections=300 -c shared_buffers=64MB"
    )
}

/// As whom the server runs: it refuses to be root.
#[derive(Debug)]
struct Owner {
    uid: u32,
    gid: u32,
    is_other: bool,
}

struct Done {
    success: bool,
    said: String,
}

impl Done {
    fn check(self) -> Result<(), String> {
        if self.success {
            Ok(())
        } else {
            Err(format!("the private PostgreSQL server did not start: {}", self.said))
        }
    }
}

impl Owner {
    fn prefix(&self) -> Vec<String> {
        if self.is_other {
            ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"].map(str::to_owned).to_vec()
        } else {
            vec!["env".to_owned()]
        }
    }

    fn run(&self, bin: &Path, program: &str, arguments: &[&str], home: &Path) -> Result<Done, String> {
        let prefix = self.prefix();
        // A file, not a pipe: a server that stays would keep the pipe open.
        let log = home.join(format!("{program}.log"));
        let output =
            File::create(&log).map_err(|error| format!("writing `{}` failed: {error}", log.display()))?;
        let errors = output.try_clone().map_err(|error| error.to_string())?;
        let mut command = Command::new(&prefix[0]);
        command.args(&prefix[1..]).arg(bin.join(program)).args(arguments).current_dir("/");
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        let status = command.status().map_err(|error| format!("`{program}` did not start: {error}"))?;
        Ok(Done { success: status.success(), said: fs::read_to_string(&log).unwrap_or_default() })
    }
}

fn owner() -> Result<Owner, String> {
    let id = |arguments: &[&str]| -> Result<u32, String> {
        let output = Command::new("id").args(arguments).output().map_err(|error| error.to_string())?;
        let number = String::from_utf8_lossy(&output.stdout).trim().parse();
        number.map_err(|_| "there is no Linux user `postgres` to run the server as".to_owned())
    };
    if id(&["-u"])? == 0 {
        Ok(Owner { uid: id(&["-u", "postgres"])?, gid: id(&["-g", "postgres"])?, is_other: true })
    } else {
        Ok(Owner { uid: id(&["-u"])?, gid: id(&["-g"])?, is_other: false })
    }
}

fn newest_postgres() -> Option<PathBuf> {
    let version = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
    let installed = fs::read_dir("/usr/lib/postgresql").ok()?;
    let mut found: Vec<(u32, PathBuf)> = installed
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter_map(|path| Some((version(&path)?, path.join("bin"))))
        .filter(|(_, bin)| bin.join("initdb").exists())
        .collect();
    found.sort();
    found.pop().map(|(_, bin)| bin)
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
