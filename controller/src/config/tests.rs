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
