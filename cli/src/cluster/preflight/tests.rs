//! What people see before they install anything.

use std::collections::BTreeMap;

use invivo_feed::document::Index;
use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};

use super::{Coverage, Facts, Preflight, Verdict};
use crate::Exit;

const RELEASE: &str = "6.1.0-47-cloud-amd64";

fn node(name: &str, release: &str) -> Node {
    of(json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
        "status": {"nodeInfo": {
            "architecture": "amd64", "operatingSystem": "linux", "kernelVersion": release,
            "osImage": "Debian GNU/Linux 12", "bootID": "", "containerRuntimeVersion": "", "kubeProxyVersion": "",
            "kubeletVersion": "", "machineID": "", "systemUUID": ""}},
    }))
}

fn of<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn build(digit: &str) -> String {
    digit.repeat(40)
}

/// Build b at level 2 in an active set and at level 3 in one that was withdrawn; build c at none.
fn index() -> Index {
    let set = |name: &str, status: &str, level: u32| {
        json!({"name": name, "released": "2026-11-20T00:00:00Z", "channel": "stable", "status": status,
            "summary": "", "kernels": {build("b"): {"level": level, "manifest": "d".repeat(64)}}})
    };
    let kernel = json!({"release": RELEASE, "length": 1, "sha256": "e".repeat(64)});
    of(json!({
        "type": "index", "repository": "acme", "version": 1, "expires": "2027-01-01T00:00:00Z",
        "sets": [set("2026-11-19.1", "active", 1), set("2026-11-20.1", "active", 2),
                 set("2026-11-21.1", "withdrawn", 3)],
        "kernels": {build("b"): kernel, build("c"): kernel},
    }))
}

fn good() -> Facts {
    Facts {
        build_id: Some(build("b").parse().unwrap()),
        release: Some(RELEASE.to_owned()),
        livepatch: Some(true),
        patches: Some(Vec::new()),
        signatures: Some(false),
        modules_disabled: Some(false),
        lockdown: Some("none".to_owned()),
        security_modules: vec!["AppArmor"],
    }
}

fn look(nodes: &[Node], index: Option<&Index>, seen: &[(&str, Result<Facts, String>)]) -> Preflight {
    let seen: BTreeMap<_, _> = seen.iter().map(|(name, facts)| ((*name).to_owned(), facts.clone())).collect();
    Preflight::of(nodes, index, &seen, "2026-11-21T12:00:00Z".parse().unwrap())
}

fn judged(facts: Facts) -> (Verdict, String) {
    let preflight = look(&[node("node-1", RELEASE)], Some(&index()), &[("node-1", Ok(facts))]);
    (preflight.nodes[0].verdict, preflight.nodes[0].notes.join("; "))
}

#[test]
fn from_node_objects_alone_only_a_release_that_nobody_patches_is_certain() {
    let nodes = [node("node-1", RELEASE), node("node-2", "5.10.0-8-amd64")];
    let preflight = look(&nodes, Some(&index()), &[]);
    assert_eq!(preflight.nodes[0].coverage, Coverage::Listed);
    assert_eq!(preflight.nodes[0].verdict, Verdict::Unknown);
    assert_eq!(preflight.nodes[1].verdict, Verdict::NotCovered);
    assert_eq!(preflight.exit(), Exit::Trouble);
    assert_eq!(look(&nodes[..1], Some(&index()), &[]).exit(), Exit::Done);

    let preflight = look(&nodes, None, &[]);
    assert!(preflight.nodes.iter().all(|node| node.verdict == Verdict::Unknown));
    assert!(preflight.to_string().contains("No repository was compared with"));
}

#[test]
fn a_node_whose_very_build_has_a_level_is_ready() {
    let preflight = look(&[node("node-1", RELEASE)], Some(&index()), &[("node-1", Ok(good()))]);
    let expected = "\
NODE     KERNEL                 OS                    BUILD          COVERED                  LIVEPATCH   SIGNED   LOCKDOWN   LSM        FOREIGN   VERDICT
node-1   6.1.0-47-cloud-amd64   Debian GNU/Linux 12   bbbbbbbbbbbb   level 2 (2026-11-20.1)   yes         no       none       AppArmor   -         Ready

Compared with repository acme.
";
    assert_eq!(preflight.to_string(), expected, "the withdrawn level 3 does not count");
    let json = serde_json::to_value(&preflight).unwrap();
    assert_eq!(json["nodes"][0]["coverage"], json!({"is": "Covered", "level": 2, "set": "2026-11-20.1"}));
    assert_eq!(json["nodes"][0]["buildId"], build("b"));
}

#[test]
fn another_build_of_the_same_release_is_not_covered() {
    let other = Facts { build_id: Some(build("c").parse().unwrap()), ..good() };
    assert_eq!(judged(other).0, Verdict::NotCovered);
}

