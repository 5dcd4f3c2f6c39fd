//! The kinds as pages for people: every field with its type, its default and its sentence, and the
//! rules that one object can break. Made from the schema that the API server gets.

use std::fmt::Write as _;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;

/// One kind as a page, and the name of its file.
///
/// # Errors
///
/// If the definition cannot be read as JSON, which a test rules out.
pub fn reference(crd: &CustomResourceDefinition) -> Result<(String, String), serde_json::Error> {
    let value = serde_json::to_value(crd)?;
    let names = &crd.spec.names;
    let schema = value.pointer("/spec/versions/0/schema/openAPIV3Schema").cloned().unwrap_or_default();
    let mut page = format!("# {}\n\n{}\n\n", names.kind, sentence(&schema));
    let short = names.short_names.iter().flatten().map(String::as_str).collect::<Vec<_>>().join(", ");
    let _ = writeln!(
        page,
        "`{}` in `invivo.dev/v1alpha1`; short name `{short}`; not in a namespace.",
        names.plural
    );
    rules(&mut page, &schema);
    for part in ["spec", "status"] {
        let Some(schema) = schema.pointer(&format!("/properties/{part}")) else { continue };
        let _ = writeln!(page, "\n## {part}\n\n{}\n", sentence(schema));
        page.push_str("| field | type | meaning |\n| --- | --- | --- |\n");
        let mut found = Vec::new();
        fields(&mut page, &mut found, "", schema);
        if !found.is_empty() {
            let _ = writeln!(page, "\nWhat one object can break, with what the API server answers:\n");
            for (path, message) in found {
                let _ = writeln!(page, "- `{part}{path}`: {message}");
            }
        }
    }
    Ok((format!("{}.md", names.singular.clone().unwrap_or_else(|| names.kind.to_lowercase())), page))
}

fn fields(page: &mut String, found: &mut Vec<(String, String)>, path: &str, schema: &Value) {
    for message in messages(schema) {
        found.push((path.to_owned(), message));
    }
    let required: Vec<&str> = schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    for (name, field) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let here = format!("{path}.{name}");
        let needed = if required.contains(&name.as_str()) { ", required" } else { "" };
        let default = field.get("default").filter(|default| !default.is_object());
        let default = default.map_or_else(String::new, |default| format!(", default `{default}`"));
        let shown = here.trim_start_matches('.');
        let _ = writeln!(page, "| `{shown}` | {}{needed}{default} | {} |", kind(field), sentence(field));
        fields(page, found, &here, field);
        if let Some(items) = field.get("items") {
            fields(page, found, &format!("{here}[]"), items);
        }
    }
}

fn rules(page: &mut String, schema: &Value) {
    for message in messages(schema) {
        let _ = writeln!(page, "\nRule: {message}.");
    }
}

fn messages(schema: &Value) -> Vec<String> {
    let rules = schema.get("x-kubernetes-validations").and_then(Value::as_array);
    let message = |rule: &Value| rule.get("message").and_then(Value::as_str).map(str::to_owned);
    rules.into_iter().flatten().filter_map(message).collect()
}

fn kind(field: &Value) -> String {
    if let Some(values) = field.get("enum").and_then(Value::as_array) {
        let values = values.iter().filter_map(Value::as_str).map(|value| format!("`{value}`"));
        return values.collect::<Vec<_>>().join(" or ");
    }
    let one = |field: &Value| {
        let format = field.get("format").and_then(Value::as_str).filter(|format| *format == "date-time");
        let kind = format.map(|_| "instant").or_else(|| field.get("type").and_then(Value::as_str));
        kind.unwrap_or("number or string").to_owned()
    };
    match field.get("items") {
        Some(items) => format!("list of {}s", one(items)),
        None => one(field),
    }
}

/// A description as one line of a table.
fn sentence(schema: &Value) -> String {
    let text = schema.get("description").and_then(Value::as_str).unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_committed_pages_are_the_ones_these_types_give() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference");
        for (_, crd) in crate::all_kinds() {
            let (file, page) = reference(&crd).unwrap();
            let committed = std::fs::read_to_string(folder.join(&file)).unwrap_or_default();
            assert!(committed == page, "docs/reference/{file} is stale: cargo run -p invivo-api");
        }
    }
}
