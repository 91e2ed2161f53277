//! What it means that the kernel refuses a program or a map, and what can be done about it.

use std::{io, sync::Arc};

use aya::maps::MapError;

use crate::{
    kernel::btf,
    probe::{
        loader::Refused,
        offsets::Missing,
        source::{AttachError, LOCKED_DOWN},
    },
};

/// What a failure to load or attach means for the user. The largest map is what there may be no memory for.
pub(in crate::probe) fn explain(error: anyhow::Error, largest: &str) -> AttachError {
    if !is_refusal(&error) {
        return AttachError::Failed(error.context("cannot attach the probe to skb:kfree_skb"));
    }
    if is_locked_down(&error) {
        return AttachError::Refused(format!("cannot attach the probe to skb:kfree_skb: {LOCKED_DOWN}"));
    }
    let errno = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>()?.raw_os_error());
    let advice = match errno {
        Some(libc::EPERM | libc::EACCES) => {
            "the kernel refused although the capabilities are there: in a container dropwatch needs those of the \
             host (not of a user namespace) and a seccomp profile that allows bpf(2)"
                .to_owned()
        }
        Some(libc::ENOMEM | libc::E2BIG) if is_about_a_map(&error) => {
            format!("the kernel has no memory for {largest}")
        }
        // Other files can be missing as well.
        Some(libc::ENOENT) if matches!(error.downcast_ref(), Some(Refused::Attach(_))) => "this kernel has no tracepoint skb:kfree_skb".to_owned(),
        _ => return AttachError::Refused(format!("cannot attach the probe to skb:kfree_skb: {error:#}")),
    };
    AttachError::Refused(format!("cannot attach the probe to skb:kfree_skb: {advice}: {error:#}"))
}

/// Whether the verifier refuses to read the kernel's memory: where it cannot be asked whether it is locked down, its
/// words tell.
fn is_locked_down(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| match cause.downcast_ref() {
        Some(Refused::Verifier { lines, .. }) => {
            ["cannot use helper", "unknown func"].iter().any(|words| lines.contains(words))
                && lines.contains("bpf_probe_read_kernel")
        }
        _ => false,
    })
}

/// Whether the kernel has refused something, or lacks what the program needs; everything else is our own failure.
pub(in crate::probe) fn is_refusal(error: &anyhow::Error) -> bool {
    is_about_a_map(error)
        || error
            .chain()
            .any(|cause| cause.is::<Refused>() || cause.is::<Missing>() || cause.is::<Arc<btf::LoadError>>())
}

pub(in crate::probe) fn is_about_a_map(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        matches!(cause.downcast_ref(), Some(Refused::Map { .. }))
            || matches!(cause.downcast_ref(), Some(MapError::CreateError { .. }))
    })
}
