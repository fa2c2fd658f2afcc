# The commands people type; README.md says what each is for. Everything behind them is Rust or a small script.

image_build = cargo run --profile fast --package berth-image-build --
bench_runtime = cargo bench --quiet --package berth-runtime --features cli --target x86_64-unknown-linux-musl --bench containers
bench_engine = cargo bench --quiet --package berth-engine --target x86_64-unknown-linux-musl --bench images
tests = cargo run --quiet --profile fast --package berth-tests

# Debian keeps sfdisk, mkfs and their like out of an ordinary user's PATH, though they may all run them.
export PATH := $(PATH):/usr/sbin:/sbin

.PHONY: deps kernel image run test unit-tests check bench clean
.DEFAULT_GOAL := image

deps:
	@image-build/install-packages.sh

kernel: deps
	@$(image_build) kernel

image: deps
	@$(image_build) image

run: deps
	@$(image_build) run

# Linking the image keeps one processor busy, so the unit tests are built beside it.
test: deps
	@$(MAKE) --no-print-directory --jobs=2 image unit-tests
	@$(tests) --bin berth-tests -- --units

unit-tests: deps
	@cargo test --quiet --workspace --features berth-runtime/cli --no-run

check: deps
	@image-build/check.sh

# All are measured, also after one that misses its bar.
bench: image
	@missed=0; \
	$(tests) --bin berth-bench || missed=1; \
	$(bench_runtime) || missed=1; \
	$(bench_engine) || missed=1; \
	cargo bench --quiet --package berth-logs || missed=1; \
	cargo bench --quiet --no-fail-fast --package berth-network --bench attach --bench dhcp --bench traffic || missed=1; \
	exit $$missed

clean:
	@rm -rf out target
