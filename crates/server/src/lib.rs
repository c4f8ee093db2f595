//! The evenkeel server: documents are published over HTTP, and subscribers told when theirs
//! changed, on any store. Runs, events and projections are served beside them.
//!
//! # Guarantees
//! - Without a token it listens on loopback only, where it answers to loopback names only.
//! - A token is known by its hash: who reads the settings cannot call the server.
//! - A setting that does not exist is refused, wherever it stands.
//! - On SIGINT and SIGTERM it takes no more connections, answers the requests it has, ends the
//!   deliveries that are under way, and is gone within its grace.
//!
//! # Example
//! ```sh
//! evenkeel                                          # serves, on sqlite://evenkeel.db
//! evenkeel serve --store pg://host/db --listen 0.0.0.0:8080
//! evenkeel doctor                                   # is everything as it should be?
//! evenkeel demo                                     # all of it in a few seconds
//! ```

mod access; // who may do what
mod command; // what can be asked of the program
mod demo; // all of it in a few seconds
mod doctor; // is everything as it should be
mod events; // events, printed
mod http; // from request to answer
mod keys; // tokens, secrets and vault keys
mod listener; // connections
mod logs; // what is said of it
mod metrics; // what is measured
mod period; // lengths of time in settings
mod progress; // how far something has come, on a terminal
mod projections; // projections, seen and steered
mod serve; // a server's life
mod settings; // what can be set, and where
#[cfg(feature = "otlp")]
mod spans; // what a collector is sent
mod stop; // when to end

pub use command::main;
