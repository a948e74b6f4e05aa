# make demo: the main job, with real parts, on this machine. make test: everything that CI checks.
# Both run scripts/setup first, which installs what this machine lacks and says what.

export CGO_ENABLED = 0
export GOTOOLCHAIN = auto
GO = .tools/bin/go
CORE = $(CURDIR)/.tools/bin/deltachat-rpc-server

# Sandboxes need a cgroup of their own. Root makes one; a user gets one from systemd, where one runs for the user.
ifneq ($(shell id -u),0)
SCOPE = systemd-run --user --scope --quiet --property=Delegate=yes
DELEGATE = $(shell $(SCOPE) true 2>/dev/null && echo $(SCOPE))
endif

.PHONY: demo test build setup lint bench clean

demo: build
	$(DELEGATE) bin/mayfly demo -core $(CORE) $(DEMO)

test: lint build
	@scripts/setup-test
	$(DELEGATE) $(GO) test -p 2 -timeout 20m ./...
	@$(MAKE) --no-print-directory race
	@$(MAKE) --no-print-directory crash KILLS=66
	@scripts/relay-test if-possible

build: setup
	$(GO) build -o bin/ ./cmd/...

lint: setup
	@unformatted=$$("$$($(GO) env GOROOT)/bin/gofmt" -l cmd examples internal test) || exit; \
	test -z "$$unformatted" || { echo "run gofmt -w on these:"; echo "$$unformatted"; exit 1; }
	$(GO) vet ./...
	$(GO) vet -tags relay,bench,bots,load,crash ./test/...
	$(GO) vet -tags takedown ./internal/stage/...
	$(GO) vet -tags crash ./internal/crash/...
	$(GO) tool staticcheck ./...

# What junk, the hook and a sleeping bot cost, as one table, on a real Postfix and Dovecot. It needs root, a quiet machine and
# about six minutes. BENCH=-short shows in two that it works. docs/BENCH.md has a table and says how to read it.
bench: build
	@scripts/setup-relay
	@$(CURDIR)/$(GO) -C test/bench vet -tags bench
	@$(CURDIR)/$(GO) -C test/bench test -tags bench -count=1 -timeout 25m -run TestTable $(BENCH)

setup:
	@scripts/setup

clean:
	rm -rf bin

# The part of `make test` that is on a real Postfix and Dovecot, which scripts/setup-relay installs. It needs root.
.PHONY: relay-test
relay-test: build
	@scripts/relay-test

# The hostile programs against every wall. WITHOUT=memory takes one wall down, and wants the tests named for it to fail. It needs root.
.PHONY: hostile
hostile: build
	@scripts/setup-test
	@scripts/hostile $(WITHOUT)

# Conversations with bots of the usual frameworks, unmodified, with the host and as daemons. It fetches the frameworks from PyPI, npm and
# the Go module proxy into .tools/bots.
.PHONY: bots
bots: build
	@scripts/setup-test
	@$(DELEGATE) scripts/bots

# 2,000 mails to 50 bots, without and with 5 hostile ones among them. It needs root, 4 GB of memory and about fifteen minutes.
.PHONY: load
load: build
	$(GO) test -tags load -count=1 -v -timeout 60m -run '^TestFullLoad$$' ./test/e2e

# Kills the daemon, the broker, core, the bot and their sandboxes at every step of a mail's life, and at random times, and counts the
# replies; and at every step of a scheduled run, which is 34 kills more. `make test` does 100 in all: each victim at each step, and some
# at random times. KILLS=1000 is the long form: about half an hour.
.PHONY: crash
KILLS = 100
crash: build
	$(DELEGATE) env CRASH_KILLS=$(KILLS) $(GO) test -tags crash -count=1 -v -timeout 60m -run '^TestCrash(Scheduled)?$$' ./test/e2e

# The tests of what many goroutines share, with the race detector, which needs gcc: the only thing here that is built with cgo. Less than
# two minutes.
.PHONY: race
race: build
	@scripts/setup-test
	$(DELEGATE) env CGO_ENABLED=1 $(GO) test -race -p 2 -count=1 -timeout 15m ./internal/dispatch ./internal/ledger ./internal/session ./internal/gateway ./internal/minirelay ./internal/outbox

# Fails every system call by which Mayfly's state gets onto the disk, in each part and in a whole host: `make test` takes one of equal
# calls, this takes up to twenty. It prints tables, and takes about half an hour.
.PHONY: faults
faults: build
	$(DELEGATE) env MAYFLY_FAULTS=20 $(GO) test -count=1 -v -p 1 -timeout 120m -run '^(TestEveryCall|TestFaultsInAMail|TestFullDisk)$$' ./test/faults ./test/e2e
