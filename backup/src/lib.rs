//! b
mod chunk;
mod key;
mod kind;
pub mod manifest;
mod pack;
mod path;
pub mod repository;
pub mod rules;
pub mod store;
#[cfg(test)]
mod testing;
mod wire;
