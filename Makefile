# `make demo` and `make test` also fetch what a clean Debian or Ubuntu lacks; cargo does the rest.

DEMO := $(CURDIR)/target/demo
SCENE := tests/data/sentinel2-ports/images/algiers.jpg
# `make demo ONCE=1` ends after the scene instead of watching on.
ONCE ?=

.PHONY: demo test setup peers deb

# Watches a folder that holds a Sentinel-2 scene of 10 m per pixel, until Ctrl-C.
demo: setup
	cargo build --release --locked --bin shipwatch
	@rm -rf "$(DEMO)"/overlays "$(DEMO)"/detections.*
	@mkdir -p "$(DEMO)/incoming"
	@cp $(SCENE) "$(DEMO)/incoming/"
	@echo "Drop more images into $(DEMO)/incoming; Ctrl-C stops."
	target/release/shipwatch run --folder "$(DEMO)/incoming" --output "$(DEMO)/detections.jsonl" \
		--overlay "$(DEMO)/overlays" $(if $(ONCE),--once)

# The Debian package, in target/debian. Without TARGET it is for this machine, and for systems with a glibc no older than
# its own; PROFILE=release takes less time to build and more room. With TARGET=aarch64-unknown-linux-gnu,
# armv7-unknown-linux-gnueabihf or x86_64-unknown-linux-gnu it is for systems from glibc 2.31 on, and tests/cross/build
# builds the program; BUILT=target instead takes what cross has built.
PROFILE ?= dist
TARGET ?=
BUILT ?=
# A folder or a file.
OUTPUT ?= target/debian/
CARGO_DEB ?= $(or $(shell command -v cargo-deb),target/tools/bin/cargo-deb)

deb: setup $(CARGO_DEB)
	$(if $(TARGET),$(if $(BUILT),,CI_FIELD=1 tests/cross/build $(TARGET)))
	@rm -rf target/package
	cargo run --release --locked --quiet --example manual -- target/package
	cargo run --release --locked --quiet --example notice -- \
		$(or $(TARGET),$$(rustc -vV | sed -n 's/^host: //p')) > target/package/NOTICE
	$(if $(TARGET),CARGO_TARGET_DIR=$(or $(BUILT),target/arm/product/$(TARGET))) $(CARGO_DEB) --locked --profile $(PROFILE) \
		--output $(OUTPUT) $(if $(TARGET),--variant portable --no-build --no-strip --target $(TARGET))

target/tools/bin/cargo-deb:
	cargo install --locked --root target/tools cargo-deb@3.8.0

# All tests, those of the training binary among them. Other runtimes run in the Python of `make peers`
# where there is one. TEST_OPTIONS=--show-output also shows what was SKIPPED for want of something.
test: export PYTHON ?= $(if $(wildcard target/peers/bin/python),$(CURDIR)/target/peers/bin/python,python3)
test: setup
	cargo test --release --locked --features train -- $(TEST_OPTIONS)

# ONNX and ONNX Runtime, without which the tests that compare with them say SKIPPED.
peers: target/peers/requirements.txt

# shipwatch's speed beside that of other runtimes: a table, and target/peers.json.
bench: setup bench-models
	cargo build --release --locked --bin shipwatch
	target/benches/bin/python benches/peers.py --threads $(or $(THREADS),1) --json target/peers.json

# Networks of sizes that models/ has not, of random weights; a clean target has them made anew.
bench-models: target/bench-models/seed75-int8/unet.onnx

target/bench-models/seed75-int8/unet.onnx: benches/make_models.py target/benches/requirements.txt
	cargo build --release --locked --features train --bin train
	target/benches/bin/python benches/make_models.py

target/peers/requirements.txt: tests/requirements.txt
target/benches/requirements.txt: benches/requirements.txt

# A virtual environment of the packages in a list, which names all that these need.
target/peers/requirements.txt target/benches/requirements.txt:
	@rm -rf $(@D)
	python3 -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --no-deps --requirement $<
	$(@D)/bin/python -c "import onnx, onnxruntime"
	@cp $< $@

# libclang, which generates the bindings to V4L2 cameras.
setup:
	@if [ -n "$$LIBCLANG_PATH" ] \
		|| find /usr/lib /usr/lib64 /usr/local/lib -name 'libclang[-.]*so*' ! -name 'libclang-cpp*' 2>/dev/null | grep -q .; \
	then exit 0; fi; \
	echo "libclang is missing: installing the package libclang-dev by apt-get"; \
	if [ "$$(id -u)" = 0 ]; then as_root=; \
	elif command -v sudo >/dev/null; then as_root=sudo; \
	else as_root=false; fi; \
	if ! command -v apt-get >/dev/null \
		|| ! { $$as_root apt-get update && $$as_root apt-get install --yes libclang-dev; }; \
	then \
		echo "Could not install libclang. Let an administrator do so (Debian, Ubuntu: apt-get install" >&2; \
		echo "libclang-dev; Fedora: dnf install clang-devel), or build without cameras:" >&2; \
		echo "cargo build --release --no-default-features" >&2; \
		exit 1; \
	fi
