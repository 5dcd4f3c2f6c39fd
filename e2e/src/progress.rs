//! Tells what the lab is doing, and how long it took.

use std::time::Instant;

/// Says that `what` begins; the value returned says how long it took.
pub fn begin(what: impl Into<String>) -> Step {
    let what = what.into();
    println!("lab: {what} ...");
    Step { what, start: Instant::now() }
}

/// Something that goes on.
#[derive(Debug)]
pub struct Step {
    what: String,
    start: Instant,
}

impl Step {
    /// Says that it is done.
    pub fn done(self) {
        let seconds = self.start.elapsed().as_secs_f64();
        println!("lab: {} ... {seconds:.1} s", self.what);
    }

    /// Says something on the way.
    pub fn note(&self, text: &str) {
        let seconds = self.start.elapsed().as_secs_f64();
        println!("lab:   {text} ({seconds:.1} s)");
    }
}
