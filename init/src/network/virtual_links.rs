//! Links that files ask for (VLANs, bridges, bonds) and what `.link` files say of a link when it is first seen.

use super::daemon::Daemon;
use super::netlink::{Link, Message, Request};
use super::netlink_links::VirtualLink;

impl Daemon {
    /// Makes what is not there yet and can be made now.
    pub(super) fn make_virtual_links(&mut self) {
        let named = |daemon: &Self, name: &str| daemon.links.values().find(|link| link.name == name).map(|link| link.index);
        for device in self.settings.devices.clone() {
            if named(self, &device.name).is_some() {
                continue;
            }
            let parent = self.managed.iter().find(|(_, managed)| managed.file.vlans.contains(&device.name)).map(|(index, _)| *index);
            let link: VirtualLink = match (device.needs_parent(), parent) {
                (true, None) => continue,
                (_, parent) => device.link(parent.unwrap_or(0)),
            };
            match self.netlink.request(&Request::CreateLink(link)) {
                Ok(_) => eprintln!("<6>{} is made", device.name),
                // Made a moment ago; the kernel's word of it is still to come.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => self.problem(format!("{}: the kernel does not make it: {error}", device.name)),
            }
        }
        // Members whose bridge or bond has come only now.
        for (index, master) in self.managed.iter().filter_map(|(index, m)| Some((*index, m.file.master.clone()?))).collect::<Vec<_>>() {
            if let (Some(_), Some(link)) = (named(self, &master), self.links.get(&index).cloned()) {
                self.join_master(&link);
            }
        }
    }

    /// Puts a link into the bridge or bond that its file names.
    pub(super) fn join_master(&mut self, link: &Link) {
        let Some(name) = self.managed.get(&link.index).and_then(|managed| managed.file.master.clone()) else { return };
        let Some(master) = self.links.values().find(|other| other.name == name) else { return };
        if link.master == Some(master.index) {
            return;
        }
        let (master, bond) = (master.index, master.kind.as_deref() == Some("bond"));
        if bond {
            // A bond takes only what is down, and brings it up itself.
            self.ask(link.index, &Request::SetLink { index: link.index, up: false, mtu: None });
        }
        self.ask(link.index, &Request::SetMaster { index: link.index, master });
        self.ask(link.index, &Request::SetLink { index: link.index, up: true, mtu: None });
    }

    /// Applies the `.link` file for a link, once; true when the link has another name now, of which the kernel will tell.
    pub(super) fn adopt_link_file(&mut self, link: &Link, driver: Option<&str>) -> bool {
        if self.settings.links.is_empty() || self.adopted.contains(&link.index) {
            return false;
        }
        let Some(file) = self.settings.links.iter().find(|file| file.matching.matches(link, driver)).cloned() else { return false };
        self.adopted.insert(link.index);
        if let Some(mtu) = file.mtu.filter(|mtu| *mtu != link.mtu) {
            self.ask(link.index, &Request::SetLink { index: link.index, up: link.up, mtu: Some(mtu) });
        }
        let Some(name) = file.name.filter(|name| *name != link.name) else { return false };
        if self.links.values().any(|other| other.name == name) {
            self.problem(format!("{}: cannot be called {name}: there is such a link already", link.name));
            return false;
        }
        if link.up {
            self.ask(link.index, &Request::SetLink { index: link.index, up: false, mtu: None });
        }
        match self.netlink.request(&Request::Rename { index: link.index, name: name.clone() }) {
            Ok(_) => {
                eprintln!("<6>{} is called {name} from now on", link.name);
                // Known at once, so that it is set up under its name and not under both.
                let renamed = Link { name, up: false, ..link.clone() };
                self.hear_renamed(renamed);
                true
            }
            Err(error) => {
                self.problem(format!("{}: cannot be called {name}: {error}", link.name));
                false
            }
        }
    }

    fn hear_renamed(&mut self, link: Link) {
        let index = link.index;
        self.note(Message::Link(link));
        self.managed.remove(&index);
        self.look_at(index);
    }
}
