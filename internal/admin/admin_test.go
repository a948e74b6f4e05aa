package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"mayfly/internal/backup"
	"mayfly/internal/bot"
	"mayfly/internal/ledger"
)

const dice, echo, other = bot.Address("dice@chat.test"), bot.Address("echo@chat.test"), bot.Address("echo@other.test")

// host plays what is not in the ledger.
type host struct {
	woken   []bot.Address
	evicted []string
	untold  error
	over    map[bot.Address]string
	archive string
	fail    error
}

func (h *host) Evict(_ context.Context, addr bot.Address, why string) (Evicted, error) {
	h.evicted = append(h.evicted, fmt.Sprint(addr, " ", why))
	return Evicted{Ended: h.untold == nil, Untold: h.untold}, nil
}
func (h *host) Wake(addr bot.Address)           { h.woken = append(h.woken, addr) }
func (h *host) Disk(bot.Address) (int64, error) { return 1000, nil }
func (h *host) Over(_ context.Context, addr bot.Address) (string, time.Time, error) {
	return h.over[addr], time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC), nil
}
func (h *host) CPU(context.Context) (time.Duration, error) { return time.Minute, nil }
func (h *host) Ceilings() Ceilings                         { return Ceilings{Bots: 10, Disk: 1e6, CPUHour: time.Hour} }
func (h *host) Free() (int64, error)                       { return 5000, nil }
func (h *host) Backup(_ context.Context, w io.Writer) ([]backup.Problem, error) {
	_, err := io.WriteString(w, h.archive)
	return []backup.Problem{{Bot: dice, What: "a\nb", Mend: "ü"}}, errors.Join(err, h.fail)
}
func (h *host) Verify(context.Context) ([]backup.Problem, error) { return nil, nil }

// asked is a desk behind its socket, in a folder whose name is too long for a socket.
type asked struct {
	*Client
	desk  *Desk
	host  *host
	state string
}

func newDesk(t *testing.T) *asked {
	t.Helper()
	state := filepath.Join(t.TempDir(), strings.Repeat("long", 30))
	must(t, os.Mkdir(state, 0o700))
	l, err := ledger.Open(t.Context(), filepath.Join(state, "ledger.db"))
	must(t, err)
	t.Cleanup(func() { l.Close() })
	for addr, name := range map[bot.Address]string{dice: "Dice", echo: "Echo", other: "Echo"} {
		must(t, l.Install(t.Context(), ledger.Bot{Address: addr, Digest: "d", Manifest: bot.Manifest{Name: name, Version: "1", Contact: "mailto:a@b"}}))
	}
	h := &host{archive: "an archive"}
	d := &Desk{Ledger: l, Host: h, Live: true, Now: time.Now}
	s, err := Listen(state, d, slog.New(slog.NewTextHandler(t.Output(), nil)))
	must(t, err)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- s.Serve(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(filepath.Join(state, SocketName)); err == nil {
			t.Error("the socket was left behind")
		}
	})
	return &asked{Dial(state), d, h, state}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestSocketIsForTheOwnerAlone(t *testing.T) {
	a := newDesk(t)
	info, err := os.Stat(filepath.Join(a.state, SocketName))
	must(t, err)
	if info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("the socket's mode is %v", info.Mode())
	}
}

// A bot is found by its address, its local part or its name, and only where that stands for one.
func TestNames(t *testing.T) {
	a := newDesk(t)
	for name, want := range map[string]string{
		"dice@chat.test": "dice@chat.test", "DICE": "dice@chat.test", "Dice": "dice@chat.test", "echo@chat.test": "echo@chat.test",
		"echo":  `not now: "echo" may be echo@chat.test or echo@other.test: write the address`,
		"dic":   `not found: no bot is called "dic": mayfly bots lists them`,
		"a\x00": `not found: no bot is called "a\x00": mayfly bots lists them`,
	} {
		done, err := a.Pause(t.Context(), Act{Bot: name})
		got := string(done.Bot)
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q: %s, want %s", name, got, want)
		}
	}
	bots, err := a.Bots(t.Context(), Which{})
	must(t, err)
	if len(bots) != 3 || bots[0].State != StatePaused || bots[2].State != StateOK || bots[0].Contact != "mailto:a@b" || bots[0].Disk != 1000 {
		t.Errorf("bots: %+v", bots)
	}
}

