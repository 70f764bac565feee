//! Puts BPF programs together: the few instructions that filters need, and jumps to what comes later. Encodings are those of the
//! kernel's `Documentation/bpf/standardization/instruction-set.rst`.

use std::io;

use crate::sys::bpf::Instruction;

/// A register. The first argument (the context) comes in 1, the verdict goes out in 0, calls destroy 1 to 5, 10 is the stack's end.
pub type Register = u8;

/// A program that grows.
#[derive(Default)]
pub struct Program(Vec<Instruction>);

/// A jump whose target is not known yet.
#[must_use]
pub struct Jump(usize);

impl Program {
    fn push(&mut self, code: u8, destination: Register, source: Register, offset: i16, immediate: i32) {
        self.0.push(Instruction { code, registers: destination | source << 4, offset, immediate });
    }

    /// The 32 bits at an address and offset.
    pub fn load_word(&mut self, to: Register, address: Register, offset: i16) {
        self.push(0x61, to, address, offset, 0);
    }

    /// All of a register.
    pub fn copy(&mut self, to: Register, from: Register) {
        self.push(0xbf, to, from, 0, 0);
    }

    /// A constant.
    pub fn set(&mut self, to: Register, value: i32) {
        self.push(0xb7, to, 0, 0, value);
    }

    /// Adds a constant to an address.
    pub fn add(&mut self, to: Register, value: i32) {
        self.push(0x07, to, 0, 0, value);
    }

    /// Keeps some of a register's lower 32 bits.
    pub fn and(&mut self, to: Register, mask: u32) {
        self.push(0x54, to, 0, 0, mask.cast_signed());
    }

    /// Shifts a register's lower 32 bits to the right.
    pub fn shift_right(&mut self, to: Register, bits: i32) {
        self.push(0x74, to, 0, 0, bits);
    }

    /// Calls one of the kernel's helpers.
    pub fn call(&mut self, helper: i32) {
        self.push(0x85, 0, 0, 0, helper);
    }

    /// Ends the program.
    pub fn verdict(&mut self, allowed: bool) {
        self.set(0, i32::from(allowed));
        self.push(0x95, 0, 0, 0, 0);
    }

    /// Jumps when a register's lower 32 bits are not the value.
    pub fn jump_unless(&mut self, register: Register, value: u32) -> Jump {
        self.push(0x56, register, 0, 0, value.cast_signed());
        Jump(self.0.len() - 1)
    }

    /// Jumps when a register's lower 32 bits are the value.
    pub fn jump_if(&mut self, register: Register, value: u32) -> Jump {
        self.push(0x16, register, 0, 0, value.cast_signed());
        Jump(self.0.len() - 1)
    }

    /// Jumps end here.
    ///
    /// # Errors
    /// When one is too far away: more rules than a program can have.
    pub fn land(&mut self, jumps: impl IntoIterator<Item = Jump>) -> io::Result<()> {
        let here = self.0.len();
        for Jump(at) in jumps {
            let distance = i16::try_from(here - at - 1).map_err(|_| io::Error::other("it has too many rules"))?;
            if let Some(instruction) = self.0.get_mut(at) {
                instruction.offset = distance;
            }
        }
        Ok(())
    }

    /// The instructions.
    pub fn finish(self) -> Vec<Instruction> {
        self.0
    }
}

/// A machine for tests: runs a program over a context of words and the bytes of a packet.
#[cfg(test)]
pub fn execute(program: &[Instruction], context: &[u32], packet: &[u8]) -> bool {
    const LOAD_BYTES: i32 = 26;
    const STACK: usize = 512;
    let (mut registers, mut stack, mut at) = ([0_u64; 11], [0_u8; STACK], 0);
    // The context is at 4096, the stack ends at 1 MiB; memory is never mixed up with that.
    (registers[1], registers[10]) = (4096, 1 << 20);
    for _ in 0..10_000 {
        let Instruction { code, registers: both, offset, immediate } = program[at];
        let (to, from) = (usize::from(both & 15), usize::from(both >> 4));
        let word = registers[to] as u32;
        at += 1;
        match code {
            0x61 => {
                let address = registers[from].wrapping_add_signed(i64::from(offset));
                registers[to] = u64::from(if address >= (1 << 20) - STACK as u64 {
                    let start = (address + STACK as u64 - (1 << 20)) as usize;
                    u32::from_le_bytes(stack[start..start + 4].try_into().unwrap())
                } else {
                    context[(address as usize - 4096) / 4]
                });
            }
            0xbf => registers[to] = registers[from],
            0xb7 => registers[to] = i64::from(immediate) as u64,
            0x07 => registers[to] = registers[to].wrapping_add_signed(i64::from(immediate)),
            0x54 => registers[to] = u64::from(word & immediate as u32),
            0x74 => registers[to] = u64::from(word >> immediate),
            0x56 if word != immediate as u32 => at += usize::try_from(offset).unwrap(),
            0x16 if word == immediate as u32 => at += usize::try_from(offset).unwrap(),
            0x16 | 0x56 => {}
            0x85 => {
                assert_eq!(immediate, LOAD_BYTES);
                let (from, to, length) = (registers[2] as usize, registers[3] as usize + STACK - (1 << 20), registers[4] as usize);
                registers[0] = match packet.get(from..from + length) {
                    Some(bytes) => {
                        stack[to..to + length].copy_from_slice(bytes);
                        0
                    }
                    None => u64::MAX,
                };
                registers[1..6].fill(0xdead);
            }
            0x95 => return registers[0] == 1,
            other => unreachable!("no such instruction: {other:#x}"),
        }
    }
    unreachable!("the program does not end");
}
