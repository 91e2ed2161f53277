//! The calls on a dropped packet's way: what the probes of `dig` keep for each task, and hand over for the packet that
//! matches.

/// A call, a return, or the packet's end.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct Step {
    /// Of a call: the packet that it was called with, 0 if it has no such argument. Of a return: the value.
    pub value: u64,
    /// Nanoseconds since the first call.
    pub elapsed: u32,
    /// The function, by its number in its [`cookie`].
    pub function: u16,
    /// What it is, one of [`step`].
    pub kind: u16,
}

/// Values of [`Step::kind`].
pub mod step {
    /// A call.
    pub const CALL: u16 = 0;
    /// A return.
    pub const RETURN: u16 = 1;
    /// The packet was freed here.
    pub const FREED: u16 = 2;
}

/// How many steps are kept of one task.
pub const MOST_STEPS: usize = 2045;

/// What a task is doing below a root.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct WalkHead {
    /// When the first root was called, by the monotonic clock.
    pub started: u64,
    /// When the packet that matches was dropped: [`DropEvent::time`](crate::event::DropEvent::time); 0 if none was.
    pub dropped: u64,
    /// That packet.
    pub skb: u64,
    /// How many steps there are.
    pub steps: u32,
    /// How many steps found no room.
    pub lost: u32,
    /// How many roots have been called and have not returned.
    pub open: u32,
    /// The step at which the packet was freed.
    pub freed: u32,
}

/// The same, with its steps.
#[repr(C)]
pub struct Walk {
    /// What is known of it.
    pub head: WalkHead,
    /// As many as the head says.
    pub step: [Step; MOST_STEPS],
}

/// How many tasks are followed at a time.
pub const WALKS: u32 = 64;

/// How many places tasks have by their addresses; two whose places are the same are not followed at the same time.
pub const WALKERS: u32 = 1024;

/// What is at a task's place while it is in a walk: its address, whose lowest bits are the number of its walk instead.
pub mod walker {
    /// The bits of the number. Tasks are more than so many bytes apart.
    pub const WALK: u64 = super::WALKS as u64 - 1;
}

/// What is counted of walks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Counted {
    /// A task called a root.
    Begun = 0,
    /// The same, but the place of the task was another's, or all walks were.
    PassedOver = 1,
    /// A walk in which the packet was dropped was handed over.
    HandedOver = 2,
    /// The same, but there was no room for it: walks came faster than they were read.
    Unread = 3,
}

impl Counted {
    /// How many figures there are.
    pub const COUNT: u32 = 4;
}

/// The most of the kernel's text that is read at a time, in bytes.
pub const TEXT: usize = 1 << 16;

/// What is attached to a function: its number, and what the probes must know about it.
pub mod cookie {
    /// The function's number.
    pub const FUNCTION: u64 = 0xffff;
    /// How far the packet's place among the arguments is shifted, from 1; 0 if it has none.
    pub const ARGUMENT_SHIFT: u64 = 16;
    /// It, shifted back.
    pub const ARGUMENT: u64 = 0xff;
    /// The walk begins here.
    pub const ROOT: u64 = 1 << 24;
}

const _: () = assert!(size_of::<Step>() == 16);
const _: () = assert!(WALKS.is_power_of_two() && WALKERS.is_power_of_two());
const _: () = assert!(size_of::<WalkHead>() == 40 && size_of::<Walk>() == 40 + MOST_STEPS * 16);
