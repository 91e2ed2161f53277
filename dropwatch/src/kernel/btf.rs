//! The kernel's type information (BTF): what the running kernel says about its own structs, enums and
//! tracepoints.
//!
//! A reader of bytes and nothing else: [`Btf::parse`] checks and indexes them once, the queries walk them in
//! place. Parsing costs four bytes of memory per type; nothing else is allocated.
//!
//! The bytes come from the kernel but are not trusted: whatever they hold, a query ends, in time proportional
//! to their length, and does not panic. Numbers of either byte order are read.
//!
//! The format is described in the kernel's [documentation](https://docs.kernel.org/bpf/btf.html).

mod prototypes;
mod sysfs;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod writer;

use std::{borrow::Cow, iter, ops::Range};

pub use prototypes::{HOOK_STATE, PACKET, Prototype, Returns};
pub use sysfs::{DIRECTORY, KernelBtf, LoadError, VMLINUX, modules, read, read_vmlinux};

const MAGIC: u16 = 0xeb9f;
const VERSION: u8 = 1;
/// The header's length in the first version of the format; later ones only add to it.
const HEADER_LEN: usize = 24;
/// Every type starts with its name's offset, its kind and count, and a size or another type's number.
const TYPE_LEN: usize = 12;
/// A member of a struct, a value of a 64-bit enum: three words.
const MEMBER_LEN: usize = 12;
/// A value of a 32-bit enum: two words.
const ENUM_LEN: usize = 8;
/// How many typedefs, qualifiers and arrays are followed before a chain is taken for a cycle: the kernel's
/// own limit.
const MAX_CHAIN: usize = 32;
/// How many members one look-up visits. The largest structs of the kernel have some hundreds.
const MAX_VISITS: usize = 1 << 16;
/// How long a name is looked at: the kernel's symbols have at most 512 bytes.
const MAX_NAME: usize = 512;

/// Why bytes could not be read as type information.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not type information at all.
    #[error("not BTF: it starts with {0:02x?}")]
    Magic([u8; 2]),
    /// Another major format, of which nothing is known.
    #[error("unknown BTF version {0}, expected {VERSION}")]
    Version(u8),
    /// A part reaches past the end of what holds it.
    #[error("the BTF is truncated: {part} reaches to byte {end} of {len}")]
    Truncated {
        /// What does not fit.
        part: &'static str,
        /// Where it ends.
        end: u64,
        /// Where it would have to end.
        len: usize,
    },
    /// A kind of type made after this program. Its size is unknown, so what follows it cannot be read.
    #[error("BTF type {id} has the unknown kind {kind}")]
    UnknownKind {
        /// The type's number.
        id: u32,
        /// The kind's number.
        kind: u8,
    },
    /// A module's type information does not go with that of the kernel.
    #[error("the BTF of a module has another byte order than the kernel's")]
    ByteOrder,
    /// Together with those of its base, types or strings are more than 32 bits can count.
    #[error("the BTF has more types or strings than can be numbered")]
    TooLarge,
}

/// Type information, checked and indexed.
///
/// A look-up by name searches this type information first, then its base if it has one, and takes the first
/// type that answers: the kernel's own may hold several types of one name, and forward declarations.
#[derive(Debug)]
pub struct Btf<'a> {
    order: Order,
    bytes: Cow<'a, [u8]>,
    /// Where the types are in `bytes`.
    types: Range<usize>,
    /// Where the strings are in `bytes`.
    strings: Range<usize>,
    /// Where each type starts in the types.
    offsets: Vec<u32>,
    /// How the name of each type begins: look-ups by name compare these, and read the types that may be the one.
    beginnings: Vec<u64>,
    /// The number of the type at `offsets[0]`: those below are the base's, 0 is `void`.
    first_id: u32,
    /// The offset of `strings[0]`: those below are in the base.
    first_string: u32,
    base: Option<&'a Btf<'a>>,
}

/// What a tracepoint hands to a raw tracepoint program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tracepoint {
    /// The number of its type, by which a program with typed arguments is attached.
    pub type_id: u32,
    /// How many arguments.
    pub arguments: usize,
}

