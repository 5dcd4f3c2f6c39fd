//! The planner's tests: single decisions, and a simulated fleet.

mod brakes;
mod corners;
mod excused;
mod failures;
mod fleet;
mod gates;
mod holds;
mod shares;
mod simulated;
mod stages;
mod targets;
