//! Functions that came out alike are kept once: what runs on every node should be small.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-link-arg-bins=-Wl,--icf=all");
}