/// Where a member lies in its struct.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// From the start of the outermost struct, in bytes. For a bit-field: the byte that holds its first bit.
    pub offset_bytes: u32,
    /// In bytes; of the whole array for an array (0 for a flexible one). For a bit-field: the bytes it
    /// touches.
    pub size: u32,
    /// Only for a bit-field.
    pub bitfield: Option<Bitfield>,
    /// The number of the member's type as declared, typedefs and qualifiers included.
    pub type_id: u32,
}

/// Which bits of a struct a bit-field has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bitfield {
    /// From the start of the outermost struct, in bits: counted from the least significant bit of a byte on a
    /// little-endian machine, from the most significant one on a big-endian machine.
    pub bit_offset: u32,
    /// How many bits.
    pub bits: u8,
}

/// A struct or union, found once for all of its members.
#[derive(Clone, Copy, Debug)]
pub struct Aggregate<'a> {
    btf: &'a Btf<'a>,
    decl: Type<'a>,
}

/// An enum that has a name and values.
#[derive(Clone, Copy, Debug)]
pub struct Enum<'a> {
    btf: &'a Btf<'a>,
    decl: Type<'a>,
    name: &'a str,
}

/// What the pieces of type information look like. Numbers are those of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Int,
    Ptr,
    Array,
    Struct,
    Union,
    Enum,
    Fwd,
    Typedef,
    Volatile,
    Const,
    Restrict,
    Func,
    FuncProto,
    Var,
    Datasec,
    Float,
    DeclTag,
    TypeTag,
    Enum64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Little,
    Big,
}

/// One type, its numbers decoded.
#[derive(Clone, Copy, Debug)]
struct Type<'a> {
    order: Order,
    name: u32,
    kind: Kind,
    /// How many members, values or parameters.
    count: usize,
    /// The kind's flag: members may be bit-fields, values are signed.
    flag: bool,
    /// A size in bytes or another type's number, as the kind has it.
    size_or_id: u32,
    /// What follows: members, values, parameters.
    tail: &'a [u8],
}

/// A member as it stands in its struct.
#[derive(Clone, Copy)]
struct Member {
    name: u32,
    type_id: u32,
    bit_offset: u64,
    /// 0: not a bit-field.
    bits: u8,
}

impl<'a> Btf<'a> {
    /// Reads the type information of a kernel (`/sys/kernel/btf/vmlinux`, since Linux 5.4).
    ///
    /// # Errors
    /// If the bytes are not type information, are cut short, or hold a kind of type made after this program.
    pub fn parse(bytes: impl Into<Cow<'a, [u8]>>) -> Result<Self, Error> {
        Self::index(bytes.into(), None)
    }

    /// Reads the type information of a module (`/sys/kernel/btf/MODULE`, since Linux 5.11), which continues
    /// the numbers and strings of the kernel it was built for.
    ///
    /// # Errors
    /// Those of [`Btf::parse`], and if the two cannot belong together.
    pub fn parse_split(bytes: impl Into<Cow<'a, [u8]>>, base: &'a Btf<'a>) -> Result<Self, Error> {
        Self::index(bytes.into(), Some(base))
    }

    fn index(bytes: Cow<'a, [u8]>, base: Option<&'a Btf<'a>>) -> Result<Self, Error> {
        let (order, types, strings) = sections(&bytes)?;
        if base.is_some_and(|base| base.order != order) {
            return Err(Error::ByteOrder);
        }
        let first_id = base.map_or(Some(1), Btf::end_id).ok_or(Error::TooLarge)?;
        let first_string = base.map_or(Some(0), Btf::end_string).ok_or(Error::TooLarge)?;
        let offsets = type_offsets(order, &bytes[types.clone()], first_id)?;
        let mut btf = Self {
            order,
            bytes,
            types,
            strings,
            offsets,
            beginnings: Vec::new(),
            first_id,
            first_string,
            base,
        };
        btf.beginnings = btf.offsets.iter().map(|at| btf.beginning_at(*at)).collect();
        btf.end_id().and(btf.end_string()).ok_or(Error::TooLarge)?;
        Ok(btf)
    }

