//! The tracepoint `skb:kfree_skb`: its drops counted, or one by one with their packets.

pub mod batch;
pub mod count;
pub mod rate;
pub(in crate::probe) mod refusal;
pub mod sample;
pub mod trace;
pub mod typed;
