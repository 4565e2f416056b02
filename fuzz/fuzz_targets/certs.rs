#![no_main]
//! See `handoff_fuzz::certs`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| handoff_fuzz::certs(data));
