//! `login`, `logout`, `whoami`, `password`, `version`.

use clap::Args;
use fleetward_api::health::Health;
use fleetward_api::people::auth::{LoginRequest, LoginResponse, Me, PasswordChange, Role};
use fleetward_protocol::name::UserName;
use hyper::Method;
use serde::Serialize;

use crate::app::{self, App};
use crate::client::address::Address;
use crate::client::trust::{Fingerprint, Trust, Untrusted};
use crate::client::{Client, Patience};
use crate::config::{self, Format, Globals};
use crate::context::{Context, Contexts};
use crate::failure::{Exit, Failure};
use crate::prompt;
use crate::render::Out;
use crate::render::table::Sheet;

/// Log in to a controller and keep the login
#[derive(Debug, Args)]
#[command(after_help = "\
Asks for user and password, and keeps a token that works for 24 hours in $XDG_CONFIG_HOME/fleetward/contexts.json \
(~/.config where that is not set; mode 0600). Logins at several controllers are kept side by side; commands use the \
latest one unless --controller names another.

Where no authority of this machine vouches for the controller's certificate, its fingerprint is shown and you are \
asked whether to trust it; compare it with the one that `fleetward-controller init` printed. From then on only that \
one is accepted.

A one-time password must be changed at the first login. With --password-stdin the new one is the second line.

Examples:
  fleetward login https://ctl.example.com:7444
  fleetward login https://ctl.example.com:7444 --user ann --fingerprint sha256:0123…
  pass show fleetward | fleetward login https://ctl.example.com:7444 --user ann --password-stdin")]
pub(crate) struct Login {
    /// The controller; the one logged in to last when absent
    #[arg(value_name = "URL")]
    url: Option<Address>,
    /// The login name
    #[arg(long, short)]
    user: Option<UserName>,
    /// Read the password from the first line of standard input
    #[arg(long)]
    password_stdin: bool,
}

/// Change your password
#[derive(Debug, Args)]
#[command(after_help = "\
Every other login of yours ends.

Examples:
  fleetward password
  printf '%s\\n%s\\n' \"$old\" \"$new\" | fleetward password --password-stdin")]
pub(crate) struct Password {
    /// Read the current and the new password from two lines of standard input
    #[arg(long)]
    password_stdin: bool,
}

/// `fleetward login`.
pub(crate) async fn login(command: Login, globals: &Globals) -> Result<Exit, Failure> {
    let out = Out::new(globals);
    let mut contexts = Contexts::load()?;
    let address = login_address(command.url, globals, &contexts)?;
    let known = contexts.find(&address);
    let trust = match (app::given_trust(globals)?, known) {
        (Some(trust), _) => trust,
        (None, Some(context)) => context.trust().map_err(Failure::Other)?,
        (None, None) => Trust::System,
    };
    // Trust comes before the password: it is never asked for on behalf of a stranger.
    let (client, trust) = establish_trust(address, trust, &out).await?;

    let user = match command.user {
        Some(user) => user,
        None if command.password_stdin || !prompt::is_possible() => {
            return Err(Failure::Usage(
                "pass --user and --password-stdin to log in without a terminal".to_owned(),
            ));
        }
        None => ask_user(known.map(|context| context.user.clone()))?,
    };
    let password = match command.password_stdin {
        true => prompt::stdin_line()?,
        false => prompt::password(&format!("Password of {user}: "))?,
    };
    let request = LoginRequest { username: user, password };
    let answer = client.send_once("auth/login", &request).await?;
    let login: LoginResponse = client.read(&answer)?;
    let client = client.with_token(login.token.clone());
    if login.user.must_change_password {
        let new = match command.password_stdin {
            true => match prompt::stdin_line()? {
                new if new.is_empty() => {
                    return Err(Failure::Usage(
                        "this is a one-time password: pass a new one as the second line of standard input"
                            .to_owned(),
                    ));
                }
                new => new,
            },
            false => {
                out.warn("This is a one-time password. Choose your own, of at least 12 characters.");
                prompt::new_password()?
            }
        };
        change_password(&client, PasswordChange { current: request.password, new }).await?;
    }
    let name = login.user.username.to_string();
    contexts.put(Context::new(client.address(), &trust, name, login.token, login.expires_at));
    contexts.save()?;
    out.note(format_args!(
        "Logged in at {} as {} until {}.",
        client.address(),
        login.user.username,
        out.clock.at(login.expires_at)
    ));
    Ok(Exit::Success)
}

