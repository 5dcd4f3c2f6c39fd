//! Who may do what: every account of the chart, every resource that the API server has, every verb,
//! against the list in `tests/access.txt`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use kube::Client;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::admission::installed;
use crate::server::{get, render, root, send};

/// How many questions are asked at once.
const AT_ONCE: usize = 32;
/// A namespace that has nothing to do with Invivo.
const ELSEWHERE: &str = "default";
const PERSON: &str = "a person without rights";
const APPROVER: &str = "a person with the role invivo-approver";
/// Verbs that are asked of no request, and what they are asked about.
const SPECIAL: [(&str, &str, &[&str]); 10] = [
    ("", "users", &["impersonate"]),
    ("", "groups", &["impersonate"]),
    ("", "serviceaccounts", &["impersonate"]),
    ("authentication.k8s.io", "uids", &["impersonate"]),
    ("rbac.authorization.k8s.io", "roles", &["bind", "escalate"]),
    ("rbac.authorization.k8s.io", "clusterroles", &["bind", "escalate"]),
    ("certificates.k8s.io", "signers", &["approve", "attest", "sign"]),
    ("resource.k8s.io", "deviceclasses", &["use"]),
    ("invivo.dev", "patchsets/approvals", &["withdraw"]),
    ("*", "*", &["*"]),
];
const VERBS: [&str; 8] = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];

/// What may be asked for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct What {
    group: String,
    /// With its subresource.
    resource: String,
    /// None: in every namespace, or it is in none.
    namespace: Option<String>,
    /// None: of any name.
    name: Option<String>,
}

impl What {
    fn line(&self) -> String {
        let dot = if self.group.is_empty() { "" } else { "." };
        let namespace =
            self.namespace.as_ref().map_or_else(String::new, |namespace| format!(" in {namespace}"));
        let name = self.name.as_ref().map_or_else(String::new, |name| format!(" named {name}"));
        format!("{}{dot}{}{namespace}{name}", self.resource, self.group)
    }

    /// The same, but wherever and of whatever name.
    fn wider(&self) -> [Self; 3] {
        let everywhere = Self { namespace: None, ..self.clone() };
        let nameless = Self { name: None, ..self.clone() };
        let both = Self { name: None, ..everywhere.clone() };
        [everywhere, nameless, both]
    }
}

#[derive(Debug, Clone)]
struct Account {
    called: String,
    user: String,
    groups: Vec<String>,
}

impl Account {
    fn person(called: &str, user: &str) -> Self {
        Self {
            called: called.to_owned(),
            user: user.to_owned(),
            groups: vec!["system:authenticated".to_owned()],
        }
    }

    fn service(namespace: &str, name: &str) -> Self {
        let groups = ["system:authenticated", "system:serviceaccounts"].map(str::to_owned);
        Self {
            called: format!("{namespace}/{name}"),
            user: format!("system:serviceaccount:{namespace}:{name}"),
            groups: groups.into_iter().chain([format!("system:serviceaccounts:{namespace}")]).collect(),
        }
    }
}

/// What the chart has to say about rights.
struct Chart {
    accounts: Vec<Account>,
    namespaces: BTreeSet<String>,
    /// The names that rules give, by group and resource.
    names: BTreeMap<(String, String), BTreeSet<String>>,
}

impl Chart {
    fn read() -> Self {
        let documents: Vec<Value> = serde_saphyr::from_multiple(&render("invivo")).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let list = |value: &Value| value.as_array().unwrap().iter().map(text).collect::<Vec<_>>();
        let mut chart = Self {
            accounts: vec![
                Account::person(PERSON, "eve@example.com"),
                Account::person(APPROVER, "dan@example.com"),
            ],
            namespaces: BTreeSet::from([ELSEWHERE.to_owned()]),
            names: BTreeMap::new(),
        };
        for document in &documents {
            let metadata = &document["metadata"];
            if document["kind"] == "ServiceAccount" {
                chart
                    .accounts
                    .push(Account::service(&text(&metadata["namespace"]), &text(&metadata["name"])));
            }
            chart.namespaces.extend(metadata["namespace"].as_str().map(str::to_owned));
            for rule in document["rules"].as_array().into_iter().flatten() {
                if rule["resourceNames"].is_null() {
                    continue;
                }
                for group in list(&rule["apiGroups"]) {
                    for resource in list(&rule["resources"]) {
                        let names = chart.names.entry((group.clone(), resource)).or_default();
                        names.extend(list(&rule["resourceNames"]));
                    }
                }
            }
        }
        // Every namespace has one that nobody made.
        let pods: Vec<_> =
            chart.namespaces.iter().map(|namespace| Account::service(namespace, "default")).collect();
        chart.accounts.extend(pods);
        chart
    }

