//! How a semaphore is stored: JSON with a format number. What does not read back exactly as ours is refused, so that it is never overwritten.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::{Holder, MAX_SLOTS, Semaphore};
use crate::keys::check_id;

const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    format: u32,
    max: u32,
    generation: u64,
    holders: Vec<Holder>,
}

#[derive(Deserialize)]
struct AnyFormat {
    format: Option<u32>,
}

impl Semaphore {
    /// As it is stored.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let stored = Stored { format: FORMAT, max: self.max, generation: self.generation, holders: self.holders.clone() };
        // Numbers and texts only: there is nothing that could fail.
        serde_json::to_vec(&stored).unwrap_or_default()
    }

    /// Reads a stored value.
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
        let mut seen = HashSet::new();
        for holder in &stored.holders {
            check_id(&holder.id).map_err(|error| error.to_string())?;
            if !seen.insert(holder.id.as_str()) {
                return Err(format!("it names holder {} twice", holder.id));
            }
            if holder.fence == 0 || holder.fence > stored.generation {
                return Err(format!("the fence of holder {} is {}, beyond generation {}", holder.id, holder.fence, stored.generation));
            }
        }
        Ok(Self { max: stored.max, generation: stored.generation, holders: stored.holders })
    }
}
