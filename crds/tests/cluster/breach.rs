//! Breaks every constraint of a schema, one at a time, in objects that keep them all.

use serde_json::{Value, json};

/// An object that breaks one constraint.
pub struct Breach {
    /// Which: the field as the schema has it, and the constraint.
    pub constraint: String,
    /// The field as the API server names it.
    pub field: String,
    /// What the refusal must say.
    pub says: String,
    /// The whole object.
    pub object: Value,
}

/// A place in one of the samples.
#[derive(Clone)]
struct Place<'a> {
    sample: &'a Value,
    /// As `/spec/stages/0`.
    pointer: String,
    /// As `spec.stages[0]`.
    field: String,
}

impl Place<'_> {
    fn value(&self) -> &Value {
        self.sample.pointer(&self.pointer).unwrap()
    }

    fn key(&self, key: &str) -> Self {
        let dot = if self.field.is_empty() { "" } else { "." };
        Self {
            sample: self.sample,
            pointer: format!("{}/{}", self.pointer, key.replace('~', "~0").replace('/', "~1")),
            field: format!("{}{dot}{key}", self.field),
        }
    }

    fn index(&self, index: usize) -> Self {
        Self {
            sample: self.sample,
            pointer: format!("{}/{index}", self.pointer),
            field: format!("{}[{index}]", self.field),
        }
    }

    /// The sample with something else at this place.
    fn with(&self, value: Value) -> Value {
        let mut object = self.sample.clone();
        *object.pointer_mut(&self.pointer).unwrap() = value;
        object
    }
}

/// One breach for each constraint of `schema`, which is a whole kind's.
///
/// # Panics
///
/// If a field has no value in any sample, or a constraint is none that this knows how to break.
pub fn breaches(schema: &Value, samples: &[Value]) -> Vec<Breach> {
    let whole = |sample| Place { sample, pointer: String::new(), field: String::new() };
    let mut found = Vec::new();
    walk("", schema, &samples.iter().map(whole).collect::<Vec<_>>(), &mut found);
    found
}

fn walk(name: &str, schema: &Value, places: &[Place<'_>], found: &mut Vec<Breach>) {
    let place = places.first().unwrap_or_else(|| panic!("no sample has a value in {name}"));
    break_each(name, schema, place, found);
    for (key, property) in schema["properties"].as_object().into_iter().flatten() {
        let inside: Vec<_> =
            places.iter().filter(|place| !place.value()[key].is_null()).map(|place| place.key(key)).collect();
        walk(&format!("{name}.{key}"), property, &inside, found);
    }
    if let Some(items) = schema.get("items") {
        let inside: Vec<_> = places
            .iter()
            .flat_map(|place| (0..place.value().as_array().unwrap().len()).map(|index| place.index(index)))
            .collect();
        walk(&format!("{name}[]"), items, &inside, found);
    }
    if let Some(values) = schema.get("additionalProperties") {
        let inside: Vec<_> = places
            .iter()
            .flat_map(|place| place.value().as_object().unwrap().keys().map(|key| place.key(key)))
            .collect();
        walk(&format!("{name}{{}}"), values, &inside, found);
    }
}

/// One breach for each constraint of `schema` itself; what it has inside is walked.
fn break_each(name: &str, schema: &Value, place: &Place<'_>, found: &mut Vec<Breach>) {
    let mut breach = |constraint: &str, field: &Place<'_>, says: String, object: Value| {
        found.push(Breach {
            constraint: format!("{name}: {constraint}"),
            field: field.field.clone(),
            says,
            object,
        });
    };
    for (keyword, value) in schema.as_object().unwrap() {
        match keyword.as_str() {
            // Words, what is put where nothing is said, and what is walked; what permits; what goes with the
            // type of the list; and rules, for each of which `tests/rules` has a case.
            "title"
            | "description"
            | "default"
            | "properties"
            | "items"
            | "additionalProperties"
            | "nullable"
            | "x-kubernetes-list-map-keys"
            | "x-kubernetes-validations" => {}
            // A whole object that is none has no kind either.
            "type" if name.is_empty() => assert_eq!(value, "object"),
            // Words that API servers do not know: what they mean must stand there in numbers.
            "format" if value == "int32" => {
                assert!(within(schema, f64::from(i32::MIN), f64::from(i32::MAX)), "{name}");
            }
            "format" if value == "uint32" => assert!(within(schema, 0.0, f64::from(u32::MAX)), "{name}"),
            "x-kubernetes-list-type" => {
                assert_eq!(value, "map", "{name}");
                let element = &place.value()[0];
                let twice = place.with(json!([element, element]));
                breach("list type map", &place.index(1), "Duplicate value".to_owned(), twice);
            }
            "required" => {
                for field in value.as_array().unwrap() {
                    let field = field.as_str().unwrap();
                    let mut parent = place.value().clone();
                    parent.as_object_mut().unwrap().remove(field);
                    breach(
                        &format!("required {field}"),
                        &place.key(field),
                        "Required value".to_owned(),
                        place.with(parent),
                    );
                }
            }
            _ => {
                let (says, wrong) = wrong(name, schema, keyword, place.value());
                breach(&format!("{keyword} {value}"), place, says, place.with(wrong));
            }
        }
    }
}

