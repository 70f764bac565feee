# The two commands of the README's first screen are `make run` and `make test`.
RECIPE  ?= recipes/docker.toml
VERSION ?= 0.1.0
OUT     ?= out
TARGET  := x86_64-unknown-linux-gnu
CARGO_TARGET_DIR ?= target
export CARGO_TARGET_DIR
BIN     := $(CARGO_TARGET_DIR)/$(TARGET)/debug

.PHONY: run test programs setup lint

run: setup programs
	$(BIN)/garboard build $(RECIPE) --version $(VERSION) --out $(OUT) --format raw
	$(BIN)/garboard run $(OUT)/$$(basename $(RECIPE) .toml)-$(VERSION)-x86_64.raw --detach

programs:
	cargo build --workspace --bins

test:
	scripts/test

setup:
	scripts/setup

lint:
	cargo fmt --check
	cargo clippy --workspace --all-targets -- -D warnings
