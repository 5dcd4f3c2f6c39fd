//! Writes the CRDs beside the types they are made from, into the chart `invivo-crds`, and as pages
//! into docs/reference:
//! `cargo run -p invivo-api [root of the repository]`.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = std::env::args_os()
        .nth(1)
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/..")), PathBuf::from);
    let pages = root.join("docs/reference");
    std::fs::create_dir_all(&pages)?;
    for (file, crd) in invivo_api::all_kinds() {
        let (page, text) = invivo_api::reference(&crd)?;
        std::fs::write(pages.join(page), text)?;
        std::fs::write(root.join("crds").join(file), invivo_api::yaml(&crd)?)?;
        std::fs::write(root.join("charts/invivo-crds/templates").join(file), invivo_api::chart_yaml(crd)?)?;
    }
    Ok(())
}
