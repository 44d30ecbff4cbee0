//! Values that are one of some words, each with what it means.

/// Makes an enum of words, as parameters and items have them, and in its schema each word with its documentation: whoever
/// asks what a kind takes is told what each word does.
macro_rules! choices {
    (
        $(#[$meta:meta])*
        pub enum $Name:ident {
            $($(#[doc = $words:literal])+ $Variant:ident = $word:literal,)+
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        pub enum $Name {
            $($(#[doc = $words])+ #[serde(rename = $word)] $Variant,)+
        }

        impl $Name {
            /// Its name in parameters and for people.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$Variant => $word,)+
                }
            }
        }

        impl std::fmt::Display for $Name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        #[cfg(feature = "schema")]
        impl utoipa::PartialSchema for $Name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                $crate::choice::schema(&[$(($word, concat!($($words),+)),)+])
            }
        }

        #[cfg(feature = "schema")]
        impl utoipa::ToSchema for $Name {}
    };
}

pub(crate) use choices;

/// The schema of a text that is one of these words, each with what it means.
#[cfg(feature = "schema")]
pub(crate) fn schema(words: &[(&str, &str)]) -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
    use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Type};
    let one = |(word, meaning): &(&str, &str)| {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .enum_values(Some([*word]))
            .description(Some(meaning.trim()))
            .build()
    };
    words.iter().map(one).fold(OneOfBuilder::new(), OneOfBuilder::item).into()
}
