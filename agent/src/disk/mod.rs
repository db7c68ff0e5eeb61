//! The disk: made this node's ([`mod@format`]), and under watch while it is mounted ([`probe`]).

pub mod format;
pub mod probe;
