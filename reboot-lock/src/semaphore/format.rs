//! How a semaphore is stored: JSON with a format number in one key, and each holder as JSON in a key of its own. What does not read back exactly as ours
//! is refused, so that it is never overwritten.

use serde::{Deserialize, Serialize};

use super::{Holder, MAX_SLOTS, Semaphore};
use crate::keys::check_id;

const FORMAT: u32 = 2;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    format: u32,
    max: u32,
    generation: u64,
}

#[derive(Deserialize)]
struct AnyFormat {
    format: Option<u32>,
}

impl Semaphore {
    /// As it is stored, without its holders.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let stored = Stored { format: FORMAT, max: self.max, generation: self.generation };
        // Numbers only: there is nothing that could fail.
        serde_json::to_vec(&stored).unwrap_or_default()
    }

    /// Reads a stored value; its holders are read by [`Semaphore::add`].
    ///
    /// # Errors
    /// Says in a few words why this was not written by this program or a compatible one.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let any: AnyFormat = serde_json::from_slice(bytes).map_err(|error| format!("its value is no JSON object of ours ({error})"))?;
        match any.format {
            Some(FORMAT) => {}
            Some(other) => return Err(format!("its format is {other}, and this program knows {FORMAT}")),
            None => return Err("its value has no format number".to_owned()),
        }
        let stored: Stored = serde_json::from_slice(bytes).map_err(|error| format!("its value cannot be read ({error})"))?;
        if stored.max == 0 || stored.max > MAX_SLOTS {
            return Err(format!("it has {} slots", stored.max));
        }
        Ok(Self { max: stored.max, generation: stored.generation, holders: Vec::new() })
    }

    /// Adds a holder as it was read, in the order of fences.
    ///
    /// # Errors
    /// Says why it cannot be a holder of this semaphore.
    pub fn add(&mut self, holder: Holder) -> Result<(), String> {
        if self.holder(&holder.id).is_some() {
            return Err(format!("holder {} is there twice", holder.id));
        }
        if holder.fence > self.generation {
            return Err(format!("the fence of holder {} is {}, beyond generation {}", holder.id, holder.fence, self.generation));
        }
        let place = self.holders.partition_point(|other| other.fence < holder.fence);
        self.holders.insert(place, holder);
        Ok(())
    }
}

impl Holder {
    /// As it is stored.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        // Numbers and texts only, as above.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads a stored record.
    ///
    /// # Errors
    /// As [`Semaphore::decode`].
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let holder: Self = serde_json::from_slice(bytes).map_err(|error| format!("its value is no holder of ours ({error})"))?;
        check_id(&holder.id).map_err(|error| error.to_string())?;
        if holder.fence == 0 {
            return Err(format!("holder {} has no fence", holder.id));
        }
        Ok(holder)
    }
}
