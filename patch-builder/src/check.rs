//! The harmless check program of a recipe: compiled here, run on the node.

use std::path::Path;

use crate::command::{self, clean};
use crate::lock;
use crate::recipe::Recipe;

/// A check program cannot be compiled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The recipe cannot be used.
    #[error(transparent)]
    Recipe(#[from] lock::Error),
    /// The recipe has none.
    #[error("the recipe has no check program")]
    None,
    /// The compiler refuses it.
    #[error(transparent)]
    Command(#[from] command::Error),
}

/// The check's exit code on a kernel without the hole.
pub const CLOSED: i32 = 0;
/// The check's exit code on a kernel with the hole. Any other code: it could not tell.
pub const OPEN: i32 = 10;

/// Compiles the check program of the recipe in the folder `recipe` to `out`, one static file that
/// runs on any node.
///
/// # Errors
///
/// The recipe cannot be used, or the compiler refuses the program.
pub fn compile(recipe: &Path, out: &Path) -> Result<(), Error> {
    let source = Recipe::read(recipe)?.check_source(recipe).ok_or(Error::None)?;
    let mut gcc = clean("gcc");
    gcc.args(["-static", "-O2", "-Wall", "-Wextra", "-Werror", "-o"]).arg(out).arg(source);
    command::run(&mut gcc)?;
    Ok(())
}
