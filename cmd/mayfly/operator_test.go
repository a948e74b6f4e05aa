package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mayfly/internal/admin"
	"mayfly/internal/bot"
	"mayfly/internal/bundle"
	"mayfly/internal/keystore"
	"mayfly/internal/ledger"
	"mayfly/internal/storage"
)

// Written with: go test ./cmd/mayfly -run TestTables -update
var update = flag.Bool("update", false, "write the golden files")

// makeState makes a state folder with two bots for the scripts: dice with a run that failed, a mail that was set aside and one that
// waits, and echo. No daemon runs on it.
func makeState(ctx context.Context, dir string) (err error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	l, err := ledger.Open(ctx, filepath.Join(dir, "ledger.db"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	store, err := storage.Open(filepath.Join(dir, "bots"))
	if err != nil {
		return err
	}
	defer store.Close()
	keys, err := keystore.Open(filepath.Join(dir, "keys"))
	if err != nil {
		return err
	}
	defer keys.Close()
	files := []bundle.File{{Path: "main.js", Data: []byte("export default {}")}}
	digest := bundle.Digest(files)
	for _, addr := range []bot.Address{"dice@chat.test", "echo@chat.test"} {
		name := strings.ToUpper(addr.Local()[:1]) + addr.Local()[1:]
		b := ledger.Bot{Address: addr, Digest: digest, Manifest: bot.Manifest{Name: name, Version: "1.2", Contact: "mailto:author@chat.test"}}
		err = errors.Join(store.PutBundle(addr, digest, []storage.File{storage.File(files[0])}), l.Install(ctx, b), keys.PutPassword(addr, "secret"))
		if err != nil {
			return err
		}
	}
	job, err := l.Accept(ctx, ledger.Job{Bot: "dice@chat.test", Cursor: ledger.Cursor{UIDValidity: 1, UID: 1}, Size: 3000})
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(dir, "outbox"), 0o700); err != nil {
		return err
	}
	const path = "0123456789abcdef0123456789abcdef.eml"
	return errors.Join(
		l.Fail(ctx, []int64{job.ID}, bot.RunRecord{Status: bot.RunInternal, Message: "core died"}, true),
		os.WriteFile(filepath.Join(dir, "outbox", path), []byte("a mail"), 0o600),
		l.Commit(ctx, ledger.Commit{Bot: "dice@chat.test", UIDNext: 2, Started: time.Now(), Ended: time.Now(),
			Outgoing: []ledger.Outgoing{{To: []bot.Address{"user@chat.test"}, Path: path, Size: 6}},
			Run:      &bot.RunRecord{Status: bot.RunError, Message: "main.js:3: no dice", Log: "rolling\n\x1b[2Jgone\n"}}),
		l.Deferred(ctx, 1, time.Now().Add(time.Hour), "451 later"),
	)
}

// TestTables holds what operators read against the golden files.
func TestTables(t *testing.T) {
	now := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	var out bytes.Buffer
	p := printer{w: &out, now: func() time.Time { return now }}
	bots := []admin.Bot{
		{Address: "dice@chat.test", Name: "Würfel", Version: "1.2.0", Contact: "mailto:author@example.org", State: admin.StateOK,
			LastRun: ago(3 * time.Minute), NextRun: now.Add(7 * time.Minute), Runs: 120, Disk: 1_234_567},
		{Address: "b3x9q@chat.test", Name: "evil\x1b[2J\nname", Version: "1", Contact: "https://i.delta.chat/#abc", State: admin.StatePaused,
			Why: "since 2026-01-31 09:00 UTC: asks for passwords", LastRun: ago(72 * time.Hour), Runs: 4, Errors: 3, SetAside: 1, Unsent: 2, Disk: 999},
		{Address: "new@chat.test", Name: "New", Version: "0.1", Contact: "mailto:a@b", State: admin.StateOK},
		{Address: "busy@chat.test", Name: "Busy", Version: "2", Contact: "mailto:a@b", State: admin.StateOver,
			Why: "until 2026-01-31 12:41 UTC: 36s of CPU time an hour"},
	}
	runs := admin.Runs{
		Runs: []admin.Run{
			{ID: 17, Bot: "dice@chat.test", Jobs: []int64{40, 41}, Ended: ago(5 * time.Second), Committed: true,
				Record: bot.RunRecord{Status: bot.RunOK, CPU: 12 * time.Millisecond, Wall: 90 * time.Millisecond, Memory: 8 << 20}},
			{ID: 16, Bot: "b3x9q@chat.test", Jobs: []int64{39}, Ended: ago(2 * time.Hour),
				Record: bot.RunRecord{Status: bot.RunTimeout, CPU: 30 * time.Second, Wall: 30 * time.Second, Memory: 128 << 20, Message: "took longer than 30s\n" + strings.Repeat("x", 200)}},
			{ID: 15, Bot: "dice@chat.test", Jobs: []int64{}, Ended: ago(3 * time.Hour), Committed: true, Record: bot.RunRecord{Status: bot.RunOK, Schedule: "0 8 * * *"}},
		},
		SetAside: []admin.SetAside{{Job: 39, Bot: "b3x9q@chat.test", Accepted: ago(2 * time.Hour), Attempts: 5, Size: 3000, Why: "core ended"}},
	}
	usage := admin.Usage{
		Bots: []admin.BotUsage{{Bot: "dice@chat.test", CPUHour: 1200 * time.Millisecond, CPUDay: 12 * time.Second, CoreDay: 40 * time.Second, InHour: 12, InDay: 120, RunsDay: 120, Disk: 1_234_567}},
		Host: admin.HostUsage{Bots: 1, Disk: 1_234_567, Ledger: 400_000, Free: 7_000_000_000, CPU: 52 * time.Second},
	}
	full := admin.HostUsage{Bots: 1000, MaxBots: 1000, Disk: 4_900_000_000, MaxDisk: 5_000_000_000, Ledger: 4_000_000, Free: 7_000_000_000,
		CPU: 30*time.Minute + time.Second, MaxCPU: 30 * time.Minute, Over: "the host: 30m0s of CPU time an hour", OverTill: now.Add(4 * time.Minute)}
	outbox := []admin.Waiting{
		{Bot: "dice@chat.test", To: []bot.Address{"user@chat.test"}, Size: 2500, Said: ago(time.Hour), Tries: 3, Next: now.Add(4 * time.Minute), LastError: "451 4.7.1 try again later"},
		{Bot: "dice@chat.test", To: []bot.Address{"a@b", "c@d"}, Size: 2500, Said: ago(time.Second)},
		{Bot: "dice@chat.test", To: []bot.Address{"gone@chat.test"}, Size: 2500, Said: ago(50 * time.Hour), Tries: 1, LastError: "550 no such user", GivenUp: true},
	}
	log := admin.Run{ID: 17, Started: now, Record: bot.RunRecord{Status: bot.RunError, Message: "main.js:3: no dice", Log: "one\ttwo\n  \x1b[31mred\x1b[0m\nthree"}}
	for _, test := range []struct {
		name   string
		colour bool
		print  func() error
	}{
		{"bots", false, func() error { return p.bots(bots) }},
		{"bots-none", false, func() error { return p.bots(nil) }},
		{"bots-terminal", true, func() error { return p.bots(bots) }},
		{"runs", false, func() error { return p.runs(runs) }},
		{"usage", false, func() error { return p.usage(usage) }},
		{"host", false, func() error { return p.whole(full) }},
		{"outbox", false, func() error { return p.outbox(outbox) }},
		{"log", false, func() error { return p.log(log) }},
	} {
		out.Reset()
		p.colour = test.colour
		if err := test.print(); err != nil {
			t.Fatal(err)
		}
		golden := filepath.Join("testdata", "tables", test.name+".txt")
		if *update {
			if err := os.WriteFile(golden, out.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil || out.String() != string(want) {
			t.Errorf("%s: %v\ngot\n%s\nwant\n%s", test.name, err, out.String(), want)
		}
	}
}

// Without a terminal, nothing is coloured.
func TestColourIsForTerminals(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if newPrinter(f).colour || newPrinter(io.Discard).colour {
		t.Error("a file is coloured")
	}
}

func TestFlagsMayComeBehindArguments(t *testing.T) {
	for line, want := range map[string]string{
		"dice -f": "dice f", "-f dice": "dice f", "dice": "dice", "-- -f": "-f", "dice -- -f": "dice -f", "a b -f c": "a b c f", "": "",
	} {
		flags := flag.NewFlagSet("", flag.ContinueOnError)
		f := flags.Bool("f", false, "")
		rest, err := parseAnywhere(flags, strings.Fields(line))
		got := strings.Join(rest, " ")
		if *f {
			got += " f"
		}
		if err != nil || got != want {
			t.Errorf("%q: %q, %v, want %q", line, got, err, want)
		}
	}
}

// The host tidies at the start and then once a day.
func TestTidyIsDaily(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		began := time.Now()
		var at []time.Duration
		go every(ctx, tidyEvery, func() { at = append(at, time.Since(began)) })
		time.Sleep(49 * time.Hour)
		stop()
		synctest.Wait()
		if len(at) != 3 || at[0] != 0 || at[1] != 24*time.Hour || at[2] != 48*time.Hour {
			t.Errorf("tidied after %v", at)
		}
	})
}
