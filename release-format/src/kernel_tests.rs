use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::bsdiff::{Difference, Step};
use crate::frames::unzstd;
use crate::limits::HEADER;

fn noise(seed: u8, len: usize) -> Vec<u8> {
    (0_u32..).flat_map(|number| *Digest::of(&[&[seed], &number.to_le_bytes()[..]].concat()).as_bytes()).take(len).collect()
}

/// Two kernels with much in common, and the patch between them, whose one piece has the old contents as its prefix.
fn sample() -> (Vec<u8>, Vec<u8>, KernelPatch) {
    let old_contents = noise(1, 200_000);
    let mut new_contents = old_contents.clone();
    new_contents.splice(1000..1004, noise(2, 900));
    let (old, new) = (Kernel::sample(&old_contents, 3).unwrap(), Kernel::sample(&new_contents, 4).unwrap());
    let (from, to) = (Kernel::open(&old).unwrap(), Kernel::open(&new).unwrap());
    let outside = to.outside(&new).unwrap();
    let patch = KernelPatch {
        source: Digest::of(&old),
        result: Digest::of(&new),
        frame: to.frame as u64,
        len: new.len() as u64,
        recipe: to.recipe(&new).unwrap(),
        outside: Piece { operation: Operation::Raw, len: outside.len() as u64, from: 0, from_len: 0, payload: outside },
        pieces: vec![
            Piece { operation: Operation::Copy, len: 1000, from: 0, from_len: 1000, payload: Vec::new() },
            Piece { operation: Operation::Raw, len: 900, from: 0, from_len: 0, payload: noise(2, 900) },
            Piece { operation: Operation::Copy, len: 198_996, from: 1004, from_len: 198_996, payload: Vec::new() },
        ],
    };
    assert_eq!(from.contents, old_contents);
    (old, new, patch)
}

#[test]
fn a_kernel_is_taken_apart_and_put_together_again() {
    let (old, new, patch) = sample();
    let bytes = patch.encode().unwrap();
    assert!(bytes.len() < 4000, "{}", bytes.len());
    let decoded = KernelPatch::decode(&bytes).unwrap();
    assert_eq!(decoded, patch);
    assert!(decoded.rebuild(&old).unwrap() == new);
    let (from, to) = (Kernel::open(&old).unwrap(), Kernel::open(&new).unwrap());
    decoded.expect((&from, &old), (&to, &new)).unwrap();
    assert!(decoded.expect((&to, &new), (&from, &old)).is_err());

    // For another kernel; made of bytes that are not there; with another result; by a recipe of a later version.
    assert_eq!(decoded.rebuild(&new), Err(FormatError::KernelSource));
    let changed = |change: &dyn Fn(&mut KernelPatch)| {
        let mut patch = patch.clone();
        change(&mut patch);
        KernelPatch::decode(&patch.encode().unwrap()).and_then(|patch| patch.rebuild(&old)).unwrap_err().kind()
    };
    assert_eq!(changed(&|patch| patch.pieces[0].from = 200_000), "kernel-piece");
    assert_eq!(changed(&|patch| patch.pieces[0].from_len = 999), "kernel-piece");
    assert_eq!(changed(&|patch| patch.pieces[1].payload[7] ^= 1), "kernel-result");
    assert_eq!(changed(&|patch| patch.pieces[1].len = MAX_OUTPUT + 1), "kernel-piece");
    assert_eq!(changed(&|patch| patch.pieces[0].from_len = MAX_SOURCE + 1), "kernel-piece");
    assert_eq!(changed(&|patch| patch.frame = 1_000_000), "kernel-result");
    assert_eq!(changed(&|patch| patch.len += 1), "kernel-result");
    assert_eq!(changed(&|patch| patch.len = MAX_KERNEL + 1), "body-too-large");
    assert_eq!(changed(&|patch| patch.pieces = vec![patch.pieces[2].clone(); 2000]), "body-too-large");
    assert_eq!(changed(&|patch| patch.pieces.push(patch.pieces[2].clone())), "kernel-result");
    let mut body = vec![0; 200_000];
    let len = (0..body.len()).find(|len| unzstd(&mut body[..*len], &bytes[HEADER..]).is_ok()).unwrap();
    body.truncate(len);
    body[64 + 2 + 3] = 9;
    let other = container::wrap(WHAT, MAGIC, &body, MAX_KERNEL_PATCH, 1).unwrap();
    assert_eq!(KernelPatch::decode(&other), Err(FormatError::KernelRecipe(9)));
}

#[test]
fn what_is_no_kernel_is_not_taken_apart() {
    let (old, ..) = sample();
    assert_eq!(Kernel::open(&[]), None);
    assert_eq!(Kernel::open(&old[..0x300]), None);
    for at in [0x202, 0x248, 0x24b, 0x24f, 1124] {
        let mut other = old.clone();
        other[at] ^= 0x80;
        assert_eq!(Kernel::open(&other), None, "{at:#x}");
    }
    // Compressed in another way: no recipe leads to it.
    let mut other = Kernel::open(&old).unwrap();
    other.contents[0] ^= 1;
    assert_eq!(other.recipe(&old), None);
}

/// What decompresses to more than a kernel may have ends early.
#[test]
fn a_bomb_is_no_kernel() {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    let zeros = vec![0; 1 << 20];
    for _ in 0..=MAX_KERNEL_CONTENTS >> 20 {
        std::io::Write::write_all(&mut encoder, &zeros).unwrap();
    }
    assert_eq!(contents(&encoder.finish().unwrap()), None);
}

