//! Whole updates in memory: a published repository, a web server that behaves or not, the agent, the disk, and what would boot.

mod attacks;
mod borrowing;
mod bundles;
mod crossings;
mod cuts;
mod daemon;
mod differences;
mod disks;
mod forge;
mod interruptions;
mod kernels;
mod layouts;
mod life;
mod machine;
mod metadata;
mod on_files;
mod reuse;
mod server;
mod servers;
mod shop;
mod slow;
mod tables;
