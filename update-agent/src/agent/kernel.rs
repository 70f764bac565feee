//! The kernel of a release by its kernel patch, where that can be: under the compression two kernels have nearly everything in common.

use release_format::{ContentMap, ObjectKind, ObjectRef, Part, kernel};

use super::{Agent, AgentError};
use crate::download::{LocalSource, RebuiltKernel};
use crate::fetch::{FetchError, Source};

/// A kernel patch that is larger is not taken: it would not fit the agent's memory.
const MAX_PATCH: u64 = 12 << 20;
/// What has to be available besides, so that nobody else is short of memory meanwhile.
const SPARE: u64 = 256 << 20;

/// Why the kernel was not rebuilt.
enum NotRebuilt {
    /// It may be later.
    Later(FetchError),
    /// This host has not the memory for it.
    TooSmall(String),
    /// Operations have to make it, or chunks.
    Plainly(String),
}

impl From<String> for NotRebuilt {
    fn from(why: String) -> Self {
        Self::Plainly(why)
    }
}

impl Agent {
    /// Rebuilds the kernel, if there is the memory for it. Whatever goes wrong, there is the plain way; the log says why.
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
        let mut received = 0;
        let (why, failed) = match self.rebuild_kernel(source, patch, maps, local, &mut received).await {
            Ok(section) => return Ok(RebuiltKernel { section: Some(section), received, failed: false }),
            Err(NotRebuilt::Later(error)) => return Err(error.into()),
            Err(NotRebuilt::TooSmall(why)) => (why, false),
            Err(NotRebuilt::Plainly(why)) => (why, true),
        };
        eprintln!("update-agent: the kernel comes without its kernel patch: {why}");
        Ok(RebuiltKernel { section: None, received, failed })
    }

    async fn rebuild_kernel(
        &self,
        source: &Source,
        patch: &ObjectRef,
        (running, wanted): (&ContentMap, &ContentMap),
        local: &dyn LocalSource,
        received: &mut u64,
    ) -> Result<Vec<u8>, NotRebuilt> {
        let (have, need) = (self.kernels.available() >> 20, (kernel::MEMORY + SPARE) >> 20);
        if have < need {
            return Err(NotRebuilt::TooSmall(format!("that takes {need} MiB of memory, and {have} MiB are available")));
        }
        let old = running.kernel().filter(|_| patch.size <= MAX_PATCH);
        let old = old.ok_or_else(|| "it is too large, or this version has no kernel".to_owned())?;
        let mut section = vec![0; usize::try_from(old.len).unwrap_or(0)];
        local.read(Part::Uki, old.offset, &mut section).map_err(|error| format!("the running version's kernel cannot be read: {error}"))?;
        let bytes = source
            .get(&patch.path(ObjectKind::Kernel), patch.size)
            .await
            .map_err(|error| if error.is_passing() { NotRebuilt::Later(error) } else { NotRebuilt::Plainly(error.to_string()) })?;
        *received = bytes.len() as u64;
        patch.verify(&bytes).map_err(|error| error.to_string())?;
        eprintln!("update-agent: the kernel is rebuilt from that of the running version, which may take minutes");
        let made = self.kernels.rebuild(&section, &bytes).await?;
        wanted.expect_kernel(&made).map_err(|error| error.to_string())?;
        Ok(made)
    }
}
