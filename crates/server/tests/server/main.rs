//! The program as its users meet it: real processes, over real HTTP.

#[path = "../common/mod.rs"]
mod common; // the program and its callers
mod serving; // a server's life
mod settings; // what can be set, and where
mod tokens; // who may do what
mod walk; // the README's, and the demonstration