/// The controller to log in to: the one that is named, else the one that was logged in to last.
fn login_address(url: Option<Address>, globals: &Globals, contexts: &Contexts) -> Result<Address, Failure> {
    match url {
        Some(address) => Ok(address),
        None => app::address(globals, contexts).map_err(|_| {
            let what = "which controller? Give the URL: `fleetward login https://CONTROLLER:7444`";
            Failure::Usage(what.to_owned())
        }),
    }
}

/// `fleetward logout`.
pub(crate) async fn logout(globals: &Globals) -> Result<Exit, Failure> {
    let out = Out::new(globals);
    let mut contexts = Contexts::load()?;
    let address = app::address(globals, &contexts)?;
    let Some(context) = contexts.find(&address).cloned() else {
        return Err(Failure::LoggedOut(format!("not logged in at {address}")));
    };
    contexts.remove(&address);
    contexts.save()?;
    let trust = context.trust().map_err(Failure::Other)?;
    let client = Client::new(address.clone(), trust, Some(context.token))?;
    match client.act(Method::POST, "auth/logout", Patience::Usual).await {
        Ok(_) | Err(Failure::LoggedOut(_)) => out.note(format_args!("Logged out at {address}.")),
        Err(failure) => out.warn(format_args!(
            "The login at {address} is forgotten here, but the controller could not be told: {failure}"
        )),
    }
    Ok(Exit::Success)
}

/// `fleetward whoami`.
pub(crate) async fn whoami(app: &App) -> Result<Exit, Failure> {
    let answer = app.client.get("auth/me").await?;
    app.show::<Me>(&answer, |me| {
        let mut sheet = Sheet::default();
        sheet.row("User", me.username.as_str());
        sheet.row("Controller", app.client.address().to_string());
        for grant in &me.grants {
            sheet.row("Role", format!("{} in {}", role(grant.role), grant.tenant));
        }
        if let Some(context) = Contexts::load().ok().as_ref().and_then(|all| all.find(app.client.address())) {
            sheet.row("Login ends", app.out.clock.at_and_ago(context.expires_at));
        }
        if me.must_change_password {
            sheet.row("Password", "must be changed: run `fleetward password`");
        }
        sheet.finish()
    })
}

/// `fleetward password`.
pub(crate) async fn password(command: Password, app: &App) -> Result<Exit, Failure> {
    let (current, new) = match command.password_stdin {
        true => (prompt::stdin_line()?, prompt::stdin_line()?),
        false => (prompt::password("Current password: ")?, prompt::new_password()?),
    };
    change_password(&app.client, PasswordChange { current, new }).await?;
    app.out.note("The password is changed; your other logins have ended.");
    Ok(Exit::Success)
}

/// `fleetward version`.
pub(crate) async fn version(globals: &Globals) -> Result<Exit, Failure> {
    #[derive(Serialize)]
    struct Versions<'a> {
        client: &'a str,
        controller: Option<String>,
        url: Option<String>,
    }
    let out = Out::new(globals);
    let client = env!("CARGO_PKG_VERSION");
    // This needs no login: an address and whom to trust there are enough.
    let asked = match app::address(globals, &Contexts::load()?) {
        Ok(address) => Some((address.to_string(), controller_version(globals, address).await)),
        Err(_) => None,
    };
    match out.format {
        Format::Json => {
            let (url, version) = asked.unzip();
            let versions = Versions { client, controller: version.and_then(Result::ok), url };
            let text = serde_json::to_vec(&versions).map_err(|error| Failure::Other(error.into()))?;
            out.json(&text)?;
        }
        Format::Table => {
            let mut sheet = Sheet::default();
            sheet.row("fleetward", client);
            match asked {
                Some((url, Ok(version))) => sheet.row("controller", format!("{version} at {url}")),
                Some((url, Err(failure))) => sheet.row("controller", format!("unknown at {url}: {failure}")),
                None => {}
            }
            out.print(sheet.finish())?;
        }
    }
    Ok(Exit::Success)
}

