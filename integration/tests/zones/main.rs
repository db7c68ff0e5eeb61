//! The three zones of the harness: links that are cut and heal, doors that lead in, a load balancer that follows the
//! primary, and nothing left behind. Needs root.

mod balancer;
mod links;
mod server;