    /// The values of an enum, in the kernel's order. An enum may give one value several names.
    ///
    /// Signed values are as they are; unsigned ones over [`i64::MAX`], which only a 64-bit enum can have,
    /// wrap.
    #[must_use]
    pub fn enum_values(&self, name: &str) -> Option<Vec<(&str, i64)>> {
        self.enums_called(name).next().map(|found| found.values().collect())
    }

    /// Every enum of this type information (not of its base) that has a name and values.
    pub fn enums(&self) -> impl Iterator<Item = Enum<'_>> {
        self.own_types()
            .filter(Type::is_enum)
            .filter_map(|decl| Some(Enum { btf: self, decl, name: self.string(decl.name)? }))
            .filter(|found| !found.name.is_empty())
    }

    /// A tracepoint, by its name.
    ///
    /// From the typedef `btf_trace_NAME` (since Linux 5.5): a pointer to a function whose first parameter is
    /// the tracepoint's private one and does not count.
    #[must_use]
    pub fn tracepoint(&self, name: &str) -> Option<Tracepoint> {
        let name = format!("btf_trace_{name}");
        self.numbered(&name).find_map(|(type_id, decl)| {
            let pointer = self.resolve(decl.of(Kind::Typedef)?)?;
            let prototype = self.resolve(pointer.of(Kind::Ptr)?)?;
            prototype.of(Kind::FuncProto)?;
            Some(Tracepoint { type_id, arguments: prototype.count.checked_sub(1)? })
        })
    }

    /// Where a member lies, such as `len` of `sk_buff`, `nd_net.net` of `net_device`.
    ///
    /// A name is searched inside anonymous structs and unions too, as in C. A path goes through structs and
    /// unions that lie inside each other (through typedefs and qualifiers), not through pointers or arrays.
    /// `None` if there is no such struct, union or member, or if the member has no size.
    #[must_use]
    pub fn field(&self, aggregate: &str, path: &str) -> Option<Field> {
        let mut visits = MAX_VISITS;
        self.types_called(aggregate)
            .filter(Type::is_aggregate)
            .find_map(|decl| self.field_of(decl, path, &mut visits))
    }

    /// The first struct or union of a name that has members.
    #[must_use]
    pub fn aggregate(&self, name: &str) -> Option<Aggregate<'_>> {
        let decl = self.types_called(name).find(|decl| decl.is_aggregate() && decl.count > 0)?;
        Some(Aggregate { btf: self, decl })
    }

    /// Whether the kernel or module has a function of that name.
    ///
    /// Functions the compiler changed or inlined away are not described: a `false` is no proof for small
    /// ones.
    #[must_use]
    pub fn has_function(&self, name: &str) -> bool {
        self.types_called(name).any(|decl| decl.kind == Kind::Func)
    }

    /// The number of a function's type.
    #[must_use]
    pub fn function(&self, name: &str) -> Option<u32> {
        self.numbered(name).find_map(|(type_id, decl)| (decl.kind == Kind::Func).then_some(type_id))
    }

    /// How many types there are, with those of the base and without `void`.
    #[must_use]
    pub fn type_count(&self) -> usize {
        self.offsets.len() + self.base.map_or(0, Btf::type_count)
    }

    /// All of it, as the kernel shows it.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn types(&self) -> &[u8] {
        &self.bytes[self.types.clone()]
    }

    fn strings(&self) -> &[u8] {
        &self.bytes[self.strings.clone()]
    }

    fn end_id(&self) -> Option<u32> {
        self.first_id.checked_add(u32::try_from(self.offsets.len()).ok()?)
    }

    fn end_string(&self) -> Option<u32> {
        self.first_string.checked_add(u32::try_from(self.strings.len()).ok()?)
    }

    /// This type information, then its base.
    fn layers(&self) -> impl Iterator<Item = &Btf<'a>> {
        iter::successors(Some(self), |btf| btf.base)
    }

    fn own_types(&self) -> impl Iterator<Item = Type<'_>> {
        self.offsets.iter().filter_map(|&at| Type::read(self.order, self.types(), at as usize))
    }

    /// How the name of the type at an offset begins.
    fn beginning_at(&self, at: u32) -> u64 {
        let name = self.order.word(self.types(), at as usize).and_then(|name| self.string_bytes(name));
        beginning(name.unwrap_or_default())
    }

    /// Its own types of a name, with their numbers.
    fn own_called(&self, name: &str) -> impl Iterator<Item = (u32, Type<'_>)> {
        let wanted = beginning(name.as_bytes());
        let candidates = (self.first_id..).zip(&self.offsets).zip(&self.beginnings);
        candidates
            .filter(move |(_, found)| **found == wanted)
            .filter_map(|((id, at), _)| Some((id, Type::read(self.order, self.types(), *at as usize)?)))
            .filter(move |(_, decl)| self.is_called(decl.name, name))
    }

    /// The types of a name, with their numbers.
    fn numbered(&self, name: &str) -> impl Iterator<Item = (u32, Type<'_>)> {
        self.layers().flat_map(move |btf| btf.own_called(name))
    }

    fn types_called(&self, name: &str) -> impl Iterator<Item = Type<'_>> {
        self.numbered(name).map(|(_, decl)| decl)
    }

    fn enums_called(&self, name: &str) -> impl Iterator<Item = Enum<'_>> {
        self.layers().flat_map(move |btf| {
            btf.own_called(name)
                .filter(|(_, decl)| decl.is_enum())
                .filter_map(move |(_, decl)| Some(Enum { btf, decl, name: btf.string(decl.name)? }))
        })
    }

    fn get(&self, id: u32) -> Option<Type<'_>> {
        let layer = self.layers().find(|btf| id >= btf.first_id)?;
        let at = *layer.offsets.get((id - layer.first_id) as usize)?;
        Type::read(layer.order, layer.types(), at as usize)
    }

    /// The bytes from a string's start to the end of all strings.
    fn string_bytes(&self, offset: u32) -> Option<&[u8]> {
        let layer = self.layers().find(|btf| offset >= btf.first_string)?;
        layer.strings().get((offset - layer.first_string) as usize..)
    }

    /// A name; `None` if there is none at that offset, if it does not end, or if it is not UTF-8.
    fn string(&self, offset: u32) -> Option<&str> {
        let bytes = self.string_bytes(offset)?;
        let bytes = &bytes[..bytes.len().min(MAX_NAME)];
        let end = memchr::memchr(0, bytes)?;
        std::str::from_utf8(&bytes[..end]).ok()
    }

    /// Whether a name is this one, without looking for its end.
    fn is_called(&self, offset: u32, name: &str) -> bool {
        self.string_bytes(offset)
            .and_then(|bytes| bytes.strip_prefix(name.as_bytes()))
            .is_some_and(|rest| rest.first() == Some(&0))
    }

    /// The type behind typedefs and qualifiers.
    fn resolve(&self, id: u32) -> Option<Type<'_>> {
        let mut decl = self.get(id)?;
        for _ in 0..MAX_CHAIN {
            if !decl.is_modifier() {
                return Some(decl);
            }
            decl = self.get(decl.size_or_id)?;
        }
        None
    }

    /// A type's size in bytes.
    fn size(&self, id: u32) -> Option<u32> {
        let mut decl = self.resolve(id)?;
        let mut elements = 1_u32;
        for _ in 0..MAX_CHAIN {
            match decl.kind {
                Kind::Int | Kind::Struct | Kind::Union | Kind::Enum | Kind::Enum64 | Kind::Float => {
                    return elements.checked_mul(decl.size_or_id);
                }
                Kind::Ptr => return elements.checked_mul(self.pointer_size()),
                Kind::Array => {
                    elements = elements.checked_mul(decl.word(8)?)?;
                    decl = self.resolve(decl.word(0)?)?;
                }
                _ => return None,
            }
        }
        None
    }

    /// The size of `long`, which is that of a pointer: pointers themselves come without one.
    fn pointer_size(&self) -> u32 {
        let base = self.layers().last().unwrap_or(self);
        ["long unsigned int", "unsigned long"]
            .iter()
            .flat_map(|name| base.own_called(name))
            .find(|(_, decl)| decl.kind == Kind::Int)
            .map_or(8, |(_, decl)| decl.size_or_id)
    }

    fn field_of(&self, outer: Type<'_>, path: &str, visits: &mut usize) -> Option<Field> {
        let mut components = path.split('.');
        let mut member = self.member(outer, components.next()?, visits)?;
        for component in components {
            let inner = self.resolve(member.type_id).filter(Type::is_aggregate)?;
            let next = self.member(inner, component, visits)?;
            member = Member { bit_offset: member.bit_offset.checked_add(next.bit_offset)?, ..next };
        }
        let offset_bytes = u32::try_from(member.bit_offset / 8).ok()?;
        if member.bits == 0 {
            let size = self.size(member.type_id)?;
            return Some(Field { offset_bytes, size, bitfield: None, type_id: member.type_id });
        }
        let bit_offset = u32::try_from(member.bit_offset).ok()?;
        let size = (bit_offset % 8 + u32::from(member.bits)).div_ceil(8);
        let bitfield = Some(Bitfield { bit_offset, bits: member.bits });
        Some(Field { offset_bytes, size, bitfield, type_id: member.type_id })
    }

    /// A member by its name, in the struct itself or in the anonymous ones inside.
    ///
    /// The order of the search does not matter: C allows each name once. Types that hold themselves are
    /// stopped by the number of visits.
    fn member(&self, outer: Type<'_>, name: &str, visits: &mut usize) -> Option<Member> {
        if name.is_empty() {
            return None;
        }
        let mut open = vec![(outer, 0_u64)];
        while let Some((aggregate, start)) = open.pop() {
            for member in aggregate.members() {
                *visits = visits.checked_sub(1)?;
                let bit_offset = start.checked_add(member.bit_offset)?;
                if self.is_called(member.name, name) {
                    return Some(self.with_old_bitfield(Member { bit_offset, ..member }));
                }
                if self.is_called(member.name, "") {
                    let inner = self.resolve(member.type_id).filter(Type::is_aggregate);
                    open.extend(inner.map(|inner| (inner, bit_offset)));
                }
            }
        }
        None
    }

    /// In structs without the flag, which compilers wrote before 2019, an integer type says which of its bits
    /// count.
    fn with_old_bitfield(&self, member: Member) -> Member {
        let encoding = self.resolve(member.type_id).filter(|decl| decl.kind == Kind::Int && member.bits == 0);
        let Some((encoding, size)) = encoding.and_then(|decl| Some((decl.word(0)?, decl.size_or_id))) else {
            return member;
        };
        let [_, start, _, bits] = encoding.to_be_bytes();
        if u32::from(bits) == size.saturating_mul(8) {
            return member;
        }
        Member { bit_offset: member.bit_offset.saturating_add(start.into()), bits, ..member }
    }
}