func TestActs(t *testing.T) {
	a, ctx := newDesk(t), t.Context()
	_, err := a.Pause(ctx, Act{"dice", "junk"})
	must(t, err)
	bots, err := a.Bots(ctx, Which{"dice"})
	must(t, err)
	if len(bots) != 1 || !strings.HasSuffix(bots[0].Why, ": junk") {
		t.Errorf("paused: %+v", bots)
	}
	a.host.over = map[bot.Address]string{dice: "36s of CPU time an hour"}
	if bots, err = a.Bots(ctx, Which{"dice"}); err != nil || bots[0].State != StatePaused {
		t.Errorf("paused and over a limit: %+v, %v", bots, err)
	}
	_, err = a.Resume(ctx, Act{Bot: "dice"})
	must(t, err)
	if bots, err = a.Bots(ctx, Which{}); err != nil || bots[0].State != StateOver || bots[0].Why != "until 2026-01-31 12:00 UTC: 36s of CPU time an hour" ||
		bots[1].State != StateOK {
		t.Errorf("over a limit: %+v, %v", bots, err)
	}
	done, err := a.Remove(ctx, Act{"dice", "junk"})
	must(t, err)
	if want := (Removed{Done: Done{Bot: dice}, Disk: 1000, Ended: true}); done != want || !reflect.DeepEqual(a.host.evicted, []string{"dice@chat.test junk"}) {
		t.Errorf("removed %+v: %+v, want %+v", a.host.evicted, done, want)
	}
	a.host.untold = errors.New("relay away")
	done, err = a.Remove(ctx, Act{"dice", ""})
	must(t, err)
	if !strings.Contains(done.Note, "relay away: write to mailto:a@b") {
		t.Errorf("note %q", done.Note)
	}

	l := a.desk.Ledger
	j, err := l.Accept(ctx, ledger.Job{Bot: dice, Cursor: ledger.Cursor{UIDValidity: 1, UID: 1}, Size: 7})
	must(t, err)
	must(t, l.Fail(ctx, []int64{j.ID}, bot.RunRecord{Status: bot.RunInternal, Message: "core died"}, true))
	runs, err := a.Runs(ctx, RunsQuestion{Failed: true})
	must(t, err)
	if len(runs.Runs) != 1 || len(runs.SetAside) != 1 || runs.SetAside[0].Job != j.ID || runs.SetAside[0].Why != "core died" {
		t.Errorf("failed: %+v", runs)
	}
	_, err = a.Replay(ctx, Job{j.ID})
	must(t, err)
	if _, err = a.Replay(ctx, Job{j.ID}); err == nil || !strings.Contains(err.Error(), "is accepted, not set aside") {
		t.Errorf("replayed twice: %v", err)
	}
	if _, err = a.Replay(ctx, Job{99}); err == nil || !strings.Contains(err.Error(), "no job 99") {
		t.Errorf("replayed nothing: %v", err)
	}
	must(t, l.Commit(ctx, ledger.Commit{Bot: dice, UIDNext: 2, Outgoing: []ledger.Outgoing{{To: []bot.Address{"u@b"}, Path: "x"}},
		Run: &bot.RunRecord{Status: bot.RunOK, Log: "hello", CPU: time.Second}, Ended: time.Now()}))
	mails, err := a.Outbox(ctx, Which{})
	must(t, err)
	must(t, l.Deferred(ctx, 1, time.Now().Add(time.Hour), "4xx"))
	retried, err := a.Retry(ctx, Which{"dice"})
	must(t, err)
	if len(mails) != 1 || retried.Mails != 1 || !reflect.DeepEqual(a.host.woken, []bot.Address{dice, dice, dice}) {
		t.Errorf("outbox %+v, %d tried again, woken %v", mails, retried.Mails, a.host.woken)
	}
	logs, err := a.Logs(ctx, LogsQuestion{Bot: "dice", After: runs.Runs[0].ID})
	must(t, err)
	if len(logs) != 1 || logs[0].Record.Log != "hello" {
		t.Errorf("logs: %+v", logs)
	}
	usage, err := a.Usage(ctx, Which{"dice"})
	must(t, err)
	if len(usage.Bots) != 1 || usage.Bots[0].CPUHour != time.Second || usage.Bots[0].InDay != 1 || usage.Host.Bots != 3 || usage.Host.Free != 5000 || usage.Host.Ledger == 0 {
		t.Errorf("usage: %+v", usage)
	}
	whole, err := a.Whole(ctx, Nothing{})
	if err != nil || whole != usage.Host || whole.MaxBots != 10 || whole.MaxDisk != 1e6 || whole.CPU != time.Minute || whole.MaxCPU != time.Hour {
		t.Errorf("the host: %+v, %v", whole, err)
	}
	if found, err := a.Verify(ctx, Nothing{}); err != nil || len(found) != 0 {
		t.Errorf("verify: %v, %v", found, err)
	}
}