/// What breaks the constraint `keyword` in the place of `good`: what the refusal must say, and the value.
fn wrong(name: &str, schema: &Value, keyword: &str, good: &Value) -> (String, Value) {
    let value = &schema[keyword];
    let length = |key: &str| schema[key].as_f64().map(|length| format!("{length}").parse::<usize>().unwrap());
    match keyword {
        "type" => {
            let wrong = match value.as_str().unwrap() {
                "string" => json!(7),
                "integer" | "boolean" | "object" | "array" => json!("other"),
                other => panic!("{name}: nobody knows what is not of type {other}"),
            };
            // Of a date it is told that it is none.
            let date = schema["format"].as_str().filter(|_| value == "string");
            (format!("must be of type {}", date.or(value.as_str()).unwrap()), wrong)
        }
        "x-kubernetes-int-or-string" => ("must be of type integer,string".to_owned(), json!(true)),
        "enum" => {
            let known: Vec<_> = value.as_array().unwrap().iter().map(ToString::to_string).collect();
            let says = format!("Unsupported value: \"other\": supported values: {}", known.join(", "));
            (says, json!("other"))
        }
        "pattern" => {
            let wrong = "~".repeat(length("minLength").unwrap_or(1).max(1));
            (format!("should match '{}'", value.as_str().unwrap()), json!(wrong))
        }
        "minLength" => {
            let text = good.as_str().unwrap();
            let wrong: String = text.chars().take(length("minLength").unwrap() - 1).collect();
            (format!("should be at least {value} chars long"), json!(wrong))
        }
        "maxLength" => {
            let text = good.as_str().unwrap();
            let last = text.chars().last().unwrap();
            let longest = length("maxLength").unwrap();
            let wrong: String = text.chars().chain(std::iter::repeat(last)).take(longest + 1).collect();
            (format!("Too long: may not be more than {value} bytes"), json!(wrong))
        }
        "minItems" => (format!("should have at least {value} items"), json!([])),
        "maxItems" => {
            let most = length("maxItems").unwrap();
            let key = schema["x-kubernetes-list-map-keys"][0].as_str();
            let wrong: Vec<Value> = (0..=most).map(|number| numbered(&good[0], key, number)).collect();
            (format!("must have at most {value} items"), json!(wrong))
        }
        "maxProperties" => {
            let most = length("maxProperties").unwrap();
            let element = good.as_object().unwrap().values().next().unwrap();
            let wrong = (0..=most).map(|number| (format!("k{number}"), element.clone())).collect();
            (format!("must have at most {value} items"), Value::Object(wrong))
        }
        "minimum" => {
            let least = format!("{}", value.as_f64().unwrap()).parse::<i64>().unwrap();
            (format!("should be greater than or equal to {least}"), json!(least - 1))
        }
        "maximum" => {
            let most = format!("{}", value.as_f64().unwrap()).parse::<i64>().unwrap();
            (format!("should be less than or equal to {most}"), json!(most + 1))
        }
        "format" => match value.as_str().unwrap() {
            "date-time" => ("must be of type date-time".to_owned(), json!("yesterday")),
            "date" => ("must be of type date".to_owned(), json!("2026-02-30")),
            // API servers count with 64 bits and a sign; what is longer is no integer to them.
            "int64" | "uint64" => ("must be of type integer".to_owned(), json!(1_u64 << 63)),
            other => panic!("{name}: nobody knows what is not in format {other}"),
        },
        other => panic!("{name}: nobody knows how to break {other}"),
    }
}

/// The element of a list again, with a key of its own where the list asks for one.
fn numbered(element: &Value, key: Option<&str>, number: usize) -> Value {
    let mut element = element.clone();
    if let Some(key) = key {
        element[key] = json!(format!("n{number}"));
    }
    element
}

/// Whether the schema bounds a number so on both sides.
fn within(schema: &Value, least: f64, most: f64) -> bool {
    let bound = |key: &str| schema[key].as_f64();
    bound("minimum").is_some_and(|minimum| minimum >= least)
        && bound("maximum").is_some_and(|maximum| maximum <= most)
}
