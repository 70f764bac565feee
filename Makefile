# The two commands of the README's first screen are `make run` and `make test`.
RECIPE  ?= recipes/docker.toml
VERSION ?= 0.1.0
OUT     ?= out
PREFIX  ?= /usr/local
TARGET  := x86_64-unknown-linux-gnu
CARGO_TARGET_DIR ?= target
export CARGO_TARGET_DIR
BIN     := $(CARGO_TARGET_DIR)/$(TARGET)/debug

.PHONY: run test test-long programs setup lint install bench

run: setup programs
	$(BIN)/garboard build $(RECIPE) --version $(VERSION) --out $(OUT) --format raw
	$(BIN)/garboard run $(OUT)/$$(basename $(RECIPE) .toml)-$(VERSION)-x86_64.raw --detach

programs:
	cargo build --workspace --bins

test:
	scripts/test

# What takes hours; writes docs/test-long-result.md.
test-long:
	scripts/test-long

setup:
	scripts/setup

lint:
	cargo fmt --check
	cargo clippy --workspace --all-targets -- -D warnings

# The command, with the programs that it puts into images beside it, its manual pages and completions. DESTDIR is for packagers.
install: programs
	install -d $(DESTDIR)$(PREFIX)/lib/garboard $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/man/man1
	install -m 755 $(BIN)/garboard $(BIN)/init $(BIN)/host-programs $(DESTDIR)$(PREFIX)/lib/garboard
	ln -sfn ../lib/garboard/garboard $(DESTDIR)$(PREFIX)/bin/garboard
	$(BIN)/garboard man $(DESTDIR)$(PREFIX)/share/man/man1
	install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions $(DESTDIR)$(PREFIX)/share/zsh/site-functions $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
	$(BIN)/garboard completions bash > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/garboard
	$(BIN)/garboard completions zsh > $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_garboard
	$(BIN)/garboard completions fish > $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/garboard.fish

# The figures of README and docs/benchmarks.md, beside their peers; needs root for the peers.
bench:
	scripts/setup --bench
	cargo build --workspace --bins
	mkdir -p out
	scripts/bench | tee out/benchmarks.md
