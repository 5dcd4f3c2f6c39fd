//! The planner's tests: single decisions, and a simulated fleet.

mod excused;
mod fleet;
mod simulated;
mod stages;
mod targets;
