//! The program as its users meet it: real processes, over real HTTP.

#[path = "../common/mod.rs"]
mod common; // the program and its callers
mod killed; // between an answer and its record
mod projections; // events, and read models of other programs
mod runs; // runs of other programs
mod serving; // a server's life
mod settings; // what can be set, and where
mod tokens; // who may do what
mod vault; // what secrets are kept under
mod walk; // the README's, and the demonstration
