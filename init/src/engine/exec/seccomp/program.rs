//! Instructions of the kernel's classic packet filter, as far as system call filters need them.

/// One instruction: `struct sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// What to do.
    pub code: u16,
    /// How many instructions to skip when a comparison holds.
    pub jump_true: u8,
    /// How many when not.
    pub jump_false: u8,
    /// The operand.
    pub operand: u32,
}

impl Instruction {
    /// As the kernel reads it.
    #[must_use]
    pub fn raw(&self) -> libc::sock_filter {
        libc::sock_filter { code: self.code, jt: self.jump_true, jf: self.jump_false, k: self.operand }
    }
}

/// Offset of the call's number in what the kernel passes.
pub const NUMBER: u32 = 0;
/// Offset of the architecture.
pub const ARCHITECTURE: u32 = 4;

/// Offset of the lower half of an argument: both architectures put it first.
pub const fn argument(index: u8) -> u32 {
    16 + 8 * index as u32
}

const fn instruction(code: u32, operand: u32, jump_true: u8, jump_false: u8) -> Instruction {
    Instruction { code: code as u16, jump_true, jump_false, operand }
}

/// Loads a word.
pub const fn load(offset: u32) -> Instruction {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0)
}

/// Keeps some bits of the word.
pub const fn and(mask: u32) -> Instruction {
    instruction(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, mask, 0, 0)
}

/// Skips when the word is a value.
pub const fn if_equal(value: u32, jump_true: u8, jump_false: u8) -> Instruction {
    instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value, jump_true, jump_false)
}

/// Skips when the word is above a value.
pub const fn if_above(value: u32, jump_true: u8, jump_false: u8) -> Instruction {
    instruction(libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K, value, jump_true, jump_false)
}

/// Ends with an answer.
pub const fn answer(value: u32) -> Instruction {
    instruction(libc::BPF_RET | libc::BPF_K, value, 0, 0)
}
