//! Defaults, layers, and errors that say where.

use super::*;

fn layer(text: &str) -> Layer {
    Layer::from_toml(Path::new("controller.toml"), text).unwrap()
}

fn refused(text: &str) -> String {
    Layer::from_toml(Path::new("controller.toml"), text).unwrap_err().to_string()
}

fn variables(pairs: &[(&str, &str)]) -> Result<Layer, ConfigError> {
    Layer::from_variables(pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())))
}

#[test]
fn everything_but_the_name_has_a_default() {
    let config = Config::from_layer(layer("name = 'ctl.example.com'")).unwrap();
    assert_eq!(config.data, Path::new(DEFAULT_DATA));
    assert_eq!(config.database, "sqlite:///var/lib/fleetward/fleetward.db");
    assert_eq!(config.link.listen.port(), 7443);
    assert_eq!(config.link.advertise, "ctl.example.com:7443");
    assert_eq!(config.http.listen.port(), 7444);
    assert_eq!(config.http.transport, Transport::OwnCertificate);
    assert_eq!(config.enrolment.certificate_lifetime, Duration::from_secs(30 * 86_400));
    assert!(matches!(Config::from_layer(Layer::default()), Err(ConfigError::Unset { key: "name" })));
}

#[test]
fn the_upper_layer_wins() {
    let lower = layer("name = 'a.example.com'\n[link]\nlisten = '192.0.2.1:1'\nadvertise = 'x:1'");
    let upper = variables(&[
        ("FLEETWARD_NAME", "2001:db8::7"),
        ("FLEETWARD_LINK_LISTEN", "[::1]:9"),
        ("FLEETWARD_RETENTION_OUTPUT", "2GiB"),
        ("FLEETWARD_RETENTION_FREE_SPACE", "4096"),
        ("FLEETWARD_HTTP_PLAIN_LOOPBACK", "false"),
        ("FLEETWARD_TOKEN", "of the CLI"),
    ])
    .unwrap();
    let config = Config::from_layer(upper.over(lower)).unwrap();
    assert_eq!(config.name, "2001:db8::7");
    assert_eq!(config.link.listen.port(), 9);
    assert_eq!(config.link.advertise, "x:1");
    assert_eq!((config.retention.output, config.retention.free_space), (2 << 30, 4096));
}

#[test]
fn hosts_may_be_told_to_keep_nothing() {
    let kept = |text: &str| {
        let text = format!("name = 'x'\ndatabase = 'postgres://x/y'\n[retention]\n{text}");
        Config::from_layer(layer(&text)).unwrap().retention.on_hosts.as_secs()
    };
    assert_eq!([kept(""), kept("on_hosts = '0s'"), kept("on_hosts = '2m'")], [3600, 0, 120]);
    assert!(refused("[retention]\non_hosts = '0'").contains("0s for none"));
    assert!(refused("[retention]\noperations = '0s'").contains("24h"), "nothing of all is no retention");
}

#[test]
fn controllers_are_a_list_of_what_agents_can_connect_to() {
    let text = "name = 'x'\n[link]\ncontrollers = ['a.example.com:7443', '[2001:db8::1]:1', '192.0.2.1:2']";
    let lower = layer(text);
    let controllers = Config::from_layer(lower.clone()).unwrap().link.controllers;
    assert_eq!(controllers.len(), 3);
    let again = layer(&lower.to_toml().unwrap());
    assert_eq!(Config::from_layer(again).unwrap().link.controllers, controllers);
    let upper =
        variables(&[("FLEETWARD_LINK_CONTROLLERS", "b.example.com:7443, c.example.com:7443")]).unwrap();
    let controllers = Config::from_layer(upper.over(lower)).unwrap().link.controllers;
    assert_eq!(controllers[1].as_str(), "c.example.com:7443");
    for wrong in
        ["a.example.com", "a.example.com:0", "2001:db8::1:7443", "https://a.example.com:7443", "[::1:1", ""]
    {
        let told = refused(&format!("[link]\ncontrollers = ['{wrong}']"));
        assert!(told.contains("controllers") && told.contains("ctl.example.com:7443"), "{told}");
    }
    let many = vec!["'a.example.com:7443'"; 17].join(",");
    assert!(refused(&format!("[link]\ncontrollers = [{many}]")).contains("at most 16"));
    let told = variables(&[("FLEETWARD_LINK_CONTROLLERS", "here")]).unwrap_err().to_string();
    assert!(told.contains("FLEETWARD_LINK_CONTROLLERS") && told.contains("`here`"), "{told}");
}

