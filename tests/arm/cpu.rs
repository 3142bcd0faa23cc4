//! Emulated CPUs have the features of the chips that they are named for: without this, kernels
//! that a chip cannot run might pass and those that it would choose might never run.

/// What Arm's reference manuals say of each CPU: has it the dot product (`FEAT_DotProd`)?
#[cfg(target_arch = "aarch64")]
const DOT_PRODUCT: [(&str, bool); 4] = [
    ("cortex-a53", false),
    ("cortex-a72", false),
    ("cortex-a55", true),
    ("cortex-a76", true),
];

#[test]
#[cfg(target_arch = "aarch64")]
fn dot_product_is_found_where_the_chip_has_it() {
    let cpu = std::env::var("ARM_CPU").expect("tests/arm/run names the CPU in ARM_CPU");
    let (_, expected) = DOT_PRODUCT
        .into_iter()
        .find(|(name, _)| *name == cpu)
        .expect("a CPU of the table");
    assert!(std::arch::is_aarch64_feature_detected!("neon"));
    assert_eq!(
        std::arch::is_aarch64_feature_detected!("dotprod"),
        expected,
        "{cpu}"
    );
}
