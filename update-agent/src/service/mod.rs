//! Whole updates in memory: a published repository, a web server that behaves or not, the agent, the disk, and what would boot.

mod machine;
mod server;
mod shop;
mod tests;
