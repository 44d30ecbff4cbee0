//! The only door to the operating system: files, users, facts, control groups, the clock.
//!
//! Vocabulary: `ensure_*` changes something and may be repeated; `read_*` observes.

pub mod acl;
pub mod apt;
pub mod cgroup;
pub mod clock;
pub mod confined;
pub mod descriptor;
pub mod facts;
pub mod files;
pub mod health;
pub mod journal;
pub mod lock_files;
pub mod logins;
pub mod looker;
pub mod mounts;
pub mod nginx;
pub mod notify;
pub mod processes;
pub mod socket;
pub mod sockets;
pub mod stop;
pub mod systemd;
pub mod trust;
pub mod users;
pub mod xattr;
