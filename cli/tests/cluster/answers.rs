//! What machines read: every answer in `tests/answers/` field by field. A field that is renamed,
//! moved, or becomes another word or type fails here; a field that no answer has a value in, too.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use invivo_api::PatchPolicy;
use invivo_operator::report::{NodeReport, Report};
use invivo_terms::{Hold, Level, NodeState};
use serde_json::{Map, Value, json};

use crate::fake::{CRD, Fake, invivo};

/// When the operator made its plan.
const AT: &str = "2026-11-22T12:20:00Z";
const PLAN_PATH: &str =
    "/api/v1/namespaces/invivo-system/services/invivo-operator:metrics/proxy/plan/workers";
/// Fields whose words are for people.
const FOR_PEOPLE: [&str; 6] = ["check", "done", "message", "next", "nextAction", "remedy"];
const KINDS: [(&str, &str); 4] = [
    ("PatchFeed", "patchfeeds"),
    ("PatchPolicy", "patchpolicies"),
    ("PatchSet", "patchsets"),
    ("NodePatch", "nodepatches"),
];

fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// The samples of a kind; together they have a value in every field.
fn sample_text(kind: &str) -> String {
    std::fs::read_to_string(here().join(format!("../../crds/tests/samples/{kind}.yaml"))).unwrap()
}

/// A plan as the operator serves it, with a value in every field.
fn plan() -> Value {
    let policies: Vec<PatchPolicy> = serde_saphyr::from_str(&sample_text("PatchPolicy")).unwrap();
    let status = policies.into_iter().find_map(|policy| policy.status).unwrap();
    let at = Some(AT.parse().unwrap());
    let moved = NodeReport {
        name: "node-a".to_owned(),
        stage: "canary".to_owned(),
        decision: "Apply",
        to_level: Some(Level(4)),
        to_set: Some("2026-11-21.1".parse().unwrap()),
        hold: None,
        remedy: None,
        until: None,
        level: Some(Level(3)),
        effective: Some("6.1.170-3+invivo3".to_owned()),
        state: Some(NodeState::Blocked),
        reason: Some("TransitionStuck".to_owned()),
        message: Some("a task sleeps in a patched function".to_owned()),
    };
    let held = NodeReport {
        name: "node-b".to_owned(),
        stage: "early".to_owned(),
        decision: "Hold",
        to_level: None,
        to_set: None,
        hold: Some(Hold::OutsideWindow),
        remedy: Some(Hold::OutsideWindow.remedy()),
        until: at,
        level: None,
        effective: None,
        state: None,
        reason: None,
        message: None,
    };
    let report = Report {
        policy: "workers".to_owned(),
        now: AT.parse().unwrap(),
        feed: "production".to_owned(),
        feed_reason: "Verified",
        reason: "NodeFailed",
        message: "node-a failed".to_owned(),
        rollout: status.rollout,
        stage: status.stage,
        holds: status.holds,
        wake: at,
        nodes: vec![moved, held],
    };
    serde_json::to_value(report).unwrap()
}

/// A cluster in which everything that can be told is there to be told.
fn cluster() -> SocketAddr {
    let fake = Fake::default();
    for (kind, plural) in KINDS {
        let samples: Vec<Value> = serde_saphyr::from_str(&sample_text(kind)).unwrap();
        for mut object in samples {
            let name = object["metadata"]["name"].as_str().unwrap().to_owned();
            match name.as_str() {
                "workers" => {
                    let stalled = json!({"type": "Stalled", "status": "True", "reason": "NodeFailed",
                        "message": "node-a failed", "lastTransitionTime": "2026-11-22T12:00:00Z"});
                    object["status"]["conditions"].as_array_mut().unwrap().push(stalled);
                }
                // The fake names uids after objects.
                "node-a" => object["status"]["blockers"][0]["podUid"] = json!("uid-of-till-0"),
                "node-b" => object["spec"]["policy"] = json!("workers"),
                "node-c" => object["spec"]["policy"] = json!("gone"),
                _ => {}
            }
            fake.put(&format!("{CRD}/{plural}/{name}"), object);
        }
    }
    for node in ["node-a", "node-b", "node-c"] {
        fake.put(
            &format!("/api/v1/nodes/{node}"),
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {}}),
        );
    }
    fake.put(
        "/api/v1/pods/till-0",
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "shop"}}),
    );
    fake.put(PLAN_PATH, plan());
    fake.serve()
}

/// One answer, as JSON; the same in YAML.
struct Asked {
    server: SocketAddr,
    folder: tempfile::TempDir,
}

impl Asked {
    fn new() -> Self {
        Self { server: cluster(), folder: tempfile::tempdir().unwrap() }
    }

    fn run(&self, line: &str, form: &str, code: i32) -> String {
        // What stands behind a comma tells two runs of one command apart.
        let command = line.split(',').next().unwrap_or(line);
        let words: Vec<_> = command.split(' ').chain(["-o", form]).collect();
        let answer = invivo(self.folder.path(), self.server, "ada", &words);
        assert_eq!(answer.code, code, "{line}: {}{}", answer.out, answer.err);
        answer.out
    }

