//! `docs/writing-a-patch.md` says commands to whoever makes a patch. They are run here, in their order, as they
//! stand there.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// What is between the fences of `sh` in a page.
fn commands(page: &str) -> Vec<&str> {
    let blocks = page.split("\n```sh\n").skip(1);
    blocks.filter_map(|rest| Some(rest.split_once("\n```")?.0)).collect()
}

#[test]
fn the_commands_of_the_page_make_a_patch_try_it_in_a_guest_and_prove_it() {
    if Command::new("qemu-system-x86_64").arg("--version").output().is_err() {
        eprintln!("SKIP: no qemu-system-x86_64, the page's commands were not run");
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = fs::read_to_string(root.join("docs/writing-a-patch.md")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(root.join("recipes").canonicalize().unwrap(), folder.path().join("recipes"))
        .unwrap();
    let program = PathBuf::from(env!("CARGO_BIN_EXE_invivo"));
    let paths = env::var_os("PATH").unwrap_or_default();
    let paths = program.parent().map(Path::to_owned).into_iter().chain(env::split_paths(&paths));
    let paths = env::join_paths(paths).unwrap();
    let commands = commands(&page);
    assert!(commands.len() >= 2, "{commands:?}");
    for block in &commands {
        eprintln!("{block}");
        let bash = Command::new("bash")
            .args(["-euo", "pipefail", "-c", block])
            .current_dir(folder.path())
            .env("PATH", &paths)
            .status();
        assert!(bash.unwrap().success(), "{block}");
    }
    let bundle = fs::metadata(folder.path().join("patch.bundle")).unwrap();
    assert!(bundle.len() > 1000, "{bundle:?}");
}

#[test]
fn the_page_shows_the_recipe_as_it_is_shipped() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = fs::read_to_string(root.join("docs/writing-a-patch.md")).unwrap();
    let shipped = fs::read_to_string(root.join("recipes/CVE-2026-53249/recipe.yaml")).unwrap();
    let (_, shown) = page.split_once("\n```yaml\n").unwrap();
    let (shown, _) = shown.split_once("\n```").unwrap();
    for line in shown.lines().filter(|line| !line.contains("paragraph")) {
        // What the page says about a line stands behind it.
        let line = line.split_once(" #").map_or(line, |(line, _)| line).trim_end();
        assert!(shipped.lines().any(|other| other == line), "{line:?} is not in the recipe");
    }
}
