//! Enums of words that people read and search for.

/// An enum with the list of all its variants (`ALL`) and their names (`as_str`), so that neither can
/// lack one.
#[macro_export]
macro_rules! words {
    ($(#[$meta:meta])* pub enum $name:ident {
        $($(#[$doc:meta])* $word:ident,)+
    }) => {
        $(#[$meta])*
        pub enum $name {
            $($(#[$doc])* $word,)+
        }

        impl $name {
            /// Every one that there is.
            pub const ALL: &[Self] = &[$(Self::$word,)+];

            /// The name as it stands in statuses, Events and metrics.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$word => stringify!($word),)+
                }
            }
        }
    };
}
