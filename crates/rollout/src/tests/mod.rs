//! The planner's tests: single decisions, a simulated fleet, and small fleets explored.

mod brakes;
mod corners;
mod excused;
mod explored;
mod failures;
mod fleet;
mod gates;
mod holds;
mod shares;
mod simulated;
mod stages;
mod targets;
