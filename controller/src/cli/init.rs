//! `init`: makes a new controller.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, chown};
use std::path::{Path, PathBuf};

use crate::app::clock::Clock;
use crate::app::user;
use crate::config::{Config, DEFAULT_DATA, INSTANCE_FILE, Layer, Name};
use crate::pki::{Authority, ServerPurpose};
use crate::secret::SecretBox;
use crate::store::{Scope, Store, tenant};
use anyhow::{Context as _, bail, ensure};
use clap::Args;
use fleetward_protocol::digest::Digest;
use fleetward_protocol::name::UserName;
use fleetward_protocol::time::Timestamp;

use super::{block_on, print};

/// Make a new controller. Refuses to touch an existing one.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  fleetward-controller init --data /var/lib/fleetward --name ctl.example.com"
)]
pub(crate) struct Init {
    /// The data directory
    #[arg(long, value_name = "DIR", default_value = DEFAULT_DATA)]
    data: PathBuf,
    /// The name or address under which people and agents reach the controller
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    name: String,
    /// The first administrator's login name
    #[arg(long, value_name = "USER", default_value = "admin")]
    admin: UserName,
    /// The database, such as `postgres://user@host/database`; SQLite in the data directory when absent
    #[arg(long, value_name = "URL")]
    database: Option<String>,
}

impl Init {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let now = Clock::System.now();
        let instance = self.data.join(INSTANCE_FILE);
        let written = self.instance_file();
        // Parsed as it will be read: a bad name or URL is found before anything is made.
        let mut layer = Layer::from_toml(&instance, &written)?;
        layer.data = Some(self.data.clone());
        let config = Config::from_layer(layer)?;
        self.refuse_to_overwrite(&config, &instance)?;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.data)
            .with_context(|| format!("create {}", self.data.display()))?;

        let password = block_on(make_database(&config, &self.admin, now))??;
        let authority = Authority::create(&config.pki_directory(), &self.name, now)?;
        authority.ensure_server(ServerPurpose::Link, &self.name, now)?;
        let web = authority.ensure_server(ServerPurpose::Web, &self.name, now)?;
        SecretBox::load_or_create(&config.secret_key())?;
        write_private(&instance, &written)?;
        give_to_owner(&self.data)?;

        let web = web.chain.first().map(|certificate| Digest::of(certificate)).unwrap_or(authority.digest());
        print(&self.report(&config, &authority.digest(), &web, &password));
        Ok(())
    }

    /// The settings that `serve` finds in the data directory.
    fn instance_file(&self) -> String {
        let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
        let mut text = String::from(
            "# Written by `fleetward-controller init`. Settings of the configuration file win.\n",
        );
        text.push_str(&format!("name = {}\n", quoted(&self.name)));
        if let Some(database) = &self.database {
            text.push_str(&format!("database = {}\n", quoted(database)));
        }
        text
    }

    fn refuse_to_overwrite(&self, config: &Config, instance: &Path) -> anyhow::Result<()> {
        let root = config.pki_directory().join("root.key.pem");
        let database = self.data.join("fleetward.db");
        for path in [instance, &root, &config.secret_key(), &database] {
            ensure!(
                !path.exists(),
                "{} exists already: there is a controller in {}; `init` does not overwrite it",
                path.display(),
                self.data.display()
            );
        }
        Ok(())
    }

    fn report(&self, config: &Config, root: &Digest, web: &Digest, password: &str) -> String {
        let (name, admin, port) = (&self.name, &self.admin, config.http.listen.port());
        let data = self.data.display();
        format!(
            "The controller {name} is ready in {data}.\n\n\
             First administrator   {admin}\n\
             One-time password     {password}\n\
             (shown only here; to be changed at the first login)\n\n\
             SHA-256 of the root certificate   {root}\n\
             SHA-256 of the web certificate    {web}\n\n\
             Next:\n  \
             systemctl enable --now fleetward-controller    # or: fleetward-controller serve --data {data}\n  \
             fleetward login https://{name}:{port}           # asks for user, password and a new password\n  \
             fleetward host add NAME --type VM              # prints the command that enrols the host\n\n\
             Back up {data}: without {data}/pki every host must be enrolled again.\n"
        )
    }
}

/// A name without what surrounds it in a URL: the settings would refuse it as well, but by the name of a file that is
/// not there yet.
fn parse_name(text: &str) -> Result<String, String> {
    text.parse::<Name>().map(|_| text.to_owned()).map_err(|error| match text.split_once("://") {
        Some((scheme, rest)) => {
            let name =
                rest.split(['/', ':']).next().filter(|name| !name.is_empty()).unwrap_or("ctl.example.com");
            format!("give the name alone, without `{scheme}://` and port, such as `--name {name}`")
        }
        None => error.to_string(),
    })
}

/// Makes the database and the first administrator, whose one-time password is returned.
async fn make_database(config: &Config, admin: &UserName, now: Timestamp) -> anyhow::Result<String> {
    let store = Store::open(&config.database, now).await.context("open the database")?;
    let mut tx = store.write().await?;
    let tenant = tenant::list(&mut tx, &Scope::Everything).await?.into_iter().next();
    let Some(tenant) = tenant else { bail!("the database has no tenant") };
    let password = user::insert_admin(&mut tx, admin, tenant.id, now)
        .await
        .context("add the first administrator; does the database belong to another controller?")?;
    tx.commit().await?;
    store.close().await?;
    Ok(password)
}

fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let write = || {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().with_context(|| format!("write {}", path.display()))
}

/// What root makes in a directory of the service's own account belongs to that account.
fn give_to_owner(data: &Path) -> anyhow::Result<()> {
    let owner = fs::metadata(data)?;
    let own = fs::metadata(data.join(INSTANCE_FILE))?;
    if own.uid() == owner.uid() && own.gid() == owner.gid() {
        return Ok(());
    }
    let mut pending = vec![data.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            let found = fs::symlink_metadata(&path)?;
            if found.is_symlink() {
                continue;
            }
            chown(&path, Some(owner.uid()), Some(owner.gid()))
                .with_context(|| format!("give {} to the owner of {}", path.display(), data.display()))?;
            if found.is_dir() {
                pending.push(path);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn a_url_for_a_name_is_refused_as_one_and_no_file_is_named() {
        for (text, advice) in [
            ("https://ctl.example.com:7444/", "such as `--name ctl.example.com`"),
            ("http://", "without `http://` and port"),
            ("ctl.example.com:7443", "without scheme or port"),
            ("", "a DNS name or an address"),
        ] {
            let words = ["fleetward-controller", "init", "--data", "/nonexistent", "--name", text];
            let error = super::super::Cli::command().try_get_matches_from(words).expect_err(text).to_string();
            assert!(error.contains(advice) && !error.contains(INSTANCE_FILE), "{error}");
        }
        for name in ["ctl.example.com", "192.0.2.1", "2001:db8::7"] {
            assert_eq!(parse_name(name).as_deref(), Ok(name));
        }
    }
}