impl Aggregate<'_> {
    /// Its size in bytes.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.decl.size_or_id
    }

    /// Where a member lies, by its path as in [`Btf::field`].
    #[must_use]
    pub fn field(&self, path: &str) -> Option<Field> {
        let mut visits = MAX_VISITS;
        self.btf.field_of(self.decl, path, &mut visits)
    }
}

impl<'a> Enum<'a> {
    /// The enum's name.
    #[must_use]
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// Its values, in the kernel's order, as [`Btf::enum_values`] has them. Values without a readable name
    /// are left out.
    pub fn values(self) -> impl Iterator<Item = (&'a str, i64)> {
        let Self { btf, decl, .. } = self;
        decl.enumerators().filter_map(move |(name, value)| Some((btf.string(name)?, value)))
    }
}

impl<'a> Type<'a> {
    /// The type at an offset; `None` if the bytes end before it does or its kind is unknown.
    fn read(order: Order, types: &'a [u8], at: usize) -> Option<Self> {
        let bytes = types.get(at..)?;
        let [name, info, size_or_id] = order.words(bytes)?;
        let kind = Kind::from_info(info)?;
        let count = count(info);
        let tail = bytes.get(TYPE_LEN..)?.get(..kind.tail_len(count))?;
        Some(Self { order, name, kind, count, flag: info >> 31 == 1, size_or_id, tail })
    }