#[test]
fn what_stands_in_the_way_is_named() {
    let (verdict, why) = judged(Facts { livepatch: Some(false), ..good() });
    assert_eq!(verdict, Verdict::Blocked);
    assert!(why.contains("CONFIG_LIVEPATCH"), "{why}");
    let (verdict, why) = judged(Facts { modules_disabled: Some(true), ..good() });
    assert_eq!(verdict, Verdict::Blocked);
    assert!(why.contains("kernel.modules_disabled"), "{why}");
    let patches = vec!["kpatch_cve".to_owned(), "invivo_l1_0123456789abcdef".to_owned()];
    let (verdict, why) = judged(Facts { patches: Some(patches), ..good() });
    assert_eq!(verdict, Verdict::Blocked);
    assert_eq!(why, "live patches of others are loaded: kpatch_cve");
}

#[test]
fn demanded_signatures_and_lockdown_ask_for_a_look_at_the_key() {
    assert_eq!(judged(Facts { signatures: Some(true), ..good() }).0, Verdict::CheckKey);
    assert_eq!(judged(Facts { lockdown: Some("integrity".to_owned()), ..good() }).0, Verdict::CheckKey);
    let (verdict, why) = judged(Facts { lockdown: None, ..good() });
    assert_eq!(verdict, Verdict::CheckKey);
    assert!(why.contains("not to be seen from here"), "{why}");
    assert_eq!(judged(Facts { livepatch: None, ..good() }).0, Verdict::Unknown);
}

#[test]
fn a_probe_that_failed_says_why_and_leaves_the_node_unknown() {
    let failed = Err("ErrImagePull: no route".to_owned());
    let preflight = look(&[node("node-1", RELEASE)], Some(&index()), &[("node-1", failed)]);
    assert_eq!(preflight.nodes[0].verdict, Verdict::Unknown);
    assert!(preflight.to_string().contains("  node-1: not probed: ErrImagePull: no route\n"));
}

#[test]
fn a_node_that_has_booted_another_kernel_meanwhile_is_not_judged_by_the_old_one() {
    let old = Facts { release: Some("6.1.0-46-cloud-amd64".to_owned()), ..good() };
    let (verdict, why) = judged(old);
    assert_eq!(verdict, Verdict::Unknown);
    assert!(why.contains("different kernels"), "{why}");
}

#[test]
fn a_node_that_is_no_linux_on_amd64_is_not_supported() {
    let mut arm = node("node-1", RELEASE);
    arm.status.as_mut().unwrap().node_info.as_mut().unwrap().architecture = "arm64".to_owned();
    let preflight = look(&[arm], Some(&index()), &[("node-1", Ok(good()))]);
    assert_eq!(preflight.nodes[0].verdict, Verdict::Unsupported);
    assert_eq!(preflight.exit(), Exit::Trouble);
}

#[test]
fn what_machines_are_told_stays_field_by_field() {
    let nodes = [node("node-1", RELEASE), node("node-2", "5.10.0-8-amd64")];
    let preflight = look(&nodes, Some(&index()), &[("node-1", Ok(good()))]);
    let expected = json!({
        "now": "2026-11-21T12:00:00Z",
        "repository": "acme",
        "nodes": [
            {"name": "node-1", "architecture": "amd64", "os": "Debian GNU/Linux 12", "kernel": RELEASE,
             "coverage": {"is": "Covered", "level": 2, "set": "2026-11-20.1"}, "buildId": build("b"),
             "release": RELEASE, "livepatch": true, "patches": [], "signatures": false, "modulesDisabled": false,
             "lockdown": "none", "securityModules": ["AppArmor"], "verdict": "Ready", "notes": []},
            {"name": "node-2", "architecture": "amd64", "os": "Debian GNU/Linux 12", "kernel": "5.10.0-8-amd64",
             "coverage": {"is": "NotCovered"}, "buildId": null, "release": null, "livepatch": null,
             "patches": null, "signatures": null, "modulesDisabled": null, "lockdown": null,
             "securityModules": [], "verdict": "NotCovered", "notes": []},
        ],
    });
    assert_eq!(serde_json::to_value(&preflight).unwrap(), expected);
    let verdicts = [
        Verdict::Ready,
        Verdict::CheckKey,
        Verdict::Unknown,
        Verdict::NotCovered,
        Verdict::Blocked,
        Verdict::Unsupported,
    ];
    let words = ["Ready", "CheckKey", "Unknown", "NotCovered", "Blocked", "Unsupported"];
    assert_eq!(serde_json::to_value(verdicts).unwrap(), json!(words));
    let other = json!([{"is": "Listed"}, {"is": "Unknown"}]);
    assert_eq!(serde_json::to_value([Coverage::Listed, Coverage::Unknown]).unwrap(), other);
}
