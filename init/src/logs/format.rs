//! The log store's file format: records in segments, encoded and decoded without any I/O.
//!
//! Specification: `docs/log-format.md`. Relies on nothing but CRC-32. Promises: any bytes can be decoded without a panic, a
//! record is handed out only when its checksum holds, and decoding always moves forward.
#![deny(clippy::indexing_slicing)]

/// What every segment file begins with.
pub const SEGMENT_MAGIC: &[u8; 8] = b"GBLOGSEG";
/// The format version that this code writes, and the newest that it reads.
pub const SEGMENT_VERSION: u32 = 1;
/// Length of the segment header that this version writes.
pub const SEGMENT_HEADER_LEN: usize = 32;
/// Length of a record's header.
pub const RECORD_HEADER_LEN: usize = 12;
/// No payload is longer; a longer length is damage.
pub const MAX_PAYLOAD: usize = 1 << 20;

const RECORD_MAGIC: [u8; 2] = *b"GL";
const KIND_BOOT: u8 = 1;
const KIND_ENTRY: u8 = 2;
const TAG_UNIT: u8 = 1;
const TAG_IDENTIFIER: u8 = 2;
const TAG_MESSAGE: u8 = 3;
const TAG_KERNEL_SEQUENCE: u8 = 4;
const TAG_INVOCATION: u8 = 5;
const TAG_UID: u8 = 6;

/// A kernel boot id.
pub type BootId = [u8; 16];

/// How a message came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A service's standard output or error.
    Stdout,
    /// `/dev/log`.
    Syslog,
    /// The native datagram socket, which PID 1 uses too.
    Native,
    /// The kernel's ring buffer.
    Kernel,
    /// The log daemon itself.
    Daemon,
}

impl Source {
    fn code(self) -> u8 {
        match self {
            Source::Stdout => 1,
            Source::Syslog => 2,
            Source::Native => 3,
            Source::Kernel => 4,
            Source::Daemon => 5,
        }
    }

    fn from_code(code: u8) -> Source {
        match code {
            1 => Source::Stdout,
            2 => Source::Syslog,
            4 => Source::Kernel,
            5 => Source::Daemon,
            _ => Source::Native,
        }
    }

    /// The name that `journalctl -o json` shows as `_TRANSPORT`.
    pub fn transport(self) -> &'static str {
        match self {
            Source::Stdout => "stdout",
            Source::Syslog => "syslog",
            Source::Native => "journal",
            Source::Kernel => "kernel",
            Source::Daemon => "driver",
        }
    }
}

/// One log line. Empty strings stand for "not known".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Microseconds since 1970.
    pub realtime: u64,
    /// Microseconds of the monotonic clock.
    pub monotonic: u64,
    /// The process that wrote it; 0 when not known.
    pub pid: u32,
    /// Its user, where known.
    pub uid: Option<u32>,
    /// Syslog level, 0 (emergency) to 7 (debug).
    pub priority: u8,
    /// How it came in.
    pub source: Source,
    /// The unit, such as `docker.service`.
    pub unit: &'a str,
    /// The program's name for itself.
    pub identifier: &'a str,
    /// The text, which need not be UTF-8.
    pub message: &'a [u8],
    /// The kernel's own sequence number, by which a restarted daemon knows what it has stored.
    pub kernel_sequence: Option<u64>,
    /// The unit's invocation id, in hexadecimal.
    pub invocation: &'a str,
}

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// The records that follow in this segment belong to this boot.
    Boot(BootId),
    /// A log line.
    Entry(Entry<'a>),
    /// A kind that a later version writes.
    Unknown(u8),
}

/// What is found at one place of a segment.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// A record, and where the next begins.
    Record(Record<'a>, usize),
    /// Valid so far, but the bytes end before the record does: more may be written, or the tail is torn.
    Incomplete,
    /// No record begins here.
    Damaged,
}

/// The header of a new segment.
pub fn encode_segment_header(number: u64) -> [u8; SEGMENT_HEADER_LEN] {
    let mut bytes = Vec::with_capacity(SEGMENT_HEADER_LEN);
    bytes.extend_from_slice(SEGMENT_MAGIC);
    bytes.extend_from_slice(&SEGMENT_VERSION.to_le_bytes());
    bytes.extend_from_slice(&(SEGMENT_HEADER_LEN as u32).to_le_bytes());
    bytes.extend_from_slice(&number.to_le_bytes());
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    let mut header = [0; SEGMENT_HEADER_LEN];
    for (to, from) in header.iter_mut().zip(bytes) {
        *to = from;
    }
    header
}

/// Where the first record of a segment begins, or `None` when this is no segment that we can read.
pub fn decode_segment_header(bytes: &[u8]) -> Option<usize> {
    let checked = bytes.get(..24)?;
    if checked.get(..8)? != SEGMENT_MAGIC || u32_at(checked, 8)? > SEGMENT_VERSION || u32_at(bytes, 24)? != crc32fast::hash(checked) {
        return None;
    }
    let length = u32_at(checked, 12)? as usize;
    (28..=4096).contains(&length).then_some(length)
}

