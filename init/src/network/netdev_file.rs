//! `.netdev` files: virtual links that are to be made. Known are VLANs, bridges, bonds and dummies.
//!
//! Pure. A file that does not say enough makes nothing and is complained about.

use super::file_syntax::{assignments, boolean, mac, size};
use super::netlink_links::{Kind, VirtualLink};

/// A virtual link as a file says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualDevice {
    /// Its name.
    pub name: String,
    kind: FileKind,
    mtu: Option<u32>,
    mac: Option<[u8; 6]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum FileKind {
    Vlan(u16),
    Bridge(bool),
    Bond(u8, u32),
    Dummy,
}

impl VirtualDevice {
    /// Whether it needs another link below it.
    pub fn needs_parent(&self) -> bool {
        matches!(self.kind, FileKind::Vlan(_))
    }

    /// What to ask the kernel for; `parent` is the number of the link below a VLAN.
    pub fn link(&self, parent: u32) -> VirtualLink {
        let kind = match self.kind {
            FileKind::Vlan(number) => Kind::Vlan(number, parent),
            FileKind::Bridge(stp) => Kind::Bridge(stp),
            FileKind::Bond(mode, monitor) => Kind::Bond(mode, monitor),
            FileKind::Dummy => Kind::Dummy,
        };
        VirtualLink { name: self.name.clone(), kind, mtu: self.mtu, mac: self.mac }
    }
}

const BOND_MODES: [&str; 7] = ["balance-rr", "active-backup", "balance-xor", "broadcast", "802.3ad", "balance-tlb", "balance-alb"];

/// Reads a file and its drop-ins; the second part is what could not be used.
pub fn parse(texts: &[(String, String)]) -> (Option<VirtualDevice>, Vec<String>) {
    let mut complaints = Vec::new();
    let (mut name, mut kind) = (String::new(), String::new());
    let (mut mtu, mut address, mut vlan, mut stp, mut mode, mut monitor) = (None, None, None, false, 0, 100);
    for (source, text) in texts {
        for (number, section, line) in assignments(text) {
            let mut set = |key: &str, value: &str| -> Result<(), String> {
                let bad = || format!("cannot read '{value}' as a value of {key}=");
                match (section.as_str(), key) {
                    (_, "") | ("NetDev", "Description") => {}
                    // The kernel's bound.
                    ("NetDev", "Name") if (1..16).contains(&value.len()) && !value.contains(['/', ' ']) => value.clone_into(&mut name),
                    ("NetDev", "Name") => return Err(bad()),
                    ("NetDev", "Kind") => value.clone_into(&mut kind),
                    ("NetDev", "MTUBytes") => mtu = Some(size(value).ok_or_else(bad)?),
                    ("NetDev", "MACAddress") if value == "none" => {}
                    ("NetDev", "MACAddress") => address = Some(mac(value).ok_or_else(bad)?),
                    ("VLAN", "Id") => vlan = Some(value.parse().ok().filter(|id| *id < 4095).ok_or_else(bad)?),
                    ("Bridge", "STP") => stp = boolean(value).ok_or_else(bad)?,
                    ("Bond", "Mode") => {
                        mode = BOND_MODES.iter().position(|known| *known == value).and_then(|at| u8::try_from(at).ok()).ok_or_else(bad)?;
                    }
                    ("Bond", "MIIMonitorSec") => {
                        let span = crate::logs::config::time_span(value).ok_or_else(bad)?;
                        monitor = u32::try_from(span / 1000).map_err(|_| bad())?;
                    }
                    _ => return Err(format!("{key}= in [{section}] is not supported and is ignored")),
                }
                Ok(())
            };
            if let Err(problem) = line.and_then(|(key, value)| set(&key, &value)) {
                complaints.push(format!("{source}:{number}: {problem}"));
            }
        }
    }
    let kind = match (kind.as_str(), vlan) {
        ("vlan", Some(number)) => Ok(FileKind::Vlan(number)),
        ("vlan", None) => Err("a VLAN needs Id= in [VLAN]".to_owned()),
        ("bridge", _) => Ok(FileKind::Bridge(stp)),
        ("bond", _) => Ok(FileKind::Bond(mode, monitor)),
        ("dummy", _) => Ok(FileKind::Dummy),
        (other, _) => Err(format!("Kind={other} is not supported (vlan, bridge, bond, dummy)")),
    };
    let shown = texts.first().map(|(source, _)| source.as_str()).unwrap_or_default();
    match kind {
        Ok(kind) if !name.is_empty() => (Some(VirtualDevice { name, kind, mtu, mac: address }), complaints),
        Ok(_) => {
            complaints.push(format!("{shown}: without Name= nothing is made"));
            (None, complaints)
        }
        Err(problem) => {
            complaints.push(format!("{shown}: {problem}; nothing is made"));
            (None, complaints)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Option<VirtualDevice>, Vec<String>) {
        parse(&[("10.netdev".to_owned(), text.to_owned())])
    }

    #[test]
    fn what_is_said_is_made_and_what_is_missing_is_named() {
        let (vlan, complaints) = read("[NetDev]\nName=v7\nKind=vlan\nMTUBytes=1400\n[VLAN]\nId=7\nGVRP=yes\n");
        assert_eq!(complaints, ["10.netdev:7: GVRP= in [VLAN] is not supported and is ignored"]);
        let link = vlan.unwrap().link(3);
        assert_eq!((link.kind, link.mtu), (Kind::Vlan(7, 3), Some(1400)));
        let (bond, _) = read(
            "[NetDev]\nName=bond0\nKind=bond\n[Bond]\nMode=active-backup\nMIIMonitorSec=0.2s\n[NetDev]\nMACAddress=02:00:00:00:00:01\n",
        );
        assert_eq!(bond.map(|bond| bond.link(0).kind), Some(Kind::Bond(1, 100)), "a fraction is not read, so the usual 100 ms");
        assert_eq!(read("[NetDev]\nName=v\nKind=vlan\n").0, None);
        assert_eq!(read("[NetDev]\nKind=bridge\n").1, ["10.netdev: without Name= nothing is made"]);
        assert!(read("[NetDev]\nName=w\nKind=wireguard\n").1[0].contains("wireguard"));
    }
}
