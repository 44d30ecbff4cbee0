//! `init`: makes a new controller.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, chown};
use std::path::Path;

use anyhow::{Context as _, anyhow, bail, ensure};
use clap::Args;
use fleetward_app::clock::Clock;
use fleetward_app::identity::{self, IdentityError};
use fleetward_app::people::user;
use fleetward_app::secret::SecretBox;
use fleetward_pki::{Authority, ServerPurpose};
use fleetward_protocol::digest::Digest;
use fleetward_protocol::name::UserName;
use fleetward_protocol::time::Timestamp;
use fleetward_store::people::tenant;
use fleetward_store::{Connected, Scope, Store};

use super::{Settings, block_on, print, warn_of_unknown_variables};
use crate::config::{Config, ConfigError, DEFAULT_FILE, INSTANCE_FILE, Layer, Sources};
use crate::running::Place;

/// Make a new controller. Refuses to touch an existing one.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  fleetward-controller init --data /var/lib/fleetward --name ctl.example.com"
)]
pub(crate) struct Init {
    #[command(flatten)]
    settings: Settings,
    /// The first administrator's login name
    #[arg(long, value_name = "USER", default_value = "admin")]
    admin: UserName,
}

impl Init {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        warn_of_unknown_variables();
        let now = Clock::System.now();
        let sources = self.settings.sources()?;
        let instance = sources.data().join(INSTANCE_FILE);
        ensure_absent(&instance, &sources.data())?;
        let written = instance_file(sources.given())?;
        let next = next_step(&sources);
        let config = sources.config().map_err(|error| match error {
            ConfigError::Unset { key: "name" } => anyhow!(
                "the controller has no name yet: give it with `--name ctl.example.com`, or set `name` in {DEFAULT_FILE}"
            ),
            error => error.into(),
        })?;
        let root = config.pki_directory().join("root.key.pem");
        for path in [root, config.secret_key(), config.data.join("fleetward.db")] {
            ensure_absent(&path, &config.data)?;
        }
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&config.data)
            .with_context(|| format!("create {}", config.data.display()))?;

        let password = block_on(make_database(&config, &self.admin, now))??;
        let authority = Authority::create(&config.pki_directory(), &config.name, now)?;
        authority.ensure_server(ServerPurpose::Link, &config.name, now)?;
        let web = authority.ensure_server(ServerPurpose::Web, &config.name, now)?;
        SecretBox::load_or_create(&config.secret_key())?;
        write_private(&instance, &written)?;
        give_to_owner(&config.data)?;

        let web = web.chain.first().map(|certificate| Digest::of(certificate)).unwrap_or(authority.digest());
        print(&self.report(&config, &next, [&authority.digest(), &web], &password));
        Ok(())
    }

    fn report(&self, config: &Config, next: &NextStep, [root, web]: [&Digest; 2], password: &str) -> String {
        let (name, admin, url) = (&config.name, &self.admin, config.url());
        let data = config.data.display();
        let login = (format!("fleetward login {url}"), "asks for user, password and a new password");
        let add = ("fleetward host add NAME --type VM".to_owned(), "prints the command that enrols the host");
        let next = in_columns(&[next, &login, &add]);
        format!(
            "The controller {name} is ready in {data}.\n\n\
             First administrator   {admin}\n\
             One-time password     {password}\n\
             (shown only here; to be changed at the first login)\n\n\
             SHA-256 of the root certificate   {root}\n\
             SHA-256 of the web certificate    {web}\n\n\
             Next:\n{next}\n\
             Back up {data}: without {data}/pki every host must be enrolled again.\n"
        )
    }
}

