//! What is in an image, for people and scanners: the manifest (our own JSON, specified in
//! `docs/manifest.md`) and the SBOM (SPDX 2.3 JSON, <https://spdx.github.io/spdx-spec/v2.3/>). Both are data about the
//! build and nothing else, so they are the same bytes whenever they are made.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

/// A package as it went into the image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ManifestPackage {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its architecture.
    pub architecture: String,
    /// SHA-256 of the package file, hexadecimal.
    pub sha256: String,
    /// Where in the archive it was.
    pub path: String,
    /// Path of its licence file inside the package, if it has one.
    pub licence_file: Option<String>,
    /// SHA-256 of that file.
    pub licence_sha256: Option<String>,
}

/// A maintainer script that nobody has reviewed as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unreviewed {
    /// The package.
    pub package: String,
    /// The script, for example `postinst`.
    pub script: String,
    /// Its SHA-256.
    pub sha256: String,
}

/// The manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Manifest {
    /// Version of this format: 1.
    pub schema: u32,
    /// The recipe's name.
    pub name: String,
    /// The image's version.
    pub version: String,
    /// `x86_64`.
    pub architecture: String,
    /// Version of the builder.
    pub builder: String,
    /// Root hash of the verity tree.
    pub root_hash: String,
    /// Kernel release.
    pub kernel: String,
    /// Kernel command line.
    pub cmdline: String,
    /// Bytes of the root file system.
    pub root_bytes: u64,
    /// Bytes of each slot.
    pub slot_bytes: u64,
    /// Name and SHA-256 of the UKI.
    pub uki: String,
    /// SHA-256 of the UKI.
    pub uki_sha256: String,
    /// SHA-256 of each of our own programs, by path.
    pub programs: BTreeMap<String, String>,
    /// All packages by name.
    pub packages: Vec<ManifestPackage>,
    /// Maintainer scripts that are new or have changed since they were reviewed.
    pub unreviewed_scripts: Vec<Unreviewed>,
}

impl Manifest {
    /// The manifest's text.
    #[must_use]
    pub fn to_json(&self) -> String {
        pretty(&json!(self))
    }

    /// The SBOM's text.
    #[must_use]
    pub fn to_spdx(&self) -> String {
        let image = "SPDXRef-image";
        let mut packages = vec![json!({
            "SPDXID": image,
            "name": self.name,
            "versionInfo": self.version,
            "downloadLocation": "NOASSERTION",
            "filesAnalyzed": false,
            "licenseConcluded": "NOASSERTION",
            "licenseDeclared": "NOASSERTION",
            "copyrightText": "NOASSERTION",
            "primaryPackagePurpose": "OPERATING-SYSTEM",
        })];
        let mut relationships = vec![relationship("SPDXRef-DOCUMENT", "DESCRIBES", image)];
        for package in &self.packages {
            let id = spdx_id(&package.name);
            packages.push(json!({
                "SPDXID": id,
                "name": package.name,
                "versionInfo": package.version,
                "downloadLocation": "NOASSERTION",
                "filesAnalyzed": false,
                "licenseConcluded": "NOASSERTION",
                "licenseDeclared": "NOASSERTION",
                "copyrightText": "NOASSERTION",
                "checksums": [{"algorithm": "SHA256", "checksumValue": package.sha256}],
                "externalRefs": [{
                    "referenceCategory": "PACKAGE-MANAGER",
                    "referenceType": "purl",
                    "referenceLocator": purl(package),
                }],
            }));
            relationships.push(relationship(image, "CONTAINS", &id));
        }
        pretty(&json!({
            "spdxVersion": "SPDX-2.3",
            "dataLicense": "CC0-1.0",
            "SPDXID": "SPDXRef-DOCUMENT",
            "name": format!("{}-{}", self.name, self.version),
            // Unique by content, as the namespace must be, and yet the same for the same image.
            "documentNamespace": format!("https://garboard.invalid/spdx/{}-{}-{}", self.name, self.version, self.root_hash),
            "creationInfo": {"created": "1980-01-01T00:00:00Z", "creators": [format!("Tool: garboard-{}", self.builder)]},
            "packages": packages,
            "relationships": relationships,
        }))
    }
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

fn relationship(from: &str, kind: &str, to: &str) -> Value {
    json!({"spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to})
}

/// SPDX ids have only letters, digits, `.` and `-`; `+` is the one other character of Debian's package names.
fn spdx_id(name: &str) -> String {
    format!("SPDXRef-deb-{}", name.replace('+', "-plus"))
}

/// <https://github.com/package-url/purl-spec/blob/main/types-doc/deb-definition.md>
fn purl(package: &ManifestPackage) -> String {
    let escape = |text: &str| text.replace('%', "%25").replace('+', "%2B").replace(':', "%3A");
    format!("pkg:deb/debian/{}@{}?arch={}", escape(&package.name), escape(&package.version), package.architecture)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_fit_for_spdx() {
        assert_eq!(spdx_id("libstdc++6"), "SPDXRef-deb-libstdc-plus-plus6");
        let package = ManifestPackage {
            name: "libstdc++6".into(),
            version: "1:14.2~rc+1".into(),
            architecture: "amd64".into(),
            sha256: String::new(),
            path: String::new(),
            licence_file: None,
            licence_sha256: None,
        };
        assert_eq!(purl(&package), "pkg:deb/debian/libstdc%2B%2B6@1%3A14.2~rc%2B1?arch=amd64");
    }
}
