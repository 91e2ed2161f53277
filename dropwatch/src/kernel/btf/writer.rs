//! Writes type information, for tests.

/// A member of a struct: name, type, offset in bits, number of bits (0: not a bit-field).
pub(crate) type Member<'a> = (&'a str, u32, u32, u32);

/// Collects types. Each method adds one and returns its number.
#[derive(Clone)]
pub(crate) struct Writer {
    big_endian: bool,
    types: Vec<u8>,
    strings: Vec<u8>,
    next_id: u32,
    first_string: u32,
}

impl Writer {
    pub(crate) fn new(big_endian: bool) -> Self {
        Self { big_endian, types: Vec::new(), strings: vec![0], next_id: 1, first_string: 0 }
    }

    /// A writer that continues this one's numbers and strings, as a module does.
    pub(crate) fn split(&self) -> Self {
        let first_string = self.first_string + u32::try_from(self.strings.len()).unwrap();
        Self { types: Vec::new(), strings: Vec::new(), first_string, ..self.clone() }
    }

    pub(crate) fn int(&mut self, name: &str, size: u32) -> u32 {
        self.old_bitfield_int(name, size, 0, size * 8)
    }

    /// An integer of which only some bits count.
    pub(crate) fn old_bitfield_int(&mut self, name: &str, size: u32, start: u32, bits: u32) -> u32 {
        let name = self.string(name);
        self.raw(name, 1, 0, false, size, &[(start << 16) | bits])
    }

    /// Pointers, typedefs, qualifiers, functions: a kind, a name and another type.
    pub(crate) fn reference(&mut self, kind: u32, name: &str, to: u32) -> u32 {
        let name = self.string(name);
        self.raw(name, kind, 0, false, to, &[])
    }

    pub(crate) fn ptr(&mut self, to: u32) -> u32 {
        self.reference(2, "", to)
    }

    pub(crate) fn typedef(&mut self, name: &str, to: u32) -> u32 {
        self.reference(8, name, to)
    }

    pub(crate) fn constant(&mut self, to: u32) -> u32 {
        self.reference(10, "", to)
    }

    pub(crate) fn func(&mut self, name: &str, prototype: u32) -> u32 {
        self.reference(12, name, prototype)
    }

    pub(crate) fn array(&mut self, of: u32, index: u32, elements: u32) -> u32 {
        self.raw(0, 3, 0, false, 0, &[of, index, elements])
    }

    pub(crate) fn structure(&mut self, name: &str, size: u32, members: &[Member<'_>]) -> u32 {
        self.aggregate(4, name, size, members)
    }

    pub(crate) fn union(&mut self, name: &str, size: u32, members: &[Member<'_>]) -> u32 {
        self.aggregate(5, name, size, members)
    }

    fn aggregate(&mut self, kind: u32, name: &str, size: u32, members: &[Member<'_>]) -> u32 {
        let flag = members.iter().any(|member| member.3 > 0);
        let name = self.string(name);
        let tail: Vec<u32> = members
            .iter()
            .flat_map(|&(name, type_id, offset, bits)| [self.string(name), type_id, (bits << 24) | offset])
            .collect();
        self.raw(name, kind, u32::try_from(members.len()).unwrap(), flag, size, &tail)
    }

    pub(crate) fn enumeration(&mut self, name: &str, signed: bool, values: &[(&str, u32)]) -> u32 {
        let name = self.string(name);
        let tail: Vec<u32> = values.iter().flat_map(|&(name, value)| [self.string(name), value]).collect();
        self.raw(name, 6, u32::try_from(values.len()).unwrap(), signed, 4, &tail)
    }

    pub(crate) fn enum64(&mut self, name: &str, signed: bool, values: &[(&str, i64)]) -> u32 {
        let name = self.string(name);
        let tail: Vec<u32> = values
            .iter()
            .flat_map(|&(name, value)| {
                let value = value.cast_unsigned();
                [self.string(name), (value & 0xffff_ffff) as u32, (value >> 32) as u32]
            })
            .collect();
        self.raw(name, 19, u32::try_from(values.len()).unwrap(), signed, 8, &tail)
    }

    pub(crate) fn func_proto(&mut self, parameters: &[u32]) -> u32 {
        let tail: Vec<u32> = parameters.iter().flat_map(|&parameter| [0, parameter]).collect();
        self.raw(0, 13, u32::try_from(parameters.len()).unwrap(), false, 0, &tail)
    }

    /// A tracepoint with that many arguments.
    pub(crate) fn tracepoint(&mut self, name: &str, arguments: usize) -> u32 {
        let void = self.ptr(0);
        let prototype = self.func_proto(&vec![void; arguments + 1]);
        let pointer = self.ptr(prototype);
        self.typedef(&format!("btf_trace_{name}"), pointer)
    }

    /// Any type at all: name offset, kind, count, flag, size or type, what follows.
    pub(crate) fn raw(
        &mut self,
        name: u32,
        kind: u32,
        count: u32,
        flag: bool,
        last: u32,
        tail: &[u32],
    ) -> u32 {
        for word in [name, (u32::from(flag) << 31) | (kind << 24) | count, last].iter().chain(tail) {
            let bytes = if self.big_endian { word.to_be_bytes() } else { word.to_le_bytes() };
            self.types.extend(bytes);
        }
        self.next_id += 1;
        self.next_id - 1
    }

    /// A string's offset; the empty one is always at 0.
    pub(crate) fn string(&mut self, text: &str) -> u32 {
        self.string_bytes(text.as_bytes())
    }

    pub(crate) fn string_bytes(&mut self, text: &[u8]) -> u32 {
        if text.is_empty() {
            return 0;
        }
        let offset = self.first_string + u32::try_from(self.strings.len()).unwrap();
        self.strings.extend(text);
        self.strings.push(0);
        offset
    }

    pub(crate) fn finish(&self) -> Vec<u8> {
        let types_len = u32::try_from(self.types.len()).unwrap();
        let header = [24, 0, types_len, types_len, u32::try_from(self.strings.len()).unwrap()];
        let mut bytes = if self.big_endian { vec![0xeb, 0x9f, 1, 0] } else { vec![0x9f, 0xeb, 1, 0] };
        for word in header {
            bytes.extend(if self.big_endian { word.to_be_bytes() } else { word.to_le_bytes() });
        }
        bytes.extend(&self.types);
        bytes.extend(&self.strings);
        bytes
    }
}
