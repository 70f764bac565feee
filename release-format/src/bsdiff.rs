//! The payload of BSDIFF: which old bytes to add differences to, the differences, and bytes that are new. Code that moved differs from what
//! it was by addresses alone, so the differences are mostly zeros.
//!
//! | bytes | is |
//! |---|---|
//! | varint | bytes of the control stream, uncompressed, at most 2 MiB |
//! | varint | bytes of its zstd frame |
//! | varint | bytes of the frame of the differences |
//! | | the three frames: control, differences, new bytes; a stream of 0 bytes has none |
//!
//! Control is triples: varint, so many bytes are old ones plus differences; varint, so many are new; signed, so many bytes further, from the
//! end of the old bytes used, the next ones begin.

use crate::frames::{Misfit, unzstd};
use crate::limits::MAX_CONTROL;
use crate::reader::{Reader, put_signed, put_varint};

const WHAT: &str = "patch";

/// One step of the control stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Old bytes with differences.
    pub add: u64,
    /// New bytes.
    pub insert: u64,
    /// From the end of these old bytes to the next ones.
    pub seek: i64,
}

/// The streams of a difference.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// The steps.
    pub steps: Vec<Step>,
    /// New minus old, for each byte of all `add`s.
    pub differences: Vec<u8>,
    /// The bytes of all `insert`s.
    pub new: Vec<u8>,
}

impl Difference {
    /// The payload, with this compressor; none when it is over the format's limits or cannot be compressed.
    pub fn encode(&self, mut compress: impl FnMut(&[u8]) -> Option<Vec<u8>>) -> Option<Vec<u8>> {
        let mut control = Vec::new();
        for step in &self.steps {
            put_varint(&mut control, step.add);
            put_varint(&mut control, step.insert);
            put_signed(&mut control, step.seek);
        }
        if control.len() as u64 > MAX_CONTROL {
            return None;
        }
        let mut frame = |stream: &[u8]| if stream.is_empty() { Some(Vec::new()) } else { compress(stream) };
        let frames = [frame(&control)?, frame(&self.differences)?, frame(&self.new)?];
        let mut payload = Vec::new();
        put_varint(&mut payload, control.len() as u64);
        frames.iter().take(2).for_each(|frame| put_varint(&mut payload, frame.len() as u64));
        frames.iter().for_each(|frame| payload.extend(frame));
        Some(payload)
    }
}

/// Makes `output` of `source` and a payload.
pub fn apply(source: &[u8], payload: &[u8], output: &mut [u8]) -> Result<(), Misfit> {
    let Frames { control_len, control, differences, new } = Frames::read(payload).ok_or(Misfit::Wrong)?;
    let control = stream(control_len, control)?;
    let (adds, inserts) = sums(&control).filter(|(adds, inserts)| adds.checked_add(*inserts) == Some(output.len())).ok_or(Misfit::Wrong)?;
    let (differences, new) = (stream(adds, differences)?, stream(inserts, new)?);
    combine(source, &control, (&differences, &new), output).ok_or(Misfit::Wrong)
}

/// The frames of a payload.
struct Frames<'a> {
    control_len: usize,
    control: &'a [u8],
    differences: &'a [u8],
    new: &'a [u8],
}

impl<'a> Frames<'a> {
    fn read(payload: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(WHAT, payload);
        let control_len = reader.varint().ok().filter(|len| *len <= MAX_CONTROL)?;
        let control = reader.varint().ok()?;
        let differences = reader.varint().ok()?;
        Some(Self {
            control_len: usize::try_from(control_len).ok()?,
            control: reader.bytes(control).ok()?,
            differences: reader.bytes(differences).ok()?,
            new: reader.rest(),
        })
    }
}

/// How many bytes all steps add differences to, and how many are new.
fn sums(control: &[u8]) -> Option<(usize, usize)> {
    let (mut adds, mut inserts) = (0_u64, 0_u64);
    let mut steps = Reader::new(WHAT, control);
    while steps.end().is_err() {
        adds = adds.checked_add(steps.varint().ok()?)?;
        inserts = inserts.checked_add(steps.varint().ok()?)?;
        steps.signed().ok()?;
    }
    Some((usize::try_from(adds).ok()?, usize::try_from(inserts).ok()?))
}

/// Takes all steps; `output` is as long as what they make.
fn combine(source: &[u8], control: &[u8], (mut differences, mut new): (&[u8], &[u8]), output: &mut [u8]) -> Option<()> {
    let (mut rest, mut at) = (output, 0_u64);
    let mut steps = Reader::new(WHAT, control);
    while steps.end().is_err() {
        let (add, insert) = (usize::try_from(steps.varint().ok()?).ok()?, usize::try_from(steps.varint().ok()?).ok()?);
        let (difference, later) = differences.split_at_checked(add)?;
        let start = usize::try_from(at).ok()?;
        let old = source.get(start..start.checked_add(add)?)?;
        let (to, after) = rest.split_at_mut_checked(add)?;
        for ((to, old), difference) in to.iter_mut().zip(old).zip(difference) {
            *to = old.wrapping_add(*difference);
        }
        differences = later;
        let (bytes, later) = new.split_at_checked(insert)?;
        let (to, after) = after.split_at_mut_checked(insert)?;
        to.copy_from_slice(bytes);
        (new, rest) = (later, after);
        at = at.checked_add(add as u64)?.checked_add_signed(steps.signed().ok()?)?;
    }
    Some(())
}

fn stream(len: usize, frame: &[u8]) -> Result<Vec<u8>, Misfit> {
    let mut bytes = vec![0; len];
    match (len, frame.is_empty()) {
        (0, true) => {}
        (0, false) => return Err(Misfit::Wrong),
        _ => unzstd(&mut bytes, frame)?,
    }
    Ok(bytes)
}
