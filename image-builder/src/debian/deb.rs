//! The `.deb` format: an `ar` archive with `debian-binary`, `control.tar.*` and `data.tar.*`. Bytes are untrusted in form
//! even when their sum is known, so every offset is checked.
#![deny(clippy::indexing_slicing)]

use std::io::{self, Read};

use liblzma::bufread::XzDecoder;
use liblzma::stream::{CONCATENATED, IGNORE_CHECK, Stream};
use thiserror::Error;

/// Why a package cannot be read.
#[derive(Debug, Error)]
pub enum DebError {
    /// Not an `ar` archive of the right members.
    #[error("it is not a Debian package: {0}")]
    Format(&'static str),
    /// A compression that nobody uses.
    #[error("its member {0} has a compression that is not supported (xz, zst and gz are)")]
    Compression(String),
    /// The archive inside is broken.
    #[error("its {member} is damaged: {source}")]
    Damaged {
        /// Which part.
        member: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// The two archives in a package.
#[derive(Debug)]
pub struct Deb<'a> {
    control: (String, &'a [u8]),
    data: (String, &'a [u8]),
}

impl<'a> Deb<'a> {
    /// Finds the members.
    ///
    /// # Errors
    /// When the bytes are no package.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, DebError> {
        let mut rest = bytes.strip_prefix(b"!<arch>\n").ok_or(DebError::Format("it does not begin like an ar archive"))?;
        let (mut control, mut data) = (None, None);
        let mut first = true;
        while !rest.is_empty() {
            let (header, after) = rest.split_first_chunk::<60>().ok_or(DebError::Format("a member's header is cut off"))?;
            let text = std::str::from_utf8(header).map_err(|_| DebError::Format("a member's header is not text"))?;
            let part = |range: std::ops::Range<usize>| text.get(range).unwrap_or_default().trim_end();
            if part(58..60) != "`" {
                return Err(DebError::Format("a member's header has no end mark"));
            }
            let name = part(0..16).trim_end_matches('/');
            let size: usize = part(48..58).parse().map_err(|_| DebError::Format("a member's size is not a number"))?;
            let (body, after) = after.split_at_checked(size).ok_or(DebError::Format("a member is cut off"))?;
            if first && !(name == "debian-binary" && body.starts_with(b"2.")) {
                return Err(DebError::Format("its format is not 2.x"));
            }
            first = false;
            if name.starts_with("control.tar") {
                control = Some((name.to_owned(), body));
            } else if name.starts_with("data.tar") {
                data = Some((name.to_owned(), body));
            }
            rest = if size % 2 == 1 { after.get(1..).unwrap_or_default() } else { after };
        }
        let control = control.ok_or(DebError::Format("it has no control.tar"))?;
        let data = data.ok_or(DebError::Format("it has no data.tar"))?;
        Ok(Self { control, data })
    }

    /// The control archive, decompressed.
    ///
    /// # Errors
    /// When the compression is not known.
    pub fn control(&self) -> Result<Box<dyn Read + 'a>, DebError> {
        decompress(&self.control.0, self.control.1)
    }

    /// The data archive, decompressed.
    ///
    /// # Errors
    /// When the compression is not known.
    pub fn data(&self) -> Result<Box<dyn Read + 'a>, DebError> {
        decompress(&self.data.0, self.data.1)
    }
}

/// A reader that decompresses by the name's ending: `.xz`, `.zst`, `.gz`, or `.tar` as it is.
///
/// # Errors
/// When the ending is another one.
pub fn decompress<'a>(name: &str, bytes: &'a [u8]) -> Result<Box<dyn Read + 'a>, DebError> {
    let unsupported = || DebError::Compression(name.to_owned());
    Ok(match name.rsplit('.').next() {
        Some("xz") => {
            // Without its checksums, a twentieth of the time of a whole build: the package's SHA-256 was verified.
            let stream = Stream::new_stream_decoder(u64::MAX, CONCATENATED | IGNORE_CHECK).map_err(|_| unsupported())?;
            Box::new(XzDecoder::new_stream(bytes, stream))
        }
        Some("zst") => Box::new(zstd::stream::read::Decoder::with_buffer(bytes).map_err(|_| unsupported())?),
        Some("gz") => Box::new(flate2::bufread::MultiGzDecoder::new(bytes)),
        Some("tar") => Box::new(bytes),
        _ => return Err(unsupported()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn member(name: &str, body: &[u8]) -> Vec<u8> {
        let mut bytes = format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, "100644", body.len()).into_bytes();
        bytes.extend_from_slice(body);
        if body.len() % 2 == 1 {
            bytes.push(b'\n');
        }
        bytes
    }

    fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut bytes = b"!<arch>\n".to_vec();
        bytes.extend(members.iter().flat_map(|(name, body)| member(name, body)));
        bytes
    }

    #[test]
    fn finds_both_archives() {
        let bytes = archive(&[("debian-binary", b"2.0\n"), ("control.tar", b"con"), ("data.tar", b"data")]);
        let deb = Deb::parse(&bytes).unwrap();
        let mut text = String::new();
        deb.control().unwrap().read_to_string(&mut text).unwrap();
        deb.data().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "condata");
    }

    #[test]
    fn refuses_what_is_no_package() {
        assert!(Deb::parse(b"PK").is_err());
        assert!(Deb::parse(&archive(&[("debian-binary", b"3.0\n")])).is_err());
        assert!(Deb::parse(&archive(&[("debian-binary", b"2.0\n"), ("control.tar", b"")])).is_err());
        let bytes = archive(&[("debian-binary", b"2.0\n"), ("control.tar.lzma", b""), ("data.tar", b"data")]);
        assert!(matches!(Deb::parse(&bytes).unwrap().control(), Err(DebError::Compression(_))));
        assert!(Deb::parse(bytes.get(..bytes.len() - 2).unwrap()).is_err());
    }

    proptest! {
        #[test]
        fn never_panics(cut in 0usize..300, at in 8usize..200, byte: u8) {
            let mut bytes = archive(&[("debian-binary", b"2.0\n"), ("control.tar", b"con"), ("data.tar", b"data")]);
            if let Some(there) = bytes.get_mut(at) {
                *there = byte;
            }
            bytes.truncate(cut);
            let _ = Deb::parse(&bytes);
        }
    }
}
