//! Writes the CRDs beside the types they are made from: `cargo run -p invivo-api [folder]`.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args_os().nth(1).map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    for (file, crd) in invivo_api::all_kinds() {
        std::fs::write(folder.join(file), invivo_api::yaml(&crd)?)?;
    }
    Ok(())
}
