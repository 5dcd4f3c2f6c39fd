//! What an answer of Prometheus means.

use std::collections::BTreeMap;
use std::time::Duration;

use invivo_rollout::GateVerdict;
use invivo_terms::HumanDuration;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

use super::plain;

/// How many series a message shows.
const EXAMPLES: usize = 3;
/// How long each of them may be.
const LONGEST_SERIES: usize = 200;
/// How much of an error or a warning is shown.
const LONGEST_ERROR: usize = 300;

/// What came of one question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// The query returns nothing.
    Nothing,
    /// It returns this.
    Something(String),
    /// It was not answered, and why.
    None(String),
}

/// A reply of `/api/v1/query`. Of everything else in it nothing is known.
#[derive(Deserialize)]
struct Reply {
    status: String,
    data: Option<Data>,
    #[serde(default)]
    error: String,
    #[serde(default)]
    warnings: Vec<String>,
}

#[derive(Deserialize)]
struct Data {
    #[serde(rename = "resultType")]
    kind: String,
    result: Value,
}

#[derive(Deserialize)]
struct Series {
    metric: BTreeMap<String, String>,
    #[serde(default)]
    value: Value,
}

/// Reads a reply. Only a whole answer that says so is nothing: one that came with warnings may lack
/// what some store could not give.
pub(super) fn read(status: u16, body: &[u8]) -> Answer {
    let reply: Reply = match serde_json::from_slice(body) {
        Ok(reply) => reply,
        Err(_) if !(200..300).contains(&status) => return Answer::None(format!("it answers {status}")),
        Err(error) => {
            return Answer::None(format!("what it answers is no reply to a query: {error}"));
        }
    };
    if reply.status != "success" || !(200..300).contains(&status) {
        let error = plain(&reply.error, LONGEST_ERROR);
        return Answer::None(format!("it answers {status}: {error}"));
    }
    let Some(data) = reply.data else { return Answer::None("its reply has no data".to_owned()) };
    if !matches!(data.kind.as_str(), "vector" | "matrix") {
        let kind = plain(&data.kind, 32);
        return Answer::None(format!(
            "the query gives a {kind}: write one that gives a vector, empty while all is well"
        ));
    }
    let series: Vec<Series> = match serde_json::from_value(data.result) {
        Ok(series) => series,
        Err(error) => return Answer::None(format!("its result is none: {error}")),
    };
    match (series.as_slice(), reply.warnings.first()) {
        ([], Some(warning)) => {
            let warning = plain(warning, LONGEST_ERROR);
            Answer::None(format!("the query returns nothing, but with a warning: {warning}"))
        }
        ([], None) => Answer::Nothing,
        (series, _) => Answer::Something(show(series)),
    }
}

fn show(series: &[Series]) -> String {
    let one = |series: &Series| {
        let name = series.metric.get("__name__").map_or("", String::as_str);
        let labels: Vec<String> = series
            .metric
            .iter()
            .filter(|(label, _)| *label != "__name__")
            .map(|(label, value)| format!("{label}={value:?}"))
            .collect();
        let value = series.value.get(1).and_then(Value::as_str).unwrap_or_default();
        plain(&format!("{name}{{{}}} {value}", labels.join(", ")), LONGEST_SERIES)
    };
    let shown: Vec<String> = series.iter().take(EXAMPLES).map(one).collect();
    let more = if series.len() > EXAMPLES { " and more" } else { "" };
    format!("the query returns {}{more}", shown.join("; "))
}

/// For how long a query has been seen to return nothing.
#[derive(Debug, Default)]
pub(super) struct Quiet {
    since: Option<Instant>,
}

impl Quiet {
    /// Takes in an answer that came at `now`; `asked` is how long nothing must have been returned.
    pub(super) fn hear(&mut self, answer: Answer, asked: HumanDuration, now: Instant) -> GateVerdict {
        match answer {
            Answer::Nothing => {
                let since = *self.since.get_or_insert(now);
                if now.saturating_duration_since(since) >= asked.get() {
                    GateVerdict::Passed
                } else {
                    // The same words at each answer: what is no news is not written.
                    let message = format!("the query returns nothing; it must for {asked}");
                    GateVerdict::Unknown { message }
                }
            }
            Answer::Something(message) => {
                self.since = None;
                GateVerdict::Failed { message }
            }
            Answer::None(why) => {
                self.since = None;
                GateVerdict::Unknown { message: format!("no answer: {why}") }
            }
        }
    }

