//! Every system call that has no safe wrapper elsewhere, by theme. The only module of the crate with `unsafe` in it.

<<<<<<< HEAD
pub mod activation;
pub mod credentials;
pub mod localtime;
=======
pub mod block;
pub mod dm;
>>>>>>> 00c6ad2 (Boot from the initramfs into the verified root with its state)
pub mod time;
pub mod uevent;
