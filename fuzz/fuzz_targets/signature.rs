//! An id, a timestamp, signatures and a body, a line each: nothing is accepted that nobody signed, and
//! what was signed is accepted, whatever other signatures stand behind its own.

#![no_main]

use std::sync::LazyLock;

use evenkeel_core::Timestamp;
use evenkeel_flare::signing::{
    Secret, Verified, VerifyingKey, WEBHOOK_ID, WEBHOOK_SIGNATURE, WEBHOOK_TIMESTAMP, verify,
};
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;

/// One of each kind.
static SECRETS: LazyLock<[Secret; 2]> = LazyLock::new(|| {
    [
        "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
        "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==",
    ]
    .map(|text| text.parse().expect("this is a secret"))
});

static KEYS: LazyLock<[VerifyingKey; 2]> =
    LazyLock::new(|| SECRETS.each_ref().map(|secret| secret.verifying_key()));

fuzz_target!(|data: &[u8]| {
    let mut lines = data.splitn(4, |byte| *byte == b'\n');
    let [id, timestamp, signatures, body] = [(); 4].map(|()| lines.next().unwrap_or_default());
    let [Ok(id), Ok(timestamp), Ok(signatures)] = [id, timestamp, signatures].map(HeaderValue::from_bytes)
    else {
        return;
    };
    // At the message's own time, so that it is not its age that speaks against it.
    let seconds = timestamp.to_str().ok().and_then(|text| text.parse::<u32>().ok()).map_or(0, i64::from);
    let now = Timestamp::from_micros(seconds * 1_000_000);
    let headers = headers_of(&id, timestamp, signatures.clone());
    assert!(verify(&headers, body, &*KEYS, now).is_err());

    let (Ok(id_text), Ok(others)) = (id.to_str(), signatures.to_str()) else { return };
    if id_text.is_empty() {
        return;
    }
    for secret in &*SECRETS {
        let signed = format!("{} {others}", secret.sign(id_text, seconds, body));
        let signed = HeaderValue::try_from(signed).expect("signatures are visible ASCII");
        let headers = headers_of(&id, seconds.into(), signed);
        let genuine = Verified { id: id_text.to_owned(), timestamp: now };
        assert_eq!(verify(&headers, body, &*KEYS, now), Ok(genuine));
    }
});

fn headers_of(id: &HeaderValue, timestamp: HeaderValue, signatures: HeaderValue) -> HeaderMap {
    HeaderMap::from_iter([
        (WEBHOOK_ID, id.clone()),
        (WEBHOOK_TIMESTAMP, timestamp),
        (WEBHOOK_SIGNATURE, signatures),
    ])
}