/// Adds a boot record to `out`.
pub fn encode_boot(out: &mut Vec<u8>, boot: &BootId) {
    encode_record(out, KIND_BOOT, |out| out.extend_from_slice(boot));
}

/// Adds an entry to `out`. Names are cut at 255 bytes, the message so that the record stays within [`MAX_PAYLOAD`].
pub fn encode_entry(out: &mut Vec<u8>, entry: &Entry<'_>) {
    encode_record(out, KIND_ENTRY, |out| {
        out.extend_from_slice(&entry.realtime.to_le_bytes());
        out.extend_from_slice(&entry.monotonic.to_le_bytes());
        out.extend_from_slice(&entry.pid.to_le_bytes());
        out.push(entry.priority);
        out.push(entry.source.code());
        for (tag, text) in [(TAG_UNIT, entry.unit), (TAG_IDENTIFIER, entry.identifier), (TAG_INVOCATION, entry.invocation)] {
            if !text.is_empty() {
                encode_field(out, tag, cut_text(text, 255).as_bytes());
            }
        }
        if let Some(sequence) = entry.kernel_sequence {
            encode_field(out, TAG_KERNEL_SEQUENCE, &sequence.to_le_bytes());
        }
        if let Some(uid) = entry.uid {
            encode_field(out, TAG_UID, &uid.to_le_bytes());
        }
        let longest = MAX_PAYLOAD - 4096;
        encode_field(out, TAG_MESSAGE, entry.message.get(..longest).unwrap_or(entry.message));
    });
}

/// What is at `at` in a segment's bytes.
pub fn decode(bytes: &[u8], at: usize) -> Step<'_> {
    let Some(rest) = bytes.get(at..) else { return Step::Incomplete };
    let Some(header) = rest.get(..RECORD_HEADER_LEN) else {
        let start = rest.get(..2.min(rest.len())).unwrap_or_default();
        return if RECORD_MAGIC.starts_with(start) { Step::Incomplete } else { Step::Damaged };
    };
    let (Some(kind), Some(length), Some(crc)) = (header.get(2).copied(), u32_at(header, 4), u32_at(header, 8)) else {
        return Step::Damaged;
    };
    let length = length as usize;
    if header.get(..2) != Some(&RECORD_MAGIC) || length > MAX_PAYLOAD {
        return Step::Damaged;
    }
    let Some(payload) = rest.get(RECORD_HEADER_LEN..RECORD_HEADER_LEN + length) else { return Step::Incomplete };
    if crc != checksum(header.get(2..8).unwrap_or_default(), payload) {
        return Step::Damaged;
    }
    let record = match kind {
        KIND_BOOT => payload.get(..16).and_then(|id| id.try_into().ok()).map(Record::Boot),
        KIND_ENTRY => decode_entry(payload).map(Record::Entry),
        other => Some(Record::Unknown(other)),
    };
    match record {
        Some(record) => Step::Record(record, at + RECORD_HEADER_LEN + length),
        None => Step::Damaged,
    }
}

/// Where the next whole record begins after damage at `at`, if there is one.
pub fn resynchronise(bytes: &[u8], at: usize) -> Option<usize> {
    let mut place = at.checked_add(1)?;
    loop {
        let rest = bytes.get(place..)?;
        place += rest.windows(2).position(|two| two == RECORD_MAGIC)?;
        if matches!(decode(bytes, place), Step::Record(..)) {
            return Some(place);
        }
        place += 1;
    }
}

/// Walks the whole records of a segment from `start`, stepping over damage.
pub struct Records<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Records<'a> {
    /// Records of `bytes` from the offset `start` on.
    pub fn new(bytes: &'a [u8], start: usize) -> Records<'a> {
        Records { bytes, at: start }
    }

    /// Just after the last record handed out.
    pub fn position(&self) -> usize {
        self.at
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = (usize, Record<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let mut at = self.at;
        loop {
            match decode(self.bytes, at) {
                Step::Record(record, next) => {
                    self.at = next;
                    return Some((at, record));
                }
                Step::Incomplete | Step::Damaged => at = resynchronise(self.bytes, at)?,
            }
        }
    }
}

fn encode_record(out: &mut Vec<u8>, kind: u8, payload: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; RECORD_HEADER_LEN]);
    payload(out);
    let length = (out.len() - start - RECORD_HEADER_LEN) as u32;
    let [a, b, c, d] = length.to_le_bytes();
    let checked = [kind, 0, a, b, c, d];
    let crc = checksum(&checked, out.get(start + RECORD_HEADER_LEN..).unwrap_or_default());
    let header = RECORD_MAGIC.into_iter().chain(checked).chain(crc.to_le_bytes());
    for (to, from) in out.iter_mut().skip(start).zip(header) {
        *to = from;
    }
}

