//! What the store does beyond the contract, on an emulator in this process; what emulators do not do,
//! an HTTP client makes up.

mod door2;
mod emulator;
mod leaks;
mod meddler;
mod outages;
mod payloads;
mod requests;
mod shop;
mod table;