/// A command, and what is to be said of it.
type NextStep = (String, &'static str);

fn in_columns(commands: &[&NextStep]) -> String {
    let width = commands.iter().map(|(command, _)| command.chars().count()).max().unwrap_or(0);
    let line = |(command, words): &&NextStep| match words.is_empty() {
        true => format!("  {command}\n"),
        false => format!("  {command:width$}    # {words}\n"),
    };
    commands.iter().map(line).collect()
}

/// How the controller that was made is started.
fn next_step(sources: &Sources) -> NextStep {
    if sources.are_usual() {
        return ("systemctl enable --now fleetward-controller".to_owned(), "or: fleetward-controller serve");
    }
    let mut serve = format!("fleetward-controller serve --data {}", sources.data().display());
    if let Some(file) = sources.named_file() {
        serve.push_str(&format!(" --config {}", file.display()));
    }
    (serve, "")
}

/// The settings that every later command finds in the data directory: all that this one was told by flags and
/// variables, which nobody may say again.
fn instance_file(given: &Layer) -> anyhow::Result<String> {
    let settings = given.to_toml().context("write down the settings")?;
    Ok(format!(
        "# Written by `fleetward-controller init`. Settings of the configuration file win.\n{settings}"
    ))
}

fn ensure_absent(path: &Path, data: &Path) -> anyhow::Result<()> {
    ensure!(
        !path.exists(),
        "{} exists already: there is a controller in {}; `init` does not overwrite it",
        path.display(),
        data.display()
    );
    Ok(())
}

/// Makes the database and the first administrator, whose one-time password is returned.
async fn make_database(config: &Config, admin: &UserName, now: Timestamp) -> anyhow::Result<String> {
    let database = Store::connect(&config.database).await.context("open the database")?;
    let place = Place::take(&database, &config.name, now).await?;
    let controllers = database.controllers().clone();
    let made = fill_database(database, place, admin, now).await;
    if let Some(place) = place {
        place.leave(&controllers).await;
    }
    let password = made?;
    controllers.close().await?;
    Ok(password)
}

async fn fill_database(
    database: Connected,
    place: Option<Place>,
    admin: &UserName,
    now: Timestamp,
) -> anyhow::Result<String> {
    let place = place.map(|place| place.0);
    let store = database
        .migrate::<IdentityError>(now, place, identity::expect_unknown)
        .await
        .context("open the database")?;
    let mut tx = store.write().await?;
    identity::expect_none(&mut tx).await?;
    let tenant = tenant::list(&mut tx, &Scope::Everything).await?.into_iter().next();
    let Some(tenant) = tenant else { bail!("the database has no tenant") };
    let password =
        user::insert_admin(&mut tx, admin, tenant.id, now).await.context("add the first administrator")?;
    tx.commit().await?;
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
    use fleetward_store::fleet::controller::list_living;
    use fleetward_store::testing::{self, Blank};

    use super::*;

    /// The second was told another administrator's name, and the controller of the first was never started.
    async fn a_database_is_made_once(blank: Blank) {
        let directory = tempfile::tempdir().unwrap();
        let layer = Layer {
            data: Some(directory.path().to_owned()),
            name: Some("ctl.example.com".to_owned()),
            ..Layer::default()
        };
        let mut config = Config::from_layer(layer).unwrap();
        config.database = blank.url.clone();
        let now = Clock::System.now();
        make_database(&config, &"ada".parse().unwrap(), now).await.unwrap();
        let refused = make_database(&config, &"eve".parse().unwrap(), now).await.unwrap_err().to_string();
        assert!(refused.contains("belongs to another controller already"), "{refused}");
        let database = Store::connect(&blank.url).await.unwrap();
        let living = list_living(&mut database.controllers().read().await.unwrap()).await.unwrap();
        assert_eq!(living, [], "nobody has to wait for who was refused");
        drop(database);
        blank.finish().await;
    }

    #[tokio::test]
    async fn a_database_is_made_once_on_sqlite() {
        a_database_is_made_once(testing::blank_sqlite()).await;
    }

    #[tokio::test]
    async fn a_database_is_made_once_on_postgres() {
        if let Some(blank) = testing::blank_postgres("a database is made once").await {
            a_database_is_made_once(blank).await;
        }
    }

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
            assert_eq!(super::super::parse_name(name).as_deref(), Ok(name));
        }
    }
}
