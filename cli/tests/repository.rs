//! From keys to a published repository and its verification, with the program as people run it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use invivo_feed::{paths, sample};
use invivo_terms::{Level, SetName};
use serde_json::Value;

struct Work {
    folder: tempfile::TempDir,
}

struct Answer {
    code: i32,
    out: String,
    err: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {}{}", self.out, self.err))
    }
}

impl From<Output> for Answer {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Work {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn try_run(&self, line: &str) -> Answer {
        Command::new(env!("CARGO_BIN_EXE_invivo"))
            .current_dir(self.folder.path())
            .args(line.split(' '))
            .output()
            .unwrap()
            .into()
    }

    fn run(&self, line: &str) -> Answer {
        let answer = self.try_run(line);
        assert_eq!(answer.code, 0, "invivo {line}: {}{}", answer.out, answer.err);
        answer
    }

    fn keys(&self) {
        for who in ["ada", "bob", "eve", "clock"] {
            self.run(&format!("repo keygen --name {who} --key {who}.key --cert {who}.cert"));
        }
    }

    fn create(&self) {
        self.keys();
        self.run(
            "repo create desk --name acme --threshold 2 --trust ada.cert --index ada.cert --trust bob.cert \
             --index bob.cert --trust eve.cert --index eve.cert --timestamp clock.cert",
        );
        self.run("repo sign desk --key ada.key");
        self.run("repo sign desk --key bob.key");
    }

    /// Writes a bundle as `invivo build` would.
    fn bundle(&self, level: u32) -> String {
        let set: SetName = format!("2026-11-21.{level}").parse().unwrap();
        let kernel = sample::kernel('a').unwrap();
        let sample = sample::sample(&"acme".parse().unwrap(), &kernel, &set, Level(level)).unwrap();
        let bytes = invivo_bundle::pack(&sample.manifest_bytes, &[(&sample.name, &sample.module)]).unwrap();
        let name = format!("{level}.bundle");
        fs::write(self.path(&name), bytes).unwrap();
        name
    }

    fn publish(&self, level: u32) {
        let bundle = self.bundle(level);
        self.run(&format!("repo add desk {bundle} --set 2026-11-21.{level} --summary first"));
        self.run("repo stage desk");
        self.run("repo sign desk --key ada.key");
        self.run("repo sign desk --key eve.key");
        self.run("repo publish desk --timestamp-key clock.key");
    }

    fn root(&self) -> String {
        self.run("repo show desk -o json").json()["root"].as_str().unwrap().to_owned()
    }

    fn copy(&self, to: &str) -> PathBuf {
        let output =
            Command::new("cp").arg("-a").arg(self.path("desk/repository")).arg(self.path(to)).output();
        assert!(output.unwrap().status.success());
        self.path(to)
    }
}

fn only(folder: &Path, suffix: &str) -> PathBuf {
    let mut found: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.to_str().unwrap().ends_with(suffix))
        .collect();
    assert_eq!(found.len(), 1);
    found.remove(0)
}

#[test]
fn a_repository_goes_from_keys_to_verified() {
    let work = Work::new();
    work.create();
    assert!(work.run("repo show desk").out.contains("nothing is published yet"));
    work.publish(1);
    let root = work.root();
    let pinned = invivo_feed::digest(&fs::read(work.path("desk/repository/trust/1.json")).unwrap());
    assert_eq!(root, pinned.as_str());

    // The desk, and the folder that a server would carry.
    for place in ["desk", "desk/repository"] {
        let verified = work.run(&format!("verify {place} --root {root} -o json")).json();
        assert_eq!(verified["good"], true);
        assert_eq!(verified["repository"], "acme");
        assert_eq!(verified["levels"][0]["result"], "Verified");
        assert_eq!(verified["levels"][0]["level"], 1);
    }
    let table = work.run(&format!("verify desk --root {root}")).out;
    assert!(table.contains("repository acme: trust 1, index 1, timestamp 1, expires in 7d"), "{table}");
    assert!(table.contains("KERNEL") && table.contains("6.1.0-47-cloud-amd64"), "{table}");

    let refreshed = work.run("repo refresh desk --timestamp-key clock.key -o json").json();
    assert_eq!((&refreshed["timestamp"], &refreshed["index"]), (&Value::from(2), &Value::from(1)));
}

