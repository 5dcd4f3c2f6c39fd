//! What is wanted of the gates that are asked outside, and what they answered.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use invivo_api::PrometheusGate;
use invivo_rollout::GateVerdict;
use tokio::sync::Notify;

use super::job::Run;

/// One thing to ask outside, with everything that the answer depends on.
#[derive(Debug, Clone, PartialEq)]
pub enum Question {
    /// Does this query return nothing?
    Prometheus(Box<PrometheusGate>),
    /// Does this Job succeed?
    Job(Box<Run>),
}

/// A question and what is known of its answer.
struct Asked {
    question: Question,
    verdict: GateVerdict,
}

/// What decisions want to know, and what the keeper found out.
#[derive(Default)]
pub struct GateSights {
    asked: Mutex<BTreeMap<String, Vec<Asked>>>,
    bell: Notify,
}

impl GateSights {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Vec<Asked>>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A policy's rollout needs to know this now, and nothing else any more. What was answered to
    /// the same question before still holds.
    pub fn want(&self, policy: &str, wanted: Vec<Question>) {
        let mut questions: Vec<Question> = Vec::with_capacity(wanted.len());
        for question in wanted {
            if !questions.contains(&question) {
                questions.push(question);
            }
        }
        let mut asked = self.lock();
        let mut before = asked.remove(policy).unwrap_or_default();
        let same =
            before.len() == questions.len() && before.iter().zip(&questions).all(|(a, q)| a.question == *q);
        let now: Vec<Asked> = questions
            .into_iter()
            .map(|question| match before.iter().position(|asked| asked.question == question) {
                Some(at) => before.swap_remove(at),
                None => Asked { question, verdict: not_asked() },
            })
            .collect();
        if !now.is_empty() {
            asked.insert(policy.to_owned(), now);
        }
        drop(asked);
        if !same {
            self.bell.notify_one();
        }
    }

    /// How a question is answered.
    pub fn verdict(&self, policy: &str, question: &Question) -> GateVerdict {
        let asked = self.lock();
        let found =
            asked.get(policy).and_then(|asked| asked.iter().find(|asked| asked.question == *question));
        found.map_or_else(not_asked, |asked| asked.verdict.clone())
    }

    /// Something is known; whether that is news to anybody.
    pub(crate) fn answer(&self, policy: &str, question: &Question, verdict: GateVerdict) -> bool {
        let mut asked = self.lock();
        let found = asked
            .get_mut(policy)
            .and_then(|asked| asked.iter_mut().find(|asked| asked.question == *question));
        let Some(asked) = found.filter(|asked| asked.verdict != verdict) else { return false };
        asked.verdict = verdict;
        true
    }

    /// Everything that is wanted, by policy.
    pub(super) fn wanted(&self) -> Vec<(String, Question)> {
        let asked = self.lock();
        asked
            .iter()
            .flat_map(|(policy, asked)| asked.iter().map(|asked| (policy.clone(), asked.question.clone())))
            .collect()
    }

    /// Forgets it all: whoever decides now knows nothing of what this replica asked.
    pub(super) fn forget(&self) {
        self.lock().clear();
    }

    /// Returns once something else is wanted.
    pub(super) async fn changed(&self) {
        self.bell.notified().await;
    }
}

fn not_asked() -> GateVerdict {
    GateVerdict::Unknown { message: "not asked yet".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(query: &str) -> Question {
        let gate = serde_json::json!({"address": "http://p", "query": query, "for": "5m"});
        Question::Prometheus(serde_json::from_value(gate).unwrap())
    }

    #[test]
    fn an_answer_is_kept_while_its_question_is_wanted_and_answers_no_other() {
        let sights = GateSights::default();
        sights.want("workers", vec![query("a"), query("b")]);
        assert!(sights.answer("workers", &query("a"), GateVerdict::Passed));
        assert!(!sights.answer("workers", &query("a"), GateVerdict::Passed), "it is no news");
        sights.want("workers", vec![query("c"), query("a"), query("a")]);
        assert_eq!(sights.wanted().len(), 2, "what is asked twice is asked once");
        assert_eq!(sights.verdict("workers", &query("a")), GateVerdict::Passed);
        assert_eq!(sights.verdict("workers", &query("c")), not_asked());
        assert_eq!(sights.verdict("others", &query("a")), not_asked());
        sights.want("workers", Vec::new());
        assert!(sights.wanted().is_empty());
        assert!(!sights.answer("workers", &query("a"), GateVerdict::Passed), "nobody wants it");
        sights.want("workers", vec![query("a")]);
        assert_eq!(sights.verdict("workers", &query("a")), not_asked());
    }
}
