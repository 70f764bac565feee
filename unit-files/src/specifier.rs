//! Specifiers: `%i` and its siblings, replaced when a unit is loaded.

use thiserror::Error;

use crate::name::{UnitName, unescape, unescape_path};

/// What specifiers ask about the machine. Whoever loads units fills it in once; empty fields give empty texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFacts {
    /// `%H`.
    pub host_name: String,
    /// `%q`; empty is the host name.
    pub pretty_host_name: String,
    /// `%m`: 32 hexadecimal digits.
    pub machine_id: String,
    /// `%b`: 32 hexadecimal digits.
    pub boot_id: String,
    /// `%v`.
    pub kernel_release: String,
    /// `%a`, in systemd's words: `x86-64`, `arm64`.
    pub architecture: String,
    /// `%o`: `ID=` of os-release.
    pub os_id: String,
    /// `%w`: `VERSION_ID=`.
    pub os_version_id: String,
    /// `%B`: `BUILD_ID=`.
    pub os_build_id: String,
    /// `%W`: `VARIANT_ID=`.
    pub os_variant_id: String,
    /// `%M`: `IMAGE_ID=`.
    pub os_image_id: String,
    /// `%A`: `IMAGE_VERSION=`.
    pub os_image_version: String,
    /// `%s`: root's shell.
    pub shell: String,
}

impl Default for HostFacts {
    fn default() -> Self {
        Self {
            host_name: "localhost".to_owned(),
            pretty_host_name: String::new(),
            machine_id: String::new(),
            boot_id: String::new(),
            kernel_release: String::new(),
            architecture: systemd_architecture(std::env::consts::ARCH).to_owned(),
            os_id: String::new(),
            os_version_id: String::new(),
            os_build_id: String::new(),
            os_variant_id: String::new(),
            os_image_id: String::new(),
            os_image_version: String::new(),
            shell: "/bin/sh".to_owned(),
        }
    }
}

impl HostFacts {
    /// Takes what os-release says, quotes removed as in an environment file.
    pub fn set_os_release(&mut self, bytes: &[u8]) {
        for (key, value) in crate::environment::parse_environment_file(bytes).assignments {
            match key.as_str() {
                "ID" => self.os_id = value,
                "VERSION_ID" => self.os_version_id = value,
                "BUILD_ID" => self.os_build_id = value,
                "VARIANT_ID" => self.os_variant_id = value,
                "IMAGE_ID" => self.os_image_id = value,
                "IMAGE_VERSION" => self.os_image_version = value,
                _ => {}
            }
        }
    }
}

/// systemd's word for an architecture of Rust or `uname`.
#[must_use]
pub fn systemd_architecture(name: &str) -> &str {
    match name {
        "x86_64" => "x86-64",
        "aarch64" => "arm64",
        "riscv64gc" => "riscv64",
        other => other,
    }
}

/// Why specifiers cannot be replaced.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SpecifierError {
    /// `%` and a letter that means nothing.
    #[error("%{0} is no specifier (write %% for a percent sign)")]
    Unknown(char),
    /// The name holds escaped bytes that are no text.
    #[error("%{0} of {1} is not UTF-8")]
    NotText(char, UnitName),
}

/// Where a text with specifiers stands.
#[derive(Clone, Copy, Debug)]
pub struct SpecifierContext<'a> {
    /// The unit.
    pub name: &'a UnitName,
    /// Its file (`%y`, `%Y`).
    pub fragment: Option<&'a str>,
    /// The machine.
    pub facts: &'a HostFacts,
}