#[test]
fn a_secret_key_is_for_its_owner_alone_and_is_never_printed() {
    let work = Work::new();
    let made = work.run("repo keygen --name ada --key ada.key --cert ada.cert");
    let key = work.path("ada.key");
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    let secret = fs::read_to_string(&key).unwrap();
    assert!(secret.contains("PRIVATE KEY BLOCK"));
    assert!(!fs::read_to_string(work.path("ada.cert")).unwrap().contains("PRIVATE"));
    assert!(!made.out.contains("BEGIN PGP") && !made.err.contains("BEGIN PGP"));
    let again = work.try_run("repo keygen --name ada --key ada.key --cert other.cert");
    assert_eq!(again.code, 1, "a key that is there stays");
    assert_eq!(fs::read_to_string(&key).unwrap(), secret);

    work.run("repo keygen --name clock --key clock.key --cert clock.cert");
    work.run(
        "repo create desk --name acme --threshold 1 --trust ada.cert --index ada.cert --timestamp clock.cert",
    );
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    let open = work.try_run("repo sign desk --key ada.key");
    assert_eq!(open.code, 1);
    assert!(open.err.contains("chmod 600"), "{}", open.err);
}

#[test]
fn too_few_signatures_are_not_published_and_it_says_who_may_still_sign() {
    let work = Work::new();
    work.create();
    let bundle = work.bundle(1);
    work.run(&format!("repo add desk {bundle}"));
    work.run("repo stage desk");
    let signed = work.run("repo sign desk --key ada.key --role index");
    assert!(signed.out.contains("index: 1 of 2 signatures"), "{}", signed.out);
    assert_eq!(signed.out.matches("may still sign").count(), 2, "{}", signed.out);
    let early = work.try_run("repo publish desk --timestamp-key clock.key");
    assert_eq!(early.code, 3);
    assert!(early.err.contains("let more holders sign"), "{}", early.err);
    let stranger = work.try_run("repo sign desk --key clock.key");
    assert_eq!(stranger.code, 1, "the timestamp key signs timestamps alone: {}", stranger.out);
}

#[test]
fn what_was_changed_after_signing_is_refused_by_name() {
    let work = Work::new();
    work.create();
    work.publish(1);
    let root = work.root();

    let changed = work.copy("changed");
    let path = only(&changed.join("bundles"), "");
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    let answer = work.try_run(&format!("verify changed --root {root} -o json"));
    assert_eq!(answer.code, 3);
    assert_eq!(answer.json()["levels"][0]["result"], "ArbitrarySoftware");
    assert_eq!(answer.json()["good"], false);

    let short = work.copy("short");
    let path = short.join(paths::signatures(&paths::index(1)));
    let signatures = fs::read(&path).unwrap();
    fs::write(&path, sample::first_signature(&signatures)).unwrap();
    let answer = work.try_run(&format!("verify short --root {root}"));
    assert_eq!(answer.code, 3);
    assert!(answer.err.contains("BelowThreshold"), "{}", answer.err);
    assert!(answer.err.contains("add the missing signatures"), "{}", answer.err);

    let answer = work.try_run(&format!("verify desk --root {}", "0".repeat(64)));
    assert_eq!(answer.code, 3);
    assert!(answer.err.contains("WrongRoot"), "{}", answer.err);
    let answer = work.try_run(&format!("verify nowhere --root {root}"));
    assert_eq!(answer.code, 4, "{}", answer.err);
    let answer = work.try_run(&format!("verify http://127.0.0.1:1/ --root {root}"));
    assert_eq!(answer.code, 4, "{}", answer.err);
}