#[test]
fn errors_name_the_key_and_the_line_or_the_variable() {
    let unknown = refused("name = 'x'\n\n[link]\nlisten_on = 7443\n");
    assert!(unknown.starts_with("controller.toml:4: ") && unknown.contains("listen_on"), "{unknown}");
    let address = refused("[http]\nlisten = 'everywhere'\n");
    assert!(address.starts_with("controller.toml:2: `listen`"), "{address}");
    let span = refused("[enrolment]\ntoken_lifetime = '1 fortnight'\n");
    assert!(span.contains(":2: ") && span.contains("24h"), "{span}");
    let name = refused("name = 'https://ctl.example.com'");
    assert!(name.contains("without scheme"), "{name}");
    let syntax = refused("name = 'x'\n[link\n");
    assert!(syntax.starts_with("controller.toml:2: "), "{syntax}");
    for text in [":99999", "7443", "everywhere:7443", "[::]:70000"] {
        let told = variables(&[("FLEETWARD_LINK_LISTEN", text)]).unwrap_err().to_string();
        assert!(told.contains(&format!("FLEETWARD_LINK_LISTEN: `{text}` is not")), "{told}");
        assert!(told.contains("such as 0.0.0.0:7443"), "{told}");
        let told = refused(&format!("[http]\nlisten = '{text}'\n"));
        assert!(told.contains(&format!("`{text}` is not")) && told.contains("0.0.0.0"), "{told}");
    }
    for (variable, example) in
        [("FLEETWARD_HTTP_PLAIN_LOOPBACK", "true"), ("FLEETWARD_ENROLMENT_ATTEMPTS_PER_MINUTE", "30")]
    {
        let told = variables(&[(variable, "many")]).unwrap_err().to_string();
        assert!(told.contains("many") && told.contains(&format!("{variable}={example}")), "{told}");
    }
    let variable = variables(&[("FLEETWARD_LOG_FORMAT", "xml")]).unwrap_err().to_string();
    assert!(variable.contains("FLEETWARD_LOG_FORMAT") && variable.contains("json"), "{variable}");
}

#[test]
fn plain_http_is_for_loopback_only() {
    let plain = |listen: &str| {
        Config::from_layer(layer(&format!("name = 'x'\n[http]\nplain_loopback = true\nlisten = '{listen}'")))
    };
    assert_eq!(plain("127.0.0.1:0").unwrap().http.transport, Transport::PlainLoopback);
    assert_eq!(plain("[::1]:0").unwrap().http.transport, Transport::PlainLoopback);
    plain("192.0.2.1:80").unwrap_err();
    plain("[::]:80").unwrap_err();
    Config::from_layer(layer("name = 'x'\n[http]\nkey = '/k'")).unwrap_err();
}

#[test]
fn a_filter_of_the_log_is_levels_and_targets_with_theirs() {
    for good in ["info", "WARN", "off", "info,quinn=warn", "fleetward_controller[request]=debug,info"] {
        assert_eq!(
            Config::from_layer(layer(&format!("name = 'x'\n[log]\nfilter = '{good}'"))).unwrap().log.filter,
            good
        );
    }
    for nonsense in ["inof", "info,quinn", "info,quinn=wran", "info warn", " ", "=", "quinn=="] {
        let told = refused(&format!("[log]\nfilter = '{nonsense}'\n"));
        assert!(told.starts_with("controller.toml:2: `filter`") && told.contains("quinn=warn"), "{told}");
        let told = variables(&[("FLEETWARD_LOG_FILTER", nonsense)]).unwrap_err().to_string();
        assert!(told.contains("FLEETWARD_LOG_FILTER") && told.contains("quinn=warn"), "{told}");
    }
}