    /// The type this one refers to, if it is of a kind.
    fn of(&self, kind: Kind) -> Option<u32> {
        (self.kind == kind).then_some(self.size_or_id)
    }

    /// A word of what follows.
    fn word(&self, at: usize) -> Option<u32> {
        self.order.word(self.tail, at)
    }

    fn is_aggregate(&self) -> bool {
        matches!(self.kind, Kind::Struct | Kind::Union)
    }

    /// An enum with values: without, it is a forward declaration.
    fn is_enum(&self) -> bool {
        matches!(self.kind, Kind::Enum | Kind::Enum64) && self.count > 0
    }

    fn is_modifier(&self) -> bool {
        matches!(self.kind, Kind::Typedef | Kind::Volatile | Kind::Const | Kind::Restrict | Kind::TypeTag)
    }

    fn members(self) -> impl Iterator<Item = Member> {
        let tail = if self.is_aggregate() { self.tail } else { &[] };
        tail.chunks_exact(MEMBER_LEN).filter_map(move |bytes| {
            let [name, type_id, offset] = self.order.words(bytes)?;
            // With the flag, the upper byte is the number of bits; without, the offset has all 32.
            let (bits, offset) = if self.flag { (offset >> 24, offset & 0x00ff_ffff) } else { (0, offset) };
            Some(Member { name, type_id, bit_offset: offset.into(), bits: u8::try_from(bits).ok()? })
        })
    }