    /// What is to be asked about one resource.
    fn about(&self, group: &str, resource: &str, namespaced: bool) -> Vec<What> {
        let namespaces = namespaced.then_some(&self.namespaces).into_iter().flatten().cloned().map(Some);
        let names = self.names.get(&(group.to_owned(), resource.to_owned()));
        let names: Vec<_> = names.into_iter().flatten().cloned().map(Some).chain([None]).collect();
        let places = namespaces.chain([None]);
        places
            .flat_map(|namespace| {
                names.iter().map(move |name| What {
                    group: group.to_owned(),
                    resource: resource.to_owned(),
                    namespace: namespace.clone(),
                    name: name.clone(),
                })
            })
            .collect()
    }
}

/// Every resource of every group and version, and whether it is in a namespace.
async fn resources(admin: &Client) -> BTreeMap<(String, String), bool> {
    let mut versions = vec![(String::new(), "/api/v1".to_owned())];
    for group in get(admin, "/apis").await.json()["groups"].as_array().unwrap() {
        for version in group["versions"].as_array().unwrap() {
            let path = format!("/apis/{}", version["groupVersion"].as_str().unwrap());
            versions.push((group["name"].as_str().unwrap().to_owned(), path));
        }
    }
    let mut found = BTreeMap::new();
    for (group, path) in versions {
        for resource in get(admin, &path).await.json()["resources"].as_array().unwrap() {
            let name = resource["name"].as_str().unwrap().to_owned();
            found.insert((group.clone(), name), resource["namespaced"] == true);
        }
    }
    found
}

/// Asks the API server whether the account may.
async fn may(admin: &Client, account: &Account, attributes: &(&str, Value)) -> bool {
    let (kind, of) = attributes;
    let mut review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
        "spec": {"user": account.user, "groups": account.groups},
    });
    review["spec"][*kind] = of.clone();
    let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    let answer = send(admin, "POST", path, Some(&review), "application/json").await;
    assert_eq!(answer.code, 200, "{}", answer.text);
    let status = &answer.json()["status"];
    assert!(status["evaluationError"].is_null(), "{status}");
    status["allowed"] == true
}

/// What the accounts may: by account, the lines of what, and the verbs.
type Rights = BTreeMap<String, BTreeMap<What, BTreeSet<String>>>;

async fn rights(admin: &Client, chart: &Chart, resources: &BTreeMap<(String, String), bool>) -> Rights {
    let mut questions = Vec::new();
    for ((group, resource), namespaced) in resources {
        for what in chart.about(group, resource, *namespaced) {
            questions.extend(VERBS.map(|verb| (what.clone(), verb)));
        }
    }
    for (group, resource, verbs) in SPECIAL {
        for what in chart.about(group, resource, true) {
            questions.extend(verbs.iter().map(|verb| (what.clone(), *verb)));
        }
    }
    let mut rights = Rights::new();
    let mut asked = JoinSet::new();
    for account in &chart.accounts {
        rights.insert(account.called.clone(), BTreeMap::new());
        for (what, verb) in &questions {
            if asked.len() == AT_ONCE {
                note(&mut rights, asked.join_next().await.unwrap().unwrap());
            }
            let (admin, account, what, verb) = (admin.clone(), account.clone(), what.clone(), *verb);
            asked.spawn(async move {
                let (resource, subresource) = what.resource.split_once('/').unwrap_or((&what.resource, ""));
                let attributes = json!({"group": what.group, "resource": resource, "subresource": subresource,
                    "namespace": what.namespace, "name": what.name, "verb": verb});
                let yes = may(&admin, &account, &("resourceAttributes", attributes)).await;
                (account.called, what, verb, yes)
            });
        }
    }
    while let Some(answer) = asked.join_next().await {
        note(&mut rights, answer.unwrap());
    }
    rights
}

