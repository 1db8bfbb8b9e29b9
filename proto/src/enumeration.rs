//! Enums of the contract as Rust has them: without the value "not set", and with a conversion that can fail.

/// A checked enum beside its generated one.
macro_rules! enumeration {
    ($(#[doc = $doc:literal])+ $name:ident, $wire:ident { $($(#[doc = $value_doc:literal])+ $value:ident = $wire_value:ident,)+ }) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[doc = $value_doc])+ $value,)+
        }

        impl $name {
            /// All values.
            pub const ALL: &'static [Self] = &[$(Self::$value,)+];

            /// The value with this number; absent for "not set" and for numbers that this version does not know.
            #[must_use]
            pub fn from_number(number: i32) -> Option<Self> {
                match $crate::wire::$wire::try_from(number) {
                    $(Ok($crate::wire::$wire::$wire_value) => Some(Self::$value),)+
                    _ => None,
                }
            }

            /// The number as it travels.
            #[must_use]
            pub const fn number(self) -> i32 {
                match self {
                    $(Self::$value => $crate::wire::$wire::$wire_value as i32,)+
                }
            }

            /// The name of the value in the proto file.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$value => $crate::wire::$wire::$wire_value.as_str_name(),)+
                }
            }

            /// The value with this name in the proto file.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| value.name() == name)
            }
        }
    };
}

pub(crate) use enumeration;

#[cfg(test)]
mod tests {
    use crate::image::DiskFormat;

    #[test]
    fn numbers_and_names_lead_back_to_the_value() {
        for value in DiskFormat::ALL {
            assert_eq!(DiskFormat::from_number(value.number()), Some(*value));
            assert_eq!(DiskFormat::from_name(value.name()), Some(*value));
        }
        for number in [0, -1, 999, i32::MIN, i32::MAX] {
            assert_eq!(DiskFormat::from_number(number), None);
        }
    }
}
