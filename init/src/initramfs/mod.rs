//! The initramfs stage: from the kernel's first process to the verified root with its state mounted.

/// Runs the stage; ends by becoming the root's init.
pub fn main() -> ! {
    crate::kmsg::error("the initramfs stage is not in this build");
    loop {
        std::thread::park();
    }
}