#[test]
fn every_setting_has_a_variable_that_all_programs_know_of() {
    for key in layer::KEYS {
        let variable = layer::variable_of(key);
        assert!(
            variable::KNOWN.contains(&variable.as_str()),
            "{variable} is not in `fleetward_protocol::variable`"
        );
    }
    assert!(variable::KNOWN.contains(&FILE_VARIABLE));
}

#[test]
fn a_file_that_may_not_be_read_says_as_whom_it_may() {
    let told = |kind: io::ErrorKind| {
        ConfigError::Unreadable { path: DEFAULT_FILE.into(), cause: io::Error::from(kind) }.to_string()
    };
    assert!(told(io::ErrorKind::PermissionDenied).contains("as root or as the service's user"));
    assert!(!told(io::ErrorKind::NotFound).contains("root"));
}

/// Whatever a command is told, it is told from file, variables and flags, and a later one finds the same.
#[test]
fn what_init_was_told_is_found_by_every_later_command() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    fs::create_dir(&data).unwrap();
    let file = directory.path().join("controller.toml");
    fs::write(&file, "[http]\nlisten = '192.0.2.1:8443'\n[log]\nfilter = 'debug'\n").unwrap();
    let told = |pairs: &[(&str, &str)], flags: Layer| {
        let pairs: Vec<_> = pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        Sources::of(Some(&file), flags, pairs).unwrap()
    };
    let flags =
        Layer { data: Some(data.clone()), name: Some("ctl.example.com".to_owned()), ..Layer::default() };
    let sources = told(
        &[
            ("FLEETWARD_DATABASE", "postgres://fleetward@db.example.com/fleetward"),
            ("FLEETWARD_RETENTION_OPERATIONS", "7d"),
            ("FLEETWARD_LOG_FILTER", "trace"),
        ],
        flags,
    );
    let written = sources.given().to_toml().unwrap();
    let made = sources.config().unwrap();
    assert_eq!(
        (made.database.as_str(), made.url().as_str()),
        ("postgres://fleetward@db.example.com/fleetward", "https://ctl.example.com:8443")
    );
    fs::write(data.join(INSTANCE_FILE), &written).unwrap();
    let flags = Layer { data: Some(data), ..Layer::default() };
    let later = told(&[], flags).config().unwrap();
    assert_eq!((&later.database, later.url()), (&made.database, made.url()));
    assert_eq!(later.retention.operations, Duration::from_secs(7 * 86_400));
    // How loud one process was is nobody else's business.
    assert_eq!((later.log.filter.as_str(), written.contains("log")), ("debug", false));
}

#[test]
fn the_address_for_people_has_scheme_and_port() {
    let url = |text: &str| Config::from_layer(layer(text)).unwrap().url();
    assert_eq!(url("name = '2001:db8::7'"), "https://[2001:db8::7]:7444");
    let plain = "name = 'x'\n[http]\nlisten = '127.0.0.1:8080'\nplain_loopback = true";
    assert_eq!(url(plain), "http://127.0.0.1:8080");
}

#[test]
fn a_variable_that_is_set_and_empty_is_not_set() {
    let upper = variables(&[("FLEETWARD_NAME", ""), ("FLEETWARD_HTTP_KEY", "")]).unwrap();
    let config = Config::from_layer(upper.over(layer("name = 'a.example.com'"))).unwrap();
    assert_eq!((config.name.as_str(), config.http.transport), ("a.example.com", Transport::OwnCertificate));
}
