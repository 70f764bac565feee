//! Every system call that has no safe wrapper elsewhere, by theme. The only module of the crate with `unsafe` in it.

pub mod activation;
pub mod block;
pub mod bpf;
pub mod credentials;
pub mod dm;
pub mod genl;
pub mod link;
pub mod localtime;
pub mod memory;
pub mod packet;
pub mod power;
pub mod process;
pub mod scheduling;
pub mod seccomp;
pub mod sockopt;
pub mod time;
pub mod uevent;
pub mod watchdog;
