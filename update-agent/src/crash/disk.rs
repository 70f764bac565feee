//! A disk in memory that remembers every sector written to it, and which writes were flushed when.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::ops::Range;
use std::sync::Arc;

use disk_layout::SlotName;
use disk_layout::gpt::Geometry;

use crate::target::{Area, Target};

pub const SECTOR: u64 = 512;
pub type Sector = Arc<[u8; 512]>;

/// Byte ranges of the partitions.
#[derive(Clone, Debug)]
pub struct Layout {
    pub esp: Range<u64>,
    pub roots: [Range<u64>; 2],
    pub verities: [Range<u64>; 2],
    pub state: Range<u64>,
    pub size: u64,
}

/// What happened to the disk.
#[derive(Clone, Debug)]
pub enum Event {
    /// A sector was written through an area.
    Write(Area, u64, Sector),
    /// An area was flushed.
    Sync(Area),
}

/// Contents: a shared base and what was written since.
#[derive(Clone)]
pub struct Image {
    pub base: Arc<Vec<u8>>,
    pub layout: Layout,
    pub written: BTreeMap<u64, Sector>,
}

impl Image {
    pub fn new(layout: Layout) -> Self {
        Self { base: Arc::new(vec![0; layout.size as usize]), layout, written: BTreeMap::new() }
    }

    pub fn sector(&self, number: u64) -> [u8; 512] {
        match self.written.get(&number) {
            Some(sector) => **sector,
            None => self.base[(number * SECTOR) as usize..][..512].try_into().unwrap(),
        }
    }

    pub fn read(&self, at: u64, buffer: &mut [u8]) {
        let end = at + buffer.len() as u64;
        buffer.copy_from_slice(&self.base[at as usize..end as usize]);
        for (number, sector) in self.written.range(at / SECTOR..end.div_ceil(SECTOR)) {
            let start = number * SECTOR;
            let (from, to) = (start.max(at), (start + SECTOR).min(end));
            buffer[(from - at) as usize..(to - at) as usize].copy_from_slice(&sector[(from - start) as usize..(to - start) as usize]);
        }
    }

    /// Makes what was written the new base.
    pub fn flatten(&mut self) {
        let mut bytes = (*self.base).clone();
        for (number, sector) in std::mem::take(&mut self.written) {
            bytes[(number * SECTOR) as usize..][..512].copy_from_slice(&sector[..]);
        }
        self.base = Arc::new(bytes);
    }

    /// Distinguishes contents over one base.
    pub fn identity(&self) -> u64 {
        self.written.iter().fold(0, |sum, (number, sector)| {
            if self.base[(number * SECTOR) as usize..][..512] == sector[..] {
                return sum;
            }
            let mut hasher = DefaultHasher::new();
            (number, &sector[..]).hash(&mut hasher);
            sum ^ hasher.finish()
        })
    }
}

/// A disk that records.
pub struct Disk {
    pub image: RefCell<Image>,
    pub log: RefCell<Vec<Event>>,
    /// Writes that may still succeed; then the device fails. For tests of errors.
    pub budget: Cell<Option<u64>>,
}

impl Disk {
    pub fn new(image: Image) -> Self {
        Self { image: RefCell::new(image), log: RefCell::default(), budget: Cell::new(None) }
    }

    /// The power fails: only what was flushed is left.
    pub fn lose_what_was_not_flushed(&self) {
        let mut durable = BTreeMap::new();
        let mut pending: Vec<(Area, u64, Sector)> = Vec::new();
        for event in self.log.borrow().iter() {
            match event {
                Event::Write(area, number, sector) => pending.push((*area, *number, sector.clone())),
                Event::Sync(area) => {
                    durable.extend(pending.extract_if(.., |(of, ..)| of == area).map(|(_, number, sector)| (number, sector)));
                }
            }
        }
        self.image.borrow_mut().written = durable;
    }

    fn range(&self, area: Area) -> Range<u64> {
        let layout = &self.image.borrow().layout;
        let index = |slot: SlotName| usize::from(slot == SlotName::B);
        match area {
            Area::Disk => 0..layout.size,
            Area::Esp => layout.esp.clone(),
            Area::Root(slot) => layout.roots[index(slot)].clone(),
            Area::Verity(slot) => layout.verities[index(slot)].clone(),
        }
    }

    fn at(&self, area: Area, offset: u64, len: usize) -> io::Result<u64> {
        let range = self.range(area);
        let at = range.start + offset;
        if at + len as u64 > range.end { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(at) }
    }
}

impl Target for Disk {
    fn len(&self, area: Area) -> io::Result<u64> {
        let range = self.range(area);
        Ok(range.end - range.start)
    }

    fn geometry(&self) -> Geometry {
        Geometry { block_size: SECTOR, blocks: self.image.borrow().layout.size / SECTOR }
    }

    fn read(&self, area: Area, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let at = self.at(area, offset, buffer.len())?;
        self.image.borrow().read(at, buffer);
        Ok(())
    }

    fn write(&self, area: Area, offset: u64, data: &[u8]) -> io::Result<()> {
        let at = self.at(area, offset, data.len())?;
        let end = at + data.len() as u64;
        for number in at / SECTOR..end.div_ceil(SECTOR) {
            if let Some(left) = self.budget.get() {
                if left == 0 {
                    return Err(io::Error::other("the device failed"));
                }
                self.budget.set(Some(left - 1));
            }
            let start = number * SECTOR;
            let mut sector = self.image.borrow().sector(number);
            let (from, to) = (start.max(at), (start + SECTOR).min(end));
            sector[(from - start) as usize..(to - start) as usize].copy_from_slice(&data[(from - at) as usize..(to - at) as usize]);
            let sector = Arc::new(sector);
            self.image.borrow_mut().written.insert(number, sector.clone());
            self.log.borrow_mut().push(Event::Write(area, number, sector));
        }
        Ok(())
    }

    fn sync(&self, area: Area) -> io::Result<()> {
        self.log.borrow_mut().push(Event::Sync(area));
        Ok(())
    }
}