fn encode_field(out: &mut Vec<u8>, tag: u8, value: &[u8]) {
    out.push(tag);
    out.extend_from_slice(&(value.len() as u32).to_le_bytes());
    out.extend_from_slice(value);
}

fn decode_entry(payload: &[u8]) -> Option<Entry<'_>> {
    let mut entry = Entry {
        realtime: u64_at(payload, 0)?,
        monotonic: u64_at(payload, 8)?,
        pid: u32_at(payload, 16)?,
        uid: None,
        priority: *payload.get(20)? & 7,
        source: Source::from_code(*payload.get(21)?),
        unit: "",
        identifier: "",
        message: b"",
        kernel_sequence: None,
        invocation: "",
    };
    let mut rest = payload.get(22..)?;
    while let Some((tag, after)) = rest.split_first() {
        let length = u32_at(after, 0)? as usize;
        let value = after.get(4..)?.get(..length)?;
        match *tag {
            TAG_UNIT => entry.unit = std::str::from_utf8(value).unwrap_or(""),
            TAG_IDENTIFIER => entry.identifier = std::str::from_utf8(value).unwrap_or(""),
            TAG_INVOCATION => entry.invocation = std::str::from_utf8(value).unwrap_or(""),
            TAG_MESSAGE => entry.message = value,
            TAG_KERNEL_SEQUENCE => entry.kernel_sequence = u64_at(value, 0),
            TAG_UID => entry.uid = u32_at(value, 0),
            _ => {}
        }
        rest = after.get(4 + length..)?;
    }
    Some(entry)
}

fn checksum(header: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header);
    hasher.update(payload);
    hasher.finalize()
}

/// At most `longest` bytes of `text`, not cutting a character.
fn cut_text(text: &str, longest: usize) -> &str {
    let mut end = longest.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or("")
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry<'a>(unit: &'a str, message: &'a [u8]) -> Entry<'a> {
        Entry {
            realtime: 1_700_000_000_000_000,
            monotonic: 42,
            pid: 7,
            uid: Some(500),
            priority: 6,
            source: Source::Stdout,
            unit,
            identifier: "dockerd",
            message,
            kernel_sequence: Some(9),
            invocation: "",
        }
    }

    #[test]
    fn a_torn_tail_is_incomplete_and_a_flipped_bit_is_damage() {
        let mut bytes = Vec::new();
        encode_entry(&mut bytes, &entry("a.service", b"hello"));
        for end in 1..bytes.len() {
            assert_eq!(decode(&bytes[..end], 0), Step::Incomplete, "cut at {end}");
        }
        for place in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[place] ^= 0x10;
            assert!(!matches!(decode(&flipped, 0), Step::Record(..)), "flip at {place}");
        }
    }

    #[test]
    fn zeros_that_a_power_cut_leaves_are_damage() {
        assert_eq!(decode(&[0; 4096], 0), Step::Damaged);
        assert_eq!(resynchronise(&[0; 4096], 0), None);
    }

    #[test]
    fn records_after_damage_are_still_found() {
        let mut bytes = Vec::new();
        encode_boot(&mut bytes, &[3; 16]);
        let hole = bytes.len();
        encode_entry(&mut bytes, &entry("a.service", b"GLGLGL one"));
        encode_entry(&mut bytes, &entry("b.service", b"two"));
        bytes[hole + 20] ^= 0xff;
        let units: Vec<_> =
            Records::new(&bytes, 0).filter_map(|(_, r)| if let Record::Entry(e) = r { Some(e.unit.to_string()) } else { None }).collect();
        assert_eq!(units, ["b.service"]);
    }

    #[test]
    fn a_segment_header_survives_its_round_trip_and_nothing_else_passes() {
        let header = encode_segment_header(12);
        assert_eq!(decode_segment_header(&header), Some(SEGMENT_HEADER_LEN));
        for place in 0..28 {
            let mut flipped = header;
            flipped[place] ^= 1;
            assert_eq!(decode_segment_header(&flipped), None, "flip at {place}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_decode_without_a_panic_and_move_forward(bytes in proptest::collection::vec(any::<u8>(), 0..600), at in 0usize..700) {
            if let Step::Record(_, next) = decode(&bytes, at) { prop_assert!(next > at); }
            prop_assert!(Records::new(&bytes, at).count() <= bytes.len());
            decode_segment_header(&bytes);
            decode_entry(&bytes);
        }

        #[test]
        fn what_is_encoded_is_decoded(unit in ".{0,300}", message in proptest::collection::vec(any::<u8>(), 0..2000), noise in proptest::collection::vec(any::<u8>(), 0..50)) {
            let mut bytes = noise.clone();
            let written = Entry { unit: &unit, ..entry("", &message) };
            encode_entry(&mut bytes, &written);
            let expected = Entry { unit: cut_text(&unit, 255), ..written };
            prop_assert_eq!(decode(&bytes, noise.len()), Step::Record(Record::Entry(expected), bytes.len()));
        }
    }
}
