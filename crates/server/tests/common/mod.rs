//! The program as a process, and calls of it.
#![allow(dead_code, reason = "each test target uses a part of it")]

pub(crate) mod client; // calls of a server
pub(crate) mod process; // the program
