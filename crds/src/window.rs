//! When nodes may start: windows and blackouts.

use invivo_terms::HumanDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

fn utc() -> String {
    "UTC".to_owned()
}

/// A time of certain days in which nodes may start. What has started goes on after its end.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Window {
    /// The days on which it opens.
    #[schemars(length(min = 1, max = 7))]
    #[x_kube(validation = Rule::new("self.all(a, self.exists_one(b, b == a))").message("name each day once"))]
    pub days: Vec<Day>,
    /// When it opens, as `02:00`. A time that the clocks leave out is the one after they went
    /// forward; of a time that they show twice it is the first.
    #[schemars(regex(pattern = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"))]
    pub start: String,
    /// How long it is open, in real time; from a minute to seven days.
    #[x_kube(validation = Rule::new("self.matches('^([1-6]d([0-9]+h)?([0-9]+m)?|7d|([1-9]|[1-9][0-9]|1[0-5][0-9]|16[0-8])h([0-5]?[0-9]m)?|[1-9][0-9]{0,3}m)$')")
        .message("duration must be from 1m to 7d, in days, hours and minutes"))]
    pub duration: HumanDuration,
    /// Whose days and clock, as `Europe/Berlin`. A name that is not known stops new starts
    /// (`InvalidTimeZone`).
    #[serde(default = "utc")]
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*$')")
        .message("timeZone must be a name such as Europe/Berlin"))]
    pub time_zone: String,
}

/// A day of the week.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "days")]
pub enum Day {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

/// A time in which nothing starts, whatever the windows say.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.from < self.until").message("a blackout's from must be before its until"))]
pub struct Blackout {
    /// Its beginning.
    pub from: Time,
    /// Its end.
    pub until: Time,
    /// Why, for people.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub reason: String,
}
