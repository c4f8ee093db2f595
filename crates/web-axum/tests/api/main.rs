//! The HTTP APIs of flare and choreograph and the operations router, as their callers see them.

mod documents;
mod inspection;
mod once;
mod openapi;
mod operations;
mod pulling;
mod resources;
mod runs;
mod scopes;
mod service;
mod subscriptions;
mod support;
#[path = "../layer/switched.rs"]
mod switched;
