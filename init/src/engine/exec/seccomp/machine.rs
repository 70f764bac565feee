//! A small interpreter of filters, so that tests see what the kernel would answer, for any architecture.

use super::program::Instruction;

/// What a program answers to a call.
pub fn run(program: &[Instruction], architecture: u32, number: u32, arguments: &[u64]) -> u32 {
    let word = |offset: u32| match offset {
        0 => number,
        4 => architecture,
        other => {
            let (index, high) = ((other - 16) / 8, (other - 16) % 8 == 4);
            let value = arguments.get(index as usize).copied().unwrap_or(0);
            (if high { value >> 32 } else { value }) as u32
        }
    };
    let (mut accumulator, mut position) = (0_u32, 0_usize);
    loop {
        let Instruction { code, jump_true, jump_false, operand } = program[position];
        position += 1;
        let mut branch = |holds: bool| position += usize::from(if holds { jump_true } else { jump_false });
        match u32::from(code) {
            0x20 => accumulator = word(operand),
            0x54 => accumulator &= operand,
            0x15 => branch(accumulator == operand),
            0x25 => branch(accumulator > operand),
            0x06 => return operand,
            other => unreachable!("no such instruction: {other:#x}"),
        }
    }
}
