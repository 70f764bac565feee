//! The number under which OpenSSL looks for a certificate in a directory: the first four bytes of the SHA-1 of the
//! subject in a canonical form, so that spelling differences of no meaning do not count.
//!
//! What the form is, is said in OpenSSL's `X509_NAME_hash_ex(3)` and its sources (`x509_name_canon` in
//! `crypto/x509/x_name.c`): the sets of the name without their outer sequence, each text as `UTF8String` in lower case
//! (ASCII only) with blanks at its ends taken off and those inside made one. Certificates: RFC 5280, section 4.1; their
//! encoding: X.690, the distinguished rules.
#![deny(clippy::indexing_slicing)]

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const VERSION: u8 = 0xa0;
const UTF8_STRING: u8 = 0x0c;

/// The subject's hash of a certificate in DER; `None` when it is not one.
#[must_use]
pub fn subject_hash(certificate: &[u8]) -> Option<u32> {
    let (_, certificate, _) = element(certificate).filter(|(tag, ..)| *tag == SEQUENCE)?;
    let (_, mut rest, _) = element(certificate).filter(|(tag, ..)| *tag == SEQUENCE)?;
    if let Some((VERSION, _, after)) = element(rest) {
        rest = after;
    }
    // Serial number, signature algorithm, issuer, validity.
    for _ in 0..4 {
        (_, _, rest) = element(rest)?;
    }
    let (_, subject, _) = element(rest).filter(|(tag, ..)| *tag == SEQUENCE)?;
    let sum = digest(&SHA1_FOR_LEGACY_USE_ONLY, &canonical(subject)?);
    sum.as_ref().first_chunk().map(|first| u32::from_le_bytes(*first))
}

/// The first element: its tag, its content, and what comes after it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (len, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f)).filter(|(digits, _)| (1..=4).contains(&digits.len()))?;
        (digits.iter().fold(0, |len, &digit| len << 8 | usize::from(digit)), rest)
    };
    let (content, after) = rest.split_at_checked(len)?;
    Some((tag, content, after))
}

/// An element's bytes.
fn encode(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    match u8::try_from(content.len()) {
        Ok(len) if len < 0x80 => bytes.push(len),
        _ => {
            let len: Vec<u8> = content.len().to_be_bytes().into_iter().skip_while(|&byte| byte == 0).collect();
            bytes.push(0x80 | u8::try_from(len.len()).unwrap_or(8));
            bytes.extend(len);
        }
    }
    bytes.extend_from_slice(content);
    bytes
}

fn canonical(name: &[u8]) -> Option<Vec<u8>> {
    let mut result = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let (_, mut set, after) = element(rest).filter(|(tag, ..)| *tag == SET)?;
        let mut attributes = Vec::new();
        while !set.is_empty() {
            let (_, attribute, next) = element(set).filter(|(tag, ..)| *tag == SEQUENCE)?;
            let (kind, identifier, value) = element(attribute)?;
            let (tag, content, _) = element(value)?;
            let value = match text(tag, content) {
                Some(text) => encode(UTF8_STRING, simplified(&text).as_bytes()),
                None => encode(tag, content),
            };
            attributes.push(encode(SEQUENCE, &[encode(kind, identifier), value].concat()));
            set = next;
        }
        // The members of a set are in the order of their bytes.
        attributes.sort();
        result.extend(encode(SET, &attributes.concat()));
        rest = after;
    }
    Some(result)
}

/// The text of one of the string types that have a canonical form.
fn text(tag: u8, content: &[u8]) -> Option<String> {
    match tag {
        UTF8_STRING => String::from_utf8(content.to_vec()).ok(),
        // PrintableString, T61String (taken for Latin-1), IA5String, VisibleString.
        0x13 | 0x14 | 0x16 | 0x1a => Some(content.iter().map(|&byte| char::from(byte)).collect()),
        // BMPString
        0x1e => {
            let units = content.chunks_exact(2).map(|pair| pair.iter().fold(0, |unit, &byte| unit << 8 | u16::from(byte)));
            char::decode_utf16(units).collect::<Result<_, _>>().ok()
        }
        // UniversalString
        0x1c => content.chunks_exact(4).map(|four| char::from_u32(four.iter().fold(0, |c, &byte| c << 8 | u32::from(byte)))).collect(),
        _ => None,
    }
}

fn simplified(text: &str) -> String {
    let blank = |c: char| matches!(c, ' ' | '\t' | '\n' | '\x0b' | '\x0c' | '\r');
    text.split(blank).filter(|word| !word.is_empty()).map(str::to_ascii_lowercase).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A certificate with this subject and nothing else in it.
    fn certificate(sets: &[u8]) -> Vec<u8> {
        let null = encode(5, b"");
        let fields = [encode(VERSION, &null), null.clone(), null.clone(), null.clone(), null, encode(SEQUENCE, sets)].concat();
        encode(SEQUENCE, &encode(SEQUENCE, &fields))
    }

    fn common_name(tag: u8, text: &[u8]) -> Vec<u8> {
        encode(SEQUENCE, &[encode(6, &[0x55, 4, 3]), encode(tag, text)].concat())
    }

    #[test]
    fn spelling_does_not_count() {
        let hash = |tag, text: &[u8]| subject_hash(&certificate(&encode(SET, &common_name(tag, text)))).unwrap();
        let expected = hash(UTF8_STRING, b"a root");
        assert_eq!(hash(0x13, b"  A \t Root "), expected);
        assert_eq!(hash(0x1e, b"\0A\0 \0r\0o\0o\0t"), expected);
        assert_ne!(hash(0x13, b"Aroot"), expected);
        assert_eq!(hash(0x14, b"\xc9"), hash(UTF8_STRING, "É".as_bytes()), "letters beyond ASCII stay as they are");
        assert_ne!(hash(UTF8_STRING, "é".as_bytes()), hash(UTF8_STRING, "É".as_bytes()));
        let long = [b'x'; 300];
        assert_ne!(hash(UTF8_STRING, &long), hash(UTF8_STRING, &long[1..]));
    }

    #[test]
    fn what_is_no_certificate_has_no_hash() {
        let whole = certificate(&encode(SET, &common_name(0x13, b"x")));
        for end in 0..whole.len() {
            assert_eq!(subject_hash(&whole[..end]), None, "{end}");
        }
        assert_eq!(subject_hash(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
        assert_eq!(subject_hash(&[0x30, 0x80]), None);
    }
}
