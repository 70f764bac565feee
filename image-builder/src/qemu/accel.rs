//! KVM or software emulation. That `/dev/kvm` exists and opens says little: where virtualisation is nested or
//! filtered it may run no stock kernel. So a kernel is started, and believed only when it speaks.

use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::Host;

/// What runs the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accelerator {
    /// The processor itself.
    Kvm,
    /// QEMU's translator, one thread per virtual processor.
    Emulation,
}

impl Accelerator {
    /// Argument of `-accel`.
    #[must_use]
    pub fn argument(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Emulation => "tcg,thread=multi",
        }
    }
}

/// A kernel's first line comes after some 0.3 s under KVM.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether KVM boots this kernel here. `directory` takes a temporary file.
///
/// # Errors
/// When the temporary file cannot be written.
pub fn probe(host: &Host, kernel: &[u8], directory: &Path) -> io::Result<Accelerator> {
    if fs::File::options().read(true).write(true).open("/dev/kvm").is_err() {
        return Ok(Accelerator::Emulation);
    }
    let file = directory.join("kvm-probe-kernel");
    fs::write(&file, kernel)?;
    let works = speaks_under_kvm(host, &file);
    fs::remove_file(&file)?;
    Ok(if works { Accelerator::Kvm } else { Accelerator::Emulation })
}

fn speaks_under_kvm(host: &Host, kernel: &Path) -> bool {
    let child = Command::new(&host.qemu)
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-accel", "kvm", "-cpu", "max", "-m", "256", "-no-reboot"])
        .args(["-serial", "stdio", "-append", "console=ttyS0 panic=-1", "-kernel"])
        .arg(kernel)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut child) = child else { return false };
    let spoke = heard_of_linux(&mut child);
    // It may have ended by itself; either way it must be gone and waited for.
    let _ = child.kill();
    let _ = child.wait();
    spoke
}

fn heard_of_linux(child: &mut Child) -> bool {
    let Some(mut stdout) = child.stdout.take() else { return false };
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut heard = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(len @ 1..) = stdout.read(&mut buffer) {
            heard.extend_from_slice(buffer.get(..len).unwrap_or_default());
            if heard.windows(13).any(|window| window == b"Linux version") {
                let _ = sender.send(());
                return;
            }
        }
    });
    receiver.recv_timeout(PATIENCE).is_ok()
}