    fn enumerators(self) -> impl Iterator<Item = (u32, i64)> {
        let wide = self.kind == Kind::Enum64;
        let tail = if self.is_enum() { self.tail } else { &[] };
        tail.chunks_exact(if wide { MEMBER_LEN } else { ENUM_LEN }).filter_map(move |bytes| {
            let (name, low) = (self.order.word(bytes, 0)?, self.order.word(bytes, 4)?);
            let value = match (wide, self.flag) {
                (true, _) => i64::from(low) | (i64::from(self.order.word(bytes, 8)?) << 32),
                (false, true) => low.cast_signed().into(),
                (false, false) => low.into(),
            };
            Some((name, value))
        })
    }
}

impl Kind {
    fn from_info(info: u32) -> Option<Self> {
        Some(match kind_number(info) {
            1 => Self::Int,
            2 => Self::Ptr,
            3 => Self::Array,
            4 => Self::Struct,
            5 => Self::Union,
            6 => Self::Enum,
            7 => Self::Fwd,
            8 => Self::Typedef,
            9 => Self::Volatile,
            10 => Self::Const,
            11 => Self::Restrict,
            12 => Self::Func,
            13 => Self::FuncProto,
            14 => Self::Var,
            15 => Self::Datasec,
            16 => Self::Float,
            17 => Self::DeclTag,
            18 => Self::TypeTag,
            19 => Self::Enum64,
            _ => return None,
        })
    }

    /// How many bytes follow a type's first three words.
    fn tail_len(self, count: usize) -> usize {
        match self {
            Self::Int | Self::Var | Self::DeclTag => 4,
            Self::Array => 12,
            Self::Struct | Self::Union | Self::Enum64 | Self::Datasec => count * 12,
            Self::Enum | Self::FuncProto => count * 8,
            // A function's count is its linkage: nothing follows.
            Self::Ptr
            | Self::Fwd
            | Self::Typedef
            | Self::Volatile
            | Self::Const
            | Self::Restrict
            | Self::Func
            | Self::Float
            | Self::TypeTag => 0,
        }
    }
}

impl Order {
    fn word(self, bytes: &[u8], at: usize) -> Option<u32> {
        let bytes = *bytes.get(at..)?.first_chunk()?;
        Some(match self {
            Self::Little => u32::from_le_bytes(bytes),
            Self::Big => u32::from_be_bytes(bytes),
        })
    }

