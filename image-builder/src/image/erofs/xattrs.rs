//! Extended attributes behind an inode: a header, then each attribute with its name's prefix as a number, padded to
//! four bytes. None is shared between inodes; a host has only a handful.

use std::collections::BTreeMap;

/// Names whose prefix has a number. The longest come first, since ACLs are one name each.
const PREFIXES: [(&str, u8); 5] =
    [("system.posix_acl_access", 2), ("system.posix_acl_default", 3), ("security.", 6), ("trusted.", 4), ("user.", 1)];

const HEADER: usize = 12;

/// The bytes of all attributes, or nothing when there are none.
pub fn encode(xattrs: &BTreeMap<String, Vec<u8>>) -> Result<Vec<u8>, String> {
    if xattrs.is_empty() {
        return Ok(Vec::new());
    }
    let mut bytes = vec![0; HEADER];
    for (name, value) in xattrs {
        let prefixed = PREFIXES.iter().find_map(|&(prefix, number)| Some((number, name.strip_prefix(prefix)?)));
        let (number, suffix) = prefixed.ok_or_else(|| format!("EROFS has no extended attribute '{name}'"))?;
        let too_long = |_| format!("its extended attribute '{name}' is too long");
        bytes.push(u8::try_from(suffix.len()).map_err(too_long)?);
        bytes.push(number);
        bytes.extend(u16::try_from(value.len()).map_err(too_long)?.to_le_bytes());
        bytes.extend(suffix.as_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    if (bytes.len() - HEADER) / 4 >= usize::from(u16::MAX) {
        return Err("its extended attributes are more than 256 KiB".to_owned());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capability() {
        let xattrs = BTreeMap::from([("security.capability".to_owned(), vec![1, 2, 3, 4, 5])]);
        let bytes = encode(&xattrs).unwrap();
        assert_eq!(&bytes[12..], b"\x0a\x06\x05\0capability\x01\x02\x03\x04\x05\0");
        assert_eq!(encode(&BTreeMap::new()).unwrap(), b"");
    }

    #[test]
    fn unknown_prefixes_are_refused() {
        let xattrs = BTreeMap::from([("os2.ea".to_owned(), vec![])]);
        assert_eq!(encode(&xattrs).unwrap_err(), "EROFS has no extended attribute 'os2.ea'");
    }
}
