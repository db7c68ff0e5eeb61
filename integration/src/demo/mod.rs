//! The demo: told scene by scene, on real parts, with a verdict at the end.

pub mod single;
