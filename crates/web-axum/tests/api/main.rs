//! The HTTP APIs of flare, choreograph and projections and the operations router, as their callers see them.

mod documents;
mod events;
mod following;
mod inspection;
mod once;
mod openapi;
mod operations;
mod projections;
mod pulling;
mod resources;
mod runs;
mod scopes;
mod service;
mod subscriptions;
mod support;
#[path = "../layer/switched.rs"]
mod switched;
