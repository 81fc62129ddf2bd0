//! Packs the relative relocations of a static build: one bit each instead of 24 bytes, 6 % of the file.
//!
//! A static executable relocates itself, so nothing on the host has to know the format. A dynamic one would need a C
//! library from 2022 or later, and stays as it is.

#[expect(clippy::disallowed_methods, reason = "cargo speaks to build scripts by the environment")]
fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let features = std::env::var("CARGO_CFG_TARGET_FEATURE").unwrap_or_default();
    if features.split(',').any(|feature| feature == "crt-static") {
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}