#[test]
fn a_set_is_withdrawn_and_a_bundle_of_another_set_is_not_taken() {
    let work = Work::new();
    work.create();
    work.publish(1);
    let bundle = work.bundle(2);
    let wrong = work.try_run(&format!("repo add desk {bundle} --set 2026-11-22.1"));
    assert_eq!(wrong.code, 1);
    assert!(wrong.err.contains("is of set 2026-11-21.2"), "{}", wrong.err);

    work.run("repo withdraw desk --set 2026-11-21.1");
    work.run("repo stage desk");
    work.run("repo sign desk --key ada.key");
    work.run("repo sign desk --key bob.key");
    work.run("repo publish desk --timestamp-key clock.key");
    let root = work.root();
    let verified = work.run(&format!("verify desk --root {root} -o json")).json();
    assert_eq!(verified["sets"][0]["status"], "withdrawn");
    assert_eq!(verified["levels"][0]["result"], "Withdrawn");
    assert_eq!(work.try_run("repo withdraw desk --set 2026-12-01.1").code, 1);
}

#[test]
fn mistakes_say_what_to_do() {
    let work = Work::new();
    let none = work.try_run("repo stage nowhere");
    assert_eq!(none.code, 1);
    assert!(none.err.contains("invivo repo create"), "{}", none.err);
    work.create();
    let twice = work.try_run(
        "repo create desk --name acme --threshold 2 --trust ada.cert --trust bob.cert --index ada.cert --index bob.cert \
         --timestamp clock.cert",
    );
    assert!(twice.err.contains("not empty"), "{}", twice.err);
    fs::write(work.path("noise.bundle"), b"noise").unwrap();
    let noise = work.try_run("repo add desk noise.bundle");
    assert_eq!(noise.code, 3);
    assert!(noise.err.contains("Malformed"), "{}", noise.err);
    assert_eq!(work.try_run("repo add desk").code, 2);
    assert_eq!(work.try_run("repo stage desk --days 91").code, 2);
}

/// A key that stays with gpg: the program sees the certificate and the signature only.
#[test]
fn a_detached_signature_made_by_gpg_counts() {
    let work = Work::new();
    let home = work.path("gnupg");
    fs::create_dir(&home).unwrap();
    fs::set_permissions(&home, fs::Permissions::from_mode(0o700)).unwrap();
    let gpg = |arguments: &[&str]| {
        Command::new("gpg")
            .env("GNUPGHOME", &home)
            .args(["--batch", "--quiet", "--yes", "--pinentry-mode", "loopback", "--passphrase", ""])
            .args(arguments)
            .output()
    };
    let Ok(made) = gpg(&["--quick-generate-key", "bob@example.com", "ed25519", "sign", "never"]) else {
        eprintln!("skipped: gpg is not installed");
        return;
    };
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let certificate = gpg(&["--export", "bob@example.com"]).unwrap();
    fs::write(work.path("gpg.cert"), certificate.stdout).unwrap();
    for who in ["ada", "clock"] {
        work.run(&format!("repo keygen --name {who} --key {who}.key --cert {who}.cert"));
    }
    work.run(
        "repo create desk --name acme --threshold 2 --trust ada.cert --trust gpg.cert --index ada.cert --index gpg.cert \
         --timestamp clock.cert",
    );
    let sign = |role: &str| {
        let (document, signature) = (format!("desk/staged/{role}.json"), format!("{role}.asc"));
        let signed = gpg(&[
            "--armor",
            "--detach-sign",
            "--sig-notation",
            &format!("!role@invivo.dev={role}"),
            "--output",
            work.path(&signature).to_str().unwrap(),
            work.path(&document).to_str().unwrap(),
        ])
        .unwrap();
        assert!(signed.status.success(), "{}", String::from_utf8_lossy(&signed.stderr));
        signature
    };
    work.run("repo sign desk --key ada.key");
    let signature = sign("trust");
    let trust = work.run(&format!("repo import desk {signature} -o json")).json();
    assert_eq!(trust["signing"][0]["complete"], true);

    let bundle = work.bundle(1);
    work.run(&format!("repo add desk {bundle}"));
    work.run("repo stage desk");
    work.run("repo sign desk --key ada.key --role index");
    let wrong = work.try_run(&format!("repo import desk {signature} --role index"));
    assert_eq!(wrong.code, 1, "a signature over another document does not count");
    let signature = sign("index");
    work.run(&format!("repo import desk {signature}"));
    work.run("repo publish desk --timestamp-key clock.key");
    let root = work.root();
    work.run(&format!("verify desk --root {root}"));
    let _ = Command::new("gpgconf").env("GNUPGHOME", &home).args(["--kill", "all"]).output();
}
