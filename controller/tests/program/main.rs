//! The program as its users meet it, run in this process.

#[cfg(test)]
mod cli;
#[cfg(test)]
mod daemon;
#[cfg(test)]
#[path = "../../../tests/formats/files.rs"]
mod files;
#[cfg(test)]
mod operations;
#[cfg(test)]
mod support;