// A backup comes whole with its problems, or not at all.
func TestBackupOverTheSocket(t *testing.T) {
	a := newDesk(t)
	a.host.archive = strings.Repeat("x", 1<<20)
	var got bytes.Buffer
	found, err := a.Backup(t.Context(), &got)
	if err != nil || got.String() != a.host.archive || len(found) != 1 || found[0] != (backup.Problem{Bot: dice, What: "a\nb", Mend: "ü"}) {
		t.Errorf("%d bytes, %v, %v", got.Len(), found, err)
	}
	a.host.fail = errors.New("disk\nfull")
	if _, err = a.Backup(t.Context(), io.Discard); err == nil || err.Error() != "disk full" {
		t.Errorf("a backup that failed: %v", err)
	}
}

// What is no question is refused, in bounded memory.
func TestQuestionsAreBounded(t *testing.T) {
	a := newDesk(t)
	for body, want := range map[string]int{
		`{}`:                   200,
		``:                     400,
		`{"bot":"dice","x":1}`: 400,
		`{} {}`:                400,
		`[]`:                   400,
		`{"bot":7}`:            400,
		`{"bot":"nobody"}`:     404,
		`{"bot":"` + strings.Repeat("x", 70_000) + `"}`: 400,
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://mayfly/v1/bots", strings.NewReader(body))
		must(t, err)
		answer, err := a.http.Do(r)
		must(t, err)
		text, err := io.ReadAll(answer.Body)
		must(t, errors.Join(err, answer.Body.Close()))
		if answer.StatusCode != want || !json.Valid(text) {
			t.Errorf("%.40q: %d %s, want %d", body, answer.StatusCode, text, want)
		}
	}
	if _, err := ask[Nothing](t.Context(), a.Client, "nothing", Nothing{}); err == nil || !strings.Contains(err.Error(), "another version") {
		t.Errorf("an unknown question: %v", err)
	}
	if _, err := Dial(t.TempDir()).Bots(t.Context(), Which{}); err == nil || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("without a daemon: %v", err)
	}
}

func FuzzQuestion(f *testing.F) {
	f.Add([]byte(`{"bot": "dice", "failed": true, "after": 3}`))
	f.Add([]byte(`{}{}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var q RunsQuestion
		if err := parse(text, &q); err != nil && !errors.Is(err, ErrQuestion) {
			t.Error(err)
		}
	})
}
