//! Capture files, read by a reader that is not ours, and by tcpdump.

use std::{collections::HashMap, fs::File, path::Path, process::Command};

use pcap_file::pcapng::{
    Block, PcapNgReader,
    blocks::{enhanced_packet::EnhancedPacketOption, interface_description::InterfaceDescriptionOption},
};

use super::is_guest;

/// A packet of a capture.
#[derive(Clone, Debug)]
pub struct Captured {
    /// The name of its interface.
    pub iface: String,
    /// What is said of its interface.
    pub description: String,
    pub bytes: Vec<u8>,
    pub original_length: u32,
    pub comment: String,
}

/// All packets of a file, which has to be whole.
pub fn read(path: &Path) -> Vec<Captured> {
    let mut reader = PcapNgReader::new(File::open(path).expect("a capture")).expect("a section");
    let (mut interfaces, mut packets) = (HashMap::new(), Vec::new());
    while let Some(block) = reader.next_block() {
        match block.expect("a whole block") {
            Block::InterfaceDescription(block) => {
                let (mut iface, mut description) = (String::new(), String::new());
                for option in &block.options {
                    match option {
                        InterfaceDescriptionOption::IfName(name) => iface = name.to_string(),
                        InterfaceDescriptionOption::IfDescription(text) => description = text.to_string(),
                        _ => {}
                    }
                }
                interfaces.insert(u32::try_from(interfaces.len()).expect("few"), (iface, description));
            }
            Block::EnhancedPacket(block) => {
                let (iface, description) = interfaces[&block.interface_id].clone();
                let comment = block.options.iter().find_map(|option| match option {
                    EnhancedPacketOption::Comment(comment) => Some(comment.to_string()),
                    _ => None,
                });
                packets.push(Captured {
                    iface,
                    description,
                    bytes: block.data.to_vec(),
                    original_length: block.original_len,
                    comment: comment.unwrap_or_default(),
                });
            }
            other => panic!("{other:?}"),
        }
    }
    packets
}

/// What tcpdump says of a file, a line for each packet; none in a guest, which has no tcpdump that works.
pub fn tcpdump(path: &Path) -> Option<Vec<String>> {
    // It drops root before it opens a file, so it gets an open one.
    let file = File::open(path).expect("a capture");
    let output = Command::new("tcpdump").args(["-nn", "-t", "-S", "-r", "-"]).stdin(file).output();
    let said = output.as_ref().map_or(String::new(), |output| String::from_utf8_lossy(&output.stderr).into());
    // A guest has the program but not the user that it switches to.
    if is_guest() && (output.is_err() || said.contains("Couldn't find user")) {
        eprintln!("SKIPPED in part: no tcpdump, or none that works");
        return None;
    }
    let output = output.expect("tcpdump runs");
    assert!(output.status.success(), "{said}");
    let text = String::from_utf8(output.stdout).expect("text");
    // What it cannot read it prints as bytes, after a blank.
    Some(text.lines().filter(|line| !line.starts_with('\t')).map(str::to_owned).collect())
}
