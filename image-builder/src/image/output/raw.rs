//! The disk byte for byte. Holes of the plan are holes of the file.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::Writer;
use crate::image::plan::DiskPlan;
use crate::image::source::Source;

const BUFFER: u64 = 4 << 20;

pub struct Raw;

impl Writer for Raw {
    fn write(&self, plan: &DiskPlan, output: &mut File, done: &(dyn Fn(u64) + Sync)) -> io::Result<()> {
        output.set_len(plan.size())?;
        let mut buffer = vec![0; BUFFER as usize];
        for range in plan.data_ranges(1) {
            let mut at = range.start;
            while at < range.end {
                let len = (range.end - at).min(BUFFER);
                let (part, _) = buffer.split_at_mut(len as usize);
                plan.read_at(part, at)?;
                output.write_all_at(part, at)?;
                done(len);
                at += len;
            }
        }
        Ok(())
    }
}
