//! What happens to a node in its life, on the real daemon with real disks, a real engine and a real S3 server. Needs
//! root.
//!
//! * [`restart`]: the agent dies or stops, and the engine does not notice.
//! * [`crash`]: the engine dies, and resumes in place.
//! * [`engine`]: an operator stops and starts the engine.
//! * [`full`]: the volume fills up.
//! * [`refound`]: disks are lost one after another, and an old one comes back.
//! * [`refuse`]: a node that may not restore by itself waits for a person.
//! * [`repository`]: what is in object storage does not fit this node.
//!
//! Each test ends with [`stage::Stage::audit`] or says why it has nothing to audit.

mod bucket;
mod crash;
mod engine;
mod full;
mod processes;
mod refound;
mod refuse;
mod repository;
mod restart;
mod stage;
