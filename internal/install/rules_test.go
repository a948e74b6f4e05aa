package install

import (
	"context"
	"crypto/rand"
	"strings"
	"sync"
	"testing"
	"time"

	"mayfly/internal/bot"
	"mayfly/internal/bundle"
	"mayfly/internal/ledger"
)

const other = bot.Address("other@example.org")

// installOther makes another bot of the host, some minutes after the host's time.
func (h *host) installOther(addr bot.Address, minutes int) {
	h.t.Helper()
	at := h.installer.Now().Add(time.Duration(minutes) * time.Minute)
	if err := h.ledger.Install(h.t.Context(), ledger.Bot{Address: addr, Digest: "other", Updated: at}); err != nil {
		h.t.Fatal(err)
	}
}

func TestRules(t *testing.T) {
	big := bundle.File{Path: "big", Data: make([]byte, 2e6)}
	rand.Read(big.Data)
	for name, test := range map[string]struct {
		rules  Rules
		before func(*host) // nil: a host without bots
		want   string      // in the refusal; "" if there is none
	}{
		"everyone":           {Rules{Who: Everyone}, nil, ""},
		"listed by address":  {Rules{Who: Listed, Listed: []string{string(other), string(addr)}}, nil, ""},
		"listed by domain":   {Rules{Who: Listed, Listed: []string{"@example.org"}}, nil, ""},
		"not listed":         {Rules{Who: Listed, Listed: []string{string(other), "@ample.org", "@org"}}, nil, "[install] who: dice@example.org is not on the list of those who may install on this host: ask the operator to list it"},
		"nobody":             {Rules{Who: Nobody, Listed: []string{string(addr)}}, nil, "[install] who: nobody may install on this host: ask the operator"},
		"no rule is nobody":  {Rules{}, nil, "[install] who: nobody may install"},
		"below the rate":     {Rules{Who: Everyone, PerHour: 2}, func(h *host) { h.installOther(other, 0) }, ""},
		"above the rate":     {Rules{Who: Everyone, PerHour: 1}, func(h *host) { h.installOther(other, -20) }, "[install] installs_per_hour: 1 bots or new versions were installed on this host within an hour, and the operator allows 1: put the message into the folder again after 2026-05-01 12:41 UTC, or ask the operator"},
		"far above the rate": {Rules{Who: Everyone, PerHour: 1}, func(h *host) { h.installOther(other, -20); h.installOther("third@example.org", -10) }, "after 2026-05-01 12:51 UTC"},
		"an hour ago":        {Rules{Who: Everyone, PerHour: 1}, func(h *host) { h.installOther(other, -61) }, ""},
		"room for a bot":     {Rules{Who: Everyone, Bots: 2}, func(h *host) { h.installOther(other, 0) }, ""},
		"too many bots":      {Rules{Who: Everyone, Bots: 1}, func(h *host) { h.installOther(other, 0) }, "[install] bots: this host has 1 bots, and the operator allows 1: ask the operator"},
		"room on the disk":   {Rules{Who: Everyone, Disk: 3e6}, nil, ""},
		"no room":            {Rules{Who: Everyone, Disk: 1e6}, nil, "this bundle would take 2.0 MB more, and the operator allows 1MB: make the bundle smaller, or ask the operator"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.installer.Rules = test.rules
			if test.before != nil {
				test.before(h)
			}
			h.append(pack(t, "1.0.0", big))
			if test.want == "" {
				h.want(Result{Changed: true, State: Installed}, "1.0.0")
				return
			}
			h.want(Result{State: Refused}, "")
			if got := text(t, h.answers()[0]); !strings.Contains(got, test.want) {
				t.Errorf("answered %s", got)
			}
			if h.checks != 0 {
				t.Error("a sandbox was opened for a bundle that was to be refused")
			}
		})
	}
}

// Updates count for the rate and not for the number of bots; the same bundle again and an uninstall break no rule.
func TestRulesForInstalledBots(t *testing.T) {
	h := newHost(t)
	h.installer.Rules = Rules{Who: Everyone, PerHour: 3, Bots: 1}
	now := h.installer.Now()
	h.installer.Now = func() time.Time { return now }
	h.append(pack(t, "1"))
	h.want(Result{Changed: true, State: Installed}, "1")
	h.append(pack(t, "2"))
	h.want(Result{Changed: true, State: Updated}, "2")
	h.append(pack(t, "2"))
	h.want(Result{State: Installed}, "2")
	h.append(rollback(t))
	h.want(Result{Changed: true, State: Updated}, "1")
	for _, m := range [][]byte{pack(t, "3"), rollback(t)} {
		h.append(m)
		h.want(Result{State: Refused}, "1")
	}
	h.append(pack(t, "1"))
	h.want(Result{State: Installed}, "1")
	now = now.Add(time.Hour + time.Minute)
	h.append(rollback(t))
	h.want(Result{Changed: true, State: Updated}, "2")
	h.installer.Rules = Rules{Who: Nobody}
	h.append(rollback(t))
	h.want(Result{State: Refused}, "2")
	h.append(uninstall(t))
	h.want(Result{Changed: true, State: Uninstalled}, "")
}

// All broken rules are told at once, beside the faults of the bundle.
func TestAllBrokenRulesAtOnce(t *testing.T) {
	h := newHost(t)
	h.installOther(other, -5)
	h.installer.Rules = Rules{Who: Nobody, PerHour: 1, Bots: 1}
	h.append(draft("x", "Content-Disposition: attachment; filename=main.js\n\n1"))
	h.want(Result{State: Refused}, "")
	got := text(t, h.answers()[0])
	for _, want := range []string{"bot.toml: is missing", "[install] who:", "[install] installs_per_hour:", "[install] bots:"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in %s", want, got)
		}
	}
}

// Two accounts at the same moment do not both get the last place.
func TestTheLastPlaceIsGivenOnce(t *testing.T) {
	h := newHost(t)
	h.installer.Rules = Rules{Who: Everyone, Bots: 1}
	b, err := bundle.FromFiles([]bundle.File{{Path: "bot.toml", Data: []byte(manifest("1"))}, {Path: "main.js"}}, bundle.DefaultCeilings())
	if err != nil {
		t.Fatal(err)
	}
	barrier := &meeting{host: h}
	barrier.both.Add(2)
	h.installer.Checker = barrier
	outcomes := make(chan outcome, 2)
	for _, a := range []bot.Address{addr, other} {
		go func() {
			out, err := h.installer.perform(t.Context(), a, request{bundle: b}, ledger.Cursor{UIDValidity: 1, UID: 1})
			if err != nil {
				t.Error(err)
			}
			outcomes <- out
		}()
	}
	first, second := <-outcomes, <-outcomes
	if (first.state == Refused) == (second.state == Refused) {
		t.Errorf("one place, and they are told %q and %q", first.state, second.state)
	}
}

// Whoever lists addresses in the configuration reads what is wrong with an entry.
func TestParseListed(t *testing.T) {
	for entry, want := range map[string]string{"Dice@Example.org": "dice@example.org", "@Example.ORG": "@example.org", "@": "", "example.org": "", "": ""} {
		got, err := ParseListed(entry)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v, want %q", entry, got, err, want)
		}
	}
}

// meeting is a Checker that lets nobody through before both are there.
type meeting struct {
	*host
	both sync.WaitGroup
}

func (m *meeting) Check(context.Context, *bundle.Bundle) error {
	m.both.Done()
	m.both.Wait()
	return nil
}
