//! A static program that can be loaded anywhere in memory relocates itself when it starts, and reads
//! the whole table of that. Packed, the table is a few KiB instead of hundreds, which stayed resident.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
}
