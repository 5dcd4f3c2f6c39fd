//! What there is to say of something that nobody has looked at yet.

use invivo_terms::words;

words! {
    /// Why there is no other reason. `docs/reasons.md` has each of them.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Unseen {
        /// The operator has made no NodePatch for the node.
        NoPolicy,
        /// The operator has not looked at the object.
        NotObserved,
    }
}
