//! What lies where on the disk, before any of it is written.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::ImageError;
use super::source::{Source, past_end};
use super::sparse::SparseMemory;

/// A run of bytes on the disk.
#[derive(Clone)]
pub struct Segment {
    /// Where on the disk.
    pub disk: Range<u64>,
    source: Arc<dyn Source>,
    source_offset: u64,
}

/// A whole disk: segments in order, and holes that read as zeros between them.
#[derive(Clone)]
pub struct DiskPlan {
    size: u64,
    segments: Vec<Segment>,
}

impl DiskPlan {
    /// A disk of one hole.
    #[must_use]
    pub fn new(size: u64) -> Self {
        Self { size, segments: Vec::new() }
    }

    /// Bytes of the disk.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The segments in order.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Puts a whole source at a place.
    ///
    /// # Errors
    /// When something is there already or the disk ends before.
    pub fn place(&mut self, offset: u64, source: Arc<dyn Source>) -> Result<(), ImageError> {
        let size = source.size();
        self.place_range(offset, source, 0..size)
    }

    /// Puts what was written of a sparse memory at a place, and leaves the rest a hole.
    ///
    /// # Errors
    /// When something is there already or the disk ends before.
    pub fn place_sparse(&mut self, offset: u64, memory: SparseMemory) -> Result<(), ImageError> {
        let memory = Arc::new(memory);
        for extent in memory.extents() {
            let source: Arc<dyn Source> = Arc::<SparseMemory>::clone(&memory);
            self.place_range(offset + extent.start, source, extent)?;
        }
        Ok(())
    }

    fn place_range(&mut self, offset: u64, source: Arc<dyn Source>, range: Range<u64>) -> Result<(), ImageError> {
        let disk = offset..offset + (range.end - range.start);
        if disk.is_empty() {
            return Ok(());
        }
        let index = self.segments.partition_point(|segment| segment.disk.start < disk.start);
        let before = index.checked_sub(1).and_then(|index| self.segments.get(index));
        let overlaps = before.is_some_and(|before| before.disk.end > disk.start)
            || self.segments.get(index).is_some_and(|after| after.disk.start < disk.end)
            || disk.end > self.size;
        if overlaps {
            return Err(ImageError::Overlap(disk.start));
        }
        self.segments.insert(index, Segment { disk, source, source_offset: range.start });
        Ok(())
    }

    /// Whether a range is nothing but hole.
    #[must_use]
    pub fn is_hole(&self, range: &Range<u64>) -> bool {
        let index = self.segments.partition_point(|segment| segment.disk.end <= range.start);
        self.segments.get(index).is_none_or(|segment| segment.disk.start >= range.end)
    }

    /// How many bytes of a range hold data.
    #[must_use]
    pub fn data_in(&self, range: &Range<u64>) -> u64 {
        let first = self.segments.partition_point(|segment| segment.disk.end <= range.start);
        let inside = self.segments.iter().skip(first).take_while(|segment| segment.disk.start < range.end);
        inside.map(|segment| segment.disk.end.min(range.end) - segment.disk.start.max(range.start)).sum()
    }

    /// The ranges that hold data, widened to a multiple of `unit` and then joined.
    #[must_use]
    pub fn data_ranges(&self, unit: u64) -> Vec<Range<u64>> {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for segment in &self.segments {
            let start = segment.disk.start / unit * unit;
            let end = segment.disk.end.next_multiple_of(unit).min(self.size);
            match ranges.last_mut() {
                Some(last) if last.end >= start => last.end = last.end.max(end),
                _ => ranges.push(start..end),
            }
        }
        ranges
    }
}

impl Source for DiskPlan {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64).filter(|&end| end <= self.size).ok_or_else(past_end)?;
        let first = self.segments.partition_point(|segment| segment.disk.end <= offset);
        let (mut rest, mut at) = (buffer, offset);
        for segment in self.segments.iter().skip(first).take_while(|segment| segment.disk.start < end) {
            let hole = usize::try_from(segment.disk.start.saturating_sub(at)).unwrap_or(usize::MAX).min(rest.len());
            let (zeros, data) = rest.split_at_mut(hole);
            zeros.fill(0);
            at += hole as u64;
            let len = usize::try_from(segment.disk.end - at).unwrap_or(usize::MAX).min(data.len());
            let (part, later) = data.split_at_mut(len);
            segment.source.read_at(part, segment.source_offset + (at - segment.disk.start))?;
            at += len as u64;
            rest = later;
        }
        rest.fill(0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> DiskPlan {
        let mut plan = DiskPlan::new(100);
        plan.place(50, Arc::new(vec![2; 10])).unwrap();
        plan.place(10, Arc::new(vec![1; 10])).unwrap();
        plan.place(60, Arc::new(vec![3; 5])).unwrap();
        plan
    }

    #[test]
    fn holes_read_as_zeros() {
        let mut bytes = [9; 100];
        plan().read_at(&mut bytes, 0).unwrap();
        let mut expected = [0; 100];
        expected[10..20].fill(1);
        expected[50..60].fill(2);
        expected[60..65].fill(3);
        assert_eq!(bytes, expected);
        for (start, len) in [(0, 5), (15, 40), (19, 1), (58, 4), (64, 36), (70, 30)] {
            let mut part = vec![9; len];
            plan().read_at(&mut part, start as u64).unwrap();
            assert_eq!(part, expected[start..start + len], "{start}+{len}");
        }
        assert!(plan().read_at(&mut [0; 2], 99).is_err());
    }

    #[test]
    fn parts_cannot_overlap() {
        for (offset, len) in [(0, 11), (19, 1), (15, 2), (55, 1), (49, 2), (95, 6)] {
            assert!(plan().place(offset, Arc::new(vec![0; len])).is_err(), "{offset}+{len}");
        }
        plan().place(20, Arc::new(vec![0; 30])).unwrap();
    }

    #[test]
    fn data_in_units() {
        assert_eq!(plan().data_ranges(16), [0..32, 48..80]);
        assert_eq!((plan().data_in(&(15..52)), plan().data_in(&(0..100)), plan().data_in(&(65..70))), (7, 25, 0));
        assert!(plan().is_hole(&(20..50)) && !plan().is_hole(&(20..51)) && plan().is_hole(&(65..100)));
    }
}
