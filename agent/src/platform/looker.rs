//! A process of our own executable that looks at something, tells us, and ends with us.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// What is read of it at once, at the most.
const CHUNK: u64 = 64 << 10;

/// The process. Dropping it kills it; so does the end of this process, by which its input ends.
#[derive(Debug)]
pub struct Looker {
    child: Child,
    /// It lives as long as this is open.
    _input: ChildStdin,
    output: ChildStdout,
}

impl Looker {
    /// Starts `PROGRAM ARGUMENT` with this input, which stays open, and these variables alone.
    ///
    /// # Errors
    /// If it cannot be started.
    pub async fn start(
        program: &Path,
        argument: &str,
        input: &[u8],
        places: &BTreeMap<String, String>,
    ) -> io::Result<Self> {
        let mut child = Command::new(program)
            .arg0("fleetward-agent")
            .arg(argument)
            .env_clear()
            .envs(places)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A terminal that stops the agent is no reason to tell half of something.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let (Some(mut stdin), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::Error::other("a process has no pipes"));
        };
        stdin.write_all(input).await?;
        Ok(Self { child, _input: stdin, output })
    }

    /// Reads what it says now, behind what is in `buffer`; how many bytes. Cancel-safe.
    ///
    /// # Errors
    /// If its output cannot be read.
    pub async fn read(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        (&mut self.output).take(CHUNK).read_buf(buffer).await
    }

    /// Waits for its end; how it ended, in words.
    pub async fn ended(&mut self) -> String {
        match self.child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        }
    }

    /// Its process id, while it has not ended.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }
}
