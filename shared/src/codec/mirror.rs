//! How a domain value and its form on the wire become each other.
//!
//! A wire type is declared field by field and variant by variant, since its order is its format.
//! `mirror!` takes that declaration and writes both conversions, which name every field and
//! variant of both sides: a domain type that changes does not compile until its wire type says
//! what becomes of the bytes. What differs in shape from its domain type is converted by hand.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;

/// The form on the wire of a domain type `D`.
pub(super) trait Mirror<D>: Sized {
    fn of(domain: &D) -> Self;
    fn into_domain(self) -> D;
}

/// What is the same on the wire as in the domain.
pub(super) trait Plain: Copy {}

impl Plain for bool {}
impl Plain for u8 {}
impl Plain for u16 {}
impl Plain for u32 {}
impl Plain for u64 {}
/// The length is part of the format and stands in the wire type.
impl<const LENGTH: usize> Plain for [u64; LENGTH] {}

impl<T: Plain> Mirror<T> for T {
    fn of(domain: &T) -> Self {
        *domain
    }

    fn into_domain(self) -> T {
        self
    }
}

impl<D, W: Mirror<D>> Mirror<Option<D>> for Option<W> {
    fn of(domain: &Option<D>) -> Self {
        domain.as_ref().map(W::of)
    }

    fn into_domain(self) -> Option<D> {
        self.map(W::into_domain)
    }
}

impl<D, W: Mirror<D>> Mirror<Vec<D>> for Vec<W> {
    fn of(domain: &Vec<D>) -> Self {
        domain.iter().map(W::of).collect()
    }

    fn into_domain(self) -> Vec<D> {
        self.into_iter().map(W::into_domain).collect()
    }
}

/// Ascending on the wire, as in the domain.
impl<D: Ord, W: Mirror<D>> Mirror<BTreeSet<D>> for Vec<W> {
    fn of(domain: &BTreeSet<D>) -> Self {
        domain.iter().map(W::of).collect()
    }

    fn into_domain(self) -> BTreeSet<D> {
        self.into_iter().map(W::into_domain).collect()
    }
}

impl<D, E, V: Mirror<D>, W: Mirror<E>> Mirror<(D, E)> for (V, W) {
    fn of((first, second): &(D, E)) -> Self {
        (V::of(first), W::of(second))
    }

    fn into_domain(self) -> (D, E) {
        (self.0.into_domain(), self.1.into_domain())
    }
}

impl<D: Ord, E, V: Mirror<D> + Ord, W: Mirror<E>> Mirror<BTreeMap<D, E>> for BTreeMap<V, W> {
    fn of(domain: &BTreeMap<D, E>) -> Self {
        domain
            .iter()
            .map(|(key, value)| (V::of(key), W::of(value)))
            .collect()
    }

    fn into_domain(self) -> BTreeMap<D, E> {
        self.into_iter()
            .map(|(key, value)| (key.into_domain(), value.into_domain()))
            .collect()
    }
}

/// Sorted on the wire, so that equal maps have equal bytes.
impl<D: Eq + Hash, E, V: Mirror<D> + Ord, W: Mirror<E>> Mirror<HashMap<D, E>> for BTreeMap<V, W> {
    fn of(domain: &HashMap<D, E>) -> Self {
        domain
            .iter()
            .map(|(key, value)| (V::of(key), W::of(value)))
            .collect()
    }

    fn into_domain(self) -> HashMap<D, E> {
        self.into_iter()
            .map(|(key, value)| (key.into_domain(), value.into_domain()))
            .collect()
    }
}

/// Declares a wire type and its [`Mirror`] of a domain type with the same fields or variants:
/// `struct Wire = Domain { field: WireType }` or
/// `enum Wire = Domain { Unit, Tuple(name: WireType), Struct { field: WireType } }`.
macro_rules! mirror {
    ($(#[$doc:meta])* struct $wire:ident = $domain:ty {
        $($field:ident: $type:ty),+ $(,)?
    }) => {
        $(#[$doc])*
        #[derive(serde::Serialize, serde::Deserialize)]
        pub(super) struct $wire {
            $($field: $type),+
        }

        impl $crate::codec::mirror::Mirror<$domain> for $wire {
            fn of(domain: &$domain) -> Self {
                type Domain = $domain;
                let Domain { $($field),+ } = domain;
                Self {
                    $($field: $crate::codec::mirror::Mirror::of($field)),+
                }
            }

            fn into_domain(self) -> $domain {
                type Domain = $domain;
                let Self { $($field),+ } = self;
                Domain {
                    $($field: $crate::codec::mirror::Mirror::into_domain($field)),+
                }
            }
        }
    };
    ($(#[$doc:meta])* enum $wire:ident = $domain:ty {
        $($variant:ident $(($value:ident: $inner:ty))? $({ $($field:ident: $type:ty),+ $(,)? })?),+
        $(,)?
    }) => {
        $(#[$doc])*
        #[derive(serde::Serialize, serde::Deserialize)]
        pub(super) enum $wire {
            $($variant $(($inner))? $({ $($field: $type),+ })?),+
        }

        impl $crate::codec::mirror::Mirror<$domain> for $wire {
            fn of(domain: &$domain) -> Self {
                type Domain = $domain;
                match domain {
                    $(Domain::$variant $(($value))? $({ $($field),+ })? => Self::$variant
                        $(($crate::codec::mirror::Mirror::of($value)))?
                        $({ $($field: $crate::codec::mirror::Mirror::of($field)),+ })?),+
                }
            }

            fn into_domain(self) -> $domain {
                type Domain = $domain;
                match self {
                    $(Self::$variant $(($value))? $({ $($field),+ })? => Domain::$variant
                        $(($crate::codec::mirror::Mirror::into_domain($value)))?
                        $({ $($field: $crate::codec::mirror::Mirror::into_domain($field)),+ })?),+
                }
            }
        }
    };
}
pub(super) use mirror;
