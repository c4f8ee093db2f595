//! The layer as its callers see it, on the memory store and a clock that moves when told to.

mod bodies;
mod configuration;
mod lifetime;
mod plain_hyper;
mod replays;
mod support;
mod switched;
mod transactions;
mod unavailable;
