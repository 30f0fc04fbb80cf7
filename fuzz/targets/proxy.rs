//! Any bytes as a PROXY protocol header: a decision stays when more bytes come.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sturn::front::proxy::{self, V2_LONGEST};
use sturn::front::{Detect, detect};

// One byte says where the first piece ends.
fuzz_target!(|input: &[u8]| {
    let Some((cut, bytes)) = input.split_first() else { return };
    let whole = proxy::parse(bytes);
    let first = proxy::parse(&bytes[..bytes.len().min(usize::from(*cut))]);
    match first {
        Ok(None) => {}
        decided => assert_eq!(decided, whole),
    }
    match whole {
        Ok(Some(header)) => {
            assert!(header.len <= bytes.len());
            assert!(matches!(detect(bytes), Detect::ProxyV1 | Detect::ProxyV2));
            if let Some(addresses) = header.addresses {
                assert_eq!(addresses.source.is_ipv4(), addresses.destination.is_ipv4());
            }
        }
        Ok(None) => assert!(bytes.len() < V2_LONGEST),
        Err(_) => {}
    }
});
