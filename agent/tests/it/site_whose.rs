//! The kind `site` and who may come in: the file of users that a site brings, and whose it is.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::time::Duration;

use fleetward_protocol::run::Outcome;
use serde_json::{Value, json};

use crate::nginx::{Web, web};
use crate::site_cut::unit;

/// apr1 of `secret`.
const ADA: &str = "ada:$apr1$abcdefgh$h9FWgUz3n9YxylKLlR5SQ/";

/// A site that lets these in, to a file of its own: what is only replied is for everybody.
fn site(web: &Web, users: &[&str]) -> Value {
    fs::write(web.path("files/a.txt"), "a").unwrap();
    let mut site = web.site("");
    site["locations"] = json!([{ "path": "/", "static": { "root": web.path("files") } }]);
    if !users.is_empty() {
        site["auth"] = json!({ "users": users });
    }
    site
}

fn only(verb: &str) -> Value {
    json!({ "name": "shop", "verb": verb })
}

/// With which status Ada is answered.
fn status(web: &Web) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", web.port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let login = "Authorization: Basic YWRhOnNlY3JldA==";
    write!(stream, "GET /a.txt HTTP/1.1\r\nHost: shop.example.com\r\n{login}\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap().to_owned()
}

#[tokio::test]
async fn logins_that_were_added_by_hand_are_not_lost() {
    let Some(web) = web("a file of users that was edited") else { return };
    web.start();
    web.done(&site(&web, &[ADA])).await;
    assert_eq!(
        status(&web),
        "200",
        "the line that says whose the file is lets nobody in, and keeps nobody out"
    );
    assert_eq!(web.done(&site(&web, &[ADA])).await["changed"], json!(false));
    let file = web.path("fleetward/shop.htpasswd");
    let text = fs::read_to_string(&file).unwrap() + "eve:x\n";
    fs::write(&file, &text).unwrap();
    let other = site(&web, &["bob:$apr1$abcdefgh$h9FWgUz3n9YxylKLlR5SQ/"]);
    for asked in [&other, &site(&web, &[]), &only("remove")] {
        let (outcome, said) = web.fails(asked).await;
        assert_eq!(outcome, Outcome::Exited(1), "{said}");
        assert!(said.contains("shop.htpasswd was changed on the host since"), "{said}");
    }
    assert_eq!((fs::read_to_string(&file).unwrap(), status(&web).as_str()), (text.clone(), "200"));
    let mut replacing = other.clone();
    replacing["replace_edited"] = json!(true);
    web.done(&replacing).await;
    assert_eq!(status(&web), "401");
    // And what somebody else has there.
    fs::write(&file, "eve:x\n").unwrap();
    for asked in [&replacing, &only("remove")] {
        let (_, said) = web.fails(asked).await;
        assert!(said.contains("shop.htpasswd was not written by this agent"), "{said}");
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "eve:x\n");
}

/// What was changed by hand is taken out of use when that is asked for, and not put to use.
#[tokio::test]
async fn a_site_that_was_edited_is_not_enabled_by_itself() {
    let Some(web) = web("enabling what was edited") else { return };
    web.start();
    web.done(&web.site("one")).await;
    let file = web.path("sites-available/shop");
    let text = fs::read_to_string(&file).unwrap() + "# mine\n";
    fs::write(&file, &text).unwrap();
    web.done(&only("disable")).await;
    let (outcome, said) = web.fails(&only("enable")).await;
    assert_eq!(outcome, Outcome::Exited(1), "{said}");
    assert!(said.contains("was changed on the host since"), "{said}");
    assert_eq!(web.body(), None);
    web.done(&json!({ "name": "shop", "verb": "enable", "replace_edited": true })).await;
    assert_eq!((fs::read_to_string(&file).unwrap(), web.body().as_deref()), (text, Some("one")));
}

/// As long as nginx works with the old configuration, it asks the old file who may come in.
#[tokio::test]
async fn users_may_come_in_until_nobody_is_asked_any_more() {
    let Some(unit) = unit("users while a site changes").await else { return };
    let web = &unit.web;
    web.kill();
    unit.is("inactive", 0);
    web.done(&site(web, &[ADA])).await;
    web.start();
    unit.is("active", web.master().unwrap().try_into().unwrap());
    let request = unit.begin().await;
    assert_eq!(status(web), "200", "it has not read the change");
    assert!(web.nginx(&["-s", "reload"]));
    unit.happens.send(crate::systemd::Event::JobDone).unwrap();
    let (outcome, output) = unit.end(&request, None).await;
    assert_eq!(outcome, Outcome::Exited(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(web.body().as_deref(), Some("two"));
    assert!(!web.path("fleetward/shop.htpasswd").exists());
}

#[tokio::test]
async fn the_file_of_users_is_for_the_group_that_nginx_works_with() {
    let Some(web) = web("the group of nginx") else { return };
    let config = fs::read_to_string(web.path("nginx.conf")).unwrap();
    fs::write(web.path("nginx.conf"), config.replace("user root;", "user root adm;")).unwrap();
    web.done(&site(&web, &[ADA])).await;
    let group = nix::unistd::Group::from_name("adm").unwrap().unwrap().gid.as_raw();
    let metadata = fs::metadata(web.path("fleetward/shop.htpasswd")).unwrap();
    assert_eq!((metadata.gid(), metadata.mode() & 0o777), (group, 0o640));
}

#[tokio::test]
async fn a_link_in_the_place_of_the_directory_of_users_is_not_followed() {
    let Some(web) = web("a link in the place of the directory of users") else { return };
    web.start();
    fs::create_dir(web.path("elsewhere")).unwrap();
    symlink(web.path("elsewhere"), web.path("fleetward")).unwrap();
    let (outcome, said) = web.fails(&site(&web, &[ADA])).await;
    assert_eq!(outcome, Outcome::Exited(1), "{said}");
    assert!(said.contains("fleetward is a link") && said.contains("remove the link"), "{said}");
    assert_eq!(fs::read_dir(web.path("elsewhere")).unwrap().count(), 0);
    // It is in nobody's way who needs no such file.
    web.done(&site(&web, &[])).await;
    assert_eq!(status(&web), "200");
}