async fn controller_version(globals: &Globals, address: Address) -> Result<String, Failure> {
    let trust = match app::given_trust(globals)? {
        Some(trust) => trust,
        None => match Contexts::load()?.find(&address) {
            Some(context) => context.trust().map_err(Failure::Other)?,
            None => Trust::System,
        },
    };
    let client = Client::new(address, trust, None)?;
    let health: Health = client.read(&client.get("/health").await?)?;
    Ok(health.version)
}

/// Connects, and asks the user about a certificate that nobody vouches for.
async fn establish_trust(address: Address, trust: Trust, out: &Out) -> Result<(Client, Trust), Failure> {
    let client = Client::new(address.clone(), trust.clone(), None)?;
    let presented = match client.get("/health").await {
        Ok(_) | Err(Failure::Refused { .. }) => return Ok((client, trust)),
        Err(Failure::Untrusted(untrusted)) => match *untrusted {
            Untrusted::UnknownIssuer { presented, .. } if prompt::is_possible() => presented,
            other => return Err(Failure::Untrusted(Box::new(other))),
        },
        Err(failure) => return Err(failure),
    };
    let Some(root) = presented.last() else {
        return Err(Failure::NotAController {
            url: address.to_string(),
            problem: "it presents no certificate".to_owned(),
        });
    };
    let fingerprint = Fingerprint::of(root);
    out.warn(format_args!(
        "No authority of this machine vouches for {address}. It presents this certificate:\n\n    {fingerprint}\n\n\
         `fleetward-controller init` printed the right one, as SHA-256 of the root certificate."
    ));
    prompt::confirm("Is it the same, and should it be trusted from now on?")?;
    let trust = Trust::Pinned(fingerprint);
    let client = Client::new(address, trust.clone(), None)?;
    client.get("/health").await?;
    Ok((client, trust))
}

fn ask_user(known: Option<String>) -> Result<UserName, Failure> {
    let offered = known.or_else(config::user_name);
    let prompt = offered.as_ref().map_or_else(|| "User: ".to_owned(), |name| format!("User [{name}]: "));
    let answer = prompt::line(&prompt)?;
    let name = if answer.is_empty() { offered.unwrap_or_default() } else { answer };
    name.parse().map_err(|error| Failure::Usage(format!("{error}")))
}

async fn change_password(client: &Client, change: PasswordChange) -> Result<(), Failure> {
    client.send_once("auth/password", &change).await.map(|_| ())
}

const fn role(role: Role) -> &'static str {
    match role {
        Role::Admin => "admin",
        Role::Operator => "operator",
        Role::Viewer => "viewer",
        Role::Reporter => "reporter",
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, FromArgMatches as _};

    use super::*;

    #[test]
    fn a_first_login_without_an_address_is_asked_for_one() {
        let command =
            Globals::augment_args(clap::Command::new("fleetward")).mut_args(|arg| match arg.get_env() {
                Some(_) => arg.env(clap::builder::Resettable::Reset),
                None => arg,
            });
        let globals = Globals::from_arg_matches(&command.get_matches_from(["fleetward"])).unwrap();
        let error = login_address(None, &globals, &Contexts::default()).unwrap_err();
        assert!(error.to_string().contains("Give the URL: `fleetward login https://"), "{error}");
        assert_eq!(error.exit_code(), 2);
    }
}