    /// How long after `now` the next answer may pass the gate, if it does not yet.
    pub(super) fn passes_in(&self, asked: HumanDuration, now: Instant) -> Option<Duration> {
        let left = asked.get().checked_sub(now.saturating_duration_since(self.since?))?;
        (!left.is_zero()).then_some(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn replied(reply: &Value) -> Answer {
        read(200, reply.to_string().as_bytes())
    }

    fn vector(series: &Value) -> Value {
        json!({"status": "success", "data": {"resultType": "vector", "result": series}})
    }

    fn why(answer: Answer) -> String {
        let Answer::None(why) = answer else { panic!("{answer:?}") };
        why
    }

    #[test]
    fn an_empty_vector_is_nothing_and_any_other_something() {
        assert_eq!(replied(&vector(&json!([]))), Answer::Nothing);
        let series =
            json!([{"metric": {"__name__": "up", "job": "x\u{7}"}, "value": [1_764_000_000.5, "0"]}]);
        assert_eq!(
            replied(&vector(&series)),
            Answer::Something(r#"the query returns up{job="x\u{7}"} 0"#.to_owned())
        );
    }

    #[test]
    fn a_message_shows_a_few_series_and_stays_short() {
        let series: Vec<Value> =
            (0..500).map(|n| json!({"metric": {"n": format!("{n}{}", "x".repeat(999))}})).collect();
        let Answer::Something(message) = replied(&vector(&json!(series))) else { panic!("nothing") };
        assert!(message.ends_with("and more") && message.len() < 700, "{message}");
    }

    #[test]
    fn nonsense_is_no_answer() {
        for body in ["", "<html>", "{}", "null", "[]", r#"{"status": "success"}"#, "\u{0}\u{ff}"] {
            assert!(matches!(read(200, body.as_bytes()), Answer::None(_)), "{body:?}");
        }
        assert!(matches!(read(200, &[0xff, 0xfe]), Answer::None(_)));
        // As deep as the server likes.
        assert!(matches!(read(200, "[".repeat(100_000).as_bytes()), Answer::None(_)));
        let odd = json!({"status": "success", "data": {"resultType": "vector", "result": "nothing"}});
        assert!(matches!(replied(&odd), Answer::None(_)));
        let odd = json!({"status": "success", "data": {"resultType": "vector", "result": [[]]}});
        assert!(matches!(replied(&odd), Answer::None(_)));
    }

    #[test]
    fn a_scalar_is_never_nothing() {
        let scalar = json!({"status": "success", "data": {"resultType": "scalar", "result": [1, "0"]}});
        assert!(why(replied(&scalar)).contains("gives a scalar"));
    }

    #[test]
    fn an_error_is_told_and_so_is_a_server_that_is_ill() {
        let error = json!({"status": "error", "errorType": "bad_data", "error": "parse error at char 3"});
        assert_eq!(why(read(400, error.to_string().as_bytes())), "it answers 400: parse error at char 3");
        assert_eq!(why(read(503, b"upstream connect error")), "it answers 503");
        // A proxy that is ill may pass on what somebody answered earlier.
        assert!(matches!(read(502, vector(&json!([])).to_string().as_bytes()), Answer::None(_)));
    }

    #[test]
    fn nothing_with_a_warning_is_no_answer() {
        let mut reply = vector(&json!([]));
        reply["warnings"] = json!(["store 10.0.0.7:10901 is not reachable"]);
        assert!(why(replied(&reply)).contains("store 10.0.0.7:10901"));
    }

    #[test]
    fn nothing_must_last_and_a_missing_answer_begins_it_anew() {
        let five = HumanDuration::from_secs(300);
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut quiet = Quiet::default();
        let unknown = |verdict| matches!(verdict, GateVerdict::Unknown { .. });
        assert!(unknown(quiet.hear(Answer::Nothing, five, at(0))));
        assert_eq!(quiet.passes_in(five, at(100)), Some(Duration::from_secs(200)));
        assert!(unknown(quiet.hear(Answer::Nothing, five, at(299))));
        assert_eq!(quiet.hear(Answer::Nothing, five, at(300)), GateVerdict::Passed);
        assert_eq!(quiet.passes_in(five, at(300)), None);
        assert!(unknown(quiet.hear(Answer::None("it is slow".into()), five, at(315))));
        assert!(unknown(quiet.hear(Answer::Nothing, five, at(330))));
        assert!(unknown(quiet.hear(Answer::Nothing, five, at(629))));
        assert_eq!(quiet.hear(Answer::Nothing, five, at(630)), GateVerdict::Passed);
        let failed = quiet.hear(Answer::Something("x".into()), five, at(645));
        assert_eq!(failed, GateVerdict::Failed { message: "x".into() });
        assert!(unknown(quiet.hear(Answer::Nothing, five, at(660))));
        // Without a time to wait the first answer suffices.
        let now = HumanDuration::from_secs(0);
        assert_eq!(Quiet::default().hear(Answer::Nothing, now, at(0)), GateVerdict::Passed);
    }
}