/// Nor does a piece that decompresses to more than it is to make, whichever operation has the bomb, nor the patch as a whole.
#[test]
fn bombs_in_a_kernel_patch_do_not_unfold() {
    let (old, _, patch) = sample();
    let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 19).unwrap();
    let zstd = |bytes: &[u8]| Some(zstd::bulk::compress(bytes, 3).unwrap());
    let last = patch.pieces.len() - 1;
    let steps = vec![Step { add: 100_000, insert: 98_996, seek: 0 }];
    let streams = Difference { steps, differences: vec![0; 100_000], new: vec![1; 98_996] };
    let bombed = |bombed: u32| {
        let mut stream = 0_u32..;
        streams.encode(|bytes| if stream.next() == Some(bombed) { Some(bomb.clone()) } else { zstd(bytes) }).unwrap()
    };
    let result = |operation, payload: Vec<u8>| {
        let mut patch = patch.clone();
        assert!((payload.len() as u64) < patch.pieces[last].len);
        (patch.pieces[last].operation, patch.pieces[last].payload) = (operation, payload);
        KernelPatch::decode(&patch.encode().unwrap()).unwrap().rebuild(&old)
    };
    let of_last = Err(FormatError::Bomb(format!("piece {} of the kernel patch", patch.pieces.len())));
    assert_eq!(result(Operation::Data, bomb.clone()), of_last);
    assert_eq!(result(Operation::Zpatch, bomb.clone()), of_last);
    for stream in 0..3 {
        assert_eq!(result(Operation::Bsdiff, bombed(stream)), of_last, "{stream}");
    }
    // What is right but for the bomb gets as far as the digest of what comes out.
    assert_eq!(result(Operation::Bsdiff, bombed(3)), Err(FormatError::KernelResult));

    let file = patch.encode().unwrap();
    let bombed = [&file[..HEADER], &bomb].concat();
    assert_eq!(KernelPatch::decode(&bombed).unwrap_err().kind(), "decompression-bomb");
}

/// Made once: it is compressed thrice.
static SAMPLE: LazyLock<(Vec<u8>, Vec<u8>, KernelPatch)> = LazyLock::new(sample);

/// A file with one byte changed, one that ends early and one that goes on.
fn mutants(file: &[u8], at: prop::sample::Index, byte: u8) -> [Vec<u8>; 3] {
    let at = at.index(file.len());
    let mut changed = file.to_vec();
    changed[at] = byte;
    [changed, file[..at].to_vec(), [file, &[byte]].concat()]
}

proptest! {
    // Rebuilding takes the compressor's memory each time, so there are few cases of it.
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn a_patch_that_was_right_makes_the_right_kernel_or_none_whatever_becomes_of_it(at: prop::sample::Index, byte: u8) {
        let (old, new, patch) = &*SAMPLE;
        let file = patch.encode().unwrap();
        let body = container::unwrap(WHAT, MAGIC, &file, MAX_KERNEL_PATCH).unwrap();
        let wrap = |body: Vec<u8>| container::wrap(WHAT, MAGIC, &body, MAX_KERNEL_PATCH, 1).unwrap();
        for mutant in mutants(&file, at, byte).into_iter().chain(mutants(&body, at, byte).map(wrap)) {
            let Ok(patch) = KernelPatch::decode(&mutant) else { continue };
            if let Ok(made) = patch.rebuild(old) {
                prop_assert!(made == *new);
            }
        }
    }
}

proptest! {
    /// Without the compressing, which takes long: all that decodes, and its pieces.
    #[test]
    fn a_patch_that_was_right_is_read_or_refused_whatever_becomes_of_it(at: prop::sample::Index, byte: u8) {
        let (old, new, patch) = &*SAMPLE;
        let (from, to) = (Kernel::open(old).unwrap(), Kernel::open(new).unwrap());
        let file = patch.encode().unwrap();
        let body = container::unwrap(WHAT, MAGIC, &file, MAX_KERNEL_PATCH).unwrap();
        let wrap = |body: Vec<u8>| container::wrap(WHAT, MAGIC, &body, MAX_KERNEL_PATCH, 1).unwrap();
        for mutant in mutants(&file, at, byte).into_iter().chain(mutants(&body, at, byte).map(wrap)) {
            let Ok(found) = KernelPatch::decode(&mutant) else { continue };
            prop_assert_eq!(KernelPatch::decode(&found.encode().unwrap()), Ok(found.clone()));
            // Where it differs in what it makes, that is seen before it is compressed.
            if found.expect((&from, old), (&to, new)).is_ok() {
                prop_assert!(found.pieces.iter().map(|piece| piece.len).sum::<u64>() == to.contents.len() as u64);
            }
        }
    }

    /// Bytes that nobody vouches for: an answer, never a panic, and never more than the limits.
    #[test]
    fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..4000), at: usize, flip: u8) {
        let _ = KernelPatch::decode(&bytes);
        let wrapped = container::wrap(WHAT, MAGIC, &bytes, MAX_KERNEL_PATCH, 1).unwrap();
        let _ = KernelPatch::decode(&wrapped);
        let mut image = bytes;
        image.resize(0x300, 1);
        let place = at % image.len();
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[place] ^= flip;
        let _ = Kernel::open(&image);
    }
}
