#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = shipwatch::inference::Network::from_onnx(data, &[0.0; 256]);
});
