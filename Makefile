# make prints the targets; make check is what CI runs.
export CGO_ENABLED = 0
STATICCHECK = build/bin/staticcheck
FUZZTIME ?= 5s
SEEDS ?= 10

.PHONY: help build test race fuzz bench bounds oracle evaluate taps integration readers cross golden tshark browser lint check clean-tree

help:
	@echo 'build  bin/squall, where cmd/squall exists, and every package'
	@echo 'test   unit and golden tests'
	@echo 'race   the short ones under the race detector, where anything is concurrent (needs a C compiler)'
	@echo 'fuzz   each fuzz target for FUZZTIME (5s)'
	@echo 'bench  ratios to tcpdump, then the benchmarks of every package'
	@echo 'bounds peak memory of captures that grow: ten million clients, a million nodes, a year'
	@echo 'oracle rows against a second implementation of the rules, SEEDS (10) seeds'
	@echo 'evaluate  docs/evaluation.md anew: every scenario, SEEDS (10) seeds, bad taps, thresholds; takes half an hour'
	@echo 'integration real nodes from the distribution, outages on real sockets'
	@echo 'readers DuckDB and Apache Arrow read what squall writes (needs npm)'
	@echo 'cross  builds for other systems: CROSS names them'
	@echo 'golden the generated pages, written anew'
	@echo 'tshark its reading of the real captures against the goldens'
	@echo 'taps   an outage seen by three taps, SEEDS (10) seeds, against one perfect tap'
	@echo 'browser the HTML reports of the samples in headless Chromium; screenshots in build/browser'
	@echo 'lint   gofmt, go vet, staticcheck'
	@echo 'check  build, lint, test, race, fuzz, and a clean tree: what CI runs'

build:
	go build ./...
	@if [ -f cmd/squall/main.go ]; then go build -o bin/squall ./cmd/squall; fi

test:
	go test -vet=off ./...

race:
	.ci/race

fuzz:
	.ci/fuzz $(FUZZTIME)

# The budgets first: ratios to tcpdump on the two captures that squall makes.
bench:
	go test -tags bench -run '^TestBudgets$$' -v -timeout 60m ./cmd/squall $(if $(UPDATE),-args $(UPDATE))
	go test -tags bench -run '^TestPacketBudget$$' -v -timeout 20m ./replay
	go test -run '^$$' -bench . -benchmem ./...

# SQUALL_BOUNDS=10 takes a tenth of everything.
bounds:
	go test -tags bench -run '^TestBounds$$' -v -timeout 60m ./cmd/squall

oracle:
	SQUALL_SEEDS=$(SEEDS) go test -run 'RowsAsTheRulesDemand|ServerModel' -timeout 60m ./dissect/pipeline ./samples

# Every simulated outage against its truth; EVALUATE=-only=s1,s2 for a few.
evaluate:
	go test ./dissect/storm -run '^TestNoStormInHealthyCaptures$$' -v -timeout 1h -args -sweep
	go test ./dissect/storm -run '^TestEvaluate$$' -v -timeout 6h -args -evaluate $(CURDIR)/docs/evaluation.md -seeds $(SEEDS) $(EVALUATE)
	go test -tags evaluate ./replay -run '^TestWhatIf(NowCoverage|Coverage|Mega)$$' -v -timeout 2h

# An outage seen by three taps, full size: make taps SEEDS=10.
taps:
	go test ./dissect/pipeline -run '^TestThreeTaps$$' -v -timeout 2h -args -taps $(SEEDS)

# SAMPLES="s1 n2" takes these only.
browser:
	reports/browser/run.sh $(SAMPLES)

# Real nodes and outages on loopback: some five minutes. Servers that are not
# installed are skipped, by name.
integration:
	go test -tags integration -run 'TestRealNodes|TestStopsAtOnce|TestSkypeAgain|TestTableOfReplayOnSockets|TestPacketsOnWire' -v -timeout 40m ./replay
	go test -tags integration -run "TestLive" -v -timeout 15m ./cmd/squall

# DuckDB and Apache Arrow, from npm, on what squall writes; the cookbook's SQL.
readers:
	go test -tags integration -run TestOthersReadIt -v -timeout 10m ./reports
	go test -tags integration -run TestCookbookSQL -v -timeout 10m ./cmd/squall

# Captures are read everywhere; capture and replay say what they lack.
CROSS ?= linux/arm64 darwin/arm64 freebsd/amd64 windows/amd64
cross:
	@for t in $(CROSS); do echo $$t; GOOS=$${t%/*} GOARCH=$${t#*/} go vet ./... && GOOS=$${t%/*} GOARCH=$${t#*/} go build ./... || exit 1; done

golden:
	go test ./cmd/squall -run "ReferencePage|Docs|WatchScreen" -args -update
	go test ./reports ./dissect/overlay -run 'Page' -update

# What tshark says of the real captures beside the repository, where both are here.
tshark:
	go test ./dissect/overlay -run Tshark -tshark
	git diff --exit-code dissect/overlay/testdata/tshark

$(STATICCHECK):
	GOBIN=$(CURDIR)/build/bin go install honnef.co/go/tools/cmd/staticcheck@v0.8.2

# The tests that only run by hand build too.
TAGS = integration,bench,evaluate
lint: $(STATICCHECK)
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo 'gofmt -w these files'; exit 1; }
	go vet -tags $(TAGS) ./...
	$(STATICCHECK) -tags $(TAGS) ./...

clean-tree:
	@test -z "$$(git status --porcelain)" || { git status --short; echo 'the checks changed the tree'; exit 1; }

check: build lint test race fuzz clean-tree
