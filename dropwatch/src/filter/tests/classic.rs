//! The classic BPF machine, as far as libpcap's code for our expressions needs it.

/// One instruction.
#[derive(Clone, Copy, Debug)]
struct Instruction {
    code: u16,
    yes: usize,
    no: usize,
    k: u32,
}

/// A program.
#[derive(Clone, Debug)]
pub struct Program(Vec<Instruction>);

impl Program {
    /// Reads what `tcpdump -ddd` prints: a count, then four numbers on each line.
    pub fn parse(text: &str) -> Self {
        let instruction = |line: &str| {
            let numbers: Vec<u32> = line.split(' ').map(|number| number.parse().expect("a number")).collect();
            let [code, yes, no, k] = numbers[..] else { panic!("four numbers, not {line}") };
            let code = code.try_into().expect("a code");
            Instruction { code, yes: yes as usize, no: no as usize, k }
        };
        Self(text.lines().skip(1).map(instruction).collect())
    }

    /// Whether a frame passes. A load beyond its end refuses it.
    pub fn passes(&self, frame: &[u8]) -> bool {
        self.run(frame).is_some_and(|taken| taken != 0)
    }

    fn run(&self, frame: &[u8]) -> Option<u32> {
        let (mut a, mut x) = (0_u32, 0_u32);
        let mut memory = [0_u32; 16];
        let mut at = 0;
        loop {
            let Instruction { code, yes, no, k } = self.0[at];
            at += 1;
            let jump = |holds: bool| if holds { yes } else { no };
            match code {
                0x00 => a = k,
                0x01 => x = k,
                0x20 => a = load(frame, k, 4)?,
                0x28 => a = load(frame, k, 2)?,
                0x30 => a = load(frame, k, 1)?,
                0x40 => a = load(frame, x.checked_add(k)?, 4)?,
                0x48 => a = load(frame, x.checked_add(k)?, 2)?,
                0x50 => a = load(frame, x.checked_add(k)?, 1)?,
                0x80 => a = u32::try_from(frame.len()).expect("a length"),
                0xb1 => x = (load(frame, k, 1)? & 0xf) * 4,
                0x02 => memory[k as usize] = a,
                0x03 => memory[k as usize] = x,
                0x60 => a = memory[k as usize],
                0x61 => x = memory[k as usize],
                0x04 => a = a.wrapping_add(k),
                0x0c => a = a.wrapping_add(x),
                0x1c => a = a.wrapping_sub(x),
                0x2c => a = a.wrapping_mul(x),
                0x3c => a = a.checked_div(x)?,
                0x4c => a |= x,
                0x5c => a &= x,
                0x6c => a = a.checked_shl(x).unwrap_or(0),
                0x7c => a = a.checked_shr(x).unwrap_or(0),
                0x84 => a = a.wrapping_neg(),
                0x9c => a = a.checked_rem(x)?,
                0xac => a ^= x,
                0x54 => a &= k,
                0x07 => x = a,
                0x87 => a = x,
                0x05 => at += k as usize,
                0x15 => at += jump(a == k),
                0x1d => at += jump(a == x),
                0x2d => at += jump(a > x),
                0x3d => at += jump(a >= x),
                0x25 => at += jump(a > k),
                0x35 => at += jump(a >= k),
                0x45 => at += jump(a & k != 0),
                0x06 => return Some(k),
                _ => panic!("an instruction that nobody expected: {code:#x}"),
            }
        }
    }
}

fn load(frame: &[u8], at: u32, length: usize) -> Option<u32> {
    let at = at as usize;
    let bytes = frame.get(at..at + length)?;
    Some(bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
}
