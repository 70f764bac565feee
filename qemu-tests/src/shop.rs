//! A publisher of versions of one of our recipes, for machines that update themselves.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// The ways in which an update comes.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    /// All of it is fetched.
    Full,
    /// What the host has is copied, chunk by chunk.
    Chunks,
    /// By a patch.
    Patch,
}

impl Way {
    /// As `update-agent status` has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "in full",
            Self::Chunks => "by chunks",
            Self::Patch => "by patch",
        }
    }
}

/// A publisher: keys, images and a repository.
#[derive(Debug)]
pub struct Shop {
    directory: TempDir,
    recipe: &'static str,
}

impl Shop {
    /// A publisher of `tiny`.
    #[must_use]
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self::of("tiny")
    }

    /// A publisher of a recipe: makes the keys.
    ///
    /// # Panics
    /// As all of this, when `garboard` fails.
    #[must_use]
    pub fn of(recipe: &'static str) -> Self {
        let directory = tempfile::Builder::new().prefix("garboard-shop-").tempdir_in("/var/tmp").expect("a temporary directory");
        let shop = Self { directory, recipe };
        shop.garboard(&["keys", "init", "--dir", &shop.path("keys")]);
        shop
    }

    /// A path in the publisher's directory.
    #[allow(clippy::missing_panics_doc)]
    #[must_use]
    pub fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// Runs `garboard`.
    #[allow(clippy::missing_panics_doc)]
    pub fn garboard(&self, args: &[&str]) {
        let output = Command::new(program()).args(args).output().expect("garboard, built with these tests");
        assert!(output.status.success(), "garboard {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Builds a version with these lines added to the recipe, from the same packages; its image.
    #[must_use]
    #[allow(clippy::missing_panics_doc)]
    pub fn build(&self, version: &str, lines: &str) -> PathBuf {
        let (name, directory) = (self.recipe, self.path(&format!("recipe-{version}")));
        let recipe = format!("{directory}/{name}.toml");
        std::fs::create_dir_all(&directory).expect("a directory for the recipe");
        let recipes = Path::new(env!("CARGO_MANIFEST_DIR")).join("../recipes").canonicalize().expect("the recipes");
        std::fs::copy(recipes.join(format!("{name}.lock")), format!("{directory}/{name}.lock"))
            .expect("the lock of the images that scripts/test builds");
        std::fs::write(&recipe, format!("name = \"{name}\"\nextends = \"{}/{name}.toml\"\n{lines}\n", recipes.display()))
            .expect("write the recipe");
        let (out, root) = (self.path(&format!("out-{version}")), self.path("keys/root.json"));
        self.garboard(&["build", &recipe, "--version", version, "--out", &out, "--format", "raw", "--update-root", &root, "--offline"]);
        PathBuf::from(out).join(format!("{name}-{version}-x86_64.raw"))
    }

    /// Publishes a version that was built, in channel `stable`.
    #[allow(clippy::missing_panics_doc)]
    pub fn publish(&self, version: &str) {
        self.publish_with(version, &[]);
    }

    /// The same with more options.
    #[allow(clippy::missing_panics_doc)]
    pub fn publish_with(&self, version: &str, options: &[&str]) {
        let (out, repo, keys) = (self.path(&format!("out-{version}")), self.path("repo"), self.path("keys"));
        let command = ["publish", &out, "--repo", &repo, "--channel", "stable", "--keys", &keys, "--level", "1"];
        self.garboard(&[&command[..], options].concat());
    }

    /// Builds a version and publishes it.
    #[allow(clippy::missing_panics_doc)]
    pub fn release(&self, version: &str, lines: &str) {
        let _ = self.build(version, lines);
        self.publish(version);
    }

    /// Version 1.0 and 1.1, some of whose bytes are others, so that a host with 1.0 gets 1.1 that way; the image of 1.0.
    #[must_use]
    #[allow(clippy::missing_panics_doc)]
    pub fn two_releases(&self, way: Way) -> PathBuf {
        let image = self.build("1.0", &with_a_file(1));
        let _ = self.build("1.1", &with_a_file(2));
        match way {
            // Of versions that were never published nobody knows what they have.
            Way::Full => self.publish("1.1"),
            Way::Chunks => {
                self.publish("1.0");
                self.publish_with("1.1", &["--patches", "0"]);
            }
            Way::Patch => {
                self.publish("1.0");
                self.publish("1.1");
            }
        }
        image
    }
}

/// A file in the root, 1 MiB of lines that do not compress to nothing, of which each version has every twentieth anew.
fn with_a_file(version: u64) -> String {
    let mut content = String::new();
    for number in 0..32_768_u64 {
        let seed = if number.is_multiple_of(20) { number + (version << 32) } else { number };
        let digits = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        content += &format!("{digits:016x}{:016x}\n", digits.wrapping_mul(digits | 1));
    }
    format!("[[file]]\npath = \"/usr/share/lines\"\ncontent = \"\"\"\n{content}\"\"\"\n")
}

/// The program `garboard`. Tests lie in target/.../debug/deps, programs beside that directory.
#[allow(clippy::missing_panics_doc)]
#[must_use]
pub fn program() -> PathBuf {
    let own = std::env::current_exe().expect("this test's own path");
    own.ancestors().nth(2).expect("a directory of programs").join("garboard")
}
