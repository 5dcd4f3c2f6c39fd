//! The planner: which node goes where, when, and why not now.
//!
//! Pure: no clock, no IO, no logging; it never fails. [`plan`] takes what was seen ([`World`])
//! and gives what to write ([`Plan`]). Every node is in exactly one of `actions`, `holds`, `done`
//! and `in_flight`.
//!
//! What may surprise, and why:
//!
//! - **A node that was instructed and fell silent keeps its slot.** It may have died of the patch.
//!   It counts neither as failed nor as excused; the stage waits until it answers or leaves the
//!   policy. So a patch that always panics costs no more nodes than the stage had in flight.
//! - **A slot that nobody is seen to fill is free again after its deadline** (`rollout` module), so
//!   that an operator killed between the two writes does not hold the rollout for ever.
//! - **An attempt that says nothing about the patch** (nothing was loaded, threads were in the way)
//!   is not a failure: the node rests, then has another turn after all others, and again, each time
//!   after a longer rest. It is waited for only where its kernel build has shown no success.
//! - **A node that booted before its level had settled** is tried once more, before anybody else has
//!   a turn; if it boots again it has failed.
//! - **A failed node stops every start of its rollout**, also after it has left; the next target
//!   begins anew. What is under way ends, and so does the second half of going down to a lower set.
//! - **Another target waits for what is under way**: until every start of the rollout before has
//!   ended or its deadline is past, nothing starts (`AtMaxParallel`). So two targets in a row move
//!   no more nodes at once than one, whatever an operator's view was.
//! - **While paused**, soaks go on but no stage ends and nothing is instructed.
//! - **A named set lowers** only nodes whose level came after it, and by way of no patch. A level
//!   that was withdrawn meanwhile stays where it is (`AheadOfTarget`).

mod answer;
mod cut;
mod dispatch;
mod gate;
mod memory;
mod pace;
mod plan;
mod policy;
mod rollout;
mod stage;
mod standing;
mod target;
#[cfg(test)]
mod tests;
mod window;
mod world;

pub use memory::*;
pub use plan::plan;
pub use policy::*;
pub use world::*;
