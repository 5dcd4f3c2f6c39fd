//! The commands of `docs/writing-a-patch.md`, as they stand there. Downloads some 600 MB once; with them in
//! the cache it builds twice and boots a guest.

use std::path::Path;
use std::process::Command;

#[test]
fn the_commands_of_the_page_on_writing_a_patch_do_what_it_says() {
    if Command::new("qemu-system-x86_64").arg("--version").output().is_err() {
        eprintln!("SKIP: no qemu-system-x86_64, nothing was built");
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = std::fs::read_to_string(root.join("docs/writing-a-patch.md")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let bundle = folder.path().join("patch.bundle");
    let mut said = Vec::new();
    for block in page.split("```sh\n").skip(1) {
        let commands = block.split("```").next().unwrap().replace("\\\n", " ");
        for command in commands.lines().filter(|line| line.starts_with("invivo ")) {
            let arguments = command.split_whitespace().skip(1).map(|word| match word {
                "patch.bundle" => bundle.to_str().unwrap().to_owned(),
                other => other.to_owned(),
            });
            let output = Command::new(env!("CARGO_BIN_EXE_invivo"))
                .current_dir(&root)
                .args(arguments)
                .output()
                .unwrap();
            let words = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{command}: {words}");
            said.push((words.into_owned(), String::from_utf8(output.stdout).unwrap()));
        }
    }
    let [(built, _), (_, proved)] = said.as_slice() else { panic!("{said:?}") };
    assert!(built.contains("open, closed, open again, twice"), "{built}");
    assert!(proved.contains("byte for byte"), "{proved}");
}
