//! The planner's tests: single decisions, a simulated fleet, and small fleets explored.

mod brakes;
mod corners;
mod excused;
mod explored;
mod failures;
mod fleet;
mod gates;
mod holds;
mod newcomers;
mod returning;
mod shares;
mod simulated;
mod slots;
mod stages;
mod targets;
mod unaimed;
mod watched;
