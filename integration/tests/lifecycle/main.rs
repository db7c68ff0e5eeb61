//! What happens to a node in its life, on the real daemon with real disks, a real engine and a real S3 server. Needs
//! root.
//!
//! * [`restart`]: the agent dies or stops, and the engine does not notice.
//! * [`crash`]: the engine dies, and resumes in place.
//!
//! Each test ends with [`stage::Stage::audit`] or says why it has nothing to audit.

mod crash;
mod processes;
mod restart;
mod stage;
