//! Tokens of coturn's `turnutils_oauth`, an independent maker of them, open here
//! (RFC 7635 section 6.2).

use std::io::ErrorKind;
use std::process::Command;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sturn::auth::{TokenAlgorithm, TokenKey, Tokens};
use sturn::net::Now;

use crate::setup::skip;

const NOW: u64 = 1_760_000_000;
const SERVER: &str = "turn.example.org";
const MAC_KEY: &str = "twenty bytes of key!";

#[test]
fn a_token_of_turnutils_oauth_opens() {
    let algorithms = [("A128GCM", TokenAlgorithm::A128Gcm), ("A256GCM", TokenAlgorithm::A256Gcm)];
    for (name, algorithm) in algorithms {
        let key: Vec<u8> = (1..).take(algorithm.key_len()).collect();
        let Some(token) = sealed(name, &key) else {
            let why = "turnutils_oauth (package coturn) is not installed";
            return skip("a_token_of_turnutils_oauth_opens", why);
        };
        let key = TokenKey::new("north", algorithm, &key, 0..=u64::MAX).unwrap();
        let tokens = Tokens::new(SERVER, vec![key]);
        let now = Now { mono: Instant::now(), unix: Duration::from_secs(NOW) };
        let (identity, key) = tokens.open(now, "north", &token).expect(name);
        assert_eq!(key.bytes(), MAC_KEY.as_bytes());
        assert_eq!(identity.expires, Some(NOW + 3604));
    }
}

/// A token made at `NOW` for an hour; `None` when the tool is not there.
fn sealed(algorithm: &str, key: &[u8]) -> Option<Vec<u8>> {
    let base64 = |bytes: &[u8]| STANDARD.encode(bytes);
    let output = Command::new("turnutils_oauth")
        .args(["-e", "-i", SERVER, "-j", "north", "-k", &base64(key), "-n", algorithm])
        .args(["-l", &NOW.to_string(), "-m", "1000000", "-o", &base64(b"a nonce once")])
        .args(["-p", &base64(MAC_KEY.as_bytes()), "-q", &(NOW << 16).to_string(), "-r", "3600"])
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) if error.kind() == ErrorKind::NotFound => return None,
        Err(error) => panic!("turnutils_oauth: {error}"),
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let (_, rest) = text.split_once("\"access_token\":\"").expect(&text);
    Some(STANDARD.decode(rest.split('"').next().unwrap()).unwrap())
}
