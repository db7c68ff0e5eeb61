//! The demo: told scene by scene, on real parts, with a verdict at the end.
//!
//! * [`narrator`] prints.
//! * [`single`] is the story of one node that loses its only disk.
//! * [`outcome`] judges it.

pub mod narrator;
pub mod outcome;
pub mod single;