impl SpecifierContext<'_> {
    /// Replaces all specifiers.
    ///
    /// # Errors
    /// When one is unknown or makes no text.
    pub fn expand(&self, text: &str) -> Result<String, SpecifierError> {
        if !text.contains('%') {
            return Ok(text.to_owned());
        }
        let mut out = String::with_capacity(text.len() + 16);
        let mut chars = text.chars();
        while let Some(character) = chars.next() {
            if character != '%' {
                out.push(character);
                continue;
            }
            match chars.next() {
                None => out.push('%'),
                Some('%') => out.push('%'),
                Some(letter) if letter.is_ascii_alphanumeric() => out.push_str(&self.value(letter)?),
                Some(other) => {
                    out.push('%');
                    out.push(other);
                }
            }
        }
        Ok(out)
    }

    fn value(&self, letter: char) -> Result<String, SpecifierError> {
        let name = self.name;
        let facts = self.facts;
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).map_err(|_| SpecifierError::NotText(letter, name.clone()));
        let last_part = || name.prefix().rsplit('-').next().unwrap_or_default();
        let value: &str = match letter {
            'n' => name.as_str(),
            'N' => name.stem(),
            'p' => name.prefix(),
            'P' => return text(unescape(name.prefix())),
            'i' => name.instance().unwrap_or_default(),
            'I' => return text(unescape(name.instance().unwrap_or_default())),
            'j' => last_part(),
            'J' => return text(unescape(last_part())),
            'f' => {
                let of = name.instance().filter(|instance| !instance.is_empty()).unwrap_or_else(|| name.prefix());
                return text(unescape_path(of).unwrap_or_else(|| b"/".to_vec()));
            }
            'y' => self.fragment.unwrap_or_default(),
            'Y' => self.fragment.and_then(|path| path.rsplit_once('/')).map_or("", |(directory, _)| directory),
            'H' => &facts.host_name,
            'l' => facts.host_name.split('.').next().unwrap_or_default(),
            'q' if facts.pretty_host_name.is_empty() => &facts.host_name,
            'q' => &facts.pretty_host_name,
            'm' => &facts.machine_id,
            'b' => &facts.boot_id,
            'v' => &facts.kernel_release,
            'a' => &facts.architecture,
            'o' => &facts.os_id,
            'w' => &facts.os_version_id,
            'B' => &facts.os_build_id,
            'W' => &facts.os_variant_id,
            'M' => &facts.os_image_id,
            'A' => &facts.os_image_version,
            't' => "/run",
            'S' => "/var/lib",
            'C' => "/var/cache",
            'L' => "/var/log",
            'E' => "/etc",
            'D' => "/usr/share",
            'T' => "/tmp",
            'V' => "/var/tmp",
            'd' => return Ok(format!("/run/credentials/{name}")),
            // The manager's own identity, not that of `User=`.
            'u' | 'g' => "root",
            'U' | 'G' => "0",
            'h' => "/root",
            's' => &facts.shell,
            unknown => return Err(SpecifierError::Unknown(unknown)),
        };
        Ok(value.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(name: &str, text: &str) -> Result<String, SpecifierError> {
        let facts = HostFacts { host_name: "a.example".into(), machine_id: "0f".repeat(16), ..HostFacts::default() };
        let name = UnitName::parse(name).unwrap();
        SpecifierContext { name: &name, fragment: Some("/etc/systemd/system/x@.service"), facts: &facts }.expand(text)
    }

    #[test]
    fn names_come_apart() {
        let name = r"foo-bar\x2dbaz@a-b\x20c.service";
        assert_eq!(expand(name, "%n|%N|%p|%i|%j").unwrap(), format!(r"{name}|foo-bar\x2dbaz@a-b\x20c|foo-bar\x2dbaz|a-b\x20c|bar\x2dbaz"));
        assert_eq!(expand(name, "%P|%I|%J|%f").unwrap(), "foo/bar-baz|a/b c|bar-baz|/a/b c");
        assert_eq!(expand("a-b.mount", "%f %y %Y").unwrap(), "/a/b /etc/systemd/system/x@.service /etc/systemd/system");
    }

    #[test]
    fn the_machine_and_directories() {
        assert_eq!(expand("a.service", "%H %l %t %S %h %d").unwrap(), "a.example a /run /var/lib /root /run/credentials/a.service");
    }

    #[test]
    fn unknown_letters_are_errors_and_other_characters_stay() {
        assert_eq!(expand("a.service", "100%% %- 5%"), Ok("100% %- 5%".into()));
        assert_eq!(expand("a.service", "%z"), Err(SpecifierError::Unknown('z')));
    }
}
