//! `fleetward-controller`: the centre of a fleet.

use std::process::ExitCode;

fn main() -> ExitCode {
    give_large_buffers_back();
    fleetward_controller::cli::run()
}

/// Output passes through in buffers of up to a megabyte. When the first of them is freed, glibc raises the size from
/// which it maps memory of its own (`M_MMAP_THRESHOLD`, mallopt(3)); all later ones then stay in the arenas of the
/// threads that freed them, and a controller that has once taken in 100 MiB keeps as much. A threshold that is set
/// does not rise.
#[cfg(target_env = "gnu")]
fn give_large_buffers_back() {
    const THRESHOLD: libc::c_int = 128 << 10;
    // SAFETY: it sets a number, before there is another thread.
    unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, THRESHOLD) };
}

#[cfg(not(target_env = "gnu"))]
fn give_large_buffers_back() {}