    /// The first words.
    fn words<const N: usize>(self, bytes: &[u8]) -> Option<[u32; N]> {
        let mut words = [0; N];
        for (index, word) in words.iter_mut().enumerate() {
            *word = self.word(bytes, index * 4)?;
        }
        Some(words)
    }
}

/// The kind's number. It has five bits; the two above are reserved and must not turn a new kind into an old
/// one.
fn kind_number(info: u32) -> u8 {
    (info >> 24) as u8 & 0x7f
}

/// How many members, values or parameters. It has 16 bits; the eight above are reserved, and zero, for more
/// of them.
fn count(info: u32) -> usize {
    (info & 0x00ff_ffff) as usize
}

/// The parts of type information: its byte order, and where its types and its strings are.
fn sections(bytes: &[u8]) -> Result<(Order, Range<usize>, Range<usize>), Error> {
    let truncated = |part, end| Error::Truncated { part, end, len: bytes.len() };
    let header: &[u8; HEADER_LEN] = bytes.first_chunk().ok_or(truncated("the header", HEADER_LEN as u64))?;
    let magic = [header[0], header[1]];
    let order = match u16::from_le_bytes(magic) {
        MAGIC => Order::Little,
        swapped if swapped == MAGIC.swap_bytes() => Order::Big,
        _ => return Err(Error::Magic(magic)),
    };
    if header[2] != VERSION {
        return Err(Error::Version(header[2]));
    }
    let [header_len, types_at, types_len, strings_at, strings_len] =
        order.words(&header[4..]).ok_or(truncated("the header", HEADER_LEN as u64))?;
    // Offsets count from the end of the header, whose length the header itself gives.
    let section = |part, at: u32, len: u32| {
        let start = u64::from(header_len) + u64::from(at);
        let end = start + u64::from(len);
        let range = usize::try_from(start).ok().zip(usize::try_from(end).ok());
        let range = range.map(|(start, end)| start..end);
        range.filter(|range| bytes.get(range.clone()).is_some()).ok_or(truncated(part, end))
    };
    Ok((order, section("the types", types_at, types_len)?, section("the strings", strings_at, strings_len)?))
}

/// The first bytes of a name that may end before, as a number to compare.
///
/// In one word rather than byte by byte: a kernel has more than 100,000 types, and each start reads all of their names.
fn beginning(name: &[u8]) -> u64 {
    const ONES: u64 = u64::MAX / 0xff;
    let first = name.first_chunk().copied().unwrap_or_else(|| {
        let mut first = [0; size_of::<u64>()];
        first.iter_mut().zip(name).for_each(|(to, from)| *to = *from);
        first
    });
    let bytes = u64::from_le_bytes(first);
    // The highest bit of each byte that is zero, and perhaps of some behind the first of these.
    let ends = bytes.wrapping_sub(ONES) & !bytes & (ONES << 7);
    let before = if ends == 0 { u64::MAX } else { (1 << (ends.trailing_zeros() & !7)) - 1 };
    bytes & before
}

/// Where each type starts. A type takes 12 bytes at least, so this is at most a third as large as what it
/// indexes.
fn type_offsets(order: Order, types: &[u8], first_id: u32) -> Result<Vec<u32>, Error> {
    // The types of a kernel take 22 to 25 bytes each: one allocation that is about right.
    let mut offsets = Vec::with_capacity(types.len() / 22);
    let mut at = 0;
    while at < types.len() {
        let start = u32::try_from(at).map_err(|_| Error::TooLarge)?;
        let truncated = |end: usize| Error::Truncated { part: "a type", end: end as u64, len: types.len() };
        let info = order.word(types, at + 4).ok_or(truncated(at + TYPE_LEN))?;
        let Some(kind) = Kind::from_info(info) else {
            let id = u32::try_from(offsets.len()).ok().and_then(|index| first_id.checked_add(index));
            return Err(Error::UnknownKind { id: id.ok_or(Error::TooLarge)?, kind: kind_number(info) });
        };
        at += TYPE_LEN + kind.tail_len(count(info));
        if at > types.len() {
            return Err(truncated(at));
        }
        offsets.push(start);
    }
    offsets.shrink_to_fit();
    Ok(offsets)
}
