//! Makes release builds notice a console that was built after them.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // A debug build reads the console's files at run time. A release build holds them, and while they are
    // missing it looks again at each build.
    if env::var("PROFILE").as_deref() == Ok("release") {
        println!("cargo::rerun-if-changed=../console/dist");
    }
}