fn note(rights: &mut Rights, (account, what, verb, yes): (String, What, &str, bool)) {
    if yes {
        rights.get_mut(&account).unwrap().entry(what).or_default().insert(verb.to_owned());
    }
}

/// Takes away what follows from something wider, and what every person may.
fn plain(rights: &Rights) -> BTreeMap<&str, BTreeMap<String, Vec<String>>> {
    let has = |account: &str, what: &What, verb: &String| {
        rights[account].get(what).is_some_and(|verbs| verbs.contains(verb))
    };
    let mut plain = BTreeMap::new();
    for (account, granted) in rights {
        let mut lines = BTreeMap::new();
        for (what, verbs) in granted {
            let follows = |verb: &String| {
                what.wider().iter().any(|wider| wider != what && has(account, wider, verb))
                    || (account != PERSON && has(PERSON, what, verb))
            };
            let own: Vec<_> = verbs.iter().filter(|verb| !follows(verb)).cloned().collect();
            if !own.is_empty() {
                lines.insert(what.line(), own);
            }
        }
        plain.insert(account.as_str(), lines);
    }
    plain
}

/// The first parts of the paths without resources that the account may read.
async fn paths(admin: &Client, account: &Account) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let listed = get(admin, "/").await.json()["paths"].as_array().unwrap().clone();
    for path in
        listed.iter().map(|path| path.as_str().unwrap()).chain(["/logs/", "/metrics", "/debug/pprof/"])
    {
        let first = path.split('/').nth(1).unwrap();
        let attributes = json!({"path": path, "verb": "get"});
        if may(admin, account, &("nonResourceAttributes", attributes)).await {
            found.insert(format!("/{first}"));
        }
    }
    found
}

#[tokio::test]
async fn every_account_may_what_the_list_says_and_nothing_else() {
    let (server, _) = installed().await;
    let admin = server.client(&[]);
    let chart = Chart::read();
    let resources = resources(&admin).await;
    assert!(resources.contains_key(&("invivo.dev".to_owned(), "nodepatches/status".to_owned())));
    for (group, resource) in chart.names.keys() {
        assert!(
            resources.contains_key(&(group.clone(), resource.clone())),
            "a rule is about {resource} of {group:?}"
        );
    }
    let rights = rights(&admin, &chart, &resources).await;
    let anybody = paths(&admin, &chart.accounts[0]).await;
    let mut text = format!(
        "What each account of the chart may do on an API server {}: every resource and subresource of the\n\
         discovery, every verb, everywhere, in the chart's namespaces and in another one, with every name\n\
         that a rule of the chart has. What a person without rights may do, every account may.\n\
         Written by the test access.rs with INVIVO_WRITE=1.\n",
        "1.34"
    );
    let plain = plain(&rights);
    for account in &chart.accounts {
        writeln!(text, "\n{}", account.called).unwrap();
        for (what, verbs) in &plain[account.called.as_str()] {
            writeln!(text, "  {what}: {}", verbs.join(" ")).unwrap();
        }
        let paths = paths(&admin, account).await;
        let own: Vec<_> =
            paths.iter().filter(|path| account.called == PERSON || !anybody.contains(*path)).collect();
        for path in own {
            writeln!(text, "  {path}: get").unwrap();
        }
    }
    let path = root().join("crds/tests/access.txt");
    if std::env::var_os("INVIVO_WRITE").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let listed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(listed == text, "{}", difference(&listed, &text));
}

/// The lines that only one of them has.
fn difference(listed: &str, found: &str) -> String {
    // A line means what it means under its heading.
    fn lines(text: &str) -> BTreeSet<String> {
        let mut heading = String::new();
        let mut lines = BTreeSet::new();
        for line in text.lines() {
            if line.starts_with("  ") {
                lines.insert(format!("{heading}: {}", line.trim_start()));
            } else {
                line.clone_into(&mut heading);
                lines.insert(line.to_owned());
            }
        }
        lines
    }
    let (listed, found) = (lines(listed), lines(found));
    let gone = listed.difference(&found).map(|line| format!("- {line}"));
    let new = found.difference(&listed).map(|line| format!("+ {line}"));
    let changed: Vec<_> = gone.chain(new).collect();
    format!("tests/access.txt (-) is not what the API server says (+):\n{}", changed.join("\n"))
}
