//! The mounted disk under watch. See [`probe`].

pub mod probe;
