//! One host with real bash and real supervisors: its runs alone, and a whole agent over real QUIC.

#![expect(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod command;
mod controller;
mod daemon_reload;
mod debian;
mod delegation;
mod durable;
mod file;
mod file_query;
mod host;
mod killed;
mod left;
mod life;
mod link;
mod nginx;
mod package;
mod query;
mod query_host;
mod query_units;
mod reboot;
mod restart;
mod resume;
mod secrecy;
mod site;
mod site_broken;
mod site_cut;
mod site_query;
mod site_root;
mod site_whose;
mod stop;
mod systemd;
mod told;
mod unit;
mod unit_content;
mod unit_file;
