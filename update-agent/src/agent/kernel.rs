//! The kernel of a release by its kernel patch, where that can be: under the compression two kernels have nearly everything in common.

use release_format::{ContentMap, ObjectKind, ObjectRef, Part, kernel};

use super::{Agent, AgentError};
use crate::download::{LocalSource, RebuiltKernel};
use crate::fetch::Source;

/// A kernel patch that is larger is not taken: it would not fit the agent's memory.
const MAX_PATCH: u64 = 12 << 20;
/// What has to be available besides, so that nobody else is short of memory meanwhile.
const SPARE: u64 = 256 << 20;

impl Agent {
    /// Rebuilds the kernel, if there is the memory for it. Whatever goes wrong, the plain way is in the patch pack; the log says why.
    ///
    /// # Errors
    /// When the server cannot be reached for now.
    pub(super) async fn rebuilt_kernel(
        &self,
        source: &Source,
        patch: &ObjectRef,
        maps: (&ContentMap, &ContentMap),
        local: &dyn LocalSource,
    ) -> Result<RebuiltKernel, AgentError> {
        let plainly = |why: &str| {
            eprintln!("update-agent: the kernel comes without its kernel patch: {why}");
        };
        let mut rebuilt = RebuiltKernel::default();
        let (have, need) = (self.kernels.available() >> 20, (kernel::MEMORY + SPARE) >> 20);
        if have < need {
            plainly(&format!("that takes {need} MiB of memory, and {have} MiB are available"));
            return Ok(rebuilt);
        }
        let Some(old) = maps.0.kernel().filter(|_| patch.size <= MAX_PATCH) else {
            plainly("it is too large, or this version has no kernel");
            return Ok(rebuilt);
        };
        let mut section = vec![0; usize::try_from(old.len).unwrap_or(0)];
        if let Err(error) = local.read(Part::Uki, old.offset, &mut section) {
            plainly(&format!("the running version's kernel cannot be read: {error}"));
            return Ok(rebuilt);
        }
        let bytes = match source.get(&patch.path(ObjectKind::Kernel), patch.size).await {
            Ok(bytes) => bytes,
            Err(error) if error.is_passing() => return Err(error.into()),
            Err(error) => {
                plainly(&error.to_string());
                return Ok(rebuilt);
            }
        };
        rebuilt.received = bytes.len() as u64;
        if let Err(error) = patch.verify(&bytes) {
            plainly(&error.to_string());
            return Ok(rebuilt);
        }
        eprintln!("update-agent: the kernel is rebuilt from that of the running version, which may take minutes");
        match self.kernels.rebuild(&section, &bytes).await {
            Ok(section) => match maps.1.expect_kernel(&section) {
                Ok(()) => rebuilt.section = Some(section),
                Err(error) => plainly(&error.to_string()),
            },
            Err(why) => plainly(&why),
        }
        Ok(rebuilt)
    }
}