    fn answer(&self, line: &str, code: i32) -> Value {
        let json = stable(serde_json::from_str(&self.run(line, "json", code)).unwrap());
        let yaml = stable(serde_saphyr::from_str(&self.run(line, "yaml", code)).unwrap());
        assert_eq!(json, yaml, "{line}: JSON and YAML hold the same");
        json
    }
}

/// What is the same at every run: times that stand in no sample are of this one.
/// Words for people are no contract.
fn stable(answer: Value) -> Value {
    match answer {
        Value::Object(fields) => fields
            .into_iter()
            .map(|(key, value)| match &value {
                Value::String(_) if FOR_PEOPLE.contains(&key.as_str()) => (key, json!("<words>")),
                _ => (key, stable(value)),
            })
            .collect(),
        Value::Array(list) => list.into_iter().map(stable).collect(),
        Value::String(text) if is_of_this_run(&text) => json!("<a time>"),
        other => other,
    }
}

fn is_of_this_run(text: &str) -> bool {
    let written = text == AT || KINDS.iter().any(|(kind, _)| sample_text(kind).contains(text));
    !written && text.parse::<jiff::Timestamp>().is_ok()
}

/// Every leaf, with where it is.
fn leaves(path: &str, value: &Value, into: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            fields.iter().for_each(|(key, value)| leaves(&format!("{path}.{key}"), value, into));
        }
        Value::Array(list) if !list.is_empty() => {
            list.iter().enumerate().for_each(|(at, value)| leaves(&format!("{path}[{at}]"), value, into));
        }
        other => {
            into.insert(path.to_owned(), other.to_string());
        }
    }
}

/// Compares with the committed answers; with `INVIVO_WRITE=1` commits these.
fn compare(name: &str, answers: &Map<String, Value>) {
    let path = here().join(format!("answers/{name}.json"));
    let found = Value::Object(answers.clone());
    if std::env::var_os("INVIVO_WRITE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, serde_json::to_string_pretty(&found).unwrap() + "\n").unwrap();
    }
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let (mut committed, mut told) = (BTreeMap::new(), BTreeMap::new());
    leaves("", &serde_json::from_str(&text).unwrap(), &mut committed);
    leaves("", &found, &mut told);
    let line = |sign: char, (path, value): (&String, &String)| format!("{sign} {path}: {value}");
    let gone =
        committed.iter().filter(|(path, value)| told.get(*path) != Some(*value)).map(|leaf| line('-', leaf));
    let new =
        told.iter().filter(|(path, value)| committed.get(*path) != Some(*value)).map(|leaf| line('+', leaf));
    let changed: Vec<_> = gone.chain(new).collect();
    assert!(changed.is_empty(), "{} (-) is not what is told (+):\n{}", path.display(), changed.join("\n"));
}

/// Fields that have no value in any of the answers: what they hold is not tested.
fn silent(answers: &Map<String, Value>) -> BTreeSet<String> {
    let (mut empty, mut filled) = (BTreeSet::new(), BTreeSet::new());
    for answer in answers.values() {
        let mut told = BTreeMap::new();
        leaves("", answer, &mut told);
        for (path, value) in told {
            let field: String = path.chars().filter(|letter| !letter.is_ascii_digit()).collect();
            let silent = ["null", "[]", "{}"].contains(&value.as_str());
            if silent {
                empty.insert(field)
            } else {
                filled.insert(field)
            };
        }
    }
    let below = |field: &String| filled.iter().any(|filled| filled.starts_with(field.as_str()));
    empty.into_iter().filter(|field| !below(field)).collect()
}

fn answers(asked: &Asked, lines: &[(&str, i32)]) -> Map<String, Value> {
    lines.iter().map(|(line, code)| ((*line).to_owned(), asked.answer(line, *code))).collect()
}

#[test]
fn what_the_looking_commands_tell_machines_stays_field_by_field() {
    let asked = Asked::new();
    for (name, lines) in [
        ("status", &[("status", 0)][..]),
        ("why", &[("why node-a", 0), ("why node-b", 0), ("why node-c", 0)]),
        ("plan", &[("plan workers", 0)]),
        ("history", &[("history workers", 0)]),
        ("watch", &[("watch workers --wait", 7)]),
    ] {
        let mut told = answers(&asked, lines);
        if name == "status" {
            asked.run("stop --reason panics", "json", 0);
            told.extend(answers(&asked, &[("status, while everything is stopped", 0)]));
            asked.run("start", "json", 0);
        }
        compare(name, &told);
        assert_eq!(silent(&told), BTreeSet::new(), "{name}: fields without a value in any answer");
    }
}

#[test]
fn what_the_changing_commands_tell_machines_stays_field_by_field() {
    let asked = Asked::new();
    let set = "production.2026-11-21.1";
    let lines = [
        format!("approve {set} --reason tested --dry-run"),
        format!("reject {set} --reason broken --dry-run"),
        "pause workers --dry-run".to_owned(),
        "resume workers --dry-run".to_owned(),
        "rollback workers --to None --dry-run".to_owned(),
        "hold node-b --reason disk --dry-run".to_owned(),
        "unhold node-b --dry-run".to_owned(),
        "stop --reason panics --dry-run".to_owned(),
        "start --dry-run".to_owned(),
    ];
    let lines: Vec<_> = lines.iter().map(|line| (line.as_str(), 0)).collect();
    compare("changes", &answers(&asked, &lines));
}
