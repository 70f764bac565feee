//! `/proc/self/mountinfo`.

/// One mounted file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    /// Where.
    pub(super) at: String,
    /// `ext4`, `overlay`, ...
    pub(super) kind: String,
    /// Mounted read-only already.
    pub(super) read_only: bool,
}

/// The table, in the order of mounting.
pub(super) fn parse(text: &str) -> Vec<Mount> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Mount> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mut fields = mount.split(' ').skip(4);
    let (at, options) = (fields.next()?, fields.next()?);
    let mut fields = file_system.split(' ');
    let (kind, _source, super_options) = (fields.next()?, fields.next()?, fields.next()?);
    let is_ro = |options: &str| options.split(',').any(|option| option == "ro");
    Some(Mount { at: unescape(at), kind: kind.to_owned(), read_only: is_ro(options) || is_ro(super_options) })
}

/// `\040` and its like stand for bytes that would break the line.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = (byte == b'\\')
            .then(|| {
                tail.get(..3).and_then(|digits| std::str::from_utf8(digits).ok()).and_then(|digits| u8::from_str_radix(digits, 8).ok())
            })
            .flatten();
        match octal {
            Some(value) => {
                bytes.push(value);
                rest = tail.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_with_and_without_optional_fields() {
        let table = parse(
            "36 35 98:0 / /media/state rw,noatime shared:1 - ext4 /dev/vda6 rw,errors=remount-ro\n\
             37 35 0:40 / /a\\040b ro - tmpfs none rw\n\
             nonsense\n",
        );
        assert_eq!(
            table.iter().map(|m| (m.at.as_str(), m.kind.as_str(), m.read_only)).collect::<Vec<_>>(),
            [("/media/state", "ext4", false), ("/a b", "tmpfs", true)]
        );
    }
}
