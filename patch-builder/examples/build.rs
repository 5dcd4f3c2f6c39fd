//! Builds recipes for one kernel build and tries them in a guest:
//! `build <lock> <level> <set> <out> <recipe>...`.

use std::path::Path;
use std::time::Instant;

use invivo_patch_builder::{Cache, boot, build};
use invivo_terms::Level;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [lock, level, set, out, recipes @ ..] = arguments.as_slice() else {
        return Err("usage: build <lock> <level> <set> <out> <recipe>...".into());
    };
    let cache = Cache::from_env()?;
    let recipes: Vec<_> = recipes.iter().map(Path::new).collect();
    let start = Instant::now();
    let mut tell = |step, words: &str| println!("{:6.1} s  {step:8} {words}", start.elapsed().as_secs_f32());
    let (level, set) = (Level(level.parse()?), set.parse()?);
    let built = build(&cache, &recipes, Path::new(lock), level, &set, Path::new(out), &mut tell)?;
    println!("{} ({} bytes, sha256 {})", built.path.display(), built.length(), built.sha256);
    println!("{}", serde_json::to_string_pretty(&built.evidence)?);
    boot::test(&cache, &recipes, &built, &built.modules, &mut tell)?;
    Ok(())
}
